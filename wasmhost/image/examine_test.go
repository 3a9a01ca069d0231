package image_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

func body(code ...byte) assembly {
	return assembly{
		memory: []byte{1, 0, 1}, tables: []byte{1, 0x70, 0, 4},
		functions: []function{{name: "f", code: code}},
		data:      list([]byte{1, 1, 'x'}), dataCount: []byte{1},
		elements: list([]byte{1, 0, 1, 0}),
	}
}

func TestExamineRefuses(t *testing.T) {
	c := wasmbytes.Const
	three := wasmbytes.Code(c(0), c(0), c(0))
	global := func(g ...byte) assembly { return assembly{globals: list(g)} }
	imported := func(desc ...byte) assembly {
		return assembly{imports: list(wasmbytes.Code(str("env"), str("x"), desc))}
	}
	for _, test := range []struct {
		name string
		a    assembly
		want image.Reason
	}{
		{"start", assembly{functions: []function{{name: "f"}}, start: []byte{0}}, image.StartFunction},
		{"hidden global", global(i32, 1, 0x41, 0, 0x0b), image.HiddenGlobal},
		{"vector", global(append([]byte{0x7b, 1, 0xfd, 12}, append(make([]byte, 16), 0x0b)...)...), image.WideGlobal},
		{"funcref", global(0x70, 1, 0xd0, 0x70, 0x0b), image.WideGlobal},
		{"externref", global(0x6f, 1, 0xd0, 0x6f, 0x0b), image.WideGlobal},
		{"imported memory", imported(2, 0, 1), image.ImportedState},
		{"imported table", imported(1, 0x70, 0, 1), image.ImportedState},
		{"imported global", imported(3, i32, 1), image.ImportedState},
		{"imported tag", imported(4, 0, 0), image.UnknownFeature},
		{"shared memory", assembly{memory: []byte{1, 3, 1, 2}}, image.Threads},
		{"64-bit memory", assembly{memory: []byte{1, 4, 1}}, image.UnknownFeature},
		{"two memories", assembly{memory: []byte{2, 0, 1, 0, 1}}, image.UnknownFeature},
		{"atomic", body(0xfe, 3, 0), image.Threads},
		{"table.set", body(append(c(0), 0xd0, 0x70, 0x26, 0)...), image.TableWrites},
		{"table.init", body(append(three, 0xfc, 12, 0, 0)...), image.TableWrites},
		{"table.copy", body(append(three, 0xfc, 14, 0, 0)...), image.TableWrites},
		{"table.grow", body(append([]byte{0xd0, 0x70, 0x41, 1}, 0xfc, 15, 0, 0x1a)...), image.TableWrites},
		{"table.fill", body(append(append(c(0), 0xd0, 0x70, 0x41, 1), 0xfc, 17, 0)...), image.TableWrites},
		{"memory.init", body(append(three, 0xfc, 8, 0, 0)...), image.SegmentUse},
		{"data.drop", body(0xfc, 9, 0), image.SegmentUse},
		{"elem.drop", body(0xfc, 13, 0), image.SegmentUse},
		// Opcodes in disguise: longer encodings of the same number.
		{"long table.fill", body(append(append(c(0), 0xd0, 0x70, 0x41, 1), 0xfc, 0x91, 0x80, 0, 0)...), image.TableWrites},
		{"long data.drop", body(0xfc, 0x89, 0x80, 0x80, 0x80, 0, 0), image.SegmentUse},
		{"unreachable", body(0x00, 0xfc, 9, 0), image.SegmentUse},
		{"behind a branch table", body(0x02, 0x40, 0x41, 0, 0x0e, 2, 0, 1, 0, 0x0b, 0xfc, 9, 0), image.SegmentUse},
		{"throw", body(0x08, 0), image.UnknownFeature},
		{"call_ref", body(0x14, 0), image.UnknownFeature},
		{"struct.new", body(0xfb, 0, 0), image.UnknownFeature},
		{"unknown vector", body(0xfd, 0xff, 3), image.UnknownFeature},
		{"load of another memory", body(append(c(0), 0x28, 0x42, 1, 0)...), image.UnknownFeature},
	} {
		err := image.Reusable(test.a.bytes())
		if !errors.Is(err, test.want) || !errors.Is(err, grid.Unsupported) || grid.AdviceOf(err) == "" {
			t.Errorf("%s: %v; want %v", test.name, err, test.want)
		}
	}
}

func TestExamineDamaged(t *testing.T) {
	whole := pokes().bytes()
	if _, err := image.Expose(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := image.Expose(whole[:n]); err != nil && !errors.Is(err, grid.Invalid) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	swapped := wasmbytes.Section(wasmbytes.Section(slices.Clone(whole[:8]), 3, []byte{0}), 1, []byte{0})
	twice := wasmbytes.Section(wasmbytes.Section(slices.Clone(whole[:8]), 1, []byte{0}), 1, []byte{0})
	for _, b := range [][]byte{nil, []byte("\x7fELF"), swapped, twice, body(0x0b).bytes(), body(0x02, 0x40).bytes(), body(0x41, 0x80, 0x80, 0x80, 0x80, 0x80, 0).bytes()} {
		if err := image.Reusable(b); !errors.Is(err, grid.Invalid) {
			t.Errorf("%.20x: %v", b, err)
		}
	}
	if err := image.Reusable(make([]byte, 64<<20+1)); !errors.Is(err, grid.Limit) {
		t.Errorf("too long: %v", err)
	}
}

// TestExamineAccepts has one instruction of each kind, which the engine must find valid as well.
func TestExamineAccepts(t *testing.T) {
	c := wasmbytes.Const
	vec := append([]byte{0xfd, 12}, make([]byte, 16)...)
	drop := []byte{0x1a}
	code := wasmbytes.Code(
		[]byte{0x02, 0x40, 0x03, 0x7f, 0x41, 1, 0x0b, 0x04, 0x40, 0x01, 0x05, 0x0b, 0x0b}, // block, loop, if, nop, else
		[]byte{0x02, 0x40, 0x41, 0, 0x0e, 1, 0, 0, 0x0b},                                  // br_table
		c(0), []byte{0x0d, 0}, c(0), []byte{0x11, 0, 0}, // br_if, call_indirect
		c(1), c(2), c(0), []byte{0x1b}, drop, c(1), c(2), c(0), []byte{0x1c, 1, i32}, drop, // select
		c(0), []byte{0x25, 0}, drop, // table.get
		[]byte{0x3f, 0}, drop, c(0), []byte{0x40, 0}, drop,
		[]byte{0x42, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f}, drop,
		[]byte{0x43, 0x0b, 0xfc, 9, 0}, drop, []byte{0x44, 0xfc, 9, 0, 0xfc, 9, 0, 0x0b, 0x0b}, drop, // numbers that look like code
		[]byte{0xd0, 0x70, 0xd1}, drop, []byte{0xd2, 0}, drop,
		[]byte{0x43, 0, 0, 0, 0, 0xfc, 0}, drop, // i32.trunc_sat_f32_s
		c(0), c(0), c(0), []byte{0xfc, 10, 0, 0}, c(0), c(0), c(0), []byte{0xfc, 11, 0}, []byte{0xfc, 16, 0}, drop,
		c(0), []byte{0xfd, 0, 4, 0}, drop, vec, vec, append([]byte{0xfd, 13}, make([]byte, 16)...), drop,
		vec, []byte{0xfd, 21, 0}, drop, c(0), vec, []byte{0xfd, 84, 0, 0, 0}, drop, c(0), []byte{0xfd, 92, 2, 0}, drop,
		vec, vec, []byte{0xfd, 0xae, 1}, drop, // i32x4.add
		c(0), []byte{0x28, 2, 0xff, 0xff, 3}, drop, []byte{0x0f},
	)
	a := body(code...)
	a.globals = list(append([]byte{0x7b, 0}, append(vec, 0x0b)...), []byte{0x70, 0, 0xd2, 0, 0x0b}, []byte{i64, 1, 0x42, 1, 0x0b})
	a.exports = [][]byte{export("v", 3, 0), export("g", 3, 2), export("again", 3, 2)}
	l, err := image.Examine(a.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if want := []image.Global{{Name: "g", Type: i64}}; !l.Memory || !slices.Equal(l.Globals, want) {
		t.Errorf("%+v", l)
	}
	validate(t, a.bytes())
	if b, err := image.Expose(a.bytes()); err != nil || !bytes.Equal(b, a.bytes()) {
		t.Errorf("a module with nothing hidden was changed (%v)", err)
	}
}

func validate(t *testing.T, binary []byte) {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	if _, err := rt.CompileModule(ctx, binary); err != nil {
		t.Errorf("the engine refuses it: %v", err)
	}
}

func TestExpose(t *testing.T) {
	hidden := list([]byte{i32, 1, 0x41, 7, 0x0b}, []byte{i64, 0, 0x42, 1, 0x0b}, []byte{i64, 1, 0x42, 9, 0x0b})
	custom := func(b []byte) []byte { return wasmbytes.Section(slices.Clone(b), 0, append(str("note"), '!')) }
	header := assembly{}.bytes()
	for name, b := range map[string][]byte{
		"no exports":      assembly{memory: []byte{1, 0, 1}, globals: hidden, data: list([]byte{1, 1, 'x'})}.bytes(),
		"exports":         assembly{globals: hidden, exports: [][]byte{export("m", 3, 1)}, functions: []function{{name: "f"}}}.bytes(),
		"globals only":    assembly{globals: hidden}.bytes(),
		"custom sections": append(custom(header), custom(custom(assembly{globals: hidden}.bytes())[8:])...),
	} {
		out, err := image.Expose(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		validate(t, out)
		l, err := image.Examine(out)
		want := []image.Global{{Name: image.ExportPrefix + "0", Type: i32}, {Name: image.ExportPrefix + "2", Type: i64}}
		if err != nil || !slices.Equal(l.Globals, want) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if again, err := image.Expose(out); err != nil || !bytes.Equal(again, out) {
			t.Errorf("%s: exposing twice changes it again (%v)", name, err)
		}
	}
	taken := assembly{globals: hidden, exports: [][]byte{export(image.ExportPrefix+"0", 3, 1)}}
	if _, err := image.Expose(taken.bytes()); !errors.Is(err, grid.Invalid) {
		t.Errorf("a name of ours is taken: %v", err)
	}
}

// FuzzExamine holds what Examine says against the engine: of a module that the engine takes and Examine
// does not refuse, the layout lists all mutable globals.
func FuzzExamine(f *testing.F) {
	for _, a := range []assembly{pokes(), body(0x0b), body(0xfc, 9, 0), {}} {
		f.Add(a.bytes())
	}
	f.Add(wasmbytes.Random(3))
	f.Add(wasmbytes.Grow())
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
	f.Cleanup(func() { rt.Close(ctx) })
	f.Fuzz(func(t *testing.T, binary []byte) {
		out, err := image.Expose(binary)
		if err != nil {
			if c := grid.CodeOf(err); c != grid.Invalid && c != grid.Unsupported && c != grid.Limit {
				t.Fatalf("code %v: %v", c, err)
			}
			return
		}
		l, err := image.Examine(out)
		if err != nil {
			t.Fatalf("exposed, and then: %v", err)
		}
		if _, err := rt.CompileModule(ctx, binary); err != nil {
			return
		}
		code, err := rt.CompileModule(ctx, out)
		if err != nil {
			t.Fatalf("exposing broke it: %v", err)
		}
		defer code.Close(ctx)
		if len(code.ImportedFunctions()) > 0 {
			return
		}
		mod, err := rt.InstantiateModule(ctx, code, config)
		if err != nil {
			return
		}
		defer mod.Close(ctx)
		names := map[string]bool{}
		for _, g := range l.Globals {
			if _, ok := mod.ExportedGlobal(g.Name).(api.MutableGlobal); !ok || names[g.Name] {
				t.Fatalf("%q is no mutable global, or listed twice", g.Name)
			}
			names[g.Name] = true
		}
		if n := mod.(experimental.InternalModule).NumGlobal(); len(names) > n {
			t.Fatalf("%d globals of %d", len(names), n)
		}
	})
}
