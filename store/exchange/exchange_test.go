package exchange

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// swarm is a few nodes in memory.
type swarm struct {
	mu        sync.Mutex
	nodes     map[peer.ID]*fakeNet
	providers map[cid.Cid][]peer.ID
	wg        sync.WaitGroup
}

// fakeNet is the part of grid.Network that an exchange uses.
type fakeNet struct {
	grid.Network
	id     peer.ID
	swarm  *swarm
	handle func(context.Context, peer.ID, grid.Stream)
}

func newSwarm(t testing.TB) *swarm {
	s := &swarm{nodes: map[peer.ID]*fakeNet{}, providers: map[cid.Cid][]peer.ID{}}
	t.Cleanup(s.wg.Wait)
	return s
}

func (s *swarm) node(name string) *fakeNet {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &fakeNet{id: peer.ID(name), swarm: s}
	s.nodes[n.id] = n
	return n
}

func (n *fakeNet) Self() peer.ID { return n.id }

func (n *fakeNet) Peers() (infos []grid.PeerInfo) {
	n.swarm.mu.Lock()
	defer n.swarm.mu.Unlock()
	for id := range n.swarm.nodes {
		if id != n.id {
			infos = append(infos, grid.PeerInfo{ID: id})
		}
	}
	slices.SortFunc(infos, func(a, b grid.PeerInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos
}

func (n *fakeNet) Handle(_ grid.Protocol, f func(context.Context, peer.ID, grid.Stream)) {
	n.handle = f
}

func (n *fakeNet) Provide(_ context.Context, c cid.Cid) error {
	n.swarm.mu.Lock()
	defer n.swarm.mu.Unlock()
	n.swarm.providers[c] = append(n.swarm.providers[c], n.id)
	return nil
}

func (n *fakeNet) Providers(_ context.Context, c cid.Cid, _ int) ([]peer.ID, error) {
	n.swarm.mu.Lock()
	defer n.swarm.mu.Unlock()
	return n.swarm.providers[c], nil
}

func (n *fakeNet) Open(ctx context.Context, to peer.ID, _ grid.Protocol) (grid.Stream, error) {
	n.swarm.mu.Lock()
	other := n.swarm.nodes[to]
	n.swarm.mu.Unlock()
	if other == nil || other.handle == nil {
		return nil, grid.Errorf(grid.Unavailable, "no node %q", to)
	}
	there, here := net.Pipe()
	back, forth := net.Pipe()
	n.swarm.wg.Go(func() {
		s := stream{back, there}
		other.handle(context.Background(), n.id, s)
		s.Close()
	})
	return stream{here, forth}, nil
}

type stream struct{ r, w net.Conn }

func (s stream) Read(p []byte) (int, error)  { return s.r.Read(p) }
func (s stream) Write(p []byte) (int, error) { return s.w.Write(p) }
func (s stream) CloseWrite() error           { return s.w.Close() }
func (s stream) Close() error                { return errors.Join(s.w.Close(), s.r.Close()) }
func (s stream) Reset() error                { return s.Close() }
func (s stream) SetDeadline(t time.Time) error {
	return errors.Join(s.r.SetDeadline(t), s.w.SetDeadline(t))
}

// keeper is a datastore in memory that, as one on disk, does not keep the memory it is given.
type keeper struct{ datastore.Batching }

func (k keeper) Put(ctx context.Context, key datastore.Key, value []byte) error {
	return k.Batching.Put(ctx, key, bytes.Clone(value))
}

func (k keeper) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(k), nil
}

func newBlocks() grid.Blocks {
	return block.New(keeper{dssync.MutexWrap(datastore.NewMapDatastore())})
}

// hear reads a request.
func hear(st grid.Stream) request {
	req, _ := wireReader{bufio.NewReader(st)}.request()
	return req
}

type testNode struct {
	*Exchange
	net    *fakeNet
	blocks grid.Blocks
}

func (s *swarm) exchange(t testing.TB, name string) *testNode {
	n := &testNode{net: s.node(name), blocks: newBlocks()}
	n.Exchange = New(Config{Blocks: n.blocks, Network: n.net})
	t.Cleanup(func() { n.Close() })
	return n
}

func TestContract(t *testing.T) {
	gridtest.TestFetcher(t, func(t *testing.T, n int) (nodes []gridtest.FetchNode) {
		s := newSwarm(t)
		for i := range n {
			x := s.exchange(t, fmt.Sprint("node", i))
			nodes = append(nodes, gridtest.FetchNode{ID: x.net.id, Blocks: x.blocks, Fetcher: x, Provide: x.net.Provide, Vanish: func() { x.Close() }})
		}
		return nodes
	})
}

// list is a DAG of a root that links to n raw blocks; the root is the first.
func list(t testing.TB, name string, n int) []grid.Block {
	t.Helper()
	bs := make([]grid.Block, 1, n+1)
	var links []grid.Link
	for i := range n {
		b := grid.NewBlock(cid.Raw, fmt.Appendf(nil, "%s %d", name, i))
		bs, links = append(bs, b), append(links, grid.Link{Cid: b.CID()})
	}
	root, err := grid.EncodeBlock(links)
	if err != nil {
		t.Fatal(err)
	}
	bs[0] = root
	return bs
}

func put(t testing.TB, n *testNode, bs ...grid.Block) {
	t.Helper()
	if err := n.blocks.Put(t.Context(), bs...); err != nil {
		t.Fatal(err)
	}
}

// TestOnce has many callers want one DAG: each block travels once.
func TestOnce(t *testing.T) {
	s := newSwarm(t)
	a, b := s.exchange(t, "a"), s.exchange(t, "b")
	dag := list(t, "x", 500)
	put(t, a, dag...)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if out, in := a.Stats(), b.Stats(); out.BlocksOut != 501 || in.BlocksIn != 501 || in.Wasted != 0 || in.Requests != 1 {
		t.Errorf("sent %+v, received %+v; want 501 blocks in 1 request", out, in)
	}
}

// TestLeaving cancels the caller that began a transfer while another waits for it.
func TestLeaving(t *testing.T) {
	s := newSwarm(t)
	b := s.exchange(t, "b")
	dag := list(t, "x", 3)
	other := grid.NewBlock(cid.Raw, []byte("other"))
	asked, answer, never := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	s.node("a").Handle(Protocol, func(_ context.Context, _ peer.ID, st grid.Stream) {
		req := hear(st)
		asked <- struct{}{}
		if req.cids[0] == other.CID() {
			<-never
			return
		}
		<-answer
		st.Write(encode(dag...))
	})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() { first <- b.Fetch(ctx, grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}}) }()
	<-asked
	go func() {
		second <- b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}})
	}()
	for joined := false; !joined; {
		b.mu.Lock()
		joined = b.flights[dag[0].CID()].waiting == 2
		b.mu.Unlock()
	}
	cancel()
	if err := <-first; grid.CodeOf(err) != grid.Canceled {
		t.Errorf("the caller that left: %v", err)
	}
	close(answer)
	if err := <-second; err != nil {
		t.Errorf("the caller that stayed: %v", err)
	}
	// And when all leave, the transfer ends; a later one begins anew.
	ctx, cancel = context.WithCancel(t.Context())
	go func() { first <- b.Fetch(ctx, grid.Want{Roots: []cid.Cid{other.CID()}, From: []peer.ID{"a"}}) }()
	<-asked
	cancel()
	if err := <-first; grid.CodeOf(err) != grid.Canceled {
		t.Errorf("the only caller: %v", err)
	}
	close(never)
}

func TestCloseWhileFetching(t *testing.T) {
	s := newSwarm(t)
	b := s.exchange(t, "b")
	asked := make(chan struct{})
	s.node("a").Handle(Protocol, func(_ context.Context, _ peer.ID, st grid.Stream) {
		close(asked)
		hear(st)
		st.Read(make([]byte, 1))
	})
	done := make(chan error)
	go func() {
		done <- b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{list(t, "x", 1)[0].CID()}, From: []peer.ID{"a"}})
	}()
	<-asked
	b.Close()
	if err := <-done; grid.CodeOf(err) != grid.Canceled {
		t.Errorf("Fetch: %v, want Canceled", err)
	}
	if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{list(t, "x", 1)[0].CID()}}); grid.CodeOf(err) != grid.Canceled {
		t.Errorf("Fetch after Close: %v", err)
	}
}

func blockFrame(c cid.Cid, data []byte) []byte {
	return append(appendBlockHeader(nil, c, data), data...)
}

// encode is the answer that sends blocks.
func encode(bs ...grid.Block) (out []byte) {
	for _, b := range bs {
		out = append(out, blockFrame(b.CID(), b.Data())...)
	}
	return append(out, frameEnd)
}

// TestHostile has a provider misbehave and an honest one come after it.
func TestHostile(t *testing.T) {
	dag := list(t, "x", 20)
	root := dag[0]
	foreign := grid.NewBlock(cid.Raw, []byte("nobody asked"))
	part := bytes.TrimSuffix(encode(dag[:10]...), []byte{frameEnd})
	long := binary.AppendUvarint([]byte{frameBlock}, 1<<40)
	missing := func(c cid.Cid) []byte { return appendCID([]byte{frameMissing}, c) }
	for _, tt := range []struct {
		name   string
		answer []byte
		hang   bool // afterwards, instead of closing
		drip   bool // a byte every 9 seconds
		wants  string
		keeps  uint64 // blocks of the bad provider that were taken
	}{
		{name: "nothing", wants: "EOF"},
		{name: "garbage", answer: []byte("HTTP/1.1 400 Bad Request"), wants: "unknown type"},
		{name: "cut short", answer: part, wants: "EOF", keeps: 10},
		{name: "cut within a frame", answer: part[:len(part)-3], wants: "EOF", keeps: 9},
		{name: "wrong data", answer: blockFrame(root.CID(), []byte("other")), wants: "bad block"},
		{name: "wrong data later", answer: append(slices.Clone(part), blockFrame(dag[10].CID(), []byte("other"))...), wants: "bad block", keeps: 10},
		{name: "not asked for", answer: append(slices.Clone(part), blockFrame(foreign.CID(), foreign.Data())...), wants: "not asked for", keeps: 10},
		{name: "child before parent", answer: encode(dag[1]), wants: "not asked for"},
		{name: "twice", answer: encode(root, dag[1], dag[1]), wants: "twice", keeps: 2},
		{name: "too long", answer: long, wants: "too large"},
		{name: "too long for a block", answer: append(binary.AppendUvarint([]byte{frameBlock}, grid.MaxBlock+40), append(root.CID().Bytes(), make([]byte, 64)...)...), wants: "too large", hang: true},
		{name: "no CID", answer: append([]byte{frameBlock, 40}, make([]byte, 40)...), wants: "CID"},
		{name: "missing what was not asked for", answer: missing(foreign.CID()), wants: "not asked for"},
		{name: "missing twice", answer: append(missing(root.CID()), missing(root.CID())...), wants: "not asked for"},
		{name: "missing", answer: append(missing(root.CID()), frameEnd), wants: "does not have"},
		{name: "an empty answer", answer: []byte{frameEnd}, wants: "without sending"},
		{name: "refused", answer: appendRefusal(nil, grid.Errorf(grid.Busy, "later")), wants: "later"},
		{name: "stalls at once", hang: true, wants: "timeout"},
		{name: "stalls within", answer: part, hang: true, wants: "timeout", keeps: 10},
		{name: "drips", answer: part, drip: true, wants: "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwarm(t)
				b, good := s.exchange(t, "b"), s.exchange(t, "good")
				put(t, good, dag...)
				var before sync.Map // who asked before; one that is cut off goes on to say nothing
				s.node("bad").Handle(Protocol, func(_ context.Context, from peer.ID, st grid.Stream) {
					hear(st)
					if _, again := before.LoadOrStore(from, true); again && strings.HasPrefix(tt.name, "cut") {
						return
					}
					if tt.drip {
						for i := range tt.answer {
							if _, err := st.Write(tt.answer[i : i+1]); err != nil {
								return
							}
							time.Sleep(9 * time.Second)
						}
					}
					st.Write(tt.answer)
					if tt.hang {
						for err := error(nil); err == nil; time.Sleep(time.Second) {
							_, err = st.Write(nil)
						}
					}
				})
				alone := s.exchange(t, "alone")
				s.mu.Lock()
				delete(s.nodes, "good")
				delete(s.nodes, "b")
				s.mu.Unlock()
				err := alone.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{root.CID()}, From: []peer.ID{"bad"}})
				if err == nil || !strings.Contains(err.Error(), tt.wants) {
					t.Errorf("error %v, want one with %q", err, tt.wants)
				}
				if in := alone.Stats().BlocksIn; in != tt.keeps {
					t.Errorf("%d blocks were kept, want %d", in, tt.keeps)
				}

				s.mu.Lock()
				s.nodes["good"] = good.net
				s.mu.Unlock()
				if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{root.CID()}, From: []peer.ID{"bad", "good"}}); err != nil {
					t.Errorf("with an honest provider: %v", err)
				}
				st := b.Stats()
				if st.BlocksIn != uint64(len(dag)) || st.Wasted != 0 || good.Stats().BlocksOut != uint64(len(dag))-tt.keeps {
					t.Errorf("received %+v, the honest one sent %d; want %d in all and none twice", st, good.Stats().BlocksOut, len(dag))
				}
				if ok, _ := b.blocks.Has(t.Context(), foreign.CID()); ok {
					t.Error("a block was pushed in")
				}
				good.Close()
				b.Close()
				alone.Close()
			})
		})
	}
}

// rotten gives wrong bytes for one block.
type rotten struct {
	grid.Blocks
	cid cid.Cid
}

func (r *rotten) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if c == r.cid {
		return nil, grid.Errorf(grid.Corrupt, "store: get %s: rotten", c)
	}
	return r.Blocks.Get(ctx, c)
}

func (r *rotten) Delete(ctx context.Context, c cid.Cid) error {
	if c == r.cid {
		r.cid = cid.Undef
	}
	return r.Blocks.Delete(ctx, c)
}

// TestRotten has damaged blocks at either end.
func TestRotten(t *testing.T) {
	s := newSwarm(t)
	dag := list(t, "x", 5)
	for _, at := range []int{0, 3} {
		bad := s.exchange(t, fmt.Sprint("bad", at))
		put(t, bad, dag...)
		bad.Exchange.blocks = &rotten{bad.blocks, dag[at].CID()}
		b := s.exchange(t, fmt.Sprint("b", at))
		s.mu.Lock()
		nodes := s.nodes
		s.nodes = map[peer.ID]*fakeNet{bad.net.id: bad.net}
		s.mu.Unlock()
		if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{bad.net.id}}); !errors.Is(err, grid.NotFound) {
			t.Errorf("block %d rotten at the server: %v, want NotFound", at, err)
		}
		s.mu.Lock()
		s.nodes = nodes
		s.mu.Unlock()
	}
	good, b := s.exchange(t, "good"), s.exchange(t, "b")
	put(t, good, dag...)
	put(t, b, dag...)
	b.Exchange.blocks = &rotten{b.blocks, dag[0].CID()}
	if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"good"}}); err != nil {
		t.Errorf("a block rotten here: %v", err)
	}
	if st := b.Stats(); st.BlocksIn != 1 {
		t.Errorf("%d blocks fetched, want the rotten one", st.BlocksIn)
	}
}

// TestBadRoot has a root below which nothing can be walked beside a good one.
func TestBadRoot(t *testing.T) {
	s := newSwarm(t)
	a, b := s.exchange(t, "a"), s.exchange(t, "b")
	good, bad := list(t, "x", 5), grid.NewBlock(cid.DagCBOR, []byte{0xff})
	put(t, a, good...)
	put(t, a, bad)
	err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{bad.CID(), good[0].CID()}, From: []peer.ID{"a"}})
	if !errors.Is(err, grid.Invalid) {
		t.Errorf("Fetch: %v, want Invalid", err)
	}
	requests := b.Stats().Requests
	if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{good[0].CID()}, From: []peer.ID{"a"}}); err != nil || b.Stats().Requests != requests {
		t.Errorf("the good root was not completed: %v", err)
	}
}

func TestLimit(t *testing.T) {
	s := newSwarm(t)
	a, b := s.exchange(t, "a"), s.exchange(t, "b")
	dag := list(t, "x", 40)
	put(t, a, dag...)
	size := int64(0)
	for _, blk := range dag {
		size += int64(len(blk.Data()))
	}
	want := grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}, Limit: size - 1}
	if err := b.Fetch(t.Context(), want); !errors.Is(err, grid.Limit) {
		t.Errorf("one byte less than there is: %v", err)
	}
	want.Limit = size // what came before does not come again
	if err := b.Fetch(t.Context(), want); err != nil {
		t.Errorf("as much as there is: %v", err)
	}
}

func TestFetchBlocks(t *testing.T) {
	s := newSwarm(t)
	a, b := s.exchange(t, "a"), s.exchange(t, "b")
	dag := list(t, "x", 5)
	put(t, a, dag...)
	if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID(), dag[3].CID()}, From: []peer.ID{"a"}, Shallow: true}); err != nil {
		t.Fatal(err)
	}
	if n := b.Stats().BlocksIn; n != 2 {
		t.Errorf("%d blocks came, want 2", n)
	}
	if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}}); err != nil || b.Stats().BlocksIn != 6 {
		t.Errorf("then the DAG: %v, %+v", err, b.Stats())
	}
}

// TestBusy opens more streams than one peer may.
func TestBusy(t *testing.T) {
	s := newSwarm(t)
	a, c := s.exchange(t, "a"), s.node("c")
	var open []grid.Stream
	for range peerStreams {
		st, err := c.Open(t.Context(), "a", Protocol)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, st)
		if _, err := st.Write([]byte{1}); err != nil { // it is being served
			t.Fatal(err)
		}
	}
	st, err := c.Open(t.Context(), "a", Protocol)
	if err != nil {
		t.Fatal(err)
	}
	f, err := wireReader{bufio.NewReader(st)}.frame(func(int) error { return nil })
	if err != nil || f.typ != frameRefused || !errors.Is(f.err, grid.Busy) {
		t.Errorf("one stream too many: %+v, %v", f, err)
	}
	st.Close()
	for _, st := range open {
		st.Reset()
	}
	_ = a
}

// TestFormat pins what goes over the wire.
func TestFormat(t *testing.T) {
	b := grid.NewBlock(cid.Raw, []byte("hello"))
	id := b.CID().Bytes()
	req := request{modeDAG, []cid.Cid{b.CID()}}.encode()
	if want := append([]byte{1, 1, 36}, id...); !bytes.Equal(req, want) {
		t.Errorf("request %x, want %x", req, want)
	}
	if want := append(append(append([]byte{1, 41}, id...), "hello"...), 3); !bytes.Equal(encode(b), want) {
		t.Errorf("block %x, want %x", encode(b), want)
	}
	if got, want := appendRefusal(nil, grid.Errorf(grid.Busy, "x")), []byte{4, 15, 1, 'x'}; !bytes.Equal(got, want) {
		t.Errorf("refusal %x, want %x", got, want)
	}
	s := newSwarm(t)
	a, c := s.exchange(t, "a"), s.node("c")
	dag := list(t, "x", 3)
	put(t, a, dag[0], dag[1], dag[3])
	st, err := c.Open(t.Context(), "a", Protocol)
	if err != nil {
		t.Fatal(err)
	}
	st.Write(request{modeDAG, []cid.Cid{dag[1].CID(), dag[0].CID()}}.encode())
	got, err := io.ReadAll(st)
	want := blockFrame(dag[1].CID(), dag[1].Data())
	want = append(want, blockFrame(dag[0].CID(), dag[0].Data())...)
	want = appendCID(append(want, frameMissing), dag[2].CID())
	want = append(want, encode(dag[3])...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("answer %x, %v; want %x", got, err, want)
	}
	st.Close()
}

// TestEnough closes the client's side early: the server sends no more than what it has begun with.
func TestEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		a, c := s.exchange(t, "a"), s.node("c")
		dag := list(t, "x", 5000)
		put(t, a, dag...)
		st, err := c.Open(t.Context(), "a", Protocol)
		if err != nil {
			t.Fatal(err)
		}
		st.Write(request{modeDAG, []cid.Cid{dag[0].CID()}}.encode())
		r := wireReader{bufio.NewReader(st)}
		for frames := 1; ; frames++ {
			f, err := r.frame(func(int) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if frames == 1 {
				st.CloseWrite()
				synctest.Wait() // the server has heard, and cannot send before this reads on
			}
			if f.typ == frameEnd {
				if frames > len(dag)/2 {
					t.Errorf("%d frames came, of %d", frames, len(dag)+1)
				}
				break
			}
		}
		st.Close()
		a.Close()
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(request{modeDAG, []cid.Cid{grid.NewBlock(cid.Raw, nil).CID()}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := wireReader{bufio.NewReader(bytes.NewReader(b))}.request()
		if err == nil && !bytes.HasPrefix(b, req.encode()) {
			t.Errorf("%x decodes to %+v, which encodes otherwise", b, req)
		}
	})
}

func FuzzFrame(f *testing.F) {
	b := grid.NewBlock(cid.Raw, []byte("hello"))
	f.Add(encode(b))
	f.Add(appendCID([]byte{frameMissing}, b.CID()))
	f.Add(appendRefusal(nil, grid.Errorf(grid.Busy, "x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wireReader{bufio.NewReader(bytes.NewReader(b))}
		for {
			fr, err := r.frame(func(int) error { return nil })
			if err != nil || fr.typ == frameEnd {
				return
			}
			if len(fr.data) > len(b) {
				t.Error("more data than there is")
			}
		}
	})
}

// FuzzAnswer has a node answer with anything: nothing but what was wanted is stored, and the fetch ends.
func FuzzAnswer(f *testing.F) {
	dag := list(f, "x", 3)
	f.Add(encode(dag...))
	f.Add(encode(dag[1], dag[0]))
	f.Add(encode(dag[0], dag[1], dag[1]))
	f.Add(appendCID([]byte{frameMissing}, dag[0].CID()))
	f.Add(appendRefusal(nil, grid.Errorf(grid.Internal, "x")))
	f.Fuzz(func(t *testing.T, answer []byte) {
		s := newSwarm(t)
		b := s.exchange(t, "b")
		s.node("a").Handle(Protocol, func(_ context.Context, _ peer.ID, st grid.Stream) {
			hear(st)
			st.Write(answer)
		})
		err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}})
		n := uint64(0)
		for _, blk := range dag {
			if ok, _ := b.blocks.Has(t.Context(), blk.CID()); ok {
				n++
			}
		}
		if (err == nil) != (n == 4) || b.Stats().BlocksIn != n {
			t.Errorf("%d blocks of 4 are here, %d came, error %v", n, b.Stats().BlocksIn, err)
		}
	})
}

func BenchmarkFetch(b *testing.B) {
	for _, tt := range []struct{ n, size int }{{0, 4 << 10}, {64, 1 << 20}, {2000, 10 << 10}} {
		b.Run(fmt.Sprintf("%dx%dKiB", tt.n, tt.size>>10), func(b *testing.B) {
			s := newSwarm(b)
			src := s.exchange(b, "src")
			var links []grid.Link
			for i := range tt.n {
				blk := grid.NewBlock(cid.Raw, append(make([]byte, tt.size-4), byte(i), byte(i>>8), 0, 0))
				put(b, src, blk)
				links = append(links, grid.Link{Cid: blk.CID()})
			}
			root := grid.NewBlock(cid.Raw, make([]byte, tt.size))
			if tt.n > 0 {
				root, _ = grid.EncodeBlock(links)
			}
			put(b, src, root)
			dst := s.exchange(b, "dst")
			b.SetBytes(int64(max(tt.n, 1) * tt.size))
			for b.Loop() {
				dst.blocks = newBlocks()
				dst.Exchange.blocks = dst.blocks
				dst.Forget()
				if err := dst.Fetch(b.Context(), grid.Want{Roots: []cid.Cid{root.CID()}, From: []peer.ID{"src"}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
