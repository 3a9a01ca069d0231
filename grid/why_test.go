package grid_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func why(t testing.TB, n *grid.Node, id grid.JobID) grid.Explanation {
	t.Helper()
	e, err := n.Why(within(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func wantText(t testing.TB, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %q: %s", what, want, got)
		}
	}
}

// node is what an explanation says of a node.
func nodeIn(t testing.TB, e *grid.Explanation, m *remoteNode) grid.NodeView {
	t.Helper()
	for _, v := range e.Nodes {
		if v.Node == m.w.ID.String() {
			return v
		}
	}
	t.Fatalf("nothing is said of node %s: %+v", m.w.ID, e.Nodes)
	return grid.NodeView{}
}

// TestWhyUnplaced: a job that no node can run says so everywhere, and what to do about it; it stops saying so when a
// node comes that can.
func TestWhyUnplaced(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	c := r.join("c", func(c *grid.NodeConfig) {
		c.Capacity = grid.Capacity{Labels: grid.Labels{"gpu": "false"}, Memory: 1 << 20}
	})
	r.share()
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest
	req := request(a.w, 3)
	req.Stages[0].Require = "gpu=true"
	req.Stages[0].Reserve.Memory = 1 << 19
	req.Policy = grid.Policy{User: "ann", Start: time.Hour, Deadline: 2 * time.Hour}
	id := submit(t, a.Node, req)
	for _, m := range r.all {
		e := why(t, m.Node, id)
		if want := "no node that is up can run stage main: no label matches gpu=true"; e.Reason != want { // which one has gpu=false is told of that node
			t.Errorf("reason %q, want %q", e.Reason, want)
		}
		wantText(t, "advice", strings.Join(e.Advice, "\n"), "`grid up --label gpu=true`", "drop --require", "grid cancel")
		if s := e.Stages[0]; s.State != grid.StageUnplaced || s.Fit != 0 || s.Left != 3 || s.Class.User != "ann" {
			t.Errorf("stage %+v", s)
		}
		if e.Deadline.Sub(e.Job.Submitted) != 2*time.Hour || e.Start.Sub(e.Job.Submitted) != time.Hour || e.Job.User != "ann" {
			t.Errorf("times %v, %v of %+v", e.Deadline, e.Start, e.Job)
		}
		if v := nodeIn(t, &e, b); v.State != grid.NodeUnfit || v.Load == nil || v.Capacity.Labels["node"] != b.w.ID.String() {
			t.Errorf("of b: %+v", v)
		}
		wantText(t, "of c", nodeIn(t, &e, c).Text, "no label matches gpu=true", "here gpu=false")
		st, err := m.Job(within(t), id)
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "note", st.Note, "none of 3 nodes can run its stage main, which requires gpu=true", "grid job --why")
	}
	d := r.join("d", func(c *grid.NodeConfig) { c.Capacity = grid.Capacity{Labels: grid.Labels{"gpu": "true"}} })
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); a.KnownUp() < 4; <-tick.C {
		if ctx.Err() != nil {
			t.Fatal("the new node is not heard of")
		}
	}
	if st, err := d.Job(within(t), id); err != nil || st.Note != "" {
		t.Errorf("with a node that can run it: %q, %v", st.Note, err)
	}
	if e := why(t, b.Node, id); e.Stages[0].State == grid.StageUnplaced || nodeIn(t, &e, d).State != grid.NodeFree {
		t.Errorf("with a node that can run it: %+v", e)
	}
	g.let(3)
}

// TestWhyBusy: a job behind another one is told to wait, and of what; one that waits for a stage, for which.
func TestWhyBusy(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	g := newRemoteGate()
	w.Engine.Guest = g.guest
	c := w.Config()
	slots := c.Slots
	n := open(t, c)
	first := submit(t, n, request(w, uint32(slots)+3))
	running := func(e *grid.Explanation) bool { return len(e.Nodes) > 0 && e.Nodes[0].Running == slots }
	var e grid.Explanation
	for ctx := within(t); !running(&e); e = why(t, n, first) {
		if ctx.Err() != nil {
			t.Fatalf("the first job does not run: %+v", e)
		}
	}
	wantText(t, "of the first", e.Reason, "it runs", "in 1 node")
	if v := e.Nodes[0]; v.State != grid.NodeRuns || !v.Owner || e.Stages[0].State != grid.StageRunning {
		t.Errorf("of the first: %+v", e)
	}
	r := request(w, 1)
	r.Stages = append(r.Stages, grid.Stage{Name: "sum", Module: w.Module, From: []grid.Source{{Stage: 0}}})
	second := submit(t, n, r)
	e = why(t, n, second)
	for ctx := within(t); e.Stages[0].State == grid.StageWaits && ctx.Err() == nil; { // until it is laid out
		e = why(t, n, second)
	}
	wantText(t, "of the second", e.Reason, "all 1 node that could run it are busy")
	if s := e.Stages; s[0].State != grid.StageQueued || s[1].State != grid.StageWaits || s[1].Text != "for main" {
		t.Errorf("of the second: %+v", s)
	}
	g.let(100)
	end(t, n, second)
	if e = why(t, n, second); e.Reason != "it is done: all tasks ended well" || e.Nodes != nil {
		t.Errorf("at the end: %+v", e)
	}
}

func TestWhySilent(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest
	id := submit(t, a.Node, request(a.w, 1))
	r.kill(b) // its session goes on for a while
	e := why(t, a.Node, id)
	if v := nodeIn(t, &e, b); v.State != grid.NodeSilent || !strings.Contains(v.Text, "does not answer") {
		t.Errorf("of b: %+v", v)
	}
	// And of a job whose owner is silent.
	r = newRemoteRealm(t, "c", "d")
	r.share()
	c, d := r.all[0], r.all[1]
	c.w.Engine.Guest = g.guest
	id = submit(t, c.Node, request(c.w, 1))
	r.kill(c)
	e = why(t, d.Node, id)
	if e.Job.State != grid.Waiting || len(e.Advice) == 0 {
		t.Errorf("of a job without an owner: %+v", e)
	}
	wantText(t, "reason", e.Reason, "does not answer")
	g.let(1)
}

func TestWhyFailed(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) { return grid.Outcome{Exit: 7}, nil }
	n := open(t, w.Config())
	st, _ := run(t, n, request(w, 1))
	e := why(t, n, st.ID)
	wantText(t, "reason", e.Reason, "main task 0")
	wantText(t, "advice", strings.Join(e.Advice, "\n"), "grid logs "+string(st.ID), "--keep-going")
	if e.Stages[0].State != grid.StageDone || len(e.Last) != 1 || e.Last[0].Kind != grid.EventEnded {
		t.Errorf("explained by %+v", e)
	}

	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
		return grid.Outcome{}, grid.Errorf(grid.NoSpace, "disk full")
	}
	r := request(w, 2)
	r.NoCache = true // the first of them is known to fail
	st, _ = run(t, n, r)
	e = why(t, n, st.ID)
	wantText(t, "reason", e.Reason, "disk full")
	wantText(t, "advice", strings.Join(e.Advice, "\n"), "grid events "+string(st.ID))
	wantCode(t, func() error { _, err := n.Why(within(t), "jzzzz"); return err }(), grid.NotFound)
}
