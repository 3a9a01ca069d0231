package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestVerify: three real nodes confirm one another's results, to the last unit of fuel, also of tasks that spawn others;
// and any of them proves the receipts afterwards.
func TestVerify(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "2"), w.Up("b", "--workers", "2"), w.Up("c", "--workers", "2")
	realmOf(t, 3, a, b, c)
	job := strings.TrimSpace(a.Must("run", guest(t, "probe"), "--count", "40", "--verify", "quorum=3", "--detach", "--", "number"))
	a.Must("wait", job)
	st := b.Status(job)
	if c := st.Stages[0].Check; c == nil || c.Runs != 80 || c.Split > 0 || len(c.Liars) > 0 || c.Fuel == 0 || st.Verify.String() != "quorum=3" {
		t.Errorf("verification %s: %+v", st.Verify, c)
	}
	if out := c.Must("verify", job); !strings.Contains(out, "40 proved, 0 refuted, 0 unsure") {
		t.Errorf("%s", out)
	}
	if out := b.Must("replay", job+"/7"); !strings.Contains(out, "the same as the receipt that counts") {
		t.Errorf("%s", out)
	}
	out := a.Must("run", filepath.Join(repo(t), "plugins", "nqueens"), "--func", "queens", "--verify", "quorum=2", "--", "-n", "8", "-cut", "2")
	if out != "92\n" {
		t.Errorf("%q", out)
	}
}

// TestAdaptiveOverhead measures what adaptive verification costs three real nodes: in runs besides those that count,
// before and after they have earned trust.
func TestAdaptiveOverhead(t *testing.T) {
	long(t)
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "2"), w.Up("b", "--workers", "2"), w.Up("c", "--workers", "2")
	realmOf(t, 3, a, b, c)
	const tasks = 600
	var runs [3]float64
	for i := range runs {
		job := strings.TrimSpace(a.Must("run", guest(t, "probe"), "--count", strconv.Itoa(tasks), "--verify", "adaptive", "--no-cache", "--detach", "--", "number"))
		a.Must("wait", job)
		st := a.Status(job).Stages[0]
		if st.Check == nil || st.Check.Split > 0 || len(st.Check.Liars) > 0 || st.Done != tasks {
			t.Fatalf("%+v, %+v", st, st.Check)
		}
		runs[i] = float64(st.Check.Runs) / tasks
		t.Logf("job %d: %.1f%% more runs, on %v", i+1, 100*runs[i], st.Nodes)
	}
	if last := runs[len(runs)-1]; last > 0.15 || runs[0]+runs[1] == 0 {
		t.Errorf("%.1f%% more runs, once trust is built", 100*last)
	}
}
