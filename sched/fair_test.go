package sched_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

// TestFairness: while two users have plenty to do, each gets its share of the slots, however many jobs the one has and
// however long its tasks, as all that was submitted to one node spreads over several. Weights are honoured on each
// node among what is queued there, so with weights there is one node.
func TestFairness(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 4
	}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 3))
		cfg := swarm.Config{
			Nodes: 1 + r.IntN(12), Slots: 1 + r.IntN(3), Seed: seed, Delay: time.Duration(1+r.IntN(10)) * time.Millisecond, After: check,
		}
		weight, owner := 1.0, r.IntN(cfg.Nodes)
		if r.IntN(4) == 0 {
			weight, owner, cfg.Nodes = 2, 0, 1
			cfg.Sched.Weights = map[string]float64{"ann": weight}
		}
		// Each has work for some seconds of all slots.
		add := func(user string, jobs int, mean time.Duration) {
			tasks := int(8 * time.Second / mean * time.Duration(cfg.Nodes*cfg.Slots) / time.Duration(jobs))
			for range jobs {
				cfg.Jobs = append(cfg.Jobs, swarm.Job{
					Node: owner, User: user, Stages: []int{tasks}, Pure: true, Time: swarm.Times{Kind: swarm.Exponential, Mean: mean},
				})
			}
		}
		add("ann", 1, time.Duration(5+r.IntN(100))*time.Millisecond)
		add("bob", 1+r.IntN(8), time.Duration(5+r.IntN(100))*time.Millisecond)
		report, err := swarm.Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		share := float64(report.Users["ann"]) / float64(report.Users["bob"]) / weight
		t.Logf("seed %d: %d nodes, weight %v: ann %.2f of her share", seed, cfg.Nodes, weight, share)
		if share < 0.7 || share > 1.4 {
			t.Errorf("seed %d: ann had %v of slots' time, bob %v, with weights %v to 1\n%#v", seed, report.Users["ann"], report.Users["bob"], weight, cfg)
		}
	}
}
