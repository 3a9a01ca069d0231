package grid_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestHistory: whatever is used when, days of this month and months before are told apart, nothing is lost, and it stays small.
func TestHistory(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		day := grid.DayOf(time.Date(2020, 1, 1+rnd.IntN(400), 0, 0, 0, 0, time.UTC))
		want := map[grid.Day]int64{}
		var h grid.History
		for range 600 {
			u := grid.Usage{Tasks: rnd.Int64N(100), CPU: time.Duration(rnd.Int64N(1e9))}
			if rnd.IntN(10) == 0 { // a clock that goes back
				h = h.Add(day-grid.Day(rnd.IntN(40)), u)
			} else {
				day += grid.Day(rnd.IntN(4))
				h = h.Add(day, u)
			}
			want[day] += u.Tasks
			if rnd.IntN(20) == 0 {
				h = h.Merge(grid.History{{Day: day, Usage: u}})
				want[day] += u.Tasks
			}
		}
		sum := func(since grid.Day) (n int64) {
			for d, tasks := range want {
				if d >= since {
					n += tasks
				}
			}
			return n
		}
		last := day.Month()
		for _, since := range []grid.Day{day, day - 1, last, (last - 1).Month(), (last - 200).Month(), math.MinInt32} {
			if since != math.MinInt32 && since < last {
				since = since.Month()
			}
			if got := h.Since(since).Tasks; got != sum(since) {
				t.Errorf("seed %d: %d tasks since day %d, want %d", seed, got, since, sum(since))
			}
		}
		if h.Total().Tasks != sum(math.MinInt32) || len(h) > 31+24+1 {
			t.Errorf("seed %d: %d in all, want %d; %d entries", seed, h.Total().Tasks, sum(math.MinInt32), len(h))
		}
	}
	// Two halves come to the same as the whole, in whatever order.
	a := grid.History(nil).Add(10, grid.Usage{Tasks: 1}).Add(50, grid.Usage{Tasks: 2})
	b := grid.History(nil).Add(40, grid.Usage{Tasks: 4})
	if x, y := fmt.Sprint(a.Merge(b)), fmt.Sprint(b.Merge(a)); x != y {
		t.Errorf("%s, %s", x, y)
	}
}

// TestUsageOverflow: sums that are too great stay the greatest, and nothing becomes negative.
func TestUsageOverflow(t *testing.T) {
	u := grid.Usage{Fuel: math.MaxInt64 - 5, CPU: math.MaxInt64}
	u.Add(grid.Usage{Fuel: 10, CPU: time.Second, Read: math.MaxInt64, Wrote: math.MaxInt64})
	if u.Fuel != math.MaxInt64 || u.CPU != math.MaxInt64 || u.Bytes() != math.MaxInt64 || u.Spent() != math.MaxInt64 {
		t.Errorf("%+v", u)
	}
}

// used is what the ledger says that everybody has used, folded or not.
func (r *realm) used(m *member) (u grid.Usage) {
	r.t.Helper()
	list, err := m.n.Usage(context.Background(), grid.ByUser, math.MinInt32)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range list {
		u.Add(list[i].Usage)
	}
	return u
}

// recounted checks a job's usage against its receipts.
func (r *realm) recounted(m *member, id grid.JobID) grid.UsageCheck {
	r.t.Helper()
	c, err := m.n.RecountUsage(context.Background(), id)
	if err != nil || !c.OK() {
		r.t.Errorf("job %s: %+v, %v", id, c, err)
	}
	return c
}

// TestUsageOnce: whoever dies and whenever, and however often tasks are tried, what the ledger says a job has used is what its receipts say, once; also when sums are folded meanwhile by
// several nodes.
func TestUsageOnce(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, 5, func(r *realm) {
				rnd := rand.New(rand.NewPCG(uint64(seed), 2))
				const tasks = 100
				var ids []grid.JobID
				ran := int64(0)
				jobs := 1 + rnd.IntN(3)
				for k := range jobs {
					m := r.all[k]
					req := squares(m, tasks)
					req.User = []string{"ann", "bob"}[k%2]
					// Alone, what its earlier owners had run is not run again, and counts as what it has used.
					req.NoCache = jobs > 1
					ids = append(ids, r.submit(m, req))
					ran += tasks
				}
				for range rnd.IntN(3) {
					time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					victim := r.all[rnd.IntN(len(r.all))]
					if rec := r.record(ids[0]); rnd.IntN(2) == 0 {
						for _, m := range r.all { // the owner itself
							if m.w.ID == rec.Owner {
								victim = m
							}
						}
					}
					r.kill(victim)
					if rnd.IntN(2) == 0 {
						if _, err := r.alive(rnd.IntN(5)).n.FoldUsage(context.Background(), 1); err != nil {
							t.Error(err)
						}
					}
				}
				for _, id := range ids {
					r.done(id)
				}
				for i := range 3 {
					if _, err := r.alive(i).n.FoldUsage(context.Background(), 1); err != nil {
						t.Error(err)
					}
				}
				m := r.alive(0)
				var sum grid.Usage
				for _, id := range ids {
					c := r.recounted(m, id)
					sum.Add(c.Ledger)
					if c.Ledger.Tasks != tasks || c.Count != tasks {
						t.Errorf("job %s: %d tasks counted, %d receipts", id, c.Ledger.Tasks, c.Count)
					}
				}
				if all := r.used(m); all != sum || all.Tasks != ran || all.CPU < time.Duration(ran)*20*time.Millisecond {
					t.Errorf("in all %+v, by jobs %+v, %d tasks ran", all, sum, ran)
				}
				for _, e := range r.entries("usage/job/") {
					t.Errorf("not folded: %s", e.Key)
				}
				if n := len(r.entries("usage/sum/")); n > 3 {
					t.Errorf("%d sums", n)
				}
			})
		})
	}
}

func (r *realm) entries(prefix string) (list []grid.Entry) {
	r.t.Helper()
	_, err := grid.RangeAll(context.Background(), r.ledger, prefix, false, func(e grid.Entry) error { list = append(list, e); return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// TestUsageLie: an owner that changes what a job has used is found out, and a receipt that claims more time than its node
// can have had counts for no more than that.
func TestUsageLie(t *testing.T) {
	bubble(t, 2, func(r *realm) {
		ctx := context.Background()
		m := r.all[0]
		id := r.submit(m, squares(m, 20))
		rec := r.done(id)
		r.recounted(m, id)
		for _, lie := range []func(*grid.Usage){
			func(u *grid.Usage) { u.CPU /= 2 },
			func(u *grid.Usage) { u.Tasks-- },
			func(u *grid.Usage) { u.Wrote++ },
			func(u *grid.Usage) { u.Capped++ },
		} {
			used := *rec.Used
			lie(&used)
			forged := rec
			forged.Used = &used
			value, err := grid.Marshal(&forged)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.ledger.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "job/" + string(id), Value: value}}}); err != nil {
				t.Fatal(err)
			}
			if c, err := m.n.RecountUsage(ctx, id); err != nil || c.OK() || len(c.Differs) != 1 {
				t.Errorf("%+v, %v", c, err)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRealm(t, 1)
		defer r.close()
		m := r.all[0]
		m.w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
			return grid.Outcome{Run: time.Hour}, nil // it says so, and it took nothing
		}
		rec := r.done(r.submit(m, squares(m, 4)))
		if u := rec.Used; u.CPU > time.Minute || u.CPU+u.Capped != 4*time.Hour || u.Tasks != 4 {
			t.Errorf("%+v", u)
		}
		if c := r.recounted(m, rec.ID); len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "not counted") {
			t.Errorf("%+v", c)
		}
	})
}
