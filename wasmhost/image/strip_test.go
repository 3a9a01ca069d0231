package image_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

func segment(at []byte, data string) []byte {
	return wasmbytes.Code([]byte{0}, at, []byte{0x0b}, str(data))
}

func TestStrip(t *testing.T) {
	c := wasmbytes.Const
	constant := [][]byte{{i32, 0, 0x41, 8, 0x0b}}
	for _, test := range []struct {
		name  string
		a     assembly
		most  uint64
		strip bool
	}{
		{"none", assembly{memory: []byte{1, 0, 1}}, page, false},
		{"one", assembly{memory: []byte{1, 0, 1}, data: list(segment(c(3), "abc"))}, page, true},
		{"overlapping", assembly{memory: []byte{1, 0, 2}, data: list(segment(c(70000), "abcdef"), segment(c(70003), "xyzuvw"))}, 2 * page, true},
		{"passive, and counted", assembly{memory: []byte{1, 0, 1}, functions: []function{{name: "f"}}, dataCount: []byte{2}, data: list(segment(c(0), "a"), []byte{1, 1, 'x'})}, page, true},
		{"with a memory's number", assembly{memory: []byte{1, 0, 1}, data: list(append([]byte{2, 0}, segment(c(5), "abc")[1:]...))}, page, true},
		{"at the end", assembly{memory: []byte{1, 0, 1}, data: list(segment(c(page-3), "abc"))}, page, true},
		{"behind the end", assembly{memory: []byte{1, 0, 1}, data: list(segment(c(page-2), "abc"))}, page, false},
		{"far behind the end", assembly{memory: []byte{1, 0, 1}, data: list(segment(c(-2), "abc"))}, page, false},
		{"by a global", assembly{memory: []byte{1, 0, 1}, globals: list(constant...), data: list(segment([]byte{0x23, 0}, "abc"))}, page, false},
		{"too large", assembly{memory: []byte{1, 0, 2}, data: list(segment(c(0), "abc"))}, page, false},
		{"too large for anybody", assembly{memory: []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}, data: list(segment(c(0), "abc"))}, 1 << 60, false},
	} {
		binary := test.a.bytes()
		stripped, mem, err := image.Strip(binary, test.most)
		if err != nil || (mem != nil) != test.strip || !test.strip && !bytes.Equal(stripped, binary) {
			t.Errorf("%s: %d bytes of memory, %v", test.name, len(mem), err)
			continue
		}
		if test.strip {
			equalMemories(t, binary, stripped, mem)
			if len(stripped) >= len(binary) {
				t.Errorf("%s: nothing is gone", test.name)
			}
		}
	}
	a := body(0xfc, 9, 0)
	if _, _, err := image.Strip(a.bytes(), page); err == nil {
		t.Error("took away a segment that is used")
	}
}

// equalMemories makes an instance of a module, and holds its memory against mem.
func equalMemories(t *testing.T, binary, stripped, mem []byte) {
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
	defer rt.Close(ctx)
	mod, err := rt.InstantiateWithConfig(ctx, binary, config)
	if err != nil {
		return
	}
	got := mem
	if n := mod.Memory().Size(); n > 0 {
		if want, _ := mod.Memory().Read(0, n); !bytes.Equal(got, want) {
			t.Error("the memory is not what the engine makes of the segments")
		}
	}
	s, err := image.Open(image.Config{Way: image.Copy})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	img, err := s.New(mem)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Memory(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	img.Close()
	var other api.Module
	other, err = rt.InstantiateWithConfig(experimental.WithMemoryAllocator(ctx, m), stripped, config)
	if err != nil && strings.Contains(err.Error(), "custom section") {
		return // wazero refuses an empty custom section when nothing follows it, as here without the data
	}
	if err != nil {
		t.Fatalf("the stripped module does not run: %v", err)
	}
	if got, _ := other.Memory().Read(0, other.Memory().Size()); !bytes.Equal(got, mem) {
		t.Error("the instance's memory is another")
	}
	other.Close(ctx)
}

// FuzzStrip holds what is stripped against what the engine does with the whole module.
func FuzzStrip(f *testing.F) {
	c := wasmbytes.Const
	f.Add(pokes().bytes())
	f.Add(assembly{memory: []byte{1, 0, 2}, data: list(segment(c(70000), "abcdef"), segment(c(70003), "xyzuvw"))}.bytes())
	f.Add(assembly{memory: []byte{1, 0, 1}, functions: []function{{name: "f"}}, dataCount: []byte{2}, data: list(segment(c(0), "a"), []byte{1, 1, 'x'})}.bytes())
	f.Fuzz(func(t *testing.T, binary []byte) {
		stripped, mem, err := image.Strip(binary, 16*page)
		if err == nil && mem != nil {
			equalMemories(t, binary, stripped, mem)
		}
		samePrepared(t, binary)
	})
}

// samePrepared checks that Prepare gives what the three steps give.
func samePrepared(t *testing.T, binary []byte) {
	t.Helper()
	code, mem, l, err := image.Prepare(binary, 16*page)
	exposed, wantErr := image.Expose(binary)
	var want, wantMem []byte
	var wantLayout *image.Layout
	if wantErr == nil {
		want, wantMem, wantErr = image.Strip(exposed, 16*page)
	}
	if wantErr == nil {
		wantLayout, wantErr = image.Examine(want)
	}
	if (err == nil) != (wantErr == nil) || !bytes.Equal(code, want) || !bytes.Equal(mem, wantMem) || !reflect.DeepEqual(l, wantLayout) {
		t.Errorf("%d bytes, memory of %d, %+v, %v; step by step %d, %d, %+v, %v", len(code), len(mem), l, err, len(want), len(wantMem), wantLayout, wantErr)
	}
}

func TestPrepare(t *testing.T) {
	for _, binary := range [][]byte{pokes().bytes(), wasmbytes.Noop(), wasmbytes.Grow(), wasmbytes.GrowTable(), wasmbytes.Random(2), {}} {
		samePrepared(t, binary)
	}
}

func BenchmarkPrepare(b *testing.B) {
	binary := reactor(b)
	b.SetBytes(int64(len(binary)))
	for b.Loop() {
		if _, _, _, err := image.Prepare(binary, 64<<20); err != nil {
			b.Fatal(err)
		}
	}
}
