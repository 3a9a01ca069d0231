package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/store/placement"
)

// farm is a large swarm: managers as they are, over a network in which a node is connected to a few of the others, with data that is one small
// block for each pin and takes fetchTime to travel. Its time is virtual. What goroutines do at the same instant is in no order, so that figures
// of two runs from one seed differ by a little.
type farm struct {
	t     *testing.T
	rand  *rand.Rand
	world *memnet.World
	nodes map[peer.ID]*farmer
	ids   []peer.ID // of those that are up
	born  int
	pins  []cid.Cid
	size  int // bytes of one

	mu      sync.Mutex
	at      map[peer.ID]*shelf
	fetched atomic.Int64 // copies that travelled
	sent    atomic.Int64 // messages
	bytes   atomic.Int64
}

type farmer struct {
	*Manager
	net   *memnet.Node
	shelf *shelf
}

const (
	farmGrace = defaultGrace
	farmHop   = 5 * time.Millisecond
	fetchTime = 100 * time.Millisecond
	farmR     = 3
)

// shelf is a node's blocks.
type shelf struct {
	mu  sync.Mutex
	all map[cid.Cid][]byte
}

func (s *shelf) Put(_ context.Context, blocks ...grid.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blocks {
		s.all[b.CID()] = b.Data()
	}
	return nil
}

func (s *shelf) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data, ok := s.all[c]; ok {
		return data, nil
	}
	return nil, grid.Errorf(grid.NotFound, "no block %s", c)
}

func (s *shelf) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.Get(ctx, c)
	return err == nil, nil
}

func (s *shelf) Delete(_ context.Context, c cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
	return nil
}

func (s *shelf) Sync(context.Context) error { return nil }

// carrier brings blocks from whoever is asked and has them.
type carrier struct {
	f  *farm
	to *shelf
}

func (c carrier) Fetch(ctx context.Context, w grid.Want) error {
	for _, root := range w.Roots {
		if here, _ := c.to.Has(ctx, root); here {
			continue
		}
		var data []byte
		for _, id := range w.From {
			c.f.mu.Lock()
			s := c.f.at[id]
			c.f.mu.Unlock()
			if s == nil {
				continue
			}
			if data, _ = s.Get(ctx, root); data != nil {
				break
			}
		}
		if data == nil {
			return grid.Errorf(grid.NotFound, "nobody of %d has %s", len(w.From), root)
		}
		wait(fetchTime)
		c.f.fetched.Add(1)
		if err := c.to.Put(ctx, grid.NewBlock(cid.Raw, data)); err != nil {
			return err
		}
	}
	return nil
}

func newFarm(t *testing.T, nodes int, seed uint64) *farm {
	f := &farm{t: t, rand: rand.New(rand.NewPCG(seed, 1)), nodes: map[peer.ID]*farmer{}, at: map[peer.ID]*shelf{}, size: 16}
	f.world = memnet.New(memnet.Config{
		Seed: seed, Degree: 32, Most: 128, // as in package p2p
		Latency: func(*rand.Rand, peer.ID, peer.ID) time.Duration { return farmHop },
		Sent:    func(_, _ peer.ID, _ grid.Protocol, n int) { f.sent.Add(1); f.bytes.Add(int64(n)) },
	})
	for range nodes {
		f.join()
	}
	return f
}

// join has a new node come.
func (f *farm) join() {
	f.born++
	id := peer.ID(fmt.Sprintf("\x00\x0anode%06d", f.born))
	n := &farmer{net: f.world.Join(id), shelf: &shelf{all: map[cid.Cid][]byte{}}}
	m, err := Open(f.t.Context(), Config{
		Network: n.net, Blocks: n.shelf, Fetcher: carrier{f, n.shelf}, State: dssync.MutexWrap(datastore.NewMapDatastore()), Grace: farmGrace,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	n.Manager = m
	f.nodes[id] = n
	f.ids = append(f.ids, id)
	f.mu.Lock()
	f.at[id] = n.shelf
	f.mu.Unlock()
}

// leave has a node go for good, with what it has.
func (f *farm) leave(id peer.ID) {
	n := f.nodes[id]
	f.mu.Lock()
	delete(f.at, id)
	f.mu.Unlock()
	f.world.Kill(id)
	n.Close()
	n.net.Close()
	delete(f.nodes, id)
	f.ids = slices.DeleteFunc(f.ids, func(x peer.ID) bool { return x == id })
}

func (f *farm) any() peer.ID { return f.ids[f.rand.IntN(len(f.ids))] }

func (f *farm) close() {
	for _, id := range slices.Clone(f.ids) {
		f.leave(id)
	}
}

// pin has some node keep a new block.
func (f *farm) pin() {
	data := binary.BigEndian.AppendUint64(make([]byte, f.size-8), uint64(len(f.pins)))
	b := grid.NewBlock(cid.Raw, data)
	n := f.nodes[f.any()]
	_ = n.shelf.Put(f.t.Context(), b)
	if _, err := n.promise(f.t.Context(), grid.Pin{Root: grid.Link{Cid: b.CID()}, Replicas: farmR}); err != nil {
		f.t.Fatal(err)
	}
	n.meetAll()
	poke(n.due)
	f.pins = append(f.pins, b.CID())
}

// census is the state of all pins.
type census struct {
	short, lost, surplus int
	moves                uint64 // changes of holders so far, of all pins
	peers, entries       int    // of the node that remembers most
}

func (f *farm) census() (c census) {
	copies := map[cid.Cid]int{}
	moves := map[cid.Cid]uint64{}
	for _, n := range f.nodes {
		n.mu.Lock()
		c.peers, c.entries = max(c.peers, len(n.peers)), max(c.entries, len(n.entries))
		for root, e := range n.entries {
			if e.Whole {
				copies[root]++
			}
			moves[root] = max(moves[root], e.Record.Version.Assign)
		}
		n.mu.Unlock()
	}
	for _, root := range f.pins {
		switch n := copies[root]; {
		case n == 0:
			c.lost++
			c.short++
		case n < farmR:
			c.short++
		case n > farmR:
			c.surplus++
		}
		c.moves += moves[root]
	}
	return c
}

// until waits until all pins are as they should be, and tells how long that took.
func (f *farm) until(within time.Duration) time.Duration {
	f.t.Helper()
	began := time.Now()
	for {
		c := f.census()
		if c.short == c.lost && c.surplus == 0 {
			return time.Since(began)
		}
		if time.Since(began) > within {
			f.t.Errorf("%d nodes: after %v: %+v", len(f.ids), within, c)
			return within
		}
		wait(time.Second)
	}
}

// grown is what a farm came to.
type grown struct {
	spread   time.Duration // until all pins had their copies
	needless uint64        // changes of holders while nobody left
	messages float64       // for each node in a second, at rest
	bytes    float64
	repaired time.Duration // from when the last that went was to be missed, until all pins had their copies again
	moved    float64       // copies that travelled, as a multiple of those that went
	lost     int           // pins
	entries  int           // that some node remembers, at most
	peers    int
}

// churn has so many nodes go for good, and as many come, in about that time; and tells how many copies went.
func (f *farm) churn(n int, in time.Duration) (copies int) {
	for range n {
		wait(time.Duration(f.rand.ExpFloat64() * float64(in) / float64(n)))
		id := f.any()
		f.nodes[id].shelf.mu.Lock()
		copies += len(f.nodes[id].shelf.all)
		f.nodes[id].shelf.mu.Unlock()
		f.leave(id)
		f.join()
	}
	return copies
}

// grow plays a farm: pins are made, nobody comes or goes for some minutes, and then a hundredth of the nodes is replaced.
func grow(t *testing.T, nodes int) (g grown) {
	const each = 1 // pins that a node makes; it keeps three times as many
	f := newFarm(t, nodes, 1)
	defer f.close()
	wait(10 * time.Second)
	for range each * nodes {
		f.pin()
	}
	g.spread = f.until(5 * time.Minute)
	before := f.census().moves
	messages, bytes := f.sent.Load(), f.bytes.Load()
	const rest = time.Minute
	wait(rest)
	per := rest.Seconds() * float64(nodes)
	g.messages, g.bytes = float64(f.sent.Load()-messages)/per, float64(f.bytes.Load()-bytes)/per
	c := f.census()
	g.needless, g.entries, g.peers = c.moves-before, c.entries, c.peers

	made := f.fetched.Load()
	went := f.churn(max(nodes/100, 1), time.Minute)
	wait(farmGrace)
	g.repaired = f.until(10 * time.Minute)
	g.moved = float64(f.fetched.Load()-made) / float64(max(went, 1))
	g.lost = f.census().lost
	return g
}

// play is grow in virtual time.
func play(t *testing.T, nodes int) (g grown) {
	t.Helper()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) { g = grow(t, nodes) })
	t.Logf("%d nodes: %+v, simulated in %v", nodes, g, time.Since(began).Round(time.Millisecond))
	return g
}

// TestScale: what a node says at rest does not grow with the swarm, nobody takes a node for lost that is there although it is connected
// to few of the others, and what nodes that leave have kept is made anew once, and soon. SCALE=10000 plays a swarm of that size.
func TestScale(t *testing.T) {
	many := 1000
	if testing.Short() {
		many = 200
	}
	if n, err := strconv.Atoi(os.Getenv("SCALE")); err == nil {
		many = n
	}
	few := play(t, 100)
	g := play(t, many)
	switch {
	case g.needless > 0:
		t.Errorf("%d changes of holders while nobody left", g.needless)
	case g.messages > 2*few.messages, g.bytes > 2*few.bytes:
		t.Errorf("a node sends %.2f messages of %.0f bytes in a second, among 100 it is %.2f of %.0f", g.messages, g.bytes, few.messages, few.bytes)
	case g.moved > 1.05:
		t.Errorf("%.2f copies were made for each that went", g.moved)
	case g.repaired > time.Minute:
		t.Errorf("it took %v longer than the grace to make copies anew", g.repaired)
	case g.peers > 128+2*g.entries*farmR:
		t.Errorf("a node remembers %d others, with %d pins", g.peers, g.entries)
	}
}

// TestSettled: that a pin need not be looked at says just what looking at it says.
func TestSettled(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	settled := 0
	for range 20_000 {
		gone := map[peer.ID]bool{}
		v := view{self: placement.Node{ID: name(99), Zone: "a"}, peers: map[peer.ID]*node{}, zones: map[string]struct{}{"a": {}}, lost: func(_ *record, id peer.ID) bool { return gone[id] }}
		zones, all := 1+r.IntN(4), 1+r.IntN(8)
		var holders []peer.ID
		for k := range all {
			id, i := name(k), info{Zone: string(rune('a' + r.IntN(zones))), Free: uint64(r.IntN(3)) << 20, Draining: r.IntN(8) == 0}
			if r.IntN(8) > 0 {
				v.peers[id] = &node{info: i, up: true, known: true}
				v.zones[i.Zone] = struct{}{}
			} else if r.IntN(2) > 0 {
				gone[id] = true
			}
			if r.IntN(2) > 0 {
				holders = append(holders, id)
			}
		}
		rec := record{Root: grid.Link{Cid: grid.NewBlock(cid.Raw, []byte{byte(r.IntN(9))}).CID()}, Replicas: max(len(holders)+r.IntN(2), 1), Size: 1 << 20, Holders: holders}
		if !v.settled(&rec) {
			continue
		}
		settled++
		if next := v.holders(&rec); !slices.Equal(next, holders) {
			t.Fatalf("%+v: %v are to follow %v", v, next, holders)
		}
	}
	if settled < 1000 {
		t.Errorf("only %d were settled", settled)
	}
}
