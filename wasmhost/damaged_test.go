package wasmhost_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	wb "github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

const mostMemory = 1 << 20 // of the images in these tests

// prepare is what every module goes through before it is compiled: the error is why it is refused.
func prepare(binary []byte) error {
	info, err := module.Check(binary, func(mod, name string) (params, results []byte, ok bool) {
		for _, c := range wb.SystemCalls() {
			if mod == module.Preview1 && c.Name == name {
				i := c.Import()
				return i.Params, i.Results, true
			}
		}
		return nil, nil, false
	})
	if err != nil {
		return err
	}
	instrumented, _, err := rewrite.Instrument(info.Binary, rewrite.Options{Fuel: true, NaN: true})
	if err != nil {
		return err
	}
	// Whether an instance can be put back is no reason to refuse a module.
	exposed, err := image.Expose(instrumented)
	if err == nil {
		exposed, _, err = image.Strip(exposed, mostMemory)
	}
	if err == nil {
		_, err = image.Examine(exposed)
	}
	if err != nil && grid.CodeOf(err) != grid.Invalid && grid.CodeOf(err) != grid.Unsupported && grid.CodeOf(err) != grid.Limit {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestDamagedModules prepares modules of which something is cut off or one bit is wrong: each is refused
// with a reason and advice, or accepted, and never takes memory out of proportion.
func TestDamagedModules(t *testing.T) {
	floats := wb.Program{MinPages: 1, Globals: 1, Tables: []uint32{2}, Elements: []uint32{0}, Data: []byte("data"), Passive: []byte("more"), Funcs: []wb.Func{
		{Params: []byte{wb.F64}, Results: []byte{wb.F64}, Code: wb.Code(wb.Op(0x20, 0), wb.ConstF64(2), []byte{0xa3, 0x9f})},
		{Code: wb.Code(wb.Const(0), wb.ConstF64(-1), wb.Call(0), wb.Op(0x39, 3, 0), wb.Const(0), wb.Const(0), wb.Const(2), wb.Misc(8, 1, 0))},
	}}.Bytes()
	for name, binary := range map[string][]byte{"floats": floats, "random": wb.Random(4), "table": wb.GrowTable(), "grow": wb.Grow()} {
		if err := prepare(binary); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check := func(how string, damaged []byte) {
			var err error
			// A flipped bit may announce a memory of up to mostMemory, or a table of a million.
			if n := allocated(func() { err = prepare(damaged) }); n > 3*mostMemory+uint64(200*len(damaged)) {
				t.Errorf("%s, %s: allocated %d bytes", name, how, n)
			}
			if err == nil {
				return
			}
			if c := grid.CodeOf(err); c != grid.Invalid && c != grid.Unsupported && c != grid.Limit {
				t.Errorf("%s, %s: code %v: %v", name, how, c, err)
			}
		}
		for i := range binary {
			check(fmt.Sprintf("the first %d bytes", i), binary[:i])
			for bit := range 8 {
				damaged := bytes.Clone(binary)
				damaged[i] ^= 1 << bit
				check(fmt.Sprintf("bit %d of byte %d", bit, i), damaged)
			}
		}
	}
}

// TestMonstrousModules prepares modules that are large where they should not be, or that lie: the answer is
// the one wanted, and costs memory in proportion to what they really have.
func TestMonstrousModules(t *testing.T) {
	type imports = []wb.Import
	named := func(mod, name string) []byte {
		return wb.Program{MinPages: 1, Imports: imports{{Module: mod, Name: name}}, Funcs: []wb.Func{{}}}.Bytes()
	}
	raw := func(sections ...[]byte) []byte {
		return slices.Concat(append([][]byte{[]byte(wb.Header)}, sections...)...)
	}
	section := func(id byte, parts ...[]byte) []byte { return wb.Section(nil, id, slices.Concat(parts...)) }
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	start := slices.Concat(section(1, []byte{1, 0x60, 0, 0}), section(3, []byte{1, 0}), section(5, []byte{1, 0, 1}), section(7, []byte("\x01\x06_start\x00\x00")))
	body := func(b ...byte) []byte { return section(10, []byte{1}, wb.U32(nil, uint32(len(b))), b) }
	code := body(0, 0x0b)
	locals := func(groups int, each uint32) []byte {
		b := wb.U32(nil, uint32(groups))
		for range groups {
			b = append(wb.U32(b, each), wb.F64)
		}
		return append(b, 0x0b)
	}
	// Two active segments over the same bytes, and one outside: that is what the engine decides on.
	overlap := section(11, []byte{3, 0, 0x41, 0, 0x0b, 4, 'a', 'b', 'c', 'd', 0, 0x41, 2, 0x0b, 4, 'e', 'f', 'g', 'h', 0, 0x41, 0x7f, 0x0b, 1, 'x'})
	names := func(n int) []byte {
		list := slices.Concat([]byte{1, 0}, wb.U32(nil, uint32(n)), bytes.Repeat([]byte("n"), n))
		return section(0, []byte("\x04name\x01"), wb.U32(nil, uint32(len(list))), list)
	}
	for _, test := range []struct {
		name   string
		binary []byte
		code   grid.Code // 0 if it is fine
		word   string
	}{
		{"a million locals", raw(start, body(locals(1, 1_000_000)...)), grid.Limit, "1000000 locals"},
		{"a million locals in groups", raw(start, body(locals(100, 10_000)...)), grid.Limit, "locals in one function"},
		{"locals that overflow", raw(start, body(append(append([]byte{2}, append(huge, wb.F64)...), append(huge, wb.F64, 0x0b)...)...)), grid.Limit, "locals in one function"},
		{"100 MB of names", raw(start, code, names(100<<20)), grid.Limit, "bytes"},
		{"60 MB of names", raw(start, code, names(60<<20)), 0, ""},
		{"a name that is longer than its section", raw(start, code, section(0, []byte("\x04name\x01"), huge)), 0, ""},
		{"nested", raw(start, body(slices.Concat([]byte{0}, bytes.Repeat([]byte{0x02, 0x40}, 300_000), bytes.Repeat([]byte{0x0b}, 300_001))...)), grid.Limit, "nested blocks"},
		{"overlapping segments", raw(start, code, overlap), 0, ""},
		{"a segment that is not there", raw(start, code, section(11, []byte{1, 0, 0x41, 0, 0x0b}, huge)), grid.Invalid, "announced"},
		{"segments that are not there", raw(start, code, section(11, []byte{0xff, 0xff, 0x3f})), grid.Invalid, "announced"},
		{"a section that lies", raw(start, append([]byte{10}, huge...)), grid.Invalid, "truncated"},
		{"a section that ends early", raw(start, section(10, []byte{1, 100, 0, 0x0b})), grid.Invalid, "100 bytes are announced"},
		{"functions that are not there", raw(section(3, []byte{0xff, 0xff, 0x3f, 0})), grid.Invalid, "truncated"},
		{"import of nothing", named("", ""), grid.Unsupported, "not provided"},
		{"import with a NUL", named(module.Preview1, "fd_write\x00"), grid.Unsupported, `"fd_write\x00"`},
		{"import with a long name", named(strings.Repeat("m", 1<<20), strings.Repeat("n", 1<<20)), grid.Unsupported, "not provided"},
		{"import that is no text", named("\xff\xfe", "x"), grid.Invalid, "damaged"},
		{"import of the fuel", named(rewrite.ImportModule, rewrite.ImportRefuel), grid.Unsupported, "not provided"},
		{"import that ends early", raw(section(2, []byte{1}, huge)), grid.Invalid, "damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var err error
			n := allocated(func() { err = prepare(test.binary) })
			if grid.CodeOf(err) != test.code && !(test.code == 0 && err == nil) || !strings.Contains(fmt.Sprint(err), test.word) {
				t.Errorf("%.300v (%v), want %v with %q", err, grid.CodeOf(err), test.code, test.word)
			}
			if err != nil && grid.AdviceOf(err) == "" {
				t.Errorf("no advice: %.300v", err)
			}
			if most := 3*mostMemory + uint64(12*len(test.binary)); n > most {
				t.Errorf("%d bytes: allocated %d, want %d at most", len(test.binary), n, most)
			}
			if err != nil && len(err.Error()) > 4096 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
}
