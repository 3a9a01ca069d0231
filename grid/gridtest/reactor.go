package gridtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// Library is a reactor. When it is initialised it sets a global to 5 and a byte of memory to 7, and looks at the
// clock. Its function count adds one to both, writes them to stdout, and behind them whether the clock has gone on
// since; exit gives 3, and trap traps.
func Library() []byte {
	write := code(i32(1), i32(0), i32(1), i32(8), call(0), drop)
	look := func(at int32) []byte { return code(i32(1), wasmbytes.Const64(0), i32(at), call(1), drop) }
	byteAt := func(at int32, value ...[]byte) []byte { return code(i32(at), code(value...), op(0x3a, 0, 0)) } // i32.store8
	load := func(at int32) []byte { return code(i32(at), op(0x2d, 0, 0)) }                                    // i32.load8_u
	global := code(op(0x23, 0), op(0xa7))                                                                     // global.get, i32.wrap_i64
	later := code(i32(80), op(0x29, 3, 0), i32(72), op(0x29, 3, 0), op(0x55))                                 // i64.gt_s
	return wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("fd_write"), wasmbytes.System("clock_time_get")},
		Globals: 1, MinPages: 1, Data: []byte{64, 0, 0, 0, 3, 0, 0, 0}, // one buffer of three bytes
		Funcs: []wasmbytes.Func{
			{Code: code(wasmbytes.Const64(5), op(0x24, 0), byteAt(100, i32(7)), look(72))},
			{Code: code(op(0x23, 0), wasmbytes.Const64(1), op(0x7c), op(0x24, 0), byteAt(100, load(100), i32(1), op(0x6a)), look(80),
				byteAt(64, global), byteAt(65, load(100)), byteAt(66, later), write)},
			{Results: []byte{wasmbytes.I32}, Code: i32(3)},
			{Code: []byte{0x00}},
			{Params: []byte{wasmbytes.I32}},
		},
		Exports: []wasmbytes.Export{{Name: "_initialize", Func: 2}, {Name: "count", Func: 3}, {Name: "exit", Func: 4}, {Name: "trap", Func: 5}, {Name: "add", Func: 6}},
	}.Bytes()
}

func testReactor(t *testing.T, e *engineTest) {
	c := e.add(Library())
	m, err := e.Inspect(t.Context(), c, true)
	if err != nil || m.Kind != grid.Reactor || strings.Join(m.Functions, " ") != "count exit trap" || m.Way == "" || m.Why == "" {
		t.Fatalf("%+v, %v", m, err)
	}
	var fuel uint64
	for i := range 5 {
		r := e.run(t, grid.Guest{Module: c, Func: "count"})
		r.want(t, 0, "\x06\x08\x01")
		if i > 0 && r.Fuel != fuel {
			t.Errorf("fuel %d, before %d", r.Fuel, fuel)
		}
		fuel = r.Fuel
	}
	e.run(t, grid.Guest{Module: c, Func: "exit"}).want(t, 3, "")
	e.run(t, grid.Guest{Module: c, Func: "trap"}).wantFault(t, grid.Trap, "unreachable")
	e.run(t, grid.Guest{Module: c, Func: "count"}).want(t, 0, "\x06\x08\x01")
	for _, name := range []string{"", "add", "_initialize", "missing"} {
		if _, err := e.Run(t.Context(), &grid.Guest{Module: c, Func: name}); !errors.Is(err, grid.Invalid) || !strings.Contains(grid.AdviceOf(err), "count, exit, trap") {
			t.Errorf("function %q: %v, advice %q", name, err, grid.AdviceOf(err))
		}
	}
	reactor := func(begin ...byte) []byte {
		return wasmbytes.Program{MinPages: 1, Funcs: []wasmbytes.Func{{Code: begin}, {}}, Exports: []wasmbytes.Export{{Name: "_initialize"}, {Name: "f", Func: 1}}}.Bytes()
	}
	e.run(t, grid.Guest{Module: e.add(reactor()), Func: "f"}).want(t, 0, "")
	broken := e.add(reactor(0x00))
	if _, err := e.Inspect(t.Context(), broken, true); !errors.Is(err, grid.Invalid) || !strings.Contains(err.Error(), "_initialize failed: unreachable") {
		t.Errorf("a reactor that cannot be initialised: %v", err)
	}
}
