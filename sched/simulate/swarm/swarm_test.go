package swarm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var q queue
	var want, got []int
	for i := range 2000 {
		at := r.IntN(100)
		q.push(event{at: time.Duration(at), seq: i})
		want = append(want, at<<20|i)
		if r.IntN(3) == 0 {
			e := q.pop()
			k := slices.Index(want, int(e.at)<<20|e.seq)
			if e.at != time.Duration(slices.Min(want)>>20) {
				t.Fatalf("out of order: %v", e)
			}
			want = slices.Delete(want, k, k+1)
		}
	}
	for len(q) > 0 {
		e := q.pop()
		got = append(got, int(e.at)<<20|e.seq)
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Error("the queue is out of order")
	}
}

func TestTimes(t *testing.T) {
	for _, kind := range []Kind{Constant, Exponential, Pareto, Mixed} {
		d := Times{Kind: kind, Mean: time.Millisecond, Long: time.Millisecond, Every: 10}
		var sum time.Duration
		const n = 200_000
		for i := range uint32(n) {
			took := d.draw(i, 1, uint64(i))
			if took != d.draw(i, 1, uint64(i)) {
				t.Fatal("a draw is not the same twice")
			}
			sum += took
		}
		if mean := sum / n; mean < 900*time.Microsecond || mean > 1100*time.Microsecond {
			t.Errorf("%q: the mean is %v", kind, mean)
		}
	}
}

// TestShrink: what matters is all that is left.
func TestShrink(t *testing.T) {
	fails := func(cfg Config) error {
		for _, j := range cfg.Jobs {
			for _, n := range j.Stages {
				if n >= 17 && cfg.Loss > 0.01 {
					return errors.New("it is so")
				}
			}
		}
		return nil
	}
	for seed := range uint64(50) {
		cfg := Random(seed)
		before := fmt.Sprintf("%#v", cfg)
		small, err := Shrink(cfg, fails, 5000)
		if fmt.Sprintf("%#v", cfg) != before {
			t.Fatal("the world that was given has changed")
		}
		if (err == nil) != (fails(cfg) == nil) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err == nil {
			continue
		}
		if len(small.Jobs) != 1 || len(small.Jobs[0].Stages) != 1 || small.Jobs[0].Stages[0] != 17 || small.Nodes != 0 || len(small.Faults) != 0 {
			t.Errorf("seed %d: not small: %#v", seed, small)
		}
	}
}

// TestModel: what the simulator charges for.
func TestModel(t *testing.T) {
	play := func(cfg Config) *Report {
		t.Helper()
		r, err := Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ms := time.Millisecond
	one := Config{Nodes: 1, Jobs: []Job{{Stages: []int{10}}}}
	if r := play(one); r.Makespan != 100*ms || r.Ideal != 100*ms || r.Ran != 10 {
		t.Errorf("ten tasks of 10 ms on one slot: %v", r)
	}
	one.Machines = []Machine{{Speed: 2}}
	if r := play(one); r.Makespan != 50*ms || r.Ideal != 50*ms {
		t.Errorf("at twice the speed: %v", r)
	}
	one.Machines, one.Nodes = nil, 2
	one.Jobs[0].Input, one.Rate, one.Delay = 1_000_000, 10_000_000, ms
	one.Jobs[0].Copies = 2
	if r := play(one); r.Bytes != 0 {
		t.Errorf("both have the inputs: %v", r)
	}
	one.Jobs[0].Copies = 0
	if r := play(one); r.Bytes == 0 || r.Makespan < 60*ms {
		t.Errorf("one has the inputs, and they take 100 ms each: %v", r)
	}
	slow := Config{Nodes: 2, Vices: []Vice{{Node: 0, Kind: Slow}}, Jobs: []Job{{Stages: []int{1}}}}
	if r := play(slow); r.Makespan != 200*ms {
		t.Errorf("a slow node: %v", r)
	}
	dag := Config{Nodes: 8, Jobs: []Job{{Stages: []int{8, 4, 1}, Needs: nil}}}
	if r := play(dag); r.Ideal != 30*ms {
		t.Errorf("three stages: %v", r)
	}
}
