package grid_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait is how long a test waits for what must happen.
const wait = 20 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, c grid.NodeConfig) *grid.Node {
	t.Helper()
	n, err := grid.OpenNode(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func request(w *fake.World, tasks uint32) grid.Request {
	return grid.Request{Spec: grid.Spec{Name: "test", Stages: []grid.Stage{{Module: w.Module, Tasks: tasks}}}}
}

func submit(t testing.TB, n *grid.Node, r grid.Request) grid.JobID {
	t.Helper()
	id, err := n.Submit(within(t), r)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// end waits for a job's end.
func end(t testing.TB, n *grid.Node, id grid.JobID) grid.JobStatus {
	t.Helper()
	var last grid.JobStatus
	if err := n.Watch(within(t), id, func(st grid.JobStatus) error { last = st; return nil }); err != nil {
		t.Fatal(err)
	}
	if !last.State.Final() {
		t.Fatalf("the watch of %s ended with state %s", id, last.State)
	}
	return last
}

// run submits a job and waits for its end and its tasks.
func run(t testing.TB, n *grid.Node, r grid.Request) (grid.JobStatus, []grid.TaskEnd) {
	t.Helper()
	id := submit(t, n, r)
	st := end(t, n, id)
	return st, tasks(t, n, id)
}

func tasks(t testing.TB, n *grid.Node, id grid.JobID) (out []grid.TaskEnd) {
	t.Helper()
	if err := n.Tasks(within(t), id, false, func(e grid.TaskEnd) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func wantCode(t testing.TB, err error, want grid.Code, words ...string) {
	t.Helper()
	if grid.CodeOf(err) != want {
		t.Errorf("error %v has code %v, want %v", err, grid.CodeOf(err), want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not mention %q", err, w)
		}
	}
}

func TestJobDone(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		fmt.Fprint(g.Stdout, strings.Join(g.Env, ","))
		return grid.Outcome{Memory: 65536, Run: time.Millisecond}, nil
	}
	n := open(t, w.Config())
	st, ends := run(t, n, request(w, 5))
	if st.State != grid.Done || st.Error != "" || st.Name != "test" || !st.Result.Defined() || st.Ended.Before(st.Submitted) {
		t.Errorf("status %+v", st)
	}
	if s := st.Stages[0]; s.Name != "main" || s.Tasks != 5 || s.Done != 5 || s.Cached != 0 || s.Failed != 0 || s.Nodes[w.ID.String()] != 5 ||
		s.Ran != 5*time.Millisecond {
		t.Errorf("stage %+v", s)
	}
	if len(ends) != 5 {
		t.Fatalf("%d tasks ended, want 5", len(ends))
	}
	for i, e := range ends {
		want := fmt.Sprintf("GRID_ABI=%d,GRID_TASK=%d", grid.ABIVersion, i)
		if e.Index != uint32(i) || string(e.Stdout.Data) != want || !e.OK() || e.Node != w.ID.String() || e.Memory != 65536 {
			t.Errorf("task %d: %+v, want stdout %s", i, e, want)
		}
	}
	if all, stolen := n.TasksRan(); all != 5 || stolen != 0 {
		t.Errorf("ran %d tasks, %d stolen", all, stolen)
	}
	if n.JobsRunning() != 0 {
		t.Error("a job still counts as running")
	}
	jobs, err := n.Jobs(within(t))
	if err != nil || len(jobs) != 1 || jobs[0].ID != st.ID || jobs[0].Name != "test" || jobs[0].State != grid.Done {
		t.Errorf("jobs %+v, %v", jobs, err)
	}
	if short, err := n.Job(within(t), st.ID[:8]); err != nil || short.ID != st.ID {
		t.Errorf("by its first letters: %v, %v", short.ID, err)
	}
	_, err = n.Job(within(t), "jjjjjjjj")
	wantCode(t, err, grid.NotFound, "jjjjjjjj")
	_, err = n.Job(within(t), "j")
	wantCode(t, err, grid.Invalid)
	wantCode(t, n.Cancel(within(t), st.ID), grid.Conflict, "done")
}

func TestCachedSecondRun(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	var runs atomic.Int32
	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) { runs.Add(1); return grid.Outcome{}, nil }
	n := open(t, w.Config())
	run(t, n, request(w, 300))
	st, ends := run(t, n, request(w, 400)) // more than the first piece; 100 of them are new
	if s := st.Stages[0]; s.Done != 400 || s.Cached != 300 || runs.Load() != 400 || len(ends) != 400 {
		t.Errorf("second run: %+v after %d runs", s, runs.Load())
	}
	r := request(w, 3)
	r.NoCache = true
	if st, _ := run(t, n, r); st.Stages[0].Cached != 0 || runs.Load() != 403 {
		t.Errorf("fresh run: %+v after %d runs", st.Stages[0], runs.Load())
	}
}

func TestFailures(t *testing.T) {
	fault := &grid.Fault{Code: grid.Trap, Message: "unreachable \xff", Stack: strings.Repeat("s", 1<<20)}
	tests := []struct {
		name  string
		guest func(ctx context.Context, g *grid.Guest) (grid.Outcome, error)
		state grid.State
		words []string // of the job's error
		runs  int32
	}{
		{"exit", func(context.Context, *grid.Guest) (grid.Outcome, error) { return grid.Outcome{Exit: 3}, nil },
			grid.Failed, []string{"main task 0", "exit code 3"}, 1},
		{"trap", func(context.Context, *grid.Guest) (grid.Outcome, error) { return grid.Outcome{Fault: fault}, nil },
			grid.Failed, []string{"main task 0", "unreachable ?"}, 1},
		{"host", func(context.Context, *grid.Guest) (grid.Outcome, error) {
			return grid.Outcome{}, errors.New("no memory \xfe")
		},
			grid.Failed, []string{"main task 0", "3", "no memory ?"}, 3},
		{"panic", func(context.Context, *grid.Guest) (grid.Outcome, error) { panic("engine bug") },
			grid.Failed, []string{"engine bug"}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := fake.NewWorld(new(fake.Hub), "a")
			var runs atomic.Int32
			w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				runs.Add(1)
				return tt.guest(ctx, g)
			}
			n := open(t, w.Config())
			r := request(w, 1)
			st, ends := run(t, n, r)
			if st.State != tt.state || runs.Load() != tt.runs {
				t.Errorf("state %s after %d runs, want %s after %d", st.State, runs.Load(), tt.state, tt.runs)
			}
			for _, word := range tt.words {
				if !strings.Contains(st.Error, word) {
					t.Errorf("error %q does not mention %q", st.Error, word)
				}
			}
			for _, e := range ends {
				if e.OK() {
					t.Errorf("task %+v", e)
				}
			}
		})
	}
}

func TestPanicCostsOneAttempt(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	var once sync.Once
	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
		once.Do(func() { panic("once") })
		return grid.Outcome{}, nil
	}
	if st, _ := run(t, open(t, w.Config()), request(w, 20)); st.State != grid.Done || st.Stages[0].Done != 20 {
		t.Errorf("status %+v", st)
	}
}

func TestOutputs(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	long := strings.Repeat("0123456789", 1000)
	w.Engine.Guest = fake.Text(long)
	n := open(t, w.Config())
	_, ends := run(t, n, request(w, 1))
	o := ends[0].Stdout
	if o.Size != int64(len(long)) || len(o.Data) > 0 || !o.CID.Defined() {
		t.Fatalf("output %+v", o)
	}
	if data, err := w.Blocks.Get(within(t), o.CID.Cid); err != nil || string(data) != long {
		t.Errorf("stored %d bytes, %v", len(data), err)
	}
}

// blocked is a guest that runs until its context ends.
func blocked(started chan<- struct{}) func(context.Context, *grid.Guest) (grid.Outcome, error) {
	return func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		select {
		case started <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return grid.Outcome{}, ctx.Err()
	}
}

func TestCancel(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	started := make(chan struct{}, 1)
	block := blocked(started)
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if len(g.Args) > 1 {
			return grid.Outcome{}, nil
		}
		return block(ctx, g)
	}
	n := open(t, w.Config())
	id := submit(t, n, request(w, 100))
	<-started
	if err := n.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	if st := end(t, n, id); st.State != grid.Cancelled {
		t.Errorf("state %s", st.State)
	}
	wantCode(t, n.Cancel(within(t), id), grid.Conflict, "cancelled")
	r := request(w, 1) // slots are free again
	r.Stages[0].Args = []string{"quick"}
	if st, _ := run(t, n, r); st.State != grid.Done {
		t.Errorf("the next job: %+v", st)
	}
}

// Cancelling races with everything a job does; it must end in one final state, with nothing left over.
func TestCancelRace(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		fmt.Fprint(g.Stdout, "x")
		return grid.Outcome{}, nil
	}
	n := open(t, w.Config())
	r := request(w, 50)
	r.Stages = append(r.Stages, grid.Stage{Module: w.Module, From: []grid.Source{{}}}, grid.Stage{Module: w.Module, From: []grid.Source{{Stage: 1}}})
	r.NoCache = true
	for i := range 40 {
		id := submit(t, n, r)
		seen := 0
		_ = n.Tasks(within(t), id, true, func(grid.TaskEnd) error {
			if seen++; seen > i {
				return errors.New("enough")
			}
			return nil
		})
		if err := n.Cancel(within(t), id); err != nil && !errors.Is(err, grid.Conflict) {
			t.Fatal(err)
		}
		st := end(t, n, id)
		stored := tasks(t, n, id)
		var counted uint32
		for _, s := range st.Stages {
			counted += s.Done + s.Failed
		}
		if int(counted) != len(stored) {
			t.Fatalf("%d tasks are counted, %d stored", counted, len(stored))
		}
	}
}

func TestResume(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	started := make(chan struct{}, 1)
	var after atomic.Bool
	block := blocked(started)
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if after.Load() || !strings.HasSuffix(g.Env[len(g.Env)-1], "=9") {
			return grid.Outcome{}, nil
		}
		return block(ctx, g)
	}
	n := open(t, w.Config())
	id := submit(t, n, request(w, 10))
	<-started
	if err := n.Tasks(within(t), id, true, func(grid.TaskEnd) error {
		if st, _ := n.Job(within(t), id); st.Stages[0].Done == 9 {
			return io.EOF
		}
		return nil
	}); err != io.EOF {
		t.Fatal(err)
	}
	n.Close()
	if st, err := n.Job(within(t), id); err != nil || st.State != grid.Running {
		t.Fatalf("after Close: %+v, %v", st, err)
	}
	after.Store(true)
	n = open(t, w.Config())
	if st := end(t, n, id); st.State != grid.Done || st.Stages[0].Done != 10 || st.Stages[0].Cached != 9 {
		t.Errorf("taken up again: %+v", st)
	}
	if rec := record(t, w, id); rec.Epoch != 2 {
		t.Errorf("epoch %d, want 2", rec.Epoch)
	}
}

func record(t testing.TB, w *fake.World, id grid.JobID) (rec grid.Record) {
	t.Helper()
	e, err := w.Ledger.Get(within(t), "job/"+string(id))
	if err != nil {
		t.Fatal(err)
	}
	if err := grid.Unmarshal(e.Value, &rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestBound(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	started := make(chan struct{}, 1)
	w.Engine.Guest = blocked(started)
	c := w.Config()
	c.Bound = true
	n := open(t, c)
	id := submit(t, n, request(w, 3))
	<-started
	n.Close()
	if rec := record(t, w, id); rec.State != grid.Cancelled || rec.Ended.IsZero() {
		t.Errorf("after Close: %+v", rec)
	}

	// The command is killed: its record stays behind, running and bound.
	rec := record(t, w, id)
	rec.ID, rec.State = "jaaaaaaaaaaaaaaaaaaaaaaaaa", grid.Running
	data, err := grid.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{
		{Key: "job/" + string(rec.ID), Value: data}, {Key: "open/" + string(rec.ID), Value: []byte(rec.Owner.String())},
	}}); err != nil {
		t.Fatal(err)
	}
	n = open(t, w.Config())
	if st, err := n.Job(within(t), rec.ID); err != nil || st.State != grid.Cancelled || !strings.Contains(st.Error, "killed") {
		t.Errorf("after a crash: %+v, %v", st, err)
	}
}

func TestClosedNode(t *testing.T) {
	hub := new(fake.Hub)
	w := fake.NewWorld(hub, "a")
	n := open(t, w.Config())
	n.Close()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	_, err := n.Submit(within(t), request(w, 1))
	wantCode(t, err, grid.Unavailable)
	_, err = fake.NewWorld(hub, "b").Net.Call(within(t), w.ID, grid.ProtoDrop, nil)
	wantCode(t, err, grid.Unavailable)
}

func TestGather(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		in := g.Mounts[grid.GuestIn]
		if in == nil {
			fmt.Fprint(g.Stdout, g.Env[len(g.Env)-1])
			return grid.Outcome{}, nil
		}
		for i := range uint32(3) {
			f, err := in.Open(grid.GatheredName(i))
			if err != nil {
				return grid.Outcome{}, err
			}
			io.Copy(g.Stdout, f)
			fmt.Fprintln(g.Stdout)
		}
		return grid.Outcome{}, nil
	}
	n := open(t, w.Config())
	r := request(w, 3)
	r.Stages = append(r.Stages, grid.Stage{Module: w.Module, From: []grid.Source{{}}})
	st, ends := run(t, n, r)
	if st.State != grid.Done || len(ends) != 4 {
		t.Fatalf("status %+v with %d tasks", st, len(ends))
	}
	if got := string(ends[3].Stdout.Data); got != "GRID_TASK=0\nGRID_TASK=1\nGRID_TASK=2\n" || ends[3].Stage != 1 {
		t.Errorf("gathered %q", got)
	}
	if r.Stages[1].Tasks != 0 {
		t.Error("Submit wrote to its caller's request")
	}
}

func TestRows(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	ctx := within(t)
	var rows []grid.Row
	for i := range 3 {
		c, size, _ := w.Files.Add(ctx, strings.NewReader(fmt.Sprint("line ", i, "\n")))
		rows = append(rows, grid.Row{{Name: fmt.Sprint("d/", i), CID: grid.Link{Cid: c}, Size: size}})
	}
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		fmt.Fprint(g.Stdout, g.Args, " ")
		_, err := io.Copy(g.Stdout, g.Stdin)
		return grid.Outcome{}, err
	}
	n := open(t, w.Config())
	r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: w.Module, Args: []string{"-f", "{}"}, Feed: true}}}, Rows: [][]grid.Row{rows}}
	st, ends := run(t, n, r)
	if st.State != grid.Done || len(ends) != 3 {
		t.Fatalf("status %+v", st)
	}
	for i, e := range ends {
		if want := fmt.Sprintf("[main -f /in/d/%d] line %d\n", i, i); string(e.Stdout.Data) != want || e.Input != fmt.Sprint("d/", i) || e.Inputs != 1 {
			t.Errorf("task %d: %q from %q", i, e.Stdout.Data, e.Input)
		}
	}
}

func TestSubmitRefuses(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	gone := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("gone")).CID()}
	tests := []struct {
		name string
		edit func(*grid.Request)
		code grid.Code
		word string
	}{
		{"no stages", func(r *grid.Request) { r.Stages = nil }, grid.Invalid, "stages"},
		{"rows without stage", func(r *grid.Request) { r.Rows = make([][]grid.Row, 2) }, grid.Invalid, "rows for 2 stages"},
		{"bad row", func(r *grid.Request) { r.Rows = [][]grid.Row{{{{Name: "../x", CID: w.Module}}}} }, grid.Invalid, "../x"},
		{"no module", func(r *grid.Request) { r.Stages[0].Module = gone }, grid.Unavailable, gone.String()},
		{"no table", func(r *grid.Request) { r.Stages[0].Inputs = gone }, grid.Unavailable, "inputs"},
		{"lying count", func(r *grid.Request) {
			tab := grid.NewTable[grid.Row](w.Blocks)
			r.Stages[0].Inputs, _ = tab.Close(context.Background())
		}, grid.Invalid, "0 rows"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request(w, 1)
			tt.edit(&r)
			_, err := n.Submit(within(t), r)
			wantCode(t, err, tt.code, tt.word)
		})
	}
	w.Engine.Refuse = grid.Errorf(grid.Unsupported, "not wasm").Hint("compile it")
	_, err := n.Submit(within(t), request(w, 1))
	wantCode(t, err, grid.Unsupported, "not wasm")
	if jobs, _ := n.Jobs(within(t)); len(jobs) != 0 {
		t.Errorf("refused jobs were recorded: %+v", jobs)
	}
}

func TestTasksFollow(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	gate := make(chan struct{})
	w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		select {
		case <-gate:
			return grid.Outcome{}, nil
		case <-ctx.Done():
			return grid.Outcome{}, ctx.Err()
		}
	}
	n := open(t, w.Config())
	id := submit(t, n, request(w, 10))
	if got := tasks(t, n, id); len(got) != 0 {
		t.Errorf("%d tasks ended before any ran", len(got))
	}
	seen := map[uint32]bool{}
	done := make(chan error, 1)
	go func() {
		done <- n.Tasks(context.Background(), id, true, func(e grid.TaskEnd) error { seen[e.Index] = true; return nil })
	}()
	for range 10 {
		gate <- struct{}{}
	}
	if err := <-done; err != nil || len(seen) != 10 {
		t.Errorf("followed %d tasks, %v", len(seen), err)
	}

	r := request(w, 1)
	r.Name, r.NoCache = "left alone", true
	id = submit(t, n, r)
	ctx, cancel := context.WithCancelCause(context.Background())
	mine := errors.New("mine")
	cancel(mine)
	if err := n.Tasks(ctx, id, true, nil); err != mine {
		t.Errorf("cancelled follow: %v", err)
	}
	if err := n.Watch(ctx, id, func(grid.JobStatus) error { return nil }); err != mine {
		t.Errorf("cancelled watch: %v", err)
	}
	go n.Close()
	wantCode(t, n.Tasks(within(t), id, true, nil), grid.Unavailable, "closing")
	n.Close()
}

// forger speaks to an owner as another node would.
type forger struct {
	t     *testing.T
	owner *fake.World
	self  *fake.World
	n     *grid.Node
	lease grid.Lease
}

// newForger opens an owner that runs nothing itself and steals a lease on its only job.
func newForger(t *testing.T) *forger {
	f := forgerOf(t, func(*grid.Request) {})
	enter(t, f.owner, f.n, f.self.ID)
	return f
}

func forgerOf(t *testing.T, change func(*grid.Request)) *forger {
	hub := new(fake.Hub)
	f := &forger{t: t, owner: fake.NewWorld(hub, "owner"), self: fake.NewWorld(hub, "forger")}
	f.owner.Fetcher.From = []*fake.Blocks{f.self.Blocks}
	opened := make(chan struct{})
	var once sync.Once
	f.owner.Scheduler = fake.NewScheduler(2)
	f.owner.Scheduler.Give = true
	f.owner.Scheduler.Seen = func(ev grid.Event) {
		if e, ok := ev.(grid.Prepared); ok && e.Ready[len(e.Ready)-1].Hi == 4 {
			once.Do(func() { close(opened) })
		}
	}
	f.n = open(t, f.owner.Config())
	r := request(f.owner, 4)
	r.NoCache = true
	change(&r)
	submit(t, f.n, r)
	<-opened
	var reply grid.StealReply
	f.call(grid.ProtoSteal, grid.StealMsg{Slots: -5}, &reply)
	if len(reply.Leases) != 4 {
		t.Fatalf("stole %d leases", len(reply.Leases))
	}
	f.lease = reply.Leases[0]
	return f
}

func (f *forger) call(p grid.Protocol, msg, reply any) error {
	f.t.Helper()
	data, err := grid.Marshal(msg)
	if err != nil {
		f.t.Fatal(err)
	}
	if data, err = f.self.Net.Call(within(f.t), f.owner.ID, p, data); err != nil {
		return err
	}
	if err := grid.Unmarshal(data, reply); err != nil {
		f.t.Fatal(err)
	}
	return nil
}

// honest is a report as an honest node would send it.
func (f *forger) honest(i uint32) grid.ReportMsg {
	f.t.Helper()
	task, key, err := f.n.TaskKey(within(f.t), f.lease, i)
	if err != nil {
		f.t.Fatal(err)
	}
	r := grid.Receipt{Key: key, Node: f.self.ID, Phases: grid.Phases{Run: time.Second}}
	m := grid.ReportMsg{Job: f.lease.Job, Stage: 0, Epoch: f.lease.Epoch, Done: []grid.Completion{grid.CompletionOf(&task, r, false)}}
	f.sign(&m)
	return m
}

func (f *forger) sign(m *grid.ReportMsg) {
	if err := grid.Sign(f.self.Key, &m.Done[0].Receipt); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forger) status() grid.StageStatus {
	st, err := f.n.Job(within(f.t), f.lease.Job)
	if err != nil {
		f.t.Fatal(err)
	}
	return st.Stages[0]
}

func TestForgedReports(t *testing.T) {
	f := newForger(t)
	absent := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("absent")).CID()}
	long := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("long")).CID()}
	tests := []struct {
		name string
		edit func(*grid.ReportMsg)
		sign bool
		code grid.Code // Unknown: accepted
		over bool
	}{
		{"bad signature", func(m *grid.ReportMsg) { m.Done[0].Receipt.Exit = 1 }, false, grid.Denied, false},
		{"no signature", func(m *grid.ReportMsg) { m.Done[0].Receipt.Sig = nil }, false, grid.Denied, false},
		{"another invocation", func(m *grid.ReportMsg) { m.Done[0].Receipt.Key[0]++ }, true, grid.Denied, false},
		{"another task's", func(m *grid.ReportMsg) { m.Done[0].Index = 2 }, true, grid.Denied, false},
		{"another node's", func(m *grid.ReportMsg) { m.Done[0].Receipt.Node = f.owner.ID }, true, grid.Denied, false},
		{"another node's, as cached", func(m *grid.ReportMsg) {
			m.Done[0].Receipt.Node, m.Done[0].Cached = f.owner.ID, true
		}, true, grid.Denied, false},
		{"index out of range", func(m *grid.ReportMsg) { m.Done[0].Index = 4 }, true, grid.Invalid, false},
		{"index far out of range", func(m *grid.ReportMsg) { m.Done[0].Index = 1<<32 - 1 }, true, grid.Invalid, false},
		{"failure out of range", func(m *grid.ReportMsg) { m.Failed = []grid.HostFailure{{Index: 4}} }, true, grid.Invalid, false},
		{"unknown stage", func(m *grid.ReportMsg) { m.Stage = 1 }, true, grid.Invalid, false},
		{"negative size", func(m *grid.ReportMsg) { m.Done[0].Receipt.Stdout.Size = -1 }, true, grid.Limit, false},
		{"inline too long", func(m *grid.ReportMsg) {
			m.Done[0].Receipt.Stdout = grid.Output{Size: 2000, Inline: make([]byte, 2000)}
		}, true, grid.Limit, false},
		{"over the output limit", func(m *grid.ReportMsg) {
			m.Done[0].Receipt.Stdout = grid.Output{Size: 1 << 40, CID: long}
		}, true, grid.Limit, false},
		{"negative time", func(m *grid.ReportMsg) { m.Done[0].Receipt.Phases.Run = -1 }, true, grid.Invalid, false},
		{"long fault", func(m *grid.ReportMsg) {
			m.Done[0].Receipt.Fault = &grid.Fault{Code: grid.Trap, Message: strings.Repeat("x", grid.MaxText+1)}
		}, true, grid.Limit, false},
		{"an earlier failure that need not happen again", func(m *grid.ReportMsg) {
			m.Done[0].Cached, m.Done[0].Receipt.Fault = true, &grid.Fault{Code: grid.Deadline, Message: "slow"}
		}, true, grid.Invalid, false},
		{"unknown job", func(m *grid.ReportMsg) { m.Job = "jx" }, true, grid.Unknown, true},
		{"stale epoch", func(m *grid.ReportMsg) { m.Epoch-- }, true, grid.Unknown, true},
		{"future epoch", func(m *grid.ReportMsg) { m.Epoch++ }, true, grid.Unknown, true},
		{"output nowhere", func(m *grid.ReportMsg) {
			m.Done[0].Receipt.Stdout = grid.Output{Size: 2000, CID: absent}
		}, true, grid.Unknown, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			m := f.honest(1)
			tt.edit(&m)
			if tt.sign {
				f.sign(&m)
			}
			var reply grid.ReportReply
			err := f.call(grid.ProtoReport, m, &reply)
			wantCode(t, err, tt.code)
			if reply.Over != tt.over {
				t.Errorf("over is %v", reply.Over)
			}
			if st := f.status(); st.Done != 0 || st.Failed != 0 {
				t.Errorf("it had an effect: %+v", st)
			}
		})
	}

	f.t = t
	for i := range uint32(4) {
		var reply grid.ReportReply
		m := f.honest(i)
		m.Done[0].Input, m.Done[0].Inputs = "a lie", 77
		for range 2 { // the second changes nothing
			if err := f.call(grid.ProtoReport, m, &reply); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			break
		}
		if st := f.status(); st.Done != i+1 || st.Nodes[f.self.ID.String()] != i+1 {
			t.Fatalf("after %d honest reports: %+v", i+1, st)
		}
	}
	if st := end(t, f.n, f.lease.Job); st.State != grid.Done || st.Stages[0].Done != 4 {
		t.Errorf("status %+v", st)
	}
	if e := tasks(t, f.n, f.lease.Job)[0]; e.Input != "" || e.Inputs != 0 {
		t.Errorf("the reporter's word was taken for the inputs: %+v", e)
	}
}

func TestConflictingReports(t *testing.T) {
	f := newForger(t)
	var reply grid.ReportReply
	if err := f.call(grid.ProtoReport, f.honest(0), &reply); err != nil {
		t.Fatal(err)
	}
	m := f.honest(0)
	m.Done[0].Receipt.Exit = 9
	f.sign(&m)
	if err := f.call(grid.ProtoReport, m, &reply); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(3) {
		if err := f.call(grid.ProtoReport, f.honest(i+1), &reply); err != nil {
			t.Fatal(err)
		}
	}
	if st := end(t, f.n, f.lease.Job); st.State != grid.Done || st.Stages[0].Failed != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestMalformedMessages(t *testing.T) {
	f := newForger(t)
	bomb, _ := grid.Marshal(map[string]any{"job": "j", "stage": 0, "epoch": 1, "spans": make([]struct{}, grid.MaxSmallList+1)})
	for _, p := range []grid.Protocol{grid.ProtoSteal, grid.ProtoWake, grid.ProtoClaim, grid.ProtoReport, grid.ProtoDrop, grid.ProtoRevoke} {
		for name, data := range map[string][]byte{"empty": {}, "text": []byte("hello"), "half": {0xa1}, "bomb": bomb} {
			_, err := f.self.Net.Call(within(t), f.owner.ID, p, data)
			if p == grid.ProtoClaim || name != "bomb" {
				if grid.CodeOf(err) != grid.Invalid {
					t.Errorf("%s %s: %v", p, name, err)
				}
			}
		}
	}
}

func TestMessagesReachScheduler(t *testing.T) {
	hub := new(fake.Hub)
	w, from := fake.NewWorld(hub, "a"), fake.NewWorld(hub, "b")
	events := make(chan grid.Event, 10)
	w.Scheduler = fake.NewScheduler(2)
	w.Scheduler.Seen = func(ev grid.Event) { events <- ev }
	open(t, w.Config())
	f := &forger{t: t, owner: w, self: from}
	var none struct{}
	if err := f.call(grid.ProtoDrop, grid.DropMsg{Job: "jx", Epoch: 3}, &none); err != nil {
		t.Fatal(err)
	}
	if ev, ok := (<-events).(grid.Dropped); !ok || ev != (grid.Dropped{From: from.ID, Job: "jx", Epoch: 3}) {
		t.Errorf("event %+v", ev)
	}
	if err := f.call(grid.ProtoClaim, grid.ClaimMsg{Job: "jx", Stage: 2, Epoch: 3, Spans: []grid.Span{{Lo: 1, Hi: 2}}}, &none); err != nil {
		t.Fatal(err)
	}
	if ev, ok := (<-events).(grid.Claimed); !ok || ev.From != from.ID || ev.Stage != 2 || ev.Epoch != 3 || len(ev.Spans) != 1 {
		t.Errorf("event %+v", ev)
	}
	if err := f.call(grid.ProtoRevoke, grid.RevokeMsg{Job: "jx", Stage: 2, Epoch: 3, Spans: []grid.Span{{Lo: 1, Hi: 2}}}, &none); err != nil {
		t.Fatal(err)
	}
	if ev, ok := (<-events).(grid.Revoked); !ok || ev.From != from.ID || ev.Stage != 2 || ev.Epoch != 3 || len(ev.Spans) != 1 {
		t.Errorf("event %+v", ev)
	}
	if err := f.call(grid.ProtoWake, grid.WakeMsg{}, &none); err != nil {
		t.Fatal(err)
	}
	if ev, ok := (<-events).(grid.Woken); !ok || ev.From != from.ID {
		t.Errorf("event %+v", ev)
	}
	if ev, ok := (<-events).(grid.StealAnswered); !ok || !ev.Failed { // b does not serve steal/1
		t.Errorf("event %+v", ev)
	}
}

// Two nodes: one gives all its work away, the other steals, runs and reports it.
func TestStealRunReport(t *testing.T) {
	hub := new(fake.Hub)
	owner, thief := fake.NewWorld(hub, "owner"), fake.NewWorld(hub, "thief")
	owner.Fetcher.From, thief.Fetcher.From = []*fake.Blocks{thief.Blocks}, []*fake.Blocks{owner.Blocks}
	owner.Scheduler = fake.NewScheduler(2)
	owner.Scheduler.Give = true
	opened := make(chan struct{})
	owner.Scheduler.Seen = func(ev grid.Event) {
		if _, ok := ev.(grid.Prepared); ok {
			close(opened)
		}
	}
	long := strings.Repeat("y", 4000)
	thief.Engine.Guest = fake.Text(long)
	n, m := open(t, owner.Config()), open(t, thief.Config())
	enter(t, owner, n, thief.ID)
	enter(t, thief, m, owner.ID)
	id := submit(t, n, request(owner, 8))
	<-opened
	msg, _ := grid.Marshal(grid.WakeMsg{})
	if _, err := owner.Net.Call(within(t), thief.ID, grid.ProtoWake, msg); err != nil {
		t.Fatal(err)
	}
	st := end(t, n, id)
	if st.State != grid.Done || st.Stages[0].Nodes[thief.ID.String()] != 8 {
		t.Errorf("status %+v", st)
	}
	if all, stolen := m.TasksRan(); all != 8 || stolen != 8 {
		t.Errorf("the thief ran %d, stolen %d", all, stolen)
	}
	for _, e := range tasks(t, n, id) {
		if data, err := owner.Blocks.Get(within(t), e.Stdout.CID.Cid); err != nil || string(data) != long {
			t.Errorf("task %d: the owner holds %d bytes of its output, %v", e.Index, len(data), err)
		}
	}
}

// An owner that does not answer must not hold the slots of those who run its tasks for ever.
func TestCloseWhileReporting(t *testing.T) {
	hub := new(fake.Hub)
	thief := fake.NewWorld(hub, "thief")
	victim := fake.NewWorld(hub, "victim")
	spec := grid.Spec{Stages: []grid.Stage{{Module: thief.Module, Tasks: 100}}}
	if err := spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	b, _ := grid.EncodeBlock(spec)
	if err := thief.Blocks.Put(within(t), b); err != nil {
		t.Fatal(err)
	}
	var leases []grid.Lease
	for i := range uint32(100) {
		leases = append(leases, grid.Lease{Job: "jx", Owner: victim.ID, Epoch: 1, Spec: grid.Link{Cid: b.CID()}, Span: grid.Span{Lo: i, Hi: i + 1}})
	}
	victim.Net.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
		return grid.Marshal(grid.StealReply{Leases: leases})
	})
	reports := make(chan struct{}, 100)
	victim.Net.Serve(grid.ProtoReport, func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
		reports <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	n := open(t, thief.Config())
	enter(t, thief, n, victim.ID)
	msg, _ := grid.Marshal(grid.WakeMsg{})
	if _, err := victim.Net.Call(within(t), thief.ID, grid.ProtoWake, msg); err != nil {
		t.Fatal(err)
	}
	for range 8 { // two slots with four reports under way each
		<-reports
	}
	n.Close()
}

// An attempt that takes too long in all fails with that limit, however it spends its time.
func TestTotalLimit(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		<-ctx.Done()
		return grid.Outcome{}, grid.Errorf(grid.Canceled, "stopped: %w", context.Cause(ctx))
	}
	n := open(t, w.Config())
	r := request(w, 1)
	r.Stages[0].Limits.Total = time.Millisecond
	st, ends := run(t, n, r)
	if st.State != grid.Failed || len(ends) != 1 || ends[0].Fault == nil || ends[0].Fault.Code != grid.Deadline || !strings.Contains(ends[0].Fault.Message, "1ms in all") {
		t.Errorf("%+v, %+v", st, ends)
	}
}

// The results of impure tasks answer for no other job, but for the same task after a restart.
func TestImpure(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	var runs atomic.Int32
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		runs.Add(1)
		if !g.Impure {
			t.Error("the guest is not impure")
		}
		return grid.Outcome{}, nil
	}
	n := open(t, w.Config())
	r := request(w, 3)
	r.Stages[0].Net = []string{"example.org"}
	for i := range int32(2) {
		st, ends := run(t, n, r)
		if st.State != grid.Done || runs.Load() != 3*(i+1) || st.Stages[0].Cached != 0 {
			t.Errorf("%+v after %d runs", st, runs.Load())
		}
		for _, e := range ends {
			if !e.Impure {
				t.Errorf("%+v: not impure", e)
			}
		}
	}
}

func TestReplicas(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = fake.Text("result")
	n := open(t, w.Config())
	r := request(w, 3)
	r.Replicas = 2
	st, _ := run(t, n, r)
	pins := w.Pins.Pinned()
	if st.State != grid.Done || len(pins) != 1 || pins[0].Replicas != 2 || !strings.Contains(pins[0].Name, string(st.ID)) {
		t.Errorf("job %+v, pins %+v", st, pins)
	}
	if has, err := w.Blocks.Has(within(t), pins[0].Root.Cid); err != nil || !has {
		t.Errorf("what is pinned is not there: %v", err)
	}
	run(t, n, request(w, 1))
	if got := w.Pins.Pinned(); len(got) != 1 {
		t.Errorf("a job that did not ask for copies has pinned %+v", got)
	}
	r.Replicas = grid.MaxCopies + 1
	_, err := n.Submit(within(t), r)
	wantCode(t, err, grid.Invalid, "replicas")
}
