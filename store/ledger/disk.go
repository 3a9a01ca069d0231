package ledger

import (
	"errors"
	"runtime"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Disk is where a replica keeps its log, its vote and its snapshots.
type Disk struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
	Wipe      func() error // closes it and deletes everything
}

// holds reports whether Dir holds a replica: a log, a vote or a snapshot.
func (l *Ledger) holds() (bool, error) {
	l.mode.Lock()
	defer l.mode.Unlock()
	if l.replica() != nil {
		return true, nil
	}
	d, err := l.cfg.OpenDisk(l.cfg.Dir)
	if err != nil {
		return false, err
	}
	holds, err := raft.HasExistingState(d.Log, d.Stable, d.Snapshots)
	if e := d.Close(); err == nil {
		err = e
	}
	if err != nil {
		return false, grid.Errorf(grid.CodeOf(err), "ledger: look at the replica in %s: %w", l.cfg.Dir, err)
	}
	return holds, nil
}

// wipe deletes the replica in Dir. This node must be a client.
func (l *Ledger) wipe() error {
	l.mode.Lock()
	defer l.mode.Unlock()
	if l.replica() != nil {
		return grid.Errorf(grid.Conflict, "ledger: the replica in %s runs", l.cfg.Dir)
	}
	d, err := l.cfg.OpenDisk(l.cfg.Dir)
	if err != nil {
		return err
	}
	return d.Wipe()
}

// guard stands between raft and its disk. Raft panics when it cannot read its log or write its vote; the process
// has other things to do. So the guard ends the goroutine of raft that has met the fault, before it can do
// anything that it does not remember, and has the replica stopped.
type guard struct {
	raft.LogStore
	stable raft.StableStore
	failed func(error)  // called once, on its own goroutine
	may    func() error // whether the replica may vote; nil: it may

	term uint64 // of the vote that is being written

	mu      sync.Mutex
	running bool // raft's own goroutines run
	err     error
}

// IsMonotonic is told at raft.MonotonicLogStore.
func (g *guard) IsMonotonic() bool {
	m, ok := g.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// GetLog is told at raft.LogStore.
func (g *guard) GetLog(index uint64, log *raft.Log) error {
	err := g.LogStore.GetLog(index, log)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return g.fatal(err)
	}
	return err
}

// Raft's keys for a vote, its own or for another. It writes the term first, and looks there first whether it has voted: who ended between the
// two would be found to have voted in the new term for whoever it voted for before, and vote for that one without a look at its log.
const (
	voteTerm = "LastVoteTerm"
	voteFor  = "LastVoteCand"
)

// Set and what follows are told at raft.StableStore.
func (g *guard) Set(key, val []byte) error {
	if err := g.stable.Set(key, val); err != nil {
		return g.fatal(err)
	}
	if string(key) == voteFor {
		return g.set([]byte(voteTerm), g.term) // by now the former vote is of a term that is over
	}
	return nil
}

func (g *guard) Get(key []byte) ([]byte, error) { return g.stable.Get(key) }

func (g *guard) SetUint64(key []byte, val uint64) error {
	if string(key) != voteTerm {
		return g.set(key, val)
	}
	if g.may != nil {
		if err := g.may(); err != nil {
			return err // upon which raft does not vote
		}
	}
	g.term = val // Set comes next, on the same goroutine
	return nil
}

func (g *guard) set(key []byte, val uint64) error {
	if err := g.stable.SetUint64(key, val); err != nil {
		return g.fatal(err)
	}
	return nil
}

func (g *guard) GetUint64(key []byte) (uint64, error) { return g.stable.GetUint64(key) }

// fatal returns only while raft is being started.
func (g *guard) fatal(err error) error {
	g.mu.Lock()
	running := g.running
	if g.err == nil {
		g.err = err
		if running {
			go g.failed(err)
		}
	}
	g.mu.Unlock()
	if running {
		runtime.Goexit()
	}
	return err
}

// start calls f, which starts raft. A fault of the disk is its error, not a panic.
func (g *guard) start(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			g.mu.Lock()
			err = g.err
			g.mu.Unlock()
			if err == nil {
				panic(v)
			}
		}
		if err != nil {
			code, hint := grid.CodeOf(err), grid.AdviceOf(err)
			if code == grid.Unknown { // raft's own errors here are about what it has read
				code, hint = grid.Corrupt, "check the disk; delete the replica's folder, and the node gets a new copy from the others of its realm"
			}
			err = grid.Errorf(code, "ledger: start the replica: %w", err).Hint("%s", hint)
		}
	}()
	if err := f(); err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.err != nil {
			return g.err
		}
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = true
	return g.err
}
