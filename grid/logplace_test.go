package grid

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestEndedTasks: the spans of a set are those that it has, however it came about, as long as they are few.
func TestEndedTasks(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tasks := 1 + rng.Uint32N(1<<11)
		var e endedTasks
		for i := range 3 * int(tasks) {
			stage, index := rng.Uint32N(3), rng.Uint32N(tasks)
			if seed%2 == 0 { // about in order
				stage, index = 0, min(tasks-1, uint32(i)/3+rng.Uint32N(64))
			}
			if e.add(stage, index); i%7 != 0 {
				continue
			}
			want := endedTasks{set: e.set}
			want.relist()
			if e.runs != len(want.list) || e.list != nil && !slices.Equal(e.list, want.list) || e.list == nil && e.runs <= maxLogSpans/2 {
				t.Fatalf("seed %d: %d spans %v, want %v", seed, e.runs, e.list, want.list)
			}
		}
	}
}
