package wasi

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// tank is a meter that ends the guest when it has counted more than limit.
type tank struct{ used, limit uint64 }

func (m *tank) Charge(_ context.Context, units uint64) {
	if m.used += units; m.limit > 0 && m.used > m.limit {
		panic(sys.NewExitError(7))
	}
}

// Calls cost what they move and look at, whatever becomes of them, and no more for coming in other pieces.
func TestCharge(t *testing.T) {
	text := strings.Repeat("x", 8000)
	for _, test := range []struct {
		name  string
		units uint64
		calls func(g *guest)
	}{
		{"random", 1000, func(g *guest) { g.call("random_get", bufferAt, 8000) }},
		{"random, in bits", 1000, func(g *guest) {
			for range 1000 {
				g.call("random_get", bufferAt, 3)
				g.call("random_get", bufferAt, 5)
			}
		}},
		{"read stdin", costVector + 1000, func(g *guest) { g.read(0, 8000) }},
		{"read after the end", 2*costVector + 1000, func(g *guest) { g.read(0, 8000); g.read(0, 8000) }},
		{"write", costVector + 1000, func(g *guest) { g.write(1, text) }},
		{"vectors", costVector * maxVectors, func(g *guest) { g.call("fd_write", 1, vectorAt, 1<<30, resultAt) }},
		{"poll", costEntry * 64, func(g *guest) { g.call("poll_oneoff", 0, bufferAt, 64, resultAt) }},
		{"path", costPath + 5, func(g *guest) {
			ptr, n := g.put("tmp/x")
			g.call("path_filestat_get", 3, 0, ptr, n, bufferAt)
		}},
		{"no call that moves anything", 0, func(g *guest) { g.call("sched_yield"); g.call("fd_close", 77) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m tank
			cfg := roomy
			cfg.Stdin, cfg.Meter = iotest.HalfReader(strings.NewReader(text)), &m
			g := newGuest(t, cfg)
			test.calls(g)
			if m.used != test.units {
				t.Errorf("charged %d, want %d", m.used, test.units)
			}
			m = tank{limit: max(test.units, 1) - 1}
			if test.units == 0 {
				return
			}
			cfg.Stdin = iotest.OneByteReader(strings.NewReader(text))
			g = newGuest(t, cfg)
			func() {
				defer func() {
					if e, ok := recover().(*sys.ExitError); !ok || e.ExitCode() != 7 {
						t.Errorf("a meter at its limit does not end the guest")
					}
				}()
				test.calls(g)
			}()
		})
	}
}

func TestCallsAreLimited(t *testing.T) {
	cfg := roomy
	cfg.Calls = 3
	g := newGuest(t, cfg)
	for range 3 {
		g.call("sched_yield")
	}
	if g.state.Calls() != 3 || g.state.CallsSpent() {
		t.Errorf("%d calls, spent %v", g.state.Calls(), g.state.CallsSpent())
	}
	g.exit("sched_yield")
	if !g.state.CallsSpent() || g.state.Stopped() || g.state.Err() != nil {
		t.Error("the end is not told")
	}
}

func TestOpenIsLimited(t *testing.T) {
	cfg := roomy
	cfg.Open = 6 // with stdin, stdout, stderr and /
	g := newGuest(t, cfg)
	a := g.open(3, "tmp/a", openCreate, rw)
	g.open(3, "tmp/b", openCreate, rw)
	if g.state.Refused() != (Refused{}) {
		t.Errorf("refused %+v", g.state.Refused())
	}
	_, errno := g.openWith(3, 0, "tmp/c", openCreate, rw, 0, 0)
	g.want(errno, vfs.EMFILE)
	if g.state.Refused() != (Refused{Open: true}) {
		t.Errorf("refused %+v", g.state.Refused())
	}
	g.ok(g.call("fd_close", a))
	g.open(3, "tmp/c", openCreate, rw)
}

// Released, a state holds on to nothing, and reset it is as good as new.
func TestRelease(t *testing.T) {
	g := newGuest(t, Config{Args: []string{"a"}, Seed: [32]byte{5}, Bytes: 10, Files: 10})
	g.open(3, "tmp/a", openCreate, rw)
	g.state.Release()
	if g.state.cfg.Args != nil || len(g.state.table.list) != 0 || g.state.Out() != nil {
		t.Error("something is held")
	}
	g.state.Reset(Config{Seed: [32]byte{5}})
	g.ok(g.call("random_get", bufferAt, 16))
	var want [16]byte
	rand.NewChaCha8([32]byte{5}).Read(want[:])
	if got := g.str(bufferAt, 16); got != string(want[:]) {
		t.Errorf("random %x, want %x", got, want)
	}
}

func TestRealClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := RealClock(500)
		began := time.Now()
		if got := c.Read(Realtime); got != began.UnixNano() {
			t.Errorf("the time is %d, want %d", got, began.UnixNano())
		}
		if got := c.Read(Monotonic); got != 500 {
			t.Errorf("the monotonic clock begins at %d, want 500", got)
		}
		c.Sleep(context.Background(), int64(time.Hour))
		if got := time.Since(began); got != time.Hour || c.Now(Monotonic) != 500+int64(time.Hour) {
			t.Errorf("slept %v, clock %d", got, c.Now(Monotonic))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Sleep(ctx, int64(time.Hour))
		if got := time.Since(began); got != time.Hour+time.Second {
			t.Errorf("a sleep ended after %v", got-time.Hour)
		}
	})
}
