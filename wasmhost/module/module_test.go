package module_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// provided is one function of preview 1.
func provided(mod, name string) (params, results []byte, ok bool) {
	switch {
	case mod != module.Preview1:
	case name == "proc_exit":
		return []byte{wasmbytes.I32}, nil, true
	case name == "sock_accept":
		return []byte{wasmbytes.I32, wasmbytes.I32, wasmbytes.I32}, []byte{wasmbytes.I32}, true
	}
	return nil, nil, false
}

var header = []byte("\x00asm\x01\x00\x00\x00")

func section(id byte, body ...byte) []byte { return wasmbytes.Section(bytes.Clone(header), id, body) }

func imports(list ...wasmbytes.Import) []byte {
	return wasmbytes.Module{MinPages: 1, Imports: list}.Bytes()
}

func TestCheckRefuses(t *testing.T) {
	i32 := []byte{wasmbytes.I32}
	many := make([]wasmbytes.Import, 5)
	for i := range many {
		many[i] = wasmbytes.Import{Module: "env", Name: string(rune('a' + i))}
	}
	for _, test := range []struct {
		name         string
		binary       []byte
		code         grid.Code
		message, tip string
	}{
		{"empty", nil, grid.Invalid, "empty file", "GOOS=wasip1"},
		{"one byte", []byte{0}, grid.Invalid, "truncated", "rebuild"},
		{"header only, short", header[:6], grid.Invalid, "truncated", "rebuild"},
		{"ELF", []byte("\x7fELF\x02\x01\x01"), grid.Invalid, "ELF", "GOOS=wasip1"},
		{"Windows", []byte("MZ\x90\x00\x03\x00\x00\x00"), grid.Invalid, "native program", "GOOS=wasip1"},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"), grid.Invalid, "compressed", "unpack"},
		{"script", []byte("#!/bin/sh\n"), grid.Invalid, "script", "interpreter"},
		{"source", []byte("package main\n\nfunc main() {}\n// \u20ac"), grid.Invalid, "a text, such as the source", "go build"},
		{"text", []byte("\n  (module)"), grid.Invalid, "text form", "wat2wasm"},
		{"other", []byte("hello\x00world"), grid.Invalid, "68 65 6c 6c 6f", "GOOS=wasip1"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), grid.Unsupported, "component", "wasm32-wasip1"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), grid.Unsupported, "version 2", ""},
		{"too large", append(bytes.Clone(header), make([]byte, module.MaxSize)...), grid.Limit, "67108872 bytes", "strip"},
		{"section cut off", section(1, 1, 0x60, 0, 0)[:10], grid.Invalid, "truncated", "rebuild"},
		{"section too long", append(bytes.Clone(header), 1, 0xff, 0xff, 0xff, 0xff, 0x0f), grid.Invalid, "truncated", ""},
		{"bad LEB128", append(bytes.Clone(header), 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), grid.Invalid, "truncated", ""},
		{"unknown section", section(14), grid.Invalid, "unknown section 14", ""},
		{"types missing", section(1, 0xff, 0xff, 0x03), grid.Invalid, "section 1", ""},
		{"GC types", section(1, 1, 0x5f, 0), grid.Unsupported, "garbage", ""},
		{"exceptions", section(13, 1, 0, 0), grid.Unsupported, "exception", ""},
		{"imported memory", section(2, 1, 3, 'e', 'n', 'v', 1, 'm', 2, 0, 1), grid.Unsupported, `memory "m" of "env"`, ""},
		{"memory64", section(5, 1, 4, 1), grid.Unsupported, "memory64", ""},
		{"shared memory", section(5, 1, 3, 1, 1), grid.Unsupported, "threads", ""},
		{"two memories", section(5, 2, 0, 1, 0, 1), grid.Unsupported, "several memories", ""},
		{"huge table", section(4, 1, 0x70, 0, 0xff, 0xff, 0xff, 0x7f), grid.Limit, "table", ""},
		{"many tables", section(4, 0x7f), grid.Limit, "127 tables", ""},
		{"unknown import", imports(wasmbytes.Import{Module: "mod", Name: "fn"}), grid.Unsupported, "1 function that is not provided here: mod.fn", module.Preview1},
		{"many imports", imports(many...), grid.Unsupported, "5 functions that are not provided here: env.a, env.b, env.c and 2 more", "WASI"},
		{"preview 0", imports(wasmbytes.Import{Module: "wasi_unstable", Name: "proc_exit", Params: i32}), grid.Unsupported, "wasi_unstable.proc_exit", "preview 0"},
		{"preview 1, unknown", imports(wasmbytes.Preview1("fd_dream", 1)), grid.Unsupported, "fd_dream", ""},
		{"a newer grid", imports(wasmbytes.Import{Module: "env", Name: "x"}, wasmbytes.Import{Module: abi.Module, Name: "teleport", Params: i32}), grid.Unsupported,
			"imports grid.teleport, which is not in version 2 of the ABI, the one of this node: it was built for a newer one", "update this node"},
		{"an older grid", imports(wasmbytes.Import{Module: abi.Module, Name: "task_error", Params: i32}), grid.Unsupported, "grid.task_error, which is not in the ABI since version 2", "current SDK"},
		{"GOOS=js", imports(wasmbytes.Import{Module: "gojs", Name: "x"}), grid.Unsupported, "gojs.x", "GOOS=wasip1"},
		{"signature", imports(wasmbytes.Preview1("proc_exit", 1)), grid.Invalid, "another signature", ""},
		{"stub with a strange signature", imports(wasmbytes.Import{Module: module.Preview1, Name: "sock_x", Results: []byte{wasmbytes.I64}}), grid.Unsupported, "sock_x", ""},
		{"nothing to call", wasmbytes.Module{MinPages: 1, Start: "_main"}.Bytes(), grid.Unsupported, "neither _start", "main function"},
		{"only _initialize", wasmbytes.Module{MinPages: 1, Start: "_initialize"}.Bytes(), grid.Unsupported, "neither _start", "main function"},
		{"_initialize with a result", exporting([]byte{wasmbytes.I32}, "_initialize", "f"), grid.Invalid, "_initialize is not a function without", ""},
		{"_start with a result", exporting([]byte{wasmbytes.I32}, "_start"), grid.Invalid, "_start is not a function without", ""},
		{"grid_call without a result", exporting(nil, "grid_call"), grid.Invalid, "grid_call", ""},
		{"no memory", wasmbytes.Module{NoMemory: true, Imports: []wasmbytes.Import{{Module: module.Preview1, Name: "proc_exit", Params: i32}}}.Bytes(), grid.Invalid, "no memory", ""},
		{"maximum below minimum", wasmbytes.Module{MinPages: 2, MaxPages: 1}.Bytes(), grid.Invalid, "maximum", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := module.Check(test.binary, provided)
			if err == nil || grid.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.message) {
				t.Fatalf("%v, want %v with %q", err, test.code, test.message)
			}
			if advice := grid.AdviceOf(err); !strings.Contains(advice, test.tip) {
				t.Errorf("advice %q, want %q in it", advice, test.tip)
			}
		})
	}
}

// exporting is a module of one function under those names.
func exporting(results []byte, names ...string) []byte {
	p := wasmbytes.Program{MinPages: 1, Funcs: []wasmbytes.Func{{Results: results}}}
	if results != nil {
		p.Funcs[0].Code = wasmbytes.Const(0)
	}
	for _, n := range names {
		p.Exports = append(p.Exports, wasmbytes.Export{Name: n})
	}
	return p.Bytes()
}

// What can be called of a module, and how.
func TestEntries(t *testing.T) {
	i32 := []byte{wasmbytes.I32}
	for _, test := range []struct {
		binary          []byte
		kind            grid.ModuleKind
		initialize, any bool
		functions       string
		entry           string // for a function f
	}{
		{exporting(nil, "_start", "_initialize", "f"), grid.Command, false, false, "", "_start"},
		{append(exporting(nil, "_start"), "\x00\x0a\x00GRID_FUNC"...), grid.Command, false, true, "", "_start"},
		{append(exporting(nil, "_start"), "\x00\x13\x00G\x00R\x00I\x00D\x00_\x00F\x00U\x00N\x00C\x00"...), grid.Command, false, true, "", "_start"},
		{append(exporting(nil, "f"), "\x00\x0a\x00GRID_FUNC"...), grid.Reactor, false, false, "f", "f"},
		{exporting(nil, "f", "_initialize", "g", "_hidden"), grid.Reactor, true, false, "f g", "f"},
		{exporting(i32, "z", "f"), grid.Reactor, false, false, "f z", "f"},
		{exporting(i32, "grid_call"), grid.Reactor, false, true, "", "grid_call"},
		{exporting(i32, "grid_call", "f"), grid.Reactor, false, true, "f", "grid_call"},
		{exporting([]byte{wasmbytes.I64}, "grid_f"), "", false, false, "", ""},
	} {
		info, err := module.Check(test.binary, provided)
		if test.kind == "" {
			if err == nil {
				t.Errorf("%q: no error", test.binary)
			}
			continue
		}
		if err != nil || info.Kind != test.kind || len(info.Initialize) > 0 != test.initialize || info.Any != test.any ||
			strings.Join(info.Functions, " ") != test.functions || info.Entry("f") != test.entry {
			t.Errorf("%q: %+v, %v; want %+v", test.binary, info, err, test)
		}
	}
}

// A module that imports from Extism is called as Extism would.
func TestExtism(t *testing.T) {
	alloc := wasmbytes.Extism("alloc", "I", "I")
	with := func(names ...string) []byte {
		p := wasmbytes.Program{MinPages: 1, Imports: []wasmbytes.Import{alloc}}
		for i, name := range names {
			name, params, _ := strings.Cut(name, "/")
			f := wasmbytes.Func{Params: bytes.Repeat([]byte{wasmbytes.I32}, len(params))}
			if strings.HasPrefix(name, "f") {
				f.Results, f.Code = []byte{wasmbytes.I32}, wasmbytes.Const(0)
			}
			p.Funcs = append(p.Funcs, f)
			p.Exports = append(p.Exports, wasmbytes.Export{Name: name, Func: uint32(i + 1)})
		}
		return p.Bytes()
	}
	offers := func(mod, name string) (params, results []byte, ok bool) {
		if mod == alloc.Module && name == alloc.Name {
			return alloc.Params, alloc.Results, true
		}
		return provided(mod, name)
	}
	for _, test := range []struct {
		exports               []string
		kind                  grid.ModuleKind
		initialize, functions string
	}{
		{[]string{"f", "g"}, grid.Reactor, "", "f g"},
		{[]string{"_start"}, grid.Command, "", ""},
		{[]string{"_start", "_initialize"}, grid.Command, "", ""},
		{[]string{"_start", "f", "malloc/i", "asyncify_get_state", "asyncify_stop_unwind"}, grid.Reactor, "", "f"},
		{[]string{"f", "_initialize"}, grid.Reactor, "_initialize", "f"},
		{[]string{"f", "__wasm_call_ctors"}, grid.Reactor, "__wasm_call_ctors", "f"},
		{[]string{"f", "_initialize", "__wasm_call_ctors"}, grid.Reactor, "_initialize", "f"},
		{[]string{"f", "hs_init/ii", "hs_exit", "_initialize"}, grid.Reactor, "_initialize hs_init", "f"},
		{[]string{"f", "hs_init/ii", "__wasm_call_ctors"}, grid.Reactor, "hs_init", "f"},
		{[]string{"f", "hs_init", "__wasm_call_ctors/i"}, grid.Reactor, "", "f"},
	} {
		info, err := module.Check(with(test.exports...), offers)
		if err != nil || !info.Extism || info.Kind != test.kind || strings.Join(info.Initialize, " ") != test.initialize || strings.Join(info.Functions, " ") != test.functions {
			t.Errorf("%q: %+v, %v", test.exports, info, err)
		}
	}
	if info, err := module.Check(exporting(nil, "f", "__wasm_call_ctors", "asyncify_x"), offers); err != nil || info.Extism || len(info.Initialize) > 0 || len(info.Functions) != 2 {
		t.Errorf("another module: %+v, %v", info, err)
	}
	for _, test := range []struct {
		of              wasmbytes.Import
		code            grid.Code
		message, advice string
	}{
		{wasmbytes.Import{Module: "extism:host/user", Name: "ask"}, grid.Unsupported, "extism:host/user.ask", "an application gives its own Extism plug-ins"},
		{wasmbytes.Extism("input_set", "II", ""), grid.Unsupported, "extism:host/env.input_set", "for hosts only"},
		{wasmbytes.Extism("alloc", "i", "I"), grid.Invalid, "extism:host/env.alloc with another signature", "current toolchain"},
		{wasmbytes.Import{Module: "env", Name: "extism_alloc"}, grid.Unsupported, "env.extism_alloc", "before version 1.0"},
		{wasmbytes.Import{Module: "extism:env", Name: "alloc"}, grid.Unsupported, "extism:env.alloc", "before version 1.0"},
	} {
		_, err := module.Check(imports(alloc, test.of), offers)
		if grid.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.message) || !strings.Contains(grid.AdviceOf(err), test.advice) {
			t.Errorf("%+v: %v, %q", test.of, err, grid.AdviceOf(err))
		}
	}
}

func TestCheck(t *testing.T) {
	info, err := module.Check(wasmbytes.Module{MinPages: 2, MaxPages: 5, Imports: []wasmbytes.Import{wasmbytes.Preview1("sock_open", 3)}}.Bytes(), provided)
	if err != nil {
		t.Fatal(err)
	}
	if info.MinMemory != 2*module.Page || info.MaxMemory != 5*module.Page {
		t.Errorf("memory %d to %d", info.MinMemory, info.MaxMemory)
	}
	if len(info.Stubs) != 1 || info.Stubs[0].Name != "sock_open" || len(info.Stubs[0].Params) != 3 {
		t.Errorf("stubs %v", info.Stubs)
	}
	if info, err = module.Check(imports(wasmbytes.Preview1("sock_accept", 2)), provided); err != nil || len(info.Stubs) != 1 {
		t.Errorf("another engine's sock_accept: stubs %v, %v", info.Stubs, err)
	}
	if info, err = module.Check(imports(wasmbytes.Preview1("sock_accept", 3)), provided); err != nil || len(info.Stubs) != 0 {
		t.Errorf("preview 1's sock_accept: stubs %v, %v", info.Stubs, err)
	}
	plain := wasmbytes.Noop()
	if info, err = module.Check(plain, provided); err != nil || &info.Binary[0] != &plain[0] || info.MaxMemory != 4<<30 {
		t.Errorf("%v: a module without tables was changed, or its memory is %d at most", err, info.MaxMemory)
	}
}

// Tables without a maximum get one; checking again changes nothing more.
func TestTablesAreBounded(t *testing.T) {
	binary := wasmbytes.GrowTable()
	info, err := module.Check(binary, provided)
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte{4, 7, 1, 0x70, 1, 1, 0x80, 0x80, 0x40}; !bytes.Contains(info.Binary, want) {
		t.Errorf("no table section % x in % x", want, info.Binary)
	}
	again, err := module.Check(info.Binary, provided)
	if err != nil || !bytes.Equal(again.Binary, info.Binary) {
		t.Errorf("checked again: %v, % x", err, again.Binary)
	}
}

func FuzzCheck(f *testing.F) {
	for _, b := range [][]byte{
		wasmbytes.Noop(), wasmbytes.Exit(1), wasmbytes.GrowTable(), wasmbytes.Random(4), section(5, 1, 3, 1, 1), nil,
		imports(wasmbytes.Preview1("sock_open", 3)),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		info, err := module.Check(b, provided)
		if !bytes.Equal(b, before) {
			t.Fatal("the binary was changed")
		}
		if err != nil {
			if c := grid.CodeOf(err); c != grid.Invalid && c != grid.Unsupported && c != grid.Limit {
				t.Fatalf("code %v of %v", c, err)
			}
			return
		}
		again, err := module.Check(info.Binary, provided)
		if err != nil || !bytes.Equal(again.Binary, info.Binary) {
			t.Fatalf("what passed does not pass again: %v", err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	binary := wasmbytes.Random(4)
	for b.Loop() {
		if _, err := module.Check(binary, func(string, string) ([]byte, []byte, bool) {
			return []byte{0x7f, 0x7f}, []byte{0x7f}, true
		}); err == nil {
			b.Fatal("fd_write has four parameters")
		}
	}
}
