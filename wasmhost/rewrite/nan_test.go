package rewrite_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasmgrid/wasmgrid/grid"
	wb "github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// Value types, and the locals that floatProgram has of each, parameters first.
const tI32, tF32, tF64, tV128 = 0x7f, 0x7d, 0x7c, 0x7b

var floatLocals = map[byte][]uint32{tF64: {0, 3, 4, 5}, tF32: {1, 6, 7}, tV128: {2, 8, 9, 10}}

const floatMemory = 512 // bytes that it reads and writes, and begins with

// floats makes random programs of floating-point code.
type floats struct {
	*rand.Rand
	loops   uint32
	selects bool // between results and constants, all over
}

func (g *floats) of(ops ...byte) byte     { return ops[g.IntN(len(ops))] }
func (g *floats) local(typ byte) uint32   { return floatLocals[typ][g.IntN(len(floatLocals[typ]))] }
func (g *floats) address() []byte         { return wb.Const(int32(16 * g.IntN(floatMemory/16))) }
func (g *floats) typ() byte               { return g.of(tF32, tF64, tF64, tV128) }
func vec(op uint32, imm ...uint32) []byte { return wb.Op(0xfd, append([]uint32{op}, imm...)...) }

// bits are of a number that may well be a NaN, of any kind.
func (g *floats) bits(size int) []byte {
	hi := []uint32{0x7ff80000, 0xfff80000, 0x7ff40001, 0xfff00000, 0x7ff00000, 0x3ff00000, 0xbff80000, 0, 0x80000000, 0x7fc00000, 0xffc00007, 0x7f800001, 0x3f800000}[g.IntN(13)]
	if size == 4 {
		return binary.LittleEndian.AppendUint32(nil, hi)
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(hi)<<32|uint64(g.IntN(3)))
}

// value is code that puts a value of a type on the stack.
func (g *floats) value(typ byte, depth int) []byte {
	sub := func(t byte) []byte { return g.value(t, depth-1) }
	choice := g.IntN(12)
	if depth <= 0 {
		choice = g.IntN(3)
	}
	switch choice {
	case 0:
		return wb.Op(0x20, g.local(typ))
	case 1:
		switch typ {
		case tF64:
			return append([]byte{0x44}, g.bits(8)...)
		case tF32:
			return append([]byte{0x43}, g.bits(4)...)
		}
		return wb.Code(vec(0x0c), g.bits(8), g.bits(8))
	case 2:
		return wb.Code(g.address(), map[byte][]byte{tF64: {0x2b, 3, 0}, tF32: {0x2a, 2, 0}, tV128: {0xfd, 0, 4, 0}}[typ])
	case 3:
		return wb.Code(sub(typ), wb.Op(0x22, g.local(typ)))
	case 4:
		return wb.Code(sub(typ), sub(typ), g.condition(depth-1), []byte{0x1c, 1, typ})
	case 5: // by way of a block
		return wb.Code([]byte{0x02, typ}, sub(typ), g.condition(depth-1), brIf(0), end)
	case 6:
		return wb.Code(g.condition(depth-1), []byte{0x04, typ}, sub(typ), otherwise, sub(typ), end)
	}
	switch typ {
	case tF64:
		switch g.IntN(5) {
		case 0:
			return wb.Code(sub(tF64), []byte{g.of(0x99, 0x9a, 0x9b, 0x9e, 0x9f)})
		case 1:
			return wb.Code(sub(tF32), []byte{0xbb})
		case 2:
			return wb.Code(sub(tF64), sub(tF64), []byte{0xa6})
		case 3:
			return wb.Code(sub(tV128), vec(0x21, 1))
		}
		return g.selected(tF64, wb.Code(sub(tF64), sub(tF64), []byte{g.of(0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5)}))
	case tF32:
		switch g.IntN(5) {
		case 0:
			return wb.Code(sub(tF32), []byte{g.of(0x8b, 0x8c, 0x8d, 0x90, 0x91)})
		case 1:
			return wb.Code(sub(tF64), []byte{0xb6})
		case 2:
			return wb.Code(sub(tF32), sub(tF32), []byte{0x98})
		case 3:
			return wb.Code(sub(tV128), vec(0x1f, 2))
		}
		return g.selected(tF32, wb.Code(sub(tF32), sub(tF32), []byte{g.of(0x92, 0x93, 0x94, 0x95, 0x96, 0x97)}))
	}
	switch g.IntN(5) {
	case 0:
		return wb.Code(sub(tV128), vec(uint32(g.of(0x67, 0x6a, 0x74, 0x94, 0xe0, 0xe1, 0xe3, 0xec, 0xed, 0xef, 0x5e, 0x5f, 0xfa, 0xfe))))
	case 1:
		return wb.Code(sub(tV128), sub(tV128), vec(uint32(g.of(0x4e, 0x50, 0xae, 0xea, 0xeb, 0xf6, 0xf7, 0x41, 0x47))))
	case 2:
		return wb.Code(sub(tF64), vec(0x14))
	}
	return wb.Code(sub(tV128), sub(tV128), vec(uint32(g.of(0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5))))
}

// selected is code that takes a value unless it is no number, else a constant.
func (g *floats) selected(typ byte, value []byte) []byte {
	if !g.selects {
		return value
	}
	l := g.local(typ)
	constant, ge := append([]byte{0x44}, g.bits(8)...), byte(0x66)
	if typ == tF32 {
		constant, ge = append([]byte{0x43}, g.bits(4)...), 0x60
	}
	return wb.Code(value, wb.Op(0x22, l), constant, wb.Op(0x20, l), wb.Op(0x20, l), []byte{ge, 0x1b})
}

func (g *floats) condition(depth int) []byte {
	switch g.IntN(3) {
	case 0:
		return wb.Code(g.address(), []byte{0x28, 2, 0}, one, []byte{0x71})
	case 1:
		return wb.Code(g.value(tF64, depth), g.value(tF64, depth), []byte{g.of(0x61, 0x63, 0x65)})
	}
	return wb.Code(g.value(tF64, depth), []byte{0xbd, 0xa7}, one, []byte{0x71}) // looks at bits
}

func (g *floats) statements(depth int) (b []byte) {
	for range 1 + g.IntN(5) {
		b = append(b, g.statement(depth)...)
	}
	return b
}

func (g *floats) statement(depth int) []byte {
	typ := g.typ()
	choice := g.IntN(9)
	if depth <= 0 {
		choice = g.IntN(6)
	}
	switch choice {
	case 0, 1:
		return wb.Code(g.address(), g.value(typ, 3), map[byte][]byte{tF64: {0x39, 3, 0}, tF32: {0x38, 2, 0}, tV128: {0xfd, 0x0b, 4, 0}}[typ])
	case 2:
		return wb.Code(g.value(tF64, 3), wb.Op(0x24, 0))
	case 3, 4, 5:
		return wb.Code(g.value(typ, 3), wb.Op(0x21, g.local(typ)))
	case 6:
		return wb.Code(g.condition(2), ifThen, g.statements(depth-1), otherwise, g.statements(depth-1), end)
	case 7:
		return wb.Code(block, g.statements(depth-1), g.condition(2), brIf(0), g.statements(depth-1), end)
	}
	n := 11 + g.loops // a counter of its own
	g.loops++
	return wb.Code(wb.Const(3), wb.Op(0x21, n), loop, g.statements(depth-1), wb.Op(0x20, n), one, []byte{0x6b}, wb.Op(0x22, n), brIf(0), end)
}

// floatProgram is a module whose function run computes in its locals, its memory, m, and its global, g.
func floatProgram(seed uint64) []byte {
	return (&floats{Rand: rand.New(rand.NewPCG(seed, 7))}).program()
}

func (g *floats) program() []byte {
	code := g.statements(3)
	body := wb.Code([]byte{4, 3, tF64, 2, tF32, 3, tV128}, wb.U32(nil, g.loops), []byte{tI32}, code, g.value(tF64, 3), g.value(tF32, 3), end)
	call := wb.Code([]byte{2, 1, tF32, 1, tF64}, wb.ConstF64(1.5), append([]byte{0x43}, g.bits(4)...), vec(0x0c), g.bits(8), g.bits(8), wb.Call(0),
		wb.Op(0x21, 0), wb.Op(0x21, 1), wb.Const(0), wb.Op(0x20, 0), []byte{0x38, 2, 0}, wb.Const(8), wb.Op(0x20, 1), []byte{0x39, 3, 0},
		wb.Const(16), wb.Op(0x23, 0), []byte{0x39, 3, 0}, end)
	sized := func(b []byte) []byte { return append(wb.U32(nil, uint32(len(b))), b...) }
	var data []byte
	for len(data) < floatMemory {
		data = append(data, g.bits(4+4*g.IntN(2))...)
	}
	data = data[:floatMemory]
	return module(
		section(1, 2, 0x60, 3, tF64, tF32, tV128, 2, tF64, tF32, 0x60, 0, 0),
		section(3, 2, 0, 1),
		section(5, 1, 0, 1),
		section(6, append([]byte{1, tF64, 1, 0x44}, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b)...),
		section(7, wb.Code([]byte{2, 6}, []byte("_start"), []byte{0, 1, 1}, []byte("m"), []byte{2, 0})...),
		section(10, wb.Code([]byte{2}, sized(body), sized(call))...),
		section(11, wb.Code([]byte{1, 0, 0x41, 0, 0x0b}, sized(data))...),
	)
}

// engines are a compiler and an interpreter.
type engines struct{ compiler, interpreter *sandbox }

func newEngines(t testing.TB) engines {
	i := &sandbox{rt: wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())}
	t.Cleanup(func() { i.rt.Close(context.Background()) })
	i.fuel.provide(t, i.rt)
	return engines{newSandbox(t), i}
}

// compare runs the floatProgram of a seed with NaNs made canonical only where that makes a difference, and
// with all of them at once, compiled and interpreted: results and fuel must be the same. It tells how many
// are canonical each way, and whether the program gives something else as it is.
func (e engines) compare(t testing.TB, seed uint64) (few, all int, differs bool) {
	program := floatProgram(seed)
	run := func(s *sandbox, opt rewrite.Options) ([]byte, int64, int) {
		binary, info, err := rewrite.Instrument(program, opt)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		mod, err := s.rt.InstantiateWithConfig(t.Context(), binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		defer mod.Close(t.Context())
		before := s.fuel.used()
		if _, err := mod.ExportedFunction("_start").Call(t.Context()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		memory, _ := mod.Memory().Read(0, floatMemory)
		used := int64(0)
		if opt.Fuel {
			used = s.fuel.used() - before
			delete(s.fuel.given, mod)
		}
		return bytes.Clone(memory), used, info.NaNs
	}
	want, fuel, all := run(e.interpreter, rewrite.Plainly(fuelled))
	for _, way := range []struct {
		name string
		s    *sandbox
		opt  rewrite.Options
	}{
		{"compiled", e.compiler, fuelled},
		{"interpreted", e.interpreter, fuelled},
		{"compiled plainly", e.compiler, rewrite.Plainly(fuelled)},
		{"without fuel", e.compiler, rewrite.Options{NaN: true}},
	} {
		got, used, n := run(way.s, way.opt)
		if !bytes.Equal(got, want) || way.opt.Fuel && used != fuel {
			t.Fatalf("seed %d, %s: used %d, want %d\n%x, want\n%x", seed, way.name, used, fuel, got, want)
		}
		if way.opt == fuelled {
			few = n
		}
	}
	got, _, _ := run(e.compiler, rewrite.Options{Fuel: true})
	return few, all, !bytes.Equal(got, want)
}

func TestNaNs(t *testing.T) {
	programs := 1500
	if testing.Short() {
		programs = 150
	}
	e := newEngines(t)
	few, all, differ := 0, 0, 0
	for seed := range uint64(programs) {
		f, a, d := e.compare(t, seed)
		few, all = few+f, all+a
		if d {
			differ++
		}
	}
	t.Logf("%d of %d results were made canonical; %d of %d programs give something else without that", few, all, differ, programs)
	if few >= all || differ < programs/10 {
		t.Error("that proves little")
	}
}

func FuzzNaNs(f *testing.F) {
	f.Add(uint64(339))
	f.Add(uint64(359))
	e := newEngines(f)
	f.Fuzz(func(t *testing.T, seed uint64) { e.compare(t, seed) })
}

// However much floating-point code there is, instrumenting it is bounded, and what comes of it compiles.
func TestManyNaNs(t *testing.T) {
	s := newSandbox(t)
	results := func(n int) wb.Func {
		return wb.Func{Params: []byte{tF64}, Results: []byte{tF64}, Code: wb.Code(wb.Op(0x20, 0), bytes.Repeat([]byte{0x9f, 0x9a}, n))} // sqrt, neg
	}
	// Each local meets itself at every branch.
	locals := func(locals uint32, ifs int) []byte {
		body := wb.Code([]byte{1}, wb.U32(nil, locals), []byte{tF64}, bytes.Repeat(wb.Code(one, ifThen, otherwise, end), ifs), wb.Op(0x20, 0), wb.Op(0x20, 0), []byte{0xa0, 0xbd, 0x1a, 0x0b})
		return withBody(body...)
	}
	for _, test := range []struct {
		name   string
		binary []byte
		nans   int
		limit  bool
	}{
		{"jumps", wb.Program{MinPages: 1, Funcs: []wb.Func{results(4096), {}}}.Bytes(), 4096, false},
		{"no jumps", wb.Program{MinPages: 1, Funcs: []wb.Func{results(20_000), {}}}.Bytes(), 20_000, false},
		{"too many", wb.Program{MinPages: 1, Funcs: []wb.Func{results(1<<16 + 1), {}}}.Bytes(), 0, true},
		{"many locals", locals(50_000, 8000), 1, false},
	} {
		binary, info, err := rewrite.Instrument(test.binary, fuelled)
		if test.limit != (grid.CodeOf(err) == grid.Limit) || info.NaNs != test.nans {
			t.Errorf("%s: %d results, %v", test.name, info.NaNs, err)
		}
		if err == nil {
			code, err := s.rt.CompileModule(t.Context(), binary)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			} else {
				code.Close(t.Context())
			}
		}
		if most := 40*test.nans + 2*len(test.binary); len(binary) > most {
			t.Errorf("%s: %d bytes, want %d at most", test.name, len(binary), most)
		}
	}
}

// Programs that select between floating-point numbers all the time, with more of them alive than the processor
// has registers, do the same compiled and interpreted. The first seeds are of programs that the engine's compiler had do something
// else before select was written anew.
func TestSelect(t *testing.T) {
	ctx := context.Background()
	seeds := []uint64{6005, 6969}
	for seed := range uint64(150) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		g := &floats{Rand: rand.New(rand.NewPCG(seed, 7)), selects: true}
		binary, _, err := rewrite.Instrument(g.program(), fuelled)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var memories [2][]byte
		for i, rc := range []wazero.RuntimeConfig{wazero.NewRuntimeConfig(), wazero.NewRuntimeConfigInterpreter()} {
			rt := wazero.NewRuntimeWithConfig(ctx, rc)
			var tank fuelTank
			tank.provide(t, rt)
			mod, err := rt.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithStartFunctions())
			if err == nil {
				_, err = mod.ExportedFunction("_start").Call(ctx)
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			b, _ := mod.Memory().Read(0, floatMemory)
			memories[i] = bytes.Clone(b)
			rt.Close(ctx)
		}
		if !bytes.Equal(memories[0], memories[1]) {
			t.Errorf("seed %d: compiled\n%x\ninterpreted\n%x", seed, memories[0], memories[1])
		}
	}
}
