package wasmhost_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// built builds a guest of testdata once, when it is first asked for.
func built(name string) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		source, err := os.ReadFile(filepath.Join("testdata", name, "main.go"))
		if err != nil {
			return nil, err
		}
		return gridtest.BuildGuest(source)
	})
}

var kernels = built("kernels")

// loader gives modules by CID.
type loader struct {
	mu      sync.Mutex
	modules map[cid.Cid][]byte
}

func (l *loader) add(binary []byte) cid.Cid {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.modules == nil {
		l.modules = map[cid.Cid][]byte{}
	}
	c := grid.NewBlock(cid.Raw, binary).CID()
	l.modules[c] = binary
	return c
}

func (l *loader) load(_ context.Context, c cid.Cid) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.modules[c], nil
}

var kernelNames = []string{"sha256", "sort", "fib", "json", "matmul", "nbody", "store", "goroutines", "stdin", "copy", "words"}

// TestFuelIsDeterministic runs guests alone, side by side, by compiler and by interpreter.
func TestFuelIsDeterministic(t *testing.T) {
	binary, err := kernels()
	if err != nil {
		t.Fatal(err)
	}
	var l loader
	cfg := wasmhost.Config{Load: l.load}
	compiler, interpreter := open(t, cfg), openInterpreter(t, cfg)
	module := l.add(binary)
	run := func(h *wasmhost.Host, kernel string, stdin io.Reader) (string, uint64) {
		var out bytes.Buffer
		o, err := h.Run(t.Context(), &grid.Guest{Module: module, Args: []string{"kernels", kernel, "1"}, Stdin: stdin, Stdout: &out, Stderr: &out})
		if err != nil || o.Fault != nil || o.Exit != 0 {
			t.Errorf("%s: %+v, %v: %s", kernel, o, err, out.String())
		}
		return out.String(), o.Fuel
	}
	text := strings.Repeat("some text\n", 100_000)
	for _, kernel := range kernelNames {
		t.Run(kernel, func(t *testing.T) {
			want, fuel := run(compiler, kernel, strings.NewReader(text))
			if fuel < 100_000 {
				t.Errorf("%d fuel is not much", fuel)
			}
			check := func(how string, h *wasmhost.Host, stdin io.Reader) {
				if got, f := run(h, kernel, stdin); got != want || f != fuel {
					t.Errorf("%s: printed %q with %d fuel, want %q with %d", how, got, f, want, fuel)
				}
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { check("again", compiler, strings.NewReader(text)) })
			}
			wg.Wait()
			check("with another reader", compiler, iotest.HalfReader(strings.NewReader(text)))
			if !testing.Short() && !raceEnabled {
				check("interpreted", interpreter, strings.NewReader(text))
			}
		})
	}
}

// A limit is exact: a guest may use so much and no more.
func TestFuelLimit(t *testing.T) {
	binary, err := kernels()
	if err != nil {
		t.Fatal(err)
	}
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	g := grid.Guest{Module: l.add(binary), Args: []string{"kernels", "fib", "4"}}
	free, err := h.Run(t.Context(), &g)
	if err != nil || free.Fault != nil {
		t.Fatal(free, err)
	}
	g.Limits.Fuel = free.Fuel
	if out, err := h.Run(t.Context(), &g); err != nil || out.Fault != nil || out.Fuel != free.Fuel {
		t.Errorf("with as much as it uses: %+v, %v", out, err)
	}
	for _, limit := range []uint64{1, 1000, free.Fuel / 2, free.Fuel - 1} {
		g.Limits.Fuel = limit
		out, err := h.Run(t.Context(), &g)
		if err != nil || out.Fault == nil || out.Fault.Code != grid.Limit || out.Fuel != limit {
			t.Errorf("limit %d: %+v, %v", limit, out, err)
		} else if want := "fuel, its limit"; !strings.HasSuffix(out.Fault.Message, want) {
			t.Errorf("limit %d: %q", limit, out.Fault.Message)
		}
	}
	for name, binary := range map[string][]byte{"loop": wasmbytes.Loop(), "recursion": wasmbytes.Recurse()} {
		out, err := h.Run(t.Context(), &grid.Guest{Module: l.add(binary), Limits: grid.Limits{Fuel: 10_000}})
		if err != nil || out.Fault == nil || out.Fault.Code != grid.Limit || out.Fuel != 10_000 {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}

// The fuel of guests that end in other ways than returning is counted too.
func TestFuelOfOtherEnds(t *testing.T) {
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	for name, test := range map[string]struct {
		binary []byte
		fuel   uint64
	}{
		"exit": {wasmbytes.Exit(3), 258},     // a constant, a call of the host, the entry
		"trap": {wasmbytes.OutOfBounds(), 0}, // so short that nobody is charged
		"noop": {wasmbytes.Noop(), 0},
		"loop": {wasmbytes.Grow(), 0},
	} {
		out, err := h.Run(t.Context(), &grid.Guest{Module: l.add(test.binary), Limits: grid.Limits{Memory: 4 << 16}})
		if name == "loop" {
			// Three pages are granted and one is refused; each iteration costs 256 and five more.
			test.fuel = 4*261 + 1
		}
		if err != nil || out.Fuel != test.fuel {
			t.Errorf("%s: %+v, %v; want %d fuel", name, out, err, test.fuel)
		}
	}
}

// spinners run a guest that never ends on every core.
func spinners(tb testing.TB, h *wasmhost.Host, l *loader, binary []byte, args ...string) (stop func()) {
	g := grid.Guest{Module: l.add(binary), Args: args}
	if err := h.Prepare(tb.Context(), g.Module); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			guest := g
			if _, err := h.Run(ctx, &guest); !errors.Is(err, grid.Canceled) {
				tb.Errorf("a spinner ended: %v", err)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// stall measures the longest time, within d, by which a goroutine that wants to run each millisecond
// is late.
func stall(d time.Duration) time.Duration {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	worst, last := time.Duration(0), time.Now()
	for began := last; last.Sub(began) < d; {
		<-tick.C
		now := time.Now()
		worst = max(worst, now.Sub(last)-time.Millisecond)
		last = now
	}
	return worst
}
