package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestGrantsStayInRealm: a node that joins is let in on a secret and runs tasks that use it and the realm's map; a
// node of another realm, which would like to, runs none of them, but runs others.
func TestGrantsStayInRealm(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a := w.Up("a", "--workers", "1")
	file := filepath.Join(w.dir, "token")
	if err := os.WriteFile(file, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Must("secret", "set", "token", file)
	b, c := w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1", "--realm", "other", "--share", "cpu=100%")
	w.Meet(a, b, c)
	Eventually(t, "b can read the secret", func(ctx context.Context) error {
		list, err := b.Secrets(ctx)
		if err == nil && (len(list) != 1 || !list[0].Here) {
			err = fmt.Errorf("b knows of %+v", list)
		}
		return err
	})
	if list, err := c.Secrets(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("c knows of %+v, %v", list, err)
	}
	const tasks = 60
	job := strings.TrimSpace(a.Must("run", guest(t, "granted"), "--count", strconv.Itoa(tasks), "--detach",
		"--allow-kv", "n", "--allow-secret", "token", "--", "work", "n", "token"))
	Eventually(t, "c is left out", func(ctx context.Context) error {
		x, err := a.Why(ctx, grid.JobID(job))
		if err != nil {
			return err
		}
		for _, v := range x.Nodes {
			if v.Node == c.ID && strings.Contains(v.Text, "of another realm") && len(v.Lacks) > 0 {
				return nil
			}
		}
		if x.Job.State.Final() {
			t.Fatalf("the job has ended as %s: %s", x.Job.State, x.Job.Error)
		}
		return errors.New("nothing is said of c")
	})
	a.Must("wait", job)
	if n := a.Must("kv", "get", "n"); n != strconv.Itoa(tasks) {
		t.Errorf("%d tasks added up to %s", tasks, n)
	}
	if nodes := a.Status(job).Stages[0].Nodes; nodes[c.ID] != 0 || nodes[a.ID] == 0 || nodes[b.ID] == 0 || nodes[a.ID]+nodes[b.ID] != tasks {
		t.Errorf("tasks ran on %v", nodes)
	}
	// What may be offloaded it does run.
	job = strings.TrimSpace(a.Must("run", burn(t), "--offload", "--verify", "none", "--count", "150", "--detach", "--", "20000"))
	a.Must("wait", job)
	if nodes := a.Status(job).Stages[0].Nodes; nodes[c.ID] == 0 {
		t.Errorf("tasks ran on %v", nodes)
	}
}
