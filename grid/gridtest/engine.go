package gridtest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// ModuleLoader gives an engine the modules of a test.
type ModuleLoader func(ctx context.Context, module cid.Cid) ([]byte, error)

//go:embed testdata/guest/main.go
var guestSource []byte

// BuildGuest builds a Go program for the grid, from the source of its only file.
func BuildGuest(source []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, data := range map[string][]byte{"main.go": source, "go.mod": []byte("module guest\n\ngo 1.26\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("go", "build", "-o", "guest.wasm", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, text)
	}
	return os.ReadFile(filepath.Join(dir, "guest.wasm"))
}

var guestBinary = sync.OnceValues(func() ([]byte, error) { return BuildGuest(guestSource) })

// engineTest runs guests on one engine.
type engineTest struct {
	grid.Engine
	mu      sync.Mutex
	modules map[cid.Cid][]byte
}

func (e *engineTest) load(_ context.Context, c cid.Cid) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	data, ok := e.modules[c]
	if !ok {
		return nil, grid.Errorf(grid.NotFound, "no module %s", c)
	}
	return data, nil
}

func (e *engineTest) add(binary []byte) cid.Cid {
	c := grid.NewBlock(cid.Raw, binary).CID()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.modules[c] = binary
	return c
}

// result is an outcome with what the guest wrote.
type result struct {
	grid.Outcome
	stdout, stderr string
}

// run runs a guest to its end, within a minute.
func (e *engineTest) run(t *testing.T, g grid.Guest) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	g.Stdout, g.Stderr = &stdout, &stderr
	out, err := e.Run(ctx, &g)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return result{out, stdout.String(), stderr.String()}
}

// guest is the Go guest with a command.
func (e *engineTest) guest(t *testing.T, args ...string) grid.Guest {
	t.Helper()
	binary, err := guestBinary()
	if err != nil {
		t.Fatal(err)
	}
	return grid.Guest{Module: e.add(binary), Args: append([]string{"guest"}, args...)}
}

func (r result) want(t *testing.T, exit uint32, stdout string) {
	t.Helper()
	if r.Fault != nil {
		t.Fatalf("fault %+v\nstdout: %s\nstderr: %s", r.Fault, r.stdout, r.stderr)
	}
	if r.Exit != exit || r.stdout != stdout {
		t.Fatalf("exit code %d, want %d\nstdout: %q\n  want: %q\nstderr: %s", r.Exit, exit, r.stdout, stdout, r.stderr)
	}
}

func (r result) wantFault(t *testing.T, code grid.Code, message string) {
	t.Helper()
	if r.Fault == nil || r.Fault.Code != code || !strings.Contains(r.Fault.Message, message) {
		t.Fatalf("exit code %d, fault %+v, want %v with %q\nstdout: %s\nstderr: %s", r.Exit, r.Fault, code, message, r.stdout, r.stderr)
	}
}

// TestEngine checks an engine against the contract of grid.Engine. Guests are tiny modules assembled
// here and one Go program, for which the Go toolchain must be at hand.
func TestEngine(t *testing.T, open func(t *testing.T, load ModuleLoader) grid.Engine) {
	e := &engineTest{modules: map[cid.Cid][]byte{}}
	e.Engine = open(t, e.load)
	t.Cleanup(func() {
		for range 2 {
			if err := e.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if err := e.Prepare(context.Background(), e.add(wasmbytes.Noop())); err == nil {
			t.Error("Prepare after Close: no error")
		}
	})
	for name, test := range map[string]func(*testing.T, *engineTest){
		"exit": testExit, "trap": testTrap, "bad modules": testBadModules, "missing module": testMissingModule,
		"time limit": testTimeLimit, "cancel": testCancel, "memory limit": testMemoryLimit, "table limit": testTableLimit,
		"streams": testStreams, "mounts": testMounts, "attack": testAttack, "failing mount": testFailingMount,
		"out": testOut, "quota": testQuota, "determinism": testDeterminism, "neighbours": testNeighbours, "stubs": testStubs,
		"many variables": testManyVariables, "reactor": testReactor, "output limit": testOutputLimit,
		"call limit": testCallLimit, "impure": testImpure,
	} {
		t.Run(name, func(t *testing.T) { test(t, e) })
	}
}

func testExit(t *testing.T, e *engineTest) {
	e.run(t, grid.Guest{Module: e.add(wasmbytes.Noop())}).want(t, 0, "")
	for _, code := range []int32{0, 1, 42, -1} {
		e.run(t, grid.Guest{Module: e.add(wasmbytes.Exit(code))}).want(t, uint32(code), "")
	}
	e.run(t, e.guest(t, "fail", "7")).want(t, 7, "")
	r := e.run(t, e.guest(t, "panic"))
	r.want(t, 2, "")
	if !strings.Contains(r.stderr, "on purpose") || !strings.Contains(r.stderr, "main.crash") {
		t.Errorf("stderr of a panic: %s", r.stderr)
	}
	if r.Run <= 0 || r.Memory == 0 {
		t.Errorf("run %v, memory %d: want both above zero", r.Run, r.Memory)
	}
}

func testTrap(t *testing.T, e *engineTest) {
	for _, test := range []struct {
		name, message string
		binary        []byte
	}{
		{"unreachable", "unreachable", wasmbytes.Unreachable()},
		{"division", "integer divide by zero", wasmbytes.Divide()},
		{"bounds", "out of bounds memory access", wasmbytes.OutOfBounds()},
		{"recursion", "stack overflow", wasmbytes.Recurse()},
		{"data", "", wasmbytes.Module{MinPages: 0, Data: "does not fit"}.Bytes()},
	} {
		r := e.run(t, grid.Guest{Module: e.add(test.binary)})
		r.wantFault(t, grid.Trap, test.message)
		if len(r.Fault.Stack) > 8<<10 {
			t.Errorf("%s: a stack of %d bytes", test.name, len(r.Fault.Stack))
		}
	}
}

func testBadModules(t *testing.T, e *engineTest) {
	for _, test := range []struct {
		name, message string
		binary        []byte
	}{
		{"empty", "empty", nil},
		{"ELF", "ELF", []byte("\x7fELF\x02\x01\x01\x00")},
		{"text", "text form", []byte("(module)")},
		{"component", "component", []byte("\x00asm\x0d\x00\x01\x00")},
		{"truncated", "truncated", wasmbytes.Noop()[:20]},
		{"import", "env.missing", wasmbytes.Module{MinPages: 1, Imports: []wasmbytes.Import{{Module: "env", Name: "missing"}}}.Bytes()},
		{"nothing to call", "_start", wasmbytes.Module{MinPages: 1, Start: "_run"}.Bytes()},
		{"code", "", wasmbytes.Module{MinPages: 1, Code: []byte{0x6a}}.Bytes()},
	} {
		c := e.add(test.binary)
		for range 2 {
			err := e.Prepare(t.Context(), c)
			if code := grid.CodeOf(err); code != grid.Invalid && code != grid.Unsupported || !strings.Contains(err.Error(), test.message) {
				t.Errorf("%s: Prepare: %v, want Invalid or Unsupported with %q", test.name, err, test.message)
			}
			if grid.AdviceOf(err) == "" {
				t.Errorf("%s: Prepare: %v: no advice", test.name, err)
			}
		}
		if _, err := e.Run(t.Context(), &grid.Guest{Module: c}); err == nil {
			t.Errorf("%s: Run: no error", test.name)
		}
	}
}

func testMissingModule(t *testing.T, e *engineTest) {
	c := grid.NewBlock(cid.Raw, []byte("not stored")).CID()
	if err := e.Prepare(t.Context(), c); !errors.Is(err, grid.NotFound) {
		t.Errorf("Prepare: %v, want NotFound", err)
	}
}

func testTimeLimit(t *testing.T, e *engineTest) {
	for name, g := range map[string]grid.Guest{"loop": {Module: e.add(wasmbytes.Loop())}, "Go": e.guest(t, "spin")} {
		if err := e.Prepare(t.Context(), g.Module); err != nil {
			t.Fatal(err)
		}
		g.Limits.Wall = 50 * time.Millisecond
		start := time.Now()
		r := e.run(t, g)
		r.wantFault(t, grid.Deadline, "50ms")
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%s: stopped after %v", name, took)
		}
	}
}

func testCancel(t *testing.T, e *engineTest) {
	g := grid.Guest{Module: e.add(wasmbytes.Loop())}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := e.Run(ctx, &g); !errors.Is(err, grid.Canceled) {
		t.Errorf("Run: %v, want Canceled", err)
	}
	if _, err := e.Run(ctx, &g); !errors.Is(err, grid.Canceled) {
		t.Errorf("Run with a context that is over: %v, want Canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Run(ctx, &g); !errors.Is(err, grid.Deadline) {
		t.Errorf("Run: %v, want Deadline", err)
	}
}

func testMemoryLimit(t *testing.T, e *engineTest) {
	const limit = 10<<16 + 100
	r := e.run(t, grid.Guest{Module: e.add(wasmbytes.Grow()), Limits: grid.Limits{Memory: limit}})
	r.want(t, 0, "")
	if r.Memory != 10<<16 {
		t.Errorf("memory %d, want %d", r.Memory, 10<<16)
	}
	r = e.run(t, grid.Guest{Module: e.add(wasmbytes.Module{MinPages: 20}.Bytes()), Limits: grid.Limits{Memory: limit}})
	r.wantFault(t, grid.Limit, "memory")
	g := e.guest(t, "hog")
	g.Limits.Memory = 32 << 20
	r = e.run(t, g)
	r.wantFault(t, grid.Limit, "its limit is 32 MiB, and gave up with exit code 2")
	if !strings.Contains(r.stderr, "out of memory") {
		t.Errorf("stderr %.200s, want Go's own out of memory", r.stderr)
	}
}

func testTableLimit(t *testing.T, e *engineTest) {
	e.run(t, grid.Guest{Module: e.add(wasmbytes.GrowTable())}).want(t, 0, "")
}

func testStreams(t *testing.T, e *engineTest) {
	g := e.guest(t, "echo", "one", "", "two words")
	g.Env = []string{"A=1", "B=x=y"}
	g.Stdin = strings.NewReader("from stdin\n")
	r := e.run(t, g)
	r.want(t, 0, "args [\"one\" \"\" \"two words\"]\nenv [\"A=1\" \"B=x=y\"]\nfrom stdin\n")
	if r.stderr != "to stderr\n" {
		t.Errorf("stderr %q", r.stderr)
	}
	e.run(t, e.guest(t, "echo")).want(t, 0, "args []\nenv []\n")

	failing := e.guest(t, "echo")
	failing.Stdin = io.MultiReader(strings.NewReader("some"), failingReader{})
	failing.Stdout, failing.Stderr = io.Discard, io.Discard
	if _, err := e.Run(t.Context(), &failing); !errors.Is(err, grid.Corrupt) {
		t.Errorf("Run with a failing stdin: %v, want its error", err)
	}
	refused := e.guest(t, "echo")
	refused.Stdout, refused.Stderr = failingWriter{}, io.Discard
	if out, err := e.Run(t.Context(), &refused); err != nil {
		t.Errorf("Run with a failing stdout: %v, want an outcome", err)
	} else if out.Fault != nil {
		t.Errorf("Run with a failing stdout: fault %+v", out.Fault)
	}
}

func testOutputLimit(t *testing.T, e *engineTest) {
	g := e.guest(t, "echo", "0123456789")
	g.Limits.Output = 12
	r := e.run(t, g)
	r.wantFault(t, grid.Limit, "wrote more than 12 bytes to stdout, its limit")
	if len(r.stdout) != 12 || r.stderr != "to stderr\n" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	g.Limits.Output = uint64(len("args [\"0123456789\"]\nenv []\n"))
	e.run(t, g).want(t, 0, "args [\"0123456789\"]\nenv []\n")
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) {
	return 0, grid.Errorf(grid.Corrupt, "the disk is broken")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, grid.Errorf(grid.Limit, "too much") }

func testMounts(t *testing.T, e *engineTest) {
	g := e.guest(t, "list", "/")
	g.Mounts = map[string]fs.FS{
		"/in":          fstest.MapFS{"b.txt": {Data: []byte("b")}, "a.txt": {Data: []byte("a")}, "dir/c": {Data: []byte("c")}},
		"/data/models": fstest.MapFS{"m": {Data: []byte("model")}},
	}
	e.run(t, g).want(t, 0, `dir /
dir /data
dir /data/models
file /data/models/m
dir /in
file /in/a.txt
file /in/b.txt
dir /in/dir
file /in/dir/c
dir /out
dir /tmp
`)
	g.Args = []string{"guest", "cat", "/in/a.txt", "in/dir/c", "/in/dir/../b.txt", "/data/models/m"}
	e.run(t, g).want(t, 0, "/in/a.txt: a\nin/dir/c: c\n/in/dir/../b.txt: b\n/data/models/m: model\n")
	g.Args = []string{"guest", "cat", "/in/missing"}
	e.run(t, g).want(t, 3, "")
}

func testAttack(t *testing.T, e *engineTest) {
	g := e.guest(t, "attack")
	in := fstest.MapFS{"a.txt": {Data: []byte("a")}}
	g.Mounts = map[string]fs.FS{"/in": in}
	e.run(t, g).want(t, 0, "done\n")
	if string(in["a.txt"].Data) != "a" || len(in) != 1 {
		t.Errorf("the mount changed: %v", in)
	}
}

// failingFS lists a file that it cannot give.
type failingFS struct{ fs.FS }

func (f failingFS) Open(name string) (fs.File, error) {
	if name == "broken" {
		return nil, grid.Errorf(grid.Corrupt, "a block does not match its CID")
	}
	return f.FS.Open(name)
}

func testFailingMount(t *testing.T, e *engineTest) {
	g := e.guest(t, "cat", "/in/broken")
	g.Mounts = map[string]fs.FS{"/in": failingFS{fstest.MapFS{"broken": {}}}}
	if _, err := e.Run(t.Context(), &g); !errors.Is(err, grid.Corrupt) {
		t.Errorf("Run: %v, want the mount's error", err)
	}
}

func testOut(t *testing.T, e *engineTest) {
	r := e.run(t, e.guest(t, "out"))
	r.want(t, 0, "")
	if r.Out == nil {
		t.Fatal("no /out")
	}
	if err := fstest.TestFS(r.Out, "deep/er/file.txt", "moved", "holes", "empty", "log", "link"); err != nil {
		t.Error(err)
	}
	holes := slices.Concat([]byte("\x00\x00begin"), make([]byte, 99_993), []byte("en"))
	for name, want := range map[string]string{
		"deep/er/file.txt": "content", "moved": "moved", "link": "content", "log": "xx", "holes": string(holes),
	} {
		if got, err := fs.ReadFile(r.Out, name); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v; want %d bytes", name, len(got), err, len(want))
		}
	}
	if target, err := fs.ReadLink(r.Out, "link"); err != nil || target != "deep/er/file.txt" {
		t.Errorf("link: %q, %v", target, err)
	}
	if entries, _ := fs.ReadDir(r.Out, "."); len(entries) != 6 {
		t.Errorf("%d entries in /out, want 6: %v", len(entries), entries)
	}
	if r := e.run(t, grid.Guest{Module: e.add(wasmbytes.Noop())}); r.Out != nil {
		t.Error("an /out from a guest that left nothing")
	}
}

func testQuota(t *testing.T, e *engineTest) {
	g := e.guest(t, "fill")
	g.Limits = grid.Limits{Scratch: 1 << 20}
	r := e.run(t, g)
	r.wantFault(t, grid.NoSpace, "1048576 bytes")
	if r.stdout != "refused after 1048576\n" {
		t.Errorf("stdout %q", r.stdout)
	}
	g = e.guest(t, "files")
	g.Limits = grid.Limits{Files: 10}
	r = e.run(t, g)
	r.wantFault(t, grid.NoSpace, "10 files")
	if r.stdout != "refused after 10\n" {
		t.Errorf("stdout %q", r.stdout)
	}
}

func testCallLimit(t *testing.T, e *engineTest) {
	g := e.guest(t, "opens")
	g.Limits = grid.Limits{Open: 20}
	r := e.run(t, g)
	r.wantFault(t, grid.Limit, "opened more than 20 files")
	if r.stdout != "refused after 16\n" { // beside stdin, stdout, stderr and /
		t.Errorf("stdout %q", r.stdout)
	}
	yield := callForever(wasmbytes.Program{}, "sched_yield")
	r = e.run(t, grid.Guest{Module: e.add(yield), Limits: grid.Limits{Calls: 1000}})
	r.wantFault(t, grid.Limit, "made 1000 of 1000 system calls")
	if r.Calls != 1000 {
		t.Errorf("%d calls, want 1000", r.Calls)
	}
	r = e.run(t, grid.Guest{Module: e.add(wasmbytes.Random(16)), Limits: grid.Limits{Calls: 2}}) // random_get and fd_write
	if r.Fault != nil || r.Calls != 2 {
		t.Errorf("%+v: want two calls and no fault", r.Outcome)
	}
	// What a call moves costs fuel, where fuel is counted.
	if counts := e.run(t, grid.Guest{Module: e.add(wasmbytes.Spin(1000))}).Fuel > 0; counts {
		flood := callForever(wasmbytes.Program{MinPages: 1024}, "random_get", 0, 1024<<16)
		r = e.run(t, grid.Guest{Module: e.add(flood), Limits: grid.Limits{Fuel: 1 << 20}})
		r.wantFault(t, grid.Limit, "used 1048576 of 1048576 fuel")
	}
}

// testImpure runs guests that see the world's clock and randomness, and ones that do not.
func testImpure(t *testing.T, e *engineTest) {
	random := grid.Guest{Module: e.add(wasmbytes.Random(16)), Impure: true}
	if a, b := e.run(t, random), e.run(t, random); len(a.stdout) != 16 || a.stdout == b.stdout {
		t.Errorf("random %x and %x", a.stdout, b.stdout)
	}
	g := e.guest(t, "year")
	e.run(t, g).want(t, 0, "2022\n")
	g.Impure = true
	e.run(t, g).want(t, 0, fmt.Sprintln(time.Now().UTC().Year()))
	nap := e.guest(t, "nap") // for an hour
	e.run(t, nap).want(t, 0, "")
	nap.Impure, nap.Limits.Wall = true, 50*time.Millisecond
	e.run(t, nap).wantFault(t, grid.Deadline, "50ms")
}

func testDeterminism(t *testing.T, e *engineTest) {
	g := e.guest(t, "world")
	g.Seed = [32]byte{1, 2, 3}
	first := e.run(t, g)
	if first.Exit != 0 {
		t.Fatalf("exit code %d: %s", first.Exit, first.stderr)
	}
	for range 2 {
		e.run(t, g).want(t, 0, first.stdout)
	}
	g.Seed = [32]byte{4}
	if r := e.run(t, g); r.stdout == first.stdout {
		t.Errorf("another seed gave the same: %s", r.stdout)
	}
	tiny := grid.Guest{Module: e.add(wasmbytes.Random(16))}
	a, b := e.run(t, tiny), e.run(t, tiny)
	if tiny.Seed[0] = 9; len(a.stdout) != 16 || a.stdout != b.stdout || a.stdout == e.run(t, tiny).stdout {
		t.Errorf("random %x and %x", a.stdout, b.stdout)
	}
}

// testNeighbours runs good guests among bad ones.
func testNeighbours(t *testing.T, e *engineTest) {
	bad := []grid.Guest{
		{Module: e.add(wasmbytes.Unreachable())},
		{Module: e.add(wasmbytes.Recurse())},
		{Module: e.add(wasmbytes.Loop()), Limits: grid.Limits{Wall: time.Millisecond}},
		{Module: e.add(wasmbytes.Grow()), Limits: grid.Limits{Memory: 16 << 20}},
	}
	good := e.guest(t, "echo", "hello")
	good.Env = []string{"X=1"}
	if err := e.Prepare(t.Context(), good.Module); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 4 {
				g := bad[(i+j)%len(bad)]
				if _, err := e.Run(t.Context(), &g); err != nil {
					t.Errorf("Run: %v", err)
				}
				g = good
				g.Stdin = strings.NewReader(fmt.Sprint(i, j))
				var stdout bytes.Buffer
				g.Stdout = &stdout
				out, err := e.Run(t.Context(), &g)
				want := fmt.Sprintf("args [\"hello\"]\nenv [\"X=1\"]\n%d %d", i, j)
				if err != nil || out.Exit != 0 || out.Fault != nil || stdout.String() != want {
					t.Errorf("%+v, %v, stdout %q, want %q", out, err, stdout.String(), want)
				}
			}
		})
	}
	wg.Wait()
}

// testStubs runs modules that import a socket function that preview 1 does not have, and one that it has
// with other parameters.
func testStubs(t *testing.T, e *engineTest) {
	for name, params := range map[string]int{"sock_open": 3, "sock_accept": 2} {
		m := wasmbytes.Module{MinPages: 1, Imports: []wasmbytes.Import{
			wasmbytes.Preview1(name, params),
			{Module: "wasi_snapshot_preview1", Name: "proc_exit", Params: []byte{wasmbytes.I32}},
		}}
		for i := range params {
			m.Code = append(m.Code, wasmbytes.Const(int32(i))...)
		}
		m.Code = wasmbytes.Code(m.Code, wasmbytes.Call(0), wasmbytes.Call(1))
		e.run(t, grid.Guest{Module: e.add(m.Bytes())}).want(t, 52, "") // ENOSYS
	}
}

// testManyVariables passes a guest as many as it may have.
func testManyVariables(t *testing.T, e *engineTest) {
	g := e.guest(t, "fail", "0")
	for i := range grid.MaxArgs {
		g.Env = append(g.Env, fmt.Sprintf("VARIABLE_%d=%d", i, i))
		g.Args = append(g.Args, "x")
	}
	e.run(t, g).want(t, 0, "")
}
