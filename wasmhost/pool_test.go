package wasmhost_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

var goCanary = built("canary")

// canary exits with what it found of an earlier guest: 10 for a byte of memory, 11 for its size, 12 for
// data, 13 for a global, 14 for the table. Then it writes to all of its memory, which has grown by so
// many pages, and exits with 0.
func canary(grow int32) []byte {
	op, code, i32, i64 := wasmbytes.Op, wasmbytes.Code, wasmbytes.Const, wasmbytes.Const64
	fail := func(with int32) []byte { return wasmbytes.If(i32(with), wasmbytes.Call(0)) }
	get, set := op(0x20, 0), op(0x21, 0)
	each := func(do ...[]byte) []byte { // 8 bytes of memory from the second on, the place in local 0
		return code(i64(8), set, []byte{0x03, 0x40}, code(do...), get, i64(8), []byte{0x7c}, op(0x22, 0),
			op(0x3f, 0), []byte{0xad}, i64(16), []byte{0x86, 0x54, 0x0d, 0, 0x0b})
	}
	clean := each(get, []byte{0xa7}, op(0x29, 3, 0), i64(0), []byte{0x52}, fail(10))
	start := code(
		clean,
		i32(grow), op(0x40, 0), i32(2), []byte{0x47}, fail(11),
		clean,
		i32(0), op(0x28, 2, 0), i32(int32('d')|int32('a')<<8|int32('t')<<16|int32('a')<<24), []byte{0x47}, fail(12),
		op(0x23, 0), i64(0), []byte{0x52}, fail(13), i64(99), op(0x24, 0),
		i32(0), op(0x25, 0), []byte{0xd1}, fail(14),
		i32(0), i64(-1), op(0x37, 3, 0),
		each(get, []byte{0xa7}, i64(-1), op(0x37, 3, 0)),
		i32(0), wasmbytes.Call(0),
	)
	return wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("proc_exit")}, Funcs: []wasmbytes.Func{{}, {Locals: 1, Code: start}},
		Globals: 3, Tables: []uint32{1}, Elements: []uint32{1}, MinPages: 2, Data: []byte("data"),
	}.Bytes()
}

// reads reads from stdin, once.
func reads() []byte {
	args := wasmbytes.Code(wasmbytes.Const(0), wasmbytes.Const(0), wasmbytes.Const(1), wasmbytes.Const(8))
	return wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("fd_read")}, MinPages: 1, Data: []byte{16, 0, 0, 0, 8},
		Funcs: []wasmbytes.Func{{Code: wasmbytes.Code(args, wasmbytes.Call(0), wasmbytes.Drop())}},
	}.Bytes()
}

// starting is a module with a start function.
func starting() []byte {
	return wasmbytes.Program{MinPages: 1, Funcs: []wasmbytes.Func{{}}, Begin: true}.Bytes()
}

func TestWay(t *testing.T) {
	hello, err := goHello()
	if err != nil {
		t.Fatal(err)
	}
	stubs := wasmbytes.Module{MinPages: 1, Imports: []wasmbytes.Import{wasmbytes.Preview1("sock_open", 3)}}
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	if wasmhost.Images(h) == (image.Stats{}) && !reuses(t, h, &l) {
		t.Skip("nothing is reused here")
	}
	fresh := closing(t)(wasmhost.OpenFresh(wasmhost.Config{Load: l.load, CacheDir: machineCode}))
	for _, test := range []struct {
		name, way, why string
		binary         []byte
	}{
		{"tiny", wasmhost.Reused, "put back by", wasmbytes.Noop()},
		{"no memory", wasmhost.Reused, "", wasmbytes.Module{NoMemory: true}.Bytes()},
		{"stubs", wasmhost.Reused, "", stubs.Bytes()},
		{"canary", wasmhost.Reused, "", canary(1)},
		{"Go", wasmhost.Reused, "", hello},
		{"start function", wasmhost.Fresh, image.StartFunction.Error(), starting()},
		{"table", wasmhost.Fresh, image.TableWrites.Error(), wasmbytes.GrowTable()},
		{"large memory", wasmhost.Fresh, "begins with", wasmbytes.Module{MinPages: 2000}.Bytes()},
		{"large table", wasmhost.Fresh, "entries", wasmbytes.Program{MinPages: 1, Tables: []uint32{1 << 19}, Funcs: []wasmbytes.Func{{}}}.Bytes()},
		{"data does not fit", wasmhost.Fresh, "out of bounds", wasmbytes.Module{MinPages: 0, Data: "too much"}.Bytes()},
	} {
		id := l.add(test.binary)
		if m, err := h.Inspect(t.Context(), id, true); err != nil || m.Way != test.way || !strings.Contains(m.Why, test.why) {
			t.Errorf("%s: %s, since %q, %v; want %s, since %q", test.name, m.Way, m.Why, err, test.way, test.why)
		}
		if m, err := fresh.Inspect(t.Context(), id, true); err != nil || m.Way != wasmhost.Fresh || m.Why == "" {
			t.Errorf("%s: %s, since %q, %v; want it fresh", test.name, m.Way, m.Why, err)
		}
	}
	if _, err := h.Inspect(t.Context(), l.add([]byte("no module")), true); !errors.Is(err, grid.Invalid) {
		t.Errorf("%v, want Invalid", err)
	}
}

// reuses tells whether the host reuses anything.
func reuses(t *testing.T, h *wasmhost.Host, l *loader) bool {
	m, err := h.Inspect(t.Context(), l.add(wasmbytes.Noop()), true)
	if err != nil {
		t.Fatal(err)
	}
	return m.Way == wasmhost.Reused
}

// told is a guest's run. The account is all that there is to tell of it, but for how long it took.
type told struct {
	grid.Outcome
	stdout, stderr, account string
}

func tell(ctx context.Context, h *wasmhost.Host, g grid.Guest) (told, error) {
	var stdout, stderr bytes.Buffer
	g.Stdout, g.Stderr = &stdout, &stderr
	out, err := h.Run(ctx, &g)
	if err != nil {
		return told{}, err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "exit %d fault %+v fuel %d memory %d\n%s\n%s\n", out.Exit, out.Fault, out.Fuel, out.Memory, stdout.Bytes(), stderr.Bytes())
	if out.Out != nil {
		err = fs.WalkDir(out.Out, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				fmt.Fprintln(&text, path)
				return err
			}
			data, err := fs.ReadFile(out.Out, path)
			fmt.Fprintf(&text, "%s: %q\n", path, data)
			return err
		})
	}
	return told{out, stdout.String(), stderr.String(), text.String()}, err
}

func account(ctx context.Context, h *wasmhost.Host, g grid.Guest) (string, error) {
	r, err := tell(ctx, h, g)
	return r.account, err
}

// manyGuests are guests of all kinds, with limits that change between those of one module.
func manyGuests(t testing.TB, l *loader) map[string]grid.Guest {
	binary, err := goCanary()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]grid.Guest{
		"noop":           {Module: l.add(wasmbytes.Noop())},
		"no memory":      {Module: l.add(wasmbytes.Module{NoMemory: true}.Bytes())},
		"from nothing":   {Module: l.add(wasmbytes.Module{Code: wasmbytes.Code(wasmbytes.Const(3), wasmbytes.Op(0x40, 0), wasmbytes.Drop())}.Bytes())},
		"all there is":   {Module: l.add(wasmbytes.Module{MinPages: 1, MaxPages: 3, Code: wasmbytes.Code(wasmbytes.Const(2), wasmbytes.Op(0x40, 0), wasmbytes.Drop())}.Bytes())},
		"exit":           {Module: l.add(wasmbytes.Exit(9))},
		"unreachable":    {Module: l.add(wasmbytes.Unreachable())},
		"divide":         {Module: l.add(wasmbytes.Divide())},
		"bounds":         {Module: l.add(wasmbytes.OutOfBounds())},
		"recursion":      {Module: l.add(wasmbytes.Recurse())},
		"spin":           {Module: l.add(wasmbytes.Spin(1_000_000))},
		"fuel":           {Module: l.add(wasmbytes.Loop()), Limits: grid.Limits{Fuel: 1_234_567}},
		"random":         {Module: l.add(wasmbytes.Random(100)), Seed: [32]byte{1}},
		"other random":   {Module: l.add(wasmbytes.Random(100)), Seed: [32]byte{2}},
		"small canary":   {Module: l.add(canary(3))},
		"large canary":   {Module: l.add(canary(100))},
		"refused canary": {Module: l.add(canary(100)), Limits: grid.Limits{Memory: 50 << 16}},
		"start":          {Module: l.add(starting())},
		"table":          {Module: l.add(wasmbytes.GrowTable())},
	}
	if !raceEnabled { // compiling takes long then
		k, err := kernels()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range kernelNames {
			all[name] = grid.Guest{Module: l.add(k), Args: []string{"kernels", name, "1"}}
		}
	}
	for i, pages := range []uint64{1, 2, 7, 100, 1000} {
		all[fmt.Sprint("grow ", i)] = grid.Guest{Module: l.add(wasmbytes.Grow()), Limits: grid.Limits{Memory: pages << 16}}
	}
	for i, how := range []string{"return", "exit", "panic", "grow", "other"} {
		all["Go "+how] = grid.Guest{
			Module: l.add(binary), Args: []string{"canary", how, strings.Repeat("x", i*100)}, Env: []string{fmt.Sprintf("V%d=%s", i, how)},
			Mounts: map[string]fs.FS{"/in": fstest.MapFS{how: {Data: []byte(how)}}},
		}
	}
	all["Go small"] = grid.Guest{Module: l.add(binary), Args: []string{"canary", "grow"}, Limits: grid.Limits{Memory: 16 << 20}}
	return all
}

// TestSameInReusedInstances runs guests in fresh instances and, again and again and in turns, in reused
// ones. Nothing may differ: neither what they see nor what is counted.
func TestSameInReusedInstances(t *testing.T) {
	var l loader
	guests := manyGuests(t, &l)
	fresh := closing(t)(wasmhost.OpenFresh(wasmhost.Config{Load: l.load, CacheDir: machineCode}))
	want := map[string]string{}
	for name, g := range guests {
		var err error
		if want[name], err = account(t.Context(), fresh, g); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"small canary": "exit 0 ", "refused canary": "gave up with exit code 11", "Go exit": "exit 7 ", "Go grow": "grown 25165824", "Go small": "out of memory"} {
		if !strings.Contains(want[name], text) {
			t.Errorf("%s: %.300s, want %q", name, want[name], text)
		}
	}
	ways := []image.Way{image.Best, image.Pagemap, image.Discard, image.Copy}
	if testing.Short() {
		ways = ways[:1]
	}
	for _, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			h := closing(t)(wasmhost.OpenWay(wasmhost.Config{Load: l.load, CacheDir: machineCode}, way))
			if !reuses(t, h, &l) {
				t.Skip("nothing is reused here")
			}
			rounds, users := 3, 2
			if way == image.Copy { // it is slow
				rounds, users = 2, 1
			}
			var wg sync.WaitGroup
			for range users {
				wg.Go(func() {
					for range rounds {
						for name, g := range guests { // in any order
							got, err := account(t.Context(), h, g)
							if err != nil || got != want[name] {
								t.Errorf("%s: %v\n got %.2000s\nwant %.2000s", name, err, got, want[name])
								return
							}
						}
					}
				})
			}
			wg.Wait()
			s := wasmhost.Idle(h)
			if s.Hits < s.Misses || s.Count == 0 {
				t.Errorf("hardly anything was reused: %+v", s)
			}
		})
	}
}

// Only an instance whose guest ended by itself is used again.
func TestStoppedInstancesAreDropped(t *testing.T) {
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	if !reuses(t, h, &l) {
		t.Skip("nothing is reused here")
	}
	broken := iotest.ErrReader(errors.New("broken"))
	for _, test := range []struct {
		name  string
		after time.Duration // it is killed
		guest grid.Guest
		kept  int
	}{
		{"return", 0, grid.Guest{Module: l.add(wasmbytes.Noop())}, 1},
		{"exit", 0, grid.Guest{Module: l.add(wasmbytes.Exit(1))}, 1},
		{"an exit code that is also the host's", 0, grid.Guest{Module: l.add(wasmbytes.Exit(-3))}, 1},
		{"trap", 0, grid.Guest{Module: l.add(wasmbytes.Unreachable())}, 0},
		{"recursion", 0, grid.Guest{Module: l.add(wasmbytes.Recurse())}, 0},
		{"fuel", 0, grid.Guest{Module: l.add(wasmbytes.Loop()), Limits: grid.Limits{Fuel: 1000}}, 0},
		{"time", 0, grid.Guest{Module: l.add(wasmbytes.Loop()), Limits: grid.Limits{Wall: time.Millisecond}}, 0},
		{"killed", 5 * time.Millisecond, grid.Guest{Module: l.add(wasmbytes.Loop())}, 0},
		{"host failure", 0, grid.Guest{Module: l.add(reads()), Stdin: broken}, 0},
		{"grown too far", 0, grid.Guest{Module: l.add(wasmbytes.Grow()), Limits: grid.Limits{Memory: 512 << 20}}, 0},
	} {
		if err := h.Prepare(t.Context(), test.guest.Module); err != nil {
			t.Fatal(err)
		}
		before := wasmhost.Idle(h)
		ctx, cancel := t.Context(), func() {}
		if test.after > 0 {
			ctx, cancel = context.WithTimeout(ctx, test.after)
		}
		_, _ = h.Run(ctx, &test.guest)
		cancel()
		after := wasmhost.Idle(h)
		if after.Misses != before.Misses+1 || after.Count-before.Count != test.kept {
			t.Errorf("%s: %+v, before %+v; want %d kept", test.name, after, before, test.kept)
		}
		if n := wasmhost.Images(h).Memories; n != after.Count {
			t.Errorf("%s: %d memories for %d instances", test.name, n, after.Count)
		}
	}
}

// Idle instances of one module are few, however many ran at a time.
func TestFewIdleInstances(t *testing.T) {
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	if !reuses(t, h, &l) {
		t.Skip("nothing is reused here")
	}
	most := 2 * runtime.GOMAXPROCS(0)
	reading, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	id := l.add(reads())
	for range most + 3 {
		wg.Go(func() {
			stdin := readerFunc(func([]byte) (int, error) { reading <- struct{}{}; <-free; return 0, io.EOF })
			if out, err := h.Run(t.Context(), &grid.Guest{Module: id, Stdin: stdin}); err != nil || out.Exit != 0 {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	for range most + 3 {
		<-reading
	}
	go func() {
		for range reading { // once more each, perhaps
		}
	}()
	close(free)
	wg.Wait()
	close(reading)
	if s := wasmhost.Idle(h); s.Count != most || wasmhost.Images(h).Memories != most {
		t.Errorf("%+v, want %d", s, most)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestNothingPilesUp counts descriptors and mappings over two thousand guests, some of which are dropped.
func TestNothingPilesUp(t *testing.T) {
	count := func() (fds, maps int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		text, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Skip(err)
		}
		return len(entries), bytes.Count(text, []byte("\n"))
	}
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	modules := []cid.Cid{l.add(wasmbytes.Exit(1)), l.add(canary(1)), l.add(canary(40)), l.add(wasmbytes.Unreachable()), l.add(wasmbytes.Grow())}
	round := func(n int) {
		for i := range n {
			g := grid.Guest{Module: modules[i%len(modules)], Limits: grid.Limits{Memory: uint64(3+i%200) << 16}}
			if _, err := h.Run(t.Context(), &g); err != nil {
				t.Fatal(err)
			}
		}
	}
	round(500)
	fds, maps := count()
	round(2000)
	if f, m := count(); f > fds+2 || m > maps+40 { // the Go runtime has some of its own
		t.Errorf("%d descriptors and %d mappings, %d and %d before", f, m, fds, maps)
	}
}
