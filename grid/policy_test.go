package grid_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestNormalizePlacing(t *testing.T) {
	s := grid.Spec{Stages: []grid.Stage{{Module: link("m"), Tasks: 1, Require: "zone in (b,a) , gpu==true", Prefer: "!spot,!spot"}}}
	if err := s.Normalize(); err != nil {
		t.Fatal(err)
	}
	if st := &s.Stages[0]; st.Require != "gpu=true,zone in (a,b)" || st.Prefer != "!spot" {
		t.Errorf("selectors became %q and %q", st.Require, st.Prefer)
	}
	for want, edit := range map[string]func(*grid.Spec){
		"require: selector": func(s *grid.Spec) { s.Stages[0].Require = "a b" },
		"prefer: selector":  func(s *grid.Spec) { s.Stages[0].Prefer = "=" },
		"2000 cores":        func(s *grid.Spec) { s.Stages[0].Reserve.Cores = 2000 },
		"101 attempts":      func(s *grid.Spec) { s.Stages[0].Attempts = 101 },
		"the salt":          func(s *grid.Spec) { s.Salt = strings.Repeat("s", 129) },
	} {
		s := grid.Spec{Stages: []grid.Stage{{Module: link("m"), Tasks: 1}}}
		edit(&s)
		if err := s.Normalize(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestPolicyReachesTheScheduler: what a request says of how it is to run is what the scheduler is told.
func TestPolicyReachesTheScheduler(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	var mu sync.Mutex
	var opened []grid.JobOpened
	c := w.Config()
	c.Scheduler.(*fake.Scheduler).Seen = func(ev grid.Event) {
		if o, ok := ev.(grid.JobOpened); ok {
			mu.Lock()
			defer mu.Unlock()
			opened = append(opened, o)
		}
	}
	n := open(t, c)
	r := request(w, 2)
	r.Allow, r.Salt = 3, "s"
	r.Policy = grid.Policy{User: "ann", Priority: -2, Parallel: 4, Deadline: time.Hour, Start: time.Minute}
	st := &r.Stages[0]
	st.Require, st.Prefer, st.Attempts = "os", "zone = a", 5
	st.Reserve = grid.Reserve{Cores: 1, Memory: 1 << 20, Scratch: 1 << 10}
	run(t, n, r)
	run(t, n, request(w, 1))
	mu.Lock()
	defer mu.Unlock()
	o := opened[0]
	want := grid.Class{User: "ann", Priority: -2, Require: "os", Prefer: "zone=a", Cores: 1, Memory: 1 << 20, Scratch: 1 << 10, Pure: true}
	if o.Stages[0].Class != want || o.Stages[0].Attempts != 5 {
		t.Errorf("class %+v, %d attempts; want %+v, 5", o.Stages[0].Class, o.Stages[0].Attempts, want)
	}
	if o.Allow != 3 || o.Parallel != 4 || o.Deadline <= 0 || o.Deadline > time.Hour || o.Start <= 0 || o.Start > time.Minute {
		t.Errorf("opened %+v", o)
	}
	if got := opened[1].Stages[0].Class; got != (grid.Class{User: w.ID.String(), Pure: true}) || opened[1].Deadline != 0 || opened[1].Start != 0 {
		t.Errorf("without a policy: %+v", opened[1])
	}
}

func TestPolicyRefused(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	for want, p := range map[string]grid.Policy{
		"user's name":       {User: strings.Repeat("u", 129)},
		"priority 9":        {Priority: 9},
		"may be negative":   {Deadline: -1},
		"is to have ended":  {Deadline: 1, Start: 2},
		"priority -1000000": {Priority: -1000000},
	} {
		r := request(w, 1)
		r.Policy = p
		if _, err := n.Submit(within(t), r); grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", p, err, want)
		}
	}
}

func TestQuotas(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	block := make(chan struct{})
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		select {
		case <-block:
		case <-ctx.Done():
		}
		return grid.Outcome{}, ctx.Err()
	}
	c := w.Config()
	c.Quota = grid.Quota{Jobs: 2, Tasks: 10}
	n := open(t, c)
	by := func(user string, tasks uint32) grid.Request {
		r := request(w, tasks)
		r.User = user
		return r
	}
	submit(t, n, by("ann", 3))
	_, err := n.Submit(within(t), by("ann", 8))
	wantCode(t, err, grid.Limit, "user ann has 3 tasks left", "10", "this job has 8")
	id := submit(t, n, by("ann", 7))
	_, err = n.Submit(within(t), by("ann", 1))
	wantCode(t, err, grid.Limit, "user ann has 2 jobs", "accepts 2")
	if grid.AdviceOf(err) == "" {
		t.Error("no advice")
	}
	submit(t, n, by("bob", 10))
	if err := n.Cancel(within(t), id); err != nil {
		t.Fatal(err)
	}
	submit(t, n, by("ann", 1))
	close(block)
}

// TestBadLeases: what a victim gives that no honest owner made is dropped, and the victim accused.
func TestBadLeases(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	s := w.Config().Scheduler.(*fake.Scheduler)
	var mu sync.Mutex
	var accused []grid.Accused
	answered := make(chan grid.StealAnswered, 1)
	s.Seen = func(ev grid.Event) {
		switch ev := ev.(type) {
		case grid.Accused:
			mu.Lock()
			accused = append(accused, ev)
			mu.Unlock()
		case grid.StealAnswered:
			answered <- ev
		}
	}
	c := w.Config()
	c.Scheduler = s
	other := hub.Join(nodeID("b"))
	enter(t, w, open(t, c), other.Self())
	good := grid.Lease{Job: "jgood", Owner: nodeID("b"), Epoch: 1, Spec: link("s"), Span: grid.Span{Hi: 1}}
	bad := []func(*grid.Lease){
		func(l *grid.Lease) { l.Class.Cores = 1 << 20 },
		func(l *grid.Lease) { l.Class.Require = "a b" },
		func(l *grid.Lease) { l.Class.Require = "b,a" },
		func(l *grid.Lease) { l.Class.Priority = 100 },
		func(l *grid.Lease) { l.Stage = 1 << 20 },
		func(l *grid.Lease) { l.Hi = 1 << 30 },
		func(l *grid.Lease) { l.Hi = 0 },
		func(l *grid.Lease) { l.Job = "" },
		func(l *grid.Lease) { l.Owner = "" },
	}
	leases := []grid.Lease{good}
	for _, spoil := range bad {
		l := good
		spoil(&l)
		leases = append(leases, l)
	}
	other.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
		return grid.Marshal(grid.StealReply{Leases: leases})
	})
	data, _ := grid.Marshal(grid.WakeMsg{})
	if _, err := other.Call(within(t), w.ID, grid.ProtoWake, data); err != nil {
		t.Fatal(err)
	}
	select {
	case ev := <-answered:
		if len(ev.Leases) != 1 || ev.Leases[0].Job != "jgood" {
			t.Errorf("leases %v came through", ev.Leases)
		}
	case <-within(t).Done():
		t.Fatal("no answer to the theft")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(accused) != 1 || accused[0].Peer != nodeID("b") {
		t.Errorf("accused %+v", accused)
	}
}

// TestAccusedOnceInAWhile: who sends nonsense as fast as it can is accused once, not each time.
func TestAccusedOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub fake.Hub
		w := fake.NewWorld(&hub, "a")
		accused := make(chan struct{}, 100)
		w.Scheduler = fake.NewScheduler(1)
		w.Scheduler.Seen = func(ev grid.Event) {
			if _, ok := ev.(grid.Accused); ok {
				accused <- struct{}{}
			}
		}
		c := w.Config()
		c.Slots = 1
		n := open(t, c)
		liar := hub.Join(nodeID("liar"))
		for want := 1; want <= 2; want++ {
			for range 20 {
				if _, err := liar.Call(within(t), w.ID, grid.ProtoClaim, []byte("nonsense")); grid.CodeOf(err) != grid.Invalid {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if len(accused) != want {
				t.Errorf("accused %d times, want %d", len(accused), want)
			}
			time.Sleep(2 * time.Second)
		}
		n.Close()
	})
}
