package e2e

import (
	"path/filepath"
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
