package grid_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// refNode is a node with some blocks to name.
func refNode(t *testing.T) (*fake.World, *grid.Node, func(text string) grid.Link) {
	t.Helper()
	w := fake.NewWorld(new(fake.Hub), "refs")
	n, err := grid.OpenNode(context.Background(), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return w, n, func(text string) grid.Link {
		b := grid.NewBlock(cid.Raw, []byte(text))
		if err := w.Blocks.Put(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		return grid.Link{Cid: b.CID()}
	}
}

// kept is the name of the pin of a root; "" when there is none.
func kept(t *testing.T, w *fake.World, l grid.Link) string {
	t.Helper()
	st, err := w.Pins.Status(context.Background(), l.Cid, false)
	if err != nil && !errors.Is(err, grid.NotFound) {
		t.Fatal(err)
	}
	return st.Name
}

func TestRefs(t *testing.T) {
	w, n, block := refNode(t)
	ctx := context.Background()
	a, b := block("a"), block("b")
	r, err := n.SetRef(ctx, "data/latest", a, grid.RefCond{Absent: true})
	if err != nil || r.Name != "data/latest" || r.CID != a || r.Count != 1 || r.Version == 0 || r.Updated.IsZero() {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, err := n.Ref(ctx, "data/latest"); err != nil || got != r {
		t.Errorf("%+v, %v, want %+v", got, err, r)
	}
	if name := kept(t, w, a); name != "ref data/latest" {
		t.Errorf("a's pin is %q", name)
	}
	for _, c := range []grid.RefCond{{Absent: true}, {CID: b}, {Version: r.Version + 1}, {CID: a, Version: r.Version + 1}} {
		if _, err := n.SetRef(ctx, "data/latest", b, c); !errors.Is(err, grid.Conflict) {
			t.Errorf("set if %+v: %v", c, err)
		}
		if err := n.RemoveRef(ctx, "data/latest", c); !errors.Is(err, grid.Conflict) {
			t.Errorf("remove if %+v: %v", c, err)
		}
	}
	if kept(t, w, b) != "" {
		t.Error("what was not set is kept")
	}
	if _, err := n.SetRef(ctx, "none", b, grid.RefCond{CID: a}); !errors.Is(err, grid.Conflict) {
		t.Errorf("set if it names a, but there is none: %v", err)
	}
	r2, err := n.SetRef(ctx, "data/latest", b, grid.RefCond{CID: a, Version: r.Version})
	if err != nil || r2.CID != b || r2.Count != 2 || r2.Version <= r.Version {
		t.Fatalf("%+v, %v", r2, err)
	}
	if kept(t, w, a) != "" || kept(t, w, b) == "" {
		t.Errorf("kept are %q and %q", kept(t, w, a), kept(t, w, b))
	}
	// The same again: the promise stays.
	if r3, err := n.SetRef(ctx, "data/latest", b, grid.RefCond{}); err != nil || r3.Count != 3 || kept(t, w, b) == "" {
		t.Errorf("%+v, %v", r3, err)
	}
	// Two refs, one pin.
	if _, err := n.SetRef(ctx, "other", b, grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	refs, err := n.Refs(ctx, "", false)
	if err != nil || len(refs) != 2 || refs[0].Name != "data/latest" || refs[1].Name != "other" {
		t.Errorf("%+v, %v", refs, err)
	}
	if refs, err := n.Refs(ctx, "data/", true); err != nil || len(refs) != 1 {
		t.Errorf("%+v, %v", refs, err)
	}
	if err := n.RemoveRef(ctx, "data/latest", grid.RefCond{}); err != nil || kept(t, w, b) == "" {
		t.Errorf("%v, kept is %q", err, kept(t, w, b))
	}
	if err := n.Unpin(ctx, b.Cid); !errors.Is(err, grid.Conflict) || !strings.Contains(err.Error(), "other") {
		t.Errorf("unpinned under a ref: %v", err)
	}
	if err := n.RemoveRef(ctx, "other", grid.RefCond{CID: b}); err != nil || kept(t, w, b) != "" {
		t.Errorf("%v, kept is %q", err, kept(t, w, b))
	}
	if err := n.RemoveRef(ctx, "other", grid.RefCond{}); !errors.Is(err, grid.NotFound) {
		t.Errorf("removed again: %v", err)
	}
	if _, err := n.Ref(ctx, "other"); !errors.Is(err, grid.NotFound) || grid.AdviceOf(err) == "" {
		t.Errorf("a ref that is gone: %v", err)
	}
}

// What somebody has pinned is theirs: refs come and go.
func TestRefsAndPins(t *testing.T) {
	w, n, block := refNode(t)
	ctx := context.Background()
	mine, late := block("mine"), block("late")
	if _, err := n.Pin(ctx, grid.Pin{Root: mine, Name: "ref of mine", Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	for _, to := range []grid.Link{mine, late} {
		if _, err := n.SetRef(ctx, "r", to, grid.RefCond{}); err != nil {
			t.Fatal(err)
		}
		if st, err := w.Pins.Status(ctx, mine.Cid, false); err != nil || st.Name != "./ref of mine" || st.Replicas != 3 {
			t.Errorf("the pin that was there is %+v, %v", st, err)
		}
	}
	if _, err := n.Pin(ctx, grid.Pin{Root: late}); err != nil { // without a name: it must not go with the ref
		t.Fatal(err)
	}
	if err := n.RemoveRef(ctx, "r", grid.RefCond{}); err != nil || kept(t, w, late) != late.String() {
		t.Errorf("%v; kept is %q", err, kept(t, w, late))
	}
	if err := n.Unpin(ctx, late.Cid); err != nil || kept(t, w, late) != "" {
		t.Errorf("%v; kept is %q", err, kept(t, w, late))
	}
}

func TestRefsFail(t *testing.T) {
	w, n, block := refNode(t)
	ctx := context.Background()
	a, b := block("a"), block("b")
	missing := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("not stored")).CID()}
	for _, name := range []string{"", "/", "a//b", "a/../b", "-x", "ref:x", "a b", a.String(), a.String() + "/x", string(make([]byte, 300)), "ünï"} {
		if _, err := n.SetRef(ctx, name, a, grid.RefCond{}); !errors.Is(err, grid.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := n.SetRef(ctx, "x", grid.Link{}, grid.RefCond{}); err == nil {
		t.Error("a ref to nothing")
	}
	if _, err := n.SetRef(ctx, "x", missing, grid.RefCond{}); err == nil {
		t.Error("a ref to what nobody has")
	}
	if _, err := n.Ref(ctx, "x"); !errors.Is(err, grid.NotFound) {
		t.Errorf("and it was set: %v", err)
	}
	if _, err := n.SetRef(ctx, "x", a, grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	w.Ledger.Fail(grid.Errorf(grid.Unavailable, "no majority"))
	for what, err := range map[string]error{
		"set":     second(n.SetRef(ctx, "x", b, grid.RefCond{})),
		"get":     second(n.Ref(ctx, "x")),
		"list":    second(n.Refs(ctx, "", false)),
		"remove":  n.RemoveRef(ctx, "x", grid.RefCond{}),
		"resolve": second(n.Resolve(ctx, "x/file")),
		"unpin":   n.Unpin(ctx, a.Cid),
	} {
		if !errors.Is(err, grid.Unavailable) || !strings.Contains(err.Error(), "no majority") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if at, err := n.Resolve(ctx, a.String()+"/file"); err != nil || at.Root != a {
		t.Errorf("a CID needs no ledger: %+v, %v", at, err)
	}
	w.Ledger.Fail(nil)
	if kept(t, w, a) == "" || kept(t, w, b) != "" {
		t.Errorf("kept are %q and %q", kept(t, w, a), kept(t, w, b))
	}
	// An entry that cannot be read says so, and can be replaced.
	if _, err := w.Ledger.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: grid.RefKeys + "x", Value: []byte("junk")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Ref(ctx, "x"); !errors.Is(err, grid.Corrupt) {
		t.Errorf("junk: %v", err)
	}
	if r, err := n.SetRef(ctx, "x", b, grid.RefCond{}); err != nil || r.CID != b {
		t.Errorf("%+v, %v", r, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestResolve(t *testing.T) {
	_, n, block := refNode(t)
	ctx := context.Background()
	a, b := block("a"), block("b")
	for name, to := range map[string]grid.Link{"results": a, "results/latest": b, "jobs": b} {
		if _, err := n.SetRef(ctx, name, to, grid.RefCond{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		text string
		want grid.Named
		code grid.Code
	}{
		{a.String(), grid.Named{Root: a}, 0},
		{a.String() + "/x//y/", grid.Named{Root: a, Path: "x/y"}, 0},
		{"/ipfs/" + a.String() + "/x", grid.Named{Root: a, Path: "x"}, 0},
		{"results", grid.Named{Root: a, Ref: "results"}, 0},
		{"ref:results", grid.Named{Root: a, Ref: "results"}, 0},
		{"results/", grid.Named{Root: a, Ref: "results"}, 0},
		{"results/old/x y.txt", grid.Named{Root: a, Ref: "results", Path: "old/x y.txt"}, 0},
		{"results/latest", grid.Named{Root: b, Ref: "results/latest"}, 0},
		{"results/latest/ünï", grid.Named{Root: b, Ref: "results/latest", Path: "ünï"}, 0},
		{"ref:jobs/-/x", grid.Named{Root: b, Ref: "jobs", Path: "-/x"}, 0},
		{"nothing/x", grid.Named{}, grid.NotFound},
		{"ref:nothing", grid.Named{}, grid.NotFound},
		{"result", grid.Named{}, grid.NotFound},
		{"", grid.Named{}, grid.Invalid},
		{"ref:", grid.Named{}, grid.Invalid},
		{"ref:ref:x", grid.Named{}, grid.Invalid},
		{"ref:" + a.String(), grid.Named{}, grid.Invalid},
		{"./results", grid.Named{Root: a, Ref: "results"}, 0},
		{"/results", grid.Named{}, grid.Invalid},
		{"what is this", grid.Named{}, grid.Invalid},
		{strings.Repeat("x/", 20_000), grid.Named{}, grid.Invalid},
	} {
		got, err := n.Resolve(ctx, tt.text)
		if got != tt.want || grid.CodeOf(err) != tt.code {
			t.Errorf("%.60q is %+v, %v", tt.text, got, err)
		}
	}
	if _, err := n.Resolve(ctx, "jabc2efghijklmnopqrstuvwxy"); !strings.Contains(grid.AdviceOf(err), "grid job rm") {
		t.Errorf("a job in place of data: %v, %s", err, grid.AdviceOf(err))
	}
}

// Many set one ref, some only if it is what they saw last; the count tells how often it was set.
func TestRefsRace(t *testing.T) {
	w, n, block := refNode(t)
	ctx := context.Background()
	links := make([]grid.Link, 4)
	for i := range links {
		links[i] = block(fmt.Sprint(i))
	}
	if _, err := n.SetRef(ctx, "r", links[0], grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	const rounds = 10
	var wg sync.WaitGroup
	for _, l := range links {
		wg.Go(func() {
			for set := 0; set < rounds; {
				was, err := n.Ref(ctx, "r")
				if err == nil {
					_, err = n.SetRef(ctx, "r", l, grid.RefCond{Version: was.Version})
				}
				switch grid.CodeOf(err) {
				case grid.Unknown:
					set++
				case grid.Conflict, grid.Busy:
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	r, err := n.Ref(ctx, "r")
	if err != nil || r.Count != uint64(1+rounds*len(links)) {
		t.Errorf("%+v, %v", r, err)
	}
	if kept(t, w, r.CID) == "" {
		t.Error("what the ref names is not kept")
	}
}
