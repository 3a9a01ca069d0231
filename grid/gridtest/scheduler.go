package gridtest

import (
	"reflect"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestScheduler checks what every grid.Scheduler owes to the node that drives it. Open makes one that
// knows no peers and no jobs; two that are opened alike must behave alike.
func TestScheduler(t *testing.T, open func(self peer.ID, slots int) grid.Scheduler) {
	t.Run("runs every task once", func(t *testing.T) {
		d := newDriver(open("me", 3))
		d.submit("j1", 1000, 7)
		d.run(t)
		for stage, ran := range d.ran {
			for i, n := range ran {
				if n != 1 {
					t.Fatalf("task %d of stage %d ran %d times", i, stage, n)
				}
			}
		}
		if d.closed != 1 || len(d.failed) > 0 {
			t.Errorf("closed %d times, failed %v", d.closed, d.failed)
		}
		if l := d.s.Load(); l.Queued != 0 || l.Running != 0 || l.Slots != 3 {
			t.Errorf("load at the end: %+v", l)
		}
	})
	t.Run("asks for what can be prepared", func(t *testing.T) {
		d := newDriver(open("me", 2))
		// Two stages side by side; one that needs single tasks of the first, and one that needs all of both.
		d.open("j1", grid.JobOpened{Stages: []grid.StagePlan{{Tasks: 9}, {Tasks: 4},
			{Tasks: 3, Needs: []grid.Need{{Stage: 0, Fan: 4}}}, {Tasks: 2, Needs: []grid.Need{{Stage: 1}, {Stage: 2}}}}})
		ended := func(stage, lo, hi uint32) bool {
			for i := lo; i < hi; i++ {
				if d.ran[stage][i] == 0 {
					return false
				}
			}
			return true
		}
		asked := map[grid.Work]map[uint32]bool{}
		d.seen = func(e grid.Prepare) {
			if asked[e.Work] == nil {
				asked[e.Work] = map[uint32]bool{}
			}
			for _, s := range e.Spans {
				for i := s.Lo; i < s.Hi; i++ {
					if asked[e.Work][i] {
						t.Errorf("stage %d task %d is asked for again", e.Stage, i)
					}
					asked[e.Work][i] = true
					if e.Stage == 2 && !ended(0, 4*i, min(4*i+4, 9)) || e.Stage == 3 && !(ended(1, 0, 4) && ended(2, 0, 3)) {
						t.Errorf("stage %d task %d is asked for before what it needs has ended", e.Stage, i)
					}
				}
			}
		}
		d.run(t)
		if d.closed != 1 || d.bad {
			t.Errorf("closed %d times, bad %v", d.closed, d.bad)
		}
	})
	t.Run("lets as many tasks fail as it may", func(t *testing.T) {
		for allow := range uint32(4) {
			d := newDriver(open("me", 1))
			d.outcome = func(i uint32) grid.TaskOutcome {
				if i%10 == 3 {
					return grid.GuestFailed
				}
				return grid.Succeeded
			}
			d.open("j1", grid.JobOpened{Allow: allow, Stages: []grid.StagePlan{{Tasks: 20}, {Tasks: 1, Needs: []grid.Need{{}}}}})
			d.run(t)
			if want := allow < 2; d.closed != 1 || d.bad != want || uint32(len(d.failed)) != min(allow+1, 2) {
				t.Errorf("allowed %d: closed %d times, bad %v, failed %v", allow, d.closed, d.bad, d.failed)
			}
		}
	})
	t.Run("fails fast", func(t *testing.T) {
		d := newDriver(open("me", 1))
		d.outcome = func(i uint32) grid.TaskOutcome {
			if i == 3 {
				return grid.GuestFailed
			}
			return grid.Succeeded
		}
		d.submit("j1", 1000)
		d.run(t)
		if d.closed != 1 || len(d.failed) != 1 || d.failed[0].Index != 3 || d.failed[0].Attempts != 0 {
			t.Errorf("closed %d times, failed %v", d.closed, d.failed)
		}
	})
	t.Run("gives up on a bad node", func(t *testing.T) {
		d := newDriver(open("me", 1))
		d.outcome = func(uint32) grid.TaskOutcome { return grid.HostFailed }
		d.submit("j1", 1)
		d.run(t)
		if d.closed != 1 || len(d.failed) != 1 || d.failed[0].Attempts < 2 {
			t.Errorf("closed %d times, failed %v", d.closed, d.failed)
		}
	})
	t.Run("is deterministic", func(t *testing.T) {
		a, b := newDriver(open("me", 2)), newDriver(open("me", 2))
		for _, d := range []*driver{a, b} {
			for _, p := range []peer.ID{"A", "B", "C", "D"} {
				d.step(grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: p, Up: true}})
			}
			d.submit("j1", 300)
			d.run(t)
		}
		if !reflect.DeepEqual(a.log, b.log) {
			t.Error("equal events gave different effects")
		}
	})
	t.Run("answers every ask", func(t *testing.T) {
		d := newDriver(open("me", 1))
		for call := range uint64(5) {
			answered := false
			for _, e := range d.s.Step(d.now, grid.StealAsked{From: "A", Call: call, Slots: 1}) {
				if a, ok := e.(grid.AnswerSteal); ok && a.Call == call && len(a.Leases) == 0 {
					answered = true
				}
			}
			if !answered {
				t.Fatalf("call %d was not answered with nothing", call)
			}
		}
	})
	t.Run("ignores what it does not know", func(t *testing.T) {
		d := newDriver(open("me", 1))
		for _, ev := range []grid.Event{
			grid.Prepared{Work: grid.Work{Job: "j9"}, Ready: []grid.Span{{Lo: 0, Hi: 5}}},
			grid.JobEnded{Job: "j9"},
			grid.GrainDone{Slot: 0}, grid.GrainDone{Slot: 7}, grid.GrainDone{Slot: -1},
			grid.Reported{From: "A", Work: grid.Work{Job: "j9"}, Results: []grid.TaskResult{{Index: 1}}},
			grid.Dropped{Job: "j9", Epoch: 3},
			grid.StealAnswered{From: "A", Failed: true},
			grid.Tick{},
		} {
			for _, e := range d.s.Step(d.now, ev) {
				t.Errorf("%T%+v gave %T%+v", ev, ev, e, e)
			}
		}
		told := d.s.Step(d.now, grid.Claimed{From: "A", Work: grid.Work{Job: "j9"}, Epoch: 3, Spans: []grid.Span{{Lo: 0, Hi: 1}}})
		if want := []grid.Effect{grid.TellDropped{To: "A", Job: "j9", Epoch: 3}}; !reflect.DeepEqual(told, want) {
			t.Errorf("a claim on an unknown job gave %v, want %v", told, want)
		}
	})
}

// driver plays the node around a scheduler that has nobody to work with: tasks take a millisecond.
type driver struct {
	s       grid.Scheduler
	now     time.Time
	outcome func(i uint32) grid.TaskOutcome
	todo    []grid.Effect
	log     []grid.Effect
	ran     [][]int
	seen    func(grid.Prepare)
	closed  int
	bad     bool
	failed  []grid.FailedTask
}

func newDriver(s grid.Scheduler) *driver {
	return &driver{s: s, now: time.Unix(1<<30, 0), outcome: func(uint32) grid.TaskOutcome { return grid.Succeeded }}
}

func (d *driver) step(ev grid.Event) {
	effects := d.s.Step(d.now, ev)
	d.todo = append(d.todo, effects...)
	d.log = append(d.log, effects...)
}

// submit opens a job of stages that follow one another, of so many tasks each.
func (d *driver) submit(id grid.JobID, tasks ...uint32) {
	plans := make([]grid.StagePlan, len(tasks))
	for i, n := range tasks {
		plans[i].Tasks = n
		if i > 0 {
			plans[i].Needs = []grid.Need{{Stage: uint32(i - 1)}}
		}
	}
	d.open(id, grid.JobOpened{Stages: plans})
}

func (d *driver) open(id grid.JobID, ev grid.JobOpened) {
	for _, p := range ev.Stages {
		d.ran = append(d.ran, make([]int, p.Tasks))
	}
	ev.Lease = grid.Lease{Job: id, Owner: "me", Epoch: 1}
	d.step(ev)
}

// run carries out effects until the job is closed and nothing is left to do.
func (d *driver) run(t *testing.T) {
	t.Helper()
	for range 1_000_000 {
		if len(d.todo) == 0 {
			next := d.s.NextTick()
			if d.closed > 0 || next.IsZero() {
				break
			}
			d.now = next
			d.step(grid.Tick{})
			if again := d.s.NextTick(); !again.IsZero() && !again.After(d.now) {
				t.Fatal("after a Tick, another is due at once")
			}
			continue
		}
		e := d.todo[0]
		d.todo = d.todo[1:]
		d.carryOut(e)
	}
	if d.closed == 0 {
		t.Fatal("the job was never closed")
	}
}

func (d *driver) carryOut(e grid.Effect) {
	switch e := e.(type) {
	case grid.Prepare:
		if d.seen != nil {
			d.seen(e)
		}
		for _, s := range e.Spans {
			half := s.Lo + s.Len()/2
			d.step(grid.Prepared{Work: e.Work, Ready: []grid.Span{{Lo: s.Lo, Hi: half}}})
			d.step(grid.Prepared{Work: e.Work, Ready: []grid.Span{{Lo: half, Hi: s.Hi}}})
		}
	case grid.Run:
		d.now = d.now.Add(time.Duration(e.Lease.Len()) * time.Millisecond)
		done := grid.GrainDone{Slot: e.Slot, Took: time.Duration(e.Lease.Len()) * time.Millisecond, Ran: int(e.Lease.Len())}
		for i := e.Lease.Lo; i < e.Lease.Hi; i++ {
			d.ran[e.Lease.Stage][i]++
			done.Results = append(done.Results, grid.TaskResult{Index: i, Outcome: d.outcome(i)})
		}
		d.step(done)
	case grid.CloseJob:
		d.closed++
		d.failed, d.bad = e.Failed, e.Bad
	case grid.AskSteal:
		d.step(grid.StealAnswered{From: e.Victim})
	}
}
