package grid_test

import (
	"context"
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

// ran counts what was run on all nodes so far.
func (r *realm) ran() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, times := range r.runs {
		n += times
	}
	return n
}

// TestKnownInRealm: what any node of the realm has run is not run again, whoever submits it; unless another salt, or
// no use of what is known, was asked for.
func TestKnownInRealm(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		a, b := r.all[0], r.all[1]
		const tasks = 300
		r.done(r.submit(a, squares(a, tasks)))
		before := r.ran()
		b.w.Cache.Forget() // of what it ran for the first owner
		id := r.submit(b, squares(b, tasks))
		rec := r.done(id)
		if s := rec.Stages[0]; s.Cached != tasks || r.ran() != before {
			t.Errorf("%d of %d tasks were known, %d were run again", s.Cached, tasks, r.ran()-before)
		}
		r.exact(b, id, tasks)
		salted, fresh := squares(b, tasks), squares(b, tasks)
		salted.Salt, fresh.NoCache = "other", true
		for _, req := range []grid.Request{salted, fresh} {
			before = r.ran()
			if rec := r.done(r.submit(b, req)); rec.Stages[0].Cached != 0 || r.ran()-before != tasks {
				t.Errorf("salt %q: %d of %d tasks were known, %d were run", req.Salt, rec.Stages[0].Cached, tasks, r.ran()-before)
			}
		}
		// Outputs that are nowhere to be had are made again.
		a.w.Cache.Forget()
		before = r.ran()
		for i := 0; i < tasks; i += 5 {
			for _, m := range r.all {
				if err := m.w.Blocks.Delete(context.Background(), grid.NewBlock(cid.Raw, []byte(answer(i))).CID()); err != nil {
					t.Fatal(err)
				}
			}
		}
		id = r.submit(a, squares(a, tasks))
		rec = r.done(id)
		if s := rec.Stages[0]; s.Cached != tasks*4/5 || r.ran()-before != tasks/5 {
			t.Errorf("%d of %d tasks were known, %d were run, where a fifth had lost its output", s.Cached, tasks, r.ran()-before)
		}
		r.exact(a, id, tasks)
	})
}

// TestStrangersReceipts: receipts told by a node of another realm count if the node that made them is trusted.
func TestStrangersReceipts(t *testing.T) {
	for _, c := range []struct {
		name  string
		trust func(stranger peer.ID) grid.Trust
		known bool
	}{
		{"nobody", func(peer.ID) grid.Trust { return grid.Trust{} }, false},
		{"others", func(peer.ID) grid.Trust { return grid.Trust{Nodes: []peer.ID{"x"}} }, false},
		{"it", func(id peer.ID) grid.Trust { return grid.Trust{Nodes: []peer.ID{"x", id}} }, true},
		{"all", func(peer.ID) grid.Trust { return grid.Trust{All: true} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub, world := new(fake.Hub), memnet.New(memnet.Config{})
				mine, theirs := fake.NewWorld(hub, "mine"), fake.NewWorld(hub, "theirs") // each with a ledger of its own
				mine.Fetcher.From = []*fake.Blocks{theirs.Blocks}
				var nodes []*grid.Node
				for _, w := range []*fake.World{mine, theirs} {
					w.Engine.Guest = fake.Text("out")
					net := world.Join(w.ID)
					defer net.Close()
					cfg := w.Config()
					cfg.Network = net
					if w == mine {
						cfg.Trust = c.trust(theirs.ID)
					}
					nodes = append(nodes, open(t, cfg))
				}
				run(t, nodes[1], request(theirs, 20))
				st, _ := run(t, nodes[0], request(mine, 20))
				if known := st.Stages[0].Cached == 20; known != c.known {
					t.Errorf("%d of 20 tasks were known", st.Stages[0].Cached)
				}
				for _, n := range nodes {
					n.Close()
				}
			})
		})
	}
}

// TestStrangersWork: what a node of another realm has run for a job counts for that job. It is not remembered for later
// ones, as the whole realm would believe it, unless that node is trusted.
func TestStrangersWork(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		var hub fake.Hub
		mine, theirs := fake.NewWorld(&hub, "mine"), fake.NewWorld(&hub, "theirs") // each with a ledger of its own
		mine.Fetcher.From, theirs.Fetcher.From = []*fake.Blocks{theirs.Blocks}, []*fake.Blocks{mine.Blocks}
		mine.Scheduler = fake.NewScheduler(2)
		mine.Scheduler.Give = true
		prepared := make(chan struct{}, 8)
		mine.Scheduler.Seen = func(ev grid.Event) {
			if _, ok := ev.(grid.Prepared); ok {
				prepared <- struct{}{}
			}
		}
		c := mine.Config()
		if trusted {
			c.Trust.Nodes = []peer.ID{theirs.ID}
		}
		var nodes []*grid.Node
		theirs.Scheduler = fake.NewScheduler(2)
		theirs.Scheduler.Outside = true
		lender := theirs.Config()
		lender.Share = grid.Share{Slots: 2, Memory: 8 << 30, Scratch: 8 << 30}
		for _, c := range []grid.NodeConfig{c, lender} {
			nodes = append(nodes, open(t, c))
		}
		enter(t, mine, nodes[0])
		r := request(mine, 8)
		r.Offload = grid.OffloadUnverified
		id := submit(t, nodes[0], r)
		<-prepared
		msg, _ := grid.Marshal(grid.WakeMsg{})
		if _, err := mine.Net.Call(within(t), theirs.ID, grid.ProtoWake, msg); err != nil {
			t.Fatal(err)
		}
		if st := end(t, nodes[0], id); st.State != grid.Done || st.Stages[0].Nodes[theirs.ID.String()] != 8 {
			t.Fatalf("%+v", st)
		}
		if known := mine.Cache.Len() > 0; known != trusted {
			t.Errorf("trusted %t, remembered %t", trusted, known)
		}
	}
}

// TestFailureKnown: what a guest brought upon itself happens again, and is told without running it; running out of
// time may not, and an impure guest's failure neither.
func TestFailureKnown(t *testing.T) {
	for _, c := range []struct {
		name   string
		out    grid.Outcome
		impure bool
		known  bool
	}{
		{"exit code", grid.Outcome{Exit: 3}, false, true},
		{"trap", grid.Outcome{Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable"}}, false, true},
		{"fuel", grid.Outcome{Fault: &grid.Fault{Code: grid.Limit, Message: "fuel"}}, false, true},
		{"time", grid.Outcome{Fault: &grid.Fault{Code: grid.Deadline, Message: "slow"}}, false, false},
		{"impure", grid.Outcome{Exit: 3}, true, false},
		{"a child's", grid.Outcome{Fault: &grid.Fault{Code: grid.NoSpace, Message: "the disk is full", Fatal: true}}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := fake.NewWorld(new(fake.Hub), "a")
			runs := 0
			w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
				runs++ // one task at a time
				return c.out, nil
			}
			n := open(t, w.Config())
			req := request(w, 1)
			req.Stages[0].Impure = c.impure
			for i := range 2 {
				st, _ := run(t, n, req)
				if st.State != grid.Failed || st.Error == "" || st.Stages[0].Failed != 1 {
					t.Errorf("time %d: %+v", i, st)
				}
			}
			if known := runs == 1; known != c.known {
				t.Errorf("it was run %d times", runs)
			}
		})
	}
}

// TestSilentNodeHoldsNothingUp: a node of the realm that does not answer costs a job a moment, once.
func TestSilentNodeHoldsNothingUp(t *testing.T) {
	bubble(t, 1, func(r *realm) {
		mute := fake.NewWorld(new(fake.Hub), "mute")
		net := r.world.Join(mute.ID)
		defer net.Close()
		asked := 0
		net.Serve(grid.ProtoRecall, func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
			asked++
			<-ctx.Done()
			return nil, ctx.Err()
		})
		r.enroll(mute.ID)
		a := r.all[0]
		a.w.Engine.Guest = fake.Text("out")
		start := time.Now()
		req := squares(a, 10_000)
		req.Copies = 1
		r.done(r.submit(a, req))
		if took := time.Since(start); asked != 1 || took > time.Second {
			t.Errorf("asked %d times, the job took %v", asked, took)
		}
	})
}

// mute is a ledger that can be made to fail, and counts how often it was asked since.
type mute struct {
	grid.Ledger
	fails atomic.Bool
	asked atomic.Int32
}

func (m *mute) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if !m.fails.Load() {
		return m.Ledger.Range(ctx, q)
	}
	m.asked.Add(1)
	return grid.Page{}, grid.Errorf(grid.Unavailable, "no majority")
}

// TestStrangersAndMuteLedger: while the ledger does not answer, it is not asked for each stranger's every word.
func TestStrangersAndMuteLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(new(fake.Hub), "a")
		c := w.Config()
		m := &mute{Ledger: c.Ledger}
		c.Ledger = m
		n := open(t, c)
		enter(t, w, n, nodeID("member"))
		if n.Vouched(t.Context(), nodeID("stranger")) || !n.Vouched(t.Context(), nodeID("member")) {
			t.Error("a stranger is vouched for, or a member is not")
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait() // what the node does each minute has been done
		m.fails.Store(true)
		for range 100 {
			if n.Vouched(t.Context(), nodeID("stranger")) {
				t.Fatal("a stranger is vouched for")
			}
		}
		if k := m.asked.Load(); k != 1 {
			t.Errorf("the ledger was asked %d times", k)
		}
		n.Close()
	})
}
