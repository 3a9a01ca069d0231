package grid

import (
	"sync"
	"testing"
	"time"
)

func TestTiming(t *testing.T) {
	var m Timing
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, d := range []time.Duration{-1, 0, 10 * time.Microsecond, 11 * time.Microsecond, time.Second, 2 * time.Hour} {
				m.Observe(d)
			}
		})
	}
	wg.Wait()
	count, sum, below := m.Read()
	if want := 4 * (7201 + 21e-6); count != 24 || sum < want-1e-6 || sum > want+1e-6 {
		t.Errorf("%d took %v s, want 24 and %v", count, sum, want)
	}
	for le, want := range map[float64]uint64{1e-5: 12, 3e-5: 16, 0.3: 16, 1: 20, 3600: 20} {
		if got, ok := below[le]; !ok || got != want {
			t.Errorf("%d took no more than %v s, want %d", got, le, want)
		}
	}
	if len(below) != len(timingBounds) {
		t.Errorf("%d bounds, want %d", len(below), len(timingBounds))
	}
}

func TestMeasures(t *testing.T) {
	m := new(Measures)
	m.ran(&Receipt{Fuel: 3, Phases: Phases{Fetch: time.Second, Run: time.Second}}, time.Second)
	m.ran(&Receipt{Fuel: 4, Fault: &Fault{Code: Limit}}, time.Second)
	m.ran(&Receipt{Exit: 1, Fault: nil}, time.Second)
	m.Lost.Add(Code(9999))
	m.asked([]Lease{{Span: Span{2, 7}}, {Span: Span{9, 10}}}, nil)
	m.asked(nil, nil)
	m.asked(nil, Errorf(Unavailable, "gone"))
	m.ended(Failed, time.Minute)
	if n, _, _ := m.Tasks.Read(); n != 3 || m.Fuel.Load() != 7 || m.Exits.Load() != 1 || m.Taken.Load() != 6 {
		t.Errorf("%d tasks, %d fuel, %d exits, %d taken", n, m.Fuel.Load(), m.Exits.Load(), m.Taken.Load())
	}
	for i, want := range []uint64{1, 0, 0, 0, 1, 0, 0} {
		if n, _, _ := m.Phases[i].Read(); n != want {
			t.Errorf("%d with phase %s, want %d", n, PhaseNames[i], want)
		}
	}
	for i := range m.Steals {
		if m.Steals[i].Load() != 1 {
			t.Errorf("answers %q: %d", StealNames[i], m.Steals[i].Load())
		}
	}
	m.Faults.Each(func(c Code, n uint64) {
		if c != Limit || n != 1 {
			t.Errorf("%d faults %v", n, c)
		}
	})
	m.Lost.Each(func(c Code, n uint64) {
		if c != Unknown || n != 1 {
			t.Errorf("%d lost as %v", n, c)
		}
	})
	m.EachEnd(func(s State, n uint64) {
		if want := uint64(0); s == Failed && n != 1 || s != Failed && n != want {
			t.Errorf("%d jobs %s", n, s)
		}
	})
	m.queue(0, time.Hour)
	m.queue(3, 2*time.Second)
	m.queue(1<<24, 1000*time.Hour)
	if got := m.Waited(); got != 6+3.6e6*(1<<24) {
		t.Errorf("tasks have waited for %v s", got)
	}
	r := &Receipt{Phases: Phases{1, 2, 3, 4, 5, 6, 7}}
	if n := testing.AllocsPerRun(100, func() { m.ran(r, time.Millisecond) }); n != 0 {
		t.Errorf("counting a task allocates %v times", n)
	}
}

// BenchmarkMeasures is what counting costs each task.
func BenchmarkMeasures(b *testing.B) {
	m := new(Measures)
	r := &Receipt{Phases: Phases{30e3, 0, 1e3, 2e3, 50e3, 20e3, 0}, Fuel: 1000}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.ran(r, 100*time.Microsecond)
		}
	})
}
