// Command simulate runs a swarm of scheduler cores in virtual time and prints how well they shared
// the work, for trying out a change of policy at a size no machine park has:
//
//	go run ./sched/simulate -nodes 1000 -tasks 200000 -mean 50ms -delay 5ms
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

func main() {
	var (
		nodes  = flag.Int("nodes", 100, "nodes")
		slots  = flag.Int("slots", 2, "worker slots of each")
		jobs   = flag.Int("jobs", 1, "jobs, each submitted to a node of its own")
		tasks  = flag.Int("tasks", 20_000, "tasks of each job")
		mean   = flag.Duration("mean", 20*time.Millisecond, "mean time of a task, exponentially distributed")
		delay  = flag.Duration("delay", 2*time.Millisecond, "delay of a message, one way")
		loss   = flag.Float64("loss", 0, "chance that a message is lost")
		crash  = flag.Int("crash", 0, "nodes that crash on the way, for five seconds")
		degree = flag.Int("degree", 64, "peers of each node")
		seed   = flag.Uint64("seed", 1, "seed: equal seeds give equal runs")
	)
	flag.Parse()

	r := rand.New(rand.NewPCG(*seed, 0))
	cfg := swarm.Config{Nodes: *nodes, Slots: *slots, Seed: *seed, Degree: *degree, Delay: *delay, Loss: *loss}
	for i := range *jobs {
		times := make([]time.Duration, *tasks)
		for t := range times {
			times[t] = time.Duration(r.ExpFloat64() * float64(*mean))
		}
		cfg.Jobs = append(cfg.Jobs, swarm.Job{
			Node: i % *nodes, Stages: []int{*tasks}, Keep: true,
			Took: func(_ int, t uint32) time.Duration { return times[t] },
		})
	}
	for range min(*crash, *nodes-*jobs) { // owners are spared: taking over is not the scheduler's part
		cfg.Faults = append(cfg.Faults, swarm.Fault{
			Node: *jobs + r.IntN(*nodes-*jobs), At: time.Duration(r.Int64N(int64(5 * time.Second))), For: 5 * time.Second,
		})
	}

	began := time.Now()
	report, err := swarm.Run(cfg)
	fmt.Println(report)
	fmt.Printf("simulated in %v\n", time.Since(began).Round(time.Millisecond))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
