package sched_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

// shrinkTries bounds how long a failing world is made smaller.
const shrinkTries = 1000

// TestProperties plays random worlds: whatever goes wrong, no task is lost, none counts twice, every job ends, once
// and with the right verdict, nothing is held for ever, no slot is idle for long beside a full queue, and the core's
// invariants hold after every step. A world that fails is made small before it is shown. In a calm one no task may even run twice. SIMULATE_SEEDS sets how
// many are played, SIMULATE_SEED which one only.
func TestProperties(t *testing.T) {
	first, seeds := uint64(0), uint64(250)
	if testing.Short() {
		seeds = 30
	}
	if n, err := strconv.ParseUint(os.Getenv("SIMULATE_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("SIMULATE_SEED"), 10, 64); err == nil {
		first, seeds = n, 1
	}
	for seed := first; seed < first+seeds; seed++ {
		for _, cfg := range []swarm.Config{swarm.Random(seed), swarm.Calm(seed)} {
			cfg.After = check
			if seed%2 == 1 {
				swarm.Pauses(&cfg)
			}
			if err := play(cfg); err != nil {
				t.Fatal(smallest(cfg, err))
			}
		}
	}
}

// TestRealms plays random worlds of three realms whose nodes lend a slot: all that is told of one realm holds, and no stranger's task
// ever takes more than the share, nor waits beside the realm's own; see check.
func TestRealms(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 25
	}
	for seed := range seeds {
		cfg := swarm.Random(seed)
		cfg.Realms, cfg.Patience, cfg.Once = 3, 0, false
		cfg.Sched.Share = grid.Share{Slots: 1, Memory: 1 << 40, Scratch: 1 << 40}
		cfg.After = check
		if err := play(cfg); err != nil {
			t.Fatal(smallest(cfg, err))
		}
	}
}

// play is a run as far as a property test cares. A panic is a failure like others.
func play(cfg swarm.Config) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	_, err = swarm.Run(cfg)
	return err
}

// smallest tells of a failing world in as few words as possible.
func smallest(cfg swarm.Config, err error) string {
	small, why := swarm.Shrink(cfg, play, shrinkTries)
	var trace strings.Builder
	small.Trace = &trace
	_ = play(small)
	story := trace.String()
	if lines := strings.Split(story, "\n"); len(lines) > 60 {
		story = strings.Join(append(lines[:20], append([]string{"..."}, lines[len(lines)-40:]...)...), "\n")
	}
	return fmt.Sprintf("seed %d: %v\nIn small: %v\n%#v\n%s", cfg.Seed, err, why, small, story)
}

// A flawed scheduler has a fault in it that the auditor must find and the shrinker must make small.
type flawed struct {
	grid.Scheduler
	before func(grid.Event) grid.Event // nil: nothing
	after  func(grid.Effect) []grid.Effect
}

func (f flawed) Step(now time.Time, ev grid.Event) []grid.Effect {
	if f.before != nil {
		ev = f.before(ev)
	}
	out := f.Scheduler.Step(now, ev)
	if f.after == nil {
		return out
	}
	var changed []grid.Effect
	for _, e := range out {
		changed = append(changed, f.after(e)...)
	}
	return changed
}

// TestPlantedFaults: the tests above would notice. Each scheduler has one fault, which random worlds must find, and
// which must still be there in a much smaller world.
func TestPlantedFaults(t *testing.T) {
	same := func(e grid.Effect) []grid.Effect { return []grid.Effect{e} }
	tests := []struct {
		name string
		wrap func(grid.Scheduler) grid.Scheduler
		want string        // of the error
		most int           // tasks that are left
		wait time.Duration // Config.Patience; 0: that of the world
	}{
		{"forgets tasks when they are prepared", func(s grid.Scheduler) grid.Scheduler {
			return flawed{s, func(ev grid.Event) grid.Event {
				if p, ok := ev.(grid.Prepared); ok && len(p.Ready) > 0 && p.Ready[0].Len() > 3 {
					p.Ready = []grid.Span{{Lo: p.Ready[0].Lo, Hi: p.Ready[0].Hi - 1}}
					return p
				}
				return ev
			}, nil}
		}, "not ended", 10, 0},
		{"closes a job twice", func(s grid.Scheduler) grid.Scheduler {
			return flawed{s, nil, func(e grid.Effect) []grid.Effect {
				if c, ok := e.(grid.CloseJob); ok {
					return []grid.Effect{c, c}
				}
				return same(e)
			}}
		}, "closed again", 1, 0},
		{"closes a job too early", func(s grid.Scheduler) grid.Scheduler {
			closed := map[grid.JobID]bool{}
			runs := 0
			return flawed{s, nil, func(e grid.Effect) []grid.Effect {
				switch e := e.(type) {
				case grid.Run:
					if runs++; runs > 5 && !closed[e.Lease.Job] {
						closed[e.Lease.Job] = true
						return []grid.Effect{e, grid.CloseJob{Job: e.Lease.Job}}
					}
				case grid.CloseJob:
					if closed[e.Job] {
						return nil
					}
					closed[e.Job] = true
				}
				return same(e)
			}}
		}, "is not", 40, 0},
		{"keeps what it got, and does not run it", func(s grid.Scheduler) grid.Scheduler {
			return flawed{s, nil, func(e grid.Effect) []grid.Effect {
				if r, ok := e.(grid.Run); ok && r.Lease.Hi%2 == 0 {
					return nil
				}
				return same(e)
			}}
		}, "", 10, 0},
		{"gives nothing away", func(s grid.Scheduler) grid.Scheduler {
			return flawed{s, nil, func(e grid.Effect) []grid.Effect {
				if a, ok := e.(grid.AnswerSteal); ok {
					return []grid.Effect{grid.AnswerSteal{Call: a.Call}}
				}
				return same(e)
			}}
		}, "idle slot", 400, 2 * time.Second},
		{"gives the same away twice", func(s grid.Scheduler) grid.Scheduler {
			var last []grid.Lease
			return flawed{s, nil, func(e grid.Effect) []grid.Effect {
				a, ok := e.(grid.AnswerSteal)
				if !ok {
					return same(e)
				}
				last, a.Leases = a.Leases, append(last, a.Leases...)
				return same(a)
			}}
		}, "was run before", 600, 0},
		{"runs what it lent", func(s grid.Scheduler) grid.Scheduler {
			var lent []grid.Lease
			return flawed{s, nil, func(e grid.Effect) []grid.Effect {
				switch e := e.(type) {
				case grid.AnswerSteal:
					lent = append(lent, e.Leases...)
				case grid.CloseJob:
					for _, l := range lent {
						if l.Job == e.Job {
							return []grid.Effect{e, grid.Run{Lease: l}}
						}
					}
				}
				return same(e)
			}}
		}, "", 80, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var found swarm.Config
			fails := func(cfg swarm.Config) error {
				if tt.wait > 0 {
					cfg.Patience = tt.wait
				}
				cfg.Wrap = func(_ int, s grid.Scheduler) grid.Scheduler { return tt.wrap(s) }
				err := play(cfg)
				if err != nil && !strings.Contains(err.Error(), tt.want) {
					return nil // by another name
				}
				return err
			}
			err := errors.New("")
			for seed := range uint64(200) {
				found = swarm.Random(seed)
				if err = fails(found); err == nil {
					found = swarm.Calm(seed)
					err = fails(found)
				}
				if err != nil {
					break
				}
			}
			if err == nil {
				t.Fatal("it was not noticed in 200 worlds")
			}
			small, why := swarm.Shrink(found, fails, 200)
			again, _ := swarm.Shrink(found, fails, 200)
			if got := fmt.Sprintf("%#v", again); got != fmt.Sprintf("%#v", small) {
				t.Errorf("two ways of shrinking:\n%#v\n%s", small, got)
			}
			tasks := 0
			for _, j := range small.Jobs {
				for _, n := range j.Stages {
					tasks += n
				}
			}
			if why == nil || fails(small) == nil || len(small.Jobs) > 2 || tasks > tt.most || len(small.Faults) > 0 {
				t.Errorf("not small, or it does not fail any more: %v\n%#v", why, small)
			}
			t.Logf("%v\n%#v", why, small)
		})
	}
}

// TestMisdeeds: one node of ten that misbehaves costs time, and little of it, but no task.
func TestMisdeeds(t *testing.T) {
	for _, kind := range []swarm.Misdeed{swarm.Broken, swarm.Slow, swarm.Mute, swarm.Greedy, swarm.Hoarder} {
		t.Run(string(kind), func(t *testing.T) {
			cfg := swarm.Config{
				Nodes: 10, Slots: 2, Seed: 1, Delay: 2 * time.Millisecond, Vices: []swarm.Vice{{Node: 5, Kind: kind}}, Quiet: time.Minute,
				Jobs:  []swarm.Job{{Stages: []int{3000}, Pure: true, Time: swarm.Times{Kind: swarm.Exponential, Mean: 20 * time.Millisecond}}},
				Limit: time.Minute,
			}
			if !testing.Short() {
				cfg.After = check
			}
			r, err := swarm.Run(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r)
			if r.Jobs[0].Bad || r.Stretch() > 3 {
				t.Errorf("failed: %v; %.2f of the ideal", r.Jobs[0].Bad, r.Stretch())
			}
		})
	}
}

// TestLendsOnlyShare: strangers get work done by nodes that lend, and by no others.
func TestLendsOnlyShare(t *testing.T) {
	for slots := range 2 {
		cfg := swarm.Config{Nodes: 3, Slots: 2, Realms: 3, Delay: time.Millisecond, Jobs: []swarm.Job{{Stages: []int{300}}}, After: check}
		cfg.Sched.Share = grid.Share{Slots: slots, Memory: 1, Scratch: 1}
		report, err := swarm.Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if (report.Steals > 0) != (slots > 0) {
			t.Errorf("with %d slots to lend, strangers took work %d times", slots, report.Steals)
		}
	}
}
