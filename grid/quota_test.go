package grid_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (r *realm) quota(m *member, a grid.Allowance) {
	r.t.Helper()
	if _, err := m.n.SetQuota(context.Background(), a); err != nil {
		r.t.Fatal(err)
	}
	r.pass(50 * time.Millisecond) // the others have heard of it
}

func (r *realm) job(m *member, id grid.JobID) grid.JobStatus {
	r.t.Helper()
	st, err := m.n.Job(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// paused waits until a job is, and what ran of it has ended.
func (r *realm) paused(m *member, id grid.JobID) grid.JobStatus {
	r.t.Helper()
	for range 1000 {
		if st := r.job(m, id); strings.HasPrefix(st.Note, "paused: ") {
			r.pass(10 * time.Second)
			return r.job(m, id)
		}
		r.pass(20 * time.Millisecond)
	}
	r.t.Fatalf("the job is not paused: %+v", r.job(m, id))
	return grid.JobStatus{}
}

// TestQuotaPauses: a job whose user has used up a quota is paused, and says so; so it is with its next owner. New jobs of
// the user are refused, those of others are not. When the quota is raised, it goes on by itself, and every task counts once.
func TestQuotaPauses(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		ctx := context.Background()
		m, other := r.all[0], r.all[1]
		r.quota(other, grid.Allowance{Subject: "ann", Per: grid.PerMonth, Tasks: 60})
		req := squares(m, 200, "squares")
		req.User = "ann"
		id := r.submit(m, req)
		st := r.paused(m, id)
		if done := st.Stages[0].Done; done < 60 || done > 90 || st.State != grid.Running {
			t.Errorf("%d tasks done, %s", done, st.State)
		}
		why, err := m.n.Why(ctx, id)
		if err != nil || !strings.Contains(why.Reason, "user ann has used up 60 tasks, the quota a month") || len(why.Advice) == 0 || !strings.Contains(why.Advice[0], "grid quota set ann") {
			t.Errorf("%+v, %v", why, err)
		}
		if far := r.job(other, id); far.Note != st.Note {
			t.Errorf("elsewhere: %q", far.Note)
		}
		if _, err := other.n.Submit(ctx, req); grid.CodeOf(err) != grid.Limit || !strings.Contains(err.Error(), "60 tasks") {
			t.Errorf("accepted: %v", err)
		}
		free := squares(other, 3)
		free.User = "bob"
		r.done(r.submit(other, free))

		before := st.Stages[0].Done
		r.kill(m)
		rec := r.wait(id, "nobody takes it over", func(rec grid.Record) bool { return rec.Epoch > 1 })
		for _, o := range r.all {
			if o.w.ID == rec.Owner {
				other = o
			}
		}
		if st = r.paused(other, id); st.Stages[0].Done < before || st.Stages[0].Done > before+10 {
			t.Errorf("%d tasks done, %d were", st.Stages[0].Done, before)
		}
		r.quota(other, grid.Allowance{Subject: "ann", Per: grid.PerMonth, Tasks: 1000})
		r.done(id)
		r.exact(other, id, 200)
		if c := r.recounted(other, id); c.Ledger.Tasks != 200 || c.User != "ann" || c.Node != m.w.ID {
			t.Errorf("%+v", c)
		}
		kinds := map[grid.EventKind]int{}
		if err := other.n.Events(ctx, id, false, func(ev grid.JobEvent) error { kinds[ev.Kind]++; return nil }); err != nil || kinds[grid.EventPaused] == 0 || kinds[grid.EventResumed] != 1 {
			t.Errorf("%v, %v", kinds, err)
		}
	})
}

// TestQuotaAsTold: a node that has told somebody that a quota is used up refuses jobs by that, whatever it knew before.
func TestQuotaAsTold(t *testing.T) {
	bubble(t, 2, func(r *realm) {
		ctx := context.Background()
		m, other := r.all[0], r.all[1]
		r.quota(other, grid.Allowance{Subject: "ann", Per: grid.PerTotal, Tasks: 60})
		few, many := squares(other, 1), squares(m, 200)
		few.User, many.User, few.NoCache = "ann", "ann", true
		r.done(r.submit(other, few)) // it knows by this what was used
		r.submit(m, many)
		for range 1000 {
			list, err := other.n.Quotas(ctx, "ann")
			if err != nil || len(list) != 1 {
				t.Fatalf("%+v, %v", list, err)
			}
			if list[0].Over != "" {
				if _, err := other.n.Submit(ctx, few); grid.CodeOf(err) != grid.Limit {
					t.Errorf("accepted: %v", err)
				}
				return
			}
			r.pass(20 * time.Millisecond)
		}
		t.Fatal("it is never used up")
	})
}

// TestQuotaNames: whoever is called like the subject of another quota is under that for every user all the same.
func TestQuotaNames(t *testing.T) {
	bubble(t, 1, func(r *realm) {
		m := r.all[0]
		node := m.w.ID.String()
		r.quota(m, grid.Allowance{Subject: grid.EveryUser, Per: grid.PerDay, Tasks: 5})
		for _, subject := range []string{grid.EveryNode, "@" + node, "ann@" + node} {
			r.quota(m, grid.Allowance{Subject: subject, Per: grid.PerDay, Tasks: 1 << 40})
		}
		for _, user := range []string{"ann", "default", grid.EveryNode, "@" + node, "ann@" + node, "a@b", "a\nb"} {
			req := squares(m, 6)
			req.User, req.NoCache = user, true
			r.done(r.submit(m, req))
			if _, err := m.n.Submit(context.Background(), req); grid.CodeOf(err) != grid.Limit || !strings.Contains(err.Error(), "5 tasks") {
				t.Errorf("%q: accepted: %v", user, err)
			}
		}
	})
}

// TestQuotaBeginsAnew: a quota a day lets a paused job go on when the day is over, and nothing is counted twice.
func TestQuotaBeginsAnew(t *testing.T) {
	bubble(t, 1, func(r *realm) {
		m := r.all[0]
		r.pass(time.Until(time.Now().Truncate(24 * time.Hour).Add(24*time.Hour - time.Minute)))
		r.quota(m, grid.Allowance{Subject: grid.EveryUser, Per: grid.PerDay, CPU: 3 * time.Second})
		req := squares(m, 100)
		req.User = "ann"
		id := r.submit(m, req)
		st := r.paused(m, id)
		if done := st.Stages[0].Done; done < 40 || done > 80 || !strings.Contains(st.Note, "3s of CPU time") || !strings.Contains(st.Note, "of all that have none of their own") {
			t.Errorf("%d tasks done; %s", done, st.Note)
		}
		rec := r.done(id)
		if day := grid.DayOf(rec.Ended); day != grid.DayOf(rec.Submitted)+1 {
			t.Errorf("it ended at %v, submitted at %v", rec.Ended, rec.Submitted)
		}
		list, err := m.n.Usage(context.Background(), grid.ByUser, grid.DayOf(rec.Ended))
		if err != nil || len(list) != 1 || list[0].Tasks != int64(100-st.Stages[0].Done) || len(list[0].Quotas) != 1 {
			t.Errorf("since midnight %+v, %v", list, err)
		}
		r.recounted(m, id)
	})
}

// TestQuotaNode: a quota of a node counts all that it accepts, whatever its users are called.
func TestQuotaNode(t *testing.T) {
	bubble(t, 2, func(r *realm) {
		m, other := r.all[0], r.all[1]
		r.quota(m, grid.Allowance{Subject: "@" + m.w.ID.String(), Per: grid.PerTotal, Tasks: 20})
		for k := range 2 {
			req := squares(m, 10)
			req.User, req.NoCache = fmt.Sprint("user", k), true
			r.done(r.submit(m, req))
		}
		req := squares(m, 10)
		req.User = "somebody else"
		if _, err := m.n.Submit(context.Background(), req); grid.CodeOf(err) != grid.Limit || !strings.Contains(err.Error(), m.w.ID.String()) {
			t.Errorf("accepted: %v", err)
		}
		req = squares(other, 10)
		req.User = "user1"
		r.done(r.submit(other, req))
		if err := m.n.RemoveQuota(context.Background(), "@"+m.w.ID.String(), grid.PerTotal); err != nil {
			t.Fatal(err)
		}
		r.pass(50 * time.Millisecond)
		r.done(r.submit(m, squares(m, 10)))
		if err := m.n.RemoveQuota(context.Background(), "@"+m.w.ID.String(), grid.PerTotal); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("removed twice: %v", err)
		}
	})
}

// TestQuotaAtRandom: several jobs of a user on several nodes, some of which die, use no more than a quota and what ran
// when it was used up; and all end when it is raised.
func TestQuotaAtRandom(t *testing.T) {
	for seed := range seeds() / 2 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, 4, func(r *realm) {
				rnd := rand.New(rand.NewPCG(uint64(seed), 3))
				const tasks = 400
				most := int64(50 + rnd.IntN(100))
				r.quota(r.all[3], grid.Allowance{Subject: "ann", Per: []grid.Per{grid.PerMonth, grid.PerTotal}[rnd.IntN(2)], Tasks: most})
				var ids []grid.JobID
				for k := range 3 {
					req := squares(r.all[k], tasks)
					req.User, req.NoCache = "ann", true
					ids = append(ids, r.submit(r.all[k], req))
				}
				if rnd.IntN(2) == 0 {
					r.pass(time.Duration(rnd.IntN(4000)) * time.Millisecond)
					r.kill(r.all[rnd.IntN(3)])
				}
				r.pass(30 * time.Second)
				m := r.alive(0)
				var done int64
				for _, id := range ids {
					st := r.job(m, id)
					done += int64(st.Stages[0].Done)
				}
				// Until an owner hears of what others have used each may use all that was left, and what runs then.
				if done < most || done > 3*most+50 {
					t.Errorf("%d tasks were done, of %d", done, most)
				}
				if u := r.used(m); u.Tasks < done {
					t.Errorf("%d tasks counted, %d done", u.Tasks, done)
				}
				r.quota(m, grid.Allowance{Subject: "ann", Per: grid.PerMonth, Tasks: 1e6})
				r.quota(m, grid.Allowance{Subject: "ann", Per: grid.PerTotal, Tasks: 1e6})
				for _, id := range ids {
					r.done(id)
					r.recounted(m, id)
				}
				if u := r.used(m); u.Tasks != 3*tasks {
					t.Errorf("%d tasks counted", u.Tasks)
				}
			})
		})
	}
}

// TestSubjects: whom quotas are for, and what is refused.
func TestSubjects(t *testing.T) {
	node := nodeID("a").String()
	for text, ok := range map[string]bool{
		"ann": true, "ann@host": true, "default": true, "@default": true, "@" + node: true, "ann@" + node: true, "a@b@" + node: true,
		"": false, "@": false, "@nobody": false, strings.Repeat("x", grid.MaxName+1): false, "a\x00b": false, "\xff": false,
	} {
		if _, _, err := grid.ParseSubject(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, a := range []grid.Allowance{
		{Subject: "ann", Per: "week", Tasks: 1}, {Subject: "ann", Per: grid.PerDay}, {Subject: "ann", Per: grid.PerDay, Tasks: -1},
		{Subject: "ann", Per: grid.PerDay, Stored: 1}, {Subject: "ann@" + node, Per: grid.PerDay, Stored: 1}, {Subject: "@x", Per: grid.PerDay, Tasks: 1},
	} {
		if err := a.Check(); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%+v: %v", a, err)
		}
	}
	a := grid.Allowance{Subject: "@default", Per: grid.PerMonth, Tasks: math.MaxInt64, CPU: time.Hour, Stored: 1 << 30}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
	if got := a.String(); !strings.Contains(got, "1h0m0s of CPU time a month; 1.0 GiB stored") && !strings.Contains(got, "stored") {
		t.Error(got)
	}
}

// FuzzUsageEntries: whatever is in a ledger, it is read or refused.
func FuzzUsageEntries(f *testing.F) {
	h := grid.History(nil).Add(11_000, grid.Usage{Tasks: 3, CPU: time.Second})
	seed(f, h, grid.Allowance{Subject: "ann", Per: grid.PerDay, Tasks: 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var h grid.History
		if grid.UnmarshalMessage(data, &h) == nil && len(h) < 200 {
			sum := h.Merge(h).Add(1, grid.Usage{Tasks: math.MaxInt64})
			if sum.Total().Tasks < 0 && h.Total().Tasks >= 0 {
				t.Errorf("%v", sum)
			}
		}
		var a grid.Allowance
		if grid.UnmarshalMessage(data, &a) == nil && a.Check() == nil {
			_ = a.String()
		}
	})
}

// TestQuotaStored: a node keeps to its bound on what it has pinned, copies counted.
func TestQuotaStored(t *testing.T) {
	bubble(t, 1, func(r *realm) {
		ctx := context.Background()
		m := r.all[0]
		r.quota(m, grid.Allowance{Subject: grid.EveryNode, Per: grid.PerTotal, Stored: 250})
		root, _, err := m.w.Files.Add(ctx, strings.NewReader(strings.Repeat("x", 100)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.n.Pin(ctx, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2}); err != nil {
			t.Errorf("200 bytes of 250: %v", err)
		}
		_, err = m.n.Pin(ctx, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 3})
		if grid.CodeOf(err) != grid.Limit || !strings.Contains(err.Error(), "its quota, 250 B") {
			t.Errorf("300 bytes of 250: %v", err)
		}
		var more []grid.Link
		for i := range 8 {
			c, _, err := m.w.Files.Add(ctx, strings.NewReader(strings.Repeat(strconv.Itoa(i), 100)))
			if err != nil {
				t.Fatal(err)
			}
			more = append(more, grid.Link{Cid: c})
		}
		if _, err := m.n.SetRef(ctx, "more", more[0], grid.RefCond{}); grid.CodeOf(err) != grid.Limit || !strings.Contains(err.Error(), "its quota") {
			t.Errorf("a ref to 100 bytes more: %v", err)
		}
		if _, err := m.n.SetRef(ctx, "same", grid.Link{Cid: root}, grid.RefCond{}); err != nil {
			t.Errorf("a ref to what is pinned: %v", err)
		}
		if err := errors.Join(m.n.RemoveRef(ctx, "same", grid.RefCond{}), m.n.Unpin(ctx, root)); err != nil {
			t.Fatal(err)
		}
		var made atomic.Int32
		var wg sync.WaitGroup
		for _, l := range more {
			wg.Go(func() {
				if _, err := m.n.Pin(ctx, grid.Pin{Root: l}); err == nil {
					made.Add(1)
				}
			})
		}
		wg.Wait()
		if made.Load() != 2 {
			t.Errorf("%d pins of 100 bytes at once, of 250 allowed", made.Load())
		}
	})
}
