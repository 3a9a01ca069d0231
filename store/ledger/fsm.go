package ledger

import (
	"context"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// fsm feeds the log to the machine, and counts when it is time for a snapshot.
type fsm struct {
	m     *machine.Machine
	guard *guard
	due   chan struct{} // a snapshot is due

	mu      sync.Mutex
	applied uint64        // index up to which everything has been applied, as far as that is told
	wake    chan struct{} // closed when applied grows; nil when nobody waits
	entries uint64        // since the last snapshot
	bytes   uint64
	failed  error // of the last Restore
}

func (f *fsm) advance(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index <= f.applied {
		return
	}
	f.applied = index
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// reach waits until all up to an index of the log has been applied.
func (f *fsm) reach(ctx context.Context, index uint64, lost <-chan struct{}) error {
	for {
		f.mu.Lock()
		if f.applied >= index {
			f.mu.Unlock()
			return nil
		}
		if f.wake == nil {
			f.wake = make(chan struct{})
		}
		wake := f.wake
		f.mu.Unlock()
		select {
		case <-wake:
		case <-lost:
			return errLost()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Apply is told at raft.FSM. What it returns is a []machine.Result.
func (f *fsm) Apply(log *raft.Log) any {
	results, err := f.m.Apply(log.Index, log.Data)
	if err != nil { // the copies would differ from here on
		_ = f.guard.fatal(err)
		return nil
	}
	f.mu.Lock()
	f.entries++
	f.bytes += uint64(len(log.Data))
	due := f.entries >= snapshotEntries || f.bytes >= snapshotBytes
	f.mu.Unlock()
	if due {
		select {
		case f.due <- struct{}{}:
		default:
		}
	}
	f.advance(log.Index)
	return results
}

// StoreConfiguration is told at raft.ConfigurationStore: it makes such entries count as applied, too.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) { f.advance(index) }

// Snapshot is told at raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	f.entries, f.bytes = 0, 0
	f.mu.Unlock()
	return snapshot{f.m.Snapshot()}, nil
}

// Restore is told at raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	err := f.m.Restore(r)
	f.mu.Lock()
	f.failed, f.entries, f.bytes = err, 0, 0
	f.mu.Unlock()
	if err == nil {
		f.advance(f.m.Applied())
	}
	return err
}

type snapshot struct{ *machine.Snapshot }

// Persist is told at raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release is told at raft.FSMSnapshot.
func (s snapshot) Release() {}
