package guestreport

import (
	"context"
	"reflect"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// memory is a guest's, of as many bytes as it has.
type memory struct {
	api.Memory
	b []byte
}

func (m memory) Read(at, n uint32) ([]byte, bool) {
	if uint64(at)+uint64(n) > uint64(len(m.b)) {
		return nil, false
	}
	return m.b[at : at+n : at+n], true
}

func TestReset(t *testing.T) {
	var w wasi.State
	w.Reset(wasi.Config{})
	mem := memory{b: []byte("zab")}
	told := 0
	var s State
	s.Reset(func(uint64, uint64) { told++ })
	ctx := context.WithValue(t.Context(), Key{}, &s)
	for _, at := range []uint64{0, 2, 1, 0} {
		if errno := count(ctx, &w, mem, []uint64{at, 1, 3}); errno != 0 {
			t.Error(errno)
		}
	}
	progress(ctx, &w, mem, []uint64{1, 2})
	first := s.Metrics()
	want := []grid.Metric{{Name: "a", Kind: grid.Counter, Count: 3}, {Name: "b", Kind: grid.Counter, Count: 3}, {Name: "z", Kind: grid.Counter, Count: 6}}
	if !reflect.DeepEqual(first, want) || told != 1 {
		t.Errorf("%v, told %d times", first, told)
	}
	// The next guest has nothing of it, and changes nothing of what was handed out.
	s.Reset(nil)
	progress(ctx, &w, mem, []uint64{1, 2})
	if errno := observe(ctx, &w, mem, []uint64{0, 1, api.EncodeF64(1)}); errno != 0 || told != 1 || !reflect.DeepEqual(first, want) || len(s.Metrics()) != 1 {
		t.Errorf("%v, told %d times, %v, %v", errno, told, first, s.Metrics())
	}
	// Without a state it is lost, and no different.
	if errno := count(t.Context(), &w, mem, []uint64{0, 1, 1}); errno != 0 {
		t.Error(errno)
	}
	if errno := count(t.Context(), &w, mem, []uint64{3, 1, 1}); errno != vfs.EFAULT {
		t.Error(errno)
	}
}

func BenchmarkReport(b *testing.B) {
	var w wasi.State
	w.Reset(wasi.Config{})
	var names []byte
	for i := range grid.MaxMetrics {
		names = append(names, "metric_"...)
		names = append(names, byte('a'+i%26), byte('a'+i/26))
	}
	mem := memory{b: names}
	var s State
	s.Reset(func(uint64, uint64) {})
	ctx := context.WithValue(b.Context(), Key{}, &s)
	for i := range grid.MaxMetrics {
		count(ctx, &w, mem, []uint64{uint64(i) * 9, 9, 1})
	}
	b.Run("progress", func(b *testing.B) {
		for b.Loop() {
			progress(ctx, &w, mem, []uint64{1, 2})
		}
	})
	for name, at := range map[string]uint64{"first": 0, "last": (grid.MaxMetrics - 1) * 9} {
		b.Run("count/"+name, func(b *testing.B) {
			for b.Loop() {
				count(ctx, &w, mem, []uint64{at, 9, 1})
			}
		})
	}
}
