package gridtest

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

//go:embed testdata/hostile/main.go
var hostileSource []byte

var hostileBinary = sync.OnceValues(func() ([]byte, error) { return BuildGuest(hostileSource) })

// Times that the suite grants. They are generous, for the machine may be busy with other things; what
// was measured is in the log.
const (
	killWithin = 5 * time.Second       // of reaching its limit, a guest has ended
	shortWall  = 40 * time.Millisecond // running time of guests that would run for ever
	someFuel   = 3_000_000
)

// hostileTest runs hostile guests beside a good one.
type hostileTest struct {
	*engineTest
	counts bool // the engine counts fuel
}

// TestHostileGuests checks that no guest can outlive its limits, harm the process, or make another
// guest's result wrong, and logs how long it takes to kill each, what the neighbours notice of it, and
// how long the process's timers stood still. The Go toolchain must be at hand. With -short it does less
// of everything.
func TestHostileGuests(t *testing.T, open func(t *testing.T, load ModuleLoader) grid.Engine) {
	e := &engineTest{modules: map[cid.Cid][]byte{}}
	e.Engine = open(t, e.load)
	h := &hostileTest{engineTest: e}
	h.counts = h.run(t, grid.Guest{Module: e.add(wasmbytes.Spin(1000))}).Fuel > 0
	for _, test := range []struct {
		name string
		run  func(*testing.T, *hostileTest)
	}{
		{"endless", testEndless}, {"traps", testTraps}, {"memory", testMemoryBombs}, {"tables", testTableBombs},
		{"floods", testFloods}, {"files", testFileBombs}, {"calls", testCalls}, {"reuse", testReuse},
		{"kill", testKill}, {"crowd", testCrowd}, {"modules", testCompileBombs}, {"abandoned", testAbandoned},
		{"damaged", testDamaged},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer h.watch(t)()
			test.run(t, h)
		})
	}
	if err := e.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// goGuest is the hostile Go program with a command.
func (h *hostileTest) goGuest(t *testing.T, command string) grid.Guest {
	t.Helper()
	binary, err := hostileBinary()
	if err != nil {
		t.Fatal(err)
	}
	return grid.Guest{Module: h.add(binary), Args: []string{"hostile", command}}
}

// watch runs a good guest again and again, and a heartbeat, until the returned function is called.
// It fails the test when the good guest gets a wrong result, and logs what it and the heartbeat saw.
func (h *hostileTest) watch(t *testing.T) (stop func()) {
	t.Helper()
	good := grid.Guest{Module: h.add(wasmbytes.Random(32))}
	good.Seed[0] = 7
	want := h.run(t, good)
	sample := func() time.Duration {
		var stdout bytes.Buffer
		g := good
		g.Stdout = &stdout
		start := time.Now()
		out, err := h.Run(context.Background(), &g)
		took := time.Since(start)
		if err != nil || out.Fault != nil || out.Exit != 0 || stdout.String() != want.stdout || out.Fuel != want.Fuel {
			t.Errorf("a neighbour: %+v, %v, stdout %x; want %+v, stdout %x", out, err, stdout.Bytes(), want.Outcome, want.stdout)
		}
		return took
	}
	alone := make([]time.Duration, 20)
	for i := range alone {
		alone[i] = sample()
	}
	var beside []time.Duration
	var gap time.Duration
	done := make(chan struct{})
	var wg sync.WaitGroup
	every := func(d time.Duration, do func()) {
		wg.Go(func() {
			ticker := time.NewTicker(d)
			defer ticker.Stop()
			for {
				select {
				case <-done:
					return
				case <-ticker.C:
					do()
				}
			}
		})
	}
	last := time.Now()
	every(time.Millisecond, func() { now := time.Now(); gap = max(gap, now.Sub(last)); last = now })
	every(3*time.Millisecond, func() { beside = append(beside, sample()) })
	return func() {
		close(done)
		wg.Wait()
		slices.Sort(alone)
		slices.Sort(beside)
		if n := len(beside); n > 0 {
			t.Logf("neighbour: alone p50 %v, max %v; beside p50 %v, p99 %v, max %v (%d runs); longest gap between two beats of 1 ms: %v",
				alone[10], alone[19], beside[n/2], beside[n*99/100], beside[n-1], n, gap)
			if slowest := beside[n-1]; slowest > 2*killWithin {
				t.Errorf("a neighbour took %v", slowest)
			}
		}
	}
}

// kill runs a guest that should reach a limit or trap, and reports how long it lived.
func (h *hostileTest) kill(t *testing.T, name string, g grid.Guest, code grid.Code, message string) {
	t.Helper()
	if err := h.Prepare(t.Context(), g.Module); err != nil {
		t.Errorf("%s: Prepare: %v", name, err)
		return
	}
	start := time.Now()
	out, err := h.Run(t.Context(), &g)
	took := time.Since(start)
	switch {
	case err != nil:
		t.Errorf("%s: Run: %v", name, err)
	case out.Fault == nil || out.Fault.Code != code || !strings.Contains(out.Fault.Message, message):
		t.Errorf("%s: exit code %d, fault %+v after %v; want %v with %q", name, out.Exit, out.Fault, took, code, message)
	case hostPanicked(out):
		t.Errorf("%s: the host panicked: %s", name, out.Fault.Message)
	}
	over := took
	if code == grid.Deadline {
		over -= g.Limits.Wall
	}
	if over > killWithin {
		t.Errorf("%s: killed %v after its limit, want at most %v", name, over, killWithin)
	}
	if testing.Verbose() {
		t.Logf("%-28s %-18v %10v over its limit", name, code, over.Round(10*time.Microsecond))
	}
}

// hostPanicked tells whether a trap is not the guest's but a fault in a host function.
func hostPanicked(out grid.Outcome) bool {
	return out.Fault != nil && out.Fault.Code == grid.Trap &&
		(strings.Contains(out.Fault.Message, "recovered by") || strings.Contains(out.Fault.Message, "runtime error") ||
			strings.Contains(out.Fault.Message, "nil pointer"))
}

// Instructions that modules below are made of.
var (
	drop = wasmbytes.Drop()
	op   = wasmbytes.Op
	i32  = wasmbytes.Const
	call = wasmbytes.Call
	code = wasmbytes.Code
)

// program is a module with the given functions, of which the last begins.
func program(p wasmbytes.Program, bodies ...[]byte) []byte {
	for _, b := range bodies {
		p.Funcs = append(p.Funcs, wasmbytes.Func{Code: b})
	}
	p.MinPages = max(p.MinPages, 1)
	return p.Bytes()
}

// callForever calls a system call without end, with constant arguments.
func callForever(p wasmbytes.Program, name string, args ...int64) []byte {
	f := wasmbytes.System(name)
	p.Imports = append(p.Imports, f)
	var b []byte
	for i, a := range args {
		if f.Params[i] == wasmbytes.I64 {
			b = append(b, wasmbytes.Const64(a)...)
		} else {
			b = append(b, i32(int32(a))...)
		}
	}
	return program(p, wasmbytes.Forever(b, call(uint32(len(p.Imports)-1)), drop))
}

// fib is the recursive function, naively; it takes and returns an i32.
func fib(self uint32) wasmbytes.Func {
	less := func(n int32) []byte {
		return code(op(0x20, 0), i32(n), []byte{0x6b}, call(self)) // local.get 0, i32.sub
	}
	return wasmbytes.Func{
		Params: []byte{wasmbytes.I32}, Results: []byte{wasmbytes.I32},
		Code: code(op(0x20, 0), i32(2), []byte{0x48, 0x04, wasmbytes.I32}, op(0x20, 0), []byte{0x05}, // i32.lt_s, if, else
			less(1), less(2), []byte{0x6a, 0x0b}), // i32.add
	}
}

// doublings is a tree of calls without loops and recursion: each function calls the one before twice.
func doublings(n int) []byte {
	bodies := [][]byte{{0x01}}
	for i := range n {
		bodies = append(bodies, code(call(uint32(i)), call(uint32(i))))
	}
	return program(wasmbytes.Program{}, bodies...)
}

// endless are guests that never end by themselves.
func endless() map[string][]byte {
	type p = wasmbytes.Program
	forever := wasmbytes.Forever
	subscriptions := make([]byte, 48*64)
	for i := range 64 { // each of a clock, at once
		subscriptions[48*i+16] = 1
	}
	iovecs := []byte{0, 0, 1, 0, 0, 0, 0, 0} // at 65536, empty
	path := []byte("tmp/x")
	return map[string][]byte{
		"empty loop":      wasmbytes.Loop(),
		"conditional":     program(p{}, code([]byte{0x03, 0x40}, i32(1), []byte{0x0d, 0, 0x0b})),
		"loop in a loop":  program(p{}, code([]byte{0x03, 0x40, 0x03, 0x40, 0x0c, 1, 0x0b, 0x0b})),
		"br_table":        program(p{}, code([]byte{0x03, 0x40}, i32(7), []byte{0x0e, 3, 0, 0, 0, 0, 0x0b})),
		"straight line":   program(p{}, forever(bytes.Repeat(code(i32(1), drop), 50_000))),
		"divisions":       program(p{}, forever(bytes.Repeat(code(wasmbytes.Const64(-7), wasmbytes.Const64(3), []byte{0x7f}, drop), 1000))),
		"call a leaf":     program(p{}, []byte{0x01}, forever(call(0))),
		"call indirectly": program(p{Tables: []uint32{1}, Elements: []uint32{0}}, []byte{0x01}, forever(i32(0), op(0x11, 0, 0))),
		"fib(60)":         p{MinPages: 1, Funcs: []wasmbytes.Func{fib(0), {Code: code(i32(60), call(0), drop)}}}.Bytes(),
		"doublings":       doublings(62),
		"start function":  program(p{Begin: true}, []byte{0x03, 0x40, 0x0c, 0, 0x0b}),
		"memory.fill":     program(p{MinPages: 1024}, forever(i32(0), i32(1), i32(1024<<16-1), wasmbytes.Misc(11, 0))),
		"memory.copy":     program(p{MinPages: 1024}, forever(i32(1), i32(0), i32(1024<<16-1), wasmbytes.Misc(10, 0, 0))),
		"memory.init":     program(p{MinPages: 17, Passive: make([]byte, 1<<20)}, forever(i32(0), i32(0), i32(1<<20), wasmbytes.Misc(8, 1, 0))),
		"memory.grow 0":   program(p{}, forever(i32(0), op(0x40, 0), drop)),
		"memory.grow -1":  program(p{}, forever(i32(-1), op(0x40, 0), drop)),
		"table.fill":      program(p{Tables: []uint32{1 << 20}}, forever(i32(0), op(0xd0, 0x70), i32(1<<20), wasmbytes.Misc(17, 0))),
		"table.copy":      program(p{Tables: []uint32{1 << 20}}, forever(i32(1), i32(0), i32(1<<20-1), wasmbytes.Misc(14, 0, 0))),
		"table.grow 0":    program(p{Tables: []uint32{1}}, forever(op(0xd0, 0x70), i32(0), wasmbytes.Misc(15, 0), drop)),
		"table.grow -1":   program(p{Tables: []uint32{1}}, forever(op(0xd0, 0x70), i32(-1), wasmbytes.Misc(15, 0), drop)),

		"sched_yield":        callForever(p{}, "sched_yield"),
		"clock_time_get":     callForever(p{}, "clock_time_get", 1, 0, 64),
		"poll_oneoff":        callForever(p{Data: subscriptions}, "poll_oneoff", 0, 8192, 64, 4096),
		"random_get":         callForever(p{}, "random_get", 0, 1<<16),
		"random_get 64 MiB":  callForever(p{MinPages: 1024}, "random_get", 0, 1024<<16),
		"write nothing":      callForever(p{Data: iovecs}, "fd_write", 1, 0, 1, 32),
		"write no vectors":   callForever(p{}, "fd_write", 1, 0, 0, 32),
		"a million vectors":  callForever(p{MinPages: 129}, "fd_write", 1, 0, 1<<20, 128<<16+16),
		"read nothing":       callForever(p{Data: iovecs}, "fd_read", 0, 0, 1, 32),
		"read after the end": callForever(p{Data: []byte{0, 0, 0, 0, 0, 1, 0, 0}}, "fd_read", 0, 0, 1, 32),
		"seek":               callForever(p{}, "fd_seek", 3, 0, 1, 64),
		"readdir":            callForever(p{}, "fd_readdir", 3, 4096, 4096, 0, 64),
		"stat":               callForever(p{Data: path}, "path_filestat_get", 3, 0, 0, 3, 64),
		"a failing call":     callForever(p{}, "fd_close", 77),
		"environ_sizes_get":  callForever(p{}, "environ_sizes_get", 0, 8),
	}
}

func testEndless(t *testing.T, h *hostileTest) {
	guests := endless()
	for _, name := range slices.Sorted(keys(guests)) {
		t.Run(name, func(t *testing.T) {
			g := grid.Guest{Module: h.add(guests[name]), Limits: grid.Limits{Wall: shortWall}}
			h.kill(t, name, g, grid.Deadline, shortWall.String())
			if !h.counts || name == "a million vectors" || name == "random_get 64 MiB" {
				return // the time that a unit of these takes has no bound
			}
			g.Limits = grid.Limits{Wall: time.Minute, Fuel: someFuel}
			h.kill(t, name, g, grid.Limit, fmt.Sprint(someFuel))
		})
	}
	if !h.counts {
		t.Log("the engine does not count fuel: not tested with a limit of it")
	}
	g := h.goGuest(t, "goroutines")
	g.Limits = grid.Limits{Wall: 200 * time.Millisecond, Memory: 64 << 20}
	if err := h.Prepare(t.Context(), g.Module); err != nil {
		t.Fatal(err)
	}
	out, err := h.Run(t.Context(), &g) // out of time or, first, of memory
	if err != nil || (out.Fault == nil && out.Exit != 2) || (out.Fault != nil && out.Fault.Code != grid.Deadline) {
		t.Errorf("goroutines without end: %+v, %v", out, err)
	}
}

func keys[K cmp.Ordered, V any](m map[K]V) func(yield func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// traps are guests that the machine stops, with what it says.
func traps() map[string]struct {
	binary  []byte
	message string
} {
	type p = wasmbytes.Program
	type trap = struct {
		binary  []byte
		message string
	}
	const bounds, table, stack, invalid = "out of bounds memory access", "invalid table access", "stack overflow", "invalid conversion to integer"
	nan := wasmbytes.ConstF64(nan())
	m := map[string]trap{
		"unreachable":         {program(p{}, op(0x00)), "unreachable"},
		"i32.div_s":           {program(p{}, code(i32(1), i32(0), op(0x6d), drop)), "integer divide by zero"},
		"i32.rem_u":           {program(p{}, code(i32(1), i32(0), op(0x70), drop)), "integer divide by zero"},
		"i64.div_u":           {program(p{}, code(wasmbytes.Const64(1), wasmbytes.Const64(0), op(0x80), drop)), "integer divide by zero"},
		"least / -1":          {program(p{}, code(i32(-1<<31), i32(-1), op(0x6d), drop)), "integer overflow"},
		"trunc NaN":           {program(p{}, code(nan, op(0xaa), drop)), invalid},
		"trunc 1e300":         {program(p{}, code(wasmbytes.ConstF64(1e300), op(0xb0), drop)), "integer overflow"},
		"call null":           {program(p{Tables: []uint32{4}}, code(i32(2), op(0x11, 0, 0))), table},
		"call beyond":         {program(p{Tables: []uint32{4}}, code(i32(-1), op(0x11, 0, 0))), table},
		"table.get beyond":    {program(p{Tables: []uint32{4}}, code(i32(4), op(0x25, 0), drop)), table},
		"table.set beyond":    {program(p{Tables: []uint32{4}}, code(i32(-1), op(0xd0, 0x70), op(0x26, 0))), table},
		"table.fill beyond":   {program(p{Tables: []uint32{4}}, code(i32(2), op(0xd0, 0x70), i32(3), wasmbytes.Misc(17, 0))), table},
		"table.copy beyond":   {program(p{Tables: []uint32{4}}, code(i32(-1), i32(0), i32(2), wasmbytes.Misc(14, 0, 0))), table},
		"memory.fill beyond":  {program(p{}, code(i32(65530), i32(1), i32(7), wasmbytes.Misc(11, 0))), bounds},
		"memory.fill at -1":   {program(p{}, code(i32(-1), i32(1), i32(-1), wasmbytes.Misc(11, 0))), bounds},
		"memory.copy beyond":  {program(p{}, code(i32(0), i32(-8), i32(-8), wasmbytes.Misc(10, 0, 0))), bounds},
		"memory.init beyond":  {program(p{Passive: []byte("data")}, code(i32(0), i32(2), i32(3), wasmbytes.Misc(8, 1, 0))), bounds},
		"memory.init dropped": {program(p{Passive: []byte("data")}, code(wasmbytes.Misc(9, 1), i32(0), i32(0), i32(1), wasmbytes.Misc(8, 1, 0))), bounds},
		"recursion":           {wasmbytes.Recurse(), stack},
		"mutual recursion":    {program(p{}, call(1), call(0)), stack},
		"indirect recursion":  {program(p{Tables: []uint32{1}, Elements: []uint32{0}}, code(i32(0), op(0x11, 0, 0))), stack},
		"recursion in start":  {program(p{Begin: true}, call(0)), stack},
		"recursion, locals":   {p{MinPages: 1, Funcs: []wasmbytes.Func{{Locals: 10_000, Code: code(call(0), op(0x20, 9_999), drop)}}}.Bytes(), stack},
		"trap in start":       {program(p{Begin: true}, op(0x00)), "unreachable"},
		"wrong type": {p{MinPages: 1, Tables: []uint32{1}, Elements: []uint32{0}, Funcs: []wasmbytes.Func{
			{Params: []byte{wasmbytes.I32}}, {Code: code(i32(0), op(0x11, 0, 0))}}}.Bytes(), "indirect call type mismatch"},
	}
	for o := byte(0x28); o <= 0x35; o++ { // every load, with the largest offset, aligned as bytes are
		m[fmt.Sprintf("load %x", o)] = trap{program(p{}, code(i32(-1), op(o, 0, 0xffffffff), drop)), bounds}
		m[fmt.Sprintf("load %x at the end", o)] = trap{program(p{}, code(i32(1<<16), op(o, 0, 0), drop)), bounds}
	}
	values := [][]byte{i32(1), wasmbytes.Const64(1), {0x43, 0, 0, 0, 0}, wasmbytes.ConstF64(1)}
	for i, kind := range []int{0, 1, 2, 3, 0, 0, 1, 1, 1} { // every store
		o := byte(0x36 + i)
		m[fmt.Sprintf("store %x", o)] = trap{program(p{}, code(i32(-1), values[kind], op(o, 0, 0xffffffff))), bounds}
		m[fmt.Sprintf("store %x at the end", o)] = trap{program(p{}, code(i32(1<<16), values[kind], op(o, 0, 0))), bounds}
	}
	return m
}

func nan() float64 { zero := 0.0; return zero / zero }

func testTraps(t *testing.T, h *hostileTest) {
	all := traps()
	for _, name := range slices.Sorted(keys(all)) {
		trap := all[name]
		h.kill(t, name, grid.Guest{Module: h.add(trap.binary), Limits: grid.Limits{Wall: 10 * time.Second}}, grid.Trap, trap.message)
	}
}

// grown is a module that grows by step pages until it is refused, writing to each page that it gets.
func grown(step int32) []byte {
	return wasmbytes.Program{MinPages: 1, Funcs: []wasmbytes.Func{{Locals: 1, Code: code(
		[]byte{0x03, 0x40}, i32(step), op(0x40, 0), i32(-1), []byte{0x47, 0x04, 0x40}, // loop, memory.grow, i32.ne, if
		[]byte{0x03, 0x40},                                     // loop
		op(0x20, 0), []byte{0xa7}, op(0x20, 0), op(0x37, 3, 0), // memory[local] = local
		op(0x20, 0), wasmbytes.Const64(4096), []byte{0x7c}, op(0x22, 0), // local += 4096
		op(0x3f, 0), []byte{0xad}, wasmbytes.Const64(16), []byte{0x86, 0x54, 0x0d, 0, 0x0b}, // while below memory.size << 16
		[]byte{0x0c, 1, 0x0b, 0x0b})}}}.Bytes()
}

func testMemoryBombs(t *testing.T, h *hostileTest) {
	const limit = 32 << 20
	for _, step := range []int32{1, 7, 100, 511, 512, 65535} {
		start := time.Now()
		g := grid.Guest{Module: h.add(grown(step)), Limits: grid.Limits{Memory: limit}}
		r := h.run(t, g)
		r.want(t, 0, "")
		want := uint64(1+int(step)*(511/int(step))) << 16
		if r.Memory != want {
			t.Errorf("grown by %d pages at a time: memory %d, want %d", step, r.Memory, want)
		}
		t.Logf("grown by %d pages at a time: %v", step, time.Since(start))
	}
	for _, pages := range []uint32{513, 65536} {
		g := grid.Guest{Module: h.add(program(wasmbytes.Program{MinPages: pages}, nil)), Limits: grid.Limits{Memory: limit}}
		h.kill(t, fmt.Sprint(pages, " pages"), g, grid.Limit, fmt.Sprint(limit))
	}
	// Data beyond its memory, by a little and by a lot.
	for _, at := range []int32{65533, -1, -65536} {
		b := wasmbytes.Section([]byte(wasmbytes.Header), 1, []byte{1, 0x60, 0, 0})
		b = wasmbytes.Section(b, 3, []byte{1, 0})
		b = wasmbytes.Section(b, 5, []byte{1, 0, 1})
		b = wasmbytes.Section(b, 7, []byte("\x01\x06_start\x00\x00"))
		b = wasmbytes.Section(b, 10, []byte{1, 2, 0, 0x0b})
		b = wasmbytes.Section(b, 11, code([]byte{1, 0}, i32(at), []byte("\x0b\x04data")))
		h.kill(t, fmt.Sprint("data at ", at), grid.Guest{Module: h.add(b)}, grid.Trap, "")
	}
}

func testTableBombs(t *testing.T, h *hostileTest) {
	type p = wasmbytes.Program
	grow := func(step int32) []byte { // until it is refused
		return program(p{Tables: []uint32{1}}, code([]byte{0x03, 0x40}, op(0xd0, 0x70), i32(step), wasmbytes.Misc(15, 0),
			i32(-1), []byte{0x47, 0x0d, 0, 0x0b}))
	}
	tables := make([]uint32, 100)
	for i := range tables {
		tables[i] = 1 << 20
	}
	for _, test := range []struct {
		name   string
		binary []byte
	}{
		{"grow by 1,000", grow(1000)}, {"grow by a million", grow(1 << 20)}, {"grow by all", grow(-1)},
		{"one of a million", program(p{Tables: tables[:1]}, nil)},
		{"16 of a million", program(p{Tables: tables[:16]}, nil)},
		{"100 of a million", program(p{Tables: tables}, nil)},
		{"one of four billion", program(p{Tables: []uint32{1<<32 - 1}}, nil)},
	} {
		c := h.add(test.binary)
		var took time.Duration
		allocated := allocating(func() {
			start := time.Now()
			defer func() { took = time.Since(start) }()
			if err := h.Prepare(t.Context(), c); err != nil {
				wantRefused(t, test.name, err)
				return
			}
			h.run(t, grid.Guest{Module: c, Limits: grid.Limits{Memory: 1 << 20}}).want(t, 0, "")
		})
		t.Logf("%s: allocated %d MiB in %v", test.name, allocated>>20, took)
		if allocated > 512<<20 {
			t.Errorf("%s: the host allocated %d MiB", test.name, allocated>>20)
		}
	}
}

// allocating tells how many bytes of heap were allocated meanwhile, by whomever.
func allocating(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// bounded takes so many bytes and no more.
type bounded struct{ left, writes int }

func (b *bounded) Write(p []byte) (int, error) {
	b.writes++
	if len(p) > b.left {
		n := b.left
		b.left = 0
		return n, grid.Errorf(grid.Limit, "more output than allowed")
	}
	b.left -= len(p)
	return len(p), nil
}

func testFloods(t *testing.T, h *hostileTest) {
	type p = wasmbytes.Program
	const limit = 1 << 20
	write := func(fd int32, vectors int32) []byte {
		return code(i32(fd), i32(0), i32(vectors), i32(64), call(0))
	}
	imports := []wasmbytes.Import{wasmbytes.System("fd_write"), wasmbytes.System("proc_exit")}
	vector := []byte{0, 0, 0, 0, 0, 0, 1, 0} // all of 64 KiB
	// 8,000 times all of the memory, in one call: 500 MB out of 64 KiB.
	vectors := bytes.Repeat(vector, 8000)
	for fd := int32(1); fd <= 2; fd++ {
		for _, test := range []struct {
			name  string
			guest []byte
			fault bool
		}{
			{"until refused", program(p{Imports: imports, Data: vector}, // exits with 7 then
				code([]byte{0x03, 0x40}, write(fd, 1), []byte{0x45, 0x0d, 0, 0x0b}, i32(7), call(1))), false},
			{"for ever", program(p{Imports: imports, Data: vector}, wasmbytes.Forever(write(fd, 1), drop)), true},
			{"at once", program(p{Imports: imports, Data: vectors}, code(write(fd, 8000), drop, i32(7), call(1))), false},
		} {
			w := &bounded{left: limit}
			g := grid.Guest{Module: h.add(test.guest), Limits: grid.Limits{Wall: 100 * time.Millisecond}}
			if fd == 1 {
				g.Stdout = w
			} else {
				g.Stderr = w
			}
			start := time.Now()
			out, err := h.Run(t.Context(), &g)
			took := time.Since(start)
			t.Logf("fd %d %s: %v, %d writes", fd, test.name, took, w.writes)
			switch {
			case err != nil:
				t.Errorf("fd %d %s: Run: %v", fd, test.name, err)
			case test.fault && (out.Fault == nil || out.Fault.Code != grid.Deadline):
				t.Errorf("fd %d %s: %+v, want Deadline", fd, test.name, out)
			case !test.fault && (out.Fault != nil || out.Exit != 7):
				t.Errorf("fd %d %s: exit code %d, fault %+v, want exit code 7", fd, test.name, out.Exit, out.Fault)
			case w.left > 64<<10:
				t.Errorf("fd %d %s: %d of %d bytes left", fd, test.name, w.left, limit)
			case took > killWithin:
				t.Errorf("fd %d %s: took %v", fd, test.name, took)
			}
		}
	}
}

func testFileBombs(t *testing.T, h *hostileTest) {
	if err := h.Prepare(t.Context(), h.goGuest(t, "").Module); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command string
		limits  grid.Limits
		fault   grid.Code
		message string // of the fault
		stdout  string
	}{
		{"deep", grid.Limits{}, 0, "", "stopped: true\n"},
		{"wide", grid.Limits{Files: 1000}, grid.NoSpace, "1000 files", "stopped at 1000\n"},
		{"sparse", grid.Limits{Scratch: 1 << 20}, grid.NoSpace, "1048576 bytes", "stopped at 3\n"},
		{"opens", grid.Limits{}, 0, "", "stopped: true\n"},
		{"paths", grid.Limits{}, 0, "", "refused\n"},
		{"links", grid.Limits{}, 0, "", "refused\n"},
		{"names", grid.Limits{}, 0, "", "kept\n"},
	} {
		t.Run(test.command, func(t *testing.T) {
			g := h.goGuest(t, test.command)
			g.Limits = test.limits
			g.Limits.Wall = 20 * time.Second
			start := time.Now()
			var r result
			allocated := allocating(func() { r = h.run(t, g) })
			t.Logf("%s: %v, the process allocated %d MiB", test.command, time.Since(start), allocated>>20)
			switch {
			case r.stdout != test.stdout:
				t.Errorf("%s: stdout %q, want %q; stderr %s, fault %+v", test.command, r.stdout, test.stdout, r.stderr, r.Fault)
			case test.fault != 0 && (r.Fault == nil || r.Fault.Code != test.fault || !strings.Contains(r.Fault.Message, test.message)):
				t.Errorf("%s: %+v, want %v with %q", test.command, r.Outcome, test.fault, test.message)
			case test.fault == 0 && (r.Fault != nil || r.Exit != 0):
				t.Errorf("%s: exit code %d, fault %+v; stderr %s", test.command, r.Exit, r.Fault, r.stderr)
			case allocated > 1<<30:
				t.Errorf("%s: the host allocated %d MiB", test.command, allocated>>20)
			}
		})
	}
}

// canary is a module that looks for what an earlier guest left, in all of its memory and what it grows
// by, its globals, its table, its data segment, its files and its descriptors; exits with the number of
// what it found; and leaves all of that behind, to end as its number of arguments says: 1 by returning,
// 2 by proc_exit(0), 3 by a trap, 4 by a full stack, 5 by looping.
func canary(pages uint32) []byte {
	const grow = 16
	imports := []wasmbytes.Import{
		wasmbytes.System("path_open"), wasmbytes.System("args_sizes_get"), wasmbytes.System("proc_exit"), wasmbytes.System("random_get"),
		wasmbytes.System("fd_write"), wasmbytes.System("environ_get"),
	}
	n := uint32(len(imports))
	fail := func(with int32) []byte { return wasmbytes.If(i32(with), call(2)) }
	const local = 0
	get, set := op(0x20, local), op(0x21, local)
	// each walks the memory from a place to its end, eight bytes at a time.
	each := func(from int64, do ...[]byte) []byte {
		return code(wasmbytes.Const64(from), set, []byte{0x03, 0x40}, code(do...),
			get, wasmbytes.Const64(8), []byte{0x7c}, op(0x22, local),
			op(0x3f, 0), []byte{0xad}, wasmbytes.Const64(16), []byte{0x86, 0x54, 0x0d, 0, 0x0b})
	}
	clean := each(64, get, []byte{0xa7}, op(0x29, 3, 0), wasmbytes.Const64(0), []byte{0x52}, fail(10))
	open := code(i32(3), i32(0), i32(0), i32(5), i32(1|4), wasmbytes.Const64(2|64), wasmbytes.Const64(0), i32(0), i32(32), call(0))
	// What to do for each number of arguments: at 40, where args_sizes_get puts it.
	when := func(argc int32, do ...[]byte) []byte {
		return code(i32(0), op(0x28, 2, 40), i32(argc), []byte{0x46}, wasmbytes.If(do...))
	}
	start := code(
		clean,
		i32(grow), op(0x40, 0), i32(int32(pages)), []byte{0x47}, fail(11), // the memory began as large as ever
		clean,
		i32(0), op(0x28, 2, 0), i32(int32(le32("tmp/"))), []byte{0x47}, fail(12), // data
		op(0x23, 0), wasmbytes.Const64(0), []byte{0x52}, fail(13),
		i32(0), op(0x25, 0), []byte{0xd1, 0x45}, fail(14), // table.get, ref.is_null, i32.eqz
		wasmbytes.Misc(16, 0), i32(4), []byte{0x47}, fail(15), // table.size
		open, fail(16), // O_EXCL
		i32(0), op(0x28, 2, 32), i32(4), []byte{0x47}, fail(17), // the first free descriptor
		i32(128), i32(0), i32(4), wasmbytes.Misc(8, 1, 0), // memory.init: the passive segment is there

		wasmbytes.Const64(0x5ec2e7), op(0x24, 0),
		i32(0), op(0xd2, n), op(0x26, 0), // ref.func
		op(0xd2, n), i32(100), wasmbytes.Misc(15, 0), drop, // table.grow
		wasmbytes.Misc(9, 1), // data.drop
		each(64, get, []byte{0xa7}, wasmbytes.Const64(0x5ec2e75ec2e7), op(0x37, 3, 0)),
		i32(0), i32(0x21212121), op(0x36, 2, 0), // over the data
		i32(512), i32(4096), call(5), drop, // a copy of the environment
		i32(40), i32(44), call(1), drop,
		when(2, i32(0), call(2)),
		when(3, op(0x00)),
		when(4, call(n)),
		when(5, []byte{0x03, 0x40, 0x0c, 0, 0x0b}),
	)
	return wasmbytes.Program{
		Imports: imports, MinPages: pages, Globals: 1, Tables: []uint32{4}, Elements: nil, Passive: []byte("more"),
		Data:  []byte("tmp/c"),
		Funcs: []wasmbytes.Func{{Code: call(n)}, {Locals: 1, Code: start}},
		Refs:  []uint32{n},
	}.Bytes()
}

func le32(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func testReuse(t *testing.T, h *hostileTest) {
	runs := 2000
	if testing.Short() {
		runs = 200
	}
	modules := []cid.Cid{h.add(canary(1)), h.add(canary(20))}
	for _, m := range modules {
		if err := h.Prepare(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range runs / 4 {
				end := 1 + i%3
				g := grid.Guest{
					Module: modules[random.IntN(2)],
					Env:    []string{fmt.Sprintf("SECRET_%d=%d", i, random.Uint64())},
					Limits: grid.Limits{Wall: 10 * time.Second},
				}
				switch i % 100 {
				case 25:
					end = 4
				case 0:
					end, g.Limits.Wall = 5, 20*time.Millisecond
				}
				g.Args = slices.Repeat([]string{"x"}, end)
				out, err := h.Run(t.Context(), &g)
				if err != nil {
					t.Errorf("run %d: %v", i, err)
					return
				}
				fault := map[int]grid.Code{3: grid.Trap, 4: grid.Trap, 5: grid.Deadline}[end]
				if out.Exit != 0 || (fault == 0) != (out.Fault == nil) || out.Fault != nil && out.Fault.Code != fault {
					t.Errorf("run %d, which ends by %d: exit code %d, fault %+v, want %v", i, end, out.Exit, out.Fault, fault)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d runs in %v", runs, time.Since(start))
}

// usage is what the process holds of things that leak.
type usage struct {
	goroutines, files, maps int
	heap                    uint64
}

func used() usage {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(entries)
	}
	if data, err := os.ReadFile("/proc/self/maps"); err == nil {
		u.maps = bytes.Count(data, []byte("\n"))
	}
	return u
}

func testKill(t *testing.T, h *hostileTest) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	guests := endless()
	var victims []grid.Guest
	for _, name := range []string{"empty loop", "fib(60)", "start function", "memory.fill", "poll_oneoff", "random_get", "readdir", "table.fill", "doublings"} {
		victims = append(victims, grid.Guest{Module: h.add(guests[name])})
	}
	spin := h.guest(t, "spin")
	victims = append(victims, spin, grid.Guest{Module: h.add(canary(20)), Args: slices.Repeat([]string{"x"}, 5)})
	good := h.guest(t, "echo", "still here")
	for _, g := range append(victims, good) {
		if err := h.Prepare(t.Context(), g.Module); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	var slowest time.Duration
	round := func(i int) {
		g := victims[i%len(victims)]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		over := make(chan time.Time, 1)
		timer := time.AfterFunc(time.Duration(random.IntN(4000))*time.Microsecond, func() { over <- time.Now(); cancel() })
		defer timer.Stop()
		if out, err := h.Run(ctx, &g); !errors.Is(err, grid.Canceled) {
			t.Errorf("round %d: %+v, %v, want Canceled", i, out, err)
			return
		}
		took := time.Since(<-over)
		if slowest = max(slowest, took); took > killWithin {
			t.Errorf("round %d: killed after %v", i, took)
		}
		if i%10 == 0 {
			h.run(t, good).want(t, 0, "args [\"still here\"]\nenv []\n")
		}
	}
	for i := range 2 * len(victims) { // pools fill
		round(i)
	}
	before := used()
	for i := range rounds {
		round(i)
	}
	after := used()
	t.Logf("%d guests canceled, the slowest gone after %v; before %+v, after %+v", rounds, slowest, before, after)
	if after.goroutines > before.goroutines+8 || after.files > before.files+4 || after.maps > before.maps+64 || after.heap > before.heap+64<<20 {
		t.Errorf("leaked: before %+v, after %+v", before, after)
	}
	for i := range victims { // each still works: it runs until its limit
		g := victims[i]
		g.Limits.Wall = 10 * time.Millisecond
		h.kill(t, fmt.Sprint("victim ", i), g, grid.Deadline, "10ms")
	}
}

func testCrowd(t *testing.T, h *hostileTest) {
	type kind struct {
		name   string
		guest  grid.Guest
		fault  grid.Code
		stdout string
	}
	var kinds []kind
	guests := endless()
	for _, name := range []string{"empty loop", "call indirectly", "poll_oneoff", "memory.copy", "fib(60)", "write nothing"} {
		kinds = append(kinds, kind{name, grid.Guest{Module: h.add(guests[name]), Limits: grid.Limits{Wall: 300 * time.Millisecond}}, grid.Deadline, ""})
		if h.counts {
			kinds = append(kinds, kind{name + " on fuel", grid.Guest{Module: h.add(guests[name]), Limits: grid.Limits{Fuel: someFuel}}, grid.Limit, ""})
		}
	}
	all := traps()
	for _, name := range []string{"unreachable", "recursion", "store 36", "call null"} {
		kinds = append(kinds, kind{name, grid.Guest{Module: h.add(all[name].binary)}, grid.Trap, ""})
	}
	kinds = append(kinds,
		kind{"grown", grid.Guest{Module: h.add(grown(1)), Limits: grid.Limits{Memory: 8 << 20}}, 0, ""},
		kind{"too large", grid.Guest{Module: h.add(program(wasmbytes.Program{MinPages: 200}, nil)), Limits: grid.Limits{Memory: 8 << 20}}, grid.Limit, ""},
		kind{"canary", grid.Guest{Module: h.add(canary(1)), Args: []string{"x"}}, 0, ""},
		kind{"echo", h.guest(t, "echo", "crowd"), 0, "args [\"crowd\"]\nenv []\n"},
		kind{"links", h.goGuest(t, "links"), 0, "refused\n"},
		kind{"count", grid.Guest{Module: h.add(wasmbytes.Spin(1_000_000))}, 0, ""},
	)
	for _, k := range kinds {
		if err := h.Prepare(t.Context(), k.guest.Module); err != nil {
			t.Fatal(err)
		}
	}
	fuel := map[string]uint64{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 64 {
		k := kinds[i%len(kinds)]
		wg.Go(func() {
			var stdout bytes.Buffer
			g := k.guest
			g.Stdout = &stdout
			out, err := h.Run(t.Context(), &g)
			if err != nil || out.Exit != 0 || (out.Fault == nil) != (k.fault == 0) || out.Fault != nil && out.Fault.Code != k.fault || stdout.String() != k.stdout {
				t.Errorf("%s: %+v, %v, fault %+v, stdout %q", k.name, out, err, out.Fault, stdout.String())
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if before, ok := fuel[k.name]; ok && k.fault != grid.Deadline && before != out.Fuel {
				t.Errorf("%s: %d fuel, then %d", k.name, before, out.Fuel)
			}
			fuel[k.name] = out.Fuel
		})
	}
	wg.Wait()
	t.Logf("64 guests in %v", time.Since(start))
}
