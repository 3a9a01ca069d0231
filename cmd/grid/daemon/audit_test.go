package daemon

import (
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestAuditOfRealm: two nodes with logs of their own, part of them sealed, become one realm with one log, which both can read;
// and they tell each other their versions and clocks.
func TestAuditOfRealm(t *testing.T) {
	var nodes []*Daemon
	for range 2 {
		c := Config{Home: t.TempDir(), NoMDNS: true, NoNearby: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
		d, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		nodes = append(nodes, d)
		for _, subject := range []string{"1", "2"} {
			if err := d.node.Audit(t.Context(), grid.AuditFact{Act: "test", Subject: subject}); err != nil {
				t.Fatal(err)
			}
		}
		if sealed, err := d.node.SealAudit(t.Context(), 1); err != nil || sealed < 2 {
			t.Fatalf("%d entries sealed, %v", sealed, err)
		}
	}
	if err := nodes[1].host.Connect(t.Context(), nodes[0].host.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	// audited reads the log through a node and counts its entries by act.
	audited := func(d *Daemon) (acts map[grid.AuditAct]int, r grid.AuditReport, err error) {
		log, err := d.Client().Audit(t.Context(), time.Time{})
		if err != nil {
			return nil, r, err
		}
		defer log.Close()
		acts = map[grid.AuditAct]int{}
		r, err = grid.CheckAudit(log, func(l *grid.AuditLine) error {
			acts[l.Fact.Act]++
			return nil
		})
		return acts, r, err
	}
	patience := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for done := 0; done < len(nodes); {
		acts, r, err := audited(nodes[done])
		// Each founded its realm, and one of them joined the other's.
		if err == nil && r.OK() && acts["test"] == 4 && acts[grid.ActJoin] == 3 && r.Blocks >= 2 {
			done++
			continue
		}
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("node %d has the acts %v, %+v, %v", done, acts, r, err)
		}
	}
	sealed := false
	for _, d := range nodes { // the blocks of both are to be had at either
		n, err := d.node.SealAudit(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		sealed = sealed || n > 0
	}
	for i, d := range nodes {
		if acts, r, err := audited(d); err != nil || !r.OK() || acts["test"] != 4 || !sealed {
			t.Errorf("node %d, sealed: %v, %+v, %v", i, acts, r, err)
		}
	}
	c, err := nodes[0].Client().Checkup(t.Context())
	if err != nil || len(c.Peers) != 1 || c.Reach == nil || len(c.Reach.Addrs) == 0 {
		t.Fatalf("checkup %+v, %v", c, err)
	}
	if p := c.Peers[0]; p.Error != "" || p.Version != grid.Version || p.ABI != grid.ABIVersion || max(p.Ahead, -p.Ahead) > p.Trip {
		t.Errorf("peer %+v", p)
	}
}
