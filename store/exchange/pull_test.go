package exchange

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestPull: what one node is asked for it must send, also what is here; nobody else is asked; and there is a bound.
func TestPull(t *testing.T) {
	s := newSwarm(t)
	a, b, c := s.exchange(t, "a"), s.exchange(t, "b"), s.exchange(t, "c")
	dag := list(t, "x", 500)
	put(t, a, dag...)
	put(t, b, dag[:300]...)
	root := []cid.Cid{dag[0].CID(), dag[0].CID(), dag[1].CID()}
	got, err := b.Pull(t.Context(), "a", root, 1<<20, false)
	if err != nil || len(got) != len(dag) {
		t.Fatalf("%d blocks of %d, %v", len(got), len(dag), err)
	}
	for _, x := range dag {
		if has, err := b.blocks.Has(t.Context(), x.CID()); err != nil || !has {
			t.Fatalf("%s is not here: %v", x.CID(), err)
		}
	}
	if sent := a.Stats().BlocksOut; sent != uint64(len(dag)) {
		t.Errorf("%d blocks were sent, want all %d", sent, len(dag))
	}
	if got, err := b.Pull(t.Context(), "a", root, 1<<20, true); err != nil || len(got) != 2 {
		t.Errorf("shallow: %d blocks, %v", len(got), err)
	}
	if _, err := b.Pull(t.Context(), "c", root, 1<<20, false); grid.CodeOf(err) != grid.NotFound || c.Stats().BlocksOut != 0 {
		t.Errorf("a node that has none of it: %v", err)
	}
	if _, err := b.Pull(t.Context(), "a", root, 1000, false); grid.CodeOf(err) != grid.Limit {
		t.Errorf("beyond the bound: %v", err)
	}
	if _, err := b.Pull(t.Context(), "nobody", root, 1000, false); grid.CodeOf(err) != grid.Unavailable {
		t.Errorf("nobody: %v", err)
	}
}

// TestPullLies: a node that sends what it was not asked for, or other bytes, or too little, is not believed.
func TestPullLies(t *testing.T) {
	dag := list(t, "x", 3)
	other := grid.NewBlock(cid.Raw, []byte("other"))
	block := func(c cid.Cid, data []byte) []byte { return append(appendBlockHeader(nil, c, data), data...) }
	for name, answer := range map[string][]byte{
		"not asked for": block(other.CID(), other.Data()),
		"other bytes":   block(dag[0].CID(), []byte("other")),
		"too little":    append(block(dag[0].CID(), dag[0].Data()), frameEnd),
		"nothing":       {},
		"refused":       appendRefusal(nil, grid.Errorf(grid.Busy, "later")),
		"nonsense":      {99},
	} {
		s := newSwarm(t)
		liar, b := s.node("liar"), s.exchange(t, "b")
		liar.Handle(Protocol, func(_ context.Context, _ peer.ID, st grid.Stream) {
			hear(st)
			_, _ = st.Write(answer)
			_ = st.CloseWrite()
		})
		if got, err := b.Pull(t.Context(), "liar", []cid.Cid{dag[0].CID()}, 1<<20, false); err == nil {
			t.Errorf("%s: %d blocks were believed", name, len(got))
		}
	}
}

// TestPullLinks: a node that sends blocks with ever more links, to what it never sends, is not listened to without end.
func TestPullLinks(t *testing.T) {
	s := newSwarm(t)
	liar, b := s.node("liar"), s.exchange(t, "b")
	const each = 30_000
	var wide []grid.Block
	var roots []cid.Cid
	sum := make([]byte, 32)
	for i := range maxVisited/each + 1 {
		links := make([]cid.Cid, each)
		for k := range links {
			binary.BigEndian.PutUint64(sum, uint64(i*each+k))
			mh, err := multihash.Encode(sum, multihash.SHA2_256)
			if err != nil {
				t.Fatal(err)
			}
			links[k] = cid.NewCidV1(cid.Raw, mh)
		}
		x, err := grid.EncodeBlock(asLinks(links))
		if err != nil {
			t.Fatal(err)
		}
		wide, roots = append(wide, x), append(roots, x.CID())
	}
	liar.Handle(Protocol, func(_ context.Context, _ peer.ID, st grid.Stream) {
		hear(st)
		for _, x := range wide {
			if _, err := st.Write(append(appendBlockHeader(nil, x.CID(), x.Data()), x.Data()...)); err != nil {
				return
			}
		}
		_ = st.CloseWrite()
	})
	if _, err := b.Pull(t.Context(), "liar", roots, 1<<30, false); grid.CodeOf(err) != grid.Limit {
		t.Errorf("%v", err)
	}
}

func asLinks(list []cid.Cid) (out []grid.Link) {
	for _, c := range list {
		out = append(out, grid.Link{Cid: c})
	}
	return out
}

// TestMay: what a peer may not read is missing, for it, and nothing below what it may read is given without being asked about.
func TestMay(t *testing.T) {
	s := newSwarm(t)
	dag := list(t, "x", 5)
	a := &testNode{net: s.node("a"), blocks: newBlocks()}
	a.Exchange = New(Config{Blocks: a.blocks, Network: a.net, May: func(_ context.Context, id peer.ID, c cid.Cid) bool {
		return id == "friend" || c == dag[0].CID() || c == dag[1].CID()
	}})
	t.Cleanup(func() { a.Close() })
	put(t, a, dag...)
	friend, stranger := s.exchange(t, "friend"), s.exchange(t, "stranger")
	if got, err := friend.Pull(t.Context(), "a", []cid.Cid{dag[0].CID()}, 1<<20, false); err != nil || len(got) != len(dag) {
		t.Errorf("%d blocks, %v", len(got), err)
	}
	if _, err := stranger.Pull(t.Context(), "a", []cid.Cid{dag[1].CID()}, 1<<20, false); err != nil {
		t.Error(err)
	}
	for _, c := range []cid.Cid{dag[0].CID(), dag[2].CID()} {
		if _, err := stranger.Pull(t.Context(), "a", []cid.Cid{c}, 1<<20, false); grid.CodeOf(err) != grid.NotFound || !strings.Contains(err.Error(), "does not give it") {
			t.Errorf("%s: %v", c, err)
		}
	}
}
