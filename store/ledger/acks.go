package ledger

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// transport is raft's network, with an eye on who answers.
//
// Raft's own VerifyLeader counts an answer to a heartbeat that was sent before it was called. A leader that was
// stopped for a while, and has been replaced meanwhile, finds such answers in its buffers when it goes on, and
// would believe that it still leads. So reads count answers themselves, and only those to what was sent after the
// read began.
//
// Nor is it left to raft when to try again. The longer a replica has been away, the longer raft leaves it alone, up to ten
// seconds, although it is back meanwhile, and the others may wait for its vote. So entries that did not arrive are sent again
// here, as often as heartbeats are, for as long as they are this node's to send.
//
// Nor does raft decide alone when a leader must give up. It does when most have not answered for what it calls the lease,
// which cannot be changed while it runs, nor be longer than the shortest election. When this replica bears more than that,
// so must the leader that it is; see beat. No promise rests on raft's lease: a leader that has been replaced and does not
// know cannot commit, and gets no confirmation for reads, since only real answers are counted for either.
type transport struct {
	*raft.NetworkTransport
	acks   *acks
	stall  time.Duration
	mine   func(id raft.ServerID, term uint64) bool // whether this node leads in a term, and id is a replica
	done   <-chan struct{}                          // closed with the replica
	last   func() uint64                            // index of this node's log
	ended  func()                                   // told of the end of a pipeline
	voters func() []raft.ServerID

	committed func() uint64 // up to where this node's log is, as it knows
	checked   chan raft.RPC // see check

	lease time.Duration // raft's
	bears atomic.Int64  // for how long this replica bears a leader that it does not hear, in nanoseconds; see tempo

	mu    sync.Mutex
	beats map[raft.ServerID]*beat
	wg    sync.WaitGroup // of beats
}

// firstAgain and lastAgain bound the pause before entries are sent again.
const (
	firstAgain = 10 * time.Millisecond
	lastAgain  = 250 * time.Millisecond
)

// AppendEntries is told at raft.Transport. Heartbeats go through it, too; pipelined entries do not.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if heartbeat(req) {
		return t.beat(id, to, req, resp)
	}
	t.hold(id, req)
	for pause := firstAgain; ; pause = min(2*pause, lastAgain) {
		err := t.send(id, to, req, resp)
		if err == nil || !t.mine(id, req.Term) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-t.done:
			return err
		}
		*resp = raft.AppendEntriesResponse{}
	}
}

// send sends once, and remembers who has answered.
func (t *transport) send(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	began := t.acks.tick()
	err := t.NetworkTransport.AppendEntries(id, to, req, resp)
	if err == nil && resp.Success && resp.Term == req.Term {
		t.acks.note(id, ack{term: req.Term, began: began, last: resp.LastLog, at: time.Now()})
	}
	return err
}

// beat is a heartbeat that was sent.
type beat struct {
	term uint64
	done chan struct{} // closed when there is resp, or err
	resp raft.AppendEntriesResponse
	err  error
}

// beat sends a heartbeat. If the tempo is slow, and the last answer is not as old as that allows, raft is told of that again rather
// than left to wait for this one; then the next call does.
func (t *transport) beat(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.mu.Lock()
	b := t.beats[id]
	if b == nil || b.term != req.Term || isClosed(b.done) {
		if time.Duration(t.bears.Load()) <= t.lease {
			t.mu.Unlock()
			return t.send(id, to, req, resp)
		}
		b = &beat{term: req.Term, done: make(chan struct{})}
		t.beats[id] = b
		t.wg.Go(func() {
			b.err = t.send(id, to, req, &b.resp)
			close(b.done)
		})
	}
	t.mu.Unlock()
	soon := time.NewTimer(t.lease / 50) // the more often raft is told, the longer this process may be stopped
	defer soon.Stop()
	select {
	case <-b.done:
	case <-soon.C:
		k, ok := t.acks.of(id, req.Term)
		if ok && time.Since(k.at) < time.Duration(t.bears.Load()) {
			*resp = raft.AppendEntriesResponse{Term: k.term, LastLog: k.last, Success: true}
			return nil
		}
		<-b.done
	}
	*resp = b.resp
	return b.err
}

// heartbeat tells raft's heartbeats, which it sends by itself, from messages with entries.
func heartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// ack is the newest answer of a replica to this node as its leader.
type ack struct {
	term  uint64
	began uint64 // tick at which what was answered was sent
	last  uint64 // index of the replica's log
	at    time.Time
}

// acks is the answers of all replicas.
type acks struct {
	mu    sync.Mutex
	ticks uint64
	by    map[raft.ServerID]ack
	wake  chan struct{} // closed at the next answer; nil when nobody waits
}

// tick is a moment that is later than all before.
func (a *acks) tick() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ticks++
	return a.ticks
}

func (a *acks) note(id raft.ServerID, k ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.by[id]
	if k.term < old.term {
		return
	}
	if k.term == old.term {
		k.began, k.last = max(k.began, old.began), max(k.last, old.last)
	}
	a.by[id] = k
	if a.wake != nil {
		close(a.wake)
		a.wake = nil
	}
}

// of is the newest answer of a replica in a term.
func (a *acks) of(id raft.ServerID, term uint64) (ack, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.by[id]
	return k, ok && k.term == term
}

// majority reports whether most of the voters have answered, in a term, what was sent after a moment. If not,
// more is closed at the next answer.
func (a *acks) majority(self raft.ServerID, servers []raft.Server, term, since uint64) (ok bool, more <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	voters, have := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if k := a.by[s.ID]; s.ID == self || k.term == term && k.began > since {
			have++
		}
	}
	if have > voters/2 {
		return true, nil
	}
	if a.wake == nil {
		a.wake = make(chan struct{})
	}
	return false, a.wake
}
