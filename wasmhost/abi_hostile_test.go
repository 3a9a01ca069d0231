package wasmhost_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// errnosOf reads what calls gave off a guest's memory, which it has shown.
func errnosOf(t *testing.T, memory []byte, n int) (list []vfs.Errno) {
	t.Helper()
	if len(memory) < errnos+4*n {
		t.Fatalf("%d bytes of memory", len(memory))
	}
	for i := range n {
		list = append(list, vfs.Errno(binary.LittleEndian.Uint32(memory[errnos+4*i:])))
	}
	return list
}

// showing is data that the guests of this file begin with: the buffers, and a request for the key a.
func showing() []byte {
	mem := make([]byte, memEnd)
	copy(mem[iov:], u32(buf)+u32(bufLen))
	copy(mem[show:], u32(0)+u32(memEnd))
	copy(mem[req:], get("a"))
	return mem
}

// everything is a call of each function.
var everything = []do{
	call(0, "kv", req, 6, out), call(0, "progress", int64(1), int64(2)), call(0, "count", req+5, 1, int64(1)), call(0, "observe", req+5, 1, 1.0),
	call(0, "spawn", req, 0, out), call(0, "await", 0, out, out), call(0, "http_open", req, 6, out), call(0, "last_error", buf, bufLen, out2),
	call(0, "fd_read", 4, iov, 1, out2),
}

// Functions may be called before there is a guest. They do nothing then that lasts, and give the same each time.
func TestCallsBeforeTheGuest(t *testing.T) {
	modules := loads{}
	before := []vfs.Errno{vfs.ENOTSUP, 0, 0, vfs.EINVAL, vfs.ENOTSUP, vfs.ENOTSUP, vfs.EINVAL, 0, vfs.EBADF}
	within := []vfs.Errno{0, 0, 0, vfs.EINVAL, vfs.EINVAL, vfs.ECHILD, vfs.EINVAL, 0, 0}
	imports := gridImports()
	begin := wasmbytes.Func{Code: invokeAll(&imports, errnos, everything)}
	end := wasmbytes.Func{Code: showAll(&imports)}
	n := uint32(len(imports))
	for _, test := range []struct {
		name    string
		program wasmbytes.Program
		want    []vfs.Errno
		counted bool
	}{
		{"_initialize", wasmbytes.Program{Funcs: []wasmbytes.Func{begin, end}, Exports: []wasmbytes.Export{{Name: "_initialize", Func: n}, {Name: "f", Func: n + 1}}}, before, false},
		{"the start function of a library", wasmbytes.Program{Funcs: []wasmbytes.Func{end, begin}, Begin: true, Exports: []wasmbytes.Export{{Name: "f", Func: n}}}, within, true},
		{"the start function of a library that is initialised", wasmbytes.Program{Funcs: []wasmbytes.Func{end, {}, begin}, Begin: true,
			Exports: []wasmbytes.Export{{Name: "f", Func: n}, {Name: "_initialize", Func: n + 1}}}, within, true},
		{"the start function of a program", wasmbytes.Program{Funcs: []wasmbytes.Func{end, begin}, Begin: true, Exports: []wasmbytes.Export{{Name: "_start", Func: n}}}, within, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.program.Imports, test.program.MinPages, test.program.Data = imports, 1, showing()
			id := modules.add(test.program.Bytes())
			for name, open := range map[string]func(wasmhost.Config) (*wasmhost.Host, error){"reused": wasmhost.OpenCompiled, "fresh": wasmhost.OpenFresh, "interpreted": wasmhost.OpenInterpreter} {
				h := closing(t)(open(wasmhost.Config{Load: modules.load}))
				for range 2 {
					w := new(abiWorld)
					var stdout bytes.Buffer
					got, err := h.Run(t.Context(), &grid.Guest{Module: id, Func: "f", Stdout: &stdout, KV: w, Tasks: w, Progress: func(uint64, uint64) { w.tell("progress") }})
					if err != nil || got.Fault != nil {
						t.Fatalf("%s: %+v, %v", name, got.Fault, err)
					}
					if got := errnosOf(t, stdout.Bytes(), len(everything)); !slices.Equal(got, test.want) {
						t.Errorf("%s: %v, want %v", name, got, test.want)
					}
					if counted := len(got.Metrics) == 1; counted != test.counted || counted != slices.Equal(w.told, []string{"get a", "progress"}) || !counted && len(w.told) > 0 {
						t.Errorf("%s: metrics %v, the host was told %v", name, got.Metrics, w.told)
					}
				}
			}
		})
	}
}

// A library whose start function fails is refused, before it has a guest, if it could not be initialised either.
func TestStartFunctionFails(t *testing.T) {
	f := &fixed{binary: wasmbytes.Program{MinPages: 1, Funcs: []wasmbytes.Func{{}, {}, {Code: []byte{0x00}}}, Begin: true,
		Exports: []wasmbytes.Export{{Name: "f"}, {Name: "_initialize", Func: 1}}}.Bytes()}
	h := open(t, wasmhost.Config{Load: f.load})
	if err := h.Prepare(t.Context(), f.cid()); grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "the reactor's beginning failed: start function[3] failed") {
		t.Error(err)
	}
}

// What a guest leaves behind is gone before the next one runs in its instance, however it ended.
func TestNothingIsLeft(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load})
	// With an argument it leaves everything open, and traps or returns; without it looks for what is there.
	imports := gridImports()
	leave := slices.Repeat([]do{call(0, "kv", req, 6, out)}, 8)
	leave = append(leave, call(0, "count", req+5, 1, int64(1)), call(vfs.EFAULT, "kv", memEnd, 1, out))
	look := []do{lastError, read(4), call(0, "fd_close", 4), call(0, "kv", req, 6, out), call(0, "count", req+5, 1, int64(1))}
	args := append(invoke(&imports, call(0, "args_sizes_get", out, out2)), wasmbytes.Drop()...)
	load := slices.Concat(wasmbytes.Const(out), wasmbytes.Op(0x28, 2, 0)) // i32.load
	module := func(trap bool) []byte {
		left := invokeAll(&imports, errnos, leave)
		if trap {
			left = append(left, 0x00)
		}
		code := slices.Concat(args, load, wasmbytes.If(left), load, []byte{0x45}, // i32.eqz
			wasmbytes.If(invokeAll(&imports, errnos, look)), showAll(&imports))
		return wasmbytes.Program{Imports: imports, MinPages: 1, Data: showing(), Funcs: []wasmbytes.Func{{Code: code}}}.Bytes()
	}
	for _, trap := range []bool{false, true} {
		id := modules.add(module(trap))
		for range 3 {
			w := new(abiWorld)
			got, err := h.Run(t.Context(), &grid.Guest{Module: id, Args: []string{"leave"}, KV: w, Tasks: w})
			if err != nil || (got.Fault != nil) != trap || len(got.Metrics) != 1 { // metrics are told whatever becomes of it
				t.Fatalf("%+v, %v, %v", got.Fault, err, got.Metrics)
			}
			var stdout bytes.Buffer
			if got, err = h.Run(t.Context(), &grid.Guest{Module: id, Stdout: &stdout, KV: w, Tasks: w}); err != nil || got.Fault != nil {
				t.Fatalf("%+v, %v", got.Fault, err)
			}
			mem := stdout.Bytes()
			if got, want := errnosOf(t, mem, len(look)), []vfs.Errno{0, vfs.EBADF, vfs.EBADF, 0, 0}; !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			if n := binary.LittleEndian.Uint32(mem[out2:]); n != 0 {
				t.Errorf("a message of %d bytes is left", n)
			}
			if want := []grid.Metric{{Name: "a", Kind: grid.Counter, Count: 1}}; !reflect.DeepEqual(got.Metrics, want) {
				t.Errorf("%v, want %v", got.Metrics, want)
			}
		}
	}
}

// Memory of no pages, of one that is not the guest's yet, and at the end of all that there can be.
func TestMemoryOfAnySize(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load})
	exit := func(imports *[]wasmbytes.Import, d do) []byte { // with the errno as the exit code
		code := invoke(imports, d)
		*imports = append(*imports, wasmbytes.System("proc_exit"))
		return append(code, wasmbytes.Call(uint32(len(*imports)-1))...)
	}
	grow := func(pages int32) []byte {
		return slices.Concat(wasmbytes.Const(pages), []byte{0x40, 0}, wasmbytes.Drop())
	}
	for _, test := range []struct {
		name  string
		pages uint32
		grow  int32
		calls []do
	}{
		{"none", 0, 0, []do{call(vfs.EFAULT, "kv", 0, 0, 0), call(vfs.EINVAL, "count", 0, 0, int64(1)), call(vfs.EFAULT, "count", 0, 1, int64(1)), call(vfs.EINVAL, "observe", 0, 0, 1.0),
			call(vfs.EFAULT, "last_error", 0, 0, 0), call(vfs.EFAULT, "spawn", 0, 0, 0), call(vfs.EFAULT, "await", 0, 0, 0), call(vfs.EFAULT, "http_open", 0, 0, 0), call(0, "progress", int64(1), int64(0))}},
		{"before it grows", 1, 0, []do{call(vfs.EFAULT, "kv", memEnd, 1, 0), call(vfs.EFAULT, "last_error", 0, 0, memEnd)}},
		{"once it has grown", 1, 1, []do{call(vfs.EINVAL, "kv", memEnd, 1, 0), call(0, "last_error", 0, 2*memEnd, memEnd), call(vfs.EFAULT, "kv", 2*memEnd, 1, 0), call(vfs.EINVAL, "count", 0, 2*memEnd, int64(1))}},
		{"4 GiB", 1, 65535, []do{call(vfs.EINVAL, "kv", max32, 1, 0), call(vfs.EFAULT, "kv", max32, 2, 0), call(vfs.EFAULT, "kv", 1, max32, 0), call(vfs.EFAULT, "last_error", 0, 1, max32-2)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, d := range test.calls {
				if test.grow == 65535 && d.want == vfs.EINVAL { // wazero cannot give its last byte
					d.want = vfs.EFAULT
				}
				imports := gridImports()
				code := append(grow(test.grow), exit(&imports, d)...)
				id := modules.add(wasmbytes.Program{Imports: imports, MinPages: test.pages, Funcs: []wasmbytes.Func{{Code: code}}}.Bytes())
				w := new(abiWorld)
				got, err := h.Run(t.Context(), &grid.Guest{Module: id, KV: w, Tasks: w, Limits: grid.Limits{Memory: 4 << 30}})
				if err != nil || got.Fault != nil || got.Exit != uint32(d.want) || len(w.told) > 0 {
					t.Errorf("%s%v: %v, %+v, %v, want %v", d.name, d.args, vfs.Errno(got.Exit), got.Fault, err, d.want)
				}
			}
		})
	}
}

// A module that imports one function alone is given what it is for.
func TestOneFunction(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load})
	for i, d := range []do{
		call(vfs.EINVAL, "http_open", req, 0, out), call(vfs.EINVAL, "spawn", req, 0, out), call(vfs.ECHILD, "await", 0, out, out2), call(0, "kv", req, 6, out),
		call(0, "progress", int64(1), int64(1)), call(0, "count", req+5, 1, int64(1)), call(0, "observe", req+5, 1, 1.0), call(0, "last_error", buf, 1, out),
	} {
		imports := gridImports()[i : i+1]
		code := slices.Concat(invokeAll(&imports, errnos, []do{d}), showAll(&imports))
		id := modules.add(wasmbytes.Program{Imports: imports, MinPages: 1, Data: showing(), Funcs: []wasmbytes.Func{{Code: code}}}.Bytes())
		w := new(abiWorld)
		var stdout bytes.Buffer
		got, err := h.Run(t.Context(), &grid.Guest{Module: id, Stdout: &stdout, KV: w, Tasks: w})
		if err != nil || got.Fault != nil || errnosOf(t, stdout.Bytes(), 1)[0] != d.want {
			t.Errorf("%s: %+v, %v, %v, want %v", d.name, got.Fault, err, errnosOf(t, stdout.Bytes(), 1), d.want)
		}
	}
}

// fullMap lists as much as a page has.
type fullMap struct{ abiWorld }

func (*fullMap) List(context.Context, string, string, int) (entries []grid.Entry, more bool, err error) {
	value := bytes.Repeat([]byte("v"), grid.MaxLedgerValue-1)
	for i := range grid.MaxLedgerBytes / grid.MaxLedgerValue {
		entries = append(entries, grid.Entry{Key: string(rune('a' + i)), Value: value, Version: 1})
	}
	return entries, true, nil
}

// The largest list is read in pieces, by a guest that has less memory than that.
func TestLargestList(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load})
	imports := gridImports()
	data := showing()
	copy(data[req:], list(0, "", ""))
	load := slices.Concat(wasmbytes.Const(out2), wasmbytes.Op(0x28, 2, 0))
	// Read until nothing comes, and pass everything on.
	step := slices.Concat(invoke(&imports, read(4)), wasmbytes.Drop(), wasmbytes.Const(iov+4), load, wasmbytes.Op(0x36, 2, 0),
		invoke(&imports, call(0, "fd_write", 1, iov, 1, out)), wasmbytes.Drop(), wasmbytes.Const(iov+4), wasmbytes.Const(bufLen), wasmbytes.Op(0x36, 2, 0),
		load, []byte{0x0d, 0}) // br_if
	code := slices.Concat(invoke(&imports, kvCall(0, list(0, "", ""))), wasmbytes.Drop(), []byte{0x03, 0x40}, step, []byte{0x0b})
	id := modules.add(wasmbytes.Program{Imports: imports, MinPages: 1, Data: data, Funcs: []wasmbytes.Func{{Code: code}}}.Bytes())
	var stdout bytes.Buffer
	got, err := h.Run(t.Context(), &grid.Guest{Module: id, Stdout: &stdout, KV: new(fullMap)})
	if want := 1 + 4*(16+grid.MaxLedgerValue); err != nil || got.Fault != nil || stdout.Len() != want || stdout.Bytes()[0] != 1 {
		t.Fatalf("%+v, %v, %d bytes, want %d", got.Fault, err, stdout.Len(), want)
	}
	if least := uint64(stdout.Len()) / 8 * 2; got.Fuel < least { // in and out
		t.Errorf("%d fuel, want %d at least", got.Fuel, least)
	}
}

// repeated is a module that makes a call n times.
func repeated(n int64, d do) []byte {
	imports := gridImports()
	body := append(invoke(&imports, d), wasmbytes.Drop()...)
	code := slices.Concat([]byte{0x03, 0x40}, body, wasmbytes.Op(0x20, 0), wasmbytes.Const64(1), []byte{0x7c, 0x22, 0}, wasmbytes.Const64(n), []byte{0x53, 0x0d, 0, 0x0b}) // i64.add, local.tee, i64.lt_s, br_if
	return wasmbytes.Program{Imports: imports, MinPages: 1, Data: showing(), Funcs: []wasmbytes.Func{{Locals: 1, Code: code}}}.Bytes()
}

// A million calls take fuel, and no more of the host than one.
func TestManyCalls(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load})
	n := uint64(1_000_000)
	if raceEnabled { // all is in one goroutine
		n = 20_000
	}
	for _, d := range []do{call(0, "progress", int64(1), int64(2)), call(0, "count", req+5, 1, int64(1)), call(0, "observe", req+5, 1, 1.0), call(vfs.EINVAL, "count", req, 1, int64(1)), lastError} {
		id := modules.add(repeated(int64(n), d))
		var told uint64
		g := &grid.Guest{Module: id, Progress: func(uint64, uint64) { told++ }}
		first, err := h.Run(t.Context(), g)
		second, _ := h.Run(t.Context(), g)
		if err != nil || first.Fault != nil || first.Calls != n || first.Fuel < 256*n || first.Fuel != second.Fuel || !reflect.DeepEqual(first.Metrics, second.Metrics) {
			t.Errorf("%s: %+v, %v", d.name, first, err)
		}
		t.Logf("%s: %v each", d.name, first.Run/time.Duration(n))
		switch {
		case d.name == "progress" && told != 2*n, d.name != "progress" && told > 0:
			t.Errorf("%s: progress was told %d times", d.name, told)
		case d.want == 0 && (d.name == "count" || d.name == "observe") && (len(first.Metrics) != 1 || first.Metrics[0].Count != n):
			t.Errorf("%s: %+v", d.name, first.Metrics)
		}
		g.Limits.Calls = n / 2
		if got, err := h.Run(t.Context(), g); err != nil || got.Fault == nil || got.Fault.Code != grid.Limit || got.Calls != n/2 {
			t.Errorf("%s with half the calls: %+v, %v", d.name, got, err)
		}
	}
}

// slowMap answers when it is told to, or when nobody waits any more.
type slowMap struct {
	abiWorld
	asked chan struct{}
	get   func(context.Context) (grid.Entry, error)
}

func (s *slowMap) Get(ctx context.Context, key string) (grid.Entry, error) {
	if s.asked != nil {
		close(s.asked)
	}
	return s.get(ctx)
}

// A guest that waits for the map is ended by its time limit and by whoever runs it; a map that fails ends the attempt, and
// what is denied is why a guest fails.
func TestWaitingForTheMap(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load})
	id := modules.add(repeated(1, call(0, "kv", req, 6, out)))
	waits := func(ctx context.Context) (grid.Entry, error) { <-ctx.Done(); return grid.Entry{}, ctx.Err() }

	got, err := h.Run(t.Context(), &grid.Guest{Module: id, KV: &slowMap{get: waits}, Limits: grid.Limits{Wall: 20 * time.Millisecond}})
	if err != nil || got.Fault == nil || got.Fault.Code != grid.Deadline {
		t.Errorf("beyond its time: %+v, %v", got.Fault, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &slowMap{get: waits, asked: make(chan struct{})}
	go func() { <-m.asked; cancel() }()
	if _, err := h.Run(ctx, &grid.Guest{Module: id, KV: m}); grid.CodeOf(err) != grid.Canceled {
		t.Errorf("canceled: %v", err)
	}
	for _, code := range []grid.Code{grid.Unavailable, grid.Internal, grid.Deadline, grid.Busy, grid.Unknown} {
		fails := func(context.Context) (grid.Entry, error) { return grid.Entry{}, grid.Errorf(code, "no majority") }
		if _, err := h.Run(t.Context(), &grid.Guest{Module: id, KV: &slowMap{get: fails}}); err == nil || grid.CodeOf(err) != code || !strings.Contains(err.Error(), "use the realm's map: no majority") {
			t.Errorf("%v: %v", code, err)
		}
	}
	if got, err := h.Run(t.Context(), &grid.Guest{Module: id, KV: new(abiWorld)}); err != nil || got.Fault != nil {
		t.Errorf("the next one: %+v, %v", got.Fault, err)
	}

	imports := append(gridImports(), wasmbytes.System("proc_exit"))
	data := showing()
	copy(data[req:], get("denied"))
	code := append(invoke(&imports, kvCall(0, get("denied"))), wasmbytes.Call(uint32(len(imports)-1))...)
	id = modules.add(wasmbytes.Program{Imports: imports, MinPages: 1, Data: data, Funcs: []wasmbytes.Func{{Code: code}}}.Bytes())
	got, err = h.Run(t.Context(), &grid.Guest{Module: id, KV: new(abiWorld)})
	if want := `no grant allows "denied"; and the guest gave up with exit code 76`; err != nil || got.Fault == nil || got.Fault.Code != grid.Denied || got.Fault.Message != want {
		t.Errorf("%+v, %v, want %q", got.Fault, err, want)
	}
}

// What a guest of the interpreter did is not done again when it is begun anew as machine code.
func TestReportsOfTrials(t *testing.T) {
	binary, err := gridtest.BuildGuest([]byte(`package main

import (
	"fmt"
	"io"
	"os"
	"unsafe"
)

//go:wasmimport grid count
func count(name *byte, size uint32, n uint64) uint32

//go:wasmimport grid kv
func kv(request *byte, size uint32, fd *uint32) uint32

func main() {
	name, put := "n", "\x03\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00k\x00\x00\x00\x00\x00\x00\x00\x00"
	var fd uint32
	fmt.Println(count(unsafe.StringData(name), 1, 1), kv(unsafe.StringData(put), uint32(len(put)), &fd))
	io.Copy(os.Stdout, os.Stdin)
}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, granted := range []bool{false, true} {
		if raceEnabled && !granted { // compiling takes long then
			continue
		}
		f := &fixed{binary: binary}
		h := closing(t)(wasmhost.Open(wasmhost.Config{Load: f.load})) // what is kept is not interpreted
		w := new(abiWorld)
		stdin := &feeder{first: "one ", then: strings.NewReader("two"), wait: func() {
			if _, err := h.Inspect(t.Context(), f.cid(), true); err != nil {
				t.Error(err)
			}
		}}
		var stdout bytes.Buffer
		g := &grid.Guest{Module: f.cid(), Stdin: stdin, Stdout: &stdout, Stderr: io.Discard}
		want, told := "0 58\none two", []string(nil)
		if granted {
			g.KV = w
			want, told = "0 0\none two", []string{`commit put k=""`}
		}
		got, err := h.Run(t.Context(), g)
		if err != nil || got.Fault != nil || stdout.String() != want || !slices.Equal(w.told, told) ||
			!reflect.DeepEqual(got.Metrics, []grid.Metric{{Name: "n", Kind: grid.Counter, Count: 1}}) {
			t.Errorf("granted %t: %+v, %v, %q, told %q", granted, got, err, stdout.String(), w.told)
		}
	}
}

// Random calls with random numbers, over random memory, on a map that answers: the guest ends, and is not the host's failure.
func FuzzHostFunctions(f *testing.F) {
	f.Add([]byte("\x01\x01\x00\x00\x00a"), []byte{3, 0, 6, 40, 7, 0, 100, 200})
	f.Add([]byte("\x03\xff\xff\xff\xff"), []byte{3, 0, 255, 40, 1, 0, 5, 40, 2, 250, 251, 252})
	calls := wasmbytes.GridCalls()
	numbers := []int64{memEnd, memEnd - 1, memEnd - 4, max32, max32 - 3, 1 << 31, -1, math.MinInt64, 0x7ff8 << 48}
	f.Fuzz(func(t *testing.T, memory, script []byte) {
		if len(memory) > 1<<12 || len(script) > 64 {
			return
		}
		imports := gridImports()
		var code []byte
		for len(script) > 0 {
			c := calls[int(script[0])%len(calls)]
			script = script[1:]
			var args []any
			for _, p := range c.Params {
				var v int64
				if len(script) > 0 {
					if v, script = int64(script[0]), script[1:]; v >= 200 {
						v = numbers[int(v)%len(numbers)]
					}
				}
				switch p {
				case 'I':
					args = append(args, v)
				case 'F':
					args = append(args, math.Float64frombits(uint64(v)))
				default:
					args = append(args, int(uint32(v)))
				}
			}
			code = slices.Concat(code, invoke(&imports, call(0, c.Name, args...)), wasmbytes.Drop())
		}
		module := fixed{binary: wasmbytes.Program{Imports: imports, MinPages: 1, Data: memory, Funcs: []wasmbytes.Func{{Code: code}}}.Bytes()}
		h, err := wasmhost.OpenInterpreter(wasmhost.Config{Load: module.load})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		w := new(abiWorld)
		got, err := h.Run(t.Context(), &grid.Guest{Module: module.cid(), KV: w, Tasks: w, Progress: func(uint64, uint64) {}})
		if err != nil && !errors.Is(err, grid.Limit) || got.Fault != nil || got.Exit != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}
