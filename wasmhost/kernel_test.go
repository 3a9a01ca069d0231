package wasmhost_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// pluginCalls are of wasmbytes.Plugin.
var pluginCalls = []pluginCall{
	{Func: "echo", Input: "some input, of more than eight bytes", stdout: "some input, of more than eight bytes"},
	{Func: "echo", Input: "short", stdout: "short"},
	{Func: "echo"},
	{Func: "config", Config: map[string]string{"key": "value"}, stdout: "value"},
	{Func: "config", Config: map[string]string{"keys": "value"}},
	{Func: "fail", Input: "on purpose", exit: 3, stderr: "on purpose\n"},
	{Func: "log", Input: "two words", stderr: "level=WARN msg=\"two words\"\n"},
	{Func: "rest", Input: "not looked at"},
}

// A plug-in gives the same however its instances are made, and costs the same.
func TestPlugin(t *testing.T) {
	var l loader
	id := l.add(wasmbytes.Plugin())
	told := map[string]string{}
	for way, open := range map[string]func(wasmhost.Config) (*wasmhost.Host, error){
		"compiled": wasmhost.OpenCompiled, "fresh": wasmhost.OpenFresh, "interpreted": wasmhost.OpenInterpreter,
	} {
		h := closing(t)(open(wasmhost.Config{Load: l.load}))
		for i := range 3 * len(pluginCalls) {
			c := &pluginCalls[i%len(pluginCalls)]
			g := c.guest()
			g.Module = id
			c.check(t, h, g)
			g.Stdin = strings.NewReader(c.Input)
			got, err := account(t.Context(), h, *g)
			if err != nil {
				t.Fatal(err)
			}
			key := fmt.Sprint(c.Func, c.Config, c.Input)
			if before, ok := told[key]; ok && got != before {
				t.Errorf("%s, %s:\n%s\nelsewhere\n%s", way, key, got, before)
			}
			told[key] = got
		}
	}
}

// The kernel keeps to the limits of its guest.
func TestPluginLimits(t *testing.T) {
	f := &fixed{binary: wasmbytes.Plugin()}
	h := open(t, wasmhost.Config{Load: f.load})
	large := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for _, test := range []struct {
		name, function, input string
		limits                grid.Limits
		exit                  uint32
		fault                 string
		stdout                int
	}{
		{"enough", "echo", large, grid.Limits{Memory: 3 << 20}, 0, "", len(large)},
		{"no memory for the input", "echo", large, grid.Limits{Memory: 1 << 20}, 0, "limit exceeded: asked for", 0},
		{"no memory for a block", "echo", large, grid.Limits{Memory: 2 << 20}, 0, "limit exceeded: asked for", 0},
		{"fuel", "echo", large, grid.Limits{Fuel: 1_000_000}, 0, "limit exceeded: used 1000000 of 1000000 fuel", 0},
		{"fuel for the input", "echo", large, grid.Limits{Fuel: 100_000}, 0, "limit exceeded: used 100000 of 100000 fuel", 0},
		{"calls", "echo", large, grid.Limits{Calls: 1000}, 0, "limit exceeded: made 1000 of 1000 system calls", 0},
		{"output", "echo", large, grid.Limits{Output: 1000}, 0, "limit exceeded: wrote more than 1000 bytes to stdout", 1000},
		{"error", "fail", large, grid.Limits{Output: 1000}, 3, "limit exceeded: wrote more than 1000 bytes to stderr", 0},
		{"log", "log", large, grid.Limits{Output: 1000}, 0, "limit exceeded: wrote more than 1000 bytes to stderr", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout strings.Builder
			out, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Func: test.function, Stdin: strings.NewReader(test.input), Stdout: &stdout, Limits: test.limits})
			fault := ""
			if out.Fault != nil {
				fault = fmt.Sprintf("%v: %s", out.Fault.Code, out.Fault.Message)
			}
			if err != nil || out.Exit != test.exit || !strings.HasPrefix(fault, test.fault) || (fault == "") != (test.fault == "") || stdout.Len() != test.stdout {
				t.Errorf("%+v, %q, %v, with %d bytes of output", out, fault, err, stdout.Len())
			}
			if most := test.limits.Memory; most > 0 && out.Memory > most {
				t.Errorf("it had %d bytes of memory", out.Memory)
			}
		})
	}
	t.Run("no output", func(t *testing.T) {
		failed := errors.New("the disk is full")
		_, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Func: "echo", Stdin: strings.NewReader("x"), Stdout: failing{failed}})
		if !errors.Is(err, failed) {
			t.Error(err)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// kernel is a plug-in of these functions, which see each other's numbers and those of alloc, var_set, var_get, store_u8,
// output_set and length, in this order from 0 on. It has a custom section of so many bytes; begin makes the last function
// its start function, too.
func kernel(begin bool, custom int, functions map[string][]byte) []byte {
	p := wasmbytes.Program{
		Imports: []wasmbytes.Import{
			wasmbytes.Extism("alloc", "I", "I"), wasmbytes.Extism("var_set", "II", ""), wasmbytes.Extism("var_get", "I", "I"),
			wasmbytes.Extism("store_u8", "Ii", ""), wasmbytes.Extism("output_set", "II", ""), wasmbytes.Extism("length", "I", "I"),
		},
		Globals: 1, MinPages: 1, Begin: begin, Custom: make([]byte, custom),
	}
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		p.Exports = append(p.Exports, wasmbytes.Export{Name: name, Func: uint32(len(p.Imports) + len(p.Funcs))})
		p.Funcs = append(p.Funcs, wasmbytes.Func{Code: functions[name], Locals: 1})
	}
	return p.Bytes()
}

// A plug-in that asks for something while it is initialised is initialised by each guest, which finds it there.
func TestPluginInitialises(t *testing.T) {
	code, op, c64, call := wasmbytes.Code, wasmbytes.Op, wasmbytes.Const64, wasmbytes.Call
	get, set := func() []byte { return op(0x23, 0) }, func() []byte { return op(0x24, 0) }
	one := func() []byte { return code(c64(1), call(0), set(), get(), wasmbytes.Const('x'), call(3)) } // a block with an x
	keep := code(one(), get(), get(), call(1))                                                         // and a variable of that name and value
	show := code(get(), call(2), op(0x22, 0), op(0x20, 0), call(5), call(4))                           // the variable is the output
	init := map[string][]byte{"_initialize": keep, "show": show}
	for _, test := range []struct {
		name      string
		functions map[string][]byte
		way       string
		output    string
		custom    int // bytes, for a large one is tried by the interpreter
	}{
		{"_initialize", init, wasmhost.Fresh, "x", 1},
		{"large", init, wasmhost.Fresh, "x", 600 << 10},
		{"constructors", map[string][]byte{"__wasm_call_ctors": keep, "show": show}, wasmhost.Fresh, "x", 1},
		{"both", map[string][]byte{"__wasm_call_ctors": {0x00}, "_initialize": keep, "show": show}, wasmhost.Fresh, "x", 1},
		{"neither", map[string][]byte{"show": code(keep, show)}, "", "x", 1},
		{"nothing asked", map[string][]byte{"_initialize": code(c64(1), set()), "show": code(keep, show)}, "", "x", 1},
		{"with a main", map[string][]byte{"_start": {0x00}, "show": code(keep, show)}, "", "x", 1},
		{"start function", map[string][]byte{"show": show, "z": keep}, wasmhost.Fresh, "x", 1},
		{"main alone", map[string][]byte{"_start": code(keep, show)}, "", "x", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixed{binary: kernel(test.name == "start function", test.custom, test.functions)}
			told := ""
			for _, open := range []func(wasmhost.Config) (*wasmhost.Host, error){wasmhost.Open, wasmhost.OpenFresh, wasmhost.OpenInterpreter} {
				h := closing(t)(open(wasmhost.Config{Load: f.load}))
				m, err := h.Inspect(t.Context(), f.cid(), true)
				if err != nil || !m.Extism || test.way != "" && m.Way != test.way {
					t.Fatalf("%+v, %v", m, err)
				}
				for range 3 {
					var stdout strings.Builder
					g := grid.Guest{Module: f.cid(), Func: "show", Stdout: &stdout}
					out, err := h.Run(t.Context(), &g)
					if err != nil || out.Fault != nil || out.Exit != 0 || stdout.String() != test.output {
						t.Errorf("%+v, %+v, %v, output %q", out, out.Fault, err, stdout.String())
					}
					got := fmt.Sprint(out.Fuel, out.Memory, out.Calls)
					if told != "" && told != got {
						t.Errorf("it took %s, elsewhere %s", got, told)
					}
					told = got
				}
			}
		})
	}
	f := &fixed{binary: kernel(false, 1, map[string][]byte{"show": show, "_initialize": {0x00}})}
	h := open(t, wasmhost.Config{Load: f.load})
	if err := h.Prepare(t.Context(), f.cid()); grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "_initialize failed: unreachable") {
		t.Error("a plug-in that fails to initialise:", err)
	}
}

// What a hostile plug-in asks for is refused with a sentence, and stops nothing else.
func TestHostilePlugin(t *testing.T) {
	code, op, c64, call := wasmbytes.Code, wasmbytes.Op, wasmbytes.Const64, wasmbytes.Call
	drop := wasmbytes.Drop()
	f := &fixed{binary: kernel(false, 1, map[string][]byte{
		"a_output":  code(c64(1), c64(1), call(4)),
		"b_huge":    code(c64(-1<<63), call(0), drop),
		"c_handle":  code(c64(99), call(2), drop),
		"d_blocks":  wasmbytes.Forever(c64(1), call(0), drop),
		"e_grow":    wasmbytes.Forever(c64(1<<20), call(0), drop, wasmbytes.Const(1), op(0x40, 0), drop),
		"f_length":  code(c64(8), call(0), op(0x22, 0), c64(-1), call(4)),
		"g_outside": code(c64(-1), wasmbytes.Const(1), call(3), c64(1<<40), wasmbytes.Const(1), call(3)),
	})}
	h := open(t, wasmhost.Config{Load: f.load})
	for function, want := range map[string]string{
		"a_output":  "trap: output_set: 1 bytes at 1 are not within the memory that was allocated",
		"b_huge":    "",
		"c_handle":  "trap: var_get: there is no block of memory at 99, where the name is to be",
		"d_blocks":  "limit exceeded: used 50000000 of 50000000 fuel, its limit",
		"e_grow":    "limit exceeded: used 50000000 of 50000000 fuel, its limit",
		"f_length":  "trap: output_set: 18446744073709551615 bytes at 64 are not within",
		"g_outside": "",
	} {
		for range 2 {
			out, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Func: function, Limits: grid.Limits{Fuel: 50_000_000, Memory: 8 << 20}})
			fault := ""
			if out.Fault != nil {
				fault = fmt.Sprintf("%v: %s", out.Fault.Code, out.Fault.Message)
			}
			if err != nil || !strings.HasPrefix(fault, want) || (fault == "") != (want == "") || out.Memory > 8<<20 {
				t.Errorf("%s: %+v, %q, %v", function, out, fault, err)
			}
			if strings.HasPrefix(want, "trap") && !strings.Contains(out.Fault.Stack, "extism:host/env") {
				t.Errorf("%s: its stack is %q", function, out.Fault.Stack)
			}
		}
	}
}
