package sched

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What the transcripts of stealing and of data have besides: roots are numbers, sizes are in MiB.

func (a *args) time(key string) time.Duration {
	d, _ := time.ParseDuration(a.keyed[key])
	return d
}

func (a *args) peers(key string) (list []peer.ID) {
	for w := range strings.SplitSeq(a.keyed[key], ",") {
		if w != "" {
			list = append(list, peer.ID(w))
		}
	}
	return list
}

// roots reads "roots=1,2,5-9".
func (a *args) roots(key string) (list []uint64) {
	for w := range strings.SplitSeq(a.keyed[key], ",") {
		from, to, _ := strings.Cut(w, "-")
		lo, _ := strconv.ParseUint(from, 10, 16)
		hi, _ := strconv.ParseUint(to, 10, 16)
		for r := lo; r <= max(lo, hi); r++ {
			list = append(list, r)
		}
	}
	return list
}

// summary reads "holds=1,2".
func (a *args) summary(key string) grid.Summary {
	if a.keyed[key] == "" {
		return nil
	}
	roots := a.roots(key)
	s := grid.NewSummary(1000) // so large that nothing is found by mistake
	for _, r := range roots {
		s.Add(r)
	}
	return s
}

// spec is one that a lease has when the line says "spec".
func (a *args) spec() (l grid.Link) {
	if a.has("spec") {
		l.Cid = grid.NewBlock(cid.Raw, []byte("spec")).CID()
	}
	return l
}

func (a *args) nearEvent(verb string) (grid.Event, error) {
	switch verb {
	case "hints": // hints j1/0 lo=4 roots=1,2,5-9 size=10
		ev := grid.Hints{Work: parseWork(a.word(0)), Lo: uint32(a.num("lo"))}
		for _, r := range a.roots("roots") {
			ev.Inputs = append(ev.Inputs, grid.Hint{Root: r, Size: uint64(a.num("size")) << 20})
		}
		return ev, nil
	case "accused": // accused A j1 why=lies
		return grid.Accused{Peer: peer.ID(a.word(0)), Job: grid.JobID(a.word(1)), Why: a.keyed["why"]}, nil
	}
	return nil, fmt.Errorf("no such event")
}

func describeNear(e grid.Effect) string {
	switch e := e.(type) {
	case grid.Prefetch:
		return fmt.Sprintf("prefetch for %s:%s", string(e.Lease.Owner), e.Lease)
	case grid.Note:
		return fmt.Sprintf("note %s of job %s: %s: %s", e.Event.Kind, e.Job, string(e.Event.Node), e.Event.Text)
	}
	return fmt.Sprintf("%T", e)
}

// checkNear verifies what is known of where things are, and of whom not to deal with.
func (c *Core) checkNear() error {
	pages := 0
	for of, h := range c.hints {
		for _, p := range h.pages {
			pages++
			if len(p) != hintPage {
				return fmt.Errorf("9: hints of %v have a page of %d", of, len(p))
			}
		}
	}
	if pages != c.hinted || pages > maxPages {
		return fmt.Errorf("9: %d pages of hints, booked as %d", pages, c.hinted)
	}
	if len(c.tips) > maxTry || len(c.rich) > maxRich || len(c.bad) > maxBad {
		return fmt.Errorf("9: %d tips, %d rumours, %d bad records", len(c.tips), len(c.rich), len(c.bad))
	}
	for _, r := range c.rich {
		if c.peers[r.id] == nil || c.barred(r.id) {
			return fmt.Errorf("13: %q is believed to have work", r.id)
		}
	}
	for _, t := range c.thieves {
		if c.barred(t) {
			return fmt.Errorf("13: %q is left alone, and waits for work", t)
		}
	}
	for _, n := range c.bad {
		if c.peers[n.id] != nil {
			return fmt.Errorf("13: %q is away and present", n.id)
		}
	}
	if c.waker != "" && c.barred(c.waker) || c.giver != "" && c.barred(c.giver) {
		return fmt.Errorf("13: %q or %q is left alone, and will be asked", c.waker, c.giver)
	}
	return nil
}

// TestNearest: of many peers the near ones are asked far more often, and the others still now and then.
func TestNearest(t *testing.T) {
	c := New(Config{Self: "me", Slots: 1})
	now := time.Unix(1<<30, 0)
	far := func(p peer.ID) time.Duration { // a quarter of them is near
		if p[0]%4 == 0 {
			return time.Millisecond
		}
		return 80 * time.Millisecond
	}
	asked := map[peer.ID]int{}
	var answer func(effects []grid.Effect)
	answer = func(effects []grid.Effect) {
		for _, e := range effects {
			if ask, ok := e.(grid.AskSteal); ok {
				asked[ask.Victim]++
				answer(c.Step(now, grid.StealAnswered{From: ask.Victim, Took: far(ask.Victim)}))
			}
		}
	}
	for i := range 64 {
		answer(c.Step(now, grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: peer.ID([]byte{byte(i)}), Up: true}}))
	}
	for range 500 {
		now = c.NextTick()
		answer(c.Step(now, grid.Tick{}))
	}
	near, all := 0, 0
	for i := range 64 {
		p := peer.ID([]byte{byte(i)})
		if all += asked[p]; far(p) < 10*time.Millisecond {
			near += asked[p]
		}
		if asked[p] == 0 {
			t.Errorf("peer %d was never asked", i)
		}
	}
	if share := float64(near) / float64(all); share < 0.33 || share > 0.8 {
		t.Errorf("%.2f of %d asks went to the near quarter", share, all)
	}
}

// TestTrust: a thief that claims all it got and does none of it comes to hold no more than it is trusted with, and
// one that works is trusted with more. What it gave away is not held against it.
func TestTrust(t *testing.T) {
	c := New(Config{Self: "me", MaxTrust: 100})
	now := time.Unix(1<<30, 0)
	w := grid.Work{Job: "j1"}
	c.Step(now, grid.JobOpened{Lease: grid.Lease{Job: "j1", Epoch: 1}, Stages: stages(100_000)})
	c.Step(now, grid.Prepared{Work: w, Ready: whole(100_000)})
	for _, p := range []peer.ID{"A", "B"} {
		c.Step(now, grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: p, Up: true}})
	}
	var held []grid.Span
	once := func() (n uint32) {
		for _, e := range c.Step(now, grid.StealAsked{From: "A", Slots: 4}) {
			if a, ok := e.(grid.AnswerSteal); ok {
				for _, l := range a.Leases {
					n += l.Len()
					held = append(held, l.Span)
				}
			}
		}
		c.Step(now, grid.Claimed{From: "A", Work: w, Epoch: 1, Spans: held})
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	steal := func() (sum uint32) {
		for n := once(); n > 0; n = once() {
			sum += n
		}
		return sum
	}
	report := func(s grid.Span) {
		var results []grid.TaskResult
		for i := s.Lo; i < s.Hi; i++ {
			results = append(results, grid.TaskResult{Index: i})
		}
		c.Step(now, grid.Reported{From: "A", Work: w, Epoch: 1, Results: results})
	}
	var sum uint32
	for range 50 {
		now = now.Add(time.Second)
		sum += steal()
	}
	if sum != 100 {
		t.Fatalf("it got %d tasks and reported none", sum)
	}
	for _, s := range slices.Clone(held) {
		report(s)
	}
	held = nil
	if n := steal(); n != 400 {
		t.Errorf("after 100 tasks done it got %d", n)
	}
	// B stole them all from it, and says so.
	c.Step(now, grid.Claimed{From: "B", Work: w, Epoch: 1, Spans: held})
	held = nil
	if n := steal(); n != 400 {
		t.Errorf("after it gave all away it got %d", n)
	}
	now = now.Add(time.Minute) // what it did is long ago; the leases have run out
	c.Step(now, grid.Tick{})
	held = nil
	if n := steal(); n >= 100 || n == 0 {
		t.Errorf("after its leases ran out it got %d", n)
	}
}
