package sched_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

// grown is a swarm whose work grows with it: so many tasks of 20 ms on average for each node, submitted to one.
func grown(nodes, each int) swarm.Config {
	return swarm.Config{
		Nodes: nodes, Slots: 2, Seed: 1, Delay: 2 * time.Millisecond, Measure: true,
		Jobs: []swarm.Job{{Stages: []int{nodes * each}, Pure: true, Time: swarm.Times{Kind: swarm.Exponential, Mean: 20 * time.Millisecond}}},
	}
}

// BenchmarkGrowth is what a task costs as the swarm grows: messages, steps, and the cores' time.
func BenchmarkGrowth(b *testing.B) {
	for _, nodes := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			if nodes > 1000 && testing.Short() {
				b.Skip("takes a minute")
			}
			var r *swarm.Report
			for b.Loop() {
				var err error
				if r, err = swarm.Run(grown(nodes, 100)); err != nil {
					b.Fatal(err)
				}
			}
			tasks := float64(r.Tasks)
			b.ReportMetric(float64(r.Messages)/tasks, "messages/task")
			b.ReportMetric(float64(r.Steps)/tasks, "steps/task")
			b.ReportMetric(float64(r.PerTask().Nanoseconds()), "core-ns/task")
			b.ReportMetric(r.Stretch(), "x-ideal")
		})
	}
}

// BenchmarkSkewed is the makespan of loads that are hard to share, as a multiple of the ideal, on four nodes whose
// messages take 0.1 ms one way, all submitted to one.
func BenchmarkSkewed(b *testing.B) {
	one := func(tasks int, t swarm.Times) []swarm.Job {
		return []swarm.Job{{Stages: []int{tasks}, Pure: true, Time: t}}
	}
	ms := time.Millisecond
	for _, load := range []struct {
		name  string
		slots int
		jobs  []swarm.Job
	}{
		{"400x10ms+10x1s", 1, one(410, swarm.Times{Kind: swarm.Mixed, Mean: 10 * ms, Long: time.Second, Every: 41})},
		{"1e6x50us", 2, one(1_000_000, swarm.Times{Mean: 50 * time.Microsecond})},
		{"100x10s", 1, one(100, swarm.Times{Mean: 10 * time.Second})},
		{"pareto", 2, one(10_000, swarm.Times{Kind: swarm.Pareto, Mean: 20 * ms})},
	} {
		b.Run(load.name, func(b *testing.B) {
			var sum, worst float64
			seeds := 0
			for b.Loop() {
				seeds++
				r, err := swarm.Run(swarm.Config{Nodes: 4, Slots: load.slots, Seed: uint64(seeds), Delay: ms / 10, Jobs: load.jobs})
				if err != nil {
					b.Fatal(err)
				}
				sum += r.Stretch()
				worst = max(worst, r.Stretch())
			}
			b.ReportMetric(sum/float64(seeds), "x-ideal")
			b.ReportMetric(worst, "x-ideal-worst")
		})
	}
}

// TestGrowth: a thousand nodes share work nearly as well as ten, and a task takes about as many messages there.
func TestGrowth(t *testing.T) {
	each := 50
	if testing.Short() {
		each = 20
	}
	play := func(nodes int) *swarm.Report {
		r, err := swarm.Run(grown(nodes, each))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d nodes: %v, %v of the cores for each task", nodes, r, r.PerTask())
		return r
	}
	few, many := play(10), play(1000)
	per := func(r *swarm.Report) float64 { return float64(r.Messages) / float64(r.Tasks) }
	if per(many) > 4*per(few)+1 {
		t.Errorf("%.2f messages for each task among 1,000 nodes, %.2f among 10", per(many), per(few))
	}
	if many.Stretch() > 1.6*few.Stretch() {
		t.Errorf("the makespan is %.2f of the ideal among 1,000 nodes, %.2f among 10", many.Stretch(), few.Stretch())
	}
}
