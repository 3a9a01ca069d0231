package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// first is the first rounds of a plan.
func first(n int, seed uint64, size, spared int, kinds ...Kind) (rs []Round) {
	for r := range Rounds(seed, size, spared, kinds...) {
		if rs = append(rs, r); len(rs) == n {
			break
		}
	}
	return rs
}

// TestPure: a seed gives the same rounds each time, however the kinds are listed and however far somebody looks; another gives others.
func TestPure(t *testing.T) {
	kinds := Kinds()
	want := fmt.Sprint(first(50, 7, 6, 0, kinds...))
	slices.Reverse(kinds)
	if got := fmt.Sprint(first(50, 7, 6, 0, kinds...)); got != want {
		t.Errorf("the same seed gives\n%s\nand\n%s", want, got)
	}
	if got := first(80, 7, 6, 0, kinds...)[:50]; fmt.Sprint(got) != want {
		t.Error("a longer plan begins otherwise")
	}
	if got := fmt.Sprint(first(50, 8, 6, 0, kinds...)); got == want {
		t.Error("two seeds give the same")
	}
}

// TestBounds: whatever the seed, no more nodes are disturbed at a time than a realm survives, none is by two faults at once, those that are spared
// are never, and each kind comes before any comes again.
func TestBounds(t *testing.T) {
	sizes := make(map[int]int)
	for seed := range uint64(300) {
		size, spared := Size(seed), int(seed%2)
		sizes[size]++
		count := make(map[Kind]int)
		for i, r := range first(60, seed, size, spared, Kinds()...) {
			var hit []int
			for _, f := range r.Faults {
				count[f.Kind]++
				hit = append(hit, f.Nodes...)
				if f.Kind != All && f.Kind != Upgrade && len(f.Nodes) > Most || f.After < 0 || f.For < 0 || f.For > time.Minute {
					t.Fatalf("seed %d, round %d: %v", seed, i, r)
				}
				if slices.Contains(alone, f.Kind) && len(r.Faults) > 1 {
					t.Fatalf("seed %d, round %d: %v is not alone", seed, i, r)
				}
				if whole := f.Kind == All || f.Kind == Upgrade; whole && len(f.Nodes) != size-spared {
					t.Fatalf("seed %d, round %d: %v is not of all", seed, i, r)
				} else if !whole && len(hit) > Most {
					t.Fatalf("seed %d, round %d: %v", seed, i, r)
				}
			}
			slices.Sort(hit)
			if len(slices.Compact(slices.Clone(hit))) != len(hit) || hit[0] < spared || hit[len(hit)-1] >= size {
				t.Fatalf("seed %d, round %d: of %d nodes: %v", seed, i, size, r)
			}
			if r.Calm <= 0 || r.Length() <= r.Calm && r.Faults[0].For > 0 {
				t.Fatalf("seed %d, round %d: %v", seed, i, r)
			}
			least, most := 1<<30, 0
			for _, k := range Kinds() {
				least, most = min(least, count[k]), max(most, count[k])
			}
			if most > least+1 {
				t.Fatalf("seed %d: after round %d there were %v", seed, i, count)
			}
		}
	}
	for size := 5; size <= 9; size++ {
		if sizes[size] == 0 {
			t.Errorf("no swarm has %d nodes: %v", size, sizes)
		}
	}
}

// TestText: what is printed tells all of a round.
func TestText(t *testing.T) {
	r := Round{Calm: 2 * time.Second, Faults: []Fault{
		{Kind: Slow, Nodes: []int{3}, For: 3 * time.Second, Amount: 7},
		{Kind: Kill, Nodes: []int{0, 2}, After: 1500 * time.Millisecond, For: time.Second},
	}}
	if got, want := r.String(), "slow n3 by 7 at 0s for 3s, kill n0 n2 at 1.5s for 1s; calm for 2s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if r.Length() != 5*time.Second {
		t.Errorf("length %v", r.Length())
	}
}
