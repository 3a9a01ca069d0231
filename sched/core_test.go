package sched

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func TestScheduler(t *testing.T) {
	gridtest.TestScheduler(t, func(self peer.ID, slots int) grid.Scheduler {
		return New(Config{Self: self, Slots: slots})
	})
}

// TestSpans plays random operations against a plain set of numbers.
func TestSpans(t *testing.T) {
	const n = 200
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var q spans
		in := map[uint32]bool{}
		for range 300 {
			switch r.IntN(5) {
			case 0, 1:
				s := grid.Span{Lo: r.Uint32N(n)}
				for s.Hi = s.Lo; s.Hi < n && s.Hi < s.Lo+10 && !in[s.Hi]; s.Hi++ {
					in[s.Hi] = true
				}
				if s.Len() == 0 {
					continue
				}
				if r.IntN(2) == 0 {
					q.pushNew(s)
				} else {
					q.pushOld(s)
				}
			case 2, 3:
				if q.tasks == 0 {
					continue
				}
				take := q.takeNew
				if r.IntN(2) == 0 {
					take = q.takeOld
				}
				s := take(1 + r.Uint32N(8))
				for i := s.Lo; i < s.Hi; i++ {
					if !in[i] {
						t.Fatalf("seed %d: took %d, which was not there", seed, i)
					}
					delete(in, i)
				}
			case 4:
				cuts := randomSpans(r, n)
				var gone uint32
				for _, s := range cuts {
					for i := s.Lo; i < s.Hi; i++ {
						if in[i] {
							gone++
							delete(in, i)
						}
					}
				}
				if got := q.cut(cuts); got != gone {
					t.Fatalf("seed %d: cut %d, want %d", seed, got, gone)
				}
			}
			if int(q.tasks) != len(in) {
				t.Fatalf("seed %d: %d tasks, want %d", seed, q.tasks, len(in))
			}
		}
	}
}

func randomSpans(r *rand.Rand, n uint32) []grid.Span {
	var list []grid.Span
	for range r.IntN(5) {
		lo := r.Uint32N(n)
		list = append(list, grid.Span{Lo: lo, Hi: min(lo+r.Uint32N(20), n)})
	}
	return normal(list)
}

func TestNormal(t *testing.T) {
	tests := []struct{ in, want []grid.Span }{
		{nil, nil},
		{[]grid.Span{{Lo: 3, Hi: 3}, {Lo: 5, Hi: 2}}, nil},
		{[]grid.Span{{Lo: 4, Hi: 6}, {Lo: 0, Hi: 2}, {Lo: 2, Hi: 3}}, []grid.Span{{Lo: 0, Hi: 3}, {Lo: 4, Hi: 6}}},
		{[]grid.Span{{Lo: 0, Hi: 9}, {Lo: 2, Hi: 3}, {Lo: 8, Hi: 12}}, []grid.Span{{Lo: 0, Hi: 12}}},
	}
	for _, tt := range tests {
		if got := normal(slices.Clone(tt.in)); !slices.Equal(got, tt.want) {
			t.Errorf("normal(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
}

// TestHolds plays random operations against a plain list with one entry for each task.
func TestHolds(t *testing.T) {
	const n = 100
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		var h holds
		var plain [n]hold
		for range 100 {
			lo := r.Uint32N(n)
			s := grid.Span{Lo: lo, Hi: min(n, lo+1+r.Uint32N(15))}
			switch r.IntN(4) {
			case 0, 1:
				e := hold{Span: s, kind: holdKind(1 + r.IntN(3)), until: instant(r.IntN(3)), node: "a"}
				h.put(e)
				for i := s.Lo; i < s.Hi; i++ {
					if plain[i].kind != running || e.kind == waiting {
						plain[i] = e
					}
				}
			case 2:
				var had uint32
				for i := s.Lo; i < s.Hi; i++ {
					if plain[i].kind != 0 {
						had++
					}
					plain[i] = hold{}
				}
				if got := h.clear(s); got != had {
					t.Fatalf("seed %d: cleared %d, want %d", seed, got, had)
				}
			case 3:
				now := instant(r.IntN(3)) - 1
				_, next := h.expire(now, nil)
				want := never
				for i := range plain {
					if plain[i].kind != 0 && plain[i].until <= now {
						plain[i] = hold{}
					} else if plain[i].kind != 0 {
						want = min(want, plain[i].until)
					}
				}
				if next != want {
					t.Fatalf("seed %d: next end is %d, want %d", seed, next, want)
				}
			}
			for i := range uint32(n) {
				e, want := h.at(i), plain[i]
				if (e == nil) != (want.kind == 0) || e != nil && !e.same(want) {
					t.Fatalf("seed %d: task %d is under %v, want %v", seed, i, e, want)
				}
			}
		}
	}
}

func TestBitmap(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		n := 1 + r.Uint32N(300)
		b, plain := newBitmap(n), make([]bool, n)
		for range 20 {
			set := r.IntN(2) == 0
			for _, s := range randomSpans(r, n) {
				if set {
					b.set(s)
				} else {
					b.unset(s)
				}
				for i := s.Lo; i < s.Hi; i++ {
					plain[i] = set
				}
			}
		}
		for _, s := range append(randomSpans(r, n), grid.Span{Lo: 0, Hi: n}, grid.Span{Lo: 5, Hi: 2}) {
			next := s.Lo
			for run := range b.clearRuns(s) {
				for ; next < run.Lo; next++ {
					if !plain[next] {
						t.Fatalf("seed %d: clear bit %d was left out", seed, next)
					}
				}
				for ; next < run.Hi; next++ {
					if plain[next] || b.has(next) {
						t.Fatalf("seed %d: bit %d is set", seed, next)
					}
				}
			}
			for ; next < s.Hi; next++ {
				if !plain[next] {
					t.Fatalf("seed %d: clear bit %d was left out", seed, next)
				}
			}
		}
	}
}

// TestHostile feeds what only a broken or hostile peer would send.
func TestHostile(t *testing.T) {
	c := New(Config{Self: "me", Slots: 2, MaxHeld: 100})
	now := time.Unix(1<<30, 0)
	step := func(ev grid.Event) []grid.Effect {
		t.Helper()
		out := c.Step(now, ev)
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	step(grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: stages(1000)})
	step(grid.Prepared{Work: grid.Work{Job: "j1"}, Ready: whole(500)})

	var odd []grid.Span
	for i := range uint32(100_000) {
		odd = append(odd, grid.Span{Lo: i * 7, Hi: i*7 + i%3}, grid.Span{Lo: 1 << 31, Hi: 5}, grid.Span{Lo: i, Hi: ^uint32(0)})
	}
	step(grid.Claimed{From: "A", Work: grid.Work{Job: "j1"}, Epoch: 1, Spans: odd})
	step(grid.Claimed{From: "me", Work: grid.Work{Job: "j1"}, Epoch: 1, Spans: odd})
	step(grid.Claimed{From: "A", Work: grid.Work{Job: "j1", Stage: 9}, Epoch: 1, Spans: odd})
	step(grid.Reported{From: "A", Work: grid.Work{Job: "j1"}, Epoch: 1, Results: []grid.TaskResult{
		{Index: 500}, {Index: 999, Outcome: grid.GuestFailed}, {Index: ^uint32(0)}, {Index: 3, Outcome: 77}, {Index: 3, Outcome: grid.HostFailed}}})
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var leases []grid.Lease
		for range 100 {
			s := odd[r.IntN(len(odd))]
			leases = append(leases, grid.Lease{Job: "j9", Owner: "O", Stage: uint32(r.IntN(90)), Span: s},
				grid.Lease{Job: "j1", Owner: "me", Epoch: 1, Span: s},
				grid.Lease{Job: grid.JobID(make([]byte, 1<<10)), Owner: "O", Span: s})
		}
		step(grid.StealAnswered{From: "A", Leases: leases})
	}
	for i := range 1000 {
		from := peer.ID(binary.AppendUvarint(nil, uint64(i)))
		step(grid.StealAsked{From: from, Call: uint64(i), Slots: -i})
	}
	for _, slot := range []int{-1, 2, 1 << 40} {
		step(grid.GrainDone{Slot: slot, Took: -1, Ran: -1})
	}
	step(grid.Prepared{Work: grid.Work{Job: "j1"}, Ready: whole(^uint32(0)), Done: odd[:10]})
	step(grid.Prepared{Work: grid.Work{Job: "j1"}, Ready: odd})
	step(grid.StealAsked{From: "me", Call: 1, Slots: 1})
	step(grid.Woken{From: "me"})
	step(nil)
}

// FuzzStep turns bytes into events over few jobs, peers and numbers, so that they often meet.
func FuzzStep(f *testing.F) {
	for seed := range uint64(8) {
		data := make([]byte, 400)
		r := rand.New(rand.NewPCG(seed, 3))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := Config{Self: "p0", Slots: 3, MaxHeld: 12, MaxWaiting: 3, MaxLeases: 4, Tries: 2}
		if len(data) > 0 && data[0]%2 == 0 {
			cfg.MaxPerUser = 2
			cfg.Capacity = grid.Capacity{Memory: 8, Scratch: 8, Labels: grid.Labels{"zone": "a"}}
		}
		c := New(cfg)
		now := time.Unix(1<<30, 0)
		next := func() uint32 {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return uint32(b)
		}
		for len(data) > 0 {
			ev := anyEvent(next)
			_, tick := ev.(grid.Tick)
			if tick {
				now = now.Add(time.Duration(next()) * 20 * time.Millisecond)
			}
			for _, e := range c.Step(now, ev) {
				if run, ok := e.(grid.Run); ok {
					if run.Lease.Len() == 0 {
						t.Fatalf("an empty grain: %v", run)
					}
				}
			}
			if err := c.Check(); err != nil {
				t.Fatalf("after %T%+v: %v", ev, ev, err)
			}
			if due := c.NextTick(); tick && !due.IsZero() && !due.After(now) {
				t.Fatalf("after a Tick at %v, another is due at %v", now, due)
			}
		}
	})
}

func anyEvent(next func() uint32) grid.Event {
	from := func() peer.ID { return peer.ID([]string{"p0", "p1", "p2", "p3"}[next()%4]) }
	work := func() grid.Work {
		return grid.Work{Job: grid.JobID([]string{"j1", "j2", "j1.1"}[next()%3]), Stage: next() % 3}
	}
	span := func() grid.Span { lo := next() % 70; return grid.Span{Lo: lo, Hi: lo + next()%20} }
	spans := func() (list []grid.Span) {
		for range next() % 4 {
			list = append(list, span())
		}
		return list
	}
	results := func() (list []grid.TaskResult) {
		for _, s := range spans() {
			for i := s.Lo; i < s.Hi; i++ {
				r := grid.TaskResult{Index: i}
				if next()%16 == 0 {
					r.Outcome = grid.TaskOutcome(next() % 7)
				}
				list = append(list, r)
			}
		}
		return list
	}
	epoch := func() grid.Epoch { return grid.Epoch(1 + next()%8/7) }
	class := func() (cl grid.Class) {
		n := next()
		cl.User = []string{"", "ann", "bob"}[n%3]
		cl.Priority = int(n/3%3) * 4
		if n%5 == 0 {
			cl.Cores, cl.Depth = n/5%5, n/5%3
		}
		if n%7 == 0 {
			cl.Pinned = n%3 == 0
			cl.Memory, cl.Require = uint64(n/7%12), []string{"zone=a", "zone=b", "(", ""}[n/7%4]
		}
		return cl
	}
	lease := func() grid.Lease {
		w := work()
		return grid.Lease{Job: w.Job, Stage: w.Stage, Owner: from(), Epoch: epoch(), Class: class(), Span: span()}
	}
	summary := func() grid.Summary {
		s := grid.NewSummary(int(next() % 4))
		for range len(s) {
			s.Add(uint64(1 + next()%8))
		}
		return s
	}
	switch next() % 23 {
	case 22:
		return grid.Paused{Job: work().Job, On: next()%2 == 0}
	case 21:
		return grid.Revoked{From: from(), Work: work(), Epoch: epoch(), Spans: spans(), Queued: next()%2 == 0}
	case 0:
		var tasks []uint32
		for range next() % 4 {
			tasks = append(tasks, next()%70)
		}
		plans := stages(tasks...)
		for i := range plans {
			plans[i].Class = class()
			plans[i].Class.Pure = next()%4 > 0
			plans[i].Attempts = int(next() % 5)
			for range next() % 3 {
				plans[i].Needs = append(plans[i].Needs, grid.Need{Stage: next() % uint32(i+1+int(next()%32)/31), Fan: next() % 5})
			}
		}
		return grid.JobOpened{Lease: lease(), Stages: plans, KeepGoing: next()%2 == 0, Allow: max(next()%16, 12) - 12,
			Parallel: max(next()%64, 32) - 32, Deadline: time.Duration(max(next(), 200)-200) * 100 * time.Millisecond,
			Start: time.Duration(max(next(), 240)-240) * 50 * time.Millisecond}
	case 1, 2:
		ev := grid.Prepared{Work: work(), Ready: spans(), Done: spans()}
		if next()%4 == 0 {
			ev.Failed = []uint32{next() % 80, next() % 80}
		}
		for range max(next()%16, 12) - 12 {
			ev.Votes = append(ev.Votes, grid.Vote{Index: next() % 80, Nodes: []peer.ID{from(), from()}, Withheld: next()%4 == 0})
		}
		return ev
	case 3:
		if next()%8 == 0 {
			return grid.JobEnded{Job: work().Job}
		}
		return grid.Tick{}
	case 4, 5, 6:
		return grid.GrainDone{Slot: int(next() % 4), Took: time.Duration(next()) * time.Millisecond, Ran: int(next() % 8), Results: results(),
			Fetched: uint64(next()) << 14, Fetching: time.Duration(next()-1) * time.Millisecond}
	case 7:
		return grid.Reported{From: from(), Work: work(), Epoch: epoch(), Results: results()}
	case 8, 9:
		return grid.StealAsked{From: from(), Call: uint64(next()), Slots: int(next() % 3), Can: grid.Capacity{Slots: int(next() % 4)},
			Holds: summary(), Here: summary()}
	case 10:
		ev := grid.StealAnswered{From: from(), Failed: next()%4 == 0, Took: time.Duration(next()) * time.Millisecond}
		for range next() % 5 {
			ev.Try = append(ev.Try, from())
		}
		for range next() % 5 {
			ev.Leases = append(ev.Leases, lease())
		}
		return ev
	case 11:
		return grid.Claimed{From: from(), Work: work(), Epoch: epoch(), Spans: spans()}
	case 12:
		return grid.Woken{From: from()}
	case 13:
		return grid.Dropped{From: from(), Job: work().Job, Epoch: epoch()}
	case 14:
		return grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: from(), Up: next()%2 == 0}}
	case 16:
		return grid.Parked{Slot: int(next() % 4), Ticket: uint64(next() % 6)}
	case 17:
		return grid.Unparked{Ticket: uint64(next() % 6), Gone: next()%4 == 0}
	case 18, 19:
		ev := grid.Hints{Work: work(), Lo: span().Lo}
		for range next() % 30 {
			ev.Inputs = append(ev.Inputs, grid.Hint{Root: uint64(next() % 9), Size: uint64(next()) << (next() % 64)})
		}
		return ev
	case 20:
		return grid.Accused{Peer: from(), Job: work().Job, Why: "a lie"}
	}
	return grid.Tick{}
}

// stages are plans of stages of so many tasks each.
func stages(tasks ...uint32) []grid.StagePlan {
	plans := make([]grid.StagePlan, len(tasks))
	for i, n := range tasks {
		plans[i].Tasks = n
	}
	return plans
}

// chain makes each stage need the one before it: all of it, or fan tasks of it for each.
func chain(plans []grid.StagePlan, fan uint32) []grid.StagePlan {
	for i := 1; i < len(plans); i++ {
		plans[i].Needs = []grid.Need{{Stage: uint32(i - 1), Fan: fan}}
	}
	return plans
}

func whole(tasks uint32) []grid.Span { return []grid.Span{{Lo: 0, Hi: tasks}} }
