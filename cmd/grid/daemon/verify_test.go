package daemon

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// tell is a guest that writes the square of its task's number, or if it lies something else.
func tell(lie string) func(context.Context, *grid.Guest) error {
	return func(ctx context.Context, g *grid.Guest) error {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
		n := 0
		for _, e := range g.Env {
			if text, ok := strings.CutPrefix(e, grid.EnvTask+"="); ok {
				_, _ = fmt.Sscan(text, &n)
			}
		}
		fmt.Fprint(g.Stdout, n*n, lie)
		return nil
	}
}

// swarmOf is nodes of one realm. Those that have a lie tell it.
func swarmOf(t *testing.T, lies ...string) (w *memnet.World, all []*rig) {
	t.Helper()
	w = memnet.New(memnet.Config{})
	for _, lie := range lies {
		all = append(all, joinSwarm(t, w, all, lie))
	}
	return w, all
}

func joinSwarm(t *testing.T, w *memnet.World, all []*rig, lie string) *rig {
	t.Helper()
	r := newRig(t, w, 2, func(c *grid.NodeConfig) {
		c.Copies = 1
		if len(all) > 0 {
			c.Ledger = all[0].Ledger()
		}
	})
	r.eng.mu.Lock()
	r.eng.guest = tell(lie)
	r.eng.mu.Unlock()
	return r
}

// verified runs a job to its end.
func (r *rig) verified(t *testing.T, verify string, tasks uint32) (grid.JobStatus, []grid.JobEvent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := grid.ParseVerify(verify)
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.node.Submit(ctx, grid.Request{
		Spec:   grid.Spec{Stages: []grid.Stage{{Module: r.add(t, []byte("module")), Tasks: tasks}}},
		Policy: grid.Policy{Verify: v}, NoCache: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.ended(t, id, tasks)
}

// ended waits for a job, and checks all its results.
func (r *rig) ended(t *testing.T, id grid.JobID, tasks uint32) (last grid.JobStatus, events []grid.JobEvent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.node.Watch(ctx, id, func(st grid.JobStatus) error { last = st; return nil }); err != nil || last.State != grid.Done {
		why, _ := r.node.Why(t.Context(), id)
		t.Fatalf("job ended as %s: %s, %v; %+v", last.State, last.Error, err, why)
	}
	seen := uint32(0)
	err := r.node.Tasks(ctx, id, false, func(e grid.TaskEnd) error {
		seen++
		if got, want := string(e.Stdout.Data), fmt.Sprint(e.Index*e.Index); got != want {
			t.Errorf("task %d of job %s came to %q, want %q", e.Index, id, got, want)
		}
		return nil
	})
	if err != nil || seen != tasks {
		t.Errorf("%d of %d tasks, %v", seen, tasks, err)
	}
	if err := r.node.Events(ctx, id, false, func(e grid.JobEvent) error { events = append(events, e); return nil }); err != nil {
		t.Error(err)
	}
	return last, events
}

// TestVerifyQuorum: of four nodes one lies; the job comes out right all the same, and the liar is marked.
func TestVerifyQuorum(t *testing.T) {
	_, all := swarmOf(t, "", "", " or so", "")
	st, events := all[0].verified(t, "quorum=2", 200)
	check := st.Stages[0].Check
	liar := all[2].id.String()
	if check == nil || check.Runs < 200 || check.Liars[liar] == 0 || len(check.Liars) != 1 {
		t.Fatalf("verification: %+v", check)
	}
	t.Logf("%+v", check)
	// What confirms counts besides what counts, and what was refuted for nothing.
	c, err := all[1].node.RecountUsage(t.Context(), st.ID)
	if err != nil || !c.OK() || c.Ledger.Tasks != 200 || c.Count != 200 ||
		c.Ledger.Checks != int64(check.Runs)-int64(check.Liars[liar]) {
		t.Errorf("usage: %+v, %v", c, err)
	}
	told := false
	for _, e := range events {
		told = told || e.Kind == grid.EventAccused && e.Node == all[2].id && e.Tasks.Len() == 1 &&
			strings.Contains(e.Text, "stdout bafk") && strings.Contains(e.Text, "not bafk")
	}
	if !told {
		t.Errorf("nobody tells of the lie: %v", events)
	}
	if s := all[0].node.Standing(all[2].id); s.Bad == 0 || s.Good > 0 {
		t.Errorf("the liar stands at %+v", s)
	}
	if s := all[0].node.Standing(all[1].id); s.Bad > 0 {
		t.Errorf("an honest node stands at %+v", s)
	}
}

// TestVerifyAudit and adaptive verification find a liar, too.
func TestVerifyOthers(t *testing.T) {
	for _, mode := range []string{"audit=20", "adaptive"} {
		t.Run(mode, func(t *testing.T) {
			_, all := swarmOf(t, "", "", " or so", "")
			st, _ := all[0].verified(t, mode, 300)
			check := st.Stages[0].Check
			if check == nil || check.Liars[all[2].id.String()] == 0 || len(check.Liars) != 1 {
				t.Fatalf("verification: %+v", check)
			}
			t.Logf("%+v", check)
		})
	}
}

// TestVerifyTooFew: a job that wants more nodes than there are says so, and ends when one more has come.
func TestVerifyTooFew(t *testing.T) {
	w, all := swarmOf(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := all[0]
	id, err := r.node.Submit(ctx, grid.Request{
		Spec:   grid.Spec{Stages: []grid.Stage{{Name: "main", Module: r.add(t, []byte("module")), Tasks: 10}}},
		Policy: grid.Policy{Verify: grid.Verify{Mode: grid.VerifyQuorum, N: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the job does not say what it waits for", func() bool {
		x, err := r.node.Why(ctx, id)
		return err == nil && strings.HasPrefix(x.Reason, "2 nodes must come to the same result of each task of stage main") &&
			strings.Contains(x.Job.Note, "quorum=2")
	})
	joinSwarm(t, w, all, "")
	r.ended(t, id, 10)
}

// TestVerifyKnown: a result that is known counts as the word of the node that made it.
func TestVerifyKnown(t *testing.T) {
	_, all := swarmOf(t, "", "")
	r := all[0]
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		id, err := r.node.Submit(ctx, grid.Request{
			Spec:   grid.Spec{Stages: []grid.Stage{{Module: r.add(t, []byte("module")), Tasks: 20}}},
			Policy: grid.Policy{Verify: grid.Verify{Mode: grid.VerifyQuorum, N: 2}},
		})
		if err != nil {
			t.Fatal(err)
		}
		st, _ := r.ended(t, id, 20)
		if c := st.Stages[0].Check; c == nil || c.Runs != 20 {
			t.Errorf("verification: %+v", c)
		}
		cancel()
	}
}

// TestVerifyHearsay: what a node has heard of a node that nobody has seen, or says that it has, is no vote.
func TestVerifyHearsay(t *testing.T) {
	const tasks = 20
	spec := func(r *rig) grid.Spec {
		return grid.Spec{Stages: []grid.Stage{{Module: r.add(t, []byte("module")), Tasks: tasks}}}
	}
	run := func(r *rig, req grid.Request) grid.JobStatus {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		id, err := r.node.Submit(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		st, _ := r.ended(t, id, tasks)
		return st
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lies []grid.Receipt
	_, elsewhere := swarmOf(t, "")
	elsewhere[0].eng.mu.Lock()
	elsewhere[0].eng.guest = func(ctx context.Context, g *grid.Guest) error {
		r := grid.Receipt{Key: g.Seed, Node: nobody, Stdout: grid.Output{Size: 1, Inline: []byte("?")}}
		mu.Lock()
		defer mu.Unlock()
		lies = append(lies, r)
		return tell("")(ctx, g)
	}
	elsewhere[0].eng.mu.Unlock()
	run(elsewhere[0], grid.Request{Spec: spec(elsewhere[0])})
	for i := range lies {
		if err := grid.Sign(key, &lies[i]); err != nil {
			t.Fatal(err)
		}
	}
	for teller := range 2 { // the owner itself, or another one
		_, all := swarmOf(t, "", "", "")
		if err := all[teller].Cache().Remember(t.Context(), lies...); err != nil {
			t.Fatal(err)
		}
		st := run(all[0], grid.Request{Spec: spec(all[0]), Policy: grid.Policy{Verify: grid.Verify{Mode: grid.VerifyQuorum, N: 2}}})
		if c := st.Stages[0].Check; c == nil || len(c.Liars) > 0 {
			t.Errorf("node %d tells of nobody's results: %+v", teller, c)
		}
	}
}

// TestVerifyTakeOver: the owner of a job that verifies goes, and another node brings it to its end.
func TestVerifyTakeOver(t *testing.T) {
	_, all := swarmOf(t, "", "", "", "", " or so")
	first := all[1]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := first.node.Submit(ctx, grid.Request{
		Spec:   grid.Spec{Stages: []grid.Stage{{Module: first.add(t, []byte("module")), Tasks: 300}}},
		Policy: grid.Policy{Verify: grid.Verify{Mode: grid.VerifyQuorum, N: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		r.add(t, []byte("module"))
	}
	eventually(t, "nothing of the job has ended", func() bool {
		st, err := first.node.Job(ctx, id)
		return err == nil && st.Stages[0].Done > 20
	})
	first.node.Close()
	st, _ := all[0].ended(t, id, 300)
	if st.Epoch < 2 || st.Owner == first.id.String() {
		t.Errorf("%s owns it, in epoch %d", st.Owner, st.Epoch)
	}
}

// TestVerifyRefuses what cannot be verified.
func TestVerifyRefuses(t *testing.T) {
	_, all := swarmOf(t, "")
	r := all[0]
	_, err := r.node.Submit(t.Context(), grid.Request{
		Spec:   grid.Spec{Stages: []grid.Stage{{Name: "dice", Module: r.add(t, []byte("module")), Tasks: 1, Impure: true}}},
		Policy: grid.Policy{Verify: grid.Verify{Mode: grid.VerifyAdaptive}},
	})
	if grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "stage 0 (dice) is impure") {
		t.Errorf("an impure job: %v", err)
	}
}

// TestRecheck: a node that lied is found out afterwards, by whoever runs its tasks again.
func TestRecheck(t *testing.T) {
	_, all := swarmOf(t, "", " or so")
	r, liar := all[0], all[1]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := r.node.Submit(ctx, grid.Request{
		Spec: grid.Spec{Stages: []grid.Stage{{Name: "main", Module: r.add(t, []byte("module")), Tasks: 100}}}, NoCache: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.node.Watch(ctx, id, func(grid.JobStatus) error { return nil }); err != nil {
		t.Fatal(err)
	}
	counts := map[grid.Verdict]int{}
	check := func(c grid.Rechecked) error {
		counts[c.Verdict]++
		if lied := c.Node == liar.id; lied != (c.Verdict == grid.Refuted) || lied && !strings.Contains(c.Why, "it says stdout bafk") {
			t.Errorf("%+v", c)
		}
		return nil
	}
	if err := r.node.Recheck(ctx, id, grid.Recheck{}, check); err != nil {
		t.Fatal(err)
	}
	if counts[grid.Refuted] == 0 || counts[grid.Proved] == 0 || counts[grid.Refuted]+counts[grid.Proved] != 100 {
		t.Errorf("%v", counts)
	}
	clear(counts)
	if err := r.node.Recheck(ctx, id, grid.Recheck{Sample: 10}, check); err != nil || counts[grid.Refuted]+counts[grid.Proved] != 10 {
		t.Errorf("a sample: %v, %v", counts, err)
	}
	// What may not run any more is not run for this, either.
	if _, err := r.node.SetPluginPolicy(ctx, grid.PluginPolicy{Require: grid.SignAll}); err != nil {
		t.Fatal(err)
	}
	if err := r.node.Recheck(ctx, id, grid.Recheck{Sample: 3}, func(c grid.Rechecked) error {
		if c.Verdict != grid.Unsure || !strings.Contains(c.Why, "is not signed") {
			t.Errorf("a module that is forbidden: %+v", c)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestStandingLasts: what is known of nodes is in the ledger, and other nodes read it.
func TestStandingLasts(t *testing.T) {
	w, all := swarmOf(t, "", "", " or so")
	all[0].verified(t, "quorum=2", 100)
	liar := all[2].id
	key := grid.StandingKeys + liar.String()
	eventually(t, "nothing is written of the liar", func() bool {
		_, err := all[0].Ledger().Get(t.Context(), key)
		return err == nil
	})
	eventually(t, "another node does not learn of it", func() bool { return all[1].node.Standing(liar).Bad > 0 })
	late := joinSwarm(t, w, all, "")
	eventually(t, "who comes later does not learn of it", func() bool { return late.node.Standing(liar).Bad > 0 })
	told := false
	for _, p := range all[0].node.Peers() {
		told = told || p.ID == liar && p.Standing != nil && p.Standing.Bad > 0
	}
	if !told {
		t.Error("the list of peers does not tell")
	}
}
