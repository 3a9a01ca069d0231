package sched_test

import (
	"fmt"
	"math"
	"os"
	"strconv"
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

// TestScale: with nodes that come and go, a task among many nodes costs no more messages than the logarithm of their number says, and work
// is shared as well and got as fast as among few. What one node does that all work comes from grows with it. SCALE=10000 plays a swarm of
// that size.
func TestScale(t *testing.T) {
	many, each := 1000, 40
	if testing.Short() {
		each = 10
	}
	if n, err := strconv.Atoi(os.Getenv("SCALE")); err == nil {
		many = n
	}
	play := func(nodes int, stay time.Duration) *swarm.Report {
		cfg := grown(nodes, each)
		cfg.Stay, cfg.Measure = stay, false
		cfg.Jobs[0].Time.Mean = 200 * time.Millisecond
		r, err := swarm.Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		per := r.Makespan.Seconds() * float64(nodes)
		t.Logf("%d nodes, of which %d went: x%.2f of the ideal, %.2f messages for each task, %.1f of %.0f bytes for each node in a second, got work in %v, 99%% in %v, all had some after %v, %d messages at one node",
			nodes, r.Left, r.Stretch(), float64(r.Messages)/float64(r.Tasks), float64(r.Messages)/per, float64(r.Wire)/per,
			r.Waited[0], r.Waited[1], r.Reached, r.Busiest)
		return r
	}
	const stay = 2 * time.Minute
	play(10, stay)
	few := play(100, stay)
	play(many, 0)
	r := play(many, stay)
	per := func(r *swarm.Report) float64 { return float64(r.Messages) / float64(r.Tasks) }
	grows := math.Log(float64(many)) / math.Log(100)
	switch {
	case per(r) > grows*per(few)+1:
		t.Errorf("%.2f messages for each task, among 100 nodes %.2f", per(r), per(few))
	case r.Stretch() > 1.3*few.Stretch():
		t.Errorf("the makespan is %.2f of the ideal, among 100 nodes %.2f", r.Stretch(), few.Stretch())
	case r.Waited[1] > 2*few.Waited[1]:
		t.Errorf("one in a hundred waited for %v for work, among 100 nodes %v", r.Waited[1], few.Waited[1])
	case r.Reached > 10*few.Reached:
		t.Errorf("not all had work until %v, among 100 nodes until %v", r.Reached, few.Reached)
	case r.Left < many/200:
		t.Errorf("%d of %d nodes went", r.Left, many)
	}
}
