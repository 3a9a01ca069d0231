package grid_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// TestMergeStretches: however stretches are merged, no attempt is lost unless there is no other way, and none is shown where none was.
func TestMergeStretches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	base := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for round := range 60 {
		var list []grid.Stretch
		tasks, phases := uint32(0), time.Duration(0)
		for slot := range 3 {
			at := base
			for i := range 200 {
				at = at.Add(time.Duration(rng.IntN(2000)) * time.Microsecond)
				to := at.Add(time.Duration(rng.IntN(5000)) * time.Microsecond)
				list = append(list, grid.Stretch{Slot: slot, Job: grid.JobID(fmt.Sprint(rng.IntN(2))), Lo: uint32(i), Hi: uint32(i + 1), Tasks: 1, From: at, To: to, Phases: grid.Phases{Run: to.Sub(at)}})
				tasks++
				phases += to.Sub(at)
				at = to
			}
		}
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		limit := []int{6, 20, 100, 1000}[round%4]
		resolution := []time.Duration{0, time.Millisecond, time.Hour}[round%3]
		got := grid.MergeStretches(slices.Clone(list), resolution, limit)
		if len(got) > limit || !slices.IsSortedFunc(got, func(a, b grid.Stretch) int { return a.From.Compare(b.From) }) {
			t.Fatalf("%d of at most %d, or not in order", len(got), limit)
		}
		for _, s := range got {
			tasks -= s.Tasks
			phases -= s.Phases.Run
			if s.Hi-s.Lo < s.Tasks || s.To.Before(s.From) {
				t.Fatalf("%+v", s)
			}
		}
		if tasks != 0 || phases != 0 {
			t.Fatalf("limit %d, resolution %v: %d tasks and %v are lost", limit, resolution, tasks, phases)
		}
		if limit == 1000 && resolution == 0 && len(got) != len(list) {
			t.Fatalf("%d of %d were not merged", len(got), len(list))
		}
	}
	if got := grid.MergeStretches([]grid.Stretch{{Slot: 1, From: base, To: base, Tasks: 1}, {Slot: 2, From: base.Add(1), To: base.Add(1), Tasks: 1}}, 0, 1); len(got) != 1 || got[0].Slot != 2 {
		t.Errorf("the newest is to stay: %+v", got)
	}
}

// TestAttemptsKept: the last attempts are kept, however many there were.
func TestAttemptsKept(t *testing.T) {
	const all = grid.MaxRuns + 5000
	h := new(grid.Runs)
	now := time.Now()
	for i := range uint32(all) {
		h.Note(now, time.Millisecond, i)
	}
	var got []uint32
	h.Each(0, all, func(index uint32) { got = append(got, index) })
	if len(got) != grid.MaxRuns || got[0] != all-grid.MaxRuns || got[len(got)-1] != all-1 {
		t.Errorf("%d attempts from %d to %d", len(got), got[0], got[len(got)-1])
	}
	if p50, p99 := h.Recent(now.Add(time.Second)); p50 != time.Millisecond || p99 != time.Millisecond {
		t.Errorf("%v, %v", p50, p99)
	}
	if p50, _ := h.Recent(now.Add(time.Hour)); p50 != 0 {
		t.Errorf("an hour later: %v", p50)
	}
	if busy := h.Busy(now); busy != all*time.Millisecond {
		t.Errorf("busy for %v", busy)
	}
}

func BenchmarkAttemptKept(b *testing.B) {
	h := new(grid.Runs)
	now := time.Now()
	b.ReportAllocs()
	for i := range uint32(b.N) {
		h.Note(now, time.Millisecond, i)
	}
}

// BenchmarkThousandNodes asks a realm of a thousand nodes how they are.
func BenchmarkThousandNodes(b *testing.B) {
	const others = 999
	r := newRemoteRealm(b, "a")
	a := r.all[0]
	pulse := grid.Pulse{Version: "0.1.0", At: time.Now().UTC(), Started: time.Now().UTC(), State: grid.PulseUp, Load: grid.Load{Queued: 12345, Running: 8, Slots: 8}, Ran: 1234567, Busy: 1e15, BytesIn: 1e12, BytesOut: 1e12, Disk: 1e12, Quota: 1e13, Memory: 1e9, Goroutines: 500}
	for i := range 16 {
		id := nodeID(fmt.Sprint("link", i)).String()
		pulse.Links = append(pulse.Links, grid.PulseLink{Node: id, RTT: time.Millisecond, Transport: "quic-v1"})
		pulse.Steals = append(pulse.Steals, grid.Flow{From: id, Tasks: 1e6})
	}
	data, err := grid.Marshal(map[string]any{"run": 1, "next": 0, "now": time.Now().UnixNano(), "items": []grid.Pulse{pulse}})
	if err != nil {
		b.Fatal(err)
	}
	txn := grid.Txn{}
	for i := range others {
		id := nodeID(fmt.Sprint("n", i))
		net := r.world.Join(id)
		b.Cleanup(func() { net.Close() })
		net.Serve(grid.ProtoPulse, func(context.Context, peer.ID, []byte) ([]byte, error) { return data, nil })
		txn.Put = append(txn.Put, grid.Entry{Key: grid.NodeKeys + id.String(), Value: []byte{0xa0}})
	}
	if _, err := r.ledger.Commit(b.Context(), txn); err != nil {
		b.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for a.KnownUp() < others+1 {
		<-tick.C
	}
	b.ResetTimer()
	for b.Loop() {
		if n := a.LookAtAll(b.Context()); n != others+1 {
			b.Fatalf("%d nodes are up", n)
		}
	}
	b.ReportMetric(float64(len(data)*others), "bytes/round")
}

func FuzzLooks(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	seed(f, grid.LookMsg{Run: 1, From: 2, To: 3, Since: 4, Limit: 5}, grid.LookReply[grid.Pulse]{Items: []grid.Pulse{{At: now, Steals: []grid.Flow{{From: "x"}}, Links: []grid.PulseLink{{}}}}},
		grid.LookReply[grid.Stretch]{Items: []grid.Stretch{{Job: "j", Hi: 1, From: now, To: now}}}, grid.LookReply[grid.RealmEvent]{Items: []grid.RealmEvent{{At: now, Room: "job"}}})
	from := nodeID("a")
	node, err := grid.OpenNode(f.Context(), fake.NewWorld(new(fake.Hub), "fuzz").Config())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { node.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, ok := decodes[grid.LookMsg](t, data); ok {
			node.AnswerLooks(&m)
		}
		if r, ok := decodes[grid.LookReply[grid.Pulse]](t, data); ok {
			for i := range r.Items {
				if grid.TakePulse(&r.Items[i], from); len(r.Items[i].Steals) > grid.MaxFlows || r.Items[i].Node != from.String() {
					t.Fatalf("%+v", r.Items[i])
				}
			}
		}
		if r, ok := decodes[grid.LookReply[grid.Stretch]](t, data); ok {
			for i := range r.Items {
				if s := &r.Items[i]; grid.TakeStretch(s, from) && (s.To.Before(s.From) || s.Failed > s.Tasks || s.To.Year() > 3000) {
					t.Fatalf("%+v", s)
				}
			}
			grid.MergeStretches(r.Items, 1, 2)
		}
		if r, ok := decodes[grid.LookReply[grid.RealmEvent]](t, data); ok {
			for i := range r.Items {
				if ev := &r.Items[i]; grid.TakeEvent(ev, from) && (ev.From != from.String() || len(ev.Text) > 3*512) {
					t.Fatalf("%+v", ev)
				}
			}
		}
	})
}
