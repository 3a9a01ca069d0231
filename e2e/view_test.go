package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A job is seen, waited for, read and cancelled from nodes that do not own it, and its owner may die.
func TestJobsFromAnyNode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes most of a minute on a small machine")
	}
	w := NewWorld(t)
	nodes := []*Node{w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1")}
	realmOf(t, 3, nodes...)
	burn := guest(t, "burn")
	const tasks = 60
	id := strings.TrimSpace(nodes[0].Must("run", "-d", "--name", "far", "--count", fmt.Sprint(tasks), burn, "--", "200000"))
	endless := strings.TrimSpace(nodes[0].Must("run", "-d", "--name", "endless", "--count", "1000000", burn, "--", "200000"))

	// It is the submitter who owns it, unless a slow machine has cost that its session.
	st := nodes[1].Status(id)
	at := slices.IndexFunc(nodes, func(n *Node) bool { return n.ID == st.Owner })
	if at < 0 {
		t.Fatalf("the owner %s is none of the nodes", st.Owner)
	}
	owner, b, c := nodes[at], nodes[(at+1)%3], nodes[(at+2)%3]
	if out := b.Must("ps"); !strings.Contains(out, "OWNER") || strings.Count(out, "running") != 2 {
		t.Errorf("ps on another node printed\n%s", out)
	}
	type result struct {
		exit, lines int
		said        string
	}
	waited, logged := make(chan result, 1), make(chan result, 1)
	go func() { r := b.Grid("wait", id[:12]); waited <- result{r.Exit, 0, r.Stderr} }()
	go func() {
		r := c.Grid("logs", "-f", id)
		logged <- result{r.Exit, strings.Count(r.Stdout, "\n"), r.Stderr}
	}()
	if r := c.Grid("cancel", endless[:12]); r.Exit != 0 {
		t.Errorf("cancel: %+v", r)
	}
	if st := b.Status(endless); st.State != "cancelled" {
		t.Errorf("the cancelled job is %s", st.State)
	}
	owner.Kill()
	if r := <-waited; r.exit != 0 {
		t.Errorf("wait: exit code %d: %s", r.exit, r.said)
	}
	if r := <-logged; r.exit != 0 || r.lines != tasks {
		t.Errorf("logs -f: exit code %d, %d lines: %s", r.exit, r.lines, r.said)
	}
	for _, n := range []*Node{b, c} {
		if r := n.Grid("logs", id); r.Exit != 0 || strings.Count(r.Stdout, "\n") != tasks {
			t.Errorf("logs on %s: %+v", n.Home, r)
		}
		if r := n.Grid("cancel", id); r.Exit != 68 || !strings.Contains(r.Stderr, "it is done") {
			t.Errorf("cancel of a job that is done: %+v", r)
		}
	}
	if r := c.Grid("job", "rm", id, endless); r.Exit != 0 {
		t.Errorf("job rm: %+v", r)
	}
	if r := b.Grid("ps", "-a"); !strings.Contains(r.Stderr, "there are no jobs") {
		t.Errorf("ps after that: %+v", r)
	}
}
