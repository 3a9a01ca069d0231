package memnet_test

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func name(i int) peer.ID { return peer.ID("node" + string(rune('a'+i))) }

func join(t *testing.T, w *memnet.World, n int) []*memnet.Node {
	nodes := make([]*memnet.Node, n)
	for i := range nodes {
		nodes[i] = w.Join(name(i))
		t.Cleanup(func() { _ = nodes[i].Close() })
	}
	return nodes
}

func TestContract(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  memnet.Config
	}{
		{"instant", memnet.Config{}},
		{"latency", memnet.Config{Seed: 1, Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration {
			return time.Duration(r.Int64N(int64(time.Millisecond)))
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			gridtest.TestNetwork(t, func(t *testing.T, n int) []grid.Network {
				var nets []grid.Network
				for _, n := range join(t, memnet.New(c.cfg), n) {
					nets = append(nets, n)
				}
				return nets
			})
		})
	}
}

func wantCode(t *testing.T, err error, code grid.Code) {
	t.Helper()
	if err == nil || grid.CodeOf(err) != code {
		t.Errorf("got %v, want %v", err, code)
	}
}

// record collects a node's events; what it returns reads them once all is quiet.
func record(t *testing.T, n *memnet.Node) func() []grid.PeerEvent {
	var events []grid.PeerEvent
	stop := n.Subscribe(func(ev grid.PeerEvent) { events = append(events, ev) })
	t.Cleanup(stop)
	return func() []grid.PeerEvent {
		synctest.Wait()
		got := events
		events = nil
		return got
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, memnet.New(memnet.Config{
			Latency: func(_ *rand.Rand, from, to peer.ID) time.Duration {
				if from == name(0) {
					return 30 * time.Millisecond
				}
				return 20 * time.Millisecond
			},
		}), 2)
		nodes[1].Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
		nodes[1].Handle("echos/1", func(_ context.Context, _ peer.ID, s grid.Stream) { _, _ = io.Copy(s, s) })
		start := time.Now()
		if _, err := nodes[0].Call(t.Context(), name(1), "echo/1", nil); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 50*time.Millisecond {
			t.Errorf("a call took %v", d)
		}
		start = time.Now()
		s, err := nodes[0].Open(t.Context(), name(1), "echos/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 50*time.Millisecond {
			t.Errorf("an echo took %v", d)
		}
		_ = s.Close()
		if rtt := nodes[0].Peers()[0].RTT; rtt != 50*time.Millisecond {
			t.Errorf("RTT %v", rtt)
		}
	})
}

func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := memnet.New(memnet.Config{Silence: 10 * time.Second})
		nodes := join(t, w, 3)
		a, b := nodes[0], nodes[1]
		b.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
		b.Handle("echos/1", func(_ context.Context, _ peer.ID, s grid.Stream) { _, _ = io.Copy(s, s) })
		events := record(t, a)
		events() // those present
		s, err := a.Open(t.Context(), b.Self(), "echos/1")
		if err != nil {
			t.Fatal(err)
		}

		// A cut that heals in time delays, and nobody hears of it.
		w.Cut(a.Self(), b.Self())
		time.AfterFunc(5*time.Second, func() { w.Heal(a.Self(), b.Self()) })
		start := time.Now()
		if _, err := a.Call(t.Context(), b.Self(), "echo/1", nil); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("a held call: %v after %v", err, time.Since(start))
		}
		_, _ = s.Write([]byte("x"))
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if got := events(); len(got) != 0 {
			t.Errorf("events %v", got)
		}

		// A cut that lasts is noticed.
		w.Cut(a.Self(), b.Self())
		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = a.Call(ctx, b.Self(), "echo/1", nil)
		wantCode(t, err, grid.Unavailable)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("noticed after %v", d)
		}
		_, err = s.Read(make([]byte, 1))
		wantCode(t, err, grid.Unavailable)
		if got := events(); len(got) != 1 || got[0] != (grid.PeerEvent{Peer: b.Self()}) {
			t.Errorf("events %v", got)
		}
		if len(nodes[2].Peers()) != 2 || len(a.Peers()) != 1 {
			t.Errorf("peers %v and %v", nodes[2].Peers(), a.Peers())
		}
		w.Heal(a.Self(), b.Self())
		if got := events(); len(got) != 1 || got[0] != (grid.PeerEvent{Peer: b.Self(), Up: true}) {
			t.Errorf("events %v", got)
		}
		if _, err := a.Call(t.Context(), b.Self(), "echo/1", nil); err != nil {
			t.Error(err)
		}
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := memnet.New(memnet.Config{})
		nodes := join(t, w, 2)
		a, b := nodes[0], nodes[1]
		b.Serve("wait/1", func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		events := record(t, a)
		events()
		time.AfterFunc(time.Second, func() { w.Kill(b.Self()) })
		_, err := a.Call(t.Context(), b.Self(), "wait/1", nil)
		wantCode(t, err, grid.Unavailable)
		if got := events(); len(got) != 1 || got[0].Up {
			t.Errorf("events %v", got)
		}
		_, err = b.Call(t.Context(), a.Self(), "wait/1", nil)
		wantCode(t, err, grid.Unavailable)
		again := w.Join(b.Self())
		defer again.Close()
		_ = b.Close() // the old one's end does not concern the new one
		if got := events(); len(got) != 1 || !got[0].Up {
			t.Errorf("events %v", got)
		}
		_, err = a.Call(t.Context(), b.Self(), "wait/1", nil)
		wantCode(t, err, grid.Unsupported)
	})
}

func BenchmarkCall(b *testing.B) {
	w := memnet.New(memnet.Config{})
	x, y := w.Join("x"), w.Join("y")
	defer x.Close()
	defer y.Close()
	y.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	req := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Call(b.Context(), "y", "echo/1", req); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCutWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := memnet.New(memnet.Config{Silence: 10 * time.Second})
		nodes := join(t, w, 2)
		a, b := nodes[0], nodes[1]
		heard := make(map[peer.ID]int)
		for _, n := range nodes {
			n.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { heard[n.Self()]++; return req, nil })
			n.Handle("echos/1", func(_ context.Context, _ peer.ID, s grid.Stream) { _, _ = io.Copy(s, s) })
		}
		there, err := a.Open(t.Context(), b.Self(), "echos/1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = there.Write([]byte("x"))
		synctest.Wait() // it has come back, and is not read yet
		w.CutWay(a.Self(), b.Self())
		short := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		_, err = a.Call(short(), b.Self(), "echo/1", nil)
		wantCode(t, err, grid.Deadline)
		_, err = b.Call(short(), a.Self(), "echo/1", nil)
		wantCode(t, err, grid.Deadline)
		if heard[a.Self()] != 1 || heard[b.Self()] != 0 {
			t.Errorf("heard %v: only a can hear", heard)
		}
		if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
			t.Errorf("what came from b: %v", err)
		}
		_, _ = there.Write([]byte("y"))
		back, err := b.Open(t.Context(), a.Self(), "echos/1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = back.Write([]byte("z"))
		_ = back.SetDeadline(time.Now().Add(time.Second))
		_, err = back.Read(make([]byte, 1))
		wantCode(t, err, grid.Deadline)

		w.Heal(a.Self(), b.Self())
		_ = back.SetDeadline(time.Time{})
		for _, s := range []grid.Stream{there, back} {
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Errorf("after the link was mended: %v", err)
			}
		}
		w.CutWay(b.Self(), a.Self())
		time.Sleep(10*time.Second + 1)
		_, err = there.Write([]byte("x"))
		wantCode(t, err, grid.Unavailable)
		_ = back.Close()
	})
}
