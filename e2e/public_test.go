package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// public starts a node in the public swarm of others.
func (w *World) public(name string, flags ...string) *Node {
	w.t.Helper()
	return w.Up(name, append([]string{"--workers", "1", "--public"}, flags...)...)
}

// TestPublicSwarm: realms side by side. A job stays at home unless it is to be offloaded; then those run it that lend themselves for it,
// and it comes out right. Members of a private swarm are one realm in the public one, and others see of which.
func TestPublicSwarm(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	swarm := strings.TrimSpace(w.Must("swarm", "init", "--name", "lab", "--home", filepath.Join(w.dir, "a")))
	a := w.public("a", "--label", "pair=yes")
	st, err := a.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := []string{"--bootstrap", st.Addrs[0], "--label", "far=yes,pair=yes"}
	a2 := w.public("a2", "--join", strings.TrimSpace(a.Must("swarm", "invite")))
	lender := w.public("lender", append(at, "--share", "cpu=100%,mem=1GiB")...)
	idle := w.public("idle", at...)
	picky := w.public("picky", append(at, "--share", "cpu=1,mem=1GiB", "--share-deny", swarm)...)
	all := []*Node{a, a2, lender, idle, picky}
	w.Strangers(all...)

	realm := func(of, by *Node) string {
		peers, err := by.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			if p.ID.String() == of.ID {
				return p.Realm
			}
		}
		return ""
	}
	for _, x := range []struct {
		of, by *Node
		want   string
	}{{a, a2, "ours"}, {a2, a, "ours"}, {a2, picky, swarm}, {a, lender, swarm}, {lender, a, lender.ID}, {idle, picky, idle.ID}} {
		Eventually(t, fmt.Sprintf("%s knows of which realm %s is", x.by.Home, x.of.Home), func(context.Context) error {
			if got := realm(x.of, x.by); got != x.want {
				return fmt.Errorf("%q, want %q", got, x.want)
			}
			return nil
		})
	}
	a.Must("kv", "put", "k", "v")
	if got := strings.TrimSpace(a2.Must("kv", "get", "k")); got != "v" {
		t.Errorf("the other node of the realm reads %q", got)
	}
	for _, n := range []*Node{lender, idle, picky} { // two strangers both have a realm called "default"
		if r := n.Grid("kv", "get", "k"); r.Exit == 0 {
			t.Errorf("%s reads the ledger of another realm: %+v", n.Home, r)
		}
		if st, err := n.Node(t.Context()); err != nil || len(st.Ledger.Members) > 1 || !st.Public {
			t.Errorf("%s: %+v, %v", n.Home, st.Ledger, err)
		}
	}

	const tasks, rounds = 24, 10_000
	stayed := detach(t, a, tasks, rounds)
	why := ""
	Eventually(t, "it says why strangers do not run the job", func(ctx context.Context) error {
		x, err := a.Why(ctx, grid.JobID(stayed))
		for _, v := range x.Nodes {
			if v.Node == lender.ID {
				why = v.Text
			}
		}
		if err == nil && !strings.Contains(why, "not to be offloaded") && !x.Job.State.Final() {
			err = fmt.Errorf("%q", why)
		}
		return err
	})
	a.Must("wait", stayed)
	went := detach(t, a, tasks, rounds, "--offload", "--verify", "none", "--no-cache", "--require", "far=yes")
	a.Must("wait", went)
	checked := detach(t, a, tasks, rounds, "--offload", "--no-cache", "--require", "pair=yes")
	a.Must("wait", checked)
	for _, job := range []string{stayed, went, checked} {
		s := a.Status(job)
		by := s.Stages[0].Nodes
		if got := output(t, a, job); s.State != grid.Done || got != burned(tasks, rounds) {
			t.Errorf("%s: %s\n%s", s.State, s.Error, got)
		}
		if by[idle.ID]+by[picky.ID] > 0 {
			t.Errorf("nodes that do not lend to it ran it: %v", by)
		}
		if job == stayed && by[lender.ID] > 0 || job == went && by[lender.ID] != tasks {
			t.Errorf("offload %q: it ran on %v", s.Offload, by)
		}
	}
	if s := a.Status(checked); s.Verify.String() != "quorum=2" || s.Offload != grid.OffloadVerified || s.Stages[0].Check.Runs < tasks {
		t.Errorf("%+v", s)
	}
	if r := a.Grid("run", burn(t), "--offload", "--impure", "--", "1"); r.Exit == 0 || !strings.Contains(r.Stderr, "impure") {
		t.Errorf("%+v", r)
	}
	ls, err := lender.Node(t.Context())
	if err != nil || ls.Share == nil || ls.Share.Ran < 2*tasks || !strings.Contains(lender.Must("status"), "run, ") {
		t.Errorf("%+v, %v", ls.Share, err)
	}
	if m := lender.Must("status", "--metrics"); !strings.Contains(m, "grid_tasks_lent_total "+strconv.FormatUint(ls.Share.Ran, 10)) {
		t.Errorf("metrics do not count tasks for other realms:\n%s", m)
	}
	for _, n := range []*Node{idle, picky} {
		if st, err := n.Node(t.Context()); err != nil || st.Ran != 0 {
			t.Errorf("%s ran %d tasks, %v", n.Home, st.Ran, err)
		}
	}
}
