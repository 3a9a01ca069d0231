package rewrite_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
	wb "github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

var fuelled = rewrite.Options{Fuel: true, NaN: true}

// fuelTank gives fuel without end, a thousand units at a time, and counts it.
type fuelTank struct {
	given map[api.Module]int64
	full  int // stacks
}

func (f *fuelTank) provide(t testing.TB, rt wazero.Runtime) {
	f.given = map[api.Module]int64{}
	i64 := []api.ValueType{api.ValueTypeI64}
	_, err := rt.NewHostModuleBuilder(rewrite.ImportModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, mod api.Module, stack []uint64) {
			left := int64(stack[0])
			if left == rewrite.StackFull {
				f.full++
				return
			}
			if left >= 0 {
				t.Errorf("refuelled with %d left", left)
			}
			more := max(1000, -left)
			f.given[mod] += more
			stack[0] = uint64(left + more)
		}), i64, i64).Export(rewrite.ImportRefuel).Instantiate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
}

// used is how much all modules together have used.
func (f *fuelTank) used() int64 {
	used := int64(0)
	for mod, given := range f.given {
		used += given - int64(mod.ExportedGlobal(rewrite.ExportFuel).Get())
	}
	return used
}

// sandbox is an engine for tests, with a tank.
type sandbox struct {
	rt   wazero.Runtime
	fuel fuelTank
}

func newSandbox(t testing.TB) *sandbox {
	s := &sandbox{rt: wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigCompiler())}
	t.Cleanup(func() { s.rt.Close(context.Background()) })
	s.fuel.provide(t, s.rt)
	return s
}

// start instantiates a module as it is, or instrumented, without calling anything.
func (s *sandbox) start(t testing.TB, module []byte, fuel bool) api.Module {
	t.Helper()
	if fuel {
		var err error
		if module, _, err = rewrite.Instrument(module, fuelled); err != nil {
			t.Fatal(err)
		}
	}
	mod, err := s.rt.InstantiateWithConfig(t.Context(), module, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// Instructions of hand-made bodies.
var (
	end, drop, ret    = []byte{0x0b}, []byte{0x1a}, []byte{0x0f}
	block, loop       = []byte{0x02, 0x40}, []byte{0x03, 0x40}
	ifThen, otherwise = []byte{0x04, 0x40}, []byte{0x05}
	one               = wb.Const(1)
)

func br(label byte) []byte   { return []byte{0x0c, label} }
func brIf(label byte) []byte { return []byte{0x0d, label} }

// weight is n instructions of one unit, and drops.
func weight(n int) []byte { return bytes.Repeat(wb.Code(one, drop), n) }

// TestCost pins what guests are charged: a change breaks signed counts.
func TestCost(t *testing.T) {
	div := wb.Code(one, one, []byte{0x6d}, drop)
	load := wb.Code(one, []byte{0x28, 2, 0}, drop)
	fill := func(n int32) []byte { return wb.Code(wb.Const(0), wb.Const(0), wb.Const(n), []byte{0xfc, 11, 0}) }
	for _, test := range []struct {
		name string
		code []byte
		want int64
	}{
		{"nothing", nil, 0},
		{"short", weight(16), 0},
		{"not short", weight(17), 18},
		{"division", wb.Code(weight(10), div), 21},
		{"load", wb.Code(weight(15), load), 19},
		{"dearest arm", wb.Code(one, ifThen, weight(20), otherwise, weight(30), end), 1 + 1 + 30 + 1},
		{"if without else", wb.Code(one, ifThen, weight(20), end, weight(3)), 1 + 1 + 20 + 3 + 1},
		{"behind a return", wb.Code(weight(20), ret, weight(99)), 20 + 1 + 1},
		{"jump over", wb.Code(block, one, brIf(0), weight(50), br(0), weight(70), end, weight(2)), 1 + 1 + 50 + 1 + 2 + 1},
		{"br_table", wb.Code(block, block, one, []byte{0x0e, 1, 0, 1}, end, weight(40), br(0), end, weight(5)), 1 + 2 + 40 + 1 + 5 + 1},
		{"loop", wb.Code(wb.Const(10), []byte{0x21, 0}, loop, []byte{0x20, 0}, one, []byte{0x6b, 0x22, 0}, brIf(0), end), 1 + 2 + 10*(5+1)},
		{"leaving a loop", wb.Code(block, weight(4), loop, one, brIf(1), weight(50), br(0), end, weight(60), end, weight(7)), (4 + 7 + 1) + (1 + 1 + 50 + 1 + 1)}, // the 60 cannot be reached,
		{"fill", fill(800), 3 + 16 + 1 + 100},
		{"fill more", fill(3<<20 + 80), 3 + 16 + 1 + 3<<17 + 10},
		{"fill nothing", fill(0), 3 + 16 + 1},
		{"grow", wb.Code(one, []byte{0x40, 0}, drop), 1 + 256 + 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSandbox(t)
			mod := s.start(t, wb.Module{MinPages: 64, Locals: 1, Code: test.code}.Bytes(), true)
			if _, err := mod.ExportedFunction("_start").Call(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := s.fuel.used(); got != test.want {
				t.Errorf("used %d, want %d", got, test.want)
			}
		})
	}
}

// Fills and copies of all sizes do what they did, and trap where they did, changing nothing.
func TestBulkMemory(t *testing.T) {
	const pages = 80
	const size = pages << 16
	operation := func(op []byte) []byte {
		get := func(at int32) []byte { return wb.Code(wb.Const(at), []byte{0x28, 2, 0}) } // operands lie in memory
		return wb.Module{MinPages: pages, Code: wb.Code(get(0), get(4), get(8), op)}.Bytes()
	}
	sum := func(mod api.Module) uint64 {
		h := fnv.New64a()
		data, _ := mod.Memory().Read(0, size)
		h.Write(data)
		return h.Sum64()
	}
	const mib = 1 << 20
	cases := [][3]uint32{
		{100, 200, 0}, {100, 200, 50}, {100, 200, mib}, {200, 100, mib}, {100, 200, mib + 1}, {200, 100, mib + 1},
		{100, 101, 3*mib + 7}, {101, 100, 3*mib + 7}, {100, mib, 4 * mib}, {mib - 5, 100, 4 * mib},
		{size - 10, 0, 11}, {0, size - 10, 11}, {size, 0, 0}, {size + 1, 0, 0}, {0, 0, size}, {1, 0, size}, {0, 1, size},
		{0xffffffff, 0, 2 * mib}, {0, 0xffffffff, 2 * mib}, {100, 0, 0xffffffff}, {0xffff0000, 0, 0x20000},
	}
	for name, op := range map[string][]byte{"fill": {0xfc, 11, 0}, "copy": {0xfc, 10, 0, 0}} {
		s := newSandbox(t)
		module := operation(op)
		for _, c := range cases {
			run := func(fuel bool) (uint64, string) {
				mod := s.start(t, module, fuel)
				defer mod.Close(t.Context())
				data, _ := mod.Memory().Read(0, size)
				r := rand.NewChaCha8([32]byte{1})
				r.Read(data)
				for i, v := range c {
					binary.LittleEndian.PutUint32(data[4*i:], v)
				}
				_, err := mod.ExportedFunction("_start").Call(t.Context())
				return sum(mod), reason(err)
			}
			want, wantErr := run(false)
			if got, gotErr := run(true); got != want || gotErr != wantErr {
				t.Errorf("%s %d: %x %q, want %x %q", name, c, got, gotErr, want, wantErr)
			}
		}
	}
}

func section(id byte, body ...byte) []byte { return wb.Section(nil, id, body) }

func module(sections ...[]byte) []byte {
	return slices.Concat(append([][]byte{[]byte("\x00asm\x01\x00\x00\x00")}, sections...)...)
}

// withBody is a module of one function with the given locals and instructions.
func withBody(body ...byte) []byte {
	return module(section(1, 1, 0x60, 0, 0), section(3, 1, 0), section(5, 1, 0, 1), section(10, append([]byte{1}, wb.Section(nil, 0, body)[1:]...)...))
}

func TestRefuses(t *testing.T) {
	types := section(1, 1, 0x60, 0, 0)
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	for _, test := range []struct {
		name   string
		binary []byte
		code   grid.Code
		word   string
	}{
		{"nothing", nil, grid.Invalid, "byte 0"},
		{"no header", []byte("\x00asm\x02\x00\x00\x00"), grid.Invalid, "version 1"},
		{"section too long", module([]byte{1, 5, 0}), grid.Invalid, "5 bytes are announced, 1 are left"},
		{"section too short", module(section(1, 1, 0x60, 0, 0, 9)), grid.Invalid, "1 bytes are left over"},
		{"sections out of order", module(section(3, 0), section(1, 0)), grid.Invalid, "not in its place"},
		{"section twice", module(section(1, 0), section(1, 0)), grid.Invalid, "not in its place"},
		{"unknown section", module(section(13, 0)), grid.Unsupported, "unknown section"},
		{"number too long", module(section(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0)), grid.Invalid, "32 bits"},
		{"number too large", module(section(1, 0xff, 0xff, 0xff, 0xff, 0x1f)), grid.Invalid, "32 bits"},
		{"too many types", module(section(1, huge...)), grid.Limit, "4294967295 types"},
		{"types that are not there", module(section(1, 100, 0x60)), grid.Invalid, "too short"},
		{"imports that are not there", module(section(2, 0x80, 0x80, 1)), grid.Invalid, "too short"},
		{"too many exports", module(section(7, huge...)), grid.Limit, "exports"},
		{"too many elements", module(types, section(4, 1, 0x70, 0, 1), section(9, append([]byte{1, 0, 0x41, 0, 0x0b}, huge...)...)), grid.Limit, "elements"},
		{"data longer than the module", module(section(5, 1, 0, 1), section(11, append([]byte{1, 1}, huge...)...)), grid.Invalid, "4294967295 bytes"},
		{"name not UTF-8", module(types, section(2, 1, 1, 0xff, 0, 0, 0)), grid.Invalid, "UTF-8"},
		{"functions without code", module(types, section(3, 1, 0)), grid.Invalid, "1 functions are announced, 0"},
		{"code without functions", module(section(10, 1, 2, 0, 0x0b)), grid.Invalid, "0 functions are announced, 1"},
		{"data count", module(section(5, 1, 0, 1), section(12, 2), section(11, 0)), grid.Invalid, "2 data segments are announced"},
		{"start", module(section(8, 0)), grid.Invalid, "function 0, but there are 0"},
		{"export", module(section(7, 1, 1, 'x', 0, 7)), grid.Invalid, "export 7"},
		{"reserved export", module(section(6, 1, 0x7f, 0, 0x41, 0, 0x0b), section(7, append(append([]byte{1, 9}, rewrite.ExportFuel...), 3, 0)...)), grid.Invalid, "reserved"},
		{"reserved import", module(types, section(2, append(append([]byte{1, 9}, rewrite.ImportModule...), 1, 'x', 0, 0)...)), grid.Invalid, "reserved"},
		{"extended constant", module(section(6, 1, 0x7f, 0, 0x41, 0, 0x41, 0, 0x6a, 0x0b)), grid.Unsupported, "extended constant"},
		{"memory64", module(section(5, 1, 4, 1)), grid.Unsupported, "64-bit"},
		{"two memories", module(section(5, 2, 0, 1, 0, 1)), grid.Limit, "2 memories"},
		{"locals", withBody(append(append([]byte{1}, huge...), 0x7f, 0x0b)...), grid.Limit, "locals in one function"},
		{"code after the end", withBody(0, 0x0b, 0x01, 0x0b), grid.Invalid, "2 bytes are left over"},
		{"no end", withBody(0, 0x01), grid.Invalid, "ends early"},
		{"label", withBody(0, 0x0c, 1, 0x0b), grid.Invalid, "label 1, but there are 1"},
		{"labels", withBody(0, 0x41, 0, 0x0e, 0xff, 0xff, 0x01, 0x0b), grid.Invalid, "labels are announced"},
		{"too many labels", withBody(0, 0x41, 0, 0x0e, 0xff, 0xff, 0x7f, 0x0b), grid.Limit, "labels"},
		{"else without if", withBody(0, 0x05, 0x0b), grid.Invalid, "else"},
		{"call of what is added", withBody(0, 0x10, 1, 0x0b), grid.Invalid, "function 1, but there are 1"},
		{"global that is added", withBody(0, 0x42, 0, 0x24, 0, 0x0b), grid.Invalid, "global 0, but there are 0"},
		{"local that is added", withBody(0, 0x20, 0, 0x1a, 0x0b), grid.Invalid, "local 0, but there are 0"},
		{"type that is added", withBody(0, 0x02, 1, 0x0b, 0x0b), grid.Invalid, "block of type 1"},
		{"unknown instruction", withBody(0, 0x27, 0x0b), grid.Invalid, "0x27"},
		{"tail call", withBody(0, 0x12, 0, 0x0b), grid.Unsupported, "tail call"},
		{"exceptions", withBody(0, 0x08, 0, 0x0b), grid.Unsupported, "exception"},
		{"threads", withBody(0, 0xfe, 0, 0, 0, 0x0b), grid.Unsupported, "threads"},
		{"relaxed vectors", withBody(0, 0xfd, 0x80, 0x02, 0x0b), grid.Unsupported, "relaxed"},
		{"vector encoded at length", withBody(0, 0xfd, 0x8c, 0x00, 0x0b), grid.Unsupported, "encoded"},
		{"nested", withBody(append([]byte{0}, bytes.Repeat([]byte{0x02, 0x40}, 1<<17)...)...), grid.Limit, "nested blocks"},
		{"long function", withBody(append([]byte{0}, bytes.Repeat([]byte{0x01}, 5<<20)...)...), grid.Limit, "bytes in one function"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := rewrite.Instrument(test.binary, fuelled)
			if grid.CodeOf(err) != test.code || !strings.Contains(fmt.Sprint(err), test.word) || !strings.HasPrefix(fmt.Sprint(err), "byte ") {
				t.Errorf("%v (%v), want %v with %q and a position", err, grid.CodeOf(err), test.code, test.word)
			}
			if grid.AdviceOf(err) == "" {
				t.Error("no advice")
			}
		})
	}
}

// sample has something of every section and kind of element segment.
func sample() []byte {
	names := []byte("\x04name\x01\x13\x03\x00\x04host\x01\x04trap\x02\x03get")
	names[6] = byte(len(names) - 7)
	return module(
		section(1, 2, 0x60, 0, 0, 0x60, 0, 1, 0x7f),
		section(2, append([]byte{1, 3, 'e', 'n', 'v', 4}, 'h', 'o', 's', 't', 0, 0)...),
		section(3, 3, 0, 1, 0),
		section(4, 2, 0x70, 0, 10, 0x6f, 0, 1),
		section(5, 1, 0, 1),
		section(6, 2, 0x70, 0, 0xd2, 1, 0x0b, 0x7f, 1, 0x41, 5, 0x0b),
		section(7, 3, 4, 't', 'r', 'a', 'p', 0, 1, 3, 'g', 'e', 't', 0, 2, 1, 'm', 2, 0),
		section(8, 3),
		section(9, 8,
			0, 0x41, 0, 0x0b, 2, 1, 2, // active
			1, 0, 1, 2, // passive
			2, 0, 0x41, 2, 0x0b, 0, 1, 0, // active, by table
			3, 0, 1, 1, // declarative
			4, 0x41, 3, 0x0b, 2, 0xd2, 2, 0x0b, 0xd0, 0x70, 0x0b, // expressions
			5, 0x70, 1, 0xd2, 3, 0x0b,
			6, 0, 0x41, 6, 0x0b, 0x70, 1, 0xd2, 1, 0x0b,
			7, 0x70, 1, 0xd2, 2, 0x0b,
		),
		section(12, 2),
		section(10, 3,
			5, 0, 0x10, 0, 0x00, 0x0b, // trap calls host, and traps
			15, 0, 0x41, 3, 0x11, 1, 0, 0xd2, 1, 0x1a, 0x23, 1, 0x6a, 0x0f, 0x00, 0x0b, // get calls what the table has at 3, itself
			2, 0, 0x0b, // start does nothing
		),
		section(11, 2, 0, 0x41, 0, 0x0b, 2, 'h', 'i', 1, 1, 'x'),
		section(0, names...),
		section(0, append([]byte("\x06unused"), "whatever"...)...),
	)
}

// Functions move behind the import that is added; everything that names them follows, and traps still
// show their names.
func TestFunctionsMove(t *testing.T) {
	plain := sample()
	s := newSandbox(t)
	calls := 0
	_, err := s.rt.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() { calls++ }).Export("host").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, fuel := range []bool{false, true} {
		mod := s.start(t, plain, fuel)
		_, err := mod.ExportedFunction("trap").Call(t.Context())
		if err == nil || !strings.Contains(err.Error(), "unreachable") || !strings.Contains(err.Error(), ".trap()") {
			t.Errorf("instrumented %v: %v", fuel, err)
		}
		_, err = mod.ExportedFunction("get").Call(t.Context())
		if want := map[bool]string{false: "stack overflow", true: "unreachable"}[fuel]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("instrumented %v: get: %v", fuel, err)
		}
	}
	if s.fuel.full != 1 {
		t.Errorf("the stack was full %d times, want once", s.fuel.full)
	}
	if calls != 2 {
		t.Errorf("%d calls of the host, want 2", calls)
	}
	again, info, err := rewrite.Instrument(plain, rewrite.Options{})
	if err != nil || info.Functions != 3 || info.Points != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	if twice, _, err := rewrite.Instrument(again, rewrite.Options{}); err != nil || !bytes.Equal(twice, again) {
		t.Errorf("encoded anew, it differs: %v", err)
	}
	if want := plain[:bytes.Index(plain, []byte("\x06unused"))-2]; !bytes.Equal(again, want) {
		t.Errorf("encoded without fuel:\n%x, want\n%x", again, want)
	}
}

// Whatever is cut off or flipped, there is an answer, and what is accepted can be compiled if it could.
func TestDamaged(t *testing.T) {
	s := newSandbox(t)
	for _, binary := range [][]byte{sample(), wb.Random(5), wb.GrowTable()} {
		for i := range binary {
			check(t, s, binary[:i])
			for bit := range 8 {
				damaged := bytes.Clone(binary)
				damaged[i] ^= 1 << bit
				check(t, s, damaged)
			}
		}
	}
}

// check instruments a module that may be damaged. What it becomes compiles exactly when it would have
// compiled without.
func check(t testing.TB, s *sandbox, binary []byte) {
	t.Helper()
	before := bytes.Clone(binary)
	fuel, _, err := rewrite.Instrument(binary, fuelled)
	plain, _, plainErr := rewrite.Instrument(binary, rewrite.Options{})
	if !bytes.Equal(before, binary) {
		t.Fatalf("%x was changed", before)
	}
	if err != nil {
		if c := grid.CodeOf(err); c != grid.Invalid && c != grid.Unsupported && c != grid.Limit {
			t.Fatalf("%x: code %v: %v", binary, c, err)
		}
		return
	}
	if plainErr != nil {
		t.Fatalf("%x: only without fuel: %v", binary, plainErr)
	}
	compile := func(binary []byte) error {
		code, err := s.rt.CompileModule(context.Background(), binary)
		if err == nil {
			code.Close(context.Background())
		}
		return err
	}
	plainErr, err = compile(plain), compile(fuel)
	if (plainErr == nil) != (err == nil) {
		t.Fatalf("%x: plain: %v; with fuel: %v", binary, plainErr, err)
	}
}

func FuzzInstrument(f *testing.F) {
	for _, b := range [][]byte{sample(), wb.Noop(), wb.Exit(1), wb.GrowTable(), wb.Random(4), wb.Loop(), wb.Grow(), withBody(0, 0x0b)} {
		f.Add(b)
	}
	s := newSandbox(f)
	f.Fuzz(func(t *testing.T, b []byte) { check(t, s, b) })
}
