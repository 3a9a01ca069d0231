package p2p

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	keyBlock   = "PRIVATE KEY" // PEM type of a PKCS #8 key
	maxKeyFile = 16 << 10
)

// LoadIdentity reads the node's key from a file, or makes one there when there is none: an Ed25519 key
// as PKCS #8 in PEM, which openssl reads too, with mode 0600. Processes that start at the same moment
// end up with one and the same key. A file that others can read is refused with Denied, one that
// holds no such key with Corrupt: the key is the node's name, so it is never replaced silently.
func LoadIdentity(path string) (crypto.PrivKey, error) {
	key, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createIdentity(path); err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "p2p: make the identity %s: %w", path, err).
			Hint("check that its folder is on a file system with room and that you may write there")
	}
	return readIdentity(path) // what is there now, be it ours or that of another process
}

func readIdentity(path string) (crypto.PrivKey, error) {
	data, info, err := readSmall(os.OpenFile, path, maxKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case errors.Is(err, fs.ErrPermission):
		return nil, grid.Errorf(grid.Denied, "p2p: read the key: %w", err).
			Hint("run as the user that owns the file")
	case err != nil:
		return nil, grid.Errorf(grid.Corrupt, "p2p: read the key %s: %w", path, err).Hint("restore the file from a backup%s", orNew(path))
	case !private(info, 0o077):
		return nil, grid.Errorf(grid.Denied, "p2p: the key %s can be read by others (mode %04o)", path, info.Mode().Perm()).
			Hint("chmod 600 %s%s; if somebody has read it, it has to be replaced", path, orNew(path))
	}
	key, err := parseIdentity(data)
	if err != nil {
		return nil, grid.Errorf(grid.Corrupt, "p2p: the key %s: %w", path, err).Hint("restore the file from a backup%s", orNew(path))
	}
	return key, nil
}

// orNew is the other way out when a node's own key is of no use. Keys of a swarm are never made anew by themselves, so nobody is
// told to remove one.
func orNew(path string) string {
	if filepath.Base(path) != "identity" {
		return ""
	}
	return ", or remove it: the node then has another key, and joins its private swarm again with a token"
}

func parseIdentity(data []byte) (crypto.PrivKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("not a private key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ed, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key")
	}
	return crypto.UnmarshalEd25519PrivateKey(ed)
}

// createIdentity writes a new key. It is no error when the file has come into being meanwhile.
func createIdentity(path string) error {
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed)
	if err != nil {
		return err
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	temp, err := writeTemp(folder, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), true)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	// Unlike a rename, a link does not replace what another process has put there.
	if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
