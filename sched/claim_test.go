package sched

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// lentOut is a node that has given a stage of so many tasks away to 26 others, besides what it may have kept.
func lentOut(t testing.TB, tasks uint32) (*Core, *stage, time.Time) {
	t.Helper()
	c := New(Config{Self: "me", Slots: 2, MaxTrust: tasks, MaxGive: tasks})
	c.Step(transcriptStart, grid.Tick{})
	now := transcriptStart.Add(time.Second)
	c.Step(now, grid.JobOpened{Lease: grid.Lease{Job: "j", Epoch: 1}, Stages: stages(tasks)})
	c.Step(now, grid.Prepared{Work: grid.Work{Job: "j"}, Ready: []grid.Span{{Hi: tasks}}})
	for p := 'A'; p <= 'Z'; p++ {
		c.Step(now, grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: peer.ID(p), Up: true}})
		c.Step(now, grid.StealAsked{From: peer.ID(p), Slots: 1, Call: 1})
	}
	return c, c.jobs["j"].stages[0], now
}

// claimEveryOther has one of them claim every other task of a large stage.
func claimEveryOther(c *Core, now time.Time) {
	for lo := uint32(0); lo < grid.MaxTasks; {
		var spans []grid.Span
		for ; len(spans) < c.cfg.MaxHeld && lo < grid.MaxTasks; lo += 2 {
			spans = append(spans, grid.Span{Lo: lo, Hi: lo + 1})
		}
		c.Step(now, grid.Claimed{From: "Z", Work: grid.Work{Job: "j"}, Epoch: 1, Spans: spans})
	}
}

// TestClaimsInPieces: who claims singly what others hold together does not keep the owner busy for minutes when that is
// claimed as a whole again.
func TestClaimsInPieces(t *testing.T) {
	c, s, now := lentOut(t, grid.MaxTasks)
	claimEveryOther(c, now)
	before := len(s.holds.list)
	c.Step(now.Add(time.Second), grid.Claimed{From: "Y", Work: grid.Work{Job: "j"}, Epoch: 1, Spans: []grid.Span{{Hi: grid.MaxTasks}}})
	if after := len(s.holds.list); before < grid.MaxTasks/4 || after > 100 {
		t.Errorf("%d entries became %d", before, after)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestTakeBackPieces: nor does what comes back to its owner in pieces.
func TestTakeBackPieces(t *testing.T) {
	for name, take := range map[string]func(*Core, *stage){
		"stolen back": func(c *Core, s *stage) {
			c.Step(transcriptStart, grid.StealAnswered{From: "Z", Leases: []grid.Lease{{Job: "j", Owner: "me", Epoch: 1, Span: grid.Span{Hi: grid.MaxTasks}}}})
		},
		"of one that is left alone": func(c *Core, s *stage) { c.takeAll(s, "Z") },
	} {
		t.Run(name, func(t *testing.T) {
			c, s, now := lentOut(t, grid.MaxTasks)
			claimEveryOther(c, now)
			before := c.queued
			if take(c, s); c.queued < before+grid.MaxTasks/4 {
				t.Errorf("%d tasks are queued, there were %d", c.queued, before)
			}
			if err := checkSpans(s.work); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClaimsTaskByTask: claims do to the books of a stage what they would task by task.
func TestClaimsTaskByTask(t *testing.T) {
	const tasks = 200
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		c, s, now := lentOut(t, tasks)
		for range 30 {
			now = now.Add(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			c.Step(now, grid.Tick{}) // some leases run out
			c.Step(now, grid.StealAsked{From: "A", Slots: rnd.IntN(2)})
			lo := rnd.Uint32N(tasks)
			span := grid.Span{Lo: lo, Hi: lo + 1 + rnd.Uint32N(tasks-lo)}
			from := peer.ID(rune('A' + rnd.IntN(4)))
			var want [tasks]hold
			for i := range uint32(tasks) {
				e := s.holds.at(i)
				lost := e == nil && s.lost != nil && s.lost.has(i)
				if e != nil {
					want[i] = *e
				}
				if i < span.Lo || i >= span.Hi || c.barred(from) || !lost && (e == nil || e.kind != lent) {
					continue
				}
				if lost || e.node != from {
					want[i].since = instant(now.Sub(c.start))
				}
				want[i].kind, want[i].node, want[i].until = lent, from, instant(now.Sub(c.start)).add(c.cfg.TTL)
			}
			c.Step(now, grid.Claimed{From: from, Work: grid.Work{Job: "j"}, Epoch: 1, Spans: []grid.Span{span}})
			for i := range uint32(tasks) {
				var got hold
				if e := s.holds.at(i); e != nil {
					got = *e
				}
				if got.kind == running || want[i].kind == running {
					continue // what was queued may have begun
				}
				if got.Span, want[i].Span = (grid.Span{}), (grid.Span{}); got != want[i] {
					t.Fatalf("task %d, claimed %s by %s: kind %d of %s until %d since %d, want %d, %s, %d, %d", i, span, string(from), got.kind, string(got.node), got.until, got.since,
						want[i].kind, string(want[i].node), want[i].until, want[i].since)
				}
			}
			if err := c.Check(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
