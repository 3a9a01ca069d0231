package grid_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// hooked is a ledger that tells before it does.
type hooked struct {
	grid.Ledger
	mu     sync.Mutex
	get    func(key string)
	rang   func(prefix string)
	commit func(t grid.Txn)
}

func (h *hooked) hook() (func(string), func(string), func(grid.Txn)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.get, h.rang, h.commit
}

func (h *hooked) Get(ctx context.Context, key string) (grid.Entry, error) {
	if f, _, _ := h.hook(); f != nil {
		f(key)
	}
	return h.Ledger.Get(ctx, key)
}

func (h *hooked) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if _, f, _ := h.hook(); f != nil {
		f(q.Prefix)
	}
	return h.Ledger.Range(ctx, q)
}

func (h *hooked) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx) // what has been proposed cannot be withdrawn
	if _, _, f := h.hook(); f != nil {
		f(t)
	}
	return h.Ledger.Commit(ctx, t)
}

// A job that is cancelled while its owner is about to hand it to its scheduler (start is still asking for quotas) must not run.
func TestCancelWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(new(fake.Hub), "a")
		var runs atomic.Int64
		w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
			runs.Add(1)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return grid.Outcome{}, ctx.Err()
			}
			return grid.Outcome{Run: 20 * time.Millisecond}, nil
		}
		l := &hooked{Ledger: w.Ledger}
		c := w.Config()
		c.Ledger = l
		n, err := grid.OpenNode(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if _, err := n.SetQuota(context.Background(), grid.Allowance{Subject: grid.EveryUser, Per: grid.PerDay, Tasks: 1000}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second)
		starting, ending := make(chan struct{}), make(chan struct{})
		goOn, record := make(chan struct{}), make(chan struct{})
		var once1, once2 sync.Once
		accepted := atomic.Bool{}
		l.mu.Lock()
		l.rang = func(prefix string) {
			if prefix == grid.UsageKeys && accepted.Load() {
				once1.Do(func() { close(starting); <-goOn })
			}
		}
		l.commit = func(t grid.Txn) {
			for _, e := range t.Put {
				if strings.HasPrefix(e.Key, grid.OpenKeys) {
					time.Sleep(3 * time.Second) // a slow ledger; what was read of usage is old by then
					accepted.Store(true)
				}
			}
			if slices.ContainsFunc(t.Delete, func(k string) bool { return strings.HasPrefix(k, grid.OpenKeys) }) {
				once2.Do(func() { close(ending); <-record })
			}
		}
		l.mu.Unlock()
		time.Sleep(0)
		var id grid.JobID
		submitted := make(chan error, 1)
		go func() {
			i, err := n.Submit(context.Background(), request(w, 4))
			id = i
			submitted <- err
		}()
		select {
		case <-starting:
		case err := <-submitted:
			t.Fatal("start did not read usage", err)
		}
		jobs, err := n.Jobs(context.Background())
		if err != nil || len(jobs) != 1 {
			t.Fatal(jobs, err)
		}
		cancelled := make(chan error, 1)
		go func() { cancelled <- n.Cancel(context.Background(), jobs[0].ID) }()
		<-ending
		close(goOn)
		if err := <-submitted; err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // the commit takes that long
		close(record)
		if err := <-cancelled; err != nil {
			t.Fatal(err)
		}
		st, _ := n.Job(context.Background(), id)
		t.Logf("state %s; %d runs before the cancel was recorded", st.State, runs.Load())
		time.Sleep(2 * time.Second)
		before := runs.Load()
		time.Sleep(60 * time.Second)
		if after := runs.Load(); after != before {
			t.Errorf("a minute later the cancelled job still runs: %d runs more; load %+v", after-before, n.Load())
		}
		if before > 0 {
			t.Errorf("%d runs of a cancelled job; load %+v", before, n.Load())
		}
	})
}

// hook has a member's process go through a ledger with hooks.
func (r *realm) hook(m *member) *hooked {
	r.kill(m)
	time.Sleep(2 * grace)
	m.net, m.seat = r.world.Join(m.w.ID), fake.NewSeat(r.ledger)
	m.w.Blocks.SetDown(false)
	h := &hooked{Ledger: m.seat}
	c := m.w.Config()
	s := fake.NewScheduler(2)
	s.Share = true
	c.Network, c.Ledger, c.Scheduler = m.net, h, s
	n, err := grid.OpenNode(context.Background(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	m.n = n
	time.Sleep(50 * time.Millisecond)
	return h
}

// A job that is cancelled just after a new owner has recorded itself, and before it drives the job, must not run there.
func TestCancelDuringTakeOver(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		var running atomic.Int64
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				running.Add(1)
				defer running.Add(-1)
				select {
				case <-time.After(10 * time.Hour):
				case <-ctx.Done():
				}
				return grid.Outcome{}, ctx.Err()
			}
		}
		a, b, c := r.all[0], r.all[1], r.all[2]
		var once sync.Once
		cancelled := make(chan error, 1)
		for _, m := range []*member{b, c} {
			other := map[*member]*member{b: c, c: b}[m]
			h := r.hook(m)
			h.mu.Lock()
			h.get = func(key string) {
				if id, ok := strings.CutPrefix(key, "usage/job/"); ok {
					once.Do(func() {
						cancelled <- other.n.Cancel(context.Background(), grid.JobID(id))
						time.Sleep(50 * time.Millisecond) // the read takes a while
					})
				}
			}
			h.mu.Unlock()
		}
		id := r.submit(a, squares(a, 2))
		time.Sleep(100 * time.Millisecond)
		r.kill(a)
		rec := r.wait(id, "it does not end", func(rec grid.Record) bool { return rec.State.Final() })
		if err := <-cancelled; err != nil || rec.State != grid.Cancelled {
			t.Fatal(err, rec)
		}
		for _, d := range []time.Duration{2 * time.Second, time.Minute, time.Hour} {
			time.Sleep(d)
			if n := running.Load(); n > 0 {
				t.Errorf("%v after its cancellation %d tasks of the job run; %d and %d jobs", d, n, b.n.JobsRunning(), c.n.JobsRunning())
			}
		}
	})
}

// The kit of a job is its own: another job of the same spec that ends must not take it back.
func TestSharedKit(t *testing.T) {
	bubble(t, 4, func(r *realm) {
		a, far := r.all[0], r.all[3]
		ctx := context.Background()
		here, there := grid.NewBlock(0x55, []byte("here")), grid.NewBlock(0x55, []byte("there"))
		if err := a.w.Blocks.Put(ctx, here); err != nil {
			t.Fatal(err)
		}
		if err := far.w.Blocks.Put(ctx, there); err != nil {
			t.Fatal(err)
		}
		for _, m := range r.all {
			m.w.Engine.Guest = blocked(make(chan struct{}, 1))
		}
		req := squares(a, 0)
		req.Stages[0].Feed = true
		req.Stages[0].Args = []string{"x"}
		req.Rows = [][]grid.Row{{
			{{Name: "0", CID: grid.Link{Cid: here.CID()}, Size: 4}},
			{{Name: "1", CID: grid.Link{Cid: there.CID()}, Size: 5}},
			{{Name: "2", CID: grid.Link{Cid: here.CID()}, Size: 4}},
		}}
		two := make(chan grid.JobID, 2)
		for range 2 {
			go func() {
				id, err := a.n.Submit(ctx, req)
				if err != nil {
					t.Error(err)
				}
				two <- id
			}()
		}
		first, second := <-two, <-two
		one, other := r.record(first), r.record(second)
		if !one.Kit.Defined() || !other.Kit.Defined() {
			t.Fatal("no kits")
		}
		if err := a.n.Cancel(ctx, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := a.w.Pins.Status(ctx, other.Kit.Cid, false); err != nil {
			t.Errorf("what the second job needs, which runs, is kept on no other node any more: %v; pins %v", err, a.w.Pins.Held())
		}
		_ = a.n.Cancel(ctx, second)
	})
}

// An owner that finds at the job's end that another has taken it over leaves no pins behind.
func TestStaleOwnersPins(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		a := r.all[0]
		id := r.submit(a, squares(a, 200, "n"))
		time.Sleep(300 * time.Millisecond)
		r.pause(a)
		time.Sleep(time.Minute)
		r.heal(a)
		rec := r.done(id)
		time.Sleep(time.Minute)
		pins, _ := a.w.Pins.Pins(context.Background())
		ref := r.ref("n")
		for _, p := range pins {
			if p.Root != rec.Spec && p.Root != rec.Result && p.Root != ref.CID {
				t.Errorf("the old owner has left the pin %q of %s", p.Name, p.Root)
			}
		}
	})
}

// slowCache has some look-ups wait.
type slowCache struct {
	grid.Cache
	wait func()
}

func (c *slowCache) Lookup(ctx context.Context, k grid.Key) (grid.Receipt, bool, error) {
	c.wait()
	return c.Cache.Lookup(ctx, k)
}

// A node that loses a job and takes it over again while it still lays out a stage for its first time as owner must bring the job to its end.
func TestLaidOutForAnEarlierEpoch(t *testing.T) {
	bubble(t, 2, func(r *realm) {
		a, b := r.all[0], r.all[1]
		for _, m := range r.all {
			m.w.Engine.Guest = fake.Text("x")
		}
		r.kill(a)
		time.Sleep(2 * grace)
		a.net, a.seat = r.world.Join(a.w.ID), fake.NewSeat(r.ledger)
		a.w.Blocks.SetDown(false)
		c := a.w.Config()
		s := fake.NewScheduler(2)
		s.Share = true
		var lookups atomic.Int64
		retaken, stuck := make(chan struct{}), make(chan struct{})
		s.Seen = func(ev grid.Event) {
			if o, ok := ev.(grid.JobOpened); ok && o.Lease.Epoch == 3 {
				close(retaken)
			}
		}
		c.Network, c.Ledger, c.Scheduler = a.net, a.seat, s
		c.Cache = &slowCache{a.w.Cache, func() {
			switch n := lookups.Add(1); {
			case n == 5: // of the second stage: a slow disk, or outputs that are fetched
				close(stuck)
				<-retaken
			case isClosed(retaken):
				time.Sleep(100 * time.Millisecond)
			}
		}}
		n, err := grid.OpenNode(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		a.n = n
		time.Sleep(50 * time.Millisecond)
		req := request(a.w, 3)
		req.Stages = append(req.Stages, grid.Stage{Module: a.w.Module, Tasks: 3, From: []grid.Source{{}}})
		id := r.submit(a, req)
		<-stuck
		// b has nothing to do with what comes until it is the owner
		b.w.Engine.Guest = blocked(make(chan struct{}, 1))
		r.pause(a)
		r.wait(id, "b does not take over", func(rec grid.Record) bool { return rec.Owner == b.w.ID })
		r.heal(a)
		time.Sleep(5 * time.Second) // a hears of it
		if a.n.JobsRunning() != 0 {
			t.Fatal("a has not let go")
		}
		r.kill(b)
		r.wait(id, "a does not take over again", func(rec grid.Record) bool { return rec.Owner == a.w.ID })
		time.Sleep(time.Hour)
		if rec := r.record(id); !rec.State.Final() {
			st, err := a.n.Job(context.Background(), id)
			t.Errorf("an hour later the job has not ended: %s in epoch %d, %d jobs run, load %+v; %+v %v", rec.State, rec.Epoch, a.n.JobsRunning(), a.n.Load(), st.Stages, err)
		}
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

type pinSet interface{ grid.Pins }

// slowPins makes copies of checkpoints slowly.
type slowPins struct {
	pinSet
	slow time.Duration
}

func (p *slowPins) Pin(ctx context.Context, pin grid.Pin) (grid.PinStatus, error) {
	if strings.HasPrefix(pin.Name, "checkpoint") {
		time.Sleep(p.slow)
	}
	return p.pinSet.Pin(ctx, pin)
}

// A checkpoint that is under way while the job's end is recorded must not be written over the end.
func TestCheckpointOverEnd(t *testing.T) {
	hits := 0
	const rounds = 40
	for range rounds {
		synctest.Test(t, func(t *testing.T) {
			r := newRealm(t, 2)
			defer r.close()
			a := r.all[0]
			r.kill(a)
			time.Sleep(2 * grace)
			a.net, a.seat = r.world.Join(a.w.ID), fake.NewSeat(r.ledger)
			a.w.Blocks.SetDown(false)
			h := &hooked{Ledger: a.seat}
			var once sync.Once
			h.commit = func(t grid.Txn) {
				if slices.ContainsFunc(t.Delete, func(k string) bool { return strings.HasPrefix(k, grid.OpenKeys) }) {
					once.Do(func() { time.Sleep(5 * time.Second) }) // the ledger elects a leader, say
				}
			}
			for _, m := range r.all {
				m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
					select {
					case <-time.After(200 * time.Millisecond):
					case <-ctx.Done():
					}
					return grid.Outcome{Run: 200 * time.Millisecond}, ctx.Err()
				}
			}
			c := a.w.Config()
			s := fake.NewScheduler(2)
			c.Network, c.Ledger, c.Scheduler = a.net, h, s
			c.Pins = &slowPins{a.w.Pins, 3 * time.Second}
			provider := sdk.NewTracerProvider(sdk.WithIDGenerator(traceIDs{}), sdk.WithSpanProcessor(tracetest.NewSpanRecorder()))
			c.Tracer = provider.Tracer("test")
			n, err := grid.OpenNode(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			a.n = n
			time.Sleep(50 * time.Millisecond)
			const tasks = 30 // three seconds
			id := r.submit(a, squares(a, tasks))
			rec := r.wait(id, "it does not end", func(rec grid.Record) bool { return rec.State.Final() })
			time.Sleep(20 * time.Second)
			now := r.record(id)
			if len(now.Stages) != len(rec.Stages) && len(rec.Stages) > 0 || now.Checkpoint.Defined() || len(now.Stages) == 0 {
				hits++
				if hits == 1 {
					e, _ := r.ledger.Get(context.Background(), "usage/job/"+string(id))
					t.Logf("the record that ended was written over: stages %v, checkpoint %v; at first %v; %d bytes of usage; used %+v", now.Stages, now.Checkpoint, rec.Stages, len(e.Value), now.Used)
					us, err := r.all[1].n.Usage(context.Background(), grid.ByUser, 0)
					t.Logf("usage says %+v %v", us, err)
				}
			}
		})
	}
	if hits > 0 {
		t.Errorf("in %d of %d rounds", hits, rounds)
	}
}

// After a takeover honest nodes may report what they ran with inputs that the new owner has made anew: they are not to be accused.
func TestHonestNotAccused(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		var mu sync.Mutex
		var accused []string
		var made atomic.Int64
		for _, m := range r.all {
			r.kill(m)
		}
		time.Sleep(2 * grace)
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				if g.Impure {
					fmt.Fprint(g.Stdout, made.Add(1))
					return grid.Outcome{}, nil
				}
				select {
				case <-time.After(3 * time.Second):
				case <-ctx.Done():
				}
				return grid.Outcome{}, ctx.Err()
			}
			m.net, m.seat = r.world.Join(m.w.ID), fake.NewSeat(r.ledger)
			m.w.Blocks.SetDown(false)
			c := m.w.Config()
			s := fake.NewScheduler(2)
			s.Share = true
			s.Seen = func(ev grid.Event) {
				if ev, ok := ev.(grid.Accused); ok {
					mu.Lock()
					accused = append(accused, fmt.Sprint(ev.Peer, " by ", m.w.ID, ": ", ev.Why))
					mu.Unlock()
				}
			}
			c.Network, c.Ledger, c.Scheduler = m.net, m.seat, s
			n, err := grid.OpenNode(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			m.n = n
		}
		time.Sleep(100 * time.Millisecond)
		a := r.all[0]
		req := request(a.w, 1)
		req.Stages[0].Impure = true
		req.Stages = append(req.Stages, grid.Stage{Module: a.w.Module, Tasks: 6, From: []grid.Source{{}}})
		id := r.submit(a, req)
		time.Sleep(500 * time.Millisecond)
		r.kill(a)
		r.done(id)
		mu.Lock()
		defer mu.Unlock()
		if len(accused) > 0 {
			t.Errorf("honest nodes were accused: %v", accused)
		}
	})
}

// What a checkpoint has of a job that is cancelled, or whose time is up, just when it is taken over stays readable.
func TestCancelAfterTakeOver(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		cancelled := make(chan error, 1)
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				select {
				case <-time.After(200 * time.Millisecond):
				case <-ctx.Done():
					return grid.Outcome{}, ctx.Err()
				}
				fmt.Fprint(g.Stdout, "x")
				return grid.Outcome{Run: 200 * time.Millisecond}, nil
			}
		}
		for _, m := range r.all {
			r.kill(m)
		}
		time.Sleep(2 * grace)
		for _, m := range r.all {
			m.net, m.seat = r.world.Join(m.w.ID), fake.NewSeat(r.ledger)
			m.w.Blocks.SetDown(false)
			c := m.w.Config()
			c.Network, c.Ledger, c.Scheduler = m.net, m.seat, seenSched{c.Scheduler, func(ev grid.Event) {
				if o, ok := ev.(grid.JobOpened); ok && o.Lease.Epoch > 1 {
					n := m.n
					go func() { cancelled <- n.Cancel(context.Background(), o.Lease.Job) }()
				}
			}}
			n, err := grid.OpenNode(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			m.n = n
		}
		time.Sleep(100 * time.Millisecond)
		a := r.all[0]
		req := squares(a, 2)
		req.Stages = append(req.Stages, grid.Stage{Module: a.w.Module, Tasks: 1000, From: []grid.Source{{}}})
		req.KeepGoing, req.NoCache = true, true
		id := r.submit(a, req)
		time.Sleep(5 * time.Second)
		before := r.record(id)
		saved := r.saved(a, before.Checkpoint)[1]
		r.kill(a)
		rec := r.wait(id, "it does not end", func(rec grid.Record) bool { return rec.State.Final() })
		n := 0
		if err := r.all[1].n.Tasks(context.Background(), id, false, func(e grid.TaskEnd) error { n += int(e.Stage); return nil }); err != nil {
			t.Fatal(err)
		}
		if n < saved || saved == 0 {
			t.Errorf("%s (%s): of %d tasks that a checkpoint had, %d are left; stages %+v", rec.State, rec.Error, saved, n, rec.Stages)
		}
	})
}

// seenSched tells of events before they are taken in.
type seenSched struct {
	grid.Scheduler
	f func(grid.Event)
}

func (s seenSched) Step(now time.Time, ev grid.Event) []grid.Effect {
	s.f(ev)
	return s.Scheduler.Step(now, ev)
}
