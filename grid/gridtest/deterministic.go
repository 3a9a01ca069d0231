package gridtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// nans is a module that makes NaNs in ways whose bits differ between processors, and writes those bits
// to stdout, which must be nanBits.
func nans() []byte {
	const inf = 0x7ff0000000000000
	f64 := func(bits uint64) []byte { // f64.reinterpret_i64 of a constant, so that nothing is folded away
		return code(wasmbytes.Const64(int64(bits)), op(0x21, 0), op(0x20, 0), []byte{0xbf})
	}
	const quiet, signaling, negative = 0x7ff8000000000001, 0x7ff4000000000000, 0xfff8000000000123
	makers := [][]byte{
		code(f64(0), f64(0), op(0xa3)),            // 0/0
		code(f64(inf), f64(inf), op(0xa1)),        // inf - inf
		code(f64(inf), f64(0), op(0xa2)),          // inf * 0
		code(f64(0xbff0000000000000), op(0x9f)),   // sqrt(-1)
		code(f64(quiet), f64(negative), op(0xa0)), // which of the two payloads?
		code(f64(negative), f64(quiet), op(0xa0)),
		code(f64(signaling), op(0x9b)),                  // ceil of a signaling one
		code(f64(signaling), f64(0), op(0xa4)),          // min
		code(f64(negative), op(0xb6), op(0xbb)),         // demoted and promoted
		code(f64(quiet), op(0x9a)),                      // neg keeps bits
		code(f64(0), f64(negative), op(0xa6), op(0x9a)), // copysign
		code(f64(inf), f64(inf), op(0xa3), op(0x9e)),    // nearest
		code(f64(negative), f64(signaling), op(0xa5)),   // max
		code(f64(signaling), f64(signaling), op(0xa2)),  // mul
	}
	var b []byte
	for i, make := range makers {
		b = append(b, code(i32(int32(64+8*i)), make, op(0x39, 3, 0))...) // f64.store
	}
	n := int32(8 * len(makers))
	b = append(b, code(i32(0), i32(64), op(0x36, 2, 0), i32(4), i32(n), op(0x36, 2, 0),
		i32(1), i32(0), i32(1), i32(8), call(0), drop)...)
	return wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("fd_write")}, MinPages: 1,
		Funcs: []wasmbytes.Func{{Locals: 1, Code: b}},
	}.Bytes()
}

// nanBits are the positive canonical NaN for each that arithmetic made, and what moves bits did to the others.
func nanBits() string {
	var b []byte
	for i := range 14 {
		bits := uint64(0x7ff8000000000000)
		switch i {
		case 9: // neg of 7ff8000000000001
			bits = 0xfff8000000000001
		case 10: // neg of 0 with a sign
			bits = 0
		}
		b = binary.LittleEndian.AppendUint64(b, bits)
	}
	return string(b)
}

// reports calls each function of the grid with numbers that fit some of them, counts and measures, writes to stdout what
// the calls gave, and traps.
func reports() []byte {
	p := wasmbytes.Program{Imports: []wasmbytes.Import{wasmbytes.System("fd_write")}, MinPages: 1, Data: append([]byte{100, 0, 0, 0, 64, 0, 0, 0}, "lines_read"...)}
	var b []byte
	for round := range int32(2) {
		for i, c := range wasmbytes.GridCalls() {
			b = append(b, i32(100+4*(8*round+int32(i)))...)
			for k, param := range c.Params {
				switch param {
				case 'I':
					b = append(b, wasmbytes.Const64(int64(round)-1)...)
				case 'F':
					b = append(b, wasmbytes.ConstF64(math.Pi*float64(round))...)
				default:
					b = append(b, i32([]int32{8, 10 - 5*round, 40}[k])...)
				}
			}
			if round == 0 {
				p.Imports = append(p.Imports, c.Import())
			}
			b = append(b, code(call(uint32(i+1)), op(0x36, 2, 0))...)
		}
	}
	p.Funcs = []wasmbytes.Func{{Code: code(b, i32(1), i32(0), i32(1), i32(40), call(0), drop, []byte{0x00})}}
	return p.Bytes()
}

// trace is all that an outcome shows.
func trace(out grid.Outcome, stdout, stderr string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "exit %d, memory %d, fuel %d, calls %d\n", out.Exit, out.Memory, out.Fuel, out.Calls)
	for _, m := range out.Metrics {
		fmt.Fprintf(&b, "%+v\n", m)
	}
	if out.Fault != nil {
		fmt.Fprintf(&b, "fault %v: %s\n%s\n", out.Fault.Code, out.Fault.Message, out.Fault.Stack)
	}
	fmt.Fprintf(&b, "stdout %q\nstderr %q\n", stdout, stderr)
	if out.Out == nil {
		return b.String(), nil
	}
	err := fs.WalkDir(out.Out, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(out.Out, path)
		fmt.Fprintf(&b, "%s: %x\n", path, data)
		return err
	})
	return b.String(), err
}

// TestDeterministicGuests checks that a guest's outcome, its fuel included, is the same whenever, beside
// whomever and on whichever engine it runs. Engines that open gives must not share what they keep. The
// Go toolchain must be at hand.
func TestDeterministicGuests(t *testing.T, open ...func(t *testing.T, load ModuleLoader) grid.Engine) {
	if len(open) == 1 {
		open = append(open, open[0])
	}
	loads := &engineTest{modules: map[cid.Cid][]byte{}}
	binary, err := hostileBinary()
	if err != nil {
		t.Fatal(err)
	}
	all := traps()
	mounts := map[string]fs.FS{"/in": fstest.MapFS{"b": {Data: []byte("b")}, "a/c": {Data: []byte("c")}, "a/b": {}}, "/models": fstest.MapFS{"m": {}}}
	guests := map[string]grid.Guest{
		"Go":          {Module: loads.add(binary), Args: []string{"hostile", "world"}, Env: []string{"A=1"}, Mounts: mounts, Seed: [32]byte{1}},
		"links":       {Module: loads.add(binary), Args: []string{"hostile", "links"}},
		"full":        {Module: loads.add(binary), Args: []string{"hostile", "wide"}, Limits: grid.Limits{Files: 100}},
		"NaNs":        {Module: loads.add(nans())},
		"fib":         {Module: loads.add(wasmbytes.Program{MinPages: 1, Funcs: []wasmbytes.Func{fib(0), {Code: code(i32(20), call(0), drop)}}}.Bytes())},
		"random":      {Module: loads.add(wasmbytes.Random(1000)), Seed: [32]byte{2}},
		"grown":       {Module: loads.add(grown(7)), Limits: grid.Limits{Memory: 4 << 20}},
		"trap":        {Module: loads.add(all["store 36"].binary)},
		"recursion":   {Module: loads.add(all["recursion"].binary)},
		"fuel":        {Module: loads.add(wasmbytes.Loop()), Limits: grid.Limits{Fuel: 1_000_000}},
		"reports":     {Module: loads.add(reports())},
		"canary":      {Module: loads.add(canary(1)), Args: []string{"x"}},
		"memory.copy": {Module: loads.add(program(wasmbytes.Program{MinPages: 40}, wasmbytes.Forever(i32(1), i32(0), i32(40<<16-1), wasmbytes.Misc(10, 0, 0)))), Limits: grid.Limits{Fuel: 5_000_000}},
	}
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	var engines []grid.Engine
	for _, open := range open {
		engines = append(engines, open(t, loads.load))
	}
	if (&engineTest{Engine: engines[0]}).run(t, grid.Guest{Module: loads.add(wasmbytes.Spin(10))}).Fuel == 0 {
		delete(guests, "fuel")
		delete(guests, "memory.copy")
		t.Log("the engine does not count fuel: not compared")
	}
	run := func(e grid.Engine, g grid.Guest) (string, error) {
		var stdout, stderr bytes.Buffer
		g.Stdout, g.Stderr = &stdout, &stderr
		out, err := e.Run(context.Background(), &g)
		if err != nil {
			return "", err
		}
		return trace(out, stdout.String(), stderr.String())
	}
	want := map[string]string{}
	var mu sync.Mutex
	differing := map[string]bool{} // once is enough
	check := func(how, name string, e grid.Engine) {
		got, err := run(e, guests[name])
		mu.Lock()
		defer mu.Unlock()
		if (err != nil || got != want[name]) && !differing[name] {
			differing[name] = true
			t.Errorf("%s, %s: %v\n%s", name, how, err, firstDifference(got, want[name]))
		}
	}
	names := slices.Sorted(keys(guests))
	for _, name := range names {
		if want[name], err = run(engines[0], guests[name]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"lines", "lines_read"} {
		if !strings.Contains(want["reports"], "{Name:"+name+" Kind:counter ") {
			t.Errorf("reports: %s", want["reports"])
		}
	}
	if bits := fmt.Sprintf("stdout %q\n", nanBits()); !strings.Contains(want["NaNs"], bits) {
		t.Errorf("NaNs: %s, want %s", want["NaNs"], bits)
	}
	for i, e := range engines {
		for _, name := range names {
			for range rounds / 2 {
				check(fmt.Sprintf("alone on engine %d", i), name, e)
			}
		}
	}
	var wg sync.WaitGroup
	for i, e := range engines {
		for w := range 2 {
			wg.Go(func() {
				for r := range rounds / 4 {
					for j := range names {
						check(fmt.Sprintf("among others on engine %d", i), names[(j+w*3+r)%len(names)], e)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, e := range engines {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// firstDifference shows two texts from shortly before where they part.
func firstDifference(got, want string) string {
	n := 0
	for n < len(got) && n < len(want) && got[n] == want[n] {
		n++
	}
	from := max(n-100, 0)
	return fmt.Sprintf("got  …%.300s\nwant …%.300s", got[from:], want[from:])
}
