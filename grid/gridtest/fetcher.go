package gridtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// FetchNode is one node that fetches and serves.
type FetchNode struct {
	ID      peer.ID
	Blocks  grid.Blocks // empty
	Fetcher grid.Fetcher
	Provide func(context.Context, cid.Cid) error // announces a DAG; may be nil
	Vanish  func()                               // ends the node at once, in the middle of what it does; may be nil
}

// TestFetcher checks the contract of grid.Fetcher. open gives n nodes that are connected to one another.
func TestFetcher(t *testing.T, open func(t *testing.T, n int) []FetchNode) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	// build makes a DAG of records: a root over ten nodes over n leaves each, of which some are shared.
	build := func(t *testing.T, name string, n int) []grid.Block {
		t.Helper()
		var all []grid.Block
		var level []grid.Link
		for i := range 10 {
			var leaves []grid.Link
			for j := range n {
				leaf := grid.NewBlock(cid.Raw, fmt.Appendf(nil, "%s %d", name, (i%7)*n+j))
				all = append(all, leaf)
				leaves = append(leaves, grid.Link{Cid: leaf.CID()})
			}
			node, err := grid.EncodeBlock(map[string]any{"n": i, "leaves": leaves})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, node)
			level = append(level, grid.Link{Cid: node.CID()})
		}
		root, err := grid.EncodeBlock(level)
		if err != nil {
			t.Fatal(err)
		}
		return append(all, root)
	}
	root := func(dag []grid.Block) []cid.Cid { return []cid.Cid{dag[len(dag)-1].CID()} }
	put := func(t *testing.T, n FetchNode, bs ...grid.Block) {
		t.Helper()
		if err := n.Blocks.Put(ctx, bs...); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(t *testing.T, n FetchNode, bs []grid.Block) {
		t.Helper()
		for _, b := range bs {
			if ok, err := n.Blocks.Has(ctx, b.CID()); !ok || err != nil {
				t.Errorf("Has(%s) = %v, %v", b.CID(), ok, err)
			}
		}
	}

	t.Run("from a hint", func(t *testing.T) {
		nodes := open(t, 2)
		dag := build(t, "a", 20)
		put(t, nodes[0], dag...)
		for range 2 {
			if err := nodes[1].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{nodes[0].ID}}); err != nil {
				t.Fatal(err)
			}
			whole(t, nodes[1], dag)
		}
	})

	t.Run("without a hint", func(t *testing.T) {
		nodes := open(t, 3)
		dag := build(t, "a", 5)
		put(t, nodes[1], dag...)
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{nodes[0].ID}}); err != nil { // itself is no help
			t.Fatal(err)
		}
		whole(t, nodes[0], dag)
		if nodes[2].Provide != nil {
			other := build(t, "b", 5)
			put(t, nodes[2], other...)
			if err := nodes[2].Provide(ctx, root(other)[0]); err != nil {
				t.Fatal(err)
			}
			if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(other)}); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("many roots", func(t *testing.T) {
		nodes := open(t, 2)
		var all []grid.Block
		var roots []cid.Cid
		for i := range 1500 {
			b := grid.NewBlock(cid.Raw, fmt.Append(nil, i))
			all, roots = append(all, b), append(roots, b.CID(), b.CID())
		}
		put(t, nodes[0], all...)
		if err := nodes[1].Fetcher.Fetch(ctx, grid.Want{Roots: roots, From: []peer.ID{nodes[0].ID}}); err != nil {
			t.Fatal(err)
		}
		whole(t, nodes[1], all)
	})

	t.Run("in halves", func(t *testing.T) { // each node has a part, and so has the one that asks
		nodes := open(t, 3)
		dag := build(t, "a", 20)
		for i, b := range dag {
			put(t, nodes[i%3], b)
		}
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag)}); err != nil {
			t.Fatal(err)
		}
		whole(t, nodes[0], dag)
	})

	t.Run("scattered", func(t *testing.T) { // over many nodes, twice each
		nodes := open(t, 7)
		dag := build(t, "a", 30)
		for i, b := range dag {
			put(t, nodes[1+i%6], b)
			put(t, nodes[1+(i*5+2)%6], b)
		}
		var hints []peer.ID
		for _, n := range nodes[1:] {
			hints = append(hints, n.ID)
		}
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: hints}); err != nil {
			t.Fatal(err)
		}
		whole(t, nodes[0], dag)
	})

	t.Run("resume", func(t *testing.T) { // one fetch ends before it is done, the next one goes on
		nodes := open(t, 2)
		dag := build(t, "a", 50)
		put(t, nodes[0], dag...)
		size := int64(0)
		for _, b := range dag {
			size += int64(len(b.Data()))
		}
		w := grid.Want{Roots: root(dag), From: []peer.ID{nodes[0].ID}, Limit: size / 2}
		if err := nodes[1].Fetcher.Fetch(ctx, w); !errors.Is(err, grid.Limit) {
			t.Fatalf("Fetch of more than is allowed: %v, want Limit", err)
		}
		w.Limit = size * 3 / 4 // less than there is, for some is here
		if err := nodes[1].Fetcher.Fetch(ctx, w); err != nil {
			t.Fatalf("Fetch of the rest: %v", err)
		}
		whole(t, nodes[1], dag)
	})

	t.Run("vanishing", func(t *testing.T) { // nodes go away while they are asked
		nodes := open(t, 4)
		if nodes[1].Vanish == nil || nodes[2].Vanish == nil {
			t.Skip("nodes cannot vanish")
		}
		var dag []grid.Block
		var links []grid.Link
		for i := range 200 {
			b := grid.NewBlock(cid.Raw, fmt.Append(make([]byte, 100_000), i))
			dag, links = append(dag, b), append(links, grid.Link{Cid: b.CID()})
		}
		top, err := grid.EncodeBlock(links)
		if err != nil {
			t.Fatal(err)
		}
		dag = append(dag, top)
		for _, n := range nodes[1:] {
			put(t, n, dag...)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for ok := false; !ok && ctx.Err() == nil; { // until something has come
				ok, _ = nodes[0].Blocks.Has(ctx, top.CID())
			}
			nodes[1].Vanish()
			nodes[2].Vanish()
		})
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{nodes[1].ID, nodes[2].ID, nodes[3].ID}}); err != nil {
			t.Error(err)
		}
		whole(t, nodes[0], dag)
		cancel()
		wg.Wait()
	})

	t.Run("missing", func(t *testing.T) {
		nodes := open(t, 2)
		dag := build(t, "a", 3)
		gone := dag[16] // a leaf of one node only
		rest := slices.Concat(dag[:16], dag[17:])
		put(t, nodes[0], rest...)
		err := nodes[1].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{nodes[0].ID}})
		if !errors.Is(err, grid.NotFound) || !strings.Contains(err.Error(), gone.CID().String()) || !strings.Contains(err.Error(), nodes[0].ID.String()) {
			t.Errorf("error %v; want NotFound that names %s and %s", err, gone.CID(), nodes[0].ID)
		}
		whole(t, nodes[1], rest) // what could be had is kept
		put(t, nodes[0], gone)
		if err := nodes[1].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{nodes[0].ID}}); err != nil {
			t.Errorf("Fetch once it is there: %v", err)
		}
		whole(t, nodes[1], dag)
	})

	t.Run("nobody", func(t *testing.T) {
		nodes := open(t, 1)
		dag := build(t, "a", 3)
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{"nobody"}}); err == nil {
			t.Error("Fetch of what nobody has succeeded")
		}
		put(t, nodes[0], dag...)
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag)}); err != nil {
			t.Errorf("Fetch of what is here: %v", err)
		}
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: nil}); err != nil {
			t.Errorf("Fetch of nothing: %v", err)
		}
		if err := nodes[0].Fetcher.Fetch(ctx, grid.Want{Roots: []cid.Cid{cid.Undef}}); !errors.Is(err, grid.Invalid) {
			t.Errorf("Fetch of an empty CID: %v", err)
		}
	})

	t.Run("concurrent", func(t *testing.T) {
		nodes := open(t, 3)
		a, b := build(t, "a", 30), build(t, "b", 30)
		put(t, nodes[0], a...)
		put(t, nodes[1], b...)
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				if i%4 == 3 {
					cancel() // must not hurt the others
				}
				err := nodes[2].Fetcher.Fetch(ctx, grid.Want{Roots: append(root(a), root(b)...), From: []peer.ID{nodes[i%2].ID}})
				if i%4 != 3 && err != nil {
					t.Errorf("Fetch: %v", err)
				}
			})
		}
		wg.Wait()
		whole(t, nodes[2], append(a, b...))
	})

	t.Run("cancelled", func(t *testing.T) {
		nodes := open(t, 2)
		dag := build(t, "a", 3)
		put(t, nodes[0], dag...)
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if err := nodes[1].Fetcher.Fetch(ctx, grid.Want{Roots: root(dag), From: []peer.ID{nodes[0].ID}}); grid.CodeOf(err) != grid.Canceled {
			t.Errorf("Fetch with a cancelled context: %v", err)
		}
	})
}
