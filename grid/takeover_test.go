package grid_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// member is one node of a realm: what lasts of it, and the process that runs now, if any.
type member struct {
	w    *fake.World
	net  *memnet.Node
	seat *fake.Seat
	n    *grid.Node // nil: it is dead
}

// realm is nodes that share a ledger, over a network in memory. It lives in a bubble of simulated time.
type realm struct {
	t      testing.TB
	world  *memnet.World
	ledger *fake.Ledger
	all    []*member
	club   *club // nil: everybody may everything

	mu   sync.Mutex
	runs map[string]int // of each task's name, how often it was begun
}

// grace is what a ledger gives a node whose connection broke.
const grace = 500 * time.Millisecond

func newRealm(t testing.TB, nodes int, roles ...grid.MemberRole) *realm {
	r := &realm{t: t, world: memnet.New(memnet.Config{Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration {
		return time.Duration(r.IntN(2000)) * time.Microsecond
	}}), ledger: new(fake.Ledger), runs: map[string]int{}}
	hub := new(fake.Hub)
	for i := range nodes {
		m := &member{w: fake.NewWorld(hub, fmt.Sprint("node", i))}
		m.w.Ledger = r.ledger
		r.all = append(r.all, m)
		if i < len(roles) {
			r.club = r.club.with(m.w.ID, roles[i])
		}
	}
	for _, m := range r.all {
		for _, o := range r.all {
			if o != m {
				m.w.Fetcher.From = append(m.w.Fetcher.From, o.w.Blocks)
				m.w.Pins.Others = append(m.w.Pins.Others, o.w.Blocks)
			}
		}
		m.w.Engine.Guest = r.guest
		r.start(m)
	}
	time.Sleep(10 * time.Millisecond) // they have heard of one another
	return r
}

// guest takes some time and writes the square of its number.
func (r *realm) guest(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	name := g.Env[len(g.Env)-1]
	i, err := strconv.Atoi(strings.TrimPrefix(name, grid.EnvTask+"="))
	if err != nil {
		return grid.Outcome{}, err
	}
	r.mu.Lock()
	r.runs[name]++
	r.mu.Unlock()
	took := time.Duration(20+i*37%60) * time.Millisecond
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return grid.Outcome{}, ctx.Err()
	}
	if len(g.Args) > 1 && g.Args[1] == "fail" && i%10 == 3 {
		return grid.Outcome{Exit: 7, Run: took}, nil
	}
	fmt.Fprint(g.Stdout, i*i)
	if i%5 == 0 { // becomes a block
		fmt.Fprint(g.Stdout, " ", strings.Repeat("x", 2000))
	}
	return grid.Outcome{Run: took}, nil
}

func answer(i int) string {
	if i%5 == 0 {
		return fmt.Sprint(i*i, " ", strings.Repeat("x", 2000))
	}
	return fmt.Sprint(i * i)
}

// start runs a member's process.
func (r *realm) start(m *member) {
	r.t.Helper()
	m.net, m.seat = r.world.Join(m.w.ID), fake.NewSeat(r.ledger)
	m.w.Blocks.SetDown(false)
	c := m.w.Config()
	s := fake.NewScheduler(2)
	s.Share = true
	c.Network, c.Ledger, c.Scheduler = m.net, m.seat, s
	if r.club != nil {
		c.May, c.Ledger = r.club.may, ruled{m.seat, m.w.ID, r.club}
	}
	n, err := grid.OpenNode(context.Background(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	m.n = n
}

// kill ends a member as kill -9 does.
func (r *realm) kill(m *member) {
	if m.n == nil {
		return
	}
	m.seat.Cut()
	r.world.Kill(m.w.ID)
	m.w.Blocks.SetDown(true)
	m.n.Close()
	m.net.Close()
	m.n = nil
	time.AfterFunc(grace, func() { r.ledger.Expire("node/" + m.w.ID.String()) })
}

// pause cuts a member off from everybody, while it goes on; its session ends.
func (r *realm) pause(m *member) {
	m.seat.Cut()
	for _, o := range r.all {
		if o != m {
			r.world.Cut(m.w.ID, o.w.ID)
		}
	}
	m.w.Blocks.SetDown(true)
	time.Sleep(grace)
	r.ledger.Expire("node/" + m.w.ID.String())
}

func (r *realm) heal(m *member) {
	for _, o := range r.all {
		if o != m {
			r.world.Heal(m.w.ID, o.w.ID)
		}
	}
	m.w.Blocks.SetDown(false)
	m.seat.Heal()
}

// close ends everything.
func (r *realm) close() {
	for _, m := range r.all {
		if m.n != nil {
			m.n.Close()
		}
		m.net.Close()
	}
}

func (r *realm) record(id grid.JobID) (rec grid.Record) {
	r.t.Helper()
	e, err := r.ledger.Get(context.Background(), "job/"+string(id))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := grid.Unmarshal(e.Value, &rec); err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// wait waits until a job's record is as wanted.
func (r *realm) wait(id grid.JobID, what string, ok func(grid.Record) bool) grid.Record {
	r.t.Helper()
	for range 6000 {
		if rec := r.record(id); ok(rec) {
			return rec
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.t.Fatalf("%s: %+v", what, r.record(id))
	return grid.Record{}
}

func (r *realm) done(id grid.JobID) grid.Record {
	r.t.Helper()
	rec := r.wait(id, "the job does not end", func(rec grid.Record) bool { return rec.State.Final() })
	if rec.State != grid.Done {
		r.t.Fatalf("the job has ended badly: %+v", rec)
	}
	if _, err := r.ledger.Get(context.Background(), "open/"+string(id)); grid.CodeOf(err) != grid.NotFound {
		r.t.Errorf("a job that has ended counts as open: %v", err)
	}
	return rec
}

func (r *realm) ref(name string) (ref grid.Ref) {
	r.t.Helper()
	e, err := r.ledger.Get(context.Background(), "ref/"+name)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := grid.Unmarshal(e.Value, &ref); err != nil {
		r.t.Fatal(err)
	}
	return ref
}

// alive picks a member that runs.
func (r *realm) alive(pick int) *member {
	for i := range r.all {
		if m := r.all[(i+pick)%len(r.all)]; m.n != nil {
			return m
		}
	}
	r.t.Fatal("nobody is left")
	return nil
}

// exact checks a job's answers as a node sees them, and what it has published.
func (r *realm) exact(m *member, id grid.JobID, tasks int) {
	r.t.Helper()
	ctx := context.Background()
	seen := map[uint32]string{}
	err := m.n.Tasks(ctx, id, false, func(e grid.TaskEnd) error {
		out := string(e.Stdout.Data)
		if e.Stdout.CID.Defined() {
			if err := m.n.Ensure(ctx, []cid.Cid{e.Stdout.CID.Cid}); err != nil {
				return err
			}
			data, err := m.w.Blocks.Get(ctx, e.Stdout.CID.Cid)
			if err != nil {
				return err
			}
			out = string(data)
		}
		if _, twice := seen[e.Index]; twice || !e.OK() {
			r.t.Errorf("task %d: twice, or failed: %+v", e.Index, e)
		}
		seen[e.Index] = out
		return nil
	})
	if err != nil || len(seen) != tasks {
		r.t.Fatalf("%d of %d tasks, %v", len(seen), tasks, err)
	}
	for i := range tasks {
		if seen[uint32(i)] != answer(i) {
			r.t.Errorf("task %d says %.20q, want %.20q", i, seen[uint32(i)], answer(i))
		}
	}
}

func (r *realm) submit(m *member, req grid.Request) grid.JobID {
	r.t.Helper()
	id, err := m.n.Submit(context.Background(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// enroll makes a node that runs nothing one of the realm, which has then heard of it.
func (r *realm) enroll(id peer.ID) {
	r.t.Helper()
	value, err := grid.Marshal(grid.NodeInfo{})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.ledger.Commit(context.Background(), grid.Txn{Put: []grid.Entry{{Key: grid.NodeKeys + id.String(), Value: value}}}); err != nil {
		r.t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
}

// squares is a job of so many tasks that counts in a ref.
func squares(m *member, tasks uint32, publish ...string) grid.Request {
	req := request(m.w, tasks)
	req.Publish = publish
	return req
}

// pass lets simulated time pass.
func (r *realm) pass(d time.Duration) { time.Sleep(d) }

// bubble runs a test in simulated time.
func bubble(t *testing.T, nodes int, f func(r *realm)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRealm(t, nodes)
		defer r.close()
		f(r)
	})
}

// seeds says how many random courses of events to try.
func seeds() int {
	if n, err := strconv.Atoi(os.Getenv("GRID_TAKEOVER_SEEDS")); err == nil {
		return n
	}
	return 12
}

// TestKilledAtRandom: whoever dies, and whenever, up to two of five nodes: jobs that were accepted end with the exact
// answer, and count once.
func TestKilledAtRandom(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, 5, func(r *realm) {
				rnd := rand.New(rand.NewPCG(uint64(seed), 1))
				const tasks = 120
				var ids []grid.JobID
				for range 1 + rnd.IntN(3) {
					m := r.all[rnd.IntN(2)]
					ids = append(ids, r.submit(m, squares(m, tasks, "squares")))
				}
				for range 2 {
					time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
					victim := r.all[rnd.IntN(len(r.all))]
					if rec := r.record(ids[0]); rnd.IntN(2) == 0 {
						for _, m := range r.all { // the owner itself
							if m.w.ID == rec.Owner {
								victim = m
							}
						}
					}
					r.kill(victim)
				}
				for _, id := range ids {
					r.done(id)
				}
				time.Sleep(5 * time.Second)
				for _, id := range ids {
					r.exact(r.alive(rnd.IntN(5)), id, tasks)
				}
				if ref := r.ref("squares"); ref.Count != uint64(len(ids)) || !slices.Contains(ids, ref.Job) {
					t.Errorf("%d jobs count as %+v", len(ids), ref)
				}
			})
		})
	}
}

// TestSubmittersCopies: a job is accepted once what it needs is on three nodes, and what it comes to is on three when
// it has ended; so is what it publishes.
func TestSubmittersCopies(t *testing.T) {
	bubble(t, 4, func(r *realm) {
		m := r.all[0]
		input := grid.NewBlock(cid.Raw, []byte("input"))
		if err := m.w.Blocks.Put(context.Background(), input); err != nil {
			t.Fatal(err)
		}
		count := func(c cid.Cid) (n int) {
			for _, m := range r.all {
				if ok, _ := m.w.Blocks.Has(context.Background(), c); ok {
					n++
				}
			}
			return n
		}
		req := squares(m, 3, "latest")
		req.Stages[0].Mounts = []grid.Mount{{Path: "/data", CID: grid.Link{Cid: input.CID()}}}
		id := r.submit(m, req)
		rec := r.record(id)
		if n, of := count(rec.Spec.Cid), count(input.CID()); n != 3 || of != 3 || rec.Durable != 3 {
			t.Errorf("%d nodes have the spec, %d the input, the record says %d", n, of, rec.Durable)
		}
		rec = r.done(id)
		ref := r.ref("latest")
		if n, of := count(rec.Result.Cid), count(ref.CID.Cid); n < 3 || of < 3 || ref.Job != id {
			t.Errorf("%d nodes have the result, %d what is published", n, of)
		}
		req.Copies, req.NoCache = 1, true
		id = r.submit(m, req)
		if rec := r.record(id); rec.Durable != 1 && rec.Durable != 0 {
			t.Errorf("it was to be only here, and is on %d nodes", rec.Durable)
		}
		r.done(id)
	})
}

// TestInputsElsewhere: a job of which some inputs are not where it was submitted outlives its submitter all the same.
func TestInputsElsewhere(t *testing.T) {
	bubble(t, 4, func(r *realm) {
		a, far := r.all[0], r.all[3]
		ctx := context.Background()
		here, there := grid.NewBlock(cid.Raw, []byte("here")), grid.NewBlock(cid.Raw, []byte("there"))
		if err := a.w.Blocks.Put(ctx, here); err != nil {
			t.Fatal(err)
		}
		if err := far.w.Blocks.Put(ctx, there); err != nil {
			t.Fatal(err)
		}
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
				_, err := io.Copy(g.Stdout, g.Stdin)
				return grid.Outcome{}, err
			}
		}
		req := squares(a, 0)
		req.Stages[0].Feed = true
		var rows []grid.Row
		for i := range 60 {
			b := []grid.Block{here, there}[i%2]
			rows = append(rows, grid.Row{{Name: fmt.Sprint(i), CID: grid.Link{Cid: b.CID()}, Size: int64(len(b.Data()))}})
		}
		req.Rows = [][]grid.Row{rows}
		id := r.submit(a, req)
		rec := r.record(id)
		if rec.Durable != 3 || !rec.Kit.Defined() {
			t.Errorf("record %+v", rec)
		}
		time.Sleep(20 * time.Millisecond)
		r.kill(a)
		r.done(id)
		texts := map[string]int{}
		if err := r.all[1].n.Tasks(ctx, id, false, func(e grid.TaskEnd) error { texts[string(e.Stdout.Data)]++; return nil }); err != nil {
			t.Fatal(err)
		}
		if texts["here"] != 30 || texts["there"] != 30 {
			t.Errorf("outputs %v", texts)
		}
	})
}

// TestStaleOwner: an owner that was cut off while another took over and ended its job changes nothing, and forgets it.
func TestStaleOwner(t *testing.T) {
	for _, pause := range []time.Duration{100 * time.Millisecond, 3 * time.Second, time.Minute} {
		t.Run(pause.String(), func(t *testing.T) {
			bubble(t, 3, func(r *realm) {
				a := r.all[0]
				const tasks = 200
				id := r.submit(a, squares(a, tasks, "n"))
				time.Sleep(300 * time.Millisecond)
				r.pause(a)
				time.Sleep(pause) // the old owner may have finished by now, too, and tries to say so
				if rec := r.record(id); rec.Owner == a.w.ID {
					r.wait(id, "nobody takes over", func(rec grid.Record) bool { return rec.Owner != a.w.ID })
				}
				r.heal(a)
				rec := r.done(id)
				time.Sleep(20 * time.Second)
				if got := a.n.JobsRunning(); got != 0 {
					t.Errorf("the old owner still runs %d jobs", got)
				}
				if rec.Epoch != 2 || rec.Owner == a.w.ID {
					t.Errorf("record %+v", rec)
				}
				if now := r.record(id); !now.Ended.Equal(rec.Ended) || now.Owner != rec.Owner {
					t.Errorf("the end was changed: %+v, %+v", rec, now)
				}
				for _, m := range r.all {
					r.exact(m, id, tasks)
				}
				if ref := r.ref("n"); ref.Count != 1 {
					t.Errorf("it counts as %d", ref.Count)
				}
				if rec := r.done(r.submit(a, squares(a, tasks, "n"))); rec.Epoch != 1 { // a is a node like others again
					t.Errorf("record %+v", rec)
				}
			})
		})
	}
}

// TestLostAnswers: commits whose answers are lost are asked for again until they are known, and count once.
func TestLostAnswers(t *testing.T) {
	bubble(t, 1, func(r *realm) {
		a := r.all[0]
		id := r.submit(a, squares(a, 5, "n"))
		a.seat.LoseAnswers(4)
		if rec := r.done(id); rec.Epoch != 1 {
			t.Errorf("record %+v", rec)
		}
		time.Sleep(time.Minute)
		st, err := a.n.Job(context.Background(), id)
		if err != nil || st.State != grid.Done || a.n.JobsRunning() != 0 || r.ref("n").Count != 1 {
			t.Errorf("%+v, %v, counts %d", st, err, r.ref("n").Count)
		}
		// A submission that nobody answers for is not acknowledged; if it is in the ledger, it is run.
		a.seat.LoseAnswers(1)
		_, err = a.n.Submit(context.Background(), squares(a, 6, "m"))
		wantCode(t, err, grid.Deadline, "not known")
		time.Sleep(time.Minute)
		if ref := r.ref("m"); ref.Count != 1 {
			t.Errorf("it counts as %d", ref.Count)
		}
	})
}

// TestLedgerDown: without a ledger the job goes on, its end is told only once it is recorded.
func TestLedgerDown(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		a := r.all[0]
		id := r.submit(a, squares(a, 300, "n"))
		time.Sleep(500 * time.Millisecond)
		for _, m := range r.all {
			m.seat.Cut()
		}
		_, err := a.n.Submit(context.Background(), squares(a, 1))
		wantCode(t, err, grid.Unavailable)
		time.Sleep(20 * time.Second) // all tasks are done by then
		if n := a.n.JobsRunning(); n != 1 {
			t.Errorf("%d jobs run, although the end of one cannot have been recorded", n)
		}
		for _, m := range r.all {
			m.seat.Heal()
		}
		if rec := r.done(id); rec.Epoch != 1 || rec.Owner != a.w.ID {
			t.Errorf("record %+v", rec)
		}
		time.Sleep(5 * time.Second)
		r.exact(r.all[2], id, 300)
		if a.n.JobsRunning() != 0 || r.ref("n").Count != 1 {
			t.Errorf("%d jobs run, it counts as %d", a.n.JobsRunning(), r.ref("n").Count)
		}
	})
}

// TestAllRestart: jobs go on after all nodes were down at once, also when one of them stays away.
func TestAllRestart(t *testing.T) {
	for _, missing := range []int{0, 1} {
		t.Run(fmt.Sprint(missing, " missing"), func(t *testing.T) {
			bubble(t, 3, func(r *realm) {
				const tasks = 300
				var ids []grid.JobID
				for _, m := range r.all {
					ids = append(ids, r.submit(m, squares(m, tasks, "n")))
				}
				time.Sleep(4 * time.Second)
				for _, m := range r.all {
					r.kill(m)
				}
				time.Sleep(time.Second)
				for _, m := range r.all[missing:] {
					r.start(m)
				}
				for _, id := range ids {
					r.done(id)
				}
				time.Sleep(time.Second)
				for _, id := range ids {
					r.exact(r.alive(2), id, tasks)
				}
				if ref := r.ref("n"); ref.Count != 3 {
					t.Errorf("3 jobs count as %d", ref.Count)
				}
			})
		})
	}
}

// TestCheckpoint: what was saved is not run again although nobody remembers having run it, not even what failed or
// was impure; and a job that asks for fresh runs gets them once.
func TestCheckpoint(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		a := r.all[0]
		const tasks = 1000
		req := squares(a, tasks)
		req.KeepGoing, req.NoCache = true, true
		req.Stages[0].Args = []string{"fail"}
		req.Stages[0].Impure = true
		id := r.submit(a, req)
		rec := r.wait(id, "no checkpoint", func(rec grid.Record) bool { return rec.Checkpoint.Defined() })
		if age := time.Since(rec.Submitted); age < 1900*time.Millisecond {
			t.Errorf("a checkpoint after %v", age)
		}
		first := rec.Checkpoint
		rec = r.wait(id, "no other checkpoint", func(rec grid.Record) bool { return rec.Checkpoint != first })
		saved := 0
		for _, n := range r.saved(a, rec.Checkpoint) {
			saved += n
		}
		st, err := a.n.Job(context.Background(), id)
		if err != nil || saved == 0 || saved > int(st.Stages[0].Done+st.Stages[0].Failed) {
			t.Fatalf("%d tasks are saved, of %+v, %v", saved, st.Stages, err)
		}
		r.kill(a)
		for _, m := range r.all {
			m.w.Cache.Forget()
		}
		rec = r.wait(id, "no end", func(rec grid.Record) bool { return rec.State.Final() })
		if s := rec.Stages[0]; rec.State != grid.Failed || s.Done != tasks*9/10 || s.Failed != tasks/10 || rec.Checkpoint.Defined() {
			t.Errorf("record %+v", rec)
		}
		r.mu.Lock()
		again := -tasks
		for _, n := range r.runs {
			again += n
		}
		r.mu.Unlock()
		if again > tasks-saved {
			t.Errorf("%d tasks were run again, although %d of %d had been saved", again, saved, tasks)
		}
		time.Sleep(time.Second)
		for _, m := range r.all[1:] {
			for _, name := range m.w.Pins.Held() {
				if strings.Contains(name, "checkpoint") && m.w.ID == rec.Owner {
					t.Errorf("pin %q is still there", name)
				}
			}
		}
	})
}

// saved counts what a checkpoint has of each stage.
func (r *realm) saved(m *member, at grid.Link) map[uint32]int {
	r.t.Helper()
	ctx, n := context.Background(), map[uint32]int{}
	for at.Defined() {
		data, err := m.w.Blocks.Get(ctx, at.Cid)
		if err != nil {
			r.t.Fatal(err)
		}
		var c grid.Checkpoint
		if err := grid.Unmarshal(data, &c); err != nil {
			r.t.Fatal(err)
		}
		for _, p := range c.Parts {
			t, err := grid.OpenTable[grid.Completion](ctx, m.w.Blocks.Get, p.Table)
			if err != nil {
				r.t.Fatal(err)
			}
			n[p.Stage] += int(t.Len())
		}
		at = c.Before
	}
	return n
}

// TestRecall: what workers have run for an owner that died before it had saved anything is not run again.
func TestRecall(t *testing.T) {
	for _, impure := range []bool{false, true} {
		t.Run(fmt.Sprint("impure ", impure), func(t *testing.T) {
			bubble(t, 4, func(r *realm) {
				a := r.all[0]
				const tasks = 500
				req := squares(a, tasks)
				req.Stages[0].Impure = impure
				id := r.submit(a, req)
				time.Sleep(1500 * time.Millisecond)
				st, err := a.n.Job(context.Background(), id)
				if err != nil {
					t.Fatal(err)
				}
				own := int(st.Stages[0].Nodes[a.w.ID.String()])
				elsewhere := int(st.Stages[0].Done) - own
				r.kill(a)
				rec := r.done(id)
				again := 0
				r.mu.Lock()
				for _, n := range r.runs {
					if n > 1 {
						again++
					}
				}
				r.mu.Unlock()
				if own += 2; elsewhere < 20 || again > own || rec.Checkpoint.Defined() { // two were running
					t.Errorf("%d tasks were done by others, and %d were run again, of which the dead owner had run %d", elsewhere, again, own)
				}
				r.exact(r.alive(1), id, tasks)
			})
		})
	}
}

// firstAfterDeath kills the owner of a running job and waits until the next one has booked a task that it had run.
// What the old one had done is known to the others, who remember it.
func (r *realm) firstAfterDeath(id grid.JobID) time.Duration {
	r.t.Helper()
	owner := r.record(id).Owner
	for _, m := range r.all {
		if m.w.ID == owner {
			r.kill(m)
		}
	}
	died := time.Now()
	for time.Since(died) < 30*time.Second {
		for _, m := range r.all {
			if m.n == nil || m.n.JobsRunning() == 0 {
				continue
			}
			st, err := m.n.Job(context.Background(), id)
			if err == nil && st.Epoch == 2 && st.Stages[0].Done > st.Stages[0].Cached {
				return time.Since(died)
			}
		}
		time.Sleep(time.Millisecond)
	}
	r.t.Fatalf("no task was finished after the owner's death: %+v", r.record(id))
	return 0
}

// TestTakeOverIsQuick: in simulated time, half a second of which is the session's grace.
func TestTakeOverIsQuick(t *testing.T) {
	bubble(t, 5, func(r *realm) {
		a := r.all[0]
		id := r.submit(a, squares(a, 3000))
		time.Sleep(time.Second)
		if took := r.firstAfterDeath(id); took >= 2*time.Second {
			t.Errorf("the first task after the owner's death was finished after %v", took)
		} else {
			t.Logf("the first task after the owner's death was finished after %v", took)
		}
	})
}

// BenchmarkTakeOver is the time from an owner's death to the first newly finished task, on a network in memory with
// a latency of up to 2 ms, half a second of grace included. Tasks take 20 to 80 ms.
func BenchmarkTakeOver(b *testing.B) {
	var total time.Duration
	for b.Loop() {
		r := newRealm(b, 5)
		a := r.all[0]
		id := r.submit(a, squares(a, 10_000))
		time.Sleep(500 * time.Millisecond)
		total += r.firstAfterDeath(id)
		r.close()
	}
	b.ReportMetric(total.Seconds()*1000/float64(b.N), "ms/takeover")
}

// TestRecallRefuses: a node answers bounded questions only, and believes only receipts that are signed and fit.
func TestRecallRefuses(t *testing.T) {
	hub := new(fake.Hub)
	w, liar := fake.NewWorld(hub, "a"), fake.NewWorld(hub, "liar")
	n := open(t, w.Config())
	f := &forger{t: t, owner: w, self: liar}
	var reply grid.RecallReply
	wantCode(t, f.call(grid.ProtoRecall, grid.RecallMsg{Keys: make([]grid.Key, grid.MaxRecall+1)}, &reply), grid.Limit)
	st, _ := run(t, n, request(w, 3))
	var keys []grid.Key
	for i := range uint32(4) {
		_, key, err := n.TaskKey(within(t), grid.Lease{Job: st.ID, Owner: w.ID, Spec: st.Spec}, i)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if err := f.call(grid.ProtoRecall, grid.RecallMsg{Keys: keys}, &reply); err != nil || reply.Looked != 4 || len(reply.Receipts) != 3 {
		t.Fatalf("%+v, %v", reply, err)
	}
	for _, r := range reply.Receipts {
		if err := r.Verify(); err != nil {
			t.Error(err)
		}
	}
}

// TestRecallOfLies: what a node says that it remembers counts only if it is signed, and of the very invocation.
func TestRecallOfLies(t *testing.T) {
	lies := []struct {
		name string
		tell func(m grid.RecallMsg, liar *fake.World) grid.RecallReply
	}{
		{"nothing looked for", func(grid.RecallMsg, *fake.World) grid.RecallReply { return grid.RecallReply{} }},
		{"too much looked for", func(m grid.RecallMsg, _ *fake.World) grid.RecallReply {
			return grid.RecallReply{Looked: len(m.Keys) + 1}
		}},
		{"not signed", func(m grid.RecallMsg, liar *fake.World) (reply grid.RecallReply) {
			for _, k := range m.Keys {
				reply.Receipts = append(reply.Receipts, grid.Receipt{Key: k, Node: liar.ID})
			}
			reply.Looked = len(m.Keys)
			return reply
		}},
		{"of others", func(m grid.RecallMsg, liar *fake.World) (reply grid.RecallReply) {
			for _, k := range m.Keys {
				k[0]++
				r := grid.Receipt{Key: k, Node: liar.ID}
				if err := grid.Sign(liar.Key, &r); err != nil {
					panic(err)
				}
				reply.Receipts = append(reply.Receipts, r)
			}
			reply.Looked = len(m.Keys)
			return reply
		}},
		{"outputs that nobody has", func(m grid.RecallMsg, liar *fake.World) (reply grid.RecallReply) {
			for _, k := range m.Keys {
				r := grid.Receipt{Key: k, Node: liar.ID, Stdout: grid.Output{Size: 5000, CID: grid.Link{Cid: grid.NewBlock(cid.Raw, k[:]).CID()}}}
				if err := grid.Sign(liar.Key, &r); err != nil {
					panic(err)
				}
				reply.Receipts = append(reply.Receipts, r)
			}
			reply.Looked = len(m.Keys)
			return reply
		}},
	}
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			bubble(t, 2, func(r *realm) {
				liar := fake.NewWorld(new(fake.Hub), "liar")
				net := r.world.Join(liar.ID)
				defer net.Close()
				asked := 0
				net.Serve(grid.ProtoRecall, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
					var m grid.RecallMsg
					if err := grid.Unmarshal(req, &m); err != nil {
						return nil, err
					}
					asked++
					return grid.Marshal(lie.tell(m, liar))
				})
				r.enroll(liar.ID)
				a := r.all[0]
				id := r.submit(a, squares(a, 100))
				time.Sleep(200 * time.Millisecond)
				r.kill(a)
				r.done(id)
				r.exact(r.all[1], id, 100)
				if asked == 0 {
					t.Error("it was not asked")
				}
			})
		})
	}
}

// TestPublished: what a ref names after a job, by what the job leaves.
func TestPublished(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	folder := grid.NewBlock(cid.Raw, []byte("in a folder"))
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		what := "none"
		if len(g.Args) > 1 {
			what = g.Args[1]
		}
		if what == "out" {
			if err := w.Blocks.Put(ctx, folder); err != nil {
				return grid.Outcome{}, err
			}
			tree, _, err := w.Files.AddTree(ctx, []grid.FileInfo{{Name: "f", Kind: grid.KindFile, CID: grid.Link{Cid: folder.CID()}}})
			if err != nil {
				return grid.Outcome{}, err
			}
			out, err := w.Files.FS(ctx, tree)
			return grid.Outcome{Out: out}, err
		}
		if what != "none" {
			fmt.Fprint(g.Stdout, what)
		}
		return grid.Outcome{}, nil
	}
	n := open(t, w.Config())
	ref := func(name string) (ref grid.Ref) {
		e, err := w.Ledger.Get(within(t), "ref/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := grid.Unmarshal(e.Value, &ref); err != nil {
			t.Fatal(err)
		}
		return ref
	}
	text := func(c grid.Link) string {
		f, err := w.Files.Open(within(t), c.Cid)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	names := func(c grid.Link) (names []string) {
		list, err := w.Files.List(within(t), c.Cid)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			names = append(names, e.Name)
		}
		return names
	}
	for i, arg := range []string{"hello", strings.Repeat("long", 1000), "none"} {
		r := request(w, 1)
		r.Stages[0].Args, r.Publish = []string{arg}, []string{"text", "also/text"}
		st, _ := run(t, n, r)
		want := strings.TrimPrefix(arg, "none")
		for _, name := range r.Publish {
			if got := ref(name); text(got.CID) != want || got.Job != st.ID || got.Count != uint64(i+1) || !got.Updated.Equal(st.Ended) {
				t.Errorf("%s is %+v", name, got)
			}
		}
	}
	r := request(w, 1)
	r.Stages[0].Args, r.Publish = []string{"out"}, []string{"folder"}
	run(t, n, r)
	if got := names(ref("folder").CID); !slices.Equal(got, []string{"f"}) {
		t.Errorf("a folder with %v", got)
	}
	r = request(w, 3)
	r.Stages[0].Args, r.Publish = []string{"x"}, []string{"folder"}
	run(t, n, r)
	if got := names(ref("folder").CID); !slices.Equal(got, []string{"0000000", "0000001", "0000002"}) || ref("folder").Count != 2 {
		t.Errorf("a folder with %v, set %d times", got, ref("folder").Count)
	}
	n.Close() // and what was taken back is
	if got := w.Pins.Held(); !slices.Equal(got, []string{"ref folder", "ref text"}) {
		t.Errorf("pins %q", got)
	}
}

func TestPublishRefuses(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	for _, publish := range [][]string{{"no good"}, {"twice", "twice"}, make([]string, grid.MaxPublish+1)} {
		r := request(w, 1)
		r.Publish = publish
		if _, err := n.Submit(within(t), r); err == nil {
			t.Errorf("%q was taken", publish)
		}
	}
	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) { return grid.Outcome{Exit: 1}, nil }
	r := request(w, 1)
	r.Publish = []string{"failed"}
	if st, _ := run(t, n, r); st.State != grid.Failed {
		t.Errorf("state %s", st.State)
	}
	if _, err := w.Ledger.Get(within(t), "ref/failed"); grid.CodeOf(err) != grid.NotFound {
		t.Errorf("a job that failed has published: %v", err)
	}
	// A job may end well although tasks fail, but what is left when all of the last stage do is no result.
	for _, tasks := range []uint32{1, 3} {
		r = request(w, tasks)
		r.Publish, r.Allow, r.NoCache = []string{"failed"}, tasks, true
		if st, _ := run(t, n, r); st.State != grid.Failed || !strings.Contains(st.Error, "nothing to publish") {
			t.Errorf("%d tasks: state %s, %q", tasks, st.State, st.Error)
		}
		if _, err := w.Ledger.Get(within(t), "ref/failed"); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("%d tasks that failed were published: %v", tasks, err)
		}
	}
}

// TestNoRoomForResult: a job whose owner has no room for its result when all is done waits for that, says so, and is given up at last.
func TestNoRoomForResult(t *testing.T) {
	for _, comes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := fake.NewWorld(new(fake.Hub), "a")
			n := open(t, w.Config())
			defer n.Close()
			full := grid.Errorf(grid.NoSpace, "no space left")
			w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
				w.Blocks.Fail(cid.Undef, full)
				return grid.Outcome{}, nil
			}
			id := submit(t, n, request(w, 3))
			time.Sleep(time.Minute)
			if st, err := n.Job(t.Context(), id); err != nil || st.State != grid.Running || !strings.Contains(st.Note, "waits for room") || !strings.Contains(st.Note, "no space left") {
				t.Errorf("state %s, note %q, %v", st.State, st.Note, err)
			}
			if comes {
				w.Blocks.Fail(cid.Undef, nil)
			}
			time.Sleep(10 * time.Minute)
			st, err := n.Job(t.Context(), id)
			if want := map[bool]grid.State{true: grid.Done, false: grid.Failed}[comes]; err != nil || st.State != want || st.Note != "" {
				t.Errorf("state %s, want %s: %s, note %q, %v", st.State, want, st.Error, st.Note, err)
			}
		})
	}
}

// TestBoundIsAlone: a node for one command says nothing of itself, watches nothing and pins nothing.
func TestBoundIsAlone(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	c := w.Config()
	c.Bound = true
	n := open(t, c)
	run(t, n, request(w, 5))
	if st, _ := w.Ledger.Status(within(t)); st.Sessions != 0 || st.Revision != 2 || len(w.Pins.Pinned()) != 0 {
		t.Errorf("%d sessions, %d transactions, pins %v", st.Sessions, st.Revision, w.Pins.Pinned())
	}
}

// TestResumeWithoutSpec: a job of which the spec is lost is tried for a while, and then has failed.
func TestResumeWithoutSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(new(fake.Hub), "a")
		started := make(chan struct{}, 1)
		w.Engine.Guest = blocked(started)
		n := open(t, w.Config())
		id := submit(t, n, request(w, 1))
		<-started
		n.Close()
		if err := w.Blocks.Delete(within(t), record(t, w, id).Spec.Cid); err != nil {
			t.Fatal(err)
		}
		n = open(t, w.Config())
		time.Sleep(4 * time.Minute)
		if rec := record(t, w, id); rec.State != grid.Running {
			t.Errorf("state %s although its spec may still turn up", rec.State)
		}
		time.Sleep(2 * time.Minute)
		if rec := record(t, w, id); rec.State != grid.Failed || !strings.Contains(rec.Error, "cannot be taken up again") {
			t.Errorf("record %+v", rec)
		}
		if _, err := w.Ledger.Get(within(t), "open/"+string(id)); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("it is still among the open jobs: %v", err)
		}
		n.Close()
	})
}
