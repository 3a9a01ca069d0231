package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// large is a DAG of a root over two levels of nodes over n leaves of the given size; the root is the first.
func large(t testing.TB, name string, n, size int) []grid.Block {
	t.Helper()
	bs := make([]grid.Block, 1)
	var top []grid.Link
	for len(top) < 10 {
		var links []grid.Link
		for i := range n / 10 {
			b := grid.NewBlock(cid.Raw, append(make([]byte, size), fmt.Sprint(name, len(top), i)...))
			bs, links = append(bs, b), append(links, grid.Link{Cid: b.CID()})
		}
		b, err := grid.EncodeBlock(links)
		if err != nil {
			t.Fatal(err)
		}
		bs, top = append(bs, b), append(top, grid.Link{Cid: b.CID()})
	}
	root, err := grid.EncodeBlock(top)
	if err != nil {
		t.Fatal(err)
	}
	bs[0] = root
	return bs
}

// slow is a stream that takes so many bytes/s, and breaks or hangs after some.
type slow struct {
	grid.Stream
	rate  int
	left  *atomic.Int64 // bytes
	hangs bool
	now   chan struct{} // closed: it hangs no more
}

func (s slow) Write(p []byte) (int, error) {
	if s.left != nil && s.left.Add(-int64(len(p))) < 0 {
		if s.hangs {
			<-s.now
		}
		s.Stream.Reset()
		return 0, io.ErrClosedPipe
	}
	if s.rate > 0 {
		time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(s.rate))
	}
	return s.Stream.Write(p)
}

// through has a node's answers go through a slow stream.
func (n *testNode) through(f func(grid.Stream) grid.Stream) {
	handle := n.net.handle
	n.net.Handle(Protocol, func(ctx context.Context, from peer.ID, st grid.Stream) { handle(ctx, from, f(st)) })
}

// world runs f in a bubble with nodes "0", "1", … and "dst", all with no blocks.
func world(t *testing.T, n int, f func(t *testing.T, s *swarm, dst *testNode, nodes []*testNode)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		dst := s.exchange(t, "dst")
		var nodes []*testNode
		for i := range n {
			nodes = append(nodes, s.exchange(t, fmt.Sprint(i)))
		}
		f(t, s, dst, nodes)
		dst.Close()
		for _, n := range nodes {
			n.Close()
		}
	})
}

func ids(nodes ...*testNode) (ids []peer.ID) {
	for _, n := range nodes {
		ids = append(ids, n.net.id)
	}
	return ids
}

func fetch(t *testing.T, dst *testNode, dag []grid.Block, from ...*testNode) time.Duration {
	t.Helper()
	start := time.Now()
	if err := dst.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: ids(from...)}); err != nil {
		t.Fatal(err)
	}
	for _, b := range dag {
		if ok, err := dst.blocks.Has(t.Context(), b.CID()); !ok || err != nil {
			t.Fatalf("Has(%s) = %v, %v after Fetch", b.CID(), ok, err)
		}
	}
	return time.Since(start)
}

// TestShares has three nodes of different speeds give one DAG: it takes about as long as they need together.
func TestShares(t *testing.T) {
	world(t, 3, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 1000, 50_000)
		for i, n := range nodes {
			put(t, n, dag...)
			n.through(func(st grid.Stream) grid.Stream { return slow{Stream: st, rate: 10 << 20 >> i} }) // per stream
		}
		took := fetch(t, dst, dag, nodes...)
		alone := 1000 * 50_000 * time.Second / (10 << 20)
		if took > alone*3/4 {
			t.Errorf("it took %v; the fastest alone takes %v", took, alone)
		}
		var out uint64
		for _, n := range nodes {
			if n.Stats().BlocksOut == 0 {
				t.Errorf("%s gave nothing", n.net.id)
			}
			out += n.Stats().BlocksOut
		}
		st := dst.Stats()
		if st.Wasted > 50 || out > uint64(len(dag))+100 || st.BlocksIn != uint64(len(dag)) || st.BadPeers != 0 {
			t.Errorf("%+v, %d blocks were sent of %d", st, out, len(dag))
		}
		if len(st.Speeds) != 3 || st.Speeds[0].Rate < st.Speeds[2].Rate {
			t.Errorf("speeds %+v", st.Speeds)
		}
		t.Logf("took %v, alone %v, wasted %d, requests %d", took, alone, st.Wasted, st.Requests)
	})
}

// TestScattered has each block on one of 16 nodes.
func TestScattered(t *testing.T) {
	world(t, 16, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 2000, 1000)
		for i, b := range dag {
			put(t, nodes[i*7919%16], b)
		}
		var mu sync.Mutex
		asked := map[string]int{}
		for _, n := range nodes {
			handle := n.net.handle
			n.net.Handle(Protocol, func(ctx context.Context, from peer.ID, st grid.Stream) {
				sp := &spy{Stream: st}
				handle(ctx, from, sp)
				mu.Lock()
				defer mu.Unlock()
				for r := (wireReader{bufio.NewReader(&sp.all)}); ; {
					f, err := r.frame(func(int) error { return nil })
					if err != nil {
						return
					}
					if f.typ == frameBlock || f.typ == frameMissing {
						asked[string(n.net.id)+f.cid.KeyString()]++
					}
				}
			})
		}
		fetch(t, dst, dag, nodes...)
		st := dst.Stats()
		if st.Wasted != 0 || st.BlocksIn != uint64(len(dag)) || st.Requests > 600 {
			t.Errorf("%+v", st)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, n := range asked {
			if n > 1 {
				t.Fatalf("a node was asked %d times for one block", n)
			}
		}
		t.Logf("requests %d, answers %d for %d blocks", st.Requests, len(asked), len(dag))
	})
}

// spy keeps what is written.
type spy struct {
	grid.Stream
	all bytes.Buffer
}

func (s *spy) Write(p []byte) (int, error) {
	s.all.Write(p)
	return s.Stream.Write(p)
}

// TestVanish has a node break off in the middle, another hang, and a third do the work.
func TestVanish(t *testing.T) {
	world(t, 3, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 500, 20_000)
		hung := make(chan struct{})
		for i, n := range nodes {
			put(t, n, dag...)
			if i < 2 {
				left := &atomic.Int64{}
				left.Store(1 << 20)
				n.through(func(st grid.Stream) grid.Stream {
					return slow{Stream: st, rate: 20 << 20, left: left, hangs: i == 1, now: hung}
				})
			}
		}
		took := fetch(t, dst, dag, nodes...)
		if took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		if st := dst.Stats(); st.BlocksIn != uint64(len(dag)) || st.Wasted > 20 {
			t.Errorf("%+v", st)
		}
		if !dst.penalised(nodes[0].net.id) || dst.penalised(nodes[2].net.id) {
			t.Errorf("the wrong one is asked last: %+v", dst.Stats().Speeds)
		}
		close(hung)
	})
}

// TestBreaks has the only node break off three times after a part: the fetch goes on where it was.
func TestBreaks(t *testing.T) {
	world(t, 1, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 200, 20_000)
		put(t, nodes[0], dag...)
		var times atomic.Int64
		nodes[0].through(func(st grid.Stream) grid.Stream {
			if times.Add(1) > 3 {
				return st
			}
			left := &atomic.Int64{}
			left.Store(1 << 20)
			return slow{Stream: st, left: left}
		})
		fetch(t, dst, dag, nodes...)
		if st := dst.Stats(); st.BlocksIn != uint64(len(dag)) || st.Requests != 4 || st.BadPeers != 0 {
			t.Errorf("%+v, want 4 requests", st)
		}
	})
}

// TestStalled has the first node of two take the request and say nothing: the second is asked soon, and first
// the next time, until that is forgiven.
func TestStalled(t *testing.T) {
	world(t, 2, func(t *testing.T, s *swarm, dst *testNode, nodes []*testNode) {
		first, again := list(t, "x", 20), list(t, "y", 20)
		put(t, nodes[1], append(first, again...)...)
		over := make(chan struct{})
		var asked atomic.Int64
		nodes[0].net.Handle(Protocol, func(_ context.Context, _ peer.ID, st grid.Stream) {
			asked.Add(1)
			hear(st)
			<-over
		})
		if took := fetch(t, dst, first, nodes...); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		if took := fetch(t, dst, again, nodes...); took > 100*time.Millisecond || asked.Load() != 1 {
			t.Errorf("the next one took %v, and the silent node was asked %d times", took, asked.Load())
		}
		time.Sleep(time.Hour)
		if dst.penalised(nodes[0].net.id) {
			t.Error("nothing is forgiven in an hour")
		}
		close(over)
	})
}

// TestSlowEnd has a node that only drips, but not so slowly as to be dropped, beside a fast one.
func TestSlowEnd(t *testing.T) {
	world(t, 2, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 200, 100_000)
		for i, n := range nodes {
			put(t, n, dag...)
			n.through(func(st grid.Stream) grid.Stream { return slow{Stream: st, rate: []int{30 << 10, 20 << 20}[i]} })
		}
		for _, shallow := range []bool{false, true} {
			w := grid.Want{From: ids(nodes...), Shallow: shallow, Roots: []cid.Cid{dag[0].CID()}}
			if shallow {
				w.Roots = nil
				for _, b := range dag {
					w.Roots = append(w.Roots, b.CID())
					if err := dst.blocks.Delete(t.Context(), b.CID()); err != nil {
						t.Fatal(err)
					}
				}
				dst.Forget()
				clear(dst.peers)
			}
			start := time.Now()
			if err := dst.Fetch(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("shallow %v: it took %v", shallow, took)
			}
		}
	})
}

// TestBusyAgain has a node refuse some requests before it answers.
func TestBusyAgain(t *testing.T) {
	world(t, 1, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := list(t, "x", 20)
		put(t, nodes[0], dag...)
		handle := nodes[0].net.handle
		var times atomic.Int64
		nodes[0].net.Handle(Protocol, func(ctx context.Context, from peer.ID, st grid.Stream) {
			if times.Add(1) <= 3 {
				hear(st)
				st.Write(appendRefusal(nil, grid.Errorf(grid.Busy, "later")))
				return
			}
			handle(ctx, from, st)
		})
		fetch(t, dst, dag, nodes...)
		if times.Load() != 4 {
			t.Errorf("it was asked %d times, want 4", times.Load())
		}
	})
}

// TestManyFlights begins more fetches than a node serves at once.
func TestManyFlights(t *testing.T) {
	s := newSwarm(t)
	a, b := s.exchange(t, "a"), s.exchange(t, "b")
	var wg sync.WaitGroup
	for i := range 8 * peerStreams {
		dag := list(t, fmt.Sprint(i), 10)
		put(t, a, dag...)
		wg.Go(func() {
			if err := b.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: ids(a)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// lookups is a network whose swarm takes its time to name providers.
type lookups struct {
	*fakeNet
	takes time.Duration
	asked atomic.Int64
}

func (l *lookups) Providers(ctx context.Context, c cid.Cid, n int) ([]peer.ID, error) {
	l.asked.Add(1)
	select {
	case <-time.After(l.takes):
		return l.fakeNet.Providers(ctx, c, n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestSources(t *testing.T) {
	world(t, 4, func(t *testing.T, s *swarm, dst *testNode, nodes []*testNode) {
		net := &lookups{fakeNet: dst.net, takes: 15 * time.Second}
		dst.Exchange.net = net
		a, b, c, d := list(t, "a", 5), list(t, "b", 5), list(t, "c", 5), list(t, "d", 5)
		put(t, nodes[0], a...)
		if took := fetch(t, dst, a); took > time.Second || net.asked.Load() != 1 {
			t.Errorf("a connected node has it; it took %v and %d look-ups", took, net.asked.Load())
		}
		put(t, nodes[1], b...)
		dst.Exchange.ask = func(_ context.Context, root cid.Cid) []peer.ID { return ids(nodes[1]) }
		if took := fetch(t, dst, b); took > time.Second || net.asked.Load() != 1 || dst.Stats().Requests != 2 {
			t.Errorf("a holder has it; it took %v, %d look-ups and %d requests", took, net.asked.Load(), dst.Stats().Requests)
		}
		put(t, nodes[2], c...)
		if took := fetch(t, dst, c, nodes[2]); took > time.Second || net.asked.Load() != 1 || dst.Stats().Requests != 3 {
			t.Errorf("it is hinted at; it took %v, %d look-ups and %d requests", took, net.asked.Load(), dst.Stats().Requests)
		}
		put(t, nodes[3], d...)
		if err := nodes[3].net.Provide(t.Context(), d[0].CID()); err != nil {
			t.Fatal(err)
		}
		hidden := nodes[3].net // it is not connected, but can be reached once its name is known
		dst.Exchange.net = &apart{net, hidden}
		if took := fetch(t, dst, d); took > 20*time.Second || net.asked.Load() != 2 {
			t.Errorf("the swarm knows who has it; it took %v and %d look-ups", took, net.asked.Load())
		}
	})
}

// apart is a network in which one node is not connected.
type apart struct {
	*lookups
	hidden *fakeNet
}

func (a *apart) Peers() (infos []grid.PeerInfo) {
	for _, p := range a.lookups.Peers() {
		if p.ID != a.hidden.id {
			infos = append(infos, p)
		}
	}
	return infos
}

// TestResume ends a fetch in the middle; the next one takes up what is left.
func TestResume(t *testing.T) {
	world(t, 2, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 500, 20_000)
		for _, n := range nodes {
			put(t, n, dag...)
			n.through(func(st grid.Stream) grid.Stream { return slow{Stream: st, rate: 2 << 20} })
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		w := grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: ids(nodes...)}
		if err := dst.Fetch(ctx, w); !errors.Is(err, grid.Deadline) && grid.CodeOf(err) != grid.Deadline {
			t.Fatalf("Fetch: %v", err)
		}
		synctest.Wait()
		before := dst.Stats().BlocksIn
		if before < 100 || before > 490 {
			t.Errorf("%d blocks came before the end", before)
		}
		fetch(t, dst, dag, nodes...)
		if st := dst.Stats(); st.BlocksIn != uint64(len(dag)) || st.Wasted > 30 {
			t.Errorf("%+v, want %d blocks in all", st, len(dag))
		}
	})
}

// stuck is a store that waits before it puts.
type stuck struct {
	grid.Blocks
	open chan struct{}
}

func (s stuck) Put(ctx context.Context, bs ...grid.Block) error {
	<-s.open
	return s.Blocks.Put(ctx, bs...)
}

// TestMemory has a disk that takes nothing for a long time: no more than the bound is read meanwhile, and
// nobody is blamed.
func TestMemory(t *testing.T) {
	world(t, 2, func(t *testing.T, _ *swarm, dst *testNode, nodes []*testNode) {
		dag := large(t, "x", 60, 1<<20)
		for _, n := range nodes {
			put(t, n, dag...)
		}
		disk := stuck{dst.blocks, make(chan struct{})}
		dst.Exchange.blocks = disk
		done := make(chan error)
		go func() {
			done <- dst.Fetch(t.Context(), grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: ids(nodes...)})
		}()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		out := nodes[0].Stats().BytesOut + nodes[1].Stats().BytesOut
		if out > transferMemory+8<<20 {
			t.Errorf("%d bytes were sent while nothing could be stored", out)
		}
		close(disk.open)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if st := dst.Stats(); st.BadPeers != 0 {
			t.Errorf("%+v", st)
		}
	})
}
