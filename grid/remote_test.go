package grid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// remoteNode is one node of a realm in memory.
type remoteNode struct {
	*grid.Node
	w    *fake.World
	net  *memnet.Node
	seat *fake.Seat
}

// remoteRealm is nodes that share a ledger, joined by an in-memory network.
type remoteRealm struct {
	t      testing.TB
	ledger *fake.Ledger
	world  *memnet.World
	hub    *fake.Hub
	all    []*remoteNode
}

func newRemoteRealm(t testing.TB, names ...string) *remoteRealm {
	r := &remoteRealm{t: t, ledger: new(fake.Ledger), world: memnet.New(memnet.Config{}), hub: new(fake.Hub)}
	for _, name := range names {
		r.join(name)
	}
	return r
}

func (r *remoteRealm) join(name string, edit ...func(*grid.NodeConfig)) *remoteNode {
	w := fake.NewWorld(r.hub, name)
	for _, m := range r.all {
		w.Fetcher.From = append(w.Fetcher.From, m.w.Blocks)
		m.w.Fetcher.From = append(m.w.Fetcher.From, w.Blocks)
	}
	m := &remoteNode{w: w, net: r.world.Join(w.ID), seat: fake.NewSeat(r.ledger)}
	c := w.Config()
	c.Network, c.Ledger = m.net, m.seat
	for _, f := range edit {
		f(&c)
	}
	m.Node = open(r.t, c)
	r.all = append(r.all, m)
	r.t.Cleanup(func() { m.Close(); m.net.Close() })
	return m
}

// share has every node keep copies of what jobs of the others need.
func (r *remoteRealm) share() {
	for _, m := range r.all {
		for _, o := range r.all {
			if o != m {
				m.w.Pins.Others = append(m.w.Pins.Others, o.w.Blocks)
			}
		}
	}
	ctx := within(r.t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, m := range r.all {
		for m.KnownUp() < len(r.all) { // each asks those that it has heard of
			select {
			case <-tick.C:
			case <-ctx.Done():
				r.t.Fatal("the nodes do not hear of one another")
			}
		}
	}
}

// close ends everything, as a bubble of simulated time wants it.
func (r *remoteRealm) close() {
	for _, m := range r.all {
		m.Close()
		m.net.Close()
	}
}

// kill ends a node as a crash does. Its session goes on until it is expired.
func (r *remoteRealm) kill(m *remoteNode) {
	m.seat.Cut()
	r.world.Kill(m.w.ID)
	m.w.Blocks.SetDown(true)
	m.Close()
}

// expire ends a node's session, so that others take its jobs over.
func (r *remoteRealm) expire(m *remoteNode) { r.ledger.Expire(grid.NodeKeys + m.w.ID.String()) }

// put writes a record as another node would.
func (r *remoteRealm) put(rec grid.Record) {
	r.t.Helper()
	data, err := grid.Marshal(rec)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.ledger.Commit(context.Background(), grid.Txn{Put: []grid.Entry{{Key: grid.JobKeys + string(rec.ID), Value: data}}}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *remoteRealm) record(id grid.JobID) (rec grid.Record) {
	r.t.Helper()
	e, err := r.ledger.Get(context.Background(), grid.JobKeys+string(id))
	if err == nil {
		err = grid.Unmarshal(e.Value, &rec)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// remoteGate is a guest whose tasks run on once they are let.
type remoteGate struct {
	mu   sync.Mutex
	open int // tasks below this number may end
	wake chan struct{}
}

func newRemoteGate() *remoteGate { return &remoteGate{wake: make(chan struct{})} }

func (g *remoteGate) let(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = n
	close(g.wake)
	g.wake = make(chan struct{})
}

func (g *remoteGate) guest(ctx context.Context, guest *grid.Guest) (grid.Outcome, error) {
	var i int
	for _, e := range guest.Env {
		fmt.Sscanf(e, "GRID_TASK=%d", &i)
	}
	for {
		g.mu.Lock()
		open, wake := g.open, g.wake
		g.mu.Unlock()
		if i < open {
			fmt.Fprint(guest.Stdout, "task ", i)
			return grid.Outcome{}, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return grid.Outcome{}, ctx.Err()
		}
	}
}

// pictures gathers what a watch tells.
type pictures struct {
	mu   sync.Mutex
	all  []grid.JobStatus
	wake chan struct{}
	err  error
	done bool
}

func watchJob(ctx context.Context, n *grid.Node, id grid.JobID) *pictures {
	p := &pictures{wake: make(chan struct{})}
	go func() {
		err := n.Watch(ctx, id, func(st grid.JobStatus) error {
			p.add(func() { p.all = append(p.all, st) })
			return nil
		})
		p.add(func() { p.err, p.done = err, true })
	}()
	return p
}

func (p *pictures) add(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.wake)
	p.wake = make(chan struct{})
}

// until waits for a picture after the first skip ones, and returns it and how many there are by then.
func (p *pictures) until(t testing.TB, skip int, what string, ok func(grid.JobStatus) bool) (grid.JobStatus, int) {
	t.Helper()
	ctx := within(t)
	for {
		p.mu.Lock()
		all, wake, done, err := p.all, p.wake, p.done, p.err
		p.mu.Unlock()
		for i := skip; i < len(all); i++ {
			if ok(all[i]) {
				return all[i], i + 1
			}
		}
		if done {
			t.Fatalf("the watch ended (%v) before %s: %+v", err, what, all)
		}
		select {
		case <-wake:
		case <-ctx.Done():
			t.Fatalf("no picture of %s: %+v", what, all)
		}
	}
}

func (p *pictures) end(t testing.TB) error {
	t.Helper()
	ctx := within(t)
	for {
		p.mu.Lock()
		wake, done, err := p.wake, p.done, p.err
		p.mu.Unlock()
		if done {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			t.Fatal("the watch does not end")
		}
	}
}

func endedTasks(n uint32) func(grid.JobStatus) bool {
	return func(st grid.JobStatus) bool {
		return st.State == grid.Running && len(st.Stages) > 0 && st.Stages[0].Done == n
	}
}

func TestSeenFromAnotherNode(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	r.share()
	a, b, c := r.all[0], r.all[1], r.all[2]
	g := newRemoteGate()
	a.w.Engine.Guest, c.w.Engine.Guest = g.guest, g.guest
	g.let(3)
	id := submit(t, a.Node, request(a.w, 5))
	id2 := submit(t, c.Node, request(c.w, 7))
	p := watchJob(t.Context(), b.Node, id)
	p.until(t, 0, "3 ended tasks", endedTasks(3))
	p2 := watchJob(t.Context(), b.Node, id2)
	p2.until(t, 0, "3 ended tasks", endedTasks(3))

	jobs, err := b.Jobs(within(t))
	if err != nil || len(jobs) != 2 {
		t.Fatalf("jobs %+v, %v", jobs, err)
	}
	for _, st := range jobs {
		if st.State != grid.Running || st.Name != "test" || st.Stages[0].Done != 3 || st.Epoch != 1 || st.Note != "" {
			t.Errorf("from the owner: %+v", st)
		}
	}
	st, err := b.Job(within(t), id[:10])
	if err != nil || st.Owner != a.w.ID.String() || st.Stages[0].Done != 3 || st.Stages[0].Tasks != 5 {
		t.Errorf("by its beginning: %+v, %v", st, err)
	}
	var now []string
	if err := b.Tasks(within(t), id, false, func(e grid.TaskEnd) error {
		now = append(now, string(e.Stdout.Data))
		return nil
	}); err != nil || len(now) != 3 {
		t.Errorf("tasks so far: %q, %v", now, err)
	}
	g.let(100)
	if err := p.end(t); err != nil {
		t.Error(err)
	}
	if last := p.all[len(p.all)-1]; last.State != grid.Done || last.Stages[0].Done != 5 || last.Name != "test" {
		t.Errorf("at the end: %+v", last)
	}
	if got := tasks(t, b.Node, id); len(got) != 5 || string(got[4].Stdout.Data) != "task 4" {
		t.Errorf("stored tasks: %+v", got)
	}
}

// TestFollowTasks: each task is given once, whoever owns the job meanwhile.
func TestFollowTasks(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	for _, m := range r.all {
		m.w.Engine.Guest = g.guest
	}
	r.share()
	const many = 2000
	g.let(many / 2)
	id := submit(t, a.Node, request(a.w, many))
	seen := make(map[uint32]int)
	half, all := make(chan struct{}), make(chan error, 1)
	go func() {
		all <- b.Tasks(t.Context(), id, true, func(e grid.TaskEnd) error {
			if seen[e.Index]++; len(seen) == many/2 {
				close(half)
			}
			return nil
		})
	}()
	<-half
	// The owner dies. Another node takes over, with what is known of earlier runs.
	r.kill(a)
	g.let(many)
	r.expire(a)
	select {
	case err := <-all:
		if err != nil {
			t.Fatal(err)
		}
	case <-within(t).Done():
		t.Fatal("the tasks do not come to an end")
	}
	if len(seen) != many {
		t.Errorf("%d tasks were given, want %d", len(seen), many)
	}
	for i, n := range seen {
		if n != 1 {
			t.Errorf("task %d was given %d times", i, n)
		}
	}
}

func TestWatchSurvivesOwner(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	for _, m := range r.all {
		m.w.Engine.Guest = g.guest
	}
	r.share()
	g.let(2)
	id := submit(t, a.Node, request(a.w, 4))
	type seen struct {
		*pictures
		n int
	}
	var all []*seen
	for _, m := range r.all[1:] { // one of them is going to be the owner
		p := &seen{pictures: watchJob(t.Context(), m.Node, id)}
		_, p.n = p.until(t, 0, "2 ended tasks", endedTasks(2))
		all = append(all, p)
	}
	r.kill(a)
	for _, p := range all {
		var st grid.JobStatus
		st, p.n = p.until(t, p.n, "a dead owner", func(st grid.JobStatus) bool { return st.State == grid.Waiting })
		if !strings.Contains(st.Note, a.w.ID.String()) || !strings.Contains(st.Note, "another node takes over") {
			t.Errorf("note %q", st.Note)
		}
	}
	if now, err := b.Job(within(t), id); err != nil || now.State != grid.Waiting || !strings.Contains(now.Note, "does not answer") || now.Name != "test" {
		t.Errorf("the job meanwhile: %+v, %v", now, err)
	}
	wantCode(t, b.Tasks(within(t), id, false, nil), grid.Unavailable, a.w.ID.String())
	r.expire(a)
	for _, p := range all {
		st, _ := p.until(t, p.n, "a new owner", endedTasks(2))
		if st.Owner == a.w.ID.String() || st.Epoch != 2 {
			t.Errorf("after the take-over: %+v", st)
		}
	}
	g.let(4)
	for _, p := range all {
		if err := p.end(t); err != nil || p.all[len(p.all)-1].State != grid.Done {
			t.Errorf("the end: %v, %+v", err, p.all)
		}
	}
}

// TestWatchOfLostJob: an owner that nobody reaches watches its job until it learns that others have ended it.
func TestWatchOfLostJob(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest
	g.let(1)
	id := submit(t, a.Node, request(a.w, 3))
	p := watchJob(t.Context(), a.Node, id)
	p.until(t, 0, "1 ended task", endedTasks(1))
	follow := make(chan error, 1)
	go func() { follow <- a.Tasks(t.Context(), id, true, func(grid.TaskEnd) error { return nil }) }()
	r.world.Cut(a.w.ID, b.w.ID)
	if err := b.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	if err := p.end(t); err != nil || p.all[len(p.all)-1].State != grid.Cancelled {
		t.Errorf("%v, %+v", err, p.all)
	}
	select {
	case err := <-follow:
		if err != nil {
			t.Error(err)
		}
	case <-within(t).Done():
		t.Error("the tasks do not come to an end")
	}
	wantCode(t, a.Cancel(within(t), id), grid.Conflict, "it is cancelled")
}

func TestWatchWaitsForLedger(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest
	id := submit(t, a.Node, request(a.w, 1))
	p := watchJob(t.Context(), b.Node, id)
	_, n := p.until(t, 0, "the beginning", endedTasks(0))
	b.seat.Cut()
	wantCode(t, b.Watch(within(t), id, nil), grid.Unavailable, "no majority")
	r.kill(a)
	st, _ := p.until(t, n, "a ledger that is down", func(st grid.JobStatus) bool { return strings.Contains(st.Note, "ledger") })
	if st.ID != id || st.State != grid.Waiting || !strings.Contains(st.Note, "no majority") {
		t.Errorf("%+v", st)
	}
	b.seat.Heal()
	rec := r.record(id)
	rec.State, rec.Ended = grid.Failed, time.Now()
	r.put(rec)
	if err := p.end(t); err != nil || p.all[len(p.all)-1].State != grid.Failed {
		t.Errorf("the end: %v, %+v", err, p.all)
	}
}

func TestWatchEnds(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	a.w.Engine.Guest = newRemoteGate().guest
	id := submit(t, a.Node, request(a.w, 1))
	if err := b.Watch(within(t), id, func(grid.JobStatus) error { return io.EOF }); err != io.EOF {
		t.Errorf("f's error: %v", err)
	}
	if err := b.Tasks(within(t), id, false, nil); err != nil {
		t.Errorf("tasks of a job without any: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	p := watchJob(ctx, b.Node, id)
	p.until(t, 0, "the beginning", endedTasks(0))
	gone := errors.New("gone")
	cancel(gone)
	if err := p.end(t); err != gone {
		t.Errorf("ctx's error: %v", err)
	}
	p = watchJob(t.Context(), b.Node, id)
	p.until(t, 0, "the beginning", endedTasks(0))
	// Its record is taken away.
	r.kill(a)
	if _, err := r.ledger.Commit(t.Context(), grid.Txn{Delete: []string{grid.JobKeys + string(id)}}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, p.end(t), grid.NotFound, "removed")
	// The node closes.
	id = submit(t, b.Node, request(b.w, 1))
	end(t, b.Node, id)
	c := r.join("c")
	b.w.Engine.Guest = newRemoteGate().guest
	rq := request(b.w, 1)
	rq.NoCache = true
	id = submit(t, b.Node, rq)
	p = watchJob(t.Context(), c.Node, id)
	p.until(t, 0, "the beginning", endedTasks(0))
	c.Close()
	wantCode(t, p.end(t), grid.Unavailable, "closing")
}

// TestSilentOwner: an owner that is there and says nothing is given up after a while, not waited for.
func TestSilentOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemoteRealm(t, "a", "b")
		a, b := r.all[0], r.all[1]
		deaf := fake.NewWorld(r.hub, "deaf")
		mute := r.world.Join(deaf.ID)
		defer mute.Close()
		stuck := func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
		mute.Serve(grid.ProtoJob, stuck)
		mute.Serve(grid.ProtoCancel, stuck)
		var streams atomic.Int32
		hang := func(ctx context.Context, _ peer.ID, s grid.Stream) { streams.Add(1); <-ctx.Done() }
		mute.Handle(grid.ProtoWatch, hang)
		mute.Handle(grid.ProtoTasks, hang)

		g := newRemoteGate()
		a.w.Engine.Guest = g.guest
		running := submit(t, a.Node, request(a.w, 1))
		rec := r.record(running)
		rec.ID, rec.Owner = "jaaaaaaaaaaaaaaaaaaaaaaaaa", deaf.ID
		r.put(rec)

		began := time.Now()
		jobs, err := b.Jobs(t.Context())
		if err != nil || len(jobs) != 2 {
			t.Fatalf("%+v, %v", jobs, err)
		}
		for _, st := range jobs {
			if st.ID == running && st.State != grid.Running || st.ID == rec.ID && (st.State != grid.Waiting || st.Note == "") {
				t.Errorf("%+v", st)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("listing took %v of virtual time", took)
		}
		p := watchJob(t.Context(), b.Node, rec.ID)
		p.until(t, 0, "a silent owner", func(st grid.JobStatus) bool { return st.State == grid.Waiting })
		if streams.Load() == 0 {
			t.Error("the owner was not even asked")
		}
		// Cancelling does not depend on it.
		if err := b.Cancel(t.Context(), rec.ID); err != nil {
			t.Error(err)
		}
		if now := r.record(rec.ID); now.State != grid.Cancelled || !strings.Contains(now.Error, deaf.ID.String()) {
			t.Errorf("%+v", now)
		}
		if err := p.end(t); err != nil {
			t.Error(err)
		}
		wantCode(t, b.Cancel(t.Context(), rec.ID), grid.Conflict, "cancelled")
		g.let(1)
		end(t, b.Node, running)
		r.close()
	})
}

func TestCancelFromAnotherNode(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest
	g.let(2)
	id := submit(t, a.Node, request(a.w, 4))
	p := watchJob(t.Context(), b.Node, id)
	p.until(t, 0, "2 ended tasks", endedTasks(2))
	if err := b.Cancel(within(t), id[:12]); err != nil {
		t.Fatal(err)
	}
	rec := r.record(id)
	if rec.State != grid.Cancelled || !rec.Result.Defined() || rec.Stages[0].Done != 2 {
		t.Errorf("%+v", rec)
	}
	if got := tasks(t, b.Node, id); len(got) != 2 {
		t.Errorf("%d tasks can be read, want 2", len(got))
	}
	for _, m := range r.all {
		wantCode(t, m.Cancel(within(t), id), grid.Conflict, "it is cancelled")
	}
	_, err := b.Job(within(t), "jbbbbbbb")
	wantCode(t, err, grid.NotFound, "jbbbbbbb")
	wantCode(t, b.Cancel(within(t), "jbbbbbbb"), grid.NotFound)
}

func TestCancelWithoutOwner(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	a, b := r.all[0], r.all[1]
	a.w.Engine.Guest = newRemoteGate().guest
	r.share()
	id := submit(t, a.Node, request(a.w, 1))
	r.kill(a)
	if err := b.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	if st := end(t, b.Node, id); st.State != grid.Cancelled || len(st.Stages) != 1 || st.Stages[0].Tasks != 1 || st.Stages[0].Done != 0 {
		t.Errorf("%+v", st)
	}
	if _, err := r.ledger.Get(t.Context(), grid.OpenKeys+string(id)); !errors.Is(err, grid.NotFound) {
		t.Errorf("it still counts as open: %v", err)
	}
	wantCode(t, b.Cancel(within(t), id), grid.Conflict, "it is cancelled")
}

func TestOthersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemoteRealm(t, "a", "b", "c")
		a, b, c := r.all[0], r.all[1], r.all[2]
		g := newRemoteGate()
		a.w.Engine.Guest = g.guest
		id := submit(t, a.Node, request(a.w, 1))
		// c is none of theirs, but for a member that is down there is room.
		if _, err := r.ledger.Commit(t.Context(), grid.Txn{Delete: []string{grid.NodeKeys + c.w.ID.String(), grid.NodeKeys + b.w.ID.String()},
			Put: []grid.Entry{{Key: grid.MemberKeys + b.w.ID.String(), Value: []byte{1}}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // until all have heard of it
		ask, _ := grid.Marshal(grid.JobMsg{Jobs: []grid.JobID{id}})
		if _, err := b.net.Call(t.Context(), a.w.ID, grid.ProtoJob, ask); err != nil {
			t.Errorf("a member: %v", err)
		}
		_, err := c.net.Call(t.Context(), a.w.ID, grid.ProtoJob, ask)
		wantCode(t, err, grid.Denied, c.w.ID.String())
		cancel, _ := grid.Marshal(grid.CancelMsg{Job: id, Epoch: 1})
		_, err = c.net.Call(t.Context(), a.w.ID, grid.ProtoCancel, cancel)
		wantCode(t, err, grid.Denied)
		st, err := c.Job(t.Context(), id)
		if err != nil || st.State != grid.Waiting || !strings.Contains(st.Note, "not of this realm") {
			t.Errorf("%+v, %v", st, err)
		}
		wantCode(t, c.Tasks(t.Context(), id, false, nil), grid.Unavailable) // the reason may be lost with the stream
		wantCode(t, c.Cancel(t.Context(), id), grid.Denied)
		many, _ := grid.Marshal(grid.JobMsg{Jobs: make([]grid.JobID, 5000)})
		_, err = b.net.Call(t.Context(), a.w.ID, grid.ProtoJob, many)
		wantCode(t, err, grid.Limit, "5000")
		r.close()
	})
}

// TestHostileOwner: whatever an owner sends, the asker ends with an error or goes on, and keeps little.
func TestHostileOwner(t *testing.T) {
	big, _ := grid.AppendFrame(nil, grid.FollowFrame{Message: strings.Repeat("x", 2<<20)})
	deep, _ := grid.AppendFrame(nil, grid.FollowFrame{Epoch: 9, Tasks: []grid.TaskItem{{Stage: 1 << 30, Done: mustDo(grid.Marshal(grid.Completion{}))}}})
	wide, _ := grid.AppendFrame(nil, grid.FollowFrame{Epoch: 9, Tasks: []grid.TaskItem{{Done: mustDo(grid.Marshal(grid.Completion{Index: 1 << 30}))}}})
	for name, data := range map[string][]byte{
		"nothing": nil, "noise": bytes.Repeat([]byte{0xff}, 100), "too long": big, "short": {100, 1, 2}, "no such stage": deep, "no such task": wide,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemoteRealm(t, "b")
			b := r.all[0]
			bad := fake.NewWorld(r.hub, "bad")
			net := r.world.Join(bad.ID)
			defer net.Close()
			serve := func(_ context.Context, _ peer.ID, s grid.Stream) { s.Write(data) }
			net.Handle(grid.ProtoWatch, serve)
			net.Handle(grid.ProtoTasks, serve)
			net.Serve(grid.ProtoJob, func(context.Context, peer.ID, []byte) ([]byte, error) { return data, nil })
			rec := grid.Record{ID: "jaaaaaaaaaaaaaaaaaaaaaaaaa", Spec: b.w.Module, Owner: bad.ID, Epoch: 1, State: grid.Running}
			r.put(rec)
			if st, err := b.Job(within(t), rec.ID); err != nil || st.State != grid.Waiting {
				t.Errorf("%+v, %v", st, err)
			}
			if err := b.Tasks(within(t), rec.ID, false, func(grid.TaskEnd) error { return nil }); err == nil {
				t.Error("no error")
			}
			p := watchJob(t.Context(), b.Node, rec.ID)
			p.until(t, 0, "an owner that tells nothing", func(st grid.JobStatus) bool { return st.State == grid.Waiting })
			rec.State = grid.Cancelled
			r.put(rec)
			if err := p.end(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func mustDo[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestHostileAsker: streams that say nothing sensible, and too many of them, cost the owner little.
func TestHostileAsker(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	a.w.Engine.Guest = newRemoteGate().guest
	id := submit(t, a.Node, request(a.w, 1))
	open := func(data []byte) grid.Stream {
		s, err := b.net.Open(within(t), a.w.ID, grid.ProtoWatch)
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(wait))
		s.Write(data)
		return s
	}
	for _, data := range [][]byte{bytes.Repeat([]byte{0xff}, 100), {0xff, 0xff, 0x7f}, {3, 1, 2, 3}} {
		s := open(data)
		if all, err := io.ReadAll(s); err == nil && !bytes.Contains(all, []byte("end")) {
			t.Errorf("%x was answered with %x", data, all)
		}
		s.Reset()
	}
	good, err := grid.AppendFrame(nil, grid.FollowMsg{Job: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 80 {
		s := open(good)
		defer s.Reset()
		var fr grid.FollowFrame
		if err := grid.ReadFrame(s, &fr); err != nil {
			t.Fatal(err)
		}
		if fr.Code == grid.Busy {
			refused++
		} else if fr.Picture == nil {
			t.Errorf("%+v", fr)
		}
	}
	if refused != 16 {
		t.Errorf("%d streams were refused, want 16", refused)
	}
}

// TestOwnerGone: what a job came to is read from whoever has it, with its owner dead.
func TestResultsWithoutOwner(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	a, b, c := r.all[0], r.all[1], r.all[2]
	a.w.Engine.Guest = fake.Text(strings.Repeat("long ", 1000))
	rq := request(a.w, 3)
	st, _ := run(t, a.Node, rq)
	// b keeps a copy of the result, and c has nothing.
	if got := tasks(t, b.Node, st.ID); len(got) != 3 {
		t.Fatalf("%d tasks", len(got))
	}
	r.kill(a)
	c.w.Fetcher.From = []*fake.Blocks{b.w.Blocks}
	if got := tasks(t, c.Node, st.ID); len(got) != 3 || got[2].Stdout.Size != 5000 {
		t.Errorf("%+v", got)
	}
	var seen []grid.TaskEnd
	if err := c.Tasks(within(t), st.ID, true, func(e grid.TaskEnd) error { seen = append(seen, e); return nil }); err != nil || len(seen) != 3 {
		t.Errorf("%d tasks followed, %v", len(seen), err)
	}
	d := r.join("d")
	d.w.Fetcher.From = nil
	wantCode(t, d.Tasks(within(t), st.ID, false, nil), grid.Unavailable, string(st.ID))
}

// TestManyJobsInOneReply: a list of jobs too long for one reply is asked for in parts.
func TestPartialReply(t *testing.T) {
	r := newRemoteRealm(t, "b")
	b := r.all[0]
	slow := fake.NewWorld(r.hub, "slow")
	net := r.world.Join(slow.ID)
	defer net.Close()
	calls := 0
	net.Serve(grid.ProtoJob, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
		calls++
		var m grid.JobMsg
		if err := grid.Unmarshal(req, &m); err != nil {
			return nil, err
		}
		return grid.Marshal(grid.JobReply{Asked: 1, Jobs: []grid.JobPicture{{Job: m.Jobs[0], Epoch: 1, Name: "n"}}})
	})
	for i := range 5 {
		r.put(grid.Record{ID: grid.JobID(fmt.Sprintf("jaaaaaaaaaaaaaaaaaaaaaaaa%c", 'a'+i)), Spec: b.w.Module, Owner: slow.ID, Epoch: 1, State: grid.Running})
	}
	jobs, err := b.Jobs(within(t))
	if err != nil || len(jobs) != 5 || calls != 5 {
		t.Fatalf("%+v after %d calls, %v", jobs, calls, err)
	}
	for _, st := range jobs {
		if st.State != grid.Running || st.Name != "n" {
			t.Errorf("%+v", st)
		}
	}
}

// FuzzFollow: whatever comes from a stream is refused, or has one canonical form; and it takes no more memory than
// a frame may have.
func FuzzFollow(f *testing.F) {
	for _, v := range []any{
		grid.FollowMsg{Job: "jaaaaaaaaaaaaaaaaaaaaaaaaa", Epoch: 2, From: 7, Follow: true}, grid.FollowFrame{},
		grid.FollowFrame{Epoch: 1, Picture: &grid.JobPicture{Job: "j", Stages: []grid.StageStatus{{Name: "main", Nodes: map[string]uint32{"n": 1}}}}},
		grid.FollowFrame{Epoch: 1, Next: 1, Tasks: []grid.TaskItem{{Stage: 1, Done: []byte{0xa0}}}},
		grid.FollowFrame{End: true, Over: true, Code: grid.Busy, Message: "later"},
		grid.JobMsg{Jobs: []grid.JobID{"j"}}, grid.JobReply{Asked: 1, Jobs: []grid.JobPicture{{Job: "j"}}}, grid.CancelMsg{Job: "j", Epoch: 1},
	} {
		data, err := grid.AppendFrame(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var fr grid.FollowFrame
		if grid.ReadFrame(bytes.NewReader(data), &fr) == nil {
			again, err := grid.AppendFrame(nil, fr)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			var back grid.FollowFrame
			if err := grid.ReadFrame(bytes.NewReader(again), &back); err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
		var m grid.FollowMsg
		_ = grid.ReadFrame(bytes.NewReader(data), &m)
		decodes[grid.JobMsg](t, data)
		decodes[grid.JobReply](t, data)
		decodes[grid.CancelMsg](t, data)
	})
}

// asking remembers what was to be fetched from whom.
type asking struct {
	*fake.Fetcher
	mu    sync.Mutex
	wants []grid.Want
}

func (a *asking) Fetch(ctx context.Context, w grid.Want) error {
	a.mu.Lock()
	a.wants = append(a.wants, w)
	a.mu.Unlock()
	return a.Fetcher.Fetch(ctx, w)
}

// TestOutputsAreAskedOfTheLiving: what tasks have left is asked of those who keep the job's result, or made it;
// never of a node that is gone.
func TestOutputsAreAskedOfTheLiving(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	a, b := r.all[0], r.all[1]
	var fetcher *asking
	c := r.join("c", func(c *grid.NodeConfig) {
		fetcher = &asking{Fetcher: c.Fetcher.(*fake.Fetcher)}
		c.Fetcher = fetcher
	})
	a.w.Engine.Guest = fake.Text(strings.Repeat("long ", 1000))
	st, _ := run(t, a.Node, request(a.w, 1))
	if err := b.Ensure(within(t), []cid.Cid{st.Result.Cid}); err != nil {
		t.Fatal(err)
	}
	if err := b.net.Provide(within(t), st.Result.Cid); err != nil {
		t.Fatal(err)
	}
	r.kill(a)
	got := tasks(t, c.Node, st.ID)
	if err := c.Ensure(within(t), []cid.Cid{got[0].Stdout.CID.Cid}); err != nil {
		t.Fatal(err)
	}
	if len(fetcher.wants) < 3 {
		t.Fatalf("%d fetches", len(fetcher.wants))
	}
	for _, w := range fetcher.wants {
		if len(w.From) != 1 || w.From[0] != b.w.ID {
			t.Errorf("%v were asked for %v", w.From, w.Roots)
		}
	}
}

// BenchmarkTasksFromOwner reads what has ended of a job that runs on another node, 10,000 tasks.
func BenchmarkTasksFromOwner(b *testing.B) {
	r := newRemoteRealm(b, "a", "b")
	r.share()
	a, far := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest
	const many = 10_000
	g.let(many)
	id := submit(b, a.Node, request(a.w, many+1))
	p := watchJob(b.Context(), far.Node, id)
	p.until(b, 0, "all but one", endedTasks(many))
	for b.Loop() {
		n := 0
		if err := far.Tasks(b.Context(), id, false, func(grid.TaskEnd) error { n++; return nil }); err != nil || n != many {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(many*float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	g.let(many + 1)
	if err := p.end(b); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkJobs lists 10,000 jobs that have ended and 100 that run with another node.
func BenchmarkJobs(b *testing.B) {
	r := newRemoteRealm(b, "a", "b")
	r.share()
	a, far := r.all[0], r.all[1]
	a.w.Engine.Guest = newRemoteGate().guest
	for i := range 10_000 {
		rec := pastJob(i, "spec", "result")
		rec.Name, rec.Stages = "job", []grid.StageStatus{{Name: "main", Tasks: 10, Done: 10, Nodes: map[string]uint32{a.w.ID.String(): 10}}}
		r.put(rec)
	}
	for range 100 {
		submit(b, a.Node, request(a.w, 1))
	}
	for b.Loop() {
		if jobs, err := far.Jobs(b.Context()); err != nil || len(jobs) != 10_100 {
			b.Fatal(len(jobs), err)
		}
	}
}
