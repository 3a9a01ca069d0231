// Package tune says how a node should be set, from what was measured of it and its machine. It only advises;
// `grid tune --apply` does what it says.
package tune

import (
	"fmt"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Knob is one setting of a node.
type Knob struct {
	Name      string `json:"name"`           // in words, or the flag of `grid up` without its dashes
	Flag      string `json:"flag,omitempty"` // what sets it as suggested; "": it is well as it is, or no flag does
	Now       string `json:"now"`
	Suggested string `json:"suggested"`
	Why       string `json:"why"`
	Cost      string `json:"cost"` // of having more of it
}

// facts are what was measured, by name.
type facts map[string]grid.Measured

// of is a value; 0 if it is not known.
func (f facts) of(name string) float64 { return f[name].Value }

// Suggest says how a node should be set. What was not measured has no say.
func Suggest(measured []grid.Measured) []Knob {
	f := facts{}
	var trips []grid.Measured
	for _, m := range measured {
		switch {
		case m.Error != "":
		case m.Name == "peer-trip":
			trips = append(trips, m)
		default:
			f[m.Name] = m
		}
	}
	knobs := []Knob{f.workers(), f.memory(), f.grain(trips), f.cache(), f.quota()}
	return append(knobs, transports(trips)...)
}

// set fills in what is now, what is suggested, and the flag if these differ.
func (k Knob) set(now, suggested string) Knob {
	if k.Now, k.Suggested = now, suggested; now != suggested {
		k.Flag = "--" + k.Name + "=" + suggested
	}
	return k
}

func (f facts) workers() Knob {
	k := Knob{Name: "workers", Cost: "each takes a processor while it runs, and memory up to its task's limit (512 MiB unless the job says otherwise)"}
	cores := int(f.of("cores"))
	most := int(f.of("task-memory")) / int(grid.DefaultLimits.Memory)
	want := max(cores, 1)
	k.Why = "one for each processor: guests compute, and more would only take turns; jobs that wait for the network gain from more"
	if most > 0 && most < want {
		want, k.Why = most, fmt.Sprintf("the memory of tasks is enough for %d with the usual limit; others would wait for it", most)
	}
	return k.set(fmt.Sprint(int(f.of("workers"))), fmt.Sprint(want))
}

func (f facts) memory() Knob {
	k := Knob{Name: "task-memory", Cost: "what tasks may have, others on the machine have not; beyond the memory there is, the system kills the node"}
	total, now := uint64(f.of("memory")), uint64(f.of("task-memory"))
	want := max(total/4*3, grid.DefaultLimits.Memory)
	k.Why = "three quarters of the memory: the rest is for compiled code, idle sandboxes (256 MiB), blocks and the system"
	if total == 0 {
		want, k.Why = now, "how much memory there is, is not known"
	}
	if now <= want && now*10 >= want*9 {
		want = now // as good
	}
	return k.set(size(now), size(want))
}

// Bounds on what is suggested as a grain, and how it follows from a round trip.
const (
	stepGrain    = 5 * time.Millisecond
	mostGrain    = 200 * time.Millisecond
	grainForTrip = 20
)

func (f facts) grain(trips []grid.Measured) Knob {
	k := Knob{Name: "grain", Cost: "longer: others wait longer for work, and the end of a stage for its last task; shorter: more messages and steps for small tasks"}
	now, trip := time.Duration(f.of("grain")*float64(time.Second)), 0.0
	for _, m := range trips {
		trip = max(trip, m.Value)
	}
	if trip == 0 {
		k.Why = "no node was measured, and for one alone it matters little"
		return k.set(now.String(), now.String())
	}
	least := min(max(time.Duration(trip*grainForTrip*float64(time.Second)).Round(stepGrain), stepGrain), mostGrain)
	k.Why = fmt.Sprintf("long against a round trip to the farthest node, %v, which each grain of a thief costs", short(trip))
	want := now
	if now < least {
		want = least
	} else if now > 10*least && now > sched {
		want, k.Why = max(least, sched), k.Why+"; longer gives no more"
	}
	return k.set(now.String(), want.String())
}

// sched is the scheduler's own choice.
const sched = 20 * time.Millisecond

const (
	leastCache = 64 << 20
	mostCache  = 1 << 30
)

func (f facts) cache() Knob {
	k := Knob{Name: "block-cache", Cost: "memory that tasks do not have; it holds small blocks only, large ones are read from the disk, which the system keeps in memory itself"}
	now := uint64(f.of("block-cache"))
	hits, known := f["cache-hits"]
	want := now
	switch {
	case !known:
		k.Why = "little was read yet"
	case hits.Value >= .9:
		k.Why = fmt.Sprintf("%.0f%% of reads find their block", 100*hits.Value)
	default:
		k.Why = fmt.Sprintf("%.0f%% of reads find their block; the more of what jobs read over and over fits, the better", 100*hits.Value)
		want = min(max(now, leastCache, uint64(f.of("memory"))/32), mostCache)
		want = want >> 20 << 20
		if want < now*5/4 {
			want = now
		}
	}
	return k.set(size(now), size(want))
}

func (f facts) quota() Knob {
	k := Knob{Name: "store-quota", Cost: "disk; what nothing needs goes when it is full, so more of it is a better cache"}
	now, free := uint64(f.of("store-quota")), uint64(f.of("disk-free"))
	want := now
	k.Why = "what is free is enough for it"
	if now > 0 && free < now/20 {
		k.Why = fmt.Sprintf("only %s of the disk are free: others fill it, and tasks need some for /out and /tmp", size(free))
		want = now / 4 * 3 >> 20 << 20
	}
	return k.set(size(now), size(want))
}

// slowTrip is what a round trip on a local network takes no longer than.
const slowTrip = 5 * time.Millisecond

// transports says what to do about connections that are not as good as they could be. There is no flag that would be right for all.
func transports(trips []grid.Measured) (knobs []Knob) {
	counts := map[string]int{}
	for _, m := range trips {
		near := m.Value < slowTrip.Seconds()
		switch {
		case m.Note == "by relay":
			counts["relay"]++
		case m.Note == "by quic-v1" && near:
			counts["quic"]++
		}
	}
	if n := counts["relay"]; n > 0 {
		knobs = append(knobs, Knob{Name: "transport", Now: fmt.Sprintf("relay, of %d nodes", n), Suggested: "direct",
			Why:  "all that these send passes through a third node: forward a port, and tell it with --announce",
			Cost: "a port that is open to the network"})
	}
	if n := counts["quic"]; n > 0 {
		knobs = append(knobs, Knob{Name: "transport", Now: fmt.Sprintf("QUIC, of %d near nodes", n), Suggested: "TCP",
			Why:  "on a local network TCP carries some three times as much with a third of the processor's time: let port 4747/tcp through",
			Cost: "none"})
	}
	return knobs
}

// size is one that flags take: of whole mebibytes.
func size(n uint64) string {
	if n >= 1<<30 && n%(1<<30) == 0 {
		return fmt.Sprintf("%dGiB", n>>30)
	}
	return fmt.Sprintf("%dMiB", n>>20)
}

func short(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}
