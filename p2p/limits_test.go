package p2p_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

func refused(h *p2p.Host, from peer.ID, p grid.Protocol, reason string) bool {
	return slices.ContainsFunc(h.Refusals(), func(r grid.Refusal) bool {
		return r.From == from.String() && r.Protocol == p && r.Reason == reason && r.Count > 0
	})
}

// A request that does not come in time is given up, and counted.
func TestSlowRequest(t *testing.T) {
	a, b := open(t), open(t)
	b.Hurry(50 * time.Millisecond)
	b.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	connect(t, a, b)
	s, err := a.Open(t.Context(), b.Self(), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if _, err := s.Write([]byte{100, 'x'}); err != nil { // of 100 bytes
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.Read(make([]byte, 1)); grid.CodeOf(err) != grid.Unavailable {
		t.Errorf("got %v, want a reset", err)
	}
	poll(t, 5*time.Second, "it is not counted", func() bool { return refused(b, a.Self(), "echo/1", grid.RefusedSlow) })
}

// Who asks too often is told so, and what he asks for is not done; others are answered.
func TestTooOften(t *testing.T) {
	rates := func(c *p2p.Config) {
		c.Rates = map[grid.Protocol]grid.Rate{"echo/1": {PerSecond: 1e-6, Burst: 3}, "sink/1": {PerSecond: 1e-6, Burst: 2}}
	}
	a, b, c := open(t), open(t, rates), open(t)
	calls := 0
	b.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
		calls++
		return req, nil
	})
	b.Handle("sink/1", func(context.Context, peer.ID, grid.Stream) {})
	connect(t, a, b)
	connect(t, c, b)
	for i := range 6 {
		_, err := a.Call(t.Context(), b.Self(), "echo/1", make([]byte, 1<<20)) // is taken in either case
		if i < 3 && err != nil || i >= 3 && (grid.CodeOf(err) != grid.Limit || grid.AdviceOf(err) == "") {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if _, err := c.Call(t.Context(), b.Self(), "echo/1", nil); err != nil {
		t.Errorf("another peer: %v", err)
	}
	if calls != 4 {
		t.Errorf("%d calls were answered, want 4", calls)
	}
	for range 3 {
		if s, err := a.Open(t.Context(), b.Self(), "sink/1"); err == nil {
			_, _ = s.Write([]byte("x"))
			_ = s.Close()
		}
	}
	poll(t, 5*time.Second, "streams are not counted", func() bool { return refused(b, a.Self(), "sink/1", grid.RefusedRate) })
	if !refused(b, a.Self(), "echo/1", grid.RefusedRate) || refused(b, c.Self(), "echo/1", grid.RefusedRate) {
		t.Errorf("counted %+v", b.Refusals())
	}
}
