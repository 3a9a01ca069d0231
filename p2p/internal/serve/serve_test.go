package serve

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTable(t *testing.T, rates map[grid.Protocol]grid.Rate) (*Table, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	table := New(slog.New(slog.NewTextHandler(&log, nil)), "self", rates)
	t.Cleanup(func() {
		table.Stop()
		table.Wait()
	})
	return table, &log
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, log := newTable(t, map[grid.Protocol]grid.Rate{"a/1": {PerSecond: 10, Burst: 20}})
		ask := func(from peer.ID, p grid.Protocol) (ok int) {
			for range 100 {
				err := table.Admit(from, p)
				if err == nil {
					ok++
				} else if grid.CodeOf(err) != grid.Limit || grid.AdviceOf(err) == "" {
					t.Fatal(err)
				}
			}
			return ok
		}
		for _, c := range []struct {
			from peer.ID
			p    grid.Protocol
			want int
		}{{"x", "a/1", 20}, {"x", "a/1", 0}, {"y", "a/1", 20}, {"x", "b/1", 100}, {"self", "a/1", 100}} {
			if got := ask(c.from, c.p); got != c.want {
				t.Errorf("%s by %s: %d went through, want %d", c.p, c.from, got, c.want)
			}
		}
		time.Sleep(time.Second) // of the bubble
		if got := ask("x", "a/1"); got != 10 {
			t.Errorf("a second later %d went through, want 10", got)
		}
		list := table.Refusals()
		if len(list) != 2 || list[0] != (grid.Refusal{From: peer.ID("x").String(), Protocol: "a/1", Reason: grid.RefusedRate, Count: 270}) {
			t.Errorf("counted %+v", list)
		}
		if n := strings.Count(log.String(), "refused what a peer asked for"); n != 2 {
			t.Errorf("%d lines were logged, want one for each peer:\n%s", n, log)
		}
	})
}

// However many ask, there is an end to what is remembered of them, and room comes back.
func TestRatesBounded(t *testing.T) {
	r := newRates(map[grid.Protocol]grid.Rate{"a/1": {PerSecond: 1, Burst: 2}})
	now := time.Unix(1e9, 0)
	for i := range 2 * maxBuckets {
		r.allow(peer.ID(fmt.Sprint(i)), "a/1", now)
	}
	if n := len(r.buckets); n > maxBuckets+1 {
		t.Fatalf("%d buckets", n)
	}
	if r.allow("late", "a/1", now) {
		t.Error("who shares a bucket with thousands was let in")
	}
	if !r.allow("0", "a/1", now) || r.allow("0", "a/1", now) {
		t.Error("an old peer has lost its bucket")
	}
	now = now.Add(10 * time.Second)
	if !r.allow("late", "a/1", now) || len(r.buckets) > maxBuckets/2 {
		t.Errorf("%d buckets are left when all are full again", len(r.buckets))
	}
}

// Dozens of peers that take all they can get leave room for one more.
func TestShares(t *testing.T) {
	for k := range kinds {
		table, _ := newTable(t, nil)
		taken := make(map[peer.ID]int)
		for i := range 40 {
			id := peer.ID(fmt.Sprint(i))
			for table.Enter(id, "a/1", k) == nil {
				taken[id]++
			}
			if taken[id] == 0 || taken[id] > perPeer[k] {
				t.Errorf("kind %d: peer %d got %d places", k, i, taken[id])
			}
		}
		if taken["0"] < perPeer[k]*3/4 {
			t.Errorf("kind %d: the first peer got %d places of %d", k, taken["0"], perPeer[k])
		}
		if got := table.Refusals(); len(got) != 40 || got[0].Reason != grid.RefusedAtOnce {
			t.Errorf("kind %d: counted %+v", k, got)
		}
		for id, n := range taken {
			for range n {
				table.Leave(id, "a/1", k)
			}
		}
		if len(table.running) != 0 || table.total[k] != 0 {
			t.Errorf("kind %d: something is left", k)
		}
	}
}

func TestAtOnce(t *testing.T) {
	table, _ := newTable(t, map[grid.Protocol]grid.Rate{"a/1": {AtOnce: 2}})
	for _, want := range []grid.Code{grid.Unknown, grid.Unknown, grid.Busy} {
		if err := table.Enter("x", "a/1", Stream); grid.CodeOf(err) != want || (err == nil) != (want == grid.Unknown) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := table.Enter("x", "b/1", Stream); err != nil {
		t.Error(err)
	}
	table.Leave("x", "b/1", Stream)
	table.Leave("x", "a/1", Stream)
	if err := table.Enter("x", "a/1", Stream); err != nil {
		t.Error(err)
	}
	table.Leave("x", "a/1", Stream)
	table.Leave("x", "a/1", Stream)
	if len(table.rates.running) != 0 {
		t.Error("something is left")
	}
}

// What handlers find wrong is counted by its code; what is nobody's fault is not.
func TestBlame(t *testing.T) {
	table, _ := newTable(t, nil)
	var answer error
	table.Serve("a/1", func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, answer })
	for _, code := range []grid.Code{grid.Invalid, grid.Denied, grid.NotFound, grid.Busy, grid.Internal, grid.Invalid} {
		answer = grid.Errorf(code, "it is so")
		_, _ = table.Local(t.Context(), "x", "a/1", nil)
	}
	got := table.Refusals()
	if len(got) != 2 || got[0].Reason != "invalid" || got[0].Count != 2 || got[1].Reason != "denied" {
		t.Errorf("counted %+v", got)
	}
}
