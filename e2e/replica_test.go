package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// kept waits until a pin is as healthy as promised and nothing is left over, and returns who keeps it.
func kept(t *testing.T, n *Node, root string) (holders []string) {
	t.Helper()
	l, err := grid.ParseLink(root)
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the copies of "+root, func(ctx context.Context) error {
		st, err := n.PinStatus(ctx, l.Cid, false)
		if err != nil {
			return err
		}
		if st.Health != grid.Healthy || st.Durable() != len(st.Copies) {
			return fmt.Errorf("%s: %+v", st.Health, st.Copies)
		}
		holders = nil
		for _, c := range st.Copies {
			holders = append(holders, c.Node.String())
		}
		return nil
	})
	return holders
}

// TestAnyTwoOfThreeLost: of five nodes that keep three copies, two that have one are killed for good: every
// byte can be read from each node that is left, and there are three copies again without anybody's help.
func TestAnyTwoOfThreeLost(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	var nodes []*Node
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		nodes = append(nodes, w.Up(name, "--workers", "1", "--repair-grace", "1s"))
	}
	w.Meet(nodes...)
	realmOf(t, 5, nodes...) // two may be lost then
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "small"), 0o777); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("all of it, ", 300_000)
	save(t, filepath.Join(dir, "big"), []byte(big))
	for i := range 40 {
		save(t, filepath.Join(dir, "small", fmt.Sprint(i)), fmt.Append(nil, "small ", i))
	}
	root := strings.TrimSpace(nodes[0].Must("add", "-q", "--replicas", "3", "--wait", dir))
	had := kept(t, nodes[0], root)
	if len(had) != 3 {
		t.Fatalf("kept by %v", had)
	}
	killed := 0
	nodes = slices.DeleteFunc(nodes, func(n *Node) bool {
		if killed == 2 || !slices.Contains(had, n.ID) {
			return false
		}
		killed++
		n.Kill()
		return true
	})
	if now := kept(t, nodes[0], root); len(now) != 3 {
		t.Errorf("kept by %v", now)
	}
	for _, n := range nodes {
		n.Must("store", "gc")
	}
	nodes[0].Must("pin", "status", "--verify", root)
	for _, n := range nodes {
		if got := n.Must("cat", root+"/big"); got != big {
			t.Errorf("%s has %d other bytes", n.ID, len(got))
		}
		if got := n.Must("cat", root+"/small/7"); got != "small 7" {
			t.Errorf("%s says %q", n.ID, got)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	nodes[0].Must("get", root, "-o", out)
	if got, err := os.ReadFile(filepath.Join(out, "big")); err != nil || string(got) != big {
		t.Errorf("%d bytes come back, %v", len(got), err)
	}
}

// TestDrain: a node hands on what it keeps, and can be ended without the loss of a copy.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b, c := w.Up("a", "--zone", "x", "--realm", "other"), w.Up("b", "--zone", "y"), w.Up("c", "--zone", "z")
	w.Meet(a, b, c)
	file := filepath.Join(t.TempDir(), "file")
	save(t, file, []byte(strings.Repeat("keep me ", 200_000)))
	root := strings.TrimSpace(a.Must("add", "-q", "--replicas", "2", "--wait", file))
	a.Must("node", "drain")
	had := kept(t, b, root)
	if len(had) != 2 || slices.Contains(had, a.ID) {
		t.Errorf("kept by %v", had)
	}
	a.Kill()
	if got := b.Must("cat", root); len(got) != 8*200_000 {
		t.Errorf("%d bytes come back", len(got))
	}
	if ls := b.Must("pin", "ls"); !strings.Contains(ls, root) || !strings.Contains(ls, "2/2") {
		t.Errorf("grid pin ls says\n%s", ls)
	}
	c.Must("rm", root)
	Eventually(t, "the end of the pin", func(ctx context.Context) error {
		if pins, err := b.Pins(ctx); err != nil || len(pins) > 0 {
			return fmt.Errorf("%+v, %v", pins, err)
		}
		return nil
	})
}

// TestResultsReplicated: what a job leaves is kept by other nodes, too, if it asks for that.
func TestResultsReplicated(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1")
	w.Meet(a, b)
	job := strings.TrimSpace(a.Must("run", burn(t), "--count", "4", "--replicas", "2", "--detach", "--", "10"))
	a.Must("wait", job)
	pins, err := b.Pins(t.Context())
	Eventually(t, "the copy of the results", func(ctx context.Context) error {
		// There may be another one, of what the job needs.
		if pins, err = b.Pins(ctx); err != nil || !slices.ContainsFunc(pins, func(p grid.PinStatus) bool {
			return p.Health == grid.Healthy && p.Name == "job "+job && p.Replicas == 2
		}) {
			return fmt.Errorf("%+v, %v", pins, err)
		}
		return nil
	})
}

// TestKilledWhileCopying: nodes are killed again and again while copies are made; in the end every copy is
// whole, block by block.
func TestKilledWhileCopying(t *testing.T) {
	t.Parallel()
	long(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := NewWorld(t)
	flags := []string{"--workers", "1", "--repair-grace", "1m"}
	a := w.Up("a", flags...)
	others := map[string]*Node{"b": w.Up("b", flags...), "c": w.Up("c", flags...)}
	w.Meet(a, others["b"], others["c"])
	var roots []string
	for i := range 6 {
		data := make([]byte, 8<<20)
		rand.NewChaCha8([32]byte{byte(i), byte(seed)}).Read(data)
		file := filepath.Join(t.TempDir(), "file")
		save(t, file, data)
		roots = append(roots, strings.TrimSpace(a.Must("add", "-q", "--replicas", "3", file)))
		name := []string{"b", "c"}[i%2]
		select { // at any moment of the copying
		case <-time.After(time.Duration(r.IntN(80)) * time.Millisecond):
		case <-t.Context().Done():
		}
		others[name].Kill()
		others[name] = w.Up(name, flags...)
	}
	for _, root := range roots {
		if had := kept(t, a, root); len(had) != 3 {
			t.Errorf("%s is kept by %v", root, had)
		}
		out := a.Grid("pin", "status", "--verify", root)
		if out.Exit != 0 {
			t.Errorf("%s: %+v", root, out)
		}
	}
}

// TestCodedSurvives: of six nodes that keep parts of a file, any two are killed: it can be read from a node that
// has none of it, and is whole again once there are nodes enough.
func TestCodedSurvives(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	var nodes []*Node
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		nodes = append(nodes, w.Up(name, "--workers", "1", "--repair-grace", "1s"))
	}
	w.Meet(nodes...)
	data := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	file := filepath.Join(t.TempDir(), "file")
	save(t, file, data)
	if r := nodes[0].Grid("add", "--ec", "20+10", file); r.Exit == 0 || !strings.Contains(r.Stderr, "there are 7") {
		t.Errorf("a code for more nodes than there are: %+v", r)
	}
	root := strings.TrimSpace(nodes[0].Must("add", "-q", "--ec", "4+2", "--wait", file))
	had := kept(t, nodes[0], root)
	if len(had) != 6 {
		t.Fatalf("kept by %v", had)
	}
	for _, n := range nodes[1:] { // what was just added stays whole for a while on the first
		Eventually(t, n.ID+" keeps its part alone", func(ctx context.Context) error {
			u, err := n.StoreUse(ctx)
			if err == nil && u.Pinned > uint64(len(data))*2/5 {
				err = fmt.Errorf("%d bytes are pinned", u.Pinned)
			}
			return err
		})
		n.Must("store", "gc")
	}
	for _, id := range had[:2] {
		i := slices.IndexFunc(nodes, func(n *Node) bool { return n.ID == id })
		nodes[i].Kill()
		nodes = slices.Delete(nodes, i, i+1)
	}
	reader := nodes[slices.IndexFunc(nodes, func(n *Node) bool { return !slices.Contains(had, n.ID) })]
	if got := reader.Must("cat", root); got != string(data) {
		t.Errorf("%d other bytes come back", len(got))
	}
	nodes = append(nodes, w.Up("h", "--workers", "1", "--repair-grace", "1s"))
	if now := kept(t, nodes[len(nodes)-1], root); len(now) != 6 {
		t.Errorf("kept by %v", now)
	}
}
