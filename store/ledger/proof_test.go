package ledger

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/histories"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// A longer proof: go test ./store/ledger -run TestProof -ledger.rounds 50 -ledger.seed 1000 -timeout 2h
var (
	proofRounds = flag.Int("ledger.rounds", 1, "rounds of each kind in TestProof, each from a seed of its own")
	proofSeed   = flag.Uint64("ledger.seed", 1, "first seed of TestProof")
)

// TestProof breaks realms in every way it can while clients use them, and holds what they saw to the promises of
// grid.Ledger: see package histories. It runs in simulated time, which is the only one that a ledger knows: it
// measures durations and never reads a clock's date, so clocks that differ between nodes make no difference.
func TestProof(t *testing.T) {
	for _, c := range []struct {
		name              string
		replicas, clients int
		starved           bool
		faults            []fault
	}{
		{"three/quiet", 3, 1, false, nil},
		{"three/kills", 3, 1, false, []fault{killLeader, killAny, killAny, stopAny}},
		{"three/cuts", 3, 1, false, []fault{cutLeader, cutAny, cutLeaderIn, cutLeaderOut, halves}},
		{"three/disks", 3, 1, false, []fault{refuseLeader, refuseAny}},
		{"three/all", 3, 2, false, allFaults},
		{"three/starved", 3, 1, true, []fault{cutLeader, cutLeaderIn, cutLeaderOut, halves, killAny}},
		{"five/all", 5, 1, false, allFaults},
		{"five/two", 5, 1, false, []fault{killTwo, halves, killAll, compact}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.name != "five/all" {
				t.Skip("-short was given")
			}
			for round := range *proofRounds {
				seed := *proofSeed + uint64(round)
				prove(t, t, trial{seed: seed, replicas: c.replicas, clients: c.clients, starved: c.starved, faults: c.faults})
				if t.Failed() {
					t.Fatalf("seed %d: run it again with -run '%s' -ledger.seed %d", seed, t.Name(), seed)
				}
			}
		})
	}
}

const (
	proofTime  = 20 * time.Second // in which faults happen
	proofLines = 3                // clients on each node
	proofStep  = 3 * time.Second  // for each step of a client
	proofPause = 60 * time.Millisecond
)

// trial is what to try.
type trial struct {
	seed              uint64
	replicas, clients int
	starved           bool // nodes do not get to run in time, so that elections are slow
	faults            []fault
	wrap              func(l grid.Ledger, r *rand.Rand) grid.Ledger // between clients and the ledger
}

// TestProofFinds shows that the proof finds what a realm would do wrong.
func TestProofFinds(t *testing.T) {
	for name, x := range map[string]trial{
		"reads of what a follower happens to know": {faults: []fault{cutAny, killAny}, wrap: func(l grid.Ledger, _ *rand.Rand) grid.Ledger {
			return staleReads{l}
		}},
		"a retry under another request ID": {faults: []fault{killLeader}, wrap: func(l grid.Ledger, r *rand.Rand) grid.Ledger {
			return sendsAgain{histories.Lossy(r.Uint64(), l, 0.05)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			x.seed, x.replicas, x.clients = 1, 3, 1
			f := &histories.Findings{TB: t}
			prove(t, f, x)
			found := f.List()
			if len(found) == 0 {
				t.Fatal("nothing was found")
			}
			t.Logf("%d, such as:\n%.2000s", len(found), found[0])
		})
	}
}

type staleReads struct{ grid.Ledger }

func (l staleReads) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	q.Stale = true
	return l.Ledger.Range(ctx, q)
}

func (l staleReads) Get(ctx context.Context, key string) (grid.Entry, error) {
	p, err := l.Range(ctx, grid.Query{Prefix: key})
	if err == nil && (len(p.Entries) == 0 || p.Entries[0].Key != key) {
		err = grid.NotFound
	}
	if err != nil {
		return grid.Entry{}, err
	}
	return p.Entries[0], nil
}

type sendsAgain struct{ grid.Ledger }

func (l sendsAgain) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	for {
		rev, err := l.Ledger.Commit(ctx, t)
		if grid.CodeOf(err) != grid.Unavailable || ctx.Err() != nil {
			return rev, err
		}
		t.ID = grid.NewRequestID()
	}
}

// prove tries x. What is wrong goes to f.
func prove(t *testing.T, f testing.TB, x trial) {
	h := histories.New()
	var log []grid.Changes
	var did []string
	synctest.Test(t, func(t *testing.T) {
		w := newProof(t, f, x)
		defer w.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		last := w.nodes[len(w.nodes)-1] // is never broken
		all, err := histories.NewAll(ctx, h.Client(last), "kv/")
		if err != nil {
			t.Fatal(err)
		}
		stop := histories.Watch(f, last, all.Prefix, 0)
		var lines []grid.Ledger
		for i := range len(w.nodes) * proofLines {
			var l grid.Ledger = w.nodes[i%len(w.nodes)]
			if x.wrap != nil {
				l = x.wrap(l, w.r)
			}
			lines = append(lines, h.Client(l))
		}
		w.busy.Store(x.starved)
		end := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			histories.Run(f, x.seed, lines, all.Steps(), 1<<30, proofPause, proofStep, end)
		})
		for until := time.Now().Add(proofTime); time.Now().Before(until); {
			time.Sleep(w.between(500*time.Millisecond, 3*time.Second))
			if len(x.faults) > 0 {
				x.faults[w.r.IntN(len(x.faults))](w)
			}
		}
		w.heal()
		w.busy.Store(false)
		time.Sleep(time.Second)
		close(end)
		wg.Wait()
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		log = all.End(wait, f, h.Client(last), stop)
		w.agree(wait)
		did = w.did
	})
	h.Replay(f, log)
	h.Linearizable(f)
	known, unknown := h.Calls()
	t.Logf("seed %d: %d calls, and %d without an answer; %d transactions; %d faults", x.seed, known, unknown, len(log), len(did))
	if t.Failed() {
		t.Logf("what happened: %q", did)
	}
	if known < 100 {
		t.Errorf("only %d calls came to anything", known)
	}
}

// proof is a realm that is broken on purpose, in simulated time.
type proof struct {
	t     *testing.T
	f     testing.TB // for what is wrong
	r     *rand.Rand
	net   *memnet.World
	realm identity
	nodes []*proofNode // replicas, then clients
	many  int          // replicas
	busy  atomic.Bool  // nodes starve
	did   []string
}

// proofNode is one node; it is a grid.Ledger that waits while the node is down.
type proofNode struct {
	w    *proof
	id   peer.ID
	disk *proofDisk // nil: a client

	mu   sync.Mutex
	net  *memnet.Node
	l    *Ledger
	up   chan struct{} // closed while there is l
	gone sync.WaitGroup
}

var errDisk = errors.New("input/output error")

// proofDisk survives its node.
type proofDisk struct {
	log   *raft.InmemStore
	snaps raft.SnapshotStore

	mu     sync.Mutex
	broken error
	turn   int // of the process that has it open
}

// hand is a process's hold on a disk: none after its death.
type hand struct {
	*proofDisk
	turn int
}

func (d *proofDisk) open(string) (Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return Disk{}, d.broken
	}
	d.turn++
	h := &hand{d, d.turn}
	return Disk{Log: handLog{h.log, h}, Stable: handStable{h.log, h}, Snapshots: handSnaps{h.snaps, h}, Close: func() error { return nil }}, nil
}

func (h *hand) may() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.turn != h.proofDisk.turn {
		return errors.New("the process is dead")
	}
	return h.broken
}

func (d *proofDisk) set(broken error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

func (d *proofDisk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
}

type handLog struct {
	raft.LogStore
	h *hand
}

func (l handLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l handLog) StoreLogs(es []*raft.Log) error {
	if err := l.h.may(); err != nil {
		return err
	}
	return l.LogStore.StoreLogs(es)
}

func (l handLog) DeleteRange(lo, hi uint64) error {
	if err := l.h.may(); err != nil {
		return err
	}
	return l.LogStore.DeleteRange(lo, hi)
}

type handStable struct {
	raft.StableStore
	h *hand
}

func (s handStable) Set(k, v []byte) error {
	if err := s.h.may(); err != nil {
		return err
	}
	return s.StableStore.Set(k, v)
}

func (s handStable) SetUint64(k []byte, v uint64) error {
	if err := s.h.may(); err != nil {
		return err
	}
	return s.StableStore.SetUint64(k, v)
}

type handSnaps struct {
	raft.SnapshotStore
	h *hand
}

func (s handSnaps) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, t raft.Transport) (raft.SnapshotSink, error) {
	if err := s.h.may(); err != nil {
		return nil, err
	}
	return s.SnapshotStore.Create(v, index, term, c, at, t)
}

func newProof(t *testing.T, f testing.TB, x trial) *proof {
	w := &proof{t: t, f: f, r: rand.New(rand.NewPCG(x.seed, 1)), realm: identity{Name: "proof", ID: fmt.Sprint("proof-", x.seed)}, many: x.replicas}
	w.net = memnet.New(starved(memnet.Config{
		Seed:    x.seed,
		Silence: 2 * time.Second,
		Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration {
			return 100*time.Microsecond + time.Duration(r.ExpFloat64()*float64(500*time.Microsecond))
		},
	}, &w.busy))
	for i := range x.replicas + x.clients {
		n := &proofNode{w: w, id: peer.ID(fmt.Sprintf("\x00\x05node%c", 'a'+i)), up: make(chan struct{})} // a multihash, as IDs are
		if i < x.replicas {
			n.disk = &proofDisk{log: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
		}
		w.nodes = append(w.nodes, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, n := range w.nodes {
		n.open()
		var err error
		switch {
		case i == 0:
			err = n.l.found(ctx, w.realm)
		case n.disk != nil:
			err = n.l.replicate(ctx, w.realm)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := w.nodes[0].l
	for _, n := range w.nodes[1:x.replicas] {
		if err := first.addLearner(ctx, n.id); err != nil {
			t.Fatal(err)
		}
		for first.progress()[n.id].Applied == 0 {
			if ctx.Err() != nil {
				t.Fatal("no progress")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := first.promote(ctx, n.id); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range w.nodes {
		if n.disk == nil {
			if err := n.l.follow(ctx, w.realm, w.ids(0)); err != nil {
				t.Fatal(err)
			}
		}
		n.ready()
	}
	return w
}

func (w *proof) ids(but int) (ids []peer.ID) {
	for _, n := range w.nodes[but:w.many] {
		ids = append(ids, n.id)
	}
	return ids
}

// open makes a node's network and ledger.
func (n *proofNode) open() {
	cfg := Config{Dir: "/" + n.id.String()}
	if n.disk != nil {
		cfg.OpenDisk = n.disk.open
	}
	net := n.w.net.Join(n.id)
	cfg.Network = net
	l, err := Open(n.w.t.Context(), cfg)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.net, n.l = net, l
}

func (n *proofNode) ready() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.up)
}

// start starts a node that was ended.
func (n *proofNode) start() {
	n.open()
	if err := n.l.replicate(n.w.t.Context(), n.w.realm); err != nil {
		n.w.f.Errorf("%s does not start again: %v", n.id, err)
	}
	n.ready()
}

// take makes a node be down.
func (n *proofNode) take() (*memnet.Node, *Ledger) {
	n.mu.Lock()
	defer n.mu.Unlock()
	net, l := n.net, n.l
	n.net, n.l, n.up = nil, nil, make(chan struct{})
	return net, l
}

func (n *proofNode) isUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.l != nil
}

// kill ends a node as kill -9 does: from one moment to the next nothing of it reaches its disk or the others.
func (n *proofNode) kill() {
	net, l := n.take()
	if n.disk != nil {
		n.disk.kill()
	}
	n.w.net.Kill(n.id)
	n.gone.Go(func() {
		_ = l.Close()
		_ = net.Close()
	})
}

// stop ends a node in good order.
func (n *proofNode) stop() {
	net, l := n.take()
	if err := l.Close(); err != nil {
		n.w.f.Errorf("%s: close: %v", n.id, err)
	}
	_ = net.Close()
}

func (w *proof) close() {
	for _, n := range w.nodes {
		if n.isUp() {
			n.stop()
		}
		n.gone.Wait()
	}
}

// ledger waits until the node is up.
func (n *proofNode) ledger(ctx context.Context) (*Ledger, error) {
	n.mu.Lock()
	up := n.up
	n.mu.Unlock()
	select {
	case <-up:
	case <-ctx.Done():
		return nil, grid.Errorf(grid.Unavailable, "the node is down")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.l == nil {
		return nil, grid.Errorf(grid.Unavailable, "the node is down")
	}
	return n.l, nil
}

func (n *proofNode) Get(ctx context.Context, key string) (grid.Entry, error) {
	l, err := n.ledger(ctx)
	if err != nil {
		return grid.Entry{}, err
	}
	return l.Get(ctx, key)
}

func (n *proofNode) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	l, err := n.ledger(ctx)
	if err != nil {
		return grid.Page{}, err
	}
	return l.Range(ctx, q)
}

func (n *proofNode) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	l, err := n.ledger(ctx)
	if err != nil {
		return 0, err
	}
	return l.Commit(ctx, t)
}

func (n *proofNode) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	l, err := n.ledger(ctx)
	if err != nil {
		return err
	}
	return l.Watch(ctx, prefix, after, f)
}

func (n *proofNode) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	l, err := n.ledger(ctx)
	if err != nil {
		return nil, err
	}
	return l.OpenSession(ctx, ttl)
}

func (n *proofNode) Status(ctx context.Context) (grid.LedgerStatus, error) {
	l, err := n.ledger(ctx)
	if err != nil {
		return grid.LedgerStatus{}, err
	}
	return l.Status(ctx)
}

// agree waits until all replicas hold the same.
func (w *proof) agree(ctx context.Context) {
	w.t.Helper()
	want, err := w.nodes[len(w.nodes)-1].Range(ctx, grid.Query{})
	if err != nil {
		w.f.Error(err)
		return
	}
	for _, n := range w.nodes[:w.many] {
		for {
			got, err := n.Range(ctx, grid.Query{Stale: true})
			if err == nil && got.Revision >= want.Revision {
				if !slices.EqualFunc(got.Entries, want.Entries, func(a, b grid.Entry) bool {
					return a.Key == b.Key && a.Version == b.Version && string(a.Value) == string(b.Value)
				}) {
					w.f.Errorf("%s holds %d entries at revision %d, which are not the %d of the others", n.id, len(got.Entries), got.Revision, len(want.Entries))
				}
				break
			}
			if time.Sleep(50 * time.Millisecond); ctx.Err() != nil {
				w.f.Errorf("%s has not caught up: %v", n.id, err)
				return
			}
		}
	}
}

// The faults. Each begins and ends by itself, in its time, except disks and cuts that the next heal mends.

type fault func(w *proof)

var allFaults = []fault{killLeader, killAny, stopAny, cutLeader, cutAny, cutLeaderIn, cutLeaderOut, halves, refuseLeader, refuseAny, killAll, compact, compact}

func (w *proof) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.r.Int64N(int64(hi-lo)))
}

func (w *proof) note(format string, args ...any) {
	w.did = append(w.did, fmt.Sprintf(format, args...))
}

// leader is the node that leads, or any.
func (w *proof) leader() *proofNode {
	for _, n := range w.nodes[:w.many] {
		n.mu.Lock()
		leads := n.l != nil && n.l.isLeader()
		n.mu.Unlock()
		if leads {
			return n
		}
	}
	return w.any()
}

func (w *proof) any() *proofNode { return w.nodes[w.r.IntN(w.many)] }

func (w *proof) killFor(nodes ...*proofNode) {
	for _, n := range nodes {
		w.note("kill %s", n.id)
		n.kill()
	}
	time.Sleep(w.between(10*time.Millisecond, 3*time.Second))
	for _, n := range nodes {
		w.note("start %s", n.id)
		n.start()
	}
}

func killLeader(w *proof) { w.killFor(w.leader()) }
func killAny(w *proof)    { w.killFor(w.any()) }
func killAll(w *proof)    { w.killFor(w.nodes[:w.many]...) }

func killTwo(w *proof) {
	a, b := w.leader(), w.any()
	for a == b {
		b = w.any()
	}
	w.killFor(a, b)
}

func stopAny(w *proof) {
	n := w.any()
	w.note("stop %s", n.id)
	n.stop()
	time.Sleep(w.between(0, time.Second))
	n.start()
}

// cutFor cuts what cut says for a time that is noticed, or not.
func (w *proof) cutFor(what string, cut func(from, to peer.ID) bool) {
	w.note("%s", what)
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b && cut(a.id, b.id) {
				w.net.CutWay(a.id, b.id)
			}
		}
	}
	time.Sleep(w.between(10*time.Millisecond, 5*time.Second))
	w.heal()
}

func (w *proof) heal() {
	w.note("heal")
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a.id < b.id {
				w.net.Heal(a.id, b.id)
			}
		}
	}
}

func (w *proof) isolate(n *proofNode) {
	w.cutFor(fmt.Sprintf("cut %s off", n.id), func(from, to peer.ID) bool { return from == n.id || to == n.id })
}

func cutLeader(w *proof) { w.isolate(w.leader()) }
func cutAny(w *proof)    { w.isolate(w.any()) }

func cutLeaderIn(w *proof) {
	n := w.leader()
	w.cutFor(fmt.Sprintf("%s is deaf", n.id), func(_, to peer.ID) bool { return to == n.id })
}

func cutLeaderOut(w *proof) {
	n := w.leader()
	w.cutFor(fmt.Sprintf("%s is mute", n.id), func(from, _ peer.ID) bool { return from == n.id })
}

// halves puts every node, clients too, on one of two sides.
func halves(w *proof) {
	side := make(map[peer.ID]bool)
	for _, n := range w.nodes {
		side[n.id] = w.r.IntN(2) == 0
	}
	w.cutFor(fmt.Sprintf("halves %v", side), func(from, to peer.ID) bool { return side[from] != side[to] })
}

func (w *proof) refuse(n *proofNode) {
	w.note("the disk of %s refuses", n.id)
	n.disk.set(errDisk)
	time.Sleep(w.between(10*time.Millisecond, 3*time.Second))
	n.disk.set(nil)
	n.stop() // as its owner does who has mended the disk
	n.start()
}

// compact has a replica put nearly all of its log into a snapshot, so that those who are behind need that.
func compact(w *proof) {
	n := w.any()
	w.note("%s makes a snapshot", n.id)
	if r := n.l.replica(); r != nil {
		r.reload(func(c *raft.ReloadableConfig) { c.TrailingLogs = 3 })
		if err := r.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			w.f.Errorf("%s: snapshot: %v", n.id, err)
		}
	}
}

func refuseLeader(w *proof) { w.refuse(w.leader()) }
func refuseAny(w *proof)    { w.refuse(w.any()) }
