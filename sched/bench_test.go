package sched

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// bench drives one core: every Run effect is followed by a GrainDone.
type bench struct {
	*Core
	now     time.Time
	results []grid.TaskResult
	steps   int
	closed  bool
}

func (b *bench) do(ev grid.Event) {
	for todo := b.Step(b.now, ev); len(todo) > 0; {
		e := todo[0]
		todo = todo[1:]
		switch e := e.(type) {
		case grid.Run:
			b.results = b.results[:0]
			for i := e.Lease.Lo; i < e.Lease.Hi; i++ {
				b.results = append(b.results, grid.TaskResult{Index: i})
			}
			took := time.Duration(len(b.results)) * time.Microsecond
			b.now = b.now.Add(took)
			todo = append(todo, b.Step(b.now, grid.GrainDone{Slot: e.Slot, Took: took, Ran: len(b.results), Results: b.results})...)
			b.steps++
		case grid.CloseJob:
			b.closed = true
		}
	}
}

func drive(b *testing.B, tasks uint32, cfg Config) {
	b.ReportAllocs()
	steps := 0
	for b.Loop() {
		x := &bench{Core: New(cfg), now: time.Unix(1<<30, 0)}
		x.do(grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: stages(tasks)})
		x.do(grid.Prepared{Work: grid.Work{Job: "j1"}, Ready: whole(tasks)})
		if !x.closed {
			b.Fatal("not closed")
		}
		steps += x.steps
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/grain")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tasks), "ns/task")
}

// A stage of a million tasks of a microsecond, and the worst case of grains of one task.
func BenchmarkMillionTasks(b *testing.B) { drive(b, 1_000_000, Config{Self: "me", Slots: 8}) }
func BenchmarkGrainsOfOne(b *testing.B) {
	drive(b, 100_000, Config{Self: "me", Slots: 8, MaxGrain: 1})
}

// Three stages of a million tasks, each needing one of the stage before, which ends in reports of a thousand tasks
// in any order: what the book costs for each.
func BenchmarkChain(b *testing.B) {
	b.ReportAllocs()
	const tasks, most, reports = 1_000_000, 1000, 3
	now := time.Unix(1<<30, 0)
	order := rand.New(rand.NewPCG(1, 1)).Perm(tasks / most)
	results := make([]grid.TaskResult, most)
	for b.Loop() {
		c := New(Config{Self: "me"})
		closed := false
		do := func(ev grid.Event) {
			for todo := c.Step(now, ev); len(todo) > 0; {
				e := todo[0]
				todo = todo[1:]
				switch e := e.(type) {
				case grid.Prepare:
					todo = append(todo, c.Step(now, grid.Prepared{Work: e.Work, Ready: e.Spans})...)
				case grid.CloseJob:
					closed = true
				}
			}
		}
		do(grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: chain(stages(tasks, tasks, tasks), 1)})
		for stage := range uint32(reports) {
			for _, k := range order {
				for i := range results {
					results[i].Index = uint32(k*most + i)
				}
				do(grid.Reported{From: "A", Work: grid.Work{Job: "j1", Stage: stage}, Epoch: 1, Results: results})
			}
		}
		if !closed {
			b.Fatal("not closed")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tasks/reports, "ns/task")
}

// A thousand thieves hold a million tasks: each report and claim finds its place among theirs.
func BenchmarkThousandThieves(b *testing.B) {
	b.ReportAllocs()
	const thieves = 1000
	c := New(Config{Self: "me", MaxTrust: 1 << 20})
	now := time.Unix(1<<30, 0)
	c.Step(now, grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: stages(1_000_000)})
	w := grid.Work{Job: "j1"}
	c.Step(now, grid.Prepared{Work: w, Ready: whole(1_000_000)})
	ids := make([]peer.ID, thieves)
	held := make([]grid.Span, thieves)
	for i := range ids {
		ids[i] = peer.ID(rune(i + 1))
		lo := uint32(i * 1000)
		held[i] = grid.Span{Lo: lo, Hi: lo + 1000}
	}
	c.give(&gift{to: grid.StealAsked{From: "x"}, want: 1_000_000}) // a single entry, which the claims then split
	order := rand.New(rand.NewPCG(1, 1)).Perm(thieves)
	result := make([]grid.TaskResult, 1)
	for n := 0; b.Loop(); n++ {
		i := order[n%thieves]
		s := &held[i]
		if s.Len() > 1 { // the benchmark must not run out of tasks
			result[0].Index = s.Lo
			s.Lo++
		}
		c.Step(now, grid.Reported{From: ids[i], Work: w, Epoch: 1, Results: result})
		c.Step(now, grid.Claimed{From: ids[i], Work: w, Epoch: 1, Spans: []grid.Span{*s}})
	}
	if err := c.Check(); err != nil {
		b.Fatal(err)
	}
}

// A queue in half a million pieces, every other task being known: an ask must not look at all of them.
func BenchmarkFragmentedSteal(b *testing.B) {
	b.ReportAllocs()
	c := New(Config{Self: "me"})
	now := time.Unix(1<<30, 0)
	c.Step(now, grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: stages(grid.MaxTasks)})
	var done []grid.Span
	for i := uint32(0); i < grid.MaxTasks; i += 2 {
		done = append(done, grid.Span{Lo: i, Hi: i + 1})
	}
	w := grid.Work{Job: "j1"}
	c.Step(now, grid.Prepared{Work: w, Ready: whole(grid.MaxTasks), Done: done})
	for n := uint64(0); b.Loop(); n++ {
		for _, e := range c.Step(now, grid.StealAsked{From: "A", Call: n, Slots: 1}) {
			var spans []grid.Span
			for _, l := range e.(grid.AnswerSteal).Leases {
				spans = append(spans, l.Span)
			}
			// Hand them back, so that there is always more.
			for _, s := range spans {
				c.takeBack(grid.Lease{Job: "j1", Epoch: 1, Span: s})
			}
		}
	}
}

// A steal from a stage of half a million tasks with hints, of which the thief has every tenth input and this node
// all: it looks at no more than some thousands.
func BenchmarkGive(b *testing.B) {
	b.ReportAllocs()
	const tasks = 500_000
	c := New(Config{Self: "me", Slots: 1})
	now := time.Unix(1<<30, 0)
	w := grid.Work{Job: "j1"}
	c.Step(now, grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: stages(tasks)})
	c.Step(now, grid.Prepared{Work: w, Ready: whole(tasks)})
	c.Step(now.Add(10*time.Millisecond), grid.GrainDone{Took: 10 * time.Millisecond, Ran: 1, Results: []grid.TaskResult{{Index: 0}}})
	r := rand.New(rand.NewPCG(1, 1))
	holds, here := grid.NewSummary(6000), grid.NewSummary(6000)
	inputs := make([]grid.Hint, tasks)
	for i := range inputs {
		inputs[i] = grid.Hint{Root: r.Uint64(), Size: 1 << 20}
		if i >= tasks-6000 {
			here.Add(inputs[i].Root)
			if i%10 == 0 {
				holds.Add(inputs[i].Root)
			}
		}
	}
	c.Step(now, grid.Hints{Work: w, Inputs: inputs})
	given := 0
	for n := uint64(0); b.Loop(); n++ {
		for _, e := range c.Step(now, grid.StealAsked{From: "A", Call: n, Slots: 1, Holds: holds, Here: here}) {
			if a, ok := e.(grid.AnswerSteal); ok {
				for _, l := range a.Leases { // hand them back, so that there is always more
					given += int(l.Len())
					c.takeBack(grid.Lease{Job: "j1", Epoch: 1, Span: l.Span})
				}
			}
		}
	}
	b.ReportMetric(float64(given)/float64(b.N), "tasks/steal")
}
