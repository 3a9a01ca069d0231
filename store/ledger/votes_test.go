package ledger

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestNewVoter: the leader dies as soon as it is committed who else votes, and one of the others has not heard of it. Who has leads, with the vote
// of who takes it for a learner; and who takes itself for a learner has a vote.
func TestNewVoter(t *testing.T) {
	for name, late := range map[string]int{"the other voter": 1, "the new one": 2} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				w := newWorld(t, lan(1), nil)
				nodes := append(w.cluster(2, 0), w.start(2))
				leader, late, knows := nodes[0], nodes[late], nodes[3-late]
				w.must(nodes[2].replicate(w.ctx, testRealm))
				w.must(leader.addLearner(w.ctx, nodes[2].id))
				w.until("all know the learner", func() bool { return min(late.lastIndex(), knows.lastIndex()) >= leader.lastIndex() })
				w.cut(late, leader, knows)
				w.must(leader.promote(w.ctx, nodes[2].id))
				w.until("one knows the voter", func() bool { return knows.lastIndex() >= leader.lastIndex() })
				w.crash(leader)
				w.heal(late, knows)
				if got := w.leader(late, knows); got != knows {
					t.Error("who lacks an entry leads")
				}
				if _, err := late.Commit(w.ctx, put("a", "1")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestVoteTaken: the leader takes the vote of one of four, reaches that one alone, and dies. The others are most of those who vote, with that one
// or without, and one of them leads. Where nobody dies, that one hears of it at once.
func TestVoteTaken(t *testing.T) {
	for what, take := range map[string]func(ctx context.Context, leader, from *node) error{
		"demoted": func(ctx context.Context, leader, from *node) error { return leader.demote(ctx, from.id) },
		"removed": func(ctx context.Context, leader, from *node) error { return leader.remove(ctx, from.id) },
	} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				w := newWorld(t, lan(1), nil)
				nodes := w.cluster(5, 0)
				leader, one, other := nodes[0], nodes[3], nodes[4]
				current := func(nodes ...*node) bool {
					for _, n := range nodes {
						if n.lastIndex() < leader.lastIndex() {
							return false
						}
					}
					return true
				}
				w.until("all are up to date", func() bool { return current(nodes...) })

				began := time.Now()
				w.must(take(w.ctx, leader, one))
				w.until("it has heard", func() bool { return !slices.Contains(one.servers(), server{one.id, true}) })
				if took := time.Since(began); took > 100*time.Millisecond {
					t.Errorf("it hears of it after %v", took)
				}
				w.until("all are up to date", func() bool { return current(nodes[1], nodes[2], other) })

				w.cut(leader, nodes[1], nodes[2])
				ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
				defer cancel()
				go func() { _ = take(ctx, leader, other) }()
				pass(300 * time.Millisecond)
				w.crash(leader)
				w.leader(nodes[1], nodes[2], other)
			})
		})
	}
}

// TestBegunAnew: a voter was removed, has lost its copy, and is ready to keep one again. It does not help a replica that has slept for long to become
// leader of what others have gone on with; nor does it by itself, when all that it has heard is how the log began. With all of it, it votes.
func TestBegunAnew(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var from atomic.Uint64
		w := newWorld(t, lan(1), nil)
		nodes := append(w.cluster(3, 0), w.start(3))
		a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
		w.must(d.replicate(w.ctx, testRealm))
		w.must(a.addLearner(w.ctx, d.id))
		w.until("all are up to date", func() bool { return min(b.lastIndex(), c.lastIndex(), d.lastIndex()) >= a.lastIndex() })
		w.cut(b, a, c, d) // asleep
		w.must(a.promote(w.ctx, d.id))
		w.must(a.remove(w.ctx, c.id))
		w.must(c.follow(w.ctx, testRealm, []peer.ID{a.id, d.id})) // as checkRemoved does
		w.must(c.wipe())
		pass(2 * time.Minute)
		_, err := a.Commit(w.ctx, put("a", "acknowledged"))
		w.must(err)
		from.Store(a.commitIndex())
		c.hooks.voteFrom = from.Load
		w.must(c.replicate(w.ctx, testRealm)) // as becomeReplica does, before the leader adds it
		w.cut(c, a, d)
		w.heal(b, c)
		for range 100 {
			pass(100 * time.Millisecond)
			if b.isLeader() || c.isLeader() {
				t.Fatal("who lacks what was acknowledged leads")
			}
		}
		w.heal(b, a, d)
		w.heal(c, a, d)
		if e, err := w.leader(a, b, c, d).Get(w.ctx, "a"); string(e.Value) != "acknowledged" || err != nil {
			t.Errorf("afterwards it is %q, %v", e.Value, err)
		}
		w.until("it is added", func() bool { return w.leader(a, b, d).addLearner(w.ctx, c.id) == nil }) // terms have been counted up meanwhile
		w.until("it is up to date", func() bool { return c.lastIndex() >= a.lastIndex() })
		if err := c.replica().mayVote(); err != nil {
			t.Errorf("with all of the log: %v", err)
		}
	})
}

// failingSet is a store that cannot store one thing.
type failingSet struct {
	raft.StableStore
	fails *atomic.Bool
}

func (s failingSet) Set(key, value []byte) error {
	if s.fails.Load() {
		return errors.New("the power is cut")
	}
	return s.StableStore.Set(key, value)
}

func (s failingSet) SetUint64(key []byte, value uint64) error {
	if s.fails.Load() && string(key) == voteTerm {
		return errors.New("the power is cut")
	}
	return s.StableStore.SetUint64(key, value)
}

// TestHalfAVote: who ends in the middle of writing a vote down has not voted for whoever it voted for before.
func TestHalfAVote(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var fails atomic.Bool
		w := newWorld(t, lan(1), func(c *Config) {
			open := c.OpenDisk
			if c.Network.Self() == name(2) {
				c.OpenDisk = func(dir string) (Disk, error) {
					d, err := open(dir)
					d.Stable = failingSet{d.Stable, &fails}
					return d, err
				}
			}
		})
		nodes := w.cluster(3, 0)
		other, x, v := nodes[0], nodes[1], nodes[2]
		w.until("all are up to date", func() bool { return min(x.lastIndex(), v.lastIndex()) >= other.lastIndex() })
		w.cut(v, other)
		w.until("no leader", func() bool { _, ok := v.leader(); return !ok })
		term := v.replica().raft.CurrentTerm()
		ask := func(as *node, term, index, lastTerm uint64) bool {
			var resp raft.RequestVoteResponse
			_ = x.replica().trans.RequestVote(raft.ServerID(address(v.id)), address(v.id), &raft.RequestVoteRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: 3, Addr: []byte(address(as.id))},
				Term:      term, LastLogIndex: index, LastLogTerm: lastTerm,
			}, &resp)
			return resp.Granted
		}
		if !ask(x, term+1, v.lastIndex(), term) {
			t.Fatal("it does not vote")
		}
		fails.Store(true)
		if ask(other, term+2, v.lastIndex(), term) {
			t.Error("it votes, and does not write it down")
		}
		fails.Store(false)
		w.crash(v)
		v = w.start(2)
		w.cut(v, other)
		w.must(v.replicate(w.ctx, testRealm))
		if ask(x, term+2, 1, 1) {
			t.Error("it votes for who lacks nearly everything")
		}
	})
}
