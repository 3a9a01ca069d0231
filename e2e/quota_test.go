//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestSubmitterQuota: of three nodes, a user's quota is used up in the middle of a job, which says so and is paused, wherever one
// asks. Its owner is killed; under the next one it is paused, too. When the quota is raised it goes on, ends with the
// right answer, and every task was counted once, as its receipts prove.
func TestSubmitterQuota(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3, "--workers", "1")
	defer c.tell()
	const tasks, most, work = 400, 100, 5_000
	want := burned(tasks, work)
	// The leader is not the one that is killed: the test is of quotas.
	owner := (c.leader() + 1) % 3
	other := (owner + 1) % 3
	c.nodes[other].Must("quota", "set", "ann", "--tasks", strconv.Itoa(most), "--per", "total")
	job := strings.TrimSpace(c.nodes[owner].Must("run", guest(t, "burn"), "--count", strconv.Itoa(tasks), "--detach", "--user", "ann", "--", strconv.Itoa(work)))

	paused := func(n *Node) (st grid.JobStatus) {
		t.Helper()
		Eventually(t, "the job is paused", func(ctx context.Context) (err error) {
			last := booked(st)
			if st, err = n.Job(ctx, grid.JobID(job)); err == nil && (!strings.HasPrefix(st.Note, "paused: ") || booked(st) != last || booked(st) < most) {
				err = fmt.Errorf("%s, %d done: %q", st.State, booked(st), st.Note)
			}
			return err
		})
		return st
	}
	before := paused(c.nodes[other])
	if booked(before) >= tasks {
		t.Fatalf("%d tasks were done, of %d", booked(before), most)
	}
	if out := c.nodes[other].Must("job", "--why", job); !strings.Contains(out, "user ann has used up 100 tasks, the quota in all") || !strings.Contains(out, "grid quota set ann") {
		t.Errorf("it does not say why:\n%s", out)
	}
	Eventually(t, "all know of it", func(ctx context.Context) error {
		list, err := c.nodes[other].Quotas(ctx, "ann")
		if err == nil && (len(list) != 1 || list[0].Over == "") {
			err = fmt.Errorf("%+v", list)
		}
		return err
	})
	if r := c.nodes[other].Grid("run", guest(t, "burn"), "--user", "ann", "--", "1"); r.Exit != 121 || !strings.Contains(r.Stderr, "100 tasks") {
		t.Errorf("exit code %d\n%s", r.Exit, r.Stderr)
	}
	c.nodes[other].Must("run", guest(t, "burn"), "--user", "bob", "--", "1")

	c.kill(owner)
	Eventually(t, "it has another owner", func(ctx context.Context) error {
		st, err := c.nodes[other].Job(ctx, grid.JobID(job))
		if err == nil && (st.Epoch == before.Epoch || st.State == grid.Waiting) {
			err = fmt.Errorf("epoch %d, %s", st.Epoch, st.State)
		}
		return err
	})
	if after := paused(c.nodes[other]); booked(after) >= tasks {
		t.Fatalf("%d tasks were done under the next owner", booked(after))
	}
	if out := c.nodes[other].Must("quota", "show", "ann"); !strings.Contains(out, "of 100 tasks (1") {
		t.Errorf("%s", out)
	}

	c.nodes[other].Must("quota", "set", "ann", "--tasks", "100000", "--per", "total")
	c.nodes[other].Must("wait", job)
	if got := output(t, c.nodes[other], job); got != want {
		t.Errorf("wrong results: %d lines, want %d", strings.Count(got, "\n"), tasks)
	}
	out := c.nodes[other].Must("usage", "verify", job, "--json")
	var check grid.UsageCheck
	if err := json.Unmarshal([]byte(out), &check); err != nil || !check.OK() || check.Ledger.Tasks != tasks || check.Count != tasks || check.Ledger.CPU <= 0 ||
		check.Ledger.Fuel <= 0 || check.Node.String() != c.nodes[owner].ID {
		t.Errorf("%+v, %v", check, err)
	}
	var list []grid.Used
	out = c.nodes[other].Must("usage", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 || list[0].User != "ann" || list[0].Tasks != tasks || list[1].User != "bob" {
		t.Errorf("%s, %v", out, err)
	}
	events := c.nodes[other].Must("events", job)
	if !strings.Contains(events, "paused") || !strings.Contains(events, "it goes on") {
		t.Errorf("%s", events)
	}
	if out := c.nodes[other].Must("audit"); !strings.Contains(out, "quota.set") {
		t.Errorf("%s", out)
	}
}
