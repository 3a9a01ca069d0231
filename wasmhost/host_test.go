package wasmhost_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

// machineCode is a folder for what any test has compiled: a Go guest takes a second, and many with the race detector.
var machineCode string

func TestMain(m *testing.M) {
	var err error
	if machineCode, err = os.MkdirTemp("", "wasmhost-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(machineCode)
		os.Exit(code)
	}))
}

// open opens a host, in a test one that finds what others have compiled.
func open(t testing.TB, cfg wasmhost.Config) *wasmhost.Host {
	t.Helper()
	if _, measured := t.(*testing.B); !measured && cfg.CacheDir == "" {
		cfg.CacheDir = machineCode
	}
	return closing(t)(wasmhost.Open(cfg))
}

func openInterpreter(t testing.TB, cfg wasmhost.Config) *wasmhost.Host {
	t.Helper()
	return closing(t)(wasmhost.OpenInterpreter(cfg))
}

// closing closes a host at the end of the test.
func closing(t testing.TB) func(*wasmhost.Host, error) *wasmhost.Host {
	return func(h *wasmhost.Host, err error) *wasmhost.Host {
		t.Helper()
		checkOpened(t, h, err)
		return h
	}
}

func checkOpened(t testing.TB, h *wasmhost.Host, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if left := wasmhost.Images(h); left != (image.Stats{}) {
			t.Errorf("a closed host has %+v", left)
		}
	})
}

func TestEngine(t *testing.T) {
	gridtest.TestEngine(t, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return open(t, wasmhost.Config{Load: load})
	})
}

// fixed loads one module, counting how often.
type fixed struct {
	binary []byte
	mu     sync.Mutex
	loads  int
}

func (f *fixed) load(context.Context, cid.Cid) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loads++
	return f.binary, nil
}

func (f *fixed) cid() cid.Cid { return grid.NewBlock(cid.Raw, f.binary).CID() }

func TestCompilesOnce(t *testing.T) {
	f := &fixed{binary: wasmbytes.Noop()}
	h := open(t, wasmhost.Config{Load: f.load})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := h.Run(t.Context(), &grid.Guest{Module: f.cid()}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if f.loads != 1 {
		t.Errorf("loaded %d times, want once", f.loads)
	}
}

// Whoever asked first may go without spoiling it for those who wait.
func TestCompileOutlivesItsFirstWaiter(t *testing.T) {
	loading, loaded := make(chan struct{}), make(chan struct{})
	f := &fixed{binary: wasmbytes.Noop()}
	h := open(t, wasmhost.Config{Load: func(ctx context.Context, c cid.Cid) ([]byte, error) {
		close(loading)
		select {
		case <-loaded:
			return f.load(ctx, c)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	first, leave := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() { errs <- h.Prepare(first, f.cid()) }()
	<-loading
	second := make(chan struct{})
	go func() { close(second); errs <- h.Prepare(t.Context(), f.cid()) }()
	<-second
	for !wasmhost.Waiting(h, f.cid(), 2) {
		runtime.Gosched()
	}
	leave()
	if err := <-errs; !errors.Is(err, grid.Canceled) {
		t.Errorf("first: %v, want Canceled", err)
	}
	close(loaded)
	if err := <-errs; err != nil {
		t.Errorf("second: %v", err)
	}
}

// A load that nobody waits for any more is given up, and can be asked for again.
func TestCompileAbandoned(t *testing.T) {
	f := &fixed{binary: wasmbytes.Noop()}
	var once sync.Once
	loading := make(chan struct{})
	h := open(t, wasmhost.Config{Load: func(ctx context.Context, c cid.Cid) ([]byte, error) {
		block := false
		once.Do(func() { block = true })
		if !block {
			return f.load(ctx, c)
		}
		close(loading)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-loading; cancel() }()
	if err := h.Prepare(ctx, f.cid()); !errors.Is(err, grid.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
	if err := h.Prepare(t.Context(), f.cid()); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestMemoryTotal(t *testing.T) {
	f := &fixed{binary: wasmbytes.Loop()}
	h := open(t, wasmhost.Config{Load: f.load, MemoryTotal: 1 << 20})
	_, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Limits: grid.Limits{Memory: 2 << 20}})
	if !errors.Is(err, grid.Limit) || grid.AdviceOf(err) == "" {
		t.Errorf("more than there is: %v, want Limit with advice", err)
	}
	g := grid.Guest{Module: f.cid(), Limits: grid.Limits{Memory: 1 << 20}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := h.Run(ctx, &g); ended <- err }()
	for wasmhost.HasRoom(h, 1) {
		runtime.Gosched()
	}
	waiting, stop := context.WithCancel(t.Context())
	stop()
	if _, err := h.Run(waiting, &g); !errors.Is(err, grid.Canceled) {
		t.Errorf("waiting for memory: %v, want Canceled", err)
	}
	hasty := g
	hasty.Limits.Queue = time.Nanosecond
	out, err := h.Run(t.Context(), &hasty)
	if err != nil || out.Fault == nil || out.Fault.Code != grid.Deadline || !strings.Contains(out.Fault.Message, "waited more than 1ns") || out.Queue <= 0 {
		t.Errorf("a guest that may not wait: %+v, %v", out, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, grid.Canceled) {
		t.Error(err)
	}
	if !wasmhost.HasRoom(h, 1<<20) {
		t.Error("memory was not given back")
	}
}

// Modules used longest ago are put out, but not while in use.
func TestEvict(t *testing.T) {
	var mu sync.Mutex
	modules := map[cid.Cid][]byte{}
	load := func(_ context.Context, c cid.Cid) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		return modules[c], nil
	}
	add := func(binary []byte) cid.Cid {
		mu.Lock()
		defer mu.Unlock()
		c := grid.NewBlock(cid.Raw, binary).CID()
		modules[c] = binary
		return c
	}
	h := open(t, wasmhost.Config{Load: load})
	loop := grid.Guest{Module: add(wasmbytes.Loop())}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	if err := h.Prepare(ctx, loop.Module); err != nil {
		t.Fatal(err)
	}
	go func() { _, err := h.Run(ctx, &loop); ended <- err }()
	for !wasmhost.Waiting(h, loop.Module, 1) {
		runtime.Gosched()
	}
	for i := range int32(wasmhost.MaxModules + 10) {
		if out, err := h.Run(t.Context(), &grid.Guest{Module: add(wasmbytes.Exit(i))}); err != nil || out.Exit != uint32(i) {
			t.Fatalf("module %d: %+v, %v", i, out, err)
		}
	}
	if n := wasmhost.Held(h); n > wasmhost.MaxModules {
		t.Errorf("%d modules held, want at most %d", n, wasmhost.MaxModules)
	}
	if n := wasmhost.Images(h).Images; n > wasmhost.MaxModules {
		t.Errorf("%d images, want no more than modules", n)
	}
	cancel()
	if err := <-ended; !errors.Is(err, grid.Canceled) {
		t.Error(err)
	}
}

// Nodes and SDK must agree on names, and the tests must know all of them.
func TestABI(t *testing.T) {
	var tested []string
	for _, c := range wasmbytes.GridCalls() {
		tested = append(tested, c.Name)
	}
	offered := wasmhost.Functions()
	slices.Sort(tested)
	slices.Sort(offered)
	if !slices.Equal(tested, offered) {
		t.Errorf("the host offers %v, tested are %v", offered, tested)
	}
	for _, pair := range [][2]any{
		{abi.Version, grid.ABIVersion}, {abi.EnvABI, grid.EnvABI}, {abi.EnvFunc, grid.EnvFunc}, {abi.EnvTask, grid.EnvTask}, {abi.EnvPartitions, grid.EnvPartitions},
		{abi.In, grid.GuestIn}, {abi.Out, grid.GuestOut}, {abi.Tmp, grid.GuestTmp},
		{abi.Secrets, grid.GuestSecrets}, {abi.Data, grid.GuestData}, {abi.MaxChildInput, grid.MaxChildStdin},
	} {
		if pair[0] != pair[1] {
			t.Errorf("sdk/abi has %v, grid has %v", pair[0], pair[1])
		}
	}
}
