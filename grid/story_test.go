package grid_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func events(t testing.TB, n *grid.Node, id grid.JobID) (out []grid.JobEvent) {
	t.Helper()
	if err := n.Events(within(t), id, false, func(e grid.JobEvent) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func kinds(list []grid.JobEvent) (out []grid.EventKind) {
	for _, e := range list {
		out = append(out, e.Kind)
	}
	return out
}

func wantEvents(t testing.TB, list []grid.JobEvent, want ...grid.EventKind) {
	t.Helper()
	if !slices.Equal(kinds(list), want) {
		t.Errorf("events %+v, want %v", list, want)
	}
	for i := range list {
		if i > 0 && !list[i].At.After(list[i-1].At) {
			t.Errorf("event %d is not after the one before: %+v", i, list)
		}
	}
}

func TestEventsOfOneNode(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		if strings.Contains(strings.Join(g.Env, " "), "GRID_TASK=1") {
			return grid.Outcome{Exit: 3}, nil
		}
		return grid.Outcome{}, nil
	}
	n := open(t, w.Config())
	r := request(w, 2)
	r.KeepGoing = true
	st, _ := run(t, n, r)
	list := events(t, n, st.ID)
	wantEvents(t, list, grid.EventStarted, grid.EventStage, grid.EventStage, grid.EventEnded)
	if list[0].Node != w.ID || list[0].Text != "accepted" {
		t.Errorf("the first is %+v", list[0])
	}
	if text := list[2].Text; text != "main ended: 1 of 2 tasks well, 1 failed" {
		t.Errorf("of the stage's end: %q", text)
	}
	if text := list[3].Text; !strings.HasPrefix(text, "failed: main task 1") {
		t.Errorf("of the end: %q", text)
	}
	stop := errors.New("enough")
	if err := n.Events(within(t), st.ID, true, func(grid.JobEvent) error { return stop }); err != stop {
		t.Errorf("the caller's error came back as %v", err)
	}
	wantCode(t, n.Events(within(t), "jzzzzzzz", false, nil), grid.NotFound)
}

// TestEventsFollowTheJob: events come to whichever node asks, while the job runs and after, and go on with its next owner.
func TestEventsFollowTheJob(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	r.share()
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	for _, m := range r.all {
		m.w.Engine.Guest = g.guest
	}
	g.let(1)
	id := submit(t, a.Node, request(a.w, 3))
	p := watchJob(t.Context(), b.Node, id)
	p.until(t, 0, "an ended task", endedTasks(1))
	wantEvents(t, events(t, b.Node, id), grid.EventStarted, grid.EventStage)

	var list []grid.JobEvent
	began, done := make(chan struct{}, 16), make(chan error, 1)
	go func() {
		done <- b.Events(t.Context(), id, true, func(e grid.JobEvent) error {
			list = append(list, e)
			if e.Kind == grid.EventStage {
				began <- struct{}{}
			}
			return nil
		})
	}()
	select {
	case <-began:
	case <-within(t).Done():
		t.Fatal("no event of the stage")
	}
	r.kill(a)
	r.expire(a)
	select {
	case <-began:
	case <-within(t).Done():
		t.Fatal("no event of the stage with the next owner")
	}
	g.let(3)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-within(t).Done():
		t.Fatal("the events do not end")
	}
	want := []grid.EventKind{grid.EventStarted, grid.EventStage, grid.EventStarted, grid.EventStage, grid.EventStage, grid.EventEnded}
	if !slices.Equal(kinds(list), want) {
		t.Fatalf("followed events %+v, want %v", list, want)
	}
	if e := list[2]; !strings.Contains(e.Text, "taken over: this is its owner number 2") || e.Node == a.w.ID {
		t.Errorf("of the take-over: %+v", e)
	}
	for _, m := range r.all[1:] {
		all := events(t, m.Node, id) // the first owner's among them, if it lived for long enough to save them
		wantEvents(t, all[max(0, len(all)-4):], grid.EventStarted, grid.EventStage, grid.EventStage, grid.EventEnded)
	}
}

// TestEventsOutliveTheirOwner: what an owner has told and saved is part of the story with the next one, and of a job that is
// cancelled there, too; who has followed all the time is told nothing twice.
func TestEventsOutliveTheirOwner(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRemoteRealm(t)
			a := r.join("a", func(c *grid.NodeConfig) {
				c.Scheduler = &noter{c.Scheduler.(*fake.Scheduler), []grid.JobEvent{{Kind: grid.EventLost, Node: nodeID("x"), Text: "told by the first owner"}}}
			})
			b := r.join("b")
			r.share()
			defer r.close()
			g := newRemoteGate()
			a.w.Engine.Guest, b.w.Engine.Guest = g.guest, g.guest
			id := submit(t, a.Node, request(a.w, 3))
			var followed []grid.JobEvent
			done := make(chan error, 1)
			go func() {
				done <- b.Events(t.Context(), id, true, func(e grid.JobEvent) error { followed = append(followed, e); return nil })
			}()
			time.Sleep(5 * time.Second)
			if rec := r.record(id); !rec.Checkpoint.Defined() {
				t.Error("what happened is not saved, as no task has ended")
			}
			r.kill(a)
			r.expire(a)
			time.Sleep(5 * time.Second)
			ended := []grid.EventKind{grid.EventStage, grid.EventEnded}
			if cancel {
				ended = ended[1:]
				if err := b.Cancel(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			g.let(3)
			if err := <-done; err != nil {
				t.Error(err)
			}
			want := append([]grid.EventKind{grid.EventStarted, grid.EventLost, grid.EventStage, grid.EventStarted, grid.EventStage}, ended...)
			for _, list := range [][]grid.JobEvent{followed, events(t, b.Node, id)} {
				slices.SortStableFunc(list[1:3], func(x, y grid.JobEvent) int { return strings.Compare(string(x.Kind), string(y.Kind)) })
				if !slices.Equal(kinds(list), want) || list[0].Epoch != 1 || list[3].Epoch != 2 || list[len(list)-1].Epoch != 2 {
					t.Errorf("events %+v, want %v", list, want)
				}
			}
		})
	}
}

// noter is a fake scheduler that tells of jobs.
type noter struct {
	*fake.Scheduler
	notes []grid.JobEvent
}

func (s *noter) Step(now time.Time, ev grid.Event) []grid.Effect {
	out := s.Scheduler.Step(now, ev)
	if o, ok := ev.(grid.JobOpened); ok {
		for _, e := range s.notes {
			out = append(out, grid.Note{Job: o.Lease.Job, Event: e})
		}
	}
	return out
}

// TestManyEvents: only the last ones are kept, and that is told.
func TestManyEvents(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	c := w.Config()
	s := &noter{Scheduler: c.Scheduler.(*fake.Scheduler)}
	for range grid.MaxJobEvents {
		s.notes = append(s.notes, grid.JobEvent{Kind: grid.EventLost, Node: nodeID("b"), Tasks: grid.Span{Lo: 1, Hi: 2}, Text: strings.Repeat("é", 1000) + "\x00"})
	}
	c.Scheduler = s
	n := open(t, c)
	st, _ := run(t, n, request(w, 1))
	list := events(t, n, st.ID)
	if len(list) != grid.MaxJobEvents+2 || list[0].Kind != grid.EventForgotten || list[0].Text != "3 earlier events are not kept" {
		t.Fatalf("%d events, the first %+v", len(list), list[0])
	}
	if e := list[1]; e.Node != nodeID("b") || e.Tasks.Lo != 1 || len(e.Text) > 520 || strings.Contains(e.Text, "\x00") {
		t.Errorf("an event came back as %+v", e)
	}
	if list[len(list)-1].Kind != grid.EventEnded {
		t.Errorf("the last is %+v", list[len(list)-1])
	}
}
