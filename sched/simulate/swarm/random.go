package swarm

import (
	"math/rand/v2"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched"
)

// Random makes a small world in which everything may go wrong, equal for equal seeds. In all of them every job must
// end, which is what [Run] makes sure of.
func Random(seed uint64) Config {
	r := random{rand.New(rand.NewPCG(seed, 7))}
	cfg := Config{
		Nodes: 1 + r.upTo(8), Slots: 1 + r.upTo(3), Seed: seed, Degree: 2 + r.upTo(6),
		Delay: r.time(30 * time.Millisecond),
		Sched: sched.Config{
			MaxGrain: uint32(1 + r.upTo(20)), MaxLeases: 1 + r.upTo(5), MaxHeld: 2 + r.upTo(20), MaxWaiting: 1 + r.upTo(4),
		},
		Limit: 30 * time.Minute, Events: 3_000_000, Quiet: time.Minute, Patience: 30 * time.Second,
	}
	if r.one(3) {
		cfg.Sites, cfg.Far = 2+r.upTo(3), r.time(100*time.Millisecond)
	}
	if r.one(3) {
		cfg.Loss, cfg.Twice, cfg.Late = float64(r.upTo(3))*0.05, float64(r.upTo(3))*0.05, float64(r.upTo(3))*0.05
	}
	if r.one(3) {
		for range 1 + r.upTo(3) {
			cfg.Machines = append(cfg.Machines, Machine{Slots: 1 + r.upTo(4), Speed: float64(1+r.upTo(8)) / 4})
		}
	}
	for range 1 + r.upTo(4) {
		cfg.Jobs = append(cfg.Jobs, r.job(cfg.Nodes))
	}
	if r.one(2) {
		cfg.Faults = r.faults(cfg.Nodes)
	}
	if r.one(3) && cfg.Nodes > 2 {
		// Of those that stay honest there must be enough for a task to find one: nothing is said of others.
		cfg.Vices = append(cfg.Vices, Vice{
			Node: r.upTo(cfg.Nodes), Kind: []Misdeed{Slow, Mute, Greedy}[r.upTo(3)], At: r.time(2 * time.Second),
		})
	}
	verify(&cfg, random{rand.New(rand.NewPCG(seed, 8))})
	return cfg
}

// verify has some jobs verified, and a node that misbehaves lie to them. It is drawn apart from all else.
func verify(cfg *Config, r random) {
	if cfg.Nodes < 3 { // so that two can be reached at times
		return
	}
	verified := false
	for i := range cfg.Jobs {
		if r.one(4) {
			cfg.Jobs[i].Verify = []string{"quorum=2", "audit=30", "adaptive"}[r.upTo(3)]
			verified = true
		}
	}
	if verified && cfg.Nodes > 3 && len(cfg.Vices) > 0 && r.one(2) {
		cfg.Vices[0].Kind = Wrong
	}
}

// Calm is Random without anything that goes wrong: every task is run once.
func Calm(seed uint64) Config {
	cfg := Random(seed)
	cfg.Faults, cfg.Vices, cfg.Loss, cfg.Twice, cfg.Late, cfg.Once = nil, nil, 0, 0, 0, true
	cfg.Sched.MaxHeld = 0 // what a thief has no room for runs out
	for i := range cfg.Jobs {
		j := &cfg.Jobs[i]
		j.Flaky, j.Cancel, j.Pure, j.Verify = 0, 0, false, ""
	}
	return cfg
}

// Pauses has some jobs of a world paused for a while. It is drawn apart from all else.
func Pauses(cfg *Config) {
	r := random{rand.New(rand.NewPCG(cfg.Seed, 9))}
	for i := range cfg.Jobs {
		if r.one(2) {
			cfg.Jobs[i].Pause, cfg.Jobs[i].Rest = 1+r.time(2*time.Second), 1+r.time(8*time.Second)
		}
	}
}

type random struct{ *rand.Rand }

func (r random) upTo(n int) int  { return r.IntN(n) }
func (r random) one(in int) bool { return r.IntN(in) == 0 }
func (r random) time(most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most/time.Millisecond))) * time.Millisecond
}

func (r random) job(nodes int) Job {
	j := Job{
		Node: r.upTo(nodes), At: r.time(3 * time.Second), Pieces: 1 + r.upTo(3), Keep: r.one(2),
		User: []string{"", "ann", "bob"}[r.upTo(3)], Priority: r.upTo(3) - 1, Pure: !r.one(3),
		Time: Times{
			Kind: []Kind{Constant, Exponential, Pareto, Mixed}[r.upTo(4)], Mean: 1 + r.time(100*time.Millisecond),
			Long: r.time(time.Second), Every: 10 + r.upTo(50),
		},
	}
	for range 1 + r.upTo(4) {
		j.Stages = append(j.Stages, r.upTo(200))
	}
	if r.one(2) { // else a chain
		j.Needs = make([][]grid.Need, len(j.Stages))
		for s := 1; s < len(j.Stages); s++ {
			for range r.upTo(3) {
				n := grid.Need{Stage: uint32(r.upTo(s)), Fan: uint32(r.upTo(4))}
				if n.Fan > 0 { // as an owner does, so that each task has what it needs
					j.Stages[s] = (j.Stages[n.Stage] + int(n.Fan) - 1) / int(n.Fan)
				}
				j.Needs[s] = append(j.Needs[s], n)
			}
		}
	}
	if r.one(3) {
		j.Input, j.Roots, j.Copies = int64(1+r.upTo(1<<20)), 1+r.upTo(20), r.upTo(3)
	}
	if r.one(5) {
		j.Spawn = Spawn{Every: 3 + r.upTo(20), Tasks: 1 + r.upTo(6), Depth: 1 + r.upTo(4)}
	}
	if r.one(4) {
		j.Allow = uint32(r.upTo(4))
	}
	if r.one(6) {
		j.Parallel = uint32(1 + r.upTo(10))
	}
	if r.one(8) {
		j.Deadline = time.Millisecond + r.time(10*time.Second)
	}
	if r.one(4) {
		j.Bad = 1 + r.upTo(100)
	}
	if r.one(4) {
		j.Flaky = float64(r.upTo(10)) / 100
	}
	if r.one(6) {
		j.Cancel = 1 + r.time(4*time.Second)
	}
	return j
}

func (r random) faults(nodes int) (list []Fault) {
	for range 1 + r.upTo(3) {
		list = append(list, Fault{
			Node: r.upTo(nodes), Group: 1 + r.upTo(max(nodes/2, 1)), At: r.time(5 * time.Second),
			For: time.Millisecond + r.time(10*time.Second), Deaf: r.one(2),
		})
	}
	return list
}
