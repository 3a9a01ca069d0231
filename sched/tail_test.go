package sched_test

import (
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

// TestStragglers: the last tasks of a pure job do not wait for a node that is a hundred times slower than the others,
// and few are run in vain.
func TestStragglers(t *testing.T) {
	run := func(pure bool) *swarm.Report {
		machines := make([]swarm.Machine, 8)
		machines[5].Speed = 0.01
		r, err := swarm.Run(swarm.Config{
			Nodes: 8, Slots: 2, Machines: machines, Delay: 5 * time.Millisecond, After: check,
			Jobs: []swarm.Job{{Stages: []int{320, 40}, Pure: pure, Time: swarm.Times{Mean: 100 * time.Millisecond}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(r)
		return r
	}
	pure, impure := run(true), run(false)
	if pure.Makespan > impure.Makespan/2 {
		t.Errorf("it took %v, and %v without second copies", pure.Makespan, impure.Makespan)
	}
	if vain := pure.Ran - pure.Tasks; vain > 16 {
		t.Errorf("%d of %d tasks were run in vain", vain, pure.Tasks)
	}
	if impure.Ran != impure.Tasks {
		t.Errorf("%d tasks of an impure job were run %d times", impure.Tasks, impure.Ran)
	}
}

// TestBadNode: a node on which everything fails costs a job no task, be it a thief or the job's owner. A thief finds
// others to steal from, who do not know; what fails there again does not count.
func TestBadNode(t *testing.T) {
	for bad, name := range []string{"owner", "thief"} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			r, err := swarm.Run(swarm.Config{
				Nodes: 5, Slots: 2, Delay: 2 * time.Millisecond, After: check,
				Jobs: []swarm.Job{{Stages: []int{2000, 100},
					Took: func(int, uint32) time.Duration { return 20 * time.Millisecond },
					Outcome: func(node, _ int, _ uint32) grid.TaskOutcome {
						if node == bad {
							tries++
							return grid.HostFailed
						}
						return grid.Succeeded
					}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r, "tries on the bad node:", tries)
			if j := r.Jobs[0]; j.Bad || len(j.Failed) > 0 {
				t.Errorf("the job failed: %v", j.Failed)
			}
			if bad == 0 && tries > 100 {
				t.Errorf("it was tried %d times", tries)
			}
		})
	}
}
