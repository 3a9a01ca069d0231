package gridtest

import (
	"context"
	"io"
	"io/fs"
	"math"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// callPages is how much memory the callers below have.
const callPages = 2

// hostileNumbers are arguments that no honest caller gives; the memory ends at callPages<<16.
var (
	hostileNumbers   = []int32{-1, 0x7fffffff, -1 << 31, callPages << 16, callPages<<16 - 1, callPages<<16 - 3, -8, 1, 0}
	hostileNumbers64 = []int64{-1, -1 << 63, 1<<63 - 1, 1 << 62, 1 << 32, 0}
)

// argumentLists are the ways in which a system call is tried: honest arguments with one of them
// replaced by each hostile number, with each two neighbours replaced, and with all the same.
func argumentLists(c wasmbytes.SystemCall, thorough bool) [][]int64 {
	hostile := func(i int) []int64 {
		if c.Params[i] == 'I' || c.Params[i] == 'F' {
			return hostileNumbers64
		}
		list := make([]int64, len(hostileNumbers))
		for i, v := range hostileNumbers {
			list[i] = int64(v)
		}
		return list
	}
	var lists [][]int64
	for fd := range int64(6) { // the streams, the root, a file, a folder
		honest := make([]int64, len(c.Params))
		for i, p := range c.Params {
			honest[i] = map[rune]int64{'f': fd, 'p': int64(1024 * (i + 1)), 'n': 8}[p]
		}
		lists = append(lists, honest)
		for i := range honest {
			for _, v := range hostile(i) {
				list := slices.Clone(honest)
				list[i] = v
				lists = append(lists, list)
				if i == 0 || !thorough {
					continue
				}
				for _, v := range hostile(i - 1) {
					list := slices.Clone(list)
					list[i-1] = v
					lists = append(lists, list)
				}
			}
		}
		if len(honest) == 0 || honest[0] != fd {
			break // it takes no descriptor
		}
	}
	for _, v := range hostileNumbers {
		lists = append(lists, slices.Repeat([]int64{int64(v)}, len(c.Params)))
	}
	return lists
}

// caller is a module that opens /tmp/file as 4 and /tmp as 5, and makes a system call with one list of
// arguments after the other.
func caller(c wasmbytes.SystemCall, lists [][]int64) []byte {
	imports := []wasmbytes.Import{wasmbytes.System("path_open"), c.Import()}
	open := func(path, n, flags int32, rights int64) []byte {
		return code(i32(3), i32(0), i32(path), i32(n), i32(flags), wasmbytes.Const64(rights), wasmbytes.Const64(0), i32(0), i32(16), call(0), drop)
	}
	const perFunction = 200 // calls
	p := wasmbytes.Program{Imports: imports, MinPages: callPages, Data: []byte("tmp/file")}
	start := code(open(0, 8, 1, 2|64), open(0, 3, 2, 0))
	for some := range slices.Chunk(lists, perFunction) {
		var b []byte
		for _, list := range some {
			for i, v := range list {
				switch c.Params[i] {
				case 'I':
					b = append(b, wasmbytes.Const64(v)...)
				case 'F':
					b = append(b, wasmbytes.ConstF64(math.Float64frombits(uint64(v)))...)
				default:
					b = append(b, i32(int32(v))...)
				}
			}
			b = append(b, call(1)...)
			if len(imports[1].Results) > 0 {
				b = append(b, drop...)
			}
		}
		start = append(start, call(uint32(len(imports)+len(p.Funcs)))...)
		p.Funcs = append(p.Funcs, wasmbytes.Func{Code: b})
	}
	p.Funcs = append(p.Funcs, wasmbytes.Func{Code: start})
	return p.Bytes()
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// anyMap has every key, and takes everything.
type anyMap struct{}

func (anyMap) Get(_ context.Context, key string) (grid.Entry, error) {
	return grid.Entry{Key: key, Value: []byte("value"), Version: 1}, nil
}

func (anyMap) List(context.Context, string, string, int) ([]grid.Entry, bool, error) {
	return []grid.Entry{{Key: "key", Value: []byte("value"), Version: 1}}, true, nil
}

func (anyMap) Commit(context.Context, grid.Txn) (uint64, error) { return 2, nil }

// noTasks takes every task, and has lost it when it is asked.
type noTasks struct{}

func (noTasks) Spawn(context.Context, grid.Call) (uint32, error) { return 0, nil }

func (noTasks) Ended(uint32) bool { return true }

func (noTasks) Await(context.Context, uint32) (grid.Ending, error) {
	return grid.Ending{}, grid.Errorf(grid.NotFound, "there is no such task")
}

func testCalls(t *testing.T, h *hostileTest) {
	for _, c := range append(wasmbytes.SystemCalls(), wasmbytes.GridCalls()...) {
		t.Run(c.Name, func(t *testing.T) {
			lists := argumentLists(c, !testing.Short())
			if c.Name == "proc_exit" { // the first one ends it
				for _, v := range hostileNumbers {
					r := h.run(t, grid.Guest{Module: h.add(caller(c, [][]int64{{int64(v)}}))})
					r.want(t, uint32(v), "")
				}
				return
			}
			g := grid.Guest{
				Module: h.add(caller(c, lists)),
				Args:   []string{"program", "argument"}, Env: []string{"NAME=value"},
				Stdin:  io.LimitReader(zeros{}, 1<<20),
				Mounts: map[string]fs.FS{"/in": fstest.MapFS{"file": {Data: []byte("content")}}},
				Limits: grid.Limits{Scratch: 1 << 20, Files: 100, Wall: 20 * time.Second},
				KV:     anyMap{}, Tasks: noTasks{}, Progress: func(uint64, uint64) {},
			}
			if err := h.Prepare(t.Context(), g.Module); err != nil {
				t.Errorf("%s: Prepare: %v", c.Name, err)
				return
			}
			var out grid.Outcome
			var err error
			var took time.Duration
			allocated := allocating(func() {
				start := time.Now()
				out, err = h.Run(t.Context(), &g)
				took = time.Since(start)
			})
			if testing.Verbose() {
				t.Logf("%-24s %5d calls in %10v, the process allocated %6d KiB", c.Name, len(lists), took.Round(time.Microsecond), allocated>>10)
			}
			switch {
			case err != nil:
				t.Errorf("%s: Run: %v", c.Name, err)
			case hostPanicked(out):
				t.Errorf("%s: the host panicked: %s", c.Name, out.Fault.Message)
			case out.Fault != nil && out.Fault.Code != grid.Trap:
				t.Errorf("%s: %v: %s", c.Name, out.Fault.Code, out.Fault.Message)
			case out.Fault != nil:
				t.Logf("%s: trap: %s", c.Name, out.Fault.Message)
			}
			// Nothing that a guest of two pages asks for is a reason to take much more than it can hold.
			if most := uint64(256 << 20); allocated > most {
				t.Errorf("%s: the process allocated %d MiB, want at most %d", c.Name, allocated>>20, most>>20)
			}
		})
	}
}
