package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// realmOf waits until some nodes are one realm with so many voters, as all of them see it.
func realmOf(t testing.TB, voters int, nodes ...*Node) (leader string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%d nodes are a realm with %d voters", len(nodes), voters), func(ctx context.Context) error {
		id := ""
		leader = ""
		for _, n := range nodes {
			st, err := n.Node(ctx)
			if err != nil {
				return err
			}
			l := st.Ledger
			if l == nil {
				return errors.New("no ledger")
			}
			if id == "" {
				id, leader = l.RealmID, l.Leader
			}
			v := 0
			for _, m := range l.Members {
				if m.Role == grid.Leader || m.Role == grid.Voter {
					v++
				}
			}
			if l.RealmID != id || v != voters || l.Leader == "" || l.Leader != leader {
				return fmt.Errorf("%s: realm %s of %s, %d voters, leader %q, note %q", n.Home, l.RealmID, id, v, l.Leader, l.Note)
			}
		}
		return nil
	})
	return leader
}

// Three real nodes become one realm, go on when the leader is killed, and come back when all are.
func TestRealm(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	names := []string{"a", "b", "c"}
	var nodes []*Node
	for _, name := range names {
		nodes = append(nodes, w.Up(name))
	}
	leader := realmOf(t, 3, nodes...)
	at := -1
	for i, n := range nodes {
		if n.ID == leader {
			at = i
		}
	}
	if at < 0 {
		t.Fatalf("the leader %s is none of the nodes", leader)
	}
	nodes[at].Kill()
	left := []*Node{nodes[(at+1)%3], nodes[(at+2)%3]}
	Eventually(t, "another leader", func(ctx context.Context) error {
		st, err := left[0].Node(ctx)
		if err == nil && (st.Ledger.Leader == leader || st.Ledger.Leader == "") {
			err = fmt.Errorf("leader %q", st.Ledger.Leader)
		}
		return err
	})
	// A job is recorded in the ledger.
	if out := left[1].Must("run", "--name", "goes-on", guest(t, "probe"), "args", "yes"); !strings.Contains(out, "yes") {
		t.Errorf("a job printed %q", out)
	}
	if st := left[0].Must("status"); !strings.Contains(st, "realm") {
		t.Errorf("status printed %q", st)
	}
	for _, n := range left {
		n.Kill()
	}
	nodes = nil
	for _, name := range []string{"c", "a", "b"} {
		nodes = append(nodes, w.Up(name))
	}
	realmOf(t, 3, nodes...)
	for _, n := range nodes {
		Eventually(t, "the job is known", func(context.Context) error {
			if r := n.Grid("ps", "-a"); r.Exit != 0 || !strings.Contains(r.Stdout, "goes-on") {
				return fmt.Errorf("exit code %d: %s%s", r.Exit, r.Stdout, r.Stderr)
			}
			return nil
		})
	}
}
