//go:build unix

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// TestCancelLeavesNothing: a job that runs on three nodes is cancelled from one that does not own it, and then nothing of it
// runs on any of them, nor is queued; and also when its owner has been killed.
func TestCancelLeavesNothing(t *testing.T) {
	t.Parallel()
	burn := guest(t, "burn")
	w := NewWorld(t)
	var nodes []*Node
	for i := range 3 {
		nodes = append(nodes, w.Up(fmt.Sprint("n", i), "--workers", "2"))
	}
	realmOf(t, 3, nodes...)
	spread := func() string {
		id := strings.TrimSpace(nodes[0].Must("run", "-d", "--no-cache", burn, "--count", "3000", "--", "20000000"))
		Eventually(t, "all nodes run the job", func(ctx context.Context) error {
			for _, n := range nodes {
				st, err := n.Node(ctx)
				if err != nil {
					return err
				}
				if st.Load.Running == 0 {
					return fmt.Errorf("%s is idle", n.Home)
				}
			}
			return nil
		})
		return id
	}
	idle := func(nodes ...*Node) {
		for _, n := range nodes {
			Eventually(t, n.Home+" has stopped", func(ctx context.Context) error {
				st, err := n.Node(ctx)
				if err == nil && st.Load.Running+int(st.Load.Queued) > 0 {
					err = fmt.Errorf("%+v", st.Load)
				}
				return err
			})
		}
	}
	id := spread()
	why := nodes[1].Must("job", id, "--why")
	if !strings.Contains(why, "it runs: ") || !strings.Contains(why, "in 3 nodes") {
		t.Errorf("explained by\n%s", why)
	}
	nodes[2].Must("cancel", id)
	idle(nodes...)
	if out := nodes[1].Must("events", id); !strings.Contains(out, "accepted") || !strings.Contains(out, "cancelled by request") {
		t.Errorf("events\n%s", out)
	}

	id = spread()
	nodes[0].Kill()
	nodes[1].Must("cancel", id)
	idle(nodes[1:]...)
	if st := nodes[2].Status(id); st.State != "cancelled" {
		t.Errorf("the job is %+v", st)
	}
}
