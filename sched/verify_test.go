package sched_test

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

// verifying is a swarm of nodes with one job of so many tasks, and some nodes that misbehave.
func verifying(nodes int, verify string, tasks int, kind swarm.Misdeed, liars ...int) swarm.Config {
	cfg := swarm.Config{
		Nodes: nodes, Slots: 2, Seed: 1, Delay: 2 * time.Millisecond, Quiet: time.Minute, Limit: 10 * time.Minute,
		Jobs: []swarm.Job{{Stages: []int{tasks, tasks / 10}, Pure: true, Verify: verify,
			Time: swarm.Times{Kind: swarm.Exponential, Mean: 10 * time.Millisecond}}},
		After: check,
	}
	for _, n := range liars {
		cfg.Vices = append(cfg.Vices, swarm.Vice{Node: n, Kind: kind})
	}
	return cfg
}

// TestLiars: with a third of the nodes lying, each in its own way, or all in the same way but too few to make a
// quorum, jobs come out right and the liars are marked.
func TestLiars(t *testing.T) {
	tests := []struct {
		name   string
		nodes  int
		verify string
		kind   swarm.Misdeed
		liars  []int
	}{
		{"independent, quorum of 2", 12, "quorum=2", swarm.Wrong, []int{2, 5, 7, 11}},
		{"independent, quorum of 3", 12, "quorum=3", swarm.Wrong, []int{2, 5, 7, 11}},
		{"colluding, quorum of 4", 9, "quorum=4", swarm.Colluder, []int{1, 4, 7}},
		{"independent, adaptive", 12, "adaptive", swarm.Wrong, []int{2, 5, 7, 11}},
		{"independent, audits", 12, "audit=20", swarm.Wrong, []int{2, 5, 7, 11}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := verifying(tt.nodes, tt.verify, 600, tt.kind, tt.liars...)
			if testing.Short() {
				cfg.After = nil
			}
			r, err := swarm.Run(cfg)
			if err != nil {
				t.Fatal(err)
			}
			j := r.Jobs[0]
			t.Logf("%d runs more, %d wrong, refuted %v; %v", j.Extra, j.Wrong, j.Liars, r)
			if j.Bad || j.Wrong > 0 || j.Split > 0 {
				t.Errorf("failed %v, %d wrong results believed, %d tasks not agreed on", j.Bad, j.Wrong, j.Split)
			}
			if len(j.Liars) != len(tt.liars) {
				t.Errorf("%v were refuted, %v lie", j.Liars, tt.liars)
			}
		})
	}
}

// TestColludersWin shows what a quorum does not promise: as many as it asks for who tell the same lie are believed.
func TestColludersWin(t *testing.T) {
	r, err := swarm.Run(verifying(6, "quorum=2", 300, swarm.Colluder, 1, 2, 3, 4))
	if err != nil {
		t.Fatal(err)
	}
	if r.Jobs[0].Wrong == 0 {
		t.Error("four colluders of six nodes were not believed: does the simulator have any?")
	}
}

// TestTooFewHonest: where no two nodes say the same, tasks fail, and say why.
func TestTooFewHonest(t *testing.T) {
	cfg := verifying(12, "quorum=2", 20, swarm.Wrong, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	cfg.Jobs[0].Stages = []int{20}
	r, err := swarm.Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if j := r.Jobs[0]; !j.Bad || j.Split == 0 || j.Wrong > 0 {
		t.Errorf("failed %v, %d tasks not agreed on, %d wrong", j.Bad, j.Split, j.Wrong)
	}
}

// TestAdaptiveOverhead: once nodes have earned trust, verifying them adaptively takes less than 15% more runs.
func TestAdaptiveOverhead(t *testing.T) {
	cfg := verifying(10, "adaptive", 2000, "")
	cfg.After = nil
	later := cfg.Jobs[0]
	later.At = time.Minute
	cfg.Jobs = append(cfg.Jobs, later)
	r, err := swarm.Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	first, second := float64(r.Jobs[0].Extra)/2200, float64(r.Jobs[1].Extra)/2200
	t.Logf("%.1f%% more runs while trust is built, %.1f%% then", 100*first, 100*second)
	if second > 0.15 || second == 0 || first <= second {
		t.Errorf("%.1f%% more runs at first, %.1f%% then", 100*first, 100*second)
	}
}

// TestVerifyCost compares what the ways of verifying take of a swarm of honest nodes: runs and time.
func TestVerifyCost(t *testing.T) {
	var plain time.Duration
	for _, v := range []string{"none", "quorum=2", "quorum=3", "audit=10", "adaptive"} {
		cfg := verifying(10, v, 2000, "")
		cfg.After = nil
		r, err := swarm.Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if plain == 0 {
			plain = r.Makespan
		}
		runs, most := float64(r.Ran)/2200, map[string]float64{"none": 1.1, "quorum=2": 2.2, "quorum=3": 3.3, "audit=10": 1.25, "adaptive": 1.5}[v]
		t.Logf("%-9s %.2f runs for each task, %.2f of the time", v, runs, float64(r.Makespan)/float64(plain))
		if runs > most {
			t.Errorf("%s: %.2f runs for each task", v, runs)
		}
	}
}

// TestVerifyTakenOver: owners die while jobs are verified, liars lie, nodes come and go. Nothing wrong is believed.
func TestVerifyTakenOver(t *testing.T) {
	for seed := range uint64(10) {
		cfg := verifying(8, "quorum=2", 200, swarm.Wrong, 3)
		cfg.Seed = seed
		cfg.Faults = []swarm.Fault{
			{Node: 0, At: 300 * time.Millisecond, For: 5 * time.Second}, {Node: 1, At: 3 * time.Second, For: time.Second, Deaf: seed%2 == 0},
			{Node: 5, Group: 2, At: time.Second, For: 2 * time.Second},
		}
		r, err := swarm.Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if j := r.Jobs[0]; j.Bad || j.Wrong > 0 {
			t.Errorf("seed %d: failed %v, %d wrong", seed, j.Bad, j.Wrong)
		}
	}
}

// TestJury decides single tasks.
func TestJury(t *testing.T) {
	a, b, c := grid.Answer{1}, grid.Answer{2}, grid.Answer{3}
	j := grid.NewJury(grid.Verify{Mode: grid.VerifyQuorum, N: 2}, "me", [32]byte{}, nil)
	hear := func(node string, answer grid.Answer, lasting bool) grid.Ruling {
		return j.Hear(0, 7, grid.Testimony{Node: peer.ID(node), Answer: answer, Lasting: lasting})
	}
	for _, node := range []string{"A", "A"} { // who repeats itself is heard once
		if r := hear(node, a, true); r.Outcome != grid.Unproven {
			t.Fatalf("%+v", r)
		}
	}
	if v := j.Votes(0, grid.Span{Hi: 100}); len(v) != 1 || v[0].Index != 7 || len(v[0].Nodes) != 1 || v[0].Withheld {
		t.Errorf("votes: %+v", v)
	}
	hear("B", b, true)
	hear("C", c, false) // it ran out of time: no lie
	if j.Tied(0, []peer.ID{"A", "B", "C"}) != 1 || j.Tied(0, []peer.ID{"A", "D"}) != 0 {
		t.Error("who could still run it is not told")
	}
	r := hear("D", b, true)
	if r.Outcome != grid.Succeeded || r.Said[r.Winner].Answer != b || !slices.Equal(r.Liars, []int{0}) || len(r.Said) != 4 {
		t.Errorf("%+v", r)
	}
	if len(j.Votes(0, grid.Span{Hi: 100})) != 0 {
		t.Error("what was decided is still open")
	}
	for i := range byte(20) {
		r = hear(string('A'+rune(i)), grid.Answer{i}, true)
		if r.Outcome != grid.Unproven {
			break
		}
	}
	if r.Outcome != grid.GuestFailed || len(r.Said) != 8 || len(r.Liars) > 0 {
		t.Errorf("nobody agrees: %+v", r)
	}
}

// TestRealmIsOneVoice: nodes of another realm that tell the same lies are more than a quorum asks for, and count as one. This realm's
// nodes decide then. With a second lying realm they can be outvoted.
func TestRealmIsOneVoice(t *testing.T) {
	beyond := func(nodes, realms int, liars ...int) swarm.Config {
		cfg := verifying(nodes, "quorum=2", 300, swarm.Colluder, liars...)
		cfg.Realms = realms
		cfg.Sched.Share = grid.Share{Slots: 2, Memory: 1 << 40, Scratch: 1 << 40}
		return cfg
	}
	r, err := swarm.Run(beyond(6, 2, 1, 3, 5))
	if err != nil {
		t.Fatal(err)
	}
	j := r.Jobs[0]
	t.Logf("%d runs more, refuted %v; %v", j.Extra, j.Liars, r)
	if j.Bad || j.Wrong > 0 || j.Split > 0 || len(j.Liars) == 0 {
		t.Errorf("failed %v, %d wrong results believed, %d tasks not agreed on, refuted %v", j.Bad, j.Wrong, j.Split, j.Liars)
	}
	if r, err = swarm.Run(beyond(6, 3, 1, 2, 4, 5)); err != nil {
		t.Fatal(err)
	}
	if r.Jobs[0].Wrong == 0 {
		t.Error("two realms that collude were not believed")
	}
}

// TestJuryVoices: of those who speak with one voice the first is heard, and a lie makes all of them liars.
func TestJuryVoices(t *testing.T) {
	right, wrong := grid.Answer{1}, grid.Answer{2}
	j := grid.NewJury(grid.Verify{Mode: grid.VerifyAudit, N: 1}, "me", [32]byte{}, nil)
	hear := func(index uint32, node, voice string, answer grid.Answer) grid.Ruling {
		return j.Hear(0, index, grid.Testimony{Node: peer.ID(node), Voice: peer.ID(voice), Answer: answer, Lasting: true})
	}
	if r := hear(0, "A", "R", wrong); r.Outcome != grid.Withheld {
		t.Fatalf("%+v", r)
	}
	if r := j.Rest(0); len(r) != 1 || r[0].Outcome != grid.Unproven {
		t.Fatalf("%+v", r)
	}
	if r := hear(0, "B", "R", wrong); r.Outcome != grid.Unproven {
		t.Errorf("a realm confirms itself: %+v", r)
	}
	if j.Tied(0, []peer.ID{"R"}) != 1 || j.Tied(0, []peer.ID{"R", "S"}) != 0 {
		t.Error("who could still run it is not told")
	}
	hear(0, "C", "S", right)
	if r := hear(0, "D", "", right); r.Outcome != grid.Succeeded || len(r.Said) != 3 || !slices.Equal(r.Liars, []int{0}) {
		t.Errorf("%+v", r)
	}
	if r := hear(1, "B", "R", right); r.Outcome != grid.Unproven {
		t.Errorf("another node of a realm that lied is believed until an audit: %+v", r)
	}
}
