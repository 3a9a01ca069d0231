package ledger

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// DefaultRealm is the name of a realm that nobody has named.
const DefaultRealm = "default"

// MaxRealmName bounds a realm's name, in bytes.
const MaxRealmName = 64

// CheckRealmName refuses what is no name for a realm.
func CheckRealmName(name string) error {
	if name == "" || len(name) > MaxRealmName || name[0] == '-' || strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}) >= 0 {
		return grid.Errorf(grid.Invalid, "%.80q is not a name for a realm", name).Hint("use up to %d letters, digits, '.', '_' and '-'", MaxRealmName)
	}
	return nil
}

// state is what a node remembers of its realm: the file "realm" in the ledger's folder, as JSON.
type state struct {
	Format int    `json:"format"`
	Node   string `json:"node"` // whose folder it is
	Name   string `json:"name"`
	ID     string `json:"id"`
	// Incarnation counts the starts of the node. The realm remembers it, and so notices an old copy of the disk.
	Incarnation uint64 `json:"incarnation"`
	Replica     bool   `json:"replica"` // it keeps a copy; else it is a client
	// Fresh says that the copy in the folder is not of this realm, or not of use any more: it is deleted before anything else.
	Fresh bool `json:"fresh,omitempty"`
	// Held says that there was a copy once, so that it is missed when it is gone.
	Held  bool          `json:"held,omitempty"`
	Known []knownServer `json:"known"` // replicas of the realm, as far as the node knows
	// VoteFrom is the index that the log must have reached before this replica votes, itself or for others. Its copy began anew, and it may
	// have had a vote and acknowledged what is in that part of the log: a candidate that lacks it, and counts on this vote, must not get it.
	VoteFrom uint64 `json:"vote_from,omitempty"`
	// Joining is the realm that the node was about to join when it wrote this. What it holds may be there already.
	Joining string `json:"joining,omitempty"`
	// Former are realms of one that this node took into others: they are no more, and who was removed from them may not know.
	Former []string `json:"former,omitempty"`
	// Recovered says that the others are lost, and to be taken off the list of members.
	Recovered bool `json:"recovered,omitempty"`
}

// knownServer is a replica in the file.
type knownServer struct {
	ID          peer.ID `json:"id"`
	Voter       bool    `json:"voter"`
	Incarnation uint64  `json:"incarnation,omitempty"` // as far as it was known
}

// stateFormat is the only one so far.
const stateFormat = 1

// Bounds on the file.
const (
	maxState  = 1 << 20
	maxKnown  = 64
	maxFormer = 16
	maxRealm  = 64 // bytes of an ID
	stateFile = "realm"
)

func readState(dir string, self peer.ID) (st state, found bool, err error) {
	path := filepath.Join(dir, stateFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, false, nil
	}
	if err != nil {
		return state{}, false, grid.Errorf(grid.Internal, "ledger: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return state{}, false, grid.Errorf(grid.Internal, "ledger: read %s: %w", path, err)
	}
	st, err = decodeState(data)
	if errors.Is(err, grid.Unsupported) {
		return state{}, false, grid.Errorf(grid.Unsupported, "ledger: %s: %w", path, err).
			Hint("install the version that wrote it, or a newer one; or restore a backup into another home")
	}
	if err != nil {
		return state{}, false, grid.Errorf(grid.CodeOf(err), "ledger: %s: %w", path, err).
			Hint("the disk has changed it: check the disk. To begin anew with an empty ledger, move %s away", dir)
	}
	if st.Node != self.String() {
		return state{}, false, grid.Errorf(grid.Conflict, "ledger: %s belongs to node %s, not to this one, %s", dir, st.Node, self).
			Hint("two nodes must not share one past: move %s away, and this node begins with an empty ledger", dir)
	}
	return st, true, nil
}

func decodeState(data []byte) (st state, err error) {
	if len(data) > maxState {
		return st, grid.Errorf(grid.Corrupt, "it has more than %d bytes", maxState)
	}
	if err := json.Unmarshal(data, &st); err != nil {
		return st, grid.Errorf(grid.Corrupt, "it cannot be read: %w", err)
	}
	switch {
	case st.Format > stateFormat:
		return st, grid.Errorf(grid.Unsupported, "it was written by a newer version, in format %d", st.Format)
	case st.Format < 1, CheckRealmName(st.Name) != nil, st.ID == "", len(st.ID) > maxRealm, len(st.Joining) > maxRealm, len(st.Known) > maxKnown, len(st.Former) > maxFormer, st.Incarnation == 0:
		return st, grid.Errorf(grid.Corrupt, "it makes no sense")
	}
	return st, nil
}

// write makes the state durable.
func (st state) write(dir string) error {
	st.Format = stateFormat
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return grid.Errorf(grid.Internal, "ledger: %w", err)
	}
	path := filepath.Join(dir, stateFile)
	if err := writeDurably(path, append(data, '\n')); err != nil {
		return grid.Errorf(grid.Internal, "ledger: write %s: %w", path, err)
	}
	return nil
}

// writeDurably replaces a file as a whole: after a crash it is the old one or the new one.
func writeDurably(path string, data []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// voters counts those that vote.
func voters(known []knownServer) (n int) {
	for _, s := range known {
		if s.Voter {
			n++
		}
	}
	return n
}

// find finds a replica.
func find(known []knownServer, id peer.ID) (s knownServer, ok bool) {
	i := slices.IndexFunc(known, func(s knownServer) bool { return s.ID == id })
	if i < 0 {
		return knownServer{}, false
	}
	return known[i], true
}
