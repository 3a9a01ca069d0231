package grid_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

var errEnough = errors.New("enough")

// pulses follows the nodes of a realm until enough says so.
func pulses(t *testing.T, n *grid.Node, enough func(map[string]grid.Pulse) bool) map[string]grid.Pulse {
	t.Helper()
	all := make(map[string]grid.Pulse)
	err := n.FollowNodes(within(t), grid.MinFollow, func(list []grid.Pulse) error {
		for _, p := range list {
			all[p.Node] = p
		}
		if enough(all) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("%v: %+v", err, all)
	}
	return all
}

func submitted(t *testing.T, m *remoteNode, tasks uint32) grid.JobID {
	t.Helper()
	m.w.Engine.Guest = fake.Text("out")
	id, err := m.Submit(within(t), grid.Request{Spec: grid.Spec{Name: "looked-at", Stages: []grid.Stage{{Module: m.w.Module, Tasks: tasks}}}, NoCache: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Watch(within(t), id, func(grid.JobStatus) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestNodes: a node tells of all of its realm, also of one that has fallen silent, with what was known of it last.
func TestNodes(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	r.share()
	a, b := r.all[0], r.all[1]
	submitted(t, b, 3)
	all := pulses(t, a.Node, func(all map[string]grid.Pulse) bool {
		return len(all) == 3 && all[b.w.ID.String()].Ran == 3
	})
	p := all[b.w.ID.String()]
	if p.State != grid.PulseUp || p.Load.Slots != 2 || p.Busy <= 0 || p.P99 <= 0 || p.Memory == 0 || p.Version != grid.Version || len(p.Links) != 2 {
		t.Errorf("b is %+v", p)
	}
	r.kill(b)
	all = pulses(t, a.Node, func(all map[string]grid.Pulse) bool {
		return all[b.w.ID.String()].State == grid.PulseSilent && all[b.w.ID.String()].Ran == 3
	})
	if p := all[b.w.ID.String()]; p.Error == "" {
		t.Errorf("b is %+v", p)
	}
	list, err := a.Nodes(within(t))
	if err != nil || len(list) != 3 {
		t.Errorf("%v, %+v", err, list)
	}
}

// TestStretches: every attempt is told, on which node it ever ran, and told once to who follows.
func TestStretches(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	first := submitted(t, b, 4)
	tasks := func(q grid.StretchQuery) (n uint32) {
		if err := a.Stretches(within(t), q, func(s grid.Stretch) error {
			n += s.Tasks
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, x := range []struct {
		q    grid.StretchQuery
		want uint32
	}{
		{grid.StretchQuery{}, 4}, {grid.StretchQuery{Node: b.w.ID}, 4}, {grid.StretchQuery{Node: a.w.ID}, 0}, {grid.StretchQuery{Job: first}, 4},
		{grid.StretchQuery{Since: time.Now().Add(time.Hour)}, 0}, {grid.StretchQuery{Until: time.Now().Add(-time.Hour)}, 0}, {grid.StretchQuery{Limit: 2, Resolution: time.Hour}, 4},
	} {
		if got := tasks(x.q); got != x.want {
			t.Errorf("%+v: %d tasks", x.q, got)
		}
	}
	if err := a.Stretches(within(t), grid.StretchQuery{Node: nodeID("nobody")}, func(grid.Stretch) error { return nil }); grid.CodeOf(err) != grid.NotFound {
		t.Errorf("a node that is none: %v", err)
	}
	var second grid.JobID
	seen := make(map[string]int)
	err := a.Stretches(within(t), grid.StretchQuery{Follow: true}, func(s grid.Stretch) error {
		seen[fmt.Sprint(s.Job, s.Lo)]++
		switch {
		case len(seen) == 4 && second == "":
			second = submitted(t, b, 5)
		case len(seen) == 9:
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	for what, n := range seen {
		if n != 1 {
			t.Errorf("%s was told %d times", what, n)
		}
	}
}

// TestRealmEvents: each node hears of what others tell: of jobs, of nodes that come and go.
func TestRealmEvents(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	r.share()
	a, b, c := r.all[0], r.all[1], r.all[2]
	id := submitted(t, b, 1)
	var got []string
	gone := false
	err := a.RealmEvents(within(t), grid.EventQuery{Follow: true}, func(ev grid.RealmEvent) error {
		got = append(got, ev.Room+" "+ev.Kind)
		switch {
		case ev.Job == id && ev.Kind == string(grid.EventEnded) && !gone:
			if ev.From != b.w.ID.String() || ev.Name != "looked-at" {
				t.Errorf("%+v", ev)
			}
			gone = true
			r.kill(c)
			r.expire(c)
		case ev.Kind == grid.KindGone:
			if ev.Node != c.w.ID.String() {
				t.Errorf("%+v", ev)
			}
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err, got)
	}
	for _, want := range []string{"node up", "job started", "job stage", "job ended"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != "node gone" })); n != 1 {
		t.Errorf("%d have told that a node is gone", n)
	}
	// Of one job, after its end.
	got = nil
	err = a.RealmEvents(within(t), grid.EventQuery{Job: id, Follow: true}, func(ev grid.RealmEvent) error {
		if ev.Room != grid.RoomJob || ev.Job != id || ev.From != b.w.ID.String() {
			t.Errorf("%+v", ev)
		}
		got = append(got, ev.Kind)
		return nil
	})
	if err != nil || len(got) < 3 || got[0] != "started" || got[len(got)-1] != "ended" {
		t.Errorf("%v, %q", err, got)
	}
	for _, q := range []grid.EventQuery{{Room: "kitchen"}, {Room: grid.RoomData, Job: id}} {
		if err := a.RealmEvents(within(t), q, func(grid.RealmEvent) error { return nil }); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestLooksRefuseStrangers: who is not of the realm is told nothing.
func TestLooksRefuseStrangers(t *testing.T) {
	r := newRemoteRealm(t, "a")
	r.share()
	stranger := r.world.Join(nodeID("stranger"))
	defer stranger.Close()
	for _, p := range []grid.Protocol{grid.ProtoPulse, grid.ProtoStretches, grid.ProtoRealmEvents} {
		data, err := stranger.Call(within(t), r.all[0].w.ID, p, []byte{0xa0})
		if grid.CodeOf(err) != grid.Denied {
			t.Errorf("%s: %x, %v", p, data, err)
		}
	}
}

// TestLiars: what a node of the realm says of itself is bounded, and is of itself, whatever it says.
func TestLiars(t *testing.T) {
	r := newRemoteRealm(t, "a")
	r.share()
	a := r.all[0]
	liar := fake.NewWorld(r.hub, "liar")
	net := r.world.Join(liar.ID)
	defer net.Close()
	if _, err := r.ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: grid.NodeKeys + liar.ID.String(), Value: []byte{0xa0}}}}); err != nil {
		t.Fatal(err)
	}
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	now := time.Now().UTC()
	answer := func(v any) func(context.Context, peer.ID, []byte) ([]byte, error) {
		return func(context.Context, peer.ID, []byte) ([]byte, error) { return grid.Marshal(v) }
	}
	many := make([]grid.Flow, 5000)
	for i := range many {
		many[i] = grid.Flow{From: liar.ID.String(), Tasks: 1}
	}
	net.Serve(grid.ProtoPulse, answer(map[string]any{"run": 1, "next": 0, "now": now.UnixNano(), "items": []grid.Pulse{{
		Node: a.w.ID.String(), Name: strings.Repeat("x", 1000), State: "\x1b[31mon fire", At: far, Started: far, Steals: many, Busy: -5, P99: -1,
		Load: grid.Load{Slots: math.MaxInt64, Running: math.MaxInt64}, Links: []grid.PulseLink{{Node: "../etc"}, {Node: liar.ID.String(), RTT: -1}},
	}}}))
	good := grid.Stretch{Node: a.w.ID.String(), Slot: 1, Job: grid.JobID("j" + strings.Repeat("a", 25)), Lo: 1, Hi: 2, Tasks: 1, From: now.Add(-time.Second), To: now}
	bad := func(f func(*grid.Stretch)) grid.Stretch { s := good; f(&s); return s }
	net.Serve(grid.ProtoStretches, answer(map[string]any{"run": 1, "next": 9, "now": now.UnixNano(), "items": []grid.Stretch{
		good, bad(func(s *grid.Stretch) { s.To = far }), bad(func(s *grid.Stretch) { s.From = time.Time{} }), bad(func(s *grid.Stretch) { s.To = s.From.Add(-1) }),
		bad(func(s *grid.Stretch) { s.Slot = -1 }), bad(func(s *grid.Stretch) { s.Job = "x" }), bad(func(s *grid.Stretch) { s.Tasks = math.MaxUint32 }),
		bad(func(s *grid.Stretch) { s.Failed = 2 }), bad(func(s *grid.Stretch) { s.Hi = s.Lo }), bad(func(s *grid.Stretch) { s.Stage = math.MaxUint32 }),
	}}))
	net.Serve(grid.ProtoRealmEvents, answer(map[string]any{"run": 1, "next": 9, "now": now.UnixNano(), "items": []grid.RealmEvent{
		{At: far, From: a.w.ID.String(), Room: "node", Kind: "up", Text: strings.Repeat("é", 5000)}, {At: now, Room: "kitchen", Kind: "fire"}, {At: now, Room: "job", Job: "nothing"}, {At: now, Room: "node", Node: "nobody"},
	}}))
	all := pulses(t, a.Node, func(all map[string]grid.Pulse) bool { return all[liar.ID.String()].State == grid.PulseUp })
	p := all[liar.ID.String()]
	if len(all) != 2 || len(p.Name) > 64 || p.At.Year() > 3000 || p.Started.Year() > 3000 || len(p.Steals) != grid.MaxFlows || p.Busy < 0 || p.P99 < 0 ||
		p.Load.Slots > 1<<16 || p.Load.Running > p.Load.Slots || len(p.Links) != 1 || p.Links[0].RTT != 0 {
		t.Errorf("%+v", p)
	}
	var stretches []grid.Stretch
	if err := a.Stretches(within(t), grid.StretchQuery{}, func(s grid.Stretch) error { stretches = append(stretches, s); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(stretches) != 1 || stretches[0].Node != liar.ID.String() {
		t.Errorf("%+v", stretches)
	}
	var events []grid.RealmEvent
	if err := a.RealmEvents(within(t), grid.EventQuery{}, func(ev grid.RealmEvent) error {
		if ev.From == liar.ID.String() {
			events = append(events, ev)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 || events[0].At.Year() > 3000 || len(events[0].Text) > 600 {
		t.Errorf("%+v", events)
	}
}

// TestLookingEnds: those who look on share one asking, there are not too many of them, and it ends when the last has gone.
func TestLookingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemoteRealm(t, "a", "b")
		defer r.close()
		a, b := r.all[0], r.all[1]
		var asked atomic.Int64
		b.net.Close()
		mute := r.world.Join(b.w.ID)
		defer mute.Close()
		mute.Serve(grid.ProtoPulse, func(context.Context, peer.ID, []byte) ([]byte, error) {
			asked.Add(1)
			return grid.Marshal(map[string]any{"run": 1, "next": 0, "now": time.Now().UnixNano(), "items": []grid.Pulse{{}}})
		})
		var leave []func()
		for range grid.Lookers {
			f, err := a.JoinLooking(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, f)
		}
		if _, err := a.JoinLooking(t.Context()); grid.CodeOf(err) != grid.Busy {
			t.Errorf("one too many: %v", err)
		}
		<-time.After(10 * time.Second)
		if n := asked.Load(); n < 8 || n > 13 {
			t.Errorf("b was asked %d times in ten seconds", n)
		}
		for _, f := range leave {
			f()
		}
		<-time.After(10 * time.Second)
		if a.Looks() {
			t.Error("it goes on, though nobody looks")
		}
	})
}

// TestEventsOfThePast: a node tells also what it told before it was started, but for what no node tells; and hands on what it tells now.
func TestEventsOfThePast(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	cfg := w.Config()
	at := time.Now().Add(-time.Hour).UTC()
	cfg.Past = []grid.RealmEvent{
		{At: at, Room: grid.RoomNode, Kind: grid.KindFull, Node: w.ID.String(), Text: "full"},
		{At: at.Add(1), Room: "nowhere", Kind: grid.KindFull, Text: "it cannot be"},
		{At: at.Add(2), Room: grid.RoomJob, Kind: "ended", Job: "no job", Text: "it cannot be"},
		{At: at.Add(3), Room: grid.RoomNode, Kind: grid.KindRoom, Text: "room"},
	}
	var mu sync.Mutex
	var told []string
	cfg.Told = func(ev grid.RealmEvent) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, ev.Text)
	}
	n := open(t, cfg)
	n.Happened(grid.RoomNode, grid.KindFull, w.ID, "full again")
	var got []string
	if err := n.RealmEvents(within(t), grid.EventQuery{Room: grid.RoomNode}, func(ev grid.RealmEvent) error {
		if ev.From != w.ID.String() {
			t.Errorf("told by %s", ev.From)
		}
		got = append(got, ev.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) < 3 || got[0] != "full" || got[1] != "room" || !slices.Contains(got, "full again") || !slices.Contains(told, "full again") || slices.Contains(told, "room") {
		t.Errorf("events %q, handed on %q", got, told)
	}
}
