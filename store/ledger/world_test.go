package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// name makes a peer ID that is one: a multihash of the kind "identity".
func name(i int) peer.ID { return peer.ID(fmt.Sprintf("\x00\x08node%04d", i)) }

var testRealm = identity{Name: "test", ID: "0123456789abcdef"}

// world is some nodes in memory. In a bubble of testing/synctest its time is virtual.
type world struct {
	t   testing.TB
	ctx context.Context
	net *memnet.World
	cfg func(*Config)

	mu    sync.Mutex
	nodes map[peer.ID]*node
}

// node is a node with what survives its restart.
type node struct {
	*Ledger
	id   peer.ID
	net  *memnet.Node
	disk *memory
}

// memory is a disk in memory.
type memory struct {
	log   *raft.InmemStore
	snaps raft.SnapshotStore
}

func newMemory() *memory { return &memory{raft.NewInmemStore(), raft.NewInmemSnapshotStore()} }

func (m *memory) open(string) (Disk, error) {
	return Disk{m.log, m.log, m.snaps, func() error { return nil }, func() error { *m = *newMemory(); return nil }}, nil
}

func newWorld(t testing.TB, net memnet.Config, cfg func(*Config)) *world {
	w := &world{t: t, ctx: t.Context(), net: memnet.New(net), cfg: cfg, nodes: make(map[peer.ID]*node)}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, n := range w.nodes {
			w.net.Kill(n.id)
			_ = n.Close()
			_ = n.net.Close()
		}
	})
	return w
}

// lan is a network of about a local one's latency.
func lan(seed uint64) memnet.Config {
	return memnet.Config{Seed: seed, Silence: 10 * time.Second, Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration {
		return time.Duration(200+r.IntN(600)) * time.Microsecond
	}}
}

// start opens a node, on its disk if it was there before.
func (w *world) start(i int) *node {
	w.t.Helper()
	id := name(i)
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &node{id: id, disk: newMemory()}
	if old := w.nodes[id]; old != nil {
		n.disk = old.disk
	}
	n.net = w.net.Join(id)
	cfg := Config{Network: n.net, OpenDisk: n.disk.open}
	if os.Getenv("LEDGER_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", i)
	}
	if w.cfg != nil {
		w.cfg(&cfg)
	}
	l, err := Open(w.ctx, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Ledger = l
	w.nodes[id] = n
	return n
}

// crash ends a node without a word; what it has on disk stays.
func (w *world) crash(n *node) {
	w.net.Kill(n.id)
	_ = n.Close()
	_ = n.net.Close()
}

// cluster starts voters, and clients behind them.
func (w *world) cluster(voters, clients int) []*node {
	w.t.Helper()
	var nodes []*node
	var ids []peer.ID
	for i := range voters {
		n := w.start(i)
		nodes = append(nodes, n)
		ids = append(ids, n.id)
		if i == 0 {
			w.must(n.found(w.ctx, testRealm))
			continue
		}
		w.must(n.replicate(w.ctx, testRealm))
		w.must(nodes[0].addLearner(w.ctx, n.id))
	}
	for _, n := range nodes[1:] {
		w.until("a learner has caught up", func() bool {
			return n.lastIndex() >= nodes[0].lastIndex()
		}, n)
		w.must(nodes[0].promote(w.ctx, n.id))
	}
	for i := range clients {
		n := w.start(voters + i)
		nodes = append(nodes, n)
		w.must(n.follow(w.ctx, testRealm, ids))
	}
	return nodes
}

// pass has virtual time go by.
func pass(d time.Duration) { time.Sleep(d) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// until waits, for long, until something holds; it looks often.
func (w *world) until(what string, ok func() bool, _ ...*node) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			w.t.Fatalf("never: %s", what)
		}
	}
}

// leader waits for a leader among some nodes that all of those agree on.
func (w *world) leader(nodes ...*node) *node {
	w.t.Helper()
	var found *node
	w.until("a leader", func() bool {
		found = nil
		for _, n := range nodes {
			if n.isLeader() {
				found = n
			}
		}
		return found != nil
	})
	return found
}

// without lists the nodes but one.
func without(nodes []*node, not *node) (others []*node) {
	for _, n := range nodes {
		if n != not {
			others = append(others, n)
		}
	}
	return others
}

// cut cuts a node off from some others.
func (w *world) cut(n *node, from ...*node) {
	for _, o := range from {
		w.net.Cut(n.id, o.id)
	}
}

func (w *world) heal(n *node, from ...*node) {
	for _, o := range from {
		w.net.Heal(n.id, o.id)
	}
}

// virtual runs a test in virtual time.
func virtual(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func put(key, value string) grid.Txn {
	return grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte(value)}}}
}

func wantCode(t testing.TB, err error, codes ...grid.Code) {
	t.Helper()
	for _, c := range codes {
		if err != nil && grid.CodeOf(err) == c {
			return
		}
	}
	t.Errorf("got %v, want one of %v", err, codes)
}

// brokenDisk cannot be written while it fails.
type brokenDisk struct {
	raft.StableStore
	fail atomic.Bool
	why  error // nil: it is on fire
}

func (d *brokenDisk) err() error {
	if d.why != nil {
		return d.why
	}
	return errors.New("disk on fire")
}

func (d *brokenDisk) Set(key, value []byte) error {
	if d.fail.Load() {
		return d.err()
	}
	return d.StableStore.Set(key, value)
}

func (d *brokenDisk) SetUint64(key []byte, value uint64) error {
	if d.fail.Load() {
		return d.err()
	}
	return d.StableStore.SetUint64(key, value)
}
