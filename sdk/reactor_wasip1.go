package sdk

import (
	"flag"
	"os"
	"strings"
	"unsafe"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// A program that is built as a library, with go build -buildmode=c-shared, is started once and then kept: the
// runtime and the initialisation of packages, which cost far more than a short task does, are over when a task
// begins. Every task finds the program as it was then. The grid enters through grid_call, which does what is
// left to do and runs main.

// mainMain is the program's main, by the name under which the runtime calls it too. A declaration without a
// body is allowed in packages with an assembler file.
//
//go:linkname mainMain main.main
func mainMain()

// What tasks would else begin with, each time: a stack that grows as it gets deeper, a heap without a place for things of
// their size, and variables that are new.
func init() {
	if !starting() {
		return
	}
	deepen()
	for size := 8; size <= 128; size += max(8, size/8) {
		kept = append(kept, make([]byte, size), make([]*byte, size/8))
	}
	for _, size := range []int{192, 288, 320, 384} { // as functions and tasks have
		kept = append(kept, make([]*byte, size/8))
	}
	kept = nil
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		atStart = append(atStart, name)
		if name == abi.EnvABI { // which stays
			abiAtStart = e
		}
	}
	os.Setenv(abi.EnvFunc, "")
	atStart = append(atStart, abi.EnvFunc)
}

var kept []any // so that what is made is not made on the stack

// atStart are the variables that are set before a task has its own.
var (
	atStart    []string
	abiAtStart string
)

// deepen has the stack be made as large as most functions will need it.
//
//go:noinline
func deepen() byte {
	var b [8 << 10]byte
	return b[len(os.Args)]
}

// room is for a task's arguments, variables and input, which need not be made as long as they are short.
var room struct {
	pointers [32]uint32
	lists    [32]string
	text     [1 << 10]byte
	input    [1 << 10]byte
}

//go:wasmexport grid_call
func call() int32 {
	if abi.Call != "grid_call" {
		panic("sdk: the name of the export is out of date")
	}
	// What the runtime was told at its start was nobody's.
	text, list := room.text[:], room.lists[:0]
	os.Args, text = strs(argsSizesGet, argsGet, list, text)
	variables, _ = strs(environSizesGet, environGet, os.Args[len(os.Args):], text)
	for _, name := range atStart {
		if _, ok := variable(name); !ok {
			os.Unsetenv(name)
		}
	}
	for _, e := range variables {
		if e == abiAtStart {
			continue
		}
		name, value, _ := strings.Cut(e, "=")
		os.Setenv(name, value)
	}
	if len(os.Args) > 0 {
		flag.CommandLine.Init(os.Args[0], flag.ExitOnError)
	}
	mainMain()
	return 0
}

//go:wasmimport wasi_snapshot_preview1 args_sizes_get
func argsSizesGet(count, size *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 args_get
func argsGet(pointers *uint32, text *byte) uint32

//go:wasmimport wasi_snapshot_preview1 environ_sizes_get
func environSizesGet(count, size *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 environ_get
func environGet(pointers *uint32, text *byte) uint32

// strs reads a list of strings, which come as pointers to zero-terminated text, and appends them to list. It puts the
// text into room, if there is enough, and gives what is left of that.
func strs(sizes func(count, size *uint32) uint32, get func(*uint32, *byte) uint32, list []string, text []byte) ([]string, []byte) {
	var count, size uint32
	if sizes(&count, &size) != 0 || count == 0 {
		return list, text
	}
	pointers := room.pointers[:]
	if int(count) > len(pointers) {
		pointers = make([]uint32, count)
	}
	if int(size) > len(text) {
		text = make([]byte, size)
	}
	if get(&pointers[0], &text[0]) != 0 {
		return list, text
	}
	base := uint32(uintptr(unsafe.Pointer(&text[0])))
	all := unsafe.String(&text[0], size) // nobody writes there again
	for i, p := range pointers[:count] {
		p -= base
		end := size
		if i+1 < int(count) {
			end = pointers[i+1] - base
		}
		if p < end && end <= size && all[end-1] == 0 { // one lies after the other, as everywhere
			list = append(list, all[p:end-1])
		} else {
			s, _, _ := strings.Cut(all[p:], "\x00")
			list = append(list, s)
		}
	}
	return list[:len(list):len(list)], text[size:]
}
