package image_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

// goEngine compiles the Go guest once for all tests that use it.
func goEngine(t testing.TB) wazero.RuntimeConfig {
	cache := wazero.NewCompilationCache()
	t.Cleanup(func() { cache.Close(ctx) })
	return wazero.NewRuntimeConfig().WithCompilationCache(cache)
}

// goTask runs a task of the Go guest.
func goTask(mod api.Module, kind uint64, input string) (uint64, error) {
	at, err := mod.ExportedFunction("buffer").Call(ctx)
	if err != nil {
		return 0, err
	}
	if !mod.Memory().WriteString(uint32(at[0]), input) {
		return 0, fmt.Errorf("no room at %d", at[0])
	}
	res, err := mod.ExportedFunction("task").Call(ctx, kind, uint64(len(input)))
	if err != nil {
		return 0, err
	}
	return res[0], nil
}

// TestReactor runs thousands of tasks in one Go instance. Each gives what it gives in a fresh instance,
// although each leaves something in maps, slices and variables that the result depends on.
func TestReactor(t *testing.T) {
	binary := reactor(t)
	engine := goEngine(t)
	inputs := []string{"", "canary", "the quick brown fox", "key5 key5 secret"}
	const kinds = 5
	type job struct {
		kind  uint64
		input string
	}
	want := map[job]uint64{}
	for _, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			l := newLab(t, way, binary, engine, nil)
			if len(want) == 0 {
				for kind := range uint64(kinds) {
					for _, in := range inputs {
						mod := l.fresh(t)
						first, err := goTask(mod, kind, in)
						if err != nil {
							t.Fatal(err)
						}
						if second, err := goTask(mod, kind, in); err != nil || first == second {
							t.Fatalf("task %d keeps no state that a reset could forget (%v)", kind, err)
						}
						mod.Close(ctx)
						want[job{kind, in}] = first
					}
				}
			}
			inst := l.bind(t, 64<<20)
			size := inst.Memory().Size()
			r := rand.New(rand.NewPCG(3, 3))
			rounds := 2000
			if way != image.Scan {
				rounds = 400
			}
			grew := 0
			for round := range rounds {
				j := job{r.Uint64N(kinds), inputs[r.IntN(len(inputs))]}
				if j.kind == 3 && r.IntN(10) > 0 { // rarely: it is the slow one
					j.kind = 1
				}
				got, err := goTask(inst.Module(), j.kind, j.input)
				if err != nil {
					t.Fatal(err)
				}
				if got != want[j] {
					t.Fatalf("round %d: task %d of %q gave %x, a fresh instance %x", round, j.kind, j.input, got, want[j])
				}
				if inst.Memory().Size() > size {
					grew++
				}
				if err := inst.Reset(); err != nil {
					t.Fatal(err)
				}
				if inst.Memory().Size() != size || uint64(inst.Module().Memory().Size()) != size {
					t.Fatal("the memory did not shrink")
				}
			}
			if grew == 0 {
				t.Error("no task grew the memory")
			}
			t.Logf("image: %d KiB of %d; instance: %d KiB; %d of %d tasks grew the memory",
				l.img.Bytes()>>10, l.img.Size()>>10, inst.Bytes()>>10, grew, rounds)
		})
	}
}

// TestReactorWarm takes the snapshot after a task has run, with what it left behind.
func TestReactorWarm(t *testing.T) {
	warm := func(mod api.Module) {
		if _, err := goTask(mod, 1, "warm"); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t, image.Best, reactor(t), goEngine(t), warm)
	fresh := l.fresh(t)
	warm(fresh)
	want, err := goTask(fresh, 1, "x")
	if err != nil {
		t.Fatal(err)
	}
	fresh.Close(ctx)
	inst := l.bind(t, 64<<20)
	for range 3 {
		if got, err := goTask(inst.Module(), 1, "x"); err != nil || got != want {
			t.Errorf("%x, %v; want %x", got, err, want)
		}
		if err := inst.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}

func cReactor(tb testing.TB) []byte {
	return toolchain.C(tb, "../testdata/c/reactor.c", "-mexec-model=reactor")
}

// TestCReactor does with a library in C what the others do: _initialize calls its constructors, and each
// call leaves something for the next, which must not find it.
func TestCReactor(t *testing.T) {
	binary := cReactor(t)
	for _, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			l := newLab(t, way, binary, wazero.NewRuntimeConfig(), nil)
			var want [10]uint64
			for n := range want {
				mod := l.fresh(t)
				want[n] = call(t, mod, "next", uint64(n))
				if call(t, mod, "next", uint64(n)) == want[n] {
					t.Fatal("nothing was left")
				}
				mod.Close(ctx)
			}
			inst := l.bind(t, 64<<20)
			for n := range 1000 {
				if got := call(t, inst.Module(), "next", uint64(n%10)); got != want[n%10] {
					t.Fatalf("call %d: %d, a fresh instance gives %d", n, got, want[n%10])
				}
				if err := inst.Reset(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
