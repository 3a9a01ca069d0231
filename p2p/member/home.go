package member

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// Names of files in a home.
const (
	bookFile      = "swarm"              // what the node knows of its private swarm; none: it is in an open one
	authorityFile = "swarm-key"          // the key of the swarm's authority, in the homes of those who may use it
	nextKeyFile   = "swarm-key-next"     // the key that is about to take its place
	pskFile       = "swarm-psk"          // the pre-shared key, if the swarm has one
	recoveryFile  = "swarm-recovery-key" // the swarm's first key, until it is moved to a safe place
	maxBookFile   = 256 << 20
)

// Home is what a node's home remembers of its private swarm.
type Home struct {
	Swarm       peer.ID  `cbor:"swarm"`
	Name        string   `cbor:"name,omitempty"`
	Realm       string   `cbor:"realm,omitempty"`   // that members share, as whoever let this node in had it
	Founder     bool     `cbor:"founder,omitempty"` // the swarm was made here
	Shared      bool     `cbor:"psk,omitempty"`     // there must be a pre-shared key
	Peers       []string `cbor:"peers,omitempty"`   // addresses of members, to begin with
	Records     [][]byte `cbor:"records"`
	Revocations [][]byte `cbor:"revocations,omitempty"`
	Successions [][]byte `cbor:"successions,omitempty"` // of the authority's key

	dir string
}

// LoadHome reads what a home remembers; nil when its node is in no private swarm.
func LoadHome(dir string) (*Home, error) {
	name := filepath.Join(dir, bookFile)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxBookFile {
		err = errors.New("it is too long")
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(name)
	}
	h := &Home{dir: dir}
	if err == nil {
		err = grid.Unmarshal(data, h)
	}
	if err == nil && h.Swarm.Validate() != nil {
		err = errors.New("it names no swarm")
	}
	if err != nil {
		return nil, grid.Errorf(grid.Corrupt, "swarm: %s, which holds the node's membership, cannot be read: %w", name, err).
			Hint("restore it from a backup, or remove it and join again with a new token")
	}
	return h, nil
}

// save replaces the file in the home, so that a crash leaves the old one or the new one.
func (h *Home) save() error {
	data, err := grid.Marshal(h)
	if err == nil {
		err = p2p.ReplaceFile(filepath.Join(h.dir, bookFile), data)
	}
	if err != nil {
		return grid.Errorf(grid.NoSpace, "swarm: remember the membership in %s: %w", h.dir, err).Hint("check that there is room, and that you may write there")
	}
	return nil
}

// Move has a home remember what another folder does, instead of what it did.
func Move(from, to string) error {
	for _, name := range []string{pskFile, bookFile} { // the book last: without it there is nothing to move
		err := os.Rename(filepath.Join(from, name), filepath.Join(to, name))
		if err != nil && !(name == pskFile && errors.Is(err, fs.ErrNotExist)) {
			return grid.Errorf(grid.Internal, "swarm: move the membership: %w", err)
		}
	}
	return nil
}

// Forget has a home belong to no private swarm any more. The pre-shared key goes; the authority's key stays, if it is there.
func Forget(dir string) error {
	for _, name := range []string{bookFile, pskFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return grid.Errorf(grid.Internal, "swarm: forget the membership: %w", err)
		}
	}
	return nil
}

// PSK is the swarm's pre-shared key; nil if it has none.
func (h *Home) PSK() (pnet.PSK, error) {
	name := filepath.Join(h.dir, pskFile)
	key, err := p2p.LoadPSK(name)
	if err == nil && key == nil && h.Shared {
		err = grid.Errorf(grid.Denied, "swarm: %s has a pre-shared key, and the file %s, where it should be, is not there", h.Swarm, name).
			Hint("copy it from the home of another member, with mode 0600; or leave and join again with a new token")
	}
	return key, err
}

// share keeps a pre-shared key, nil for none, before the home is saved.
func (h *Home) share(key pnet.PSK) error {
	if h.Shared = key != nil; h.Shared {
		return p2p.SavePSK(filepath.Join(h.dir, pskFile), key)
	}
	if err := os.Remove(filepath.Join(h.dir, pskFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return grid.Errorf(grid.Internal, "swarm: remove the pre-shared key of another swarm: %w", err)
	}
	return nil
}

// Authority is the key of the swarm's authority, if the home has it; else nil. A key that was about to take its place, and has done
// so, is moved there.
func (h *Home) Authority() (crypto.PrivKey, error) {
	l := lineage{swarm: h.Swarm}
	for _, raw := range h.Successions {
		_, _ = l.add(raw, farAway) // it was believed when it was written down
	}
	return h.authority(&l)
}

// farAway is after all times that records say.
var farAway = time.Unix(1<<40, 0)

func (h *Home) authority(l *lineage) (crypto.PrivKey, error) {
	want, disputed := l.authority()
	if disputed {
		return nil, nil
	}
	for _, file := range []string{authorityFile, nextKeyFile} {
		name := filepath.Join(h.dir, file)
		key, err := loadKey(name)
		if err != nil {
			return nil, err
		}
		if key == nil {
			continue
		}
		if id, err := peer.IDFromPrivateKey(key); err != nil || id != want {
			continue
		}
		if file == nextKeyFile {
			if err := os.Rename(name, filepath.Join(h.dir, authorityFile)); err != nil {
				return nil, grid.Errorf(grid.Internal, "swarm: put the authority's new key, which is in %s, into its place: %w", name, err)
			}
		}
		return key, nil
	}
	return nil, nil
}

// loadKey reads a key; nil when there is none.
func loadKey(name string) (crypto.PrivKey, error) {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return p2p.LoadIdentity(name)
}

// hasKey reports whether the home has a file of an authority's key, be it the right one.
func (h *Home) hasKey() bool {
	_, err := os.Stat(filepath.Join(h.dir, authorityFile))
	return err == nil
}

// recovery is the swarm's first key, if the home has it.
func (h *Home) recovery() (crypto.PrivKey, error) {
	name := filepath.Join(h.dir, recoveryFile)
	key, err := loadKey(name)
	if err == nil && key == nil {
		return nil, grid.Errorf(grid.NotFound, "swarm: the recovery key is not in this home").
			Hint("put the file that `grid swarm init` has made there as %s, for as long as this takes", name)
	}
	if err != nil {
		return nil, err
	}
	if id, err := peer.IDFromPrivateKey(key); err != nil || id != h.Swarm {
		return nil, grid.Errorf(grid.Invalid, "swarm: %s is not the recovery key of the swarm %s, to which this node belongs", name, h.Swarm).
			Hint("put the right one there")
	}
	return key, nil
}
