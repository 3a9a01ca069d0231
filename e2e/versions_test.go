//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/wasmgrid/wasmgrid/grid"
)

// nextVersion is the version after this one, which the command of nextBinary calls itself.
var nextVersion = func() string {
	var major, minor int
	if _, err := fmt.Sscanf(grid.Version, "%d.%d.", &major, &minor); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%d.%d.0", major, minor+1)
}()

// nextBinary builds the command under the name of the next version. What it does is the same.
func nextBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "grid")
	if err := buildGrid(path, "-ldflags", "-X github.com/wasmgrid/wasmgrid/grid.Version="+nextVersion); err != nil {
		t.Fatal(err)
	}
	return path
}

// caughtUp waits until the ledger is led, and every node of a crew is up in it and not behind, as `grid ledger status` shows before the next is upgraded.
func (c *crew) caughtUp() {
	c.t.Helper()
	Eventually(c.t, "all nodes are up and not behind", func(ctx context.Context) error {
		for _, n := range c.nodes {
			st, err := n.LedgerStatus(ctx)
			if err != nil {
				return err
			}
			if st.Leader == "" || len(st.Members) != len(c.nodes) {
				return fmt.Errorf("leader %q, %d members", st.Leader, len(st.Members))
			}
			for _, m := range st.Members {
				if !m.Up || m.Lag > 100 {
					return fmt.Errorf("%s is up: %v, behind by %d", m.ID, m.Up, m.Lag)
				}
			}
		}
		return nil
	})
}

// TestRollingUpgrade gives the nodes of a realm another version, one after the other, while a job runs and somebody writes to the ledger:
// the job ends well, and no write that was acknowledged is lost.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	long(t)
	const size = 5
	next := nextBinary(t)
	c := newCrew(t, size, "--workers", "1")
	defer c.tell()
	var away atomic.Int32
	away.Store(-1)
	cl := newClerk("rolling/", func(i int) *Node {
		if i %= size; i == int(away.Load()) {
			i = (i + 1) % size
		}
		return c.node(i)
	})
	const tasks, work = 80 * size, 25_000
	job := detach(t, c.node(0), tasks, work)
	progress(t, c.node(0), job, 10)
	c.w.program = next
	for i := range size {
		led := c.leader() == i
		away.Store(int32(i))
		ended := c.node(i).end()
		began := time.Now()
		c.start(i)
		c.caughtUp()
		away.Store(-1)
		t.Logf("node %d, leader: %v: ended in %v, was up and not behind %v later; the longest gap between writes was %v",
			i, led, ended.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), cl.longest().Round(time.Millisecond))
	}
	if st, err := c.node(0).Job(t.Context(), grid.JobID(job)); err == nil && len(st.Stages) > 0 {
		t.Logf("by then %d of %d tasks were done", st.Stages[0].Done, tasks)
	}
	var st grid.JobStatus
	Eventually(t, "the job ends", func(ctx context.Context) (err error) {
		if st, err = c.node(0).Job(ctx, grid.JobID(job)); err == nil && !st.State.Final() {
			err = errors.New("it runs")
		}
		return err
	})
	if st.State != grid.Done || output(t, c.node(1), job) != burned(tasks, work) {
		t.Errorf("job %s is %s: %s", job, st.State, st.Error)
	}
	cl.check(t, c.node(2))
	for _, n := range c.nodes {
		if st, err := n.Node(t.Context()); err != nil || st.Version != nextVersion {
			t.Errorf("%s has version %s, %v", n.Home, st.Version, err)
		}
	}
}

// TestNewerHome: a home that a newer version has written is refused in words that tell what to do, and is not touched.
func TestNewerHome(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	home := filepath.Join(w.dir, "n")
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Must("--home", home, "add", file)
	n := w.Up("n")
	n.Must("kv", "put", "a", "b")
	n.end()
	find := func(pattern string) string {
		names, err := filepath.Glob(filepath.Join(home, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		return names[0]
	}
	set := func(offset int, to string) func(string) error { // overwrites some bytes of a file
		return func(name string) error {
			data, err := os.ReadFile(name)
			if err == nil {
				copy(data[offset:], to)
				err = os.WriteFile(name, data, 0o600)
			}
			return err
		}
	}
	for _, c := range []struct {
		what, file string
		change     func(name string) error
		says       []string // all of them, in any order
	}{
		{"home", "format", func(name string) error {
			return os.WriteFile(name, []byte(`{"format": 2, "version": "`+nextVersion+`"}`), 0o600)
		}, []string{"newer", nextVersion, "install", "restore"}},
		{"blocks", "store/blocks/00000001.seg", set(7, "\x02"), []string{"newer", "00000001.seg"}},
		{"realm", "store/ledger/realm", func(name string) error {
			data, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(name, []byte(strings.Replace(string(data), `"format": 1`, `"format": 2`, 1)), 0o600)
			}
			return err
		}, []string{"newer", "realm"}},
		{"database", "store/meta/marker.format-version.*", func(name string) error {
			dir, base := filepath.Split(name)
			return os.Rename(name, filepath.Join(dir, base[:len(base)-3]+"999"))
		}, []string{"newer", "meta"}},
	} {
		name := find(c.file)
		saved, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.change(name); err != nil {
			t.Fatal(err)
		}
		before := tree(t, home)
		for _, args := range [][]string{{"up", "--no-mdns", "--no-upnp", "--listen", "/ip4/127.0.0.1/tcp/0"}, {"ps"}} {
			r := w.Grid(append([]string{"--home", home}, args...)...)
			if r.Exit == 0 {
				t.Errorf("%s: grid %s went well", c.what, args[0])
			}
			for _, want := range c.says {
				if !strings.Contains(r.Stderr, want) {
					t.Errorf("%s: grid %s does not say %q: %s", c.what, args[0], want, r.Stderr)
				}
			}
		}
		if c.what == "home" && tree(t, home) != before {
			t.Errorf("%s: something was changed:\n%s\nbefore:\n%s", c.what, tree(t, home), before)
		}
		if found := find(c.file); found != name {
			err = os.Rename(found, name)
		} else {
			err = os.WriteFile(name, saved, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// As it was before, it is as good as before.
	if got := w.Up("n").Must("kv", "get", "a"); got != "b" {
		t.Errorf("what was written before is %q", got)
	}
}

// TestOtherProtocols: a neighbour of whose protocols none has a number that the node knows is one that can do nothing, and disturbs nothing.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a := w.Up("a")
	info, err := peer.AddrInfoFromString(address(t, a) + "/p2p/" + a.ID)
	if err != nil {
		info, err = peer.AddrInfoFromString(address(t, a))
	}
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, p := range []string{"steal/99", "lease/99", "ledger/99", "raft/99", "about/99"} {
		h.SetStreamHandler(protocol.ID("/grid/"+w.swarm+"/"+p), func(s network.Stream) {
			t.Errorf("the node has used %s", s.Protocol())
			_ = s.Reset()
		})
	}
	if err := h.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	if s, err := h.NewStream(t.Context(), info.ID, protocol.ID("/grid/"+w.swarm+"/steal/99")); err == nil {
		_ = s.Reset()
		t.Error("the node speaks a protocol of a later version")
	}
	if got := a.Must("run", guest(t, "burn"), "--count", "20", "--", "10"); got != burned(20, 10) {
		t.Errorf("a job beside such a neighbour printed %q", got)
	}
	if st, err := a.LedgerStatus(t.Context()); err != nil || len(st.Members) != 1 {
		t.Errorf("the realm is %+v, %v", st, err)
	}
}
