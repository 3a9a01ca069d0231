package ledger

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// raftDir is the copy in the folder of a node's part in its realm.
const raftDir = "raft"

// Alone reports whether a node that is not running has the only copy of its realm's ledger: then whoever opens its folder
// can go on with it, without a network.
func Alone(dir string, self peer.ID) (bool, error) {
	st, found, err := readState(dir, self)
	if err != nil || !found {
		return false, err
	}
	_, listed := find(st.Known, self)
	return st.Replica && st.Held && !st.Fresh && st.Joining == "" && listed && len(st.Known) == 1, nil
}

// LastKnown reads what a node that is not running knew last of its realm's ledger; nil when its folder holds no copy. Newer
// things may have happened since, and the last few may be missing that were not known to be agreed upon.
func LastKnown(ctx context.Context, dir string, self peer.ID) (*machine.Machine, error) {
	return lastKnown(ctx, dir, self, openFiles)
}

func lastKnown(ctx context.Context, dir string, self peer.ID, open func(string) (Disk, error)) (*machine.Machine, error) {
	st, found, err := readState(dir, self)
	if err != nil || !found || !st.Replica || st.Fresh || !st.Held {
		return nil, err
	}
	d, err := open(filepath.Join(dir, raftDir))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return replay(ctx, d)
}

// replay builds the machine from the newest snapshot and the log behind it.
func replay(ctx context.Context, d Disk) (*machine.Machine, error) {
	m := machine.New(machine.Config{})
	snapshots, err := d.Snapshots.List()
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "ledger: %w", err)
	}
	next := uint64(1)
	if len(snapshots) > 0 {
		_, r, err := d.Snapshots.Open(snapshots[0].ID)
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "ledger: %w", err)
		}
		defer r.Close()
		if err := m.Restore(r); err != nil {
			return nil, err
		}
		_, _ = io.Copy(io.Discard, r)
		next = snapshots[0].Index + 1
	}
	last, err := d.Log.LastIndex()
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "ledger: %w", err)
	}
	if t, ok := d.Log.(raft.CommitTrackingLogStore); ok {
		committed, err := t.GetCommitIndex()
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "ledger: %w", err)
		}
		if committed > 0 {
			last = min(last, committed)
		}
	}
	first, err := d.Log.FirstIndex()
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "ledger: %w", err)
	}
	if first > next && last >= next {
		return nil, grid.Errorf(grid.Corrupt, "ledger: its log begins at %d, and the newest snapshot ends before %d", first, next).
			Hint("`grid up`: the node gets a new copy from the others")
	}
	var entry raft.Log
	for ; next <= last; next++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := d.Log.GetLog(next, &entry); err != nil {
			return nil, grid.Errorf(grid.Internal, "ledger: entry %d: %w", next, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		if _, err := m.Apply(entry.Index, entry.Data); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Recovered tells what became of a recovery.
type Recovered struct {
	Realm    string `json:"realm"`    // its name
	Old      string `json:"old_id"`   // the realm's ID before
	New      string `json:"realm_id"` // and after
	Voters   int    `json:"voters"`   // that it had, as far as this node knew
	Entries  uint64 `json:"entries"`
	Revision uint64 `json:"revision"`
}

// Recover makes a realm of one from the copy of a node that is not running, for when the majority of a realm's voters is
// lost for good. What was acknowledged and had not reached this copy is lost. The realm gets a new ID: should the others
// come back after all, they are another realm, and cannot undo what happens in this one.
func Recover(ctx context.Context, dir string, self peer.ID) (Recovered, error) {
	return recoverWith(ctx, dir, self, openFiles)
}

func recoverWith(ctx context.Context, dir string, self peer.ID, open func(string) (Disk, error)) (rec Recovered, err error) {
	st, found, err := readState(dir, self)
	switch {
	case err != nil:
		return rec, err
	case !found, !st.Replica, st.Fresh, !st.Held:
		return rec, grid.Errorf(grid.NotFound, "ledger: this node keeps no copy of the ledger").Hint("recover it on a node that did: a voter, or else a learner")
	case len(st.Known) == 1:
		return rec, grid.Errorf(grid.Invalid, "ledger: the realm has this one replica, there is nothing to recover").Hint("`grid up` starts it")
	}
	d, err := open(filepath.Join(dir, raftDir))
	if err != nil {
		return rec, err
	}
	defer d.Close()
	// Raft applies all of the log, agreed upon or not: some of it may be what others had acknowledged.
	m := machine.New(machine.Config{})
	_, transport := raft.NewInmemTransport(raft.ServerAddress(address(self)))
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(address(self))
	conf.Logger = newLogger(slog.New(slog.DiscardHandler))
	g := &guard{LogStore: d.Log, stable: d.Stable}
	alone := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: address(self)}}}
	if err := g.start(func() error {
		return raft.RecoverCluster(conf, &fsm{m: m, guard: g, due: make(chan struct{}, 1)}, g, g, d.Snapshots, transport, alone)
	}); err != nil {
		return rec, grid.Errorf(grid.CodeOf(err), "ledger: recover: %w", err)
	}
	rec = Recovered{Realm: st.Name, Old: st.ID, Voters: voters(st.Known), Revision: m.Revision(), Entries: m.Stats().Entries}
	name, n := st.Name, st.Incarnation
	st.reset(self)
	st.Name, st.Incarnation, st.Fresh, st.Held, st.Recovered = name, n, false, true, true
	rec.New = st.ID
	return rec, st.write(dir)
}
