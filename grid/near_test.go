package grid_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// watched is a node whose scheduler's events are seen, and may be answered with effects of the test's own.
type watched struct {
	*fake.Scheduler
	mu     sync.Mutex
	events []grid.Event
	more   chan struct{} // has something when there are new events
	do     func(grid.Event) []grid.Effect
}

func watch(w *fake.World, do func(grid.Event) []grid.Effect) (*watched, grid.NodeConfig) {
	s := &watched{Scheduler: fake.NewScheduler(2), more: make(chan struct{}, 1), do: do}
	c := w.Config()
	c.Scheduler = s
	return s, c
}

func (s *watched) Step(now time.Time, ev grid.Event) []grid.Effect {
	s.mu.Lock()
	s.events = append(s.events, ev)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	out := s.Scheduler.Step(now, ev)
	if s.do != nil {
		out = append(out, s.do(ev)...)
	}
	return out
}

// seen waits for the first event of a kind that has what is asked for.
func seen[E grid.Event](t testing.TB, s *watched, is func(E) bool) (found E) {
	t.Helper()
	ctx := within(t)
	for {
		s.mu.Lock()
		events := slices.Clone(s.events)
		s.mu.Unlock()
		for _, ev := range events {
			if e, ok := ev.(E); ok && is(e) {
				return e
			}
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			t.Fatalf("no such %T", found)
		}
	}
}

func every[E grid.Event](E) bool { return true }

// put stores so many bytes as one block of a file.
func put(t testing.TB, b *fake.Blocks, name string, size int) grid.Input {
	t.Helper()
	block := grid.NewBlock(cid.Raw, bytes.Repeat([]byte(name), size/len(name)))
	if err := b.Put(context.Background(), block); err != nil {
		t.Fatal(err)
	}
	return grid.Input{Name: name, CID: grid.Link{Cid: block.CID()}, Size: int64(size)}
}

func TestHeldRoots(t *testing.T) {
	var h grid.HeldRoots
	now := time.Unix(1<<30, 0)
	if len(h.Sum(now)) != 0 {
		t.Error("an empty set has a summary")
	}
	h.Add(link("small").Cid, 100)
	h.Add(cid.Undef, 1<<30)
	h.Add(link("a").Cid, 1<<20)
	first := h.Sum(now.Add(time.Hour))
	if !first.Has(grid.RootHash(link("a").Cid)) || first.Has(grid.RootHash(link("small").Cid)) {
		t.Error("the summary has not what is large, or what is small")
	}
	h.Add(link("b").Cid, 1<<20)
	if s := h.Sum(now.Add(time.Hour + time.Millisecond)); s.Has(grid.RootHash(link("b").Cid)) {
		t.Error("the summary was made anew at once")
	}
	if s := h.Sum(now.Add(2 * time.Hour)); !s.Has(grid.RootHash(link("b").Cid)) || first.Has(grid.RootHash(link("b").Cid)) {
		t.Error("the summary was not made anew, or one that was given away has changed")
	}
	// However many there are, those used of late stay, and the summary can be sent.
	for i := range 50_000 {
		h.Add(link(fmt.Sprint(i)).Cid, 1<<20)
		if i%1000 == 0 {
			h.Add(link("a").Cid, 1<<20)
		}
	}
	if !h.Has(link("a").Cid) || h.Has(link("b").Cid) || !h.Has(link("49999").Cid) || h.Has(link("1").Cid) {
		t.Error("what was used of late is forgotten, or other things are not")
	}
	s := h.Sum(now.Add(3 * time.Hour))
	if err := s.Check(); err != nil || !s.Has(grid.RootHash(link("a").Cid)) || h.Len() > grid.MaxHeld {
		t.Errorf("summary of %d bytes, %d roots: %v", len(s), h.Len(), err)
	}
}

// TestStealSays: a thief tells what it can run and what it holds, a victim's scheduler is told both sides, and
// the answer's names come back.
func TestStealSays(t *testing.T) {
	var hub fake.Hub
	wa, wb := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	names := []peer.ID{nodeID("x"), nodeID("y"), nodeID("z"), nodeID("zz")}
	victim, ca := watch(wa, nil)
	thief, cb := watch(wb, func(ev grid.Event) []grid.Effect {
		if _, ok := ev.(grid.Woken); ok {
			return []grid.Effect{grid.AskSteal{Victim: wa.ID, Slots: 2}}
		}
		return nil
	})
	cb.Capacity.Labels = grid.Labels{"zone": "b"}
	a, b := open(t, ca), open(t, cb)
	here, there := put(t, wa.Blocks, "here", 1<<20), put(t, wb.Blocks, "there", 1<<20)
	for _, side := range []struct {
		n  *grid.Node
		w  *fake.World
		in grid.Input
	}{{a, wa, here}, {b, wb, there}} {
		r := request(side.w, 1)
		r.Rows = [][]grid.Row{{{side.in}}}
		if st, _ := run(t, side.n, r); st.State != grid.Done {
			t.Fatal(st.Error)
		}
	}
	data, _ := grid.Marshal(grid.WakeMsg{})
	other := hub.Join(nodeID("w"))
	if _, err := other.Call(within(t), wb.ID, grid.ProtoWake, data); err != nil {
		t.Fatal(err)
	}
	asked := seen(t, victim, every[grid.StealAsked])
	if asked.From != wb.ID || asked.Can.Slots != 2 || asked.Can.Labels["zone"] != "b" ||
		!asked.Holds.Has(grid.RootHash(there.CID.Cid)) || asked.Holds.Has(grid.RootHash(here.CID.Cid)) ||
		!asked.Here.Has(grid.RootHash(here.CID.Cid)) {
		t.Errorf("asked %+v", asked)
	}
	if got := seen(t, thief, func(e grid.StealAnswered) bool { return e.From == wa.ID }); got.Failed || got.Took <= 0 || len(got.Try) != 0 {
		t.Errorf("answered %+v", got)
	}

	// What is too much of a reply is cut.
	other.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
		return grid.Marshal(grid.StealReply{Try: names})
	})
	b.Do(grid.AskSteal{Victim: nodeID("w"), Slots: 1})
	got := seen(t, thief, func(e grid.StealAnswered) bool { return e.From == nodeID("w") && !e.Failed })
	if !slices.Equal(got.Try, names[:3]) {
		t.Errorf("try %v", got.Try)
	}
}

// TestStealGarbage: what no thief says is refused, its sender accused, and the next one served.
func TestStealGarbage(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	s, c := watch(w, nil)
	open(t, c)
	labels := grid.Labels{}
	for i := range 100 {
		labels[fmt.Sprintf("l%d", i)] = "x"
	}
	marshal := func(m grid.StealMsg) []byte {
		data, err := grid.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for i, data := range [][]byte{
		[]byte("garbage"), nil, {0xff}, {0x80},
		marshal(grid.StealMsg{Slots: 1, Holds: make(grid.Summary, 3)}),
		marshal(grid.StealMsg{Slots: 1, Holds: make(grid.Summary, 2*grid.MaxSummary)}),
		marshal(grid.StealMsg{Slots: 1, Can: grid.Capacity{Labels: labels}}),
		marshal(grid.StealMsg{Slots: 1, Can: grid.Capacity{Labels: grid.Labels{"a b": "c"}}}),
		marshal(grid.StealMsg{Slots: 1, Can: grid.Capacity{Slots: -1}}),
		marshal(grid.StealMsg{Slots: 1, Can: grid.Capacity{Slots: 1 << 40}}),
	} {
		liar := hub.Join(nodeID(fmt.Sprint("liar", i)))
		_, err := liar.Call(within(t), w.ID, grid.ProtoSteal, data)
		if code := grid.CodeOf(err); code != grid.Invalid && code != grid.Limit {
			t.Errorf("message %d: %v", i, err)
		}
		seen(t, s, func(e grid.Accused) bool { return e.Peer == liar.Self() && e.Why != "" })
	}
	honest := hub.Join(nodeID("h"))
	reply, err := honest.Call(within(t), w.ID, grid.ProtoSteal, marshal(grid.StealMsg{Slots: -7, Holds: make(grid.Summary, 8)}))
	if err != nil || len(reply) == 0 {
		t.Fatalf("an honest thief: %v", err)
	}
	if ask := seen(t, s, every[grid.StealAsked]); ask.From != honest.Self() || ask.Slots != 0 {
		t.Errorf("asked %+v", ask)
	}
}

// TestHints: what tasks read most of is told, as far as it is large.
func TestHints(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		w := fake.NewWorld(new(fake.Hub), "a")
		s, c := watch(w, nil)
		n := open(t, c)
		r := request(w, 3)
		r.NoCache = fresh
		big, bigger, small := put(t, w.Blocks, "big", 90_000), put(t, w.Blocks, "more", 100_000), put(t, w.Blocks, "small", 1000)
		r.Rows = [][]grid.Row{{{small}, {big, bigger, small}, {big}}}
		run(t, n, r)
		h := seen(t, s, every[grid.Hints])
		want := []grid.Hint{{}, {Root: grid.RootHash(bigger.CID.Cid), Size: 100_000}, {Root: grid.RootHash(big.CID.Cid), Size: 90_000}}
		if h.Lo != 0 || !slices.Equal(h.Inputs, want) {
			t.Errorf("fresh %v: %+v, want %v", fresh, h, want)
		}
	}
}

// slowFetcher blocks until it is let go, or its context ends.
type slowFetcher struct {
	grid.Fetcher
	slow  grid.Link
	begun chan struct{}
	ended chan error
}

func (f *slowFetcher) Fetch(ctx context.Context, w grid.Want) error {
	if slices.Contains(w.Roots, f.slow.Cid) {
		f.begun <- struct{}{}
		<-ctx.Done()
		f.ended <- ctx.Err()
		return ctx.Err()
	}
	return f.Fetcher.Fetch(ctx, w)
}

// TestPrefetch: the inputs of another node's tasks come before they run, and the scheduler is told what they are.
// The end of the job ends it.
func TestPrefetch(t *testing.T) {
	var hub fake.Hub
	wa, wb := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	block := make(chan struct{})
	wa.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		select {
		case <-block:
		case <-ctx.Done():
		}
		return grid.Outcome{}, nil
	}
	sa, ca := watch(wa, nil)
	a := open(t, ca)
	wb.Fetcher.From = []*fake.Blocks{wa.Blocks}
	slow := put(t, wa.Blocks, "slow", 100_000)
	f := &slowFetcher{Fetcher: wb.Fetcher, slow: slow.CID, begun: make(chan struct{}, 1), ended: make(chan error, 1)}
	sb, cb := watch(wb, nil)
	cb.Fetcher = f
	b := open(t, cb)

	r := request(wa, 3)
	one, two := put(t, wa.Blocks, "one", 100_000), put(t, wa.Blocks, "two", 200)
	r.Rows = [][]grid.Row{{{one}, {two}, {slow}}}
	id := submit(t, a, r)
	l := seen(t, sa, every[grid.JobOpened]).Lease
	l.Table = seen(t, sa, every[grid.Prepared]).Table
	b.Do(grid.Prefetch{Lease: l.With(grid.Span{Lo: 0, Hi: 2})})
	h := seen(t, sb, every[grid.Hints])
	if h.Work != l.Work() || len(h.Inputs) != 2 || h.Inputs[0].Root != grid.RootHash(one.CID.Cid) {
		t.Errorf("hints %+v", h)
	}
	ctx := within(t)
	for _, in := range []grid.Input{one, two} {
		for has := false; !has; {
			if has, _ = wb.Blocks.Has(ctx, in.CID.Cid); ctx.Err() != nil {
				t.Fatalf("input %s has not come", in.Name)
			}
		}
	}
	b.Do(grid.Prefetch{Lease: l.With(grid.Span{Lo: 2, Hi: 3})})
	<-f.begun
	for range 100 { // more than may wait
		b.Do(grid.Prefetch{Lease: l.With(grid.Span{Lo: 0, Hi: 1})})
	}
	b.Do(grid.StopJob{Job: id})
	if err := <-f.ended; err == nil {
		t.Error("it was not cancelled")
	}
	close(block)
	end(t, a, id)
}

// TestFetched: a worker tells what it has waited for.
func TestFetched(t *testing.T) {
	var hub fake.Hub
	wa, far := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "far")
	wa.Fetcher.From = []*fake.Blocks{far.Blocks}
	s, c := watch(wa, nil)
	n := open(t, c)
	in := put(t, far.Blocks, "in", 100_000)
	r := request(wa, 1)
	r.Rows = [][]grid.Row{{{in}}}
	r.Copies = 1
	run(t, n, r)
	if d := seen(t, s, every[grid.GrainDone]); d.Ran != 1 || d.Fetched != 100_000 || d.Fetching <= 0 {
		t.Errorf("%+v", d)
	}
}

// TestLyingReport: who reports what it cannot have run is accused before the job.
func TestLyingReport(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	block := make(chan struct{})
	w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		select {
		case <-block:
		case <-ctx.Done():
		}
		return grid.Outcome{}, nil
	}
	s, c := watch(w, nil)
	n := open(t, c)
	id := submit(t, n, request(w, 3))
	seen(t, s, every[grid.Prepared])
	liar := hub.Join(nodeID("liar"))
	enter(t, w, n, liar.Self())
	for i, done := range []grid.Completion{{Index: 0, Receipt: sampleReceipt()}, {Index: 99, Receipt: sampleReceipt()}} {
		data, _ := grid.Marshal(grid.ReportMsg{Job: id, Epoch: 1, Done: []grid.Completion{done}})
		if _, err := liar.Call(within(t), w.ID, grid.ProtoReport, data); err == nil {
			t.Errorf("lie %d was believed", i)
		}
		seen(t, s, func(e grid.Accused) bool { return e.Peer == liar.Self() && e.Job == id })
	}
	close(block)
	if st := end(t, n, id); st.State != grid.Done {
		t.Error(st.Error)
	}
}

// TestReportOfOthersTask: a failure of a task counts only from who holds it, and a stranger's success neither; else any
// node that has seen a lease could end the job, or make its result up.
func TestReportOfOthersTask(t *testing.T) {
	var hub fake.Hub
	w, member, stranger := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "member"), fake.NewWorld(&hub, "stranger")
	block := make(chan struct{})
	w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		select {
		case <-block:
		case <-ctx.Done():
		}
		return grid.Outcome{}, nil
	}
	s, c := watch(w, nil)
	n := open(t, c)
	enter(t, w, n, member.ID)
	submit(t, n, request(w, 6))
	f := &forger{t: t, owner: w, self: stranger, n: n}
	f.lease = seen(t, s, every[grid.JobOpened]).Lease
	f.lease.Table = seen(t, s, every[grid.Prepared]).Table
	for _, tt := range []struct {
		who     *fake.World
		code    grid.Code
		refused string
		done    uint32
	}{{stranger, grid.Denied, "not of this realm", 0}, {member, grid.Busy, "1 task ", 1}} {
		for _, fault := range []*grid.Fault{nil, {Code: grid.Trap, Message: "unreachable"}} {
			f.self = tt.who
			lie, truth := f.honest(0), f.honest(5)
			lie.Done[0].Receipt.Exit, lie.Done[0].Receipt.Fault = 9, fault
			f.sign(&lie)
			lie.Done = append(lie.Done, truth.Done...)
			err := f.call(grid.ProtoReport, lie, new(grid.ReportReply))
			wantCode(t, err, tt.code, tt.refused, tt.who.ID.String())
			if st := f.status(); st.Failed != 0 || st.Done != tt.done {
				t.Errorf("after a report of %s: %d tasks failed, %d ended well, want none and %d", tt.who.ID, st.Failed, st.Done, tt.done)
			}
		}
	}
	close(block)
	if st := end(t, n, f.lease.Job); st.State != grid.Done {
		t.Errorf("%s: %s", st.State, st.Error)
	}
}
