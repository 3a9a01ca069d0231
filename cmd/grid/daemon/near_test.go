package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// starts notes which node began which task, and when.
type starts struct {
	mu   sync.Mutex
	list []start
}

type start struct {
	node  *rig
	input string
	at    time.Time
}

// guest is one for a node whose tasks take a while.
func (s *starts) guest(r *rig, took time.Duration) func(context.Context, *grid.Guest) error {
	return func(ctx context.Context, g *grid.Guest) error {
		st := start{node: r, at: time.Now()}
		if len(g.Args) > 1 {
			st.input = g.Args[1]
		}
		s.mu.Lock()
		s.list = append(s.list, st)
		s.mu.Unlock()
		select {
		case <-time.After(took):
		case <-ctx.Done():
		}
		return nil
	}
}

func (s *starts) take() []start {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// finish submits a job and waits for its end.
func (r *rig) finish(t testing.TB, req grid.Request) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := r.node.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	var last grid.JobStatus
	if err := r.node.Watch(ctx, id, func(st grid.JobStatus) error { last = st; return nil }); err != nil || last.State != grid.Done {
		t.Fatalf("job ended as %s: %s, %v", last.State, last.Error, err)
	}
}

// BenchmarkFirstSteal is the time between the first task on a busy node and the first that a node steals which
// had nothing to do and slept: one message wakes it, one brings the task.
func BenchmarkFirstSteal(b *testing.B) {
	w := memnet.New(memnet.Config{})
	a, idle := newRig(b, w, 1), newRig(b, w, 1)
	oneRealm(b, a, idle)
	var s starts
	a.eng.guest, idle.eng.guest = s.guest(a, 30*time.Millisecond), s.guest(idle, 30*time.Millisecond)
	req := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: a.add(b, []byte("module")), Tasks: 2}}}, NoCache: true}
	a.finish(b, req) // brings the module
	s.take()
	var all []time.Duration
	for b.Loop() {
		a.finish(b, req)
		list := s.take()
		if len(list) == 2 && list[0].node != list[1].node {
			all = append(all, list[1].at.Sub(list[0].at).Abs())
		}
	}
	if len(all) == 0 {
		b.Fatal("nothing was stolen")
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs/steal")
	b.ReportMetric(float64(len(all))/float64(b.N), "steals/job")
}

// TestNearData: in a second run over the same inputs tasks run where their inputs have come to be in the first.
func TestNearData(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 1), newRig(t, w, 1)
	oneRealm(t, a, b)
	var s starts
	a.eng.guest, b.eng.guest = s.guest(a, 10*time.Millisecond), s.guest(b, 10*time.Millisecond)
	module := a.add(t, []byte("module"))
	var rows []grid.Row
	for i := range 64 {
		rows = append(rows, grid.Row{{Name: fmt.Sprintf("in%02d", i), CID: a.add(t, noise(256<<10)), Size: 256 << 10}})
	}
	req := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: module, Args: []string{"{}"}}}}, Rows: [][]grid.Row{rows}, NoCache: true}
	a.finish(t, req)
	there := map[string]bool{}
	for _, st := range s.take() {
		if st.node == b {
			there[st.input] = true
		}
	}
	if len(there) < 8 {
		t.Fatalf("the other node ran %d tasks of 64", len(there))
	}
	a.finish(t, req)
	near, far := 0, 0
	for _, st := range s.take() {
		if st.node == b && there[st.input] {
			near++
		} else if st.node == b {
			far++
		}
	}
	t.Logf("first run: %d tasks there; second run: %d there whose inputs it had, %d others", len(there), near, far)
	if near <= far {
		t.Errorf("of the tasks that the other node ran, it had the inputs of %d and had to fetch those of %d", near, far)
	}
}
