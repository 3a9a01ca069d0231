package image_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

const page = 64 << 10

func TestOpen(t *testing.T) {
	for _, way := range append([]image.Way{image.Best}, ways...) {
		s, err := image.Open(image.Config{Way: way})
		if err != nil {
			t.Fatal(err)
		}
		if s.Way() < way || s.Way() == image.Best {
			t.Errorf("asked for %v, got %v", way, s.Way())
		}
		if s.Way() != max(way, image.Scan) && s.Why() == "" {
			t.Errorf("%v instead of %v, without a reason", s.Way(), way)
		}
		t.Logf("%v: %v %s", way, s.Way(), s.Why())
		if got := (s.Stats()); got != (image.Stats{}) {
			t.Errorf("a new store has %+v", got)
		}
		s.Close()
		s.Close()
		if _, err := s.New(nil); !errors.Is(err, grid.Unavailable) {
			t.Errorf("an image of a closed store: %v", err)
		}
	}
	if _, err := image.Open(image.Config{Way: 99}); !errors.Is(err, grid.Invalid) {
		t.Errorf("way 99: %v", err)
	}
}

// TestMemory writes at random to a memory that grows, and resets it: against a plain model.
func TestMemory(t *testing.T) {
	for _, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			s := openStore(t, way)
			r := rand.New(rand.NewPCG(1, uint64(way)))
			for _, pages := range []int{0, 1, 5, 40} {
				want := make([]byte, pages*page)
				for range pages * 3 {
					want[r.IntN(len(want))] = byte(r.Uint32())
				}
				img, err := s.New(want)
				if err != nil {
					t.Fatal(err)
				}
				limit := len(want) + 100*page
				m, err := img.Memory(uint64(limit))
				if err != nil {
					t.Fatal(err)
				}
				img.Close()
				for round := range 300 {
					lm := m.Allocate(0, 0)
					b := lm.Reallocate(0)
					if len(b) != len(want) || cap(b) != len(b) || !bytes.Equal(b, want) {
						t.Fatalf("%d pages, round %d: the memory is not the image", pages, round)
					}
					if grow := r.IntN(4); grow > 0 {
						b = lm.Reallocate(uint64(len(want) + grow*page))
						if len(b) != len(want)+grow*page || !bytes.Equal(b[:len(want)], want) || !bytes.Equal(b[len(want):], make([]byte, grow*page)) {
							t.Fatalf("%d pages, round %d: growing changed the memory, or what is new is not zero", pages, round)
						}
					}
					if round%50 == 13 && lm.Reallocate(uint64(limit)+1) != nil {
						t.Fatal("grew beyond its limit")
					}
					if round%50 == 17 {
						b = lm.Reallocate(uint64(limit)) // beyond the budget
						for i := range b {
							b[i]++
						}
					}
					for range r.IntN(60) {
						if len(b) > 0 {
							b[r.IntN(len(b))] ^= 0x55
						}
					}
					lm.Free()
					if err := m.Reset(); err != nil {
						t.Fatal(err)
					}
				}
				if m.Bytes() > 2<<20 && way != image.Copy {
					t.Errorf("an idle memory keeps %d bytes", m.Bytes())
				}
				m.Close()
			}
			if got := s.Stats(); got != (image.Stats{}) {
				t.Errorf("left over: %+v", got)
			}
		})
	}
}

func TestImageBytes(t *testing.T) {
	sys := uint64(os.Getpagesize())
	for _, way := range []image.Way{image.Best, image.Copy} {
		s := openStore(t, way)
		mem := make([]byte, 100*page)
		mem[0], mem[20*page] = 1, 1
		img, err := s.New(mem)
		if err != nil {
			t.Fatal(err)
		}
		want := 2 * sys // holes and the zeros at the end cost nothing
		if s.Way() == image.Copy {
			want = 20*page + sys
		}
		if img.Bytes() != want || img.Size() != 100*page || s.Stats() != (image.Stats{Images: 1, Bytes: want}) {
			t.Errorf("%v: %d bytes of %d, %+v; want %d", s.Way(), img.Bytes(), img.Size(), s.Stats(), want)
		}
		m, err := img.Memory(200 * page)
		if err != nil {
			t.Fatal(err)
		}
		img.Close()
		img.Close()
		if _, err := img.Memory(200 * page); !errors.Is(err, grid.Unavailable) {
			t.Errorf("a memory of a closed image: %v", err)
		}
		if s.Stats().Images != 1 || s.Stats().Memories != 1 {
			t.Errorf("a memory did not keep its image: %+v", s.Stats())
		}
		s.Close()
		if b := m.Allocate(0, 0).Reallocate(0); b[20*page] != 1 {
			t.Error("the memory lost its image")
		}
		if err := m.Reset(); err != nil {
			t.Errorf("reset after the store was closed: %v", err)
		}
		m.Close()
		m.Close()
		if s.Stats() != (image.Stats{}) {
			t.Errorf("left over: %+v", s.Stats())
		}
	}
}

func TestRefusals(t *testing.T) {
	s, err := image.Open(image.Config{Bytes: 8 << 10, Growth: page})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.New(make([]byte, 1)); !errors.Is(err, grid.Invalid) {
		t.Errorf("part of a page: %v", err)
	}
	if _, err := s.New(bytes.Repeat([]byte{1}, page)); !errors.Is(err, grid.Limit) {
		t.Errorf("more than the store may: %v", err)
	}
	img, err := s.New(make([]byte, page))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := img.Memory(page - 1); !errors.Is(err, grid.Limit) {
		t.Errorf("a limit below the image: %v", err)
	}
	open := func() *image.Memory {
		m, err := img.Memory(10 * page)
		if err != nil {
			t.Fatal(err)
		}
		m.Allocate(0, 0)
		m.Reallocate(page)
		return m
	}
	m := open()
	m.Reallocate(2 * page)
	if err := m.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("an instance that still sees what it grew: %v", err)
	}
	m.Close()
	m = open()
	m.Reallocate(3 * page)
	m.Free()
	if err := m.Reset(); !errors.Is(err, grid.Limit) {
		t.Errorf("grown beyond the bound: %v", err)
	}
	m.Close()
	if err := m.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("closed: %v", err)
	}
	if m.Reallocate(page) != nil {
		t.Error("a closed memory gives bytes")
	}
	m = open()
	m.Spoil()
	if err := m.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("spoiled: %v", err)
	}
	m.Close()
	m = open()
	other := m.Allocate(page, 2*page) // a second instance by mistake
	b := other.Reallocate(page)
	b[0] = 9
	if other.Reallocate(3*page) != nil || m.Reallocate(page)[0] != 0 {
		t.Error("a second instance shares the memory, or has no bound")
	}
	if err := m.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("used twice: %v", err)
	}
	m.Close()
}

func engines() map[string]wazero.RuntimeConfig {
	e := map[string]wazero.RuntimeConfig{"interpreter": wazero.NewRuntimeConfigInterpreter()}
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		e["compiler"] = wazero.NewRuntimeConfig()
	}
	return e
}

// TestInstance plants canaries in every place where a guest has state, and looks for them after a reset.
func TestInstance(t *testing.T) {
	for _, way := range ways {
		for name, engine := range engines() {
			t.Run(way.String()+"/"+name, func(t *testing.T) {
				l := newLab(t, way, pokes().bytes(), engine, nil)
				inst := l.bind(t, 200*page)
				mod := inst.Module()
				check := func(round int) {
					t.Helper()
					for addr, want := range map[uint64]uint64{0: 0, 1000: 0x6c6c6568, 70_000: 1234, 2*page - 4: 0} {
						if got := call(t, mod, "peek", addr); got != want {
							t.Fatalf("round %d: %d at %d, want %d", round, got, addr, want)
						}
					}
					if n := call(t, mod, "size"); n != 2 {
						t.Fatalf("round %d: %d pages", round, n)
					}
					if _, err := mod.ExportedFunction("peek").Call(ctx, 2*page); err == nil {
						t.Fatalf("round %d: a read behind the end", round)
					}
					if n := call(t, mod, "bump"); n != 108 { // hidden in the module
						t.Fatalf("round %d: the counter is %d", round, n)
					}
					if n := mod.ExportedGlobal("shown").Get(); n != 9 {
						t.Fatalf("round %d: the exported counter is %d", round, n)
					}
				}
				r := rand.New(rand.NewPCG(5, 5))
				for round := range 1000 {
					check(round)
					mod.ExportedGlobal("shown").(api.MutableGlobal).Set(77)
					end := uint64(2 * page)
					if round%3 == 0 {
						more := 1 + r.Uint64N(4)
						if round == 300 {
							more = 100
						}
						if got := call(t, mod, "grow", more); got != 2 {
							t.Fatalf("round %d: grow gave %d", round, int32(got))
						}
						end += more * page
						for at := uint64(2 * page); at < end; at += 4096 {
							if call(t, mod, "peek", at) != 0 {
								t.Fatalf("round %d: what was grown at %d is not zero", round, at)
							}
						}
						call(t, mod, "fill", 2*page, 0xcc, end-2*page)
					}
					for range 10 {
						call(t, mod, "poke", r.Uint64N(end-4), 0xbadbad)
					}
					call(t, mod, "poke", 2*page-4, 0xbad)
					call(t, mod, "poke", 1000, 0xbad)
					if round%100 == 50 {
						if _, err := mod.ExportedFunction("trap").Call(ctx); err == nil {
							t.Fatal("no trap")
						}
					}
					if err := inst.Reset(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

func TestInstanceAtItsMaximum(t *testing.T) {
	l := newLab(t, image.Best, pokes().bytes(), wazero.NewRuntimeConfigInterpreter(), nil)
	inst := l.bind(t, 200*page)
	if got := call(t, inst.Module(), "grow", 198); got != 2 {
		t.Fatalf("grow gave %d", int32(got))
	}
	if err := inst.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("an instance that cannot shrink: %v", err)
	}
	if err := inst.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("and again: %v", err)
	}
	inst = l.bind(t, 4*page)
	for _, pages := range []uint64{3, 198, 1 << 15} {
		if got := call(t, inst.Module(), "grow", pages); int32(got) != -1 {
			t.Errorf("grew by %d pages beyond the limit", pages)
		}
	}
	if got := call(t, inst.Module(), "grow", 2); got != 2 {
		t.Errorf("did not grow to the limit: %d", int32(got))
	}
	if err := inst.Reset(); err != nil {
		t.Error(err)
	}
	inst.Spoil()
	if err := inst.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("spoiled: %v", err)
	}
	inst = l.bind(t, 4*page)
	inst.Close()
	inst.Close()
	if err := inst.Reset(); !errors.Is(err, grid.Conflict) {
		t.Errorf("closed: %v", err)
	}
}

func TestBindRefuses(t *testing.T) {
	l := newLab(t, image.Best, pokes().bytes(), wazero.NewRuntimeConfigInterpreter(), nil)
	mem, err := l.img.Memory(10 * page)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	mod := l.fresh(t)
	if _, err := image.Bind(mod, mem); !errors.Is(err, grid.Invalid) {
		t.Errorf("an instance with another memory: %v", err)
	}
	mod.Close(ctx)
	if _, err := l.store.Snapshot(mod, l.layout); !errors.Is(err, grid.Conflict) {
		t.Errorf("a snapshot of a closed instance: %v", err)
	}
	a := pokes()
	a.globals, a.exports = list([]byte{i32, 1, 0x41, 7, 0x0b}), [][]byte{export("shown", 3, 0)}
	other, err := l.rt.InstantiateWithConfig(experimental.WithMemoryAllocator(ctx, mem), a.bytes(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	if _, err := image.Bind(other, mem); !errors.Is(err, grid.Invalid) {
		t.Errorf("an instance of another module: %v", err)
	}
}

// TestNoMemory is about modules that have globals only.
func TestNoMemory(t *testing.T) {
	a := assembly{
		globals:   list([]byte{i32, 1, 0x41, 7, 0x0b}),
		functions: []function{{"bump", nil, []byte{i32}, []byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0, 0x23, 0}}},
	}
	l := newLab(t, image.Best, a.bytes(), wazero.NewRuntimeConfigInterpreter(), nil)
	inst := l.bind(t, 0)
	for range 3 {
		if got := call(t, inst.Module(), "bump"); got != 8 {
			t.Errorf("the counter is %d", got)
		}
		if err := inst.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecycledMemory uses one memory for one instance after another.
func TestRecycledMemory(t *testing.T) {
	for _, way := range ways {
		l := newLab(t, way, pokes().bytes(), wazero.NewRuntimeConfigInterpreter(), nil)
		mem, err := l.img.Memory(10 * page)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 100 {
			mod, err := l.rt.InstantiateModule(experimental.WithMemoryAllocator(ctx, mem), l.code, config)
			if err != nil {
				t.Fatal(err)
			}
			inst, err := image.Bind(mod, mem)
			if err != nil {
				t.Fatal(err)
			}
			if got := call(t, mod, "peek", 5000); got != 0 || call(t, mod, "size") != 2 {
				t.Fatalf("%v, round %d: %d left", way, round, got)
			}
			call(t, mod, "grow", 1)
			call(t, mod, "poke", 5000, 1)
			inst.Module().Close(ctx)
			if err := mem.Reset(); err != nil {
				t.Fatal(err)
			}
		}
		mem.Close()
	}
}

// TestFiles makes and closes images and memories, and counts the process's files and mappings.
func TestFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts in /proc")
	}
	count := func() (files, maps int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		m, _ := os.ReadFile("/proc/self/maps")
		return len(list), bytes.Count(m, []byte("wasm-image"))
	}
	files, maps := count()
	for range 50 {
		s, err := image.Open(image.Config{})
		if err != nil {
			t.Fatal(err)
		}
		img, err := s.New(bytes.Repeat([]byte{1}, page))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			m, err := img.Memory(4 << 30)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			m.Allocate(0, 0).Reallocate(page)[5] = 1
			m.Close()
		}
		img.Close()
		s.Close()
	}
	if f, m := count(); f != files || m != maps {
		t.Errorf("%d files and %d mappings before, %d and %d after", files, maps, f, m)
	}
}

// TestLyingKernel has what poses as the kernel's answers be wrong.
func TestLyingKernel(t *testing.T) {
	openStore(t, image.Pagemap)
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Skip(err)
	}
	defer zero.Close()
	for _, way := range []image.Way{image.Scan, image.Pagemap} {
		if err := image.TryWith(way, zero); err == nil {
			t.Errorf("%v: nothing written was believed", way)
		} else {
			t.Logf("%v: %v", way, err)
		}
	}
}

// The limit of a memory may change between tasks, but never beyond what it was made with.
func TestSetLimit(t *testing.T) {
	for _, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			l := newLab(t, way, pokes().bytes(), wazero.NewRuntimeConfig(), nil)
			inst := l.bind(t, 20*page)
			for _, test := range []struct{ limit, grows uint64 }{{3, 1}, {20, 18}, {2, 0}, {1, 0}, {100, 18}, {10, 8}} {
				inst.Memory().SetLimit(test.limit * page)
				if got := call(t, inst.Module(), "grow", test.grows+1); int32(got) != -1 {
					t.Errorf("limit %d: grew by %d", test.limit, test.grows+1)
				}
				if got := call(t, inst.Module(), "grow", test.grows); got != 2 {
					t.Errorf("limit %d: growing by %d gave %d", test.limit, test.grows, int32(got))
				}
				if err := inst.Reset(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
