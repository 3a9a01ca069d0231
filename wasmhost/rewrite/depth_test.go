package rewrite_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
	wb "github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

func depthOf(mod api.Module) int64 { return int64(mod.ExportedGlobal(rewrite.ExportDepth).Get()) }

// However a function is left, it gives back what it took.
func TestDepthIsGivenBack(t *testing.T) {
	leaf := wb.Func{}
	number := []byte{wb.I32}
	for name, f := range map[string]wb.Func{
		"end":             {Code: wb.Call(0)},
		"return":          {Code: wb.Code(wb.Call(0), ret, weight(3))},
		"nested return":   {Code: wb.Code(wb.Call(0), block, one, ifThen, loop, ret, end, end, end)},
		"branch":          {Code: wb.Code(wb.Call(0), br(0))},
		"nested branch":   {Code: wb.Code(block, loop, wb.Call(0), br(2), end, end)},
		"conditional":     {Code: wb.Code(block, wb.Call(0), one, brIf(1), end)},
		"table":           {Code: wb.Code(block, wb.Call(0), one, []byte{0x0e, 1, 0, 1}, end)},
		"default":         {Code: wb.Code(block, wb.Call(0), wb.Const(9), []byte{0x0e, 1, 0, 1}, end)},
		"returned number": {Results: number, Code: wb.Code(wb.Call(0), wb.Const(7), ret)},
		"branched number": {Results: number, Code: wb.Code(wb.Call(0), block, wb.Const(7), br(1), end, wb.Const(8))},
		"numbers":         {Results: []byte{wb.I32, wb.I64, wb.I32}, Code: wb.Code(wb.Call(0), one, ifThen, wb.Const(7), wb.Const64(8), wb.Const(9), ret, end, wb.Const(1), wb.Const64(2), wb.Const(3))},
		"calls itself":    {Params: number, Code: wb.Code(wb.Op(0x20, 0), ifThen, wb.Op(0x20, 0), one, []byte{0x6b}, wb.Call(1), end)},
		"many locals":     {Locals: 1000, Code: wb.Call(0)},
	} {
		t.Run(name, func(t *testing.T) {
			call := wb.Code(bytes.Repeat(wb.Const(100), len(f.Params)), wb.Call(1), bytes.Repeat(drop, len(f.Results)))
			s := newSandbox(t)
			mod := s.start(t, wb.Program{MinPages: 1, Funcs: []wb.Func{leaf, f, {Code: call}}}.Bytes(), true)
			for range 3 {
				if _, err := mod.ExportedFunction("_start").Call(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if left := depthOf(mod); left != rewrite.MaxDepth {
				t.Errorf("%d left of %d", left, rewrite.MaxDepth)
			}
		})
	}
}

// nestedCalls is a module whose function calls itself so often; the calls under way are one more, and
// those of _start.
func nestedCalls(n int32, f wb.Func) []byte {
	f.Params = []byte{wb.I32}
	f.Code = wb.Code(f.Code, wb.Op(0x20, 0), ifThen, wb.Op(0x20, 0), one, []byte{0x6b}, wb.Call(0), end)
	return wb.Program{MinPages: 4, Funcs: []wb.Func{f, {Code: wb.Code(wb.Const(n), wb.Call(0))}}}.Bytes()
}

// The limit is exact, and the engine's own, which differs between machines, is not met before it.
func TestDepthLimit(t *testing.T) {
	s := newSandbox(t)
	run := func(n int32, f wb.Func) (full int, err error) {
		before := s.fuel.full
		mod := s.start(t, nestedCalls(n, f), true)
		defer mod.Close(t.Context())
		_, err = mod.ExportedFunction("_start").Call(t.Context())
		return s.fuel.full - before, err
	}
	const most = rewrite.MaxDepth - 2
	if full, err := run(most, wb.Func{}); full != 0 || err != nil {
		t.Errorf("%d nested calls: full %d times, %v", most, full, err)
	}
	if full, err := run(most+1, wb.Func{}); full != 1 || reason(err) != "wasm error: unreachable" {
		t.Errorf("%d nested calls: full %d times, %v", most+1, full, err)
	}
	for _, values := range []int{10, 30, 60, 100, 1000, 20_000} {
		// As many values are on the operand stack while it calls itself.
		var onStack wb.Func
		for i := range values {
			onStack.Code = append(onStack.Code, wb.Code(wb.Const(int32(8*i)), []byte{0x28, 2, 0})...)
		}
		onStack.Code = wb.Code(onStack.Code, wb.Op(0x20, 0), wb.Call(0), bytes.Repeat(drop, values))
		// Or numbers whose NaNs are made canonical.
		var numbers wb.Func
		for i := range values {
			numbers.Code = append(numbers.Code, wb.Code(wb.Const(int32(8*i)), []byte{0x2b, 3, 0, 0x9f, 0x9a})...) // load, sqrt, neg
		}
		numbers.Code = wb.Code(numbers.Code, wb.Op(0x20, 0), wb.Call(0), bytes.Repeat(drop, values))
		// Or in locals.
		inLocals := wb.Func{Locals: uint32(min(values, 1000))}
		for i := range inLocals.Locals {
			inLocals.Code = append(inLocals.Code, wb.Code(wb.Const(int32(8*i)), []byte{0x29, 3, 0}, wb.Op(0x21, 1+i))...)
		}
		inLocals.Code = wb.Code(inLocals.Code, wb.Op(0x20, 0), wb.Call(0))
		for i := range inLocals.Locals {
			inLocals.Code = append(inLocals.Code, wb.Code(wb.Const(0), wb.Op(0x20, 1+i), []byte{0x37, 3, 0})...)
		}
		for name, f := range map[string]wb.Func{"on the stack": onStack, "of arithmetic": numbers, "in locals": inLocals} {
			if full, err := run(1<<30, f); full != 1 || err == nil {
				t.Errorf("%d values %s: full %d times, %v", values, name, full, err)
			}
		}
	}
}

// Functions that are too much for compilers are refused, with what they have and may have.
func TestRefusesWhatTakesLong(t *testing.T) {
	repeat := bytes.Repeat
	locals := func(n int) (b []byte) {
		for i := range n {
			b = append(b, wb.Code(wb.Op(0x20, uint32(i)), drop)...)
		}
		return b
	}
	ifs := func(n int) []byte { return repeat(wb.Code(one, ifThen, end), n) }
	labels := func(n int) []byte { return wb.Code(one, wb.Op(0x0e, uint32(n)), make([]byte, n+1)) }
	for _, test := range []struct {
		name    string
		f       wb.Func
		refused string // what there is too much of, if anything
	}{
		{"blocks", wb.Func{Code: wb.Code(repeat(block, 4096), repeat(end, 4096))}, ""},
		{"more blocks", wb.Func{Code: wb.Code(repeat(block, 4097), repeat(end, 4097))}, "4097 nested blocks"},
		{"ifs", wb.Func{Code: ifs(8192)}, ""},
		{"more ifs", wb.Func{Code: ifs(8193)}, "16386 branches"},
		{"loops", wb.Func{Code: repeat(wb.Code(loop, end), 2730)}, ""},
		{"more loops", wb.Func{Code: repeat(wb.Code(loop, end), 2731)}, "16386 branches"},
		{"labels", wb.Func{Code: repeat(wb.Code(block, labels(1023), end), 32)}, ""},
		{"more labels", wb.Func{Code: repeat(wb.Code(block, labels(1024), end), 32)}, "labels of br_table"},
		{"locals", wb.Func{Locals: 2000, Code: wb.Code(ifs(10), locals(2000))}, ""},
		{"more locals", wb.Func{Locals: 2001, Code: wb.Code(ifs(10), locals(2001))}, "2001 locals used across branches"},
		{"locals without branches", wb.Func{Locals: 50_000, Code: wb.Code(locals(50_000), ifs(1000))}, ""},
		{"locals and ifs", wb.Func{Locals: 1000, Code: wb.Code(ifs(2000), locals(1000))}, "branches times locals"},
		{"code", wb.Func{Code: repeat([]byte{0x01}, 1<<20+1)}, "bytes in one function"},
	} {
		_, _, err := rewrite.Instrument(wb.Program{MinPages: 1, Funcs: []wb.Func{test.f}}.Bytes(), fuelled)
		if test.refused == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if grid.CodeOf(err) != grid.Limit || !strings.Contains(fmt.Sprint(err), test.refused) || grid.AdviceOf(err) == "" {
			t.Errorf("%s: %v, want a limit with %q", test.name, err, test.refused)
		}
	}
}
