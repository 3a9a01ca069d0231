package replica

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/store/block"
	"github.com/wasmgrid/wasmgrid/store/dag"
	"github.com/wasmgrid/wasmgrid/store/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// copying keeps copies of values, as datastores on disk do.
type copying struct{ *datastore.MapDatastore }

func (d copying) Put(ctx context.Context, k datastore.Key, v []byte) error {
	return d.MapDatastore.Put(ctx, k, bytes.Clone(v))
}

func (d copying) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(d), nil
}

// swarm is some nodes in memory, in virtual time.
type swarm struct {
	t     *testing.T
	ctx   context.Context
	world *memnet.World
	nodes map[peer.ID]*testNode
	ids   []peer.ID // in the order of joining
	cfg   func(*Config)
	all   map[cid.Cid]struct{} // that may be collected
}

type testNode struct {
	*Manager
	id       peer.ID
	net      *memnet.Node
	blocks   grid.Blocks
	exchange *exchange.Exchange
	state    datastore.Batching
}

// name makes a peer ID that is one: a multihash of the kind "identity".
func name(i int) peer.ID { return peer.ID(fmt.Sprintf("\x00\x06node%02d", i)) }

const grace = 30 * time.Second

func newSwarm(t *testing.T, n int, cfg func(*Config)) *swarm { return newSilentSwarm(t, n, 0, cfg) }

// newSilentSwarm is one in which it takes some time to notice that a connection is cut.
func newSilentSwarm(t *testing.T, n int, silence time.Duration, cfg func(*Config)) *swarm {
	s := &swarm{
		t: t, ctx: t.Context(), nodes: map[peer.ID]*testNode{}, cfg: cfg, all: map[cid.Cid]struct{}{},
		world: memnet.New(memnet.Config{Seed: 1, Silence: silence, Latency: func(*rand.Rand, peer.ID, peer.ID) time.Duration { return time.Millisecond }}),
	}
	for i := range n {
		id := name(i)
		s.ids = append(s.ids, id)
		s.nodes[id] = &testNode{
			id:     id,
			blocks: block.New(dssync.MutexWrap(copying{datastore.NewMapDatastore()})),
			state:  dssync.MutexWrap(datastore.NewMapDatastore()),
		}
		s.start(id)
	}
	t.Cleanup(func() {
		for _, id := range s.ids {
			s.stop(id)
		}
	})
	return s
}

// start opens a node on what it has kept.
func (s *swarm) start(id peer.ID) *testNode {
	s.t.Helper()
	n := s.nodes[id]
	n.net = s.world.Join(id)
	n.exchange = exchange.New(exchange.Config{Blocks: n.blocks, Network: n.net})
	cfg := Config{Network: n.net, Blocks: n.blocks, Fetcher: n.exchange, State: n.state, Grace: grace, Forget: n.exchange.Forget}
	if s.cfg != nil {
		s.cfg(&cfg)
	}
	m, err := Open(s.ctx, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	n.Manager = m
	return n
}

// stop ends a node; its data stays.
func (s *swarm) stop(id peer.ID) {
	n := s.nodes[id]
	if n.Manager == nil {
		return
	}
	s.world.Kill(id)
	n.Manager.Close()
	n.exchange.Close()
	n.net.Close()
	n.Manager = nil
}

// wipe ends a node for good.
func (s *swarm) wipe(ids ...peer.ID) {
	for _, id := range ids {
		s.stop(id)
		delete(s.nodes, id)
		s.ids = slices.DeleteFunc(s.ids, func(x peer.ID) bool { return x == id })
	}
}

// add puts a file on a node.
func (s *swarm) add(id peer.ID, name string, size int) cid.Cid {
	s.t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name)))).Read(data)
	c, _, err := dag.New(s.nodes[id].blocks).Add(s.ctx, bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *swarm) pin(id peer.ID, p grid.Pin) grid.PinStatus {
	s.t.Helper()
	st, err := s.nodes[id].Pin(s.ctx, p)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// until waits, in virtual time, for a pin to be as wanted.
func (s *swarm) until(at peer.ID, root cid.Cid, within time.Duration, what string, ok func(grid.PinStatus) bool) grid.PinStatus {
	s.t.Helper()
	start := time.Now()
	for {
		st, err := s.nodes[at].Status(s.ctx, root, false)
		if err == nil && ok(st) {
			return st
		}
		if time.Since(start) > within {
			s.t.Fatalf("after %v not %s: %+v, %v", within, what, st, err)
		}
		wait(100 * time.Millisecond)
	}
}

// healthy waits until a pin has as many copies as promised, and no more.
func (s *swarm) healthy(at peer.ID, root cid.Cid, within time.Duration) grid.PinStatus {
	s.t.Helper()
	return s.until(at, root, within, "healthy", func(st grid.PinStatus) bool {
		return st.Health == grid.Healthy && st.Durable() == len(st.Copies)
	})
}

// whole checks that a node really has all of a DAG.
func (s *swarm) whole(id peer.ID, root cid.Cid) {
	s.t.Helper()
	if missing, _, err := dag.Missing(s.ctx, s.nodes[id].blocks, root, 1); err != nil || len(missing) > 0 {
		s.t.Errorf("%s: %v missing, %v", id, missing, err)
	}
}

func holders(st grid.PinStatus) (ids []peer.ID) {
	for _, c := range st.Copies {
		ids = append(ids, c.Node)
	}
	return ids
}

// wait lets virtual time pass.
func wait(d time.Duration) { <-time.After(d) }

func virtual(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestReplicates(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 5, nil)
		a := s.ids[0]
		root := s.add(a, "file", 3<<20)
		st := s.pin(a, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3, Name: "file"})
		if st.Copies[0].Node != a || st.Copies[0].State != grid.CopyDurable {
			t.Errorf("the first copy is not where it was pinned: %+v", st)
		}
		st = s.healthy(a, root, time.Second)
		if len(st.Copies) != 3 || st.Size < 3<<20 || st.Name != "file" {
			t.Errorf("status %+v", st)
		}
		for _, id := range holders(st) {
			s.whole(id, root)
		}
		for _, id := range s.ids { // whoever is asked says the same
			other, err := s.nodes[id].Status(s.ctx, root, true)
			if err != nil || !slices.Equal(holders(other), holders(st)) || other.Health != grid.Healthy {
				t.Errorf("%s says %+v, %v", id, other, err)
			}
		}
		list, err := s.nodes[st.Copies[2].Node].Pins(s.ctx)
		if err != nil || len(list) != 1 || list[0].Health != grid.Healthy {
			t.Errorf("list %+v, %v", list, err)
		}
	})
}

func TestAnyTwoLost(t *testing.T) {
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		t.Run(fmt.Sprint(pair), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := newSwarm(t, 5, nil)
				root := s.add(s.ids[0], "file", 5<<20)
				s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
				had := holders(s.healthy(s.ids[0], root, time.Second))
				s.wipe(had[pair[0]], had[pair[1]])
				st := s.healthy(s.ids[0], root, 3*grace)
				if len(st.Copies) != 3 {
					t.Errorf("copies %+v", st.Copies)
				}
				for _, id := range holders(st) {
					s.whole(id, root)
				}
			})
		})
	}
}

func TestReturns(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 5, nil)
		root := s.add(s.ids[0], "file", 2<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
		away := holders(s.healthy(s.ids[0], root, time.Second))[1]

		s.stop(away) // for a moment: nothing is moved
		wait(grace / 2)
		st, err := s.nodes[s.ids[0]].Status(s.ctx, root, false)
		if err != nil || st.Health != grid.Degraded || !slices.Contains(holders(st), away) {
			t.Errorf("while it is away for a moment: %+v, %v", st, err)
		}
		s.start(away)
		if st := s.healthy(s.ids[0], root, time.Second); !slices.Contains(holders(st), away) {
			t.Errorf("once it is back: %+v", st)
		}

		s.stop(away) // for long
		if st := s.healthy(s.ids[0], root, 3*grace); slices.Contains(holders(st), away) {
			t.Errorf("it was not replaced: %+v", st)
		}
		n := s.start(away)
		s.until(away, root, time.Minute, "trimmed", func(grid.PinStatus) bool {
			kept := 0
			if err := n.Roots(s.ctx, func(cid.Cid) { kept++ }); err != nil {
				t.Fatal(err)
			}
			return kept == 0
		})
		s.healthy(s.ids[0], root, time.Second)
	})
}

func TestUnpin(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 4, nil)
		root := s.add(s.ids[0], "file", 1<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 4})
		s.healthy(s.ids[0], root, time.Second)
		s.stop(s.ids[3])
		if err := s.nodes[s.ids[1]].Unpin(s.ctx, root); err != nil { // from anywhere
			t.Fatal(err)
		}
		wait(2 * grace)
		s.start(s.ids[3]) // knows nothing of it
		wait(time.Minute)
		for _, id := range s.ids {
			if list, err := s.nodes[id].Pins(s.ctx); err != nil || len(list) > 0 {
				t.Errorf("%s: %+v, %v", id, list, err)
			}
			if err := s.nodes[id].Roots(s.ctx, func(c cid.Cid) { t.Errorf("%s keeps %s", id, c) }); err != nil {
				t.Error(err)
			}
		}
		if err := s.nodes[s.ids[0]].Unpin(s.ctx, root); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("again: %v", err)
		}
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2}) // a promise can be made anew
		s.healthy(s.ids[0], root, time.Second)
		wait(memory + time.Hour)
		s.healthy(s.ids[0], root, time.Second)
		for _, id := range s.ids { // the rest is forgotten
			n := s.nodes[id]
			n.mu.Lock()
			if e := n.entries[root]; e != nil && !e.Record.concerns(id) {
				t.Errorf("%s remembers %+v", id, e.Record)
			}
			n.mu.Unlock()
		}
	})
}

func TestChanged(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 5, nil)
		root := s.add(s.ids[0], "file", 1<<20)
		for _, replicas := range []int{2, 4, 1, 5} {
			s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: replicas})
			if st := s.healthy(s.ids[0], root, time.Minute); len(st.Copies) != replicas {
				t.Errorf("%d wanted: %+v", replicas, st)
			}
		}
	})
}

func TestTooFewNodes(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 2, nil)
		root := s.add(s.ids[0], "file", 1<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
		wait(time.Minute)
		st, err := s.nodes[s.ids[0]].Status(s.ctx, root, false)
		if err != nil || st.Health != grid.Degraded || st.Durable() != 2 || st.Note == "" {
			t.Fatalf("with two nodes: %+v, %v", st, err)
		}
		for _, id := range s.ids {
			if got := s.nodes[id].Stats(); got.Pins != 1 || got.Short != 1 || got.Bytes < 1<<20 {
				t.Errorf("%s counts %+v", id, got)
			}
		}
		id := name(99)
		s.ids = append(s.ids, id)
		s.nodes[id] = &testNode{id: id, blocks: block.New(dssync.MutexWrap(copying{datastore.NewMapDatastore()})), state: dssync.MutexWrap(datastore.NewMapDatastore())}
		s.start(id)
		s.healthy(s.ids[0], root, 10*time.Second)
		s.whole(id, root)
		for _, at := range s.ids {
			if got := s.nodes[at].Stats(); got.Pins != 1 || got.Short != 0 || at == id && (got.Made != 1 || got.Failed != 0) {
				t.Errorf("%s counts %+v once there are three", at, got)
			}
		}
	})
}

func TestDrain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 4, nil)
		root := s.add(s.ids[0], "file", 2<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2})
		s.healthy(s.ids[0], root, time.Second)
		n := s.nodes[s.ids[0]]
		if err := n.Drain(s.ctx, true); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); ; wait(time.Second) {
			st, err := n.Draining(s.ctx)
			if err != nil || !st.Draining {
				t.Fatal(st, err)
			}
			// At no moment are there fewer than two copies.
			if p, err := n.Status(s.ctx, root, false); err != nil || p.Durable()+surplus(p) < 2 {
				t.Errorf("while draining: %+v, %v", p, err)
			}
			if st.Left == 0 {
				break
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("not drained: %+v", st)
			}
		}
		if st := s.healthy(s.ids[1], root, time.Second); slices.Contains(holders(st), n.id) {
			t.Errorf("it still holds: %+v", st)
		}
		s.stop(n.id)
		n = s.start(n.id) // drains still
		if st, err := n.Draining(s.ctx); err != nil || !st.Draining {
			t.Errorf("after a restart: %+v, %v", st, err)
		}
		if err := n.Drain(s.ctx, false); err != nil {
			t.Fatal(err)
		}
	})
}

func surplus(st grid.PinStatus) (n int) {
	for _, c := range st.Copies {
		if c.State == grid.CopySurplus {
			n++
		}
	}
	return n
}

func TestZones(t *testing.T) {
	virtual(t, func(t *testing.T) {
		zone := 0
		s := newSwarm(t, 6, func(c *Config) { c.Zone = fmt.Sprint("zone", zone/2); zone++ })
		for i := range 5 {
			root := s.add(s.ids[0], fmt.Sprint("file", i), 100_000)
			s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
			zones := map[int]bool{}
			for _, id := range holders(s.healthy(s.ids[0], root, time.Minute)) {
				zones[slices.Index(s.ids, id)/2] = true
			}
			if len(zones) != 3 {
				t.Errorf("file %d lies in the zones %v only", i, zones)
			}
		}
	})
}

func TestPartition(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 6, nil)
		root := s.add(s.ids[0], "file", 2<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
		had := holders(s.healthy(s.ids[0], root, time.Second))
		left := []peer.ID{had[0]} // one copy here, two there
		for _, id := range s.ids {
			if !slices.Contains(had, id) && len(left) < 3 {
				left = append(left, id)
			}
		}
		each := func(f func(a, b peer.ID)) {
			for _, a := range left {
				for _, b := range s.ids {
					if !slices.Contains(left, b) {
						f(a, b)
					}
				}
			}
		}
		each(s.world.Cut)
		s.until(left[0], root, 3*grace, "restored on one side", func(st grid.PinStatus) bool { return st.Durable() == 3 })
		s.until(had[1], root, 3*grace, "restored on the other side", func(st grid.PinStatus) bool { return st.Durable() == 3 })
		each(s.world.Heal)
		st := s.healthy(s.ids[0], root, 3*time.Minute)
		kept := 0
		for _, id := range s.ids {
			if err := s.nodes[id].Roots(s.ctx, func(cid.Cid) { kept++ }); err != nil {
				t.Fatal(err)
			}
			other := s.healthy(id, root, time.Minute)
			if !slices.Equal(holders(other), holders(st)) {
				t.Errorf("%s believes in %v, %s in %v", s.ids[0], holders(st), id, holders(other))
			}
		}
		if kept != 3 {
			t.Errorf("%d nodes keep it", kept)
		}
	})
}

// TestDeadWhenChosen: a node that was dead when it was chosen, which nobody had noticed, is not waited for as one that has a copy is.
func TestDeadWhenChosen(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSilentSwarm(t, 5, 14*time.Second, func(c *Config) { c.Grace = 5 * time.Minute })
		wait(10 * time.Second) // they know one another's room
		at, dead := s.ids[0], s.ids[1]
		for _, id := range s.ids {
			if id != dead {
				s.world.Cut(id, dead)
			}
		}
		chosen := 0
		for i := range 8 {
			root := s.add(at, fmt.Sprint("file", i), 1<<20)
			if st := s.pin(at, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3}); slices.Contains(holders(st), dead) {
				chosen++
			}
			defer func() {
				if st := s.healthy(at, root, time.Minute); slices.Contains(holders(st), dead) {
					t.Errorf("%+v", st)
				}
			}()
		}
		if chosen == 0 {
			t.Fatal("it was never chosen")
		}
	})
}

func TestPace(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 3, func(c *Config) { c.Rate = 1 << 20 })
		root := s.add(s.ids[0], "file", 60<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2})
		had := holders(s.healthy(s.ids[0], root, 10*time.Second)) // a first copy has no limit
		s.wipe(had[1])
		start := time.Now()
		s.healthy(s.ids[0], root, 5*time.Minute)
		if took := time.Since(start) - grace; took < 50*time.Second || took > 80*time.Second {
			t.Errorf("60 MiB at 1 MiB/s took %v", took)
		}
	})
}

func TestRestart(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 4, nil)
		root := s.add(s.ids[0], "file", 2<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3, Name: "x"})
		want := holders(s.healthy(s.ids[0], root, time.Second))
		for _, id := range s.ids {
			s.stop(id)
		}
		for _, id := range s.ids {
			s.start(id)
		}
		if st := s.healthy(s.ids[1], root, 10*time.Second); !slices.Equal(holders(st), want) || st.Name != "x" {
			t.Errorf("%+v", st)
		}
	})
}

// Who leads replaces a holder that it has never met, too: it may lead only since it took the place of another one.
func TestNeverMet(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 4, nil)
		root := s.add(s.ids[0], "file", 2<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
		had := holders(s.healthy(s.ids[0], root, time.Second))
		s.wipe(had[2])
		wait(time.Second)
		for _, n := range s.nodes {
			n.mu.Lock()
			delete(n.peers, had[2])
			n.mu.Unlock()
		}
		for _, id := range holders(s.healthy(had[0], root, 3*grace)) {
			s.whole(id, root)
		}
	})
}

func TestLostBlock(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 3, nil)
		root := s.add(s.ids[0], "file", 3<<20)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2})
		st := s.healthy(s.ids[0], root, time.Second)
		victim := s.nodes[st.Copies[1].Node]
		data, _ := victim.blocks.Get(s.ctx, root)
		links, _ := dag.Links(root, data)
		if err := victim.blocks.Delete(s.ctx, links[1]); err != nil {
			t.Fatal(err)
		}
		if st, err := s.nodes[s.ids[0]].Status(s.ctx, root, true); err != nil || st.Health != grid.Degraded {
			t.Errorf("with a block gone: %+v, %v", st, err)
		}
		s.until(s.ids[0], root, time.Minute, "mended", func(st grid.PinStatus) bool { return st.Health == grid.Healthy })
		s.whole(victim.id, root)
	})
}

func TestPinOfNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 2, nil)
		n := s.nodes[s.ids[0]]
		absent := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("absent")).CID()}
		if _, err := n.Pin(s.ctx, grid.Pin{Root: absent}); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("pin of what is not here: %v", err)
		}
		for _, p := range []grid.Pin{
			{},
			{Root: absent, Replicas: -1},
			{Root: absent, Replicas: grid.MaxCopies + 1},
			{Root: absent, Replicas: 2, Code: grid.Coding{Data: 2, Parity: 1}},
			{Root: absent, Code: grid.Coding{Data: 40, Parity: 1}},
			{Root: absent, Name: "\xff"},
		} {
			if _, err := n.Pin(s.ctx, p); grid.CodeOf(err) != grid.Invalid {
				t.Errorf("pin %+v: %v", p, err)
			}
		}
		if _, err := n.Status(s.ctx, absent.Cid, false); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("status of what is not pinned: %v", err)
		}
	})
}

func FuzzServe(f *testing.F) {
	root := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("x")).CID()}
	seed, err := grid.Marshal(request{
		Common: &common{Count: 1},
		Have:   []item{{root, version{1, 2, name(1)}}},
		Put:    []record{{Root: root, Replicas: 2, By: name(1), Holders: []peer.ID{name(1), name(2)}, Version: version{1, 2, name(1)}}},
		Ask:    []grid.Link{root},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0xa0})
	m := &Manager{
		self: name(2), entries: map[cid.Cid]*entry{}, peers: map[peer.ID]*node{}, common: map[peer.ID]common{}, due: make(chan struct{}, 1),
		cfg: Config{State: dssync.MutexWrap(datastore.NewMapDatastore())},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		reply, err := m.serve(t.Context(), name(1), data)
		if err == nil && len(reply) > grid.MaxMessage {
			t.Errorf("a reply of %d bytes", len(reply))
		}
		for _, e := range m.entries {
			if err := e.Record.check(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestContract(t *testing.T) {
	gridtest.TestPins(t, func(t *testing.T) (grid.Pins, grid.Blocks) {
		s := newSwarm(t, 1, nil)
		return s.nodes[s.ids[0]], s.nodes[s.ids[0]].blocks
	})
}
