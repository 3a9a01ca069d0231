package image_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

// bench calls a function of an instance, and resets the instance, again and again.
func bench(b *testing.B, inst *image.Instance, name string, args ...uint64) {
	f := inst.Module().ExportedFunction(name)
	stack := make([]uint64, 4)
	step := func() {
		copy(stack, args)
		if err := f.CallWithStack(ctx, stack); err != nil {
			b.Fatal(err)
		}
		if err := inst.Reset(); err != nil {
			b.Fatal(err)
		}
	}
	step()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		step()
	}
}

// small is a guest as C makes them: 2 pages, a counter, and a call that writes to three places.
func small() []byte {
	a := pokes()
	a.functions = append(a.functions, function{"work", []byte{i32}, []byte{i32}, []byte{
		0x41, 0, 0x20, 0, 0x36, 2, 0,
		0x41, 0x80, 0x80, 1, 0x20, 0, 0x36, 2, 0, // at 16384
		0x41, 0x80, 0x80, 4, 0x20, 0, 0x36, 2, 0, // at 65536
		0x23, 0, 0x41, 1, 0x6a, 0x24, 0, 0x23, 0,
	}})
	return a.bytes()
}

// BenchmarkSmall is call and reset of a small guest by each way, against a new instance each time.
func BenchmarkSmall(b *testing.B) {
	for _, way := range ways {
		b.Run(way.String(), func(b *testing.B) {
			l := newLab(b, way, small(), wazero.NewRuntimeConfig(), nil)
			bench(b, l.bind(b, 200*page), "work", 5)
		})
	}
	b.Run("fresh", func(b *testing.B) {
		l := newLab(b, image.Best, small(), wazero.NewRuntimeConfig(), nil)
		benchFresh(b, l, "work", 5)
	})
}

func benchFresh(b *testing.B, l *lab, name string, args ...uint64) {
	b.ReportAllocs()
	for b.Loop() {
		mod := l.fresh(b)
		call(b, mod, name, args...)
		mod.Close(ctx)
	}
}

// BenchmarkC is the same for a guest of a C compiler; and how long a call takes in an instance that is kept
// as it is, without a reset.
func BenchmarkC(b *testing.B) {
	binary := cReactor(b)
	for _, way := range ways {
		b.Run(way.String(), func(b *testing.B) {
			l := newLab(b, way, binary, wazero.NewRuntimeConfig(), nil)
			bench(b, l.bind(b, 64<<20), "noop", 5)
		})
	}
	b.Run("fresh", func(b *testing.B) {
		benchFresh(b, newLab(b, image.Best, binary, wazero.NewRuntimeConfig(), nil), "noop", 5)
	})
	b.Run("kept", func(b *testing.B) {
		l := newLab(b, image.Best, binary, wazero.NewRuntimeConfig(), nil)
		f, stack := l.fresh(b).ExportedFunction("noop"), []uint64{5}
		for b.Loop() {
			if err := f.CallWithStack(ctx, stack); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGo is the same for a guest of the Go toolchain.
func BenchmarkGo(b *testing.B) {
	binary, engine := reactor(b), goEngine(b)
	for _, way := range ways {
		b.Run(way.String(), func(b *testing.B) {
			l := newLab(b, way, binary, engine, nil)
			bench(b, l.bind(b, 64<<20), "noop", 5)
		})
	}
	b.Run("fresh", func(b *testing.B) {
		benchFresh(b, newLab(b, image.Best, binary, engine, nil), "noop", 5)
	})
	b.Run("json", func(b *testing.B) { // once warm
		l := newLab(b, image.Best, binary, engine, func(mod api.Module) {
			for range 3 {
				if _, err := goTask(mod, 4, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
		bench(b, l.bind(b, 64<<20), "task", 4, 0)
	})
}

// BenchmarkParallel counts the tasks of all cores together, each with its instance from a pool.
func BenchmarkParallel(b *testing.B) {
	run := func(b *testing.B, binary []byte, engine wazero.RuntimeConfig, name string) {
		l := newLab(b, image.Best, binary, engine, nil)
		p := image.NewPool[*image.Instance](image.Bounds{Count: 8, Bytes: 64 << 20})
		defer p.Close()
		for range 4 {
			p.Give(l.img, l.bind(b, 64<<20))
		}
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			var funcs = map[*image.Instance]api.Function{}
			stack := make([]uint64, 4)
			for pb.Next() {
				inst, ok := p.Take(l.img)
				if !ok {
					b.Error("the pool is empty")
					return
				}
				f := funcs[inst]
				if f == nil {
					f = inst.Module().ExportedFunction(name)
					funcs[inst] = f
				}
				stack[0] = 5
				if err := f.CallWithStack(ctx, stack); err != nil {
					b.Error(err)
				}
				p.Give(l.img, inst)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	}
	b.Run("small", func(b *testing.B) { run(b, small(), wazero.NewRuntimeConfig(), "work") })
	b.Run("go", func(b *testing.B) { run(b, reactor(b), goEngine(b), "noop") })
}

// BenchmarkBind is a new instance of the image, with a call.
func BenchmarkBind(b *testing.B) {
	binary, engine := reactor(b), goEngine(b)
	for name, binary := range map[string][]byte{"small": small(), "go": binary} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b, image.Best, binary, engine, nil)
			b.ResetTimer()
			for range b.N {
				l.bind(b, 64<<20).Close()
			}
		})
	}
}

// BenchmarkReset is a reset alone, by how many pages were written.
func BenchmarkReset(b *testing.B) {
	sys := os.Getpagesize()
	for _, way := range ways {
		for _, dirty := range []int{0, 1, 8, 64, 256} {
			b.Run(fmt.Sprintf("%v/%d", way, dirty), func(b *testing.B) {
				s := openStore(b, way)
				img, err := s.New(bytes.Repeat([]byte{1}, 48*page)) // 3 MiB
				if err != nil {
					b.Fatal(err)
				}
				defer img.Close()
				m, err := img.Memory(64 << 20)
				if err != nil {
					b.Fatal(err)
				}
				defer m.Close()
				m.Allocate(0, 0)
				mem := m.Reallocate(0)
				for b.Loop() {
					for i := range dirty {
						mem[i*3*sys%len(mem)]++
					}
					if err := m.Reset(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkLive measures what a live Go instance takes up: by the system's own account, after a call and
// a reset.
func BenchmarkLive(b *testing.B) {
	binary, engine := reactor(b), goEngine(b)
	measure := func(b *testing.B, open func(l *lab) api.Module) {
		l := newLab(b, image.Best, binary, engine, nil)
		const n = 50
		for range b.N {
			var mods []api.Module
			before := gridtest.PrivateBytes(b)
			for range n {
				mods = append(mods, open(l))
			}
			b.ReportMetric(float64(gridtest.PrivateBytes(b)-before)/n/1024, "KiB/instance")
			for _, m := range mods {
				m.Close(ctx)
			}
		}
	}
	b.Run("image", func(b *testing.B) {
		measure(b, func(l *lab) api.Module {
			inst := l.bind(b, 64<<20)
			call(b, inst.Module(), "noop", 1)
			if err := inst.Reset(); err != nil {
				b.Fatal(err)
			}
			return inst.Module()
		})
	})
	b.Run("fresh", func(b *testing.B) {
		measure(b, func(l *lab) api.Module {
			mod := l.fresh(b)
			call(b, mod, "noop", 1)
			return mod
		})
	})
}
