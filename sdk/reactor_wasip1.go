package sdk

import (
	"flag"
	"os"
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

//go:wasmexport grid_call
func call() int32 {
	if abi.Call != "grid_call" {
		panic("sdk: the name of the export is out of date")
	}
	// What the runtime was told at its start was nobody's.
	os.Args = strs(argsSizesGet, argsGet)
	os.Clearenv()
	for _, e := range strs(environSizesGet, environGet) {
		for i := 1; i < len(e); i++ {
			if e[i] == '=' {
				os.Setenv(e[:i], e[i+1:])
				break
			}
		}
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

// strs reads a list of strings, which come as pointers to zero-terminated text.
func strs(sizes func(count, size *uint32) uint32, get func(*uint32, *byte) uint32) []string {
	var count, size uint32
	if sizes(&count, &size) != 0 || count == 0 {
		return nil
	}
	pointers, text := make([]uint32, count), make([]byte, size)
	if get(&pointers[0], &text[0]) != 0 {
		return nil
	}
	base := uint32(uintptr(unsafe.Pointer(&text[0])))
	all := string(text)
	out := make([]string, count)
	for i, p := range pointers {
		s := all[p-base:]
		for n := range len(s) {
			if s[n] == 0 {
				s = s[:n]
				break
			}
		}
		out[i] = s
	}
	return out
}
