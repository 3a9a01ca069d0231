package ledger

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

func TestTempo(t *testing.T) {
	const base = 500 * time.Millisecond
	const lasts = calm * base
	type seen struct {
		after time.Duration
		term  uint64
		gone  bool
		want  time.Duration
	}
	for name, all := range map[string][]seen{
		"nobody is overthrown":       {{0, 7, false, base}, {lasts, 7, false, base}, {10 * lasts, 7, false, base}},
		"one short reign is nothing": {{0, 7, false, base}, {base, 8, false, base}},
		"short reigns": {{0, 7, false, base}, {base, 8, false, base}, {base, 9, false, 2 * base}, {base, 10, false, 4 * base},
			{base, 11, false, 8 * base}, {base, 12, false, 8 * base}},
		"many terms at once":                               {{0, 7, false, base}, {base, 100, false, 8 * base}},
		"a vote that is split once":                        {{0, 7, false, base}, {base, 9, false, 2 * base}},
		"what was before this replica came does not count": {{0, 100, false, base}, {base, 101, false, base}},
		"leaders that die":                                 {{0, 7, false, base}, {base, 8, true, base}, {base, 9, true, base}, {base, 11, true, base}},
		"leaders that die do not make it up":               {{0, 7, false, base}, {base, 9, false, 2 * base}, {base, 10, true, 2 * base}},
		"reigns that last":                                 {{0, 7, false, base}, {lasts, 8, false, base}, {lasts, 9, false, base}, {lasts, 20, false, base}},
		"not quite":                                        {{0, 7, false, base}, {lasts - 1, 8, false, base}, {lasts - 1, 9, false, 2 * base}},
		"back in steps": {{0, 7, false, base}, {base, 100, false, 8 * base}, {lasts - 1, 100, false, 8 * base}, {1, 100, false, 4 * base},
			{lasts, 100, false, 2 * base}, {lasts, 100, false, base}, {lasts, 100, false, base}, {base, 101, false, base}},
		"and up again at once": {{0, 7, false, base}, {base, 10, false, 4 * base}, {lasts, 10, false, 2 * base}, {base, 11, false, 4 * base}},
	} {
		t.Run(name, func(t *testing.T) {
			x := tempo{base: base, most: mostDoublings}
			now := time.Now()
			for i, s := range all {
				now = now.Add(s.after)
				if got := x.see(now, s.term, s.gone); got != s.want {
					t.Fatalf("at %d, term %d: %v, want %v", i, s.term, got, s.want)
				}
			}
		})
	}
}

// turns is when a node gets to run.
type turns struct {
	r          *rand.Rand
	begin, end time.Time // of a stall
}

// next is when what is there for the node at a moment is looked at.
func (s *turns) next(at time.Time) time.Time {
	for !s.end.After(at) {
		s.begin = s.end.Add(time.Duration(s.r.IntN(1200)) * time.Millisecond)
		s.end = s.begin.Add(time.Duration(300+s.r.IntN(600)) * time.Millisecond)
	}
	if s.begin.After(at) {
		return at
	}
	return s.end
}

// starved makes a network one of nodes that, while busy, get to run half of the time: now and then one neither sends nor
// hears anything, for 300 to 900 ms, and then all at once.
func starved(cfg memnet.Config, busy *atomic.Bool) memnet.Config {
	quick, began, all := cfg.Latency, time.Now(), make(map[peer.ID]*turns)
	of := func(id peer.ID) *turns {
		s := all[id]
		if s == nil {
			s = &turns{r: rand.New(rand.NewPCG(cfg.Seed, uint64(id[len(id)-1]))), end: began}
			all[id] = s
		}
		return s
	}
	cfg.Latency = func(r *rand.Rand, from, to peer.ID) time.Duration {
		d := quick(r, from, to)
		if busy.Load() {
			now := time.Now()
			return of(to).next(of(from).next(now).Add(d)).Sub(now)
		}
		return d
	}
	return cfg
}

// TestStarved: where nodes do not get to run in time, they do not elect all the time; and when they do again, they are as
// quick as before.
func TestStarved(t *testing.T) {
	for seed := range uint64(2) {
		steady := starve(t, seed, -1)
		adapting := starve(t, seed, 0)
		if steady.terms < 40 {
			t.Errorf("seed %d: only %d terms if elections always have one length: that is no test", seed, steady.terms)
		}
		if adapting.terms > steady.terms/4 || adapting.commits < 3*steady.commits/2 || adapting.gap > 10*time.Second {
			t.Errorf("seed %d: %+v if elections adapt, %+v if not", seed, adapting, steady)
		}
		t.Logf("seed %d: %+v, without adapting %+v", seed, adapting, steady)
	}
}

type starvation struct {
	terms   uint64
	commits int
	gap     time.Duration // the longest between two
}

// starve has five voters and two clients starve for two minutes.
func starve(t *testing.T, seed uint64, doublings int) (got starvation) {
	virtual(t, func(t *testing.T) {
		var busy atomic.Bool
		w := newWorld(t, starved(lan(seed), &busy), func(c *Config) { c.doublings = doublings })
		nodes := w.cluster(5, 2)
		client := nodes[6]
		newest := func() (term uint64) {
			for _, n := range nodes[:5] {
				term = max(term, n.replica().raft.CurrentTerm())
			}
			return term
		}
		before := newest()
		busy.Store(true)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for last := time.Now(); !isClosed(stop); wait(t, stop, 100*time.Millisecond) {
				ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
				if _, err := client.Commit(ctx, put("a", "1")); err == nil {
					got.commits++
					got.gap = max(got.gap, time.Since(last))
					last = time.Now()
				}
				cancel()
			}
		})
		wait(t, stop, 2*time.Minute)
		got.terms = newest() - before
		close(stop)
		wg.Wait()

		// However slow, a leader without the others gives up, and they go on without it.
		const base = 500 * time.Millisecond
		old := w.leader(nodes[:5]...)
		bears := time.Duration(old.replica().trans.bears.Load())
		others := without(nodes[:5], old)
		w.cut(old, others...)
		cut := time.Now()
		w.until("the leader gives up", func() bool { return old.replica().office.Load() == nil })
		if took := time.Since(cut); took > bears+2*base {
			t.Errorf("seed %d: a leader that was cut off gave up after %v, and bears others for %v", seed, took, bears)
		}
		w.leader(others...)
		w.heal(old, others...)
		busy.Store(false)

		wait(t, nil, (mostDoublings+2)*calm*base)
		for _, n := range nodes[:5] {
			c := n.replica().raft.ReloadableConfig()
			if b := time.Duration(n.replica().trans.bears.Load()); b != base || c.ElectionTimeout > base+time.Millisecond || c.HeartbeatTimeout != c.ElectionTimeout {
				t.Errorf("%s still bears a silent leader for %v, and has raft wait for %v", n.id, b, c.ElectionTimeout)
			}
		}
		w.crash(w.leader(nodes[:5]...))
		began := time.Now()
		_, err := client.Commit(w.ctx, put("a", "2"))
		w.must(err)
		if took := time.Since(began); took > 5*base {
			t.Errorf("seed %d: a leader that died was followed after %v", seed, took)
		}
	})
	return got
}

// TestLeadersDie: one leader's death after the other makes no election slower.
func TestLeadersDie(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(4), nil)
		nodes := w.cluster(3, 1)
		var times []time.Duration
		for range 8 {
			old := w.leader(nodes[:3]...)
			w.crash(old)
			began := time.Now()
			_, err := nodes[3].Commit(w.ctx, put("a", "1"))
			w.must(err)
			times = append(times, time.Since(began))
			for j, n := range nodes[:3] {
				if n == old {
					nodes[j] = w.start(j)
					w.must(nodes[j].replicate(w.ctx, testRealm))
					w.until("it has caught up", func() bool { return nodes[j].lastIndex() >= w.leader(nodes[:3]...).lastIndex() })
				}
			}
		}
		slices.Sort(times)
		if times[len(times)/2] > 2*time.Second { // votes may be split once or twice
			t.Errorf("leaders were followed after %v", times)
		}
		for _, n := range nodes[:3] {
			if b := time.Duration(n.replica().trans.bears.Load()); b != 500*time.Millisecond {
				t.Errorf("%s bears a silent leader for %v", n.id, b)
			}
		}
	})
}
