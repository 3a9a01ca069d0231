package p2p

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A pre-shared key wraps each TCP connection, before anything else is said, in a cipher that all nodes know: who lacks the key reads
// noise and is not understood. It replaces nothing, and costs half of the throughput. QUIC has no such thing.

const (
	pskHeader = "/key/swarm/psk/1.0.0/\n/base16/\n" // of libp2p's key files
	pskSize   = 32
	maxPSK    = 4 << 10
)

// NewPSK makes a pre-shared key.
func NewPSK() pnet.PSK {
	key := make([]byte, pskSize)
	_, _ = rand.Read(key) // never fails
	return key
}

// SavePSK writes a pre-shared key to a file that its owner only can read, in libp2p's form.
func SavePSK(path string, key pnet.PSK) error {
	if err := ReplaceFile(path, []byte(pskHeader+hex.EncodeToString(key)+"\n")); err != nil {
		return grid.Errorf(grid.NoSpace, "p2p: keep the pre-shared key in %s: %w", path, err).Hint("check that there is room, and that you may write there")
	}
	return nil
}

// LoadPSK reads a pre-shared key; nil when there is no such file. One that others can read is refused with Denied, as are
// identities.
func LoadPSK(path string) (pnet.PSK, error) {
	data, info, err := readSmall(os.OpenFile, path, maxPSK)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, grid.Errorf(grid.Corrupt, "p2p: read the pre-shared key %s: %w", path, err).Hint("copy the file from another member's home")
	case !private(info, 0o077):
		return nil, grid.Errorf(grid.Denied, "p2p: the pre-shared key %s can be read by others (mode %04o)", path, info.Mode().Perm()).Hint("chmod 600 %s", path)
	}
	key, err := pnet.DecodeV1PSK(bytes.NewReader(data))
	if err != nil {
		return nil, grid.Errorf(grid.Corrupt, "p2p: the pre-shared key %s: %w", path, err).Hint("copy the file from another member's home")
	}
	return key, nil
}

// checkPSK refuses what cannot be had with a pre-shared key.
func checkPSK(key pnet.PSK, listen []ma.Multiaddr) error {
	if len(key) == 0 {
		return nil
	}
	if len(key) != pskSize {
		return grid.Errorf(grid.Invalid, "p2p: a pre-shared key of %d bytes, want %d", len(key), pskSize)
	}
	for _, a := range listen {
		if !isTCP(a) {
			return grid.Errorf(grid.Invalid, "p2p: listen on %s: with a pre-shared key there is TCP only", a).Hint("leave that address out")
		}
	}
	return nil
}

// unreached is the advice for a connection that could not be made. What a wrong key leads to looks like any node that does not
// understand us.
func unreached(err error, key pnet.PSK) string {
	switch {
	case !strings.Contains(err.Error(), "security protocol"):
		return "is a node running there, and may this machine reach it?"
	case len(key) > 0:
		return "what answers there does not understand this node: perhaps it has not the pre-shared key that this node has, or another one; " +
			"compare the files swarm-psk of both homes"
	}
	return "what answers there does not understand this node: perhaps it has a pre-shared key, and this one has none; join with a token of that swarm"
}
