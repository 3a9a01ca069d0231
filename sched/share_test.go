package sched

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// desk plays a node alone in virtual time: tasks take what their job says.
type desk struct {
	t     *testing.T
	core  *Core
	now   time.Time
	began time.Time
	runs  []deskRun // by slot
	takes map[grid.JobID]time.Duration
	used  map[grid.JobID]time.Duration // slot time
	last  map[grid.JobID]time.Time     // when a grain of it began
	gap   map[grid.JobID]time.Duration // the longest between two
	done  map[grid.JobID]time.Time
	check bool // after every step
}

type deskRun struct {
	lease grid.Lease // of no tasks: idle
	ends  time.Time
	began time.Time
}

func newDesk(t *testing.T, cfg Config) *desk {
	cfg.Self = "me"
	start := time.Unix(1<<30, 0)
	return &desk{
		t: t, core: New(cfg), now: start, began: start, runs: make([]deskRun, cfg.Slots), check: true,
		takes: map[grid.JobID]time.Duration{}, used: map[grid.JobID]time.Duration{}, last: map[grid.JobID]time.Time{},
		gap: map[grid.JobID]time.Duration{}, done: map[grid.JobID]time.Time{},
	}
}

func (d *desk) submit(id grid.JobID, tasks uint32, takes time.Duration, cl grid.Class) {
	d.takes[id] = takes
	d.last[id] = d.now
	d.step(grid.JobOpened{Lease: grid.Lease{Job: id, Epoch: 1}, Stages: []grid.StagePlan{{Tasks: tasks, Class: cl}}})
}

func (d *desk) step(ev grid.Event) {
	d.t.Helper()
	todo := []grid.Event{ev}
	for len(todo) > 0 {
		ev := todo[0]
		todo = todo[1:]
		for _, e := range d.core.Step(d.now, ev) {
			switch e := e.(type) {
			case grid.Prepare:
				todo = append(todo, grid.Prepared{Work: e.Work, Ready: e.Spans})
			case grid.Run:
				id := e.Lease.Job
				d.runs[e.Slot] = deskRun{lease: e.Lease, began: d.now, ends: d.now.Add(time.Duration(e.Lease.Len()) * d.takes[id])}
				d.gap[id] = max(d.gap[id], d.now.Sub(d.last[id]))
				d.last[id] = d.now
			case grid.CloseJob:
				d.done[e.Job] = d.now
			}
		}
	}
	if d.check {
		if err := d.core.Check(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// until plays on to so long after the beginning, or until nothing runs.
func (d *desk) until(t time.Duration) {
	d.t.Helper()
	for end := d.began.Add(t); ; {
		next := -1
		for i, r := range d.runs {
			if r.lease.Len() > 0 && (next < 0 || r.ends.Before(d.runs[next].ends)) {
				next = i
			}
		}
		if next < 0 || d.runs[next].ends.After(end) {
			d.now = end
			return
		}
		r := d.runs[next]
		d.runs[next] = deskRun{}
		d.now = r.ends
		took := r.ends.Sub(r.began)
		d.used[r.lease.Job] += took * time.Duration(max(r.lease.Class.Cores, 1))
		var results []grid.TaskResult
		for i := r.lease.Lo; i < r.lease.Hi; i++ {
			results = append(results, grid.TaskResult{Index: i})
		}
		d.step(grid.GrainDone{Slot: next, Took: took, Ran: len(results), Results: results})
	}
}

const many = 1 << 20 // tasks, more than a test runs

func TestShares(t *testing.T) {
	type job struct {
		id    grid.JobID
		takes time.Duration
		class grid.Class
		part  float64 // of all slot time
	}
	ms := time.Millisecond
	of := func(user string, prio int) grid.Class { return grid.Class{User: user, Priority: prio} }
	tests := []struct {
		name  string
		slots int
		cfg   Config
		jobs  []job
	}{
		{"two users, long tasks and short", 2, Config{}, []job{
			{"a", 700 * ms, of("ann", 0), .5}, {"b", ms, of("bob", 0), .5}}},
		{"however many jobs one has", 3, Config{}, []job{
			{"a", 30 * ms, of("ann", 0), .5}, {"b1", 7 * ms, of("bob", 0), .125}, {"b2", 90 * ms, of("bob", 0), .125},
			{"b3", 20 * ms, of("bob", 0), .125}, {"b4", 20 * ms, of("bob", 0), .125}}},
		{"by weight", 4, Config{Weights: map[string]float64{"ann": 3, "bob": .5}}, []job{
			{"a", 10 * ms, of("ann", 0), 3 / 4.5}, {"b", 50 * ms, of("bob", 0), .5 / 4.5}, {"c", 50 * ms, of("cyd", 0), 1 / 4.5}}},
		{"by priority among one's own", 2, Config{}, []job{
			{"a", 10 * ms, of("ann", 8), .5}, {"b0", 10 * ms, of("bob", 0), .1}, {"b2", 30 * ms, of("bob", 2), .4}}},
		{"some of more cores", 4, Config{}, []job{
			{"a", 20 * ms, of("ann", 0), .5}, {"b", 20 * ms, grid.Class{User: "bob", Cores: 2}, .5}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Slots = tt.slots
			d := newDesk(t, tt.cfg)
			for i, j := range tt.jobs {
				d.until(time.Duration(i) * 300 * ms)
				d.submit(j.id, 1<<18, j.takes, j.class)
			}
			d.check = false
			before := map[grid.JobID]time.Duration{}
			for id, used := range d.used {
				before[id] = used
			}
			d.until(20 * time.Second)
			var all time.Duration
			for id, used := range d.used {
				all += used - before[id]
			}
			for _, j := range tt.jobs {
				if got := float64(d.used[j.id]-before[j.id]) / float64(all); math.Abs(got-j.part) > .1*j.part {
					t.Errorf("job %s got %.3f of the slots, want %.3f", j.id, got, j.part)
				}
			}
		})
	}
}

// TestSmallJob: ten tasks get through beside a million, whosever they are, and beside many users' jobs.
func TestSmallJob(t *testing.T) {
	for _, user := range []string{"ann", "bob"} {
		d := newDesk(t, Config{Slots: 2})
		d.check = false
		d.submit("huge", many, 10*time.Millisecond, grid.Class{User: "ann"})
		d.until(5 * time.Second)
		d.submit("small", 10, 10*time.Millisecond, grid.Class{User: user})
		d.until(6 * time.Second)
		if d.done["small"].IsZero() {
			t.Errorf("ten tasks of 10 ms of %s have not ended after a second", user)
		}
	}
	d := newDesk(t, Config{Slots: 4})
	d.check = false
	for i := range 50 {
		d.submit(grid.JobID(fmt.Sprint("j", i)), 1<<14, 50*time.Millisecond, grid.Class{User: fmt.Sprint("u", i%5)})
	}
	d.until(10 * time.Second)
	d.submit("small", 10, 10*time.Millisecond, grid.Class{User: "cyd"})
	d.until(12 * time.Second)
	if d.done["small"].IsZero() {
		t.Error("ten tasks of 10 ms have not ended after two seconds beside 50 jobs of five users")
	}
}

// TestNobodyStarves plays whatever would keep one job waiting: jobs of the highest priority, ever new ones, users
// of great weight, tasks that take long. The job of the lowest priority still runs again and again, within a
// time that only depends on how many others there are.
func TestNobodyStarves(t *testing.T) {
	const slots = 2
	seeds := uint64(3)
	if testing.Short() {
		seeds = 2
	}
	low := grid.JobID("low")
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 5))
		d := newDesk(t, Config{Slots: slots, Weights: map[string]float64{"great": 4}})
		d.submit(low, many, time.Duration(1+r.IntN(30))*time.Millisecond, grid.Class{User: "ann", Priority: -grid.MaxPriority})
		parties := 1 + r.IntN(6)
		for i := range parties {
			user := []string{"ann", "great", "bob"}[r.IntN(3)]
			d.submit(grid.JobID(fmt.Sprint("big", i)), many, time.Duration(1+r.IntN(200))*time.Millisecond, grid.Class{User: user, Priority: grid.MaxPriority})
		}
		d.check = false
		every := time.Duration(20+r.IntN(80)) * time.Millisecond
		newUsers := r.IntN(2) == 0
		const length = 400 * time.Second
		for n, at := 0, time.Duration(0); at < length; n, at = n+1, at+every {
			d.until(at)
			user := "ann"
			if newUsers {
				user = fmt.Sprint("new", n)
			}
			d.submit(grid.JobID(fmt.Sprint("new", n)), 1, every*slots/8, grid.Class{User: user, Priority: grid.MaxPriority})
		}
		// After a grain, of 30 ms at most, the others of its user get so many times as much, beside other users of
		// weight 8 together.
		bound := time.Duration(float64(30*time.Millisecond) / leastShare * float64(parties+3) * (1 + 8) / slots)
		if gap := max(d.gap[low], d.now.Sub(d.last[low])); gap > bound {
			t.Errorf("seed %d: the job of low priority waited %v, beside %d others; want at most %v", seed, gap, parties, bound)
		}
		if err := d.core.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWideTasks: tasks of many cores run among such of one, however many those are.
func TestWideTasks(t *testing.T) {
	d := newDesk(t, Config{Slots: 8})
	for i := range 20 {
		d.submit(grid.JobID(fmt.Sprint("thin", i)), 1<<12, time.Duration(5+i)*time.Millisecond, grid.Class{User: fmt.Sprint("u", i%4), Priority: i % 3})
	}
	d.submit("wide", 40, 20*time.Millisecond, grid.Class{User: "wide", Cores: 8})
	for end := time.Second; end <= 12*time.Second && d.done["wide"].IsZero(); end += time.Second {
		d.until(end)
	}
	if d.done["wide"].IsZero() {
		t.Error("40 tasks of 20 ms on all cores have not ended after 12 s, a fifth of which is theirs")
	}
}

// TestHeap plays random operations against a plain list.
func TestHeap(t *testing.T) {
	type item struct{ key, at int }
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		h := heap[*item]{less: func(a, b *item) bool { return a.key < b.key }, at: func(x *item) *int { return &x.at }}
		var in []*item
		for range 200 {
			switch k := r.IntN(4); {
			case k < 2 || len(in) == 0:
				x := &item{key: r.IntN(50)}
				in = append(in, x)
				h.push(x)
			case k == 2:
				i := r.IntN(len(in))
				h.remove(in[i])
				if in[i].at != 0 {
					t.Fatal("it is still in")
				}
				in = slices.Delete(in, i, i+1)
			default:
				x := in[r.IntN(len(in))]
				x.key = r.IntN(50)
				h.fix(x)
			}
			if len(h.list) != len(in) {
				t.Fatalf("seed %d: %d are in, want %d", seed, len(h.list), len(in))
			}
			for i, x := range h.list {
				if x.at != i+1 || h.list[(i-min(i, 1))/2].key > x.key {
					t.Fatalf("seed %d: element %d is out of order", seed, i)
				}
			}
		}
	}
}

// A thousand users with ten jobs each: a grain of each in turn.
func BenchmarkShare(b *testing.B) {
	b.ReportAllocs()
	c := New(Config{Self: "me", Slots: 8, MaxGrain: 1})
	now := time.Unix(1<<30, 0)
	var todo []grid.Effect
	for i := range 10_000 {
		id := grid.JobID(fmt.Sprint("j", i))
		cl := grid.Class{User: fmt.Sprint("u", i%1000), Priority: i % 5}
		todo = append(todo, c.Step(now, grid.JobOpened{Lease: grid.Lease{Job: id, Epoch: 1}, Stages: []grid.StagePlan{{Tasks: 1 << 14, Class: cl}}})...)
		todo = append(todo, c.Step(now, grid.Prepared{Work: grid.Work{Job: id}, Ready: whole(1 << 14)})...)
	}
	var runs []grid.Run
	for _, e := range todo {
		if run, ok := e.(grid.Run); ok {
			runs = append(runs, run)
		}
	}
	result := make([]grid.TaskResult, 1)
	for n := 0; b.Loop(); n++ {
		run := runs[0]
		runs = runs[1:]
		now = now.Add(time.Millisecond)
		result[0].Index = run.Lease.Lo
		for _, e := range c.Step(now, grid.GrainDone{Slot: run.Slot, Took: time.Duration(1+n%5) * time.Millisecond, Ran: 1, Results: result}) {
			if run, ok := e.(grid.Run); ok {
				runs = append(runs, run)
			}
		}
	}
}

// TestForgetsAlike: which users are forgotten does not hang on the order in which a map tells them.
func TestForgetsAlike(t *testing.T) {
	left := func() []string {
		top := newParty(nil, "", 1)
		for i := range 2*maxParties + 100 {
			top.child(strconv.Itoa(i), 1).pass = 1 // it has used something
		}
		top.room = 0
		top.child("new", 1)
		return slices.Sorted(maps.Keys(top.below))
	}
	first := left()
	for range 4 {
		if again := left(); !slices.Equal(first, again) {
			t.Fatalf("%d users are left, then %d, not all the same", len(first), len(again))
		}
	}
}
