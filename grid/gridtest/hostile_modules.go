package gridtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// wantRefused checks the error of a module that Prepare does not accept.
func wantRefused(t *testing.T, name string, err error) {
	t.Helper()
	if code := grid.CodeOf(err); code != grid.Invalid && code != grid.Unsupported && code != grid.Limit {
		t.Errorf("%s: %v: code %v, want Invalid, Unsupported or Limit", name, err, code)
	}
	if len(err.Error()) > 4<<10 {
		t.Errorf("%s: an error of %d bytes: %.200s…", name, len(err.Error()), err)
	}
}

// bomb is a module that costs much to compile.
type bomb struct {
	name    string
	binary  func() []byte
	refused bool // must be; others may be
}

func compileBombs(scale int) []bomb {
	type p = wasmbytes.Program
	type fn = wasmbytes.Func
	blocks := func(n int, open ...byte) []byte {
		return code(bytes.Repeat(open, n), bytes.Repeat([]byte{0x0b}, n))
	}
	// loops that each change all locals, which the compiler has to carry through every one of them.
	phis := func(loops, locals int) []byte {
		var change, some []byte
		for i := range locals {
			if i == 20 {
				some = slices.Clone(change)
			}
			change = append(change, code(op(0x20, uint32(i)), wasmbytes.Const64(1), []byte{0x7c}, op(0x21, uint32(i)))...)
		}
		loop := code([]byte{0x03, 0x40}, some, op(0x20, 0), []byte{0xa7, 0x0d, 0, 0x0b})
		return p{MinPages: 1, Funcs: []fn{{Locals: uint32(locals), Code: code(bytes.Repeat(loop, loops), change)}}}.Bytes()
	}
	names := func(n int) []byte {
		b := wasmbytes.U32(nil, uint32(n))
		for i := range n {
			b = append(wasmbytes.U32(b, uint32(i)), 3, 'a', 'b', 'c')
		}
		return slices.Concat([]byte("\x04name"), wasmbytes.Section(nil, 1, b))
	}
	return []bomb{
		{name: "many functions", binary: func() []byte { return p{MinPages: 1, Funcs: make([]fn, 100_000/scale)}.Bytes() }},
		{name: "50,000 locals", binary: func() []byte { return p{MinPages: 1, Funcs: []fn{{Locals: 50_000}}}.Bytes() }},
		{name: "50,001 locals", binary: func() []byte { return p{MinPages: 1, Funcs: []fn{{Locals: 50_001}}}.Bytes() }, refused: true},
		{name: "four billion locals", binary: func() []byte { return p{MinPages: 1, Funcs: []fn{{Locals: 1<<32 - 1}}}.Bytes() }, refused: true},
		{name: "locals everywhere", binary: func() []byte {
			return p{MinPages: 1, Funcs: slices.Repeat([]fn{{Locals: 50_000}}, 160/scale)}.Bytes()
		}},
		{name: "blocks in blocks, 1,000", binary: func() []byte { return program(p{}, blocks(1000, 0x02, 0x40)) }},
		{name: "blocks in blocks, 30,000", binary: func() []byte { return program(p{}, blocks(30_000/scale, 0x02, 0x40)) }},
		{name: "blocks in blocks, 100,000", binary: func() []byte { return program(p{}, blocks(100_000, 0x02, 0x40)) }},
		{name: "loops in loops, 10,000", binary: func() []byte { return program(p{}, blocks(10_000/scale, 0x03, 0x40)) }},
		{name: "ifs in ifs, 10,000", binary: func() []byte { return program(p{}, blocks(10_000/scale, 0x41, 0, 0x04, 0x40)) }},
		{name: "loops and locals", binary: func() []byte { return phis(300/scale, 300) }},
		{name: "br_table of a million", binary: func() []byte {
			targets := make([]byte, 1_000_001)
			return program(p{}, code([]byte{0x02, 0x40}, i32(0), wasmbytes.Op(0x0e, 1_000_000), targets, []byte{0x0b}))
		}},
		{name: "one body of 3 MB", binary: func() []byte { return program(p{}, bytes.Repeat(code(i32(1), drop), 1_000_000/scale)) }},
		{name: "one body of 5 MB", binary: func() []byte { return program(p{}, bytes.Repeat([]byte{0x01}, 5_000_000)) }},
		{name: "one expression", binary: func() []byte {
			n := 200_000 / scale
			return program(p{}, code(bytes.Repeat(i32(1), n), bytes.Repeat([]byte{0x6a}, n-1), drop))
		}},
		{name: "data of 32 MiB", binary: func() []byte { return program(p{MinPages: 512, Data: make([]byte, 32<<20)}, nil) }},
		{name: "a million elements", binary: func() []byte {
			return program(p{Tables: []uint32{1 << 20}, Elements: make([]uint32, 1<<20)}, nil)
		}},
		{name: "many globals", binary: func() []byte { return program(p{Globals: 100_000}, nil) }},
		{name: "a million names", binary: func() []byte { return program(p{Custom: names(1_000_000)}, nil) }},
		{name: "65 MiB", binary: func() []byte { return program(p{Custom: append([]byte("\x01x"), make([]byte, 65<<20)...)}, nil) }, refused: true},
		{name: "tail call", binary: func() []byte { return program(p{}, nil, wasmbytes.Op(0x12, 0)) }, refused: true},
	}
}

// malformed are modules that lie about themselves.
func malformed() map[string][]byte {
	header := []byte(wasmbytes.Header)
	noop := wasmbytes.Noop()
	most := []byte{0xff, 0xff, 0xff, 0xff, 0x0f} // 2^32-1
	m := map[string][]byte{
		"section beyond the end": append(slices.Clone(header), 1, 0x80, 0x80, 0x80, 0x80, 8),
		"a section twice":        append(slices.Clone(noop), noop[8:]...),
		"sections out of order":  wasmbytes.Section(slices.Clone(noop), 1, []byte{0}),
		"overlong number":        append(slices.Clone(header), 1, 0x81, 0x80, 0x80, 0x80, 0x80, 0),
		"number above 32 bits":   append(slices.Clone(header), 1, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"endless number":         append(slices.Clone(header), bytes.Repeat([]byte{0x80}, 1000)...),
		"section left over":      wasmbytes.Section(slices.Clone(header), 1, []byte{0, 0, 0, 0}),
		"unknown section":        wasmbytes.Section(slices.Clone(noop), 77, nil),
		"name that is not UTF-8": wasmbytes.Section(slices.Clone(noop), 0, []byte("\x02\xff\xfe")),
		"empty custom section":   wasmbytes.Section(slices.Clone(noop), 0, nil),
		"no code":                noop[:bytes.LastIndexByte(noop, 10)],
	}
	for id := byte(1); id <= 12; id++ { // each section with a list that claims 2^32-1 entries
		m["list of "+string('a'+rune(id))] = wasmbytes.Section(slices.Clone(header), id, most)
	}
	return m
}

// prepare prepares and, if that went well, runs a module, all within bounds.
func (h *hostileTest) prepare(t *testing.T, name string, binary []byte, wall time.Duration) (took time.Duration, err error) {
	t.Helper()
	c := h.add(binary)
	ctx, cancel := context.WithTimeout(t.Context(), wall)
	defer cancel()
	start := time.Now()
	m, err := h.Inspect(ctx, c, true)
	if took = time.Since(start); took > wall+killWithin {
		t.Errorf("%s: Prepare took %v", name, took)
	}
	switch {
	case errors.Is(err, grid.Deadline): // it was given up
		return took, err
	case err != nil:
		wantRefused(t, name, err)
		return took, err
	}
	g := grid.Guest{Module: c, Limits: grid.Limits{Wall: 100 * time.Millisecond, Fuel: 10_000_000, Memory: 64 << 20}}
	if len(m.Functions) > 0 { // it has become a library
		g.Func = m.Functions[0]
	}
	start = time.Now()
	out, runErr := h.Run(t.Context(), &g)
	if runErr != nil || hostPanicked(out) {
		t.Errorf("%s: Run: %+v, %v", name, out, runErr)
	}
	if ran := time.Since(start); ran > killWithin {
		t.Errorf("%s: Run took %v", name, ran)
	}
	return took, nil
}

func testCompileBombs(t *testing.T, h *hostileTest) {
	scale := 1
	if testing.Short() {
		scale = 10
	}
	const wall = 5 * time.Second
	for _, b := range compileBombs(scale) {
		t.Run(b.name, func(t *testing.T) {
			binary := b.binary()
			var took time.Duration
			var err error
			allocated := allocating(func() { took, err = h.prepare(t, b.name, binary, wall) })
			outcome := "accepted"
			if err != nil {
				outcome = err.Error()
			}
			t.Logf("%-26s %9d bytes: %10v, allocated %5d MiB, %.150s", b.name, len(binary), took.Round(10*time.Microsecond), allocated>>20, outcome)
			if b.refused && err == nil {
				t.Errorf("%s: accepted", b.name)
			}
			if allocated > 4<<30 {
				t.Errorf("%s: the process allocated %d MiB", b.name, allocated>>20)
			}
		})
	}
}

// testAbandoned checks that a module whose compilation takes minutes ends with the patience of those who
// asked for it: others are compiled soon afterwards.
func testAbandoned(t *testing.T, h *hostileTest) {
	loops := wasmbytes.Func{Code: bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 400)}
	funcs := 2000
	if testing.Short() {
		funcs = 400
	}
	for i := range 4 {
		slow := wasmbytes.Program{MinPages: 1, Globals: i, Funcs: slices.Repeat([]wasmbytes.Func{loops}, funcs)}.Bytes()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		err := h.Prepare(ctx, h.add(slow))
		if took := time.Since(start); took > killWithin {
			t.Errorf("Prepare gave up after %v: %v", took, err)
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // much less than the four would take
	defer cancel()
	start := time.Now()
	if err := h.Prepare(ctx, h.add(wasmbytes.Spin(4321))); err != nil {
		t.Error(err)
	}
	t.Logf("after four compilations that were given up, a small module took %v", time.Since(start))
}

func testDamaged(t *testing.T, h *hostileTest) {
	modules := malformed()
	for _, name := range slices.Sorted(keys(modules)) {
		if name == "a section twice" || name == "overlong number" || name == "endless number" || name == "section beyond the end" || name == "sections out of order" {
			if err := h.Prepare(t.Context(), h.add(modules[name])); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		h.prepare(t, name, modules[name], killWithin)
	}
	whole := wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("fd_write")}, Globals: 1, Tables: []uint32{2}, Elements: []uint32{1}, Refs: []uint32{1},
		MinPages: 1, Data: []byte("data"), Passive: []byte("more"),
		Funcs: []wasmbytes.Func{fib(1), {Locals: 1, Code: code(i32(5), call(1), drop, i32(1), i32(0), i32(0), i32(8), call(0), drop)}},
	}.Bytes()
	if _, err := h.prepare(t, "whole", whole, killWithin); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for n := range whole {
		h.prepare(t, "truncated", whole[:n], killWithin)
	}
	t.Logf("truncated at each of %d bytes in %v", len(whole), time.Since(start))
	start = time.Now()
	accepted, step := 0, 1
	if testing.Short() {
		step = 7
	}
	for bit := 0; bit < 8*len(whole); bit += step {
		flipped := slices.Clone(whole)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := h.prepare(t, "bit flipped", flipped, killWithin); err == nil {
			accepted++
		}
	}
	t.Logf("each of %d bits flipped in %v: %d modules ran", 8*len(whole)/step, time.Since(start), accepted)
}
