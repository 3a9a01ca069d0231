package grid_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// listener is a node that hears what is over.
type listener struct {
	net   *fake.Network
	mu    sync.Mutex
	deaf  int // calls that fail before it hears
	heard chan grid.DropMsg
}

func listen(hub *fake.Hub, name string, deaf int, gave ...peer.ID) *listener {
	l := &listener{net: hub.Join(nodeID(name)), deaf: deaf, heard: make(chan grid.DropMsg, 16)}
	l.net.Serve(grid.ProtoDrop, func(_ context.Context, _ peer.ID, data []byte) ([]byte, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.deaf > 0 {
			l.deaf--
			return nil, grid.Errorf(grid.Unavailable, "lost")
		}
		var m grid.DropMsg
		if err := grid.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		l.heard <- m
		return grid.Marshal(grid.DropReply{Gave: gave})
	})
	return l
}

func (l *listener) wait(t testing.TB, id grid.JobID) {
	t.Helper()
	select {
	case m := <-l.heard:
		if m.Job != id || m.Epoch != 1 {
			t.Errorf("told of %+v, want job %s in epoch 1", m, id)
		}
	case <-within(t).Done():
		t.Fatal("a node is not told that the job is over")
	}
}

// enter has nodes be of the realm of another, which is to have heard of that.
func enter(t testing.TB, w *fake.World, n *grid.Node, ids ...peer.ID) {
	t.Helper()
	value, _ := grid.Marshal(grid.NodeInfo{Slots: 1})
	for _, id := range ids {
		if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: grid.NodeKeys + id.String(), Value: value}}}); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); n.KnownUp() < 1+len(ids); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the nodes of the realm are not heard of")
		}
	}
}

// TestCancelTellsAll: an owner that cancels a job tells whoever it gave leases, again until it is heard, and whom those
// gave some.
func TestCancelTellsAll(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	c := w.Config()
	c.Scheduler.(*fake.Scheduler).Give = true
	prepared := make(chan struct{}, 1)
	c.Scheduler.(*fake.Scheduler).Seen = func(ev grid.Event) {
		if _, ok := ev.(grid.Prepared); ok {
			prepared <- struct{}{}
		}
	}
	n := open(t, c)
	third := listen(&hub, "d", 0)
	second := listen(&hub, "c", 0, third.net.Self(), nodeID("b"), w.ID)
	first := listen(&hub, "b", 2, second.net.Self())
	// They are told, again and again, as long as they are known to be up.
	enter(t, w, n, first.net.Self(), second.net.Self(), third.net.Self())
	id := submit(t, n, request(w, 3))
	<-prepared
	data, _ := grid.Marshal(grid.StealMsg{Slots: 1})
	data, err := first.net.Call(within(t), w.ID, grid.ProtoSteal, data)
	if err != nil {
		t.Fatal(err)
	}
	var reply grid.StealReply
	if err := grid.Unmarshal(data, &reply); err != nil || len(reply.Leases) != 3 {
		t.Fatalf("stole %+v, %v", reply, err)
	}
	if err := n.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*listener{first, second, third} {
		l.wait(t, id)
	}
}

// TestDropTellsWhere: who is told that a job is over says whom it gave leases on it.
func TestDropTellsWhere(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	c := w.Config()
	s := c.Scheduler.(*fake.Scheduler)
	s.Give = true
	answered := make(chan struct{}, 1)
	s.Seen = func(ev grid.Event) {
		if _, ok := ev.(grid.StealAnswered); ok {
			answered <- struct{}{}
		}
	}
	owner, thief := hub.Join(nodeID("b")), hub.Join(nodeID("c"))
	enter(t, w, open(t, c), owner.Self(), thief.Self())
	owner.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
		return grid.Marshal(grid.StealReply{Leases: []grid.Lease{{Job: "jx", Owner: owner.Self(), Epoch: 1, Spec: link("s"), Span: grid.Span{Hi: 4}}}})
	})
	say := func(from *fake.Network, p grid.Protocol, m, reply any) {
		t.Helper()
		data, err := grid.Marshal(m)
		if err == nil {
			data, err = from.Call(within(t), w.ID, p, data)
		}
		if err == nil {
			err = grid.Unmarshal(data, reply)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	say(owner, grid.ProtoWake, grid.WakeMsg{}, &struct{}{})
	<-answered
	var stolen grid.StealReply
	say(thief, grid.ProtoSteal, grid.StealMsg{Slots: 1}, &stolen)
	if len(stolen.Leases) != 1 {
		t.Fatalf("stole %+v", stolen)
	}
	var told grid.DropReply
	say(owner, grid.ProtoDrop, grid.DropMsg{Job: "jx", Epoch: 1}, &told)
	if !slices.Equal(told.Gave, []peer.ID{thief.Self()}) {
		t.Errorf("the owner is told of %v, want %v", told.Gave, thief.Self())
	}
	told = grid.DropReply{}
	say(thief, grid.ProtoDrop, grid.DropMsg{Job: "jx", Epoch: 1}, &told)
	if len(told.Gave) != 0 {
		t.Errorf("somebody who does not own the job is told of %v", told.Gave)
	}
}

// TestCancelEndsThieves: what runs on other nodes of a job ends when the job is cancelled though its owner is gone, and
// cannot tell them.
func TestCancelEndsThieves(t *testing.T) {
	r := newRemoteRealm(t)
	for _, name := range []string{"a", "b", "c"} {
		r.join(name, func(c *grid.NodeConfig) { c.Scheduler.(*fake.Scheduler).Share = true })
	}
	r.share()
	a, c := r.all[0], r.all[2]
	var running atomic.Int32 // on nodes other than the owner
	news := make(chan struct{}, 64)
	for _, m := range r.all {
		m.w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
			if m != a {
				running.Add(1)
				news <- struct{}{}
				defer func() { running.Add(-1); news <- struct{}{} }()
			}
			<-ctx.Done()
			return grid.Outcome{}, ctx.Err()
		}
	}
	await := func(what string, ok func(int32) bool) {
		t.Helper()
		for ctx := within(t); !ok(running.Load()); {
			select {
			case <-news:
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: %d tasks run", what, running.Load())
			}
		}
	}
	id := submit(t, a.Node, request(a.w, 40))
	await("stolen", func(n int32) bool { return n >= 2 })
	r.kill(a)
	if err := c.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	await("cancelled", func(n int32) bool { return n == 0 })
	if st, err := c.Job(within(t), id); err != nil || st.State != grid.Cancelled {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestLeaseOfEndedJob: a lease that was on its way when its job ended is of no use when it comes.
func TestLeaseOfEndedJob(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	c := w.Config()
	events := make(chan grid.Event, 64)
	c.Scheduler.(*fake.Scheduler).Seen = func(ev grid.Event) { events <- ev }
	victim := hub.Join(nodeID("b"))
	lease := grid.Lease{Job: "jended", Owner: nodeID("c"), Epoch: 1, Spec: w.Module, Span: grid.Span{Hi: 5}}
	spawned := lease
	spawned.Job += ".x-1"
	victim.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
		return grid.Marshal(grid.StealReply{Leases: []grid.Lease{lease, spawned}})
	})
	n := open(t, c)
	enter(t, w, n, victim.Self())
	n.Over(lease.Job)
	wake, err := grid.Marshal(grid.WakeMsg{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Call(within(t), w.ID, grid.ProtoWake, wake); err != nil {
		t.Fatal(err)
	}
	var dropped []grid.JobID
	came := false
	for len(dropped) < 2 {
		select {
		case ev := <-events:
			switch ev := ev.(type) {
			case grid.StealAnswered:
				came = true
			case grid.Dropped:
				if came && ev.From == lease.Owner {
					dropped = append(dropped, ev.Job)
				}
			}
		case <-within(t).Done():
			t.Fatalf("of leases of a job that has ended, %v were dropped", dropped)
		}
	}
}

// dials counts the calls of a node to others.
type dials struct {
	grid.Network
	mu sync.Mutex
	to map[peer.ID]int
}

func (d *dials) Call(ctx context.Context, to peer.ID, p grid.Protocol, data []byte) ([]byte, error) {
	d.mu.Lock()
	if d.to == nil {
		d.to = make(map[peer.ID]int)
	}
	d.to[to]++
	d.mu.Unlock()
	return d.Network.Call(ctx, to, p, data)
}

// TestDropTellsNoStrangers: who is told that a job is over cannot have its owner call peers that are made up.
func TestDropTellsNoStrangers(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	d := &dials{Network: w.Net}
	c := w.Config()
	c.Network = d
	c.Scheduler.(*fake.Scheduler).Give = true
	prepared := make(chan struct{}, 1)
	c.Scheduler.(*fake.Scheduler).Seen = func(ev grid.Event) {
		if _, ok := ev.(grid.Prepared); ok {
			prepared <- struct{}{}
		}
	}
	n := open(t, c)
	real := listen(&hub, "real", 0)
	liar := listen(&hub, "liar", 0, nodeID("no one"), real.net.Self())
	enter(t, w, n, real.net.Self())
	id := submit(t, n, request(w, 1))
	<-prepared
	data, _ := grid.Marshal(grid.StealMsg{Slots: 1})
	if _, err := liar.net.Call(within(t), w.ID, grid.ProtoSteal, data); err != nil {
		t.Fatal(err)
	}
	if err := n.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	liar.wait(t, id)
	real.wait(t, id)
	n.Close()
	if d.to[nodeID("no one")] > 0 {
		t.Error("a peer that is not there was called")
	}
}

// TestTellsAreBounded: a peer that claims what is not here, and takes no answer, keeps no more than so many waiting.
func TestTellsAreBounded(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	n := open(t, w.Config())
	mute := hub.Join(nodeID("b"))
	release, last := make(chan struct{}), make(chan struct{})
	var heard atomic.Int32
	var once sync.Once
	mute.Serve(grid.ProtoDrop, func(_ context.Context, _ peer.ID, data []byte) ([]byte, error) {
		var m grid.DropMsg
		if err := grid.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		if m.Job == "last" {
			once.Do(func() { close(last) })
			return grid.Marshal(grid.DropReply{})
		}
		heard.Add(1)
		<-release
		return grid.Marshal(grid.DropReply{})
	})
	for range 10 * grid.MaxTells {
		n.Do(grid.TellDropped{To: mute.Self(), Job: "none", Epoch: 1})
	}
	close(release)
	for told := false; !told; { // one that comes when there is room again is told
		n.Do(grid.TellDropped{To: mute.Self(), Job: "last", Epoch: 1})
		select {
		case <-last:
			told = true
		case <-time.After(time.Millisecond):
		case <-within(t).Done():
			t.Fatal("nothing is told any more")
		}
	}
	n.Close()
	if k := heard.Load(); k > grid.MaxTells {
		t.Errorf("%d messages to one peer waited", k)
	}
}

// TestGivenForgets: however many tasks a job's tasks spawn, it is remembered who has some of the job.
func TestGivenForgets(t *testing.T) {
	var g grid.Given
	g.Note("b", grid.Lease{Job: "j", Owner: "a"})
	for i := range 2 * grid.MaxGivenJobs {
		g.Note("b", grid.Lease{Job: grid.JobID(fmt.Sprint("j.x-", i)), Owner: "a"})
	}
	if len(g.Of("j", "a")) != 1 || len(g.Of("j.x-0", "a")) != 0 {
		t.Errorf("of the job %v is remembered, of its first batch %v", g.Of("j", "a"), g.Of("j.x-0", "a"))
	}
	for i := range grid.MaxGivenJobs {
		g.Note("b", grid.Lease{Job: grid.JobID(fmt.Sprint("k", i)), Owner: "a"})
	}
	if len(g.Of("j", "a")) != 0 || len(g.Of("k0", "a")) != 1 {
		t.Error("the oldest job is not the one that is forgotten")
	}
}
