package grid_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// fibGuest computes Fibonacci numbers by children, the one that GRID_TASK or stdin says.
func fibGuest(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	n, err := number(g)
	if err != nil {
		return grid.Outcome{}, err
	}
	if n >= 2 {
		var children [2]uint32
		for i := range children {
			if children[i], err = g.Tasks.Spawn(ctx, grid.Call{Func: "fib", Stdin: []byte(strconv.Itoa(n - 1 - i))}); err != nil {
				return grid.Outcome{}, err
			}
		}
		n = 0
		for _, c := range children {
			text, err := await(ctx, g, c)
			if err != nil {
				return grid.Outcome{}, err
			}
			v, _ := strconv.Atoi(text)
			n += v
		}
	}
	fmt.Fprint(g.Stdout, n)
	return grid.Outcome{}, nil
}

// number reads a guest's number, from its stdin or, at the top, its arguments.
func number(g *grid.Guest) (int, error) {
	text, err := io.ReadAll(g.Stdin)
	if len(text) == 0 && len(g.Args) > 1 {
		text = []byte(g.Args[1])
	}
	n, _ := strconv.Atoi(string(text))
	return n, err
}

// await gives what a child printed, or how it failed as an error.
func await(ctx context.Context, g *grid.Guest, child uint32) (string, error) {
	e, err := g.Tasks.Await(ctx, child)
	if err != nil {
		return "", err
	}
	if e.Fault != nil {
		return "", grid.Errorf(e.Fault.Code, "fatal %t: %s", e.Fault.Fatal, e.Fault.Message)
	}
	defer e.Stdout.Close()
	text, err := io.ReadAll(e.Stdout)
	return string(text), err
}

func spawning(w *fake.World, args ...string) grid.Request {
	r := request(w, 1)
	r.Stages[0].Args = args
	return r
}

func TestSpawn(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	var runs atomic.Int32
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		runs.Add(1)
		return fibGuest(ctx, g)
	}
	n := open(t, w.Config())
	st, ends := run(t, n, spawning(w, "12"))
	if st.State != grid.Done || string(ends[0].Stdout.Data) != "144" || st.Stages[0].Tasks != 1 {
		t.Fatalf("%+v, %+v", st, ends)
	}
	if st.Stages[0].Spawned < 464 { // what is known already counts as well
		t.Errorf("%d tasks spawned, want 464", st.Stages[0].Spawned)
	}
	before := runs.Load()
	// Some siblings ran at once, but what was known by then did not run again. At the top it is another invocation.
	if before >= 464 {
		t.Errorf("%d guests ran", before)
	}
	if st, ends := run(t, n, spawning(w, "13")); st.State != grid.Done || string(ends[0].Stdout.Data) != "233" {
		t.Errorf("%+v, %+v", st, ends)
	}
	if again := runs.Load() - before; again > 10 {
		t.Errorf("%d guests ran although the results of all but two are known, or just coming", again)
	}
	if n.Brood() != 0 {
		t.Errorf("%d batches are left", n.Brood())
	}
}

// TestSpawnResults: all that a child is given arrives, and all that it leaves comes back, in whatever order.
func TestSpawnResults(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	big := strings.Repeat("x", 3<<20)
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if g.Func != "" {
			in, err := io.ReadAll(g.Stdin)
			if g.Func == "exit" {
				fmt.Fprint(g.Stderr, "oh")
				return grid.Outcome{Exit: 3}, err
			}
			if g.Func == "trap" {
				return grid.Outcome{Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable"}}, err
			}
			fmt.Fprint(g.Stdout, strings.Join(g.Args, ","), " ", strings.Join(g.Env, ","), " ", string(in))
			return grid.Outcome{}, err
		}
		var list []uint32
		for _, c := range []grid.Call{{Func: "a", Args: []string{"x", "y"}, Stdin: []byte("1")}, {Func: "a", Args: []string{"x", "y"}, Stdin: []byte("2")},
			{Func: "a", Stdin: []byte(big)}, {Func: "exit"}, {Func: "trap"}} {
			i, err := g.Tasks.Spawn(ctx, c)
			if err != nil {
				return grid.Outcome{}, err
			}
			list = append(list, i)
		}
		slices.Reverse(list)
		if e, err := g.Tasks.Await(ctx, list[0]); err != nil || e.Fault == nil || e.Fault.Code != grid.Trap || e.Fault.Fatal {
			t.Errorf("trap: %+v, %v", e, err)
		}
		if e, err := g.Tasks.Await(ctx, list[1]); err != nil || e.Fault != nil || e.Exit != 3 || string(e.Stderr) != "oh" {
			t.Errorf("exit: %+v, %v", e, err)
		}
		for i, want := range []string{"main A=b,GRID_ABI=2,GRID_FUNC=a " + big, "main,x,y A=b,GRID_ABI=2,GRID_FUNC=a 2", "main,x,y A=b,GRID_ABI=2,GRID_FUNC=a 1"} {
			if got, err := await(ctx, g, list[2+i]); err != nil || got != want {
				t.Errorf("%d: %.100q, %v, want %.100q", i, got, err, want)
			}
		}
		for _, i := range []uint32{list[0], 5, 1 << 31} {
			if _, err := g.Tasks.Await(ctx, i); grid.CodeOf(err) != grid.NotFound || !g.Tasks.Ended(i) {
				t.Errorf("await %d: %v", i, err)
			}
		}
		for _, c := range []grid.Call{{Func: strings.Repeat("x", 1000)}, {Func: "\xff"}, {Args: []string{strings.Repeat("x", 1<<20)}}, {Stdin: make([]byte, grid.MaxChildStdin+1)}} {
			if _, err := g.Tasks.Spawn(ctx, c); grid.CodeOf(err) != grid.Invalid {
				t.Errorf("%.20s: %v", c.Func, err)
			}
		}
		return grid.Outcome{}, nil
	}
	r := spawning(w)
	r.Stages[0].Env = []string{"A=b"}
	if st, _ := run(t, open(t, w.Config()), r); st.State != grid.Done {
		t.Errorf("%+v", st)
	}
}

// TestSpawnFatal: what is no function of the call ends the parents, too, all the way up, and says so once.
func TestSpawnFatal(t *testing.T) {
	for _, tt := range []struct {
		outcome grid.Outcome
		err     error
		code    grid.Code
		words   string
	}{
		{grid.Outcome{Fault: &grid.Fault{Code: grid.Deadline, Message: "ran for long"}}, nil, grid.Deadline, "fib: ran for long"},
		{grid.Outcome{}, grid.Errorf(grid.NoSpace, "the disk is full"), grid.NoSpace, "fib was given up after as many attempts as it may have: the disk is full"},
	} {
		w := fake.NewWorld(new(fake.Hub), "a")
		w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
			n, _ := number(g)
			if n == 0 {
				return tt.outcome, tt.err
			}
			c, err := g.Tasks.Spawn(ctx, grid.Call{Func: "fib", Stdin: []byte(strconv.Itoa(n - 1))})
			if err != nil {
				return grid.Outcome{}, err
			}
			e, err := g.Tasks.Await(ctx, c)
			if err == nil && !e.Fault.Fatal {
				t.Errorf("%+v", e)
			}
			return grid.Outcome{Fault: e.Fault}, err
		}
		st, _ := run(t, open(t, w.Config()), spawning(w, "4"))
		if st.State != grid.Failed || st.Code != tt.code || !strings.Contains(st.Error, "main task 0: a task that it spawned, "+tt.words) {
			t.Errorf("%+v", st)
		}
	}
}

func TestSpawnBounds(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	t.Cleanup(grid.SetSpawned(grid.MaxSpawnedAlive, 6000))
	var deepest atomic.Int32
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		fault := func(err error) (grid.Outcome, error) {
			if grid.CodeOf(err) != grid.Limit {
				return grid.Outcome{}, err
			}
			return grid.Outcome{Fault: &grid.Fault{Code: grid.Limit, Message: err.Error()}}, nil
		}
		switch {
		case g.Func == "" && g.Args[1] == "bomb":
			for i := range 1_000_000 {
				if _, err := g.Tasks.Spawn(ctx, grid.Call{Func: "nothing", Stdin: []byte{byte(i)}}); err != nil {
					return fault(err)
				}
			}
		case g.Func == "" || g.Func == "deep":
			n, _ := number(g)
			deepest.Store(max(deepest.Load(), int32(n)))
			c, err := g.Tasks.Spawn(ctx, grid.Call{Func: "deep", Stdin: []byte(strconv.Itoa(n + 1))})
			if err != nil {
				return fault(err)
			}
			e, err := g.Tasks.Await(ctx, c)
			return grid.Outcome{Fault: e.Fault}, err
		}
		return grid.Outcome{}, nil
	}
	n := open(t, w.Config())
	st, _ := run(t, n, spawning(w, "bomb"))
	if st.State != grid.Failed || st.Code != grid.Limit || !strings.Contains(st.Error, "spawned more than 6000 tasks without awaiting them") {
		t.Errorf("bomb: %+v", st)
	}
	st, _ = run(t, n, spawning(w, "0"))
	if st.State != grid.Failed || st.Code != grid.Limit || !strings.Contains(st.Error, "at most 64 may") || deepest.Load() != grid.MaxDepth {
		t.Errorf("endless recursion: %d deep, %+v", deepest.Load(), st)
	}
	// That is of where the tasks were spawned, and not of what they are: from elsewhere they go on as deep again.
	deepest.Store(0)
	if run(t, n, spawning(w, "60")); deepest.Load() != 60+grid.MaxDepth {
		t.Errorf("%d deep, though it began with 60", deepest.Load())
	}
	if n.Brood() != 0 {
		t.Errorf("%d batches are left", n.Brood())
	}
}

// TestSpawnTreeBomb: many tasks that each spawn what they may cannot fill a node.
func TestSpawnTreeBomb(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	t.Cleanup(grid.SetSpawned(250, 200))
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		var last uint32
		for range 100 {
			c, err := g.Tasks.Spawn(ctx, grid.Call{Func: "bomb", Stdin: []byte(g.Func)})
			if err != nil {
				return grid.Outcome{}, err
			}
			last = c
		}
		e, err := g.Tasks.Await(ctx, last)
		return grid.Outcome{Fault: e.Fault}, err
	}
	r := spawning(w)
	r.Stages[0].Limits.Output = 1 // whatever makes the key another
	st, _ := run(t, open(t, w.Config()), r)
	if st.State != grid.Failed || st.Code != grid.Busy || !strings.Contains(st.Error, "has spawned on this node") {
		t.Errorf("%+v", st)
	}
}

// endless is a guest that spawns children which run until they are ended. all is closed when enough have begun.
type endless struct {
	children int
	enough   int32
	await    bool
	began    atomic.Int32
	running  atomic.Int32
	all      chan struct{}
}

func (e *endless) guest(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	if g.Func == "" {
		for i := range e.children {
			if _, err := g.Tasks.Spawn(ctx, grid.Call{Func: "wait", Stdin: []byte{byte(i)}}); err != nil {
				return grid.Outcome{}, err
			}
		}
		if !e.await {
			<-e.all
			return grid.Outcome{}, nil
		}
		_, err := g.Tasks.Await(ctx, 0)
		return grid.Outcome{}, err
	}
	e.running.Add(1)
	defer e.running.Add(-1)
	if e.began.Add(1) == e.enough {
		close(e.all)
	}
	<-ctx.Done()
	return grid.Outcome{}, ctx.Err()
}

// ended waits until none runs. One may begin meanwhile, which a WaitGroup would not allow.
func (e *endless) ended(t *testing.T) {
	t.Helper()
	ctx := within(t)
	for e.running.Load() > 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d children run on", e.running.Load())
		}
	}
}

// TestSpawnCancelled: with a job all that its tasks have spawned ends, wherever it runs; and what nobody has awaited
// ends with its parent.
func TestSpawnCancelled(t *testing.T) {
	for _, awaited := range []bool{true, false} {
		t.Run(fmt.Sprint("awaited ", awaited), func(t *testing.T) {
			r := newRemoteRealm(t)
			e := &endless{children: 8, enough: 3, await: awaited, all: make(chan struct{})}
			if awaited {
				e.enough = 4
			}
			for _, name := range []string{"a", "b"} {
				r.join(name, func(c *grid.NodeConfig) {
					s := fake.NewScheduler(2)
					s.Share = true
					c.Scheduler, c.Engine = s, &fake.Engine{Guest: e.guest}
				})
			}
			a := r.all[0]
			id := submit(t, a.Node, spawning(a.w))
			select { // the other node has some of them: there are two slots each
			case <-e.all:
			case <-within(t).Done():
				t.Fatalf("%d children run", e.began.Load())
			}
			if awaited {
				if err := a.Cancel(within(t), id); err != nil {
					t.Fatal(err)
				}
			} else if st := end(t, a.Node, id); st.State != grid.Done {
				t.Errorf("%+v", st)
			}
			e.ended(t)
			if a.Brood() != 0 {
				t.Errorf("%d batches are left", a.Brood())
			}
		})
	}
}

// TestSpawnStolen: children run on other nodes, and those of these on others again.
func TestSpawnStolen(t *testing.T) {
	r := newRemoteRealm(t)
	var on [2]atomic.Int32
	for i, name := range []string{"a", "b"} {
		r.join(name, func(c *grid.NodeConfig) {
			s := fake.NewScheduler(2)
			s.Share = true
			c.Scheduler, c.Engine = s, &fake.Engine{Guest: func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				on[i].Add(1)
				return fibGuest(ctx, g)
			}}
		})
	}
	a := r.all[0]
	req := spawning(a.w, "12")
	req.NoCache = true
	st, ends := run(t, a.Node, req)
	if st.State != grid.Done || string(ends[0].Stdout.Data) != "144" || st.Stages[0].Spawned != 464 {
		t.Errorf("%+v, %+v", st, ends)
	}
	if on[1].Load() == 0 {
		t.Errorf("the other node ran nothing, this one %d", on[0].Load())
	}
}

// TestSpawnOrphans: what a node runs for the children of a task ends when that task's node is gone.
func TestSpawnOrphans(t *testing.T) {
	r := newRemoteRealm(t)
	e := &endless{children: 8, enough: 4, await: true, all: make(chan struct{})}
	for _, name := range []string{"a", "b"} {
		r.join(name, func(c *grid.NodeConfig) {
			s := fake.NewScheduler(2)
			s.Share = true
			c.Scheduler, c.Engine = s, &fake.Engine{Guest: e.guest}
		})
	}
	submit(t, r.all[0].Node, spawning(r.all[0].w))
	select {
	case <-e.all:
	case <-within(t).Done():
		t.Fatalf("%d children run", e.began.Load())
	}
	r.kill(r.all[0])
	e.ended(t)
}

// TestBatchIsNoJob: a batch of children has a name, which travels in leases, but nobody can ask of it, or end it, as if
// it were a job.
func TestBatchIsNoJob(t *testing.T) {
	var hub fake.Hub
	w, member := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	e := &endless{children: 2, enough: 2, await: true, all: make(chan struct{})}
	w.Engine.Guest = e.guest
	s, c := watch(w, nil)
	n := open(t, c)
	enter(t, w, n, member.ID)
	id := submit(t, n, spawning(w))
	<-e.all
	batch := seen(t, s, func(e grid.JobOpened) bool { return e.Lease.Job != id }).Lease.Job
	f := &forger{t: t, owner: w, self: member}
	var reply grid.JobReply
	if err := f.call(grid.ProtoJob, grid.JobMsg{Jobs: []grid.JobID{id, batch}}, &reply); err != nil || reply.Asked != 2 || len(reply.Jobs) != 1 {
		t.Errorf("told %+v, %v", reply, err)
	}
	wantCode(t, f.call(grid.ProtoCancel, grid.CancelMsg{Job: batch, Epoch: 1}, &struct{}{}), grid.NotFound)
	_, err := n.Job(within(t), batch)
	wantCode(t, err, grid.Invalid, "is not a job ID")
	if err := n.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	e.ended(t)
}

// TestSpawnedStage: what tasks spawned, at any depth and on any node, is shown as of the stage of the task at the top; and events that are
// about no stage do not name one.
func TestSpawnedStage(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a := r.all[0]
	for _, m := range r.all {
		m.w.Engine.Guest = fibGuest
	}
	req := spawning(a.w, "1")
	req.Spec.Stages = append(req.Spec.Stages, grid.Stage{Name: "second", Module: a.w.Module, Tasks: 1, Args: []string{"9"}})
	id := submit(t, a.Node, req)
	if st := end(t, a.Node, id); st.State != grid.Done {
		t.Fatalf("%+v", st)
	}
	var own, spawned [2]uint32
	if err := r.all[1].Stretches(within(t), grid.StretchQuery{Job: id}, func(s grid.Stretch) error {
		if s.Spawned {
			spawned[s.Stage] += s.Tasks
		} else {
			own[s.Stage] += s.Tasks
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if own != [2]uint32{1, 1} || spawned[0] != 0 || spawned[1] < 8 {
		t.Errorf("%d tasks ran of the stages, and %d that they have spawned", own, spawned)
	}
	named := map[string]int{}
	if err := r.all[1].RealmEvents(within(t), grid.EventQuery{Job: id}, func(ev grid.RealmEvent) error {
		stage := -1
		if ev.Stage != nil {
			stage = int(*ev.Stage)
		}
		named[fmt.Sprintf("%s %d", ev.Kind, stage)]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"started -1": 1, "stage 0": 2, "stage 1": 2, "spawned 1": 1, "ended -1": 1}; !maps.Equal(named, want) {
		t.Errorf("events %v, want %v", named, want)
	}
}
