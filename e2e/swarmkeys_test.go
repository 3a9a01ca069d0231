package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestSwarmKeys: the authority's key is replaced, also by the recovery key, while a member is down; memberships end and are renewed; a
// node is given another key; and one leaves, which takes it off the realm's list.
func TestSwarmKeys(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	w.swarm = ""
	first := time.Now()
	home := filepath.Join(w.dir, "a")
	id := strings.TrimSpace(w.Must("swarm", "init", "--name", "lab", "--home", home))
	a := w.Up("a", "--workers", "1")
	b := w.Up("b", "--workers", "1", "--join", strings.TrimSpace(a.Must("swarm", "invite")))
	c := w.Up("c", "--workers", "1", "--join", strings.TrimSpace(a.Must("swarm", "invite")))
	w.Meet(a, b)
	w.Meet(a, c)
	a.Must("kv", "put", "k", "v")
	shares := func(n *Node) {
		t.Helper()
		Eventually(t, "it shares the ledger", func(context.Context) error {
			if r := n.Grid("kv", "get", "k"); r.Exit != 0 || strings.TrimSpace(r.Stdout) != "v" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	}
	shares(b)
	shares(c)
	voters := func(n int) {
		t.Helper()
		Eventually(t, "the ledger has its voters", func(ctx context.Context) error {
			st, err := a.LedgerStatus(ctx)
			have := 0
			for _, m := range st.Members {
				if m.Role == grid.Voter || m.Role == grid.Leader {
					have++
				}
			}
			if err == nil && have != n {
				err = fmt.Errorf("%d: %+v", have, st)
			}
			return err
		})
	}
	voters(3)
	t.Logf("after %v: three nodes", time.Since(first))

	// The authority's key, while c is down.
	c.Must("down")
	old := strings.TrimSpace(a.Must("swarm", "invite"))
	before := readFile(t, filepath.Join(home, "swarm-key"))
	if r := b.Grid("swarm", "rotate-key"); r.Exit == 0 || !strings.Contains(r.Stderr, "authority's key") {
		t.Errorf("without the key: %+v", r)
	}
	key := strings.TrimSpace(a.Must("swarm", "rotate-key"))
	if after := readFile(t, filepath.Join(home, "swarm-key")); after == before {
		t.Error("the file is the same")
	}
	Eventually(t, "b knows the new key", func(ctx context.Context) error {
		if info, err := b.Swarm(ctx); err != nil || info.Key != key || info.ID != id || info.Members != 3 {
			return fmt.Errorf("%+v, %v", info, err)
		}
		return nil
	})
	if r := w.Grid("up", "--home", filepath.Join(w.dir, "x"), "--join", old); r.Exit == 0 || !strings.Contains(r.Stderr, "replaced") {
		t.Errorf("a token of the old key: %+v", r)
	}
	c = w.Up("c", "--workers", "1")
	w.Meet(a, c)
	shares(c)
	Eventually(t, "c knows the new key", func(ctx context.Context) error {
		if info, err := c.Swarm(ctx); err != nil || info.Key != key {
			return fmt.Errorf("%+v, %v", info, err)
		}
		return nil
	})
	// The recovery key, moved away as one should.
	recovery := filepath.Join(home, "swarm-recovery-key")
	safe := filepath.Join(w.dir, "safe")
	if err := os.Rename(recovery, safe); err != nil {
		t.Fatal(err)
	}
	if r := a.Grid("swarm", "rotate-key", "--recover"); r.Exit == 0 || !strings.Contains(r.Stderr, recovery) {
		t.Errorf("without the recovery key: %+v", r)
	}
	if err := os.Rename(safe, recovery); err != nil {
		t.Fatal(err)
	}
	key = strings.TrimSpace(a.Must("swarm", "rotate-key", "--recover"))
	if show := a.Must("swarm", "show"); !strings.Contains(show, key) || !strings.Contains(show, "in this home") {
		t.Errorf("grid swarm show: %s", show)
	}
	t.Logf("after %v: the authority's key", time.Since(first))

	// A membership that ends.
	d := w.Up("d", "--join", strings.TrimSpace(a.Must("swarm", "invite", "--role", "worker", "--for", "1s")), "--no-nearby")
	Eventually(t, "it has ended", func(context.Context) error {
		if ls := a.Must("member", "ls", "--all"); !strings.Contains(ls, "expired") {
			return fmt.Errorf("%s", ls)
		}
		return nil
	})
	if st := d.Grid("status"); !strings.Contains(st.Stdout, "membership") || !strings.Contains(st.Stdout+st.Stderr, "renew") {
		t.Errorf("grid status: %+v", st)
	}
	d.Must("down")
	if r := d.Grid("up"); r.Exit == 0 || !strings.Contains(r.Stderr, "expired") || !strings.Contains(r.Stderr, "grid member renew "+d.ID) {
		t.Errorf("it starts: %+v", r)
	}
	a.Must("member", "renew", d.ID, "--for", "1h")
	d = w.Up("d", "--no-nearby")
	shares(d)
	t.Logf("after %v: renewed", time.Since(first))

	voters(3)
	// Another key for b: who has not the authority's key takes a token.
	if r := b.Grid("member", "rotate-key"); r.Exit == 0 || !strings.Contains(r.Stderr, "token") {
		t.Errorf("without a token: %+v", r)
	}
	was := b.ID
	now := strings.TrimSpace(b.Must("member", "rotate-key", "--join", strings.TrimSpace(a.Must("swarm", "invite"))))
	t.Logf("after %v: b has left", time.Since(first))
	b = w.Up("b", "--workers", "1")
	if b.ID != now || now == was {
		t.Errorf("it is %s, was %s, is to be %s", b.ID, was, now)
	}
	w.Meet(a, b)
	shares(b)
	listed := func(id string) bool {
		st, err := a.LedgerStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range st.Members {
			if m.ID.String() == id {
				return true
			}
		}
		return false
	}
	var list []grid.SwarmMember
	if err := json.Unmarshal([]byte(a.Must("member", "ls", "--all", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.ID == was && m.State != "left" || m.ID == now && m.State != "member" {
			t.Errorf("%+v", m)
		}
	}
	if listed(was) {
		t.Error("the node that it was is listed in the realm")
	}

	// One leaves.
	voters(3)
	gone := c.ID
	c.Must("swarm", "leave")
	if listed(gone) {
		t.Error("a node that has left is listed in the realm")
	}
	shares(b)
	t.Logf("after %v: c has left", time.Since(first))
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTwins: a home is copied, and both run. The member that meets them tells each of the other, and goes on.
func TestTwins(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	w.swarm = ""
	if r := w.Grid("swarm", "init", "--name", "a\x1b[2J", "--home", filepath.Join(w.dir, "a")); r.Exit == 0 || !strings.Contains(r.Stderr, "printable") {
		t.Errorf("a name that is none: %+v", r)
	}
	w.Must("swarm", "init", "--home", filepath.Join(w.dir, "a"))
	a := w.Up("a", "--workers", "1")
	b := w.Up("b", "--workers", "1", "--join", strings.TrimSpace(a.Must("swarm", "invite", "--role", "worker")))
	w.Meet(a, b)
	b.Must("down")
	if err := os.CopyFS(filepath.Join(w.dir, "b2"), os.DirFS(b.Home)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity", "swarm"} { // a copy does not keep their modes
		if err := os.Chmod(filepath.Join(w.dir, "b2", name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b = w.Up("b", "--workers", "1", "--no-nearby")
	b2 := w.Up("b2", "--workers", "1", "--no-nearby")
	if b.ID != b2.ID {
		t.Fatalf("%s and %s", b.ID, b2.ID)
	}
	for _, pair := range [][2]*Node{{b, b2}, {b2, b}} {
		st, err := pair[1].Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		Eventually(t, "it knows of the other", func(ctx context.Context) error {
			info, err := pair[0].Swarm(ctx)
			if err == nil && (len(info.Twin) == 0 || !strings.HasPrefix(st.Addrs[0], strings.SplitAfter(info.Twin[0], "/p2p/")[0])) {
				err = fmt.Errorf("%v, want %v", info.Twin, st.Addrs)
			}
			return err
		})
		if r := pair[0].Grid("status"); !strings.Contains(r.Stderr, "copied") {
			t.Errorf("%+v", r)
		}
	}
	if log := a.log.String(); !strings.Contains(log, "two nodes run with one key") {
		t.Errorf("the log of who meets both: %s", log)
	}
	a.Must("kv", "put", "k", "v") // it goes on
	for _, n := range []*Node{b, b2} {
		Eventually(t, "it reads the ledger", func(context.Context) error {
			if r := n.Grid("kv", "get", "k"); r.Exit != 0 {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	}
}
