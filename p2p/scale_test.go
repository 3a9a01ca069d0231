package p2p

import (
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// crowd is nodes that look for one another by the code that nodes have for that (seek and keeper), over a table that is made up: a node has
// as many neighbours there as Kademlia would give it, and what is provided under a key is kept with the bounds of records.
type crowd struct {
	mu       sync.Mutex
	rand     *rand.Rand
	all      map[peer.ID]*looker
	order    []peer.ID // of those that are up
	born     int
	records  *records
	provided int // announcements; each is kept by bucketSize nodes
	sought   int // searches
	dials    int
}

type looker struct {
	c     *crowd
	id    peer.ID
	keep  *keeper
	with  map[peer.ID]bool
	stop  context.CancelFunc
	ended sync.WaitGroup
	near  []peer.ID
}

var somewhere = ma.StringCast("/ip4/192.0.2.1/tcp/1")

func newCrowd(seed uint64) *crowd {
	return &crowd{rand: rand.New(rand.NewPCG(seed, 1)), all: map[peer.ID]*looker{}, records: newRecords()}
}

// come adds a node that knows one other.
func (c *crowd) come() {
	c.mu.Lock()
	c.born++
	l := &looker{c: c, id: peer.ID(fmt.Sprintf("node%d", c.born)), keep: newKeeper(), with: map[peer.ID]bool{}}
	// Kademlia fills a bucket for each bit in which there are nodes that differ first.
	for range min(len(c.order), bucketSize*max(bits.Len(uint(len(c.order)/bucketSize)), 1)) {
		l.near = append(l.near, c.order[c.rand.IntN(len(c.order))])
	}
	if len(l.near) > 0 {
		l.keep.fix(c.info(l.near[0]))
	}
	c.all[l.id] = l
	c.order = append(c.order, l.id)
	for _, id := range l.near { // and has its place in theirs
		if n := c.all[id]; n != nil && len(n.near) < bucketSize*bits.Len(uint(len(c.order))) {
			n.near = append(n.near, l.id)
		}
	}
	c.mu.Unlock()
	members := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(l.with)
	}
	l.keep.members = members
	l.keep.connected = func(id peer.ID) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return l.with[id]
	}
	l.keep.dial = func(_ context.Context, info peer.AddrInfo, _ bool) error {
		pause(context.Background(), 20*time.Millisecond)
		return c.connect(l, info.ID)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.ended.Go(func() { l.keep.run(ctx) })
	l.ended.Go(func() {
		seek(ctx, l, "test", members, l.keep.offer, c.info, slog.New(slog.DiscardHandler))
	})
}

func (c *crowd) info(id peer.ID) peer.AddrInfo {
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{somewhere}}
}

func (c *crowd) connect(l *looker, to peer.ID) error {
	c.mu.Lock()
	c.dials++
	o := c.all[to]
	if o == nil || c.all[l.id] != l || o == l {
		c.mu.Unlock()
		return grid.Errorf(grid.Unavailable, "nobody is there")
	}
	l.with[to], o.with[l.id] = true, true
	c.mu.Unlock()
	l.keep.remember(c.info(to), time.Now())
	o.keep.remember(c.info(l.id), time.Now())
	return nil
}

// leave has a node go for good.
func (c *crowd) leave(id peer.ID) {
	c.mu.Lock()
	l := c.all[id]
	delete(c.all, id)
	for i, o := range c.order {
		if o == id {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}
	var others []*looker
	for o := range l.with {
		if n := c.all[o]; n != nil {
			delete(n.with, id)
			others = append(others, n)
		}
	}
	c.mu.Unlock()
	for _, n := range others {
		n.keep.lost(id, time.Now())
	}
	l.stop()
	l.ended.Wait()
}

// What a directory is, for one node.

func (l *looker) Provide(context.Context, cid.Cid) error {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.provided++
	return c.records.Put(context.Background(), ds.NewKey("/providers/K/"+string(l.id)), []byte("x"))
}

func (l *looker) Providers(_ context.Context, _ cid.Cid, n int) (infos []peer.AddrInfo, err error) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sought++
	found, err := c.records.Query(context.Background(), dsq.Query{Prefix: "/providers/K"})
	if err != nil {
		return nil, err
	}
	for r := range found.Next() {
		if len(infos) < n {
			infos = append(infos, c.info(peer.ID(ds.RawKey(r.Key).BaseNamespace())))
		}
	}
	return infos, nil
}

func (l *looker) Find(context.Context, peer.ID) (peer.AddrInfo, error) {
	return peer.AddrInfo{}, grid.Errorf(grid.NotFound, "not asked for")
}

func (l *looker) Neighbours() []peer.ID {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	var up []peer.ID
	for _, id := range l.near {
		if l.c.all[id] != nil {
			up = append(up, id)
		}
	}
	return up
}

func (l *looker) Close() error { return nil }

// found is what a crowd came to.
type found struct {
	least, most int     // peers of a node
	apart       int     // nodes that cannot be reached from the first
	stored      float64 // announcements a second that each node that keeps the key gets, at rest
	dials       float64 // of a node in a minute, at rest
	remembered  int     // others, by one node, at most
}

// counts tells how many announcements and dials there were.
func (c *crowd) counts() (provided, dials int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.provided, c.dials
}

// one draws a node that is up.
func (c *crowd) one() peer.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order[c.rand.IntN(len(c.order))]
}

// discover has nodes come within a minute, and then for a while some go and as many come; each stays for stay on average.
func discover(nodes int, stay time.Duration) (f found) {
	c := newCrowd(1)
	for range nodes {
		pause(context.Background(), time.Minute/time.Duration(nodes))
		c.come()
	}
	pause(context.Background(), 5*time.Minute)
	provided, dials := c.counts()
	const span = 20 * time.Minute
	leaving := int(span * time.Duration(nodes) / stay)
	for range leaving {
		pause(context.Background(), span/time.Duration(leaving))
		c.leave(c.one())
		c.come()
	}
	announced, dialled := c.counts()
	f.stored = float64(announced-provided) / span.Seconds()
	f.dials = float64(dialled-dials) / span.Minutes() / float64(nodes)
	pause(context.Background(), 2*time.Minute)
	c.mu.Lock()
	f.least = nodes
	for _, l := range c.all {
		f.least, f.most = min(f.least, len(l.with)), max(f.most, len(l.with))
		f.remembered = max(f.remembered, len(l.keep.list()))
	}
	seen := map[peer.ID]bool{c.order[0]: true}
	for next := []peer.ID{c.order[0]}; len(next) > 0; next = next[1:] {
		for id := range c.all[next[0]].with {
			if !seen[id] {
				seen[id] = true
				next = append(next, id)
			}
		}
	}
	f.apart = nodes - len(seen)
	ids := append([]peer.ID(nil), c.order...)
	c.mu.Unlock()
	for _, id := range ids {
		c.leave(id)
	}
	return f
}

// TestScale: nodes find enough others however many there are and although some come and go, are all connected by way of one another, and
// neither dial more often nor remember more in a larger swarm. What grows with it is what the nodes get that keep the swarm's key.
func TestScale(t *testing.T) {
	many := 1000
	if testing.Short() {
		many = 200
	}
	if n, err := strconv.Atoi(os.Getenv("SCALE")); err == nil {
		many = n
	}
	play := func(nodes int) (f found) {
		began := time.Now()
		synctest.Test(t, func(*testing.T) { f = discover(nodes, 6*time.Hour) })
		t.Logf("%d nodes: %+v, simulated in %v", nodes, f, time.Since(began).Round(time.Millisecond))
		return f
	}
	few, f := play(100), play(many)
	switch {
	case f.apart > 0:
		t.Errorf("%d nodes are apart from the others", f.apart)
	case f.least < targetPeers*3/4:
		t.Errorf("a node has only %d peers", f.least)
	case f.most > 8*targetPeers:
		t.Errorf("a node has %d peers", f.most)
	case f.dials > 4*few.dials+1:
		t.Errorf("a node dials %.2f times a minute, among 100 nodes %.2f times", f.dials, few.dials)
	case f.stored > float64(many)*5/announceFull.Seconds()+1:
		t.Errorf("%.1f announcements of the swarm's key a second, of %d nodes", f.stored, many)
	case f.remembered > maxRemembered:
		t.Errorf("a node remembers %d others", f.remembered)
	}
}

func TestConnections(t *testing.T) {
	for memory, want := range map[rcmgr.LimitVal64]rcmgr.LimitVal{0: 1024, 128 << 20: 1024, 1152 << 20: 9216, 1 << 40: 16384} {
		if got := connsFor(memory); got != want {
			t.Errorf("%d connections in %d bytes, want %d", got, memory, want)
		}
	}
}
