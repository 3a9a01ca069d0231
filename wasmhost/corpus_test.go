package wasmhost_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// The guests that are built from testdata; see package toolchain.
func cHello(tb testing.TB) []byte      { return toolchain.C(tb, "testdata/c/hello.c") }
func cCorpus(tb testing.TB) []byte     { return toolchain.C(tb, "testdata/c/corpus.c") }
func cKernels(tb testing.TB) []byte    { return toolchain.C(tb, "testdata/kernels/c/kernels.c") }
func rustHello(tb testing.TB) []byte   { return toolchain.Rust(tb, "testdata/rust/hello.rs") }
func rustCorpus(tb testing.TB) []byte  { return toolchain.Rust(tb, "testdata/rust/corpus.rs") }
func rustKernels(tb testing.TB) []byte { return toolchain.Rust(tb, "testdata/kernels/rust/kernels.rs") }
func goKernels(tb testing.TB) []byte   { return toolchain.Go(tb, "./testdata/kernels") }

// noRaces skips a test that is slow under the race detector and has nothing for it: all is in one goroutine.
func noRaces(t *testing.T) {
	if raceEnabled {
		t.Skip("runs without the race detector")
	}
}

// program is one run of a real program. What it is to print is known, or what it prints on the engine as
// it comes is.
type program struct {
	name  string // and its arguments
	env   []string
	stdin string
	want  string
	exit  uint32
	out   map[string]string // in /out
	free  bool              // want is what the engine's run prints
	apart bool              // it shows clocks or random numbers, which are our own; want is how it ends
}

// inputs is what programs find in /in.
var inputs = fstest.MapFS{
	"a.txt": {Data: []byte("text of a\n")}, "empty": {}, "dir/b": {Data: []byte("b")}, "dir/deep/er/c": {Data: []byte("cc")},
	"large": {Data: bytes.Repeat([]byte("0123456789abcde\n"), 1<<14)},
}

// text is words, of which some are frequent.
var text = corpus(50_000)

// programs is what corpus.c and corpus.rs have both.
var programs = []program{
	{name: "args", want: ""},
	{name: "args a  b=c", want: "[a]\n[]\n[b=c]\n"},
	{name: "env", env: []string{"A=1", "B=x=y", "EMPTY="}, want: "A=1\nB=x=y\nEMPTY=\n"},
	{name: "cat", stdin: text, want: text},
	{name: "cat", want: ""},
	{name: "read /in/large", want: "262144\n"},
	{name: "read in/../in/dir/./b", want: "1\n"},
	{name: "copy /in/large /out/copy", want: "262144\n", out: map[string]string{"copy": string(inputs["large"].Data)}},
	{name: "copy /in/a.txt out/a", want: "10\n", out: map[string]string{"a": "text of a\n"}},
	{name: "copy /in/a.txt /tmp/a", want: "10\n"},
	{name: "walk /in", want: "/in/a.txt 10\n/in/dir/\n/in/dir/b 1\n/in/dir/deep/\n/in/dir/deep/er/\n/in/dir/deep/er/c 2\n/in/empty 0\n/in/large 262144\n"},
	{name: "ackermann 300", want: "603\n"},
	{name: "memory 5000", want: memoryStress(5000)},
	{name: "sort 20000", want: sortedNumbers(20_000)},
	{name: "words", stdin: text, want: wordCounts(text)},
	{name: "exit 0", want: "exits"},
	{name: "exit 42", want: "exits", exit: 42},
	{name: "no-such", exit: 2},
	{name: "world", apart: true, want: " 1640995200 3600\n"},
}

func lcg(x uint32) uint32 { return x*1664525 + 1013904223 }

func memoryStress(rounds int) string {
	var sizes [256]uint32
	x, sum := uint32(1), uint32(0)
	for range rounds {
		x = lcg(x)
		i := x >> 24
		x = lcg(x)
		sum = sum*31 + sizes[i]
		sizes[i] = x >> 17
		x = lcg(x)
	}
	return fmt.Sprintln(sum)
}

func sortedNumbers(n int) string {
	list, x, sum := make([]uint32, n), uint32(1), uint32(0)
	for i := range list {
		x = lcg(x)
		list[i] = x
	}
	slices.Sort(list)
	for _, x := range list {
		sum = sum*31 + x
	}
	return fmt.Sprintln(list[0], list[n-1], sum)
}

func wordCounts(text string) string {
	counts := map[string]int{}
	for _, w := range strings.Fields(text) {
		counts[w]++
	}
	var lines []string
	for w, n := range counts {
		lines = append(lines, fmt.Sprintf("%s %d\n", w, n))
	}
	slices.SortFunc(lines, func(a, b string) int {
		return cmp.Compare(a[:strings.IndexByte(a, ' ')], b[:strings.IndexByte(b, ' ')])
	})
	return strings.Join(lines, "")
}

// doubles are numbers as C prints them, which is as Go does.
func doubles() string {
	var text strings.Builder
	for _, x := range []float64{0, 0, 0.1, 1.0 / 3, 1e300, 5e-324, 123456789.125, 3.141592653589793, -2.5e-10} {
		fmt.Fprintf(&text, "%.17g %.3f %e\n", x, x, x)
	}
	zero := "0 0.000 0.000000e+00\n"
	return strings.Replace(text.String(), zero+zero, zero+"-0 -0.000 -0.000000e+00\n", 1)
}

// guest is the invocation of a program.
func (p program) guest(l *loader, binary []byte) grid.Guest {
	return grid.Guest{
		Module: l.add(binary), Args: append([]string{"program"}, strings.Split(p.name, " ")...), Env: p.env, Stdin: strings.NewReader(p.stdin),
		Mounts: map[string]fs.FS{"/in": inputs}, Seed: [32]byte{7},
	}
}

// TestC and TestRust run the corpus as those compilers make it.
func TestC(t *testing.T) {
	noRaces(t)
	binary := cCorpus(t)
	runAll(t, binary, append(programs, program{name: "doubles", want: doubles()}))
	runAll(t, cHello(t), []program{{want: "hello\n"}})
}

func TestRust(t *testing.T) {
	noRaces(t)
	runAll(t, rustCorpus(t), programs)
	runAll(t, rustHello(t), []program{{want: "hello\n"}})
}

// TestForeign runs what other compilers have made of programs that come with the engine's source: TinyGo,
// Zig, and newer or older releases of the others.
func TestForeign(t *testing.T) {
	noRaces(t)
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Skip("no Go toolchain or module cache to take the programs from: ", err)
	}
	root := filepath.Join(strings.TrimSpace(string(dir)), "imports/wasi_snapshot_preview1")
	lists := []program{{name: "ls in", free: true}, {name: "ls in/dir", free: true}, {name: "ls in/a.txt", want: "ENOTDIR\n"}}
	terminals := program{name: "stat", want: "stdin isatty: false\nstdout isatty: false\nstderr isatty: false\n/ isatty: false\n"}
	for path, list := range map[string][]program{
		"testdata/cargo-wasi/wasi.wasm": append(lists, terminals, program{name: "ls in/dir/deep repeat", want: "in/dir/deep/er\nin/dir/deep/er\n"}),
		"testdata/tinygo/wasi.wasm":     append(lists[:2:2], terminals), // that one wants EBADF of a file, as the engine has it
		"testdata/zig/wasi.wasm":        lists,
		"testdata/zig-cc/wasi.wasm": append(lists, terminals, program{name: "ls in/dir/deep repeat", want: "./.\n./..\n./er\n./.\n./..\n./er\n"},
			program{name: "poll 0 1", apart: true, want: "STDIN\n"}, program{name: "sleepmillis 100", want: "OK\n"}),
		"example/testdata/cargo-wasi/cat.wasm": {{name: "in/a.txt", want: "text of a\n"}},
		"example/testdata/tinygo/cat.wasm":     {{name: "in/a.txt", want: "text of a\n"}},
		"example/testdata/zig/cat.wasm":        {{name: "in/a.txt", want: "text of a\n"}},
		"example/testdata/zig-cc/cat.wasm":     {{name: "in/a.txt", want: "text of a\n"}},
	} {
		t.Run(path, func(t *testing.T) {
			binary, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				t.Skip("the program is not where it was: ", err)
			}
			runAll(t, binary, list)
		})
	}
}

// runAll runs programs of one module by every way and on the engine as it comes, and compares.
func runAll(t *testing.T, binary []byte, list []program) {
	t.Helper()
	var l loader
	cfg := wasmhost.Config{Load: l.load, CacheDir: machineCode}
	hosts := []struct {
		way  string
		host *wasmhost.Host
	}{
		{"first", open(t, cfg)}, {"reused", nil}, {"again", nil},
		{"fresh", closing(t)(wasmhost.OpenFresh(cfg))}, {"interpreted", openInterpreter(t, cfg)},
	}
	hosts[1].host, hosts[2].host = hosts[0].host, hosts[0].host
	bare := newBare(t, binary)
	for _, p := range list {
		t.Run(p.name, func(t *testing.T) {
			want := p.want
			if !p.apart {
				stdout, exit := bare.run(t, p)
				if p.free { // it lists a folder of the machine, whose order is not ours
					lines := strings.SplitAfter(stdout, "\n")
					slices.Sort(lines)
					stdout = strings.Join(lines, "")
					want = stdout
				}
				if stdout != want || exit != p.exit {
					t.Errorf("engine: exit code %d, stdout %q; want %d, %q", exit, short(stdout), p.exit, short(want))
				}
			}
			first := ""
			for _, by := range hosts {
				got, err := tell(t.Context(), by.host, p.guest(&l, binary))
				if err != nil {
					t.Fatal(err)
				}
				if first == "" {
					first = got.account
					if p.apart && strings.HasSuffix(got.stdout, p.want) {
						want = got.stdout
					}
				}
				if got.Fault != nil || got.Exit != p.exit || got.stdout != want || got.Fuel == 0 {
					t.Errorf("%s: exit code %d, fault %+v, fuel %d, stdout %q, stderr %q; want %d, %q",
						by.way, got.Exit, got.Fault, got.Fuel, short(got.stdout), short(got.stderr), p.exit, short(want))
				}
				if got.account != first {
					t.Errorf("%s: %s\nfirst: %s", by.way, short(got.account), short(first))
				}
				checkOut(t, got.Out, p.out)
			}
		})
	}
	if s := wasmhost.Idle(hosts[0].host); reuses(t, hosts[0].host, &l) && s.Hits < s.Misses {
		t.Errorf("hardly anything was reused: %+v", s)
	}
}

func short(s string) string { return fmt.Sprintf("%.300s", s) }

func checkOut(t *testing.T, tree fs.FS, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	if tree != nil {
		err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(tree, path)
			got[path] = string(data)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("/out/%s: %q", name, short(got[name]))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files in /out, want %d", len(got), len(want))
	}
}

// bare is a module on the engine as it comes, with the WASI that comes with it.
type bare struct {
	rt   wazero.Runtime
	code wazero.CompiledModule
}

func newBare(t testing.TB, binary []byte) *bare {
	t.Helper()
	ctx := context.Background()
	b := &bare{rt: wazero.NewRuntime(ctx)}
	t.Cleanup(func() { b.rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, b.rt)
	var err error
	if b.code, err = b.rt.CompileModule(ctx, binary); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bare) run(t *testing.T, p program) (stdout string, exit uint32) {
	t.Helper()
	dir := t.TempDir()
	for name, file := range inputs {
		path := filepath.Join(dir, "in", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, file.Data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"out", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var out, stderr bytes.Buffer
	config := wazero.NewModuleConfig().WithName("").WithArgs(append([]string{"program"}, strings.Split(p.name, " ")...)...).
		WithStdin(strings.NewReader(p.stdin)).WithStdout(&out).WithStderr(&stderr).WithFSConfig(wazero.NewFSConfig().WithDirMount(dir, "/"))
	for _, e := range p.env {
		name, value, _ := strings.Cut(e, "=")
		config = config.WithEnv(name, value)
	}
	mod, err := b.rt.InstantiateModule(t.Context(), b.code, config)
	if mod != nil {
		mod.Close(t.Context())
	}
	if ee := (*sys.ExitError)(nil); errors.As(err, &ee) {
		return out.String(), ee.ExitCode()
	}
	if err != nil {
		t.Errorf("engine: %v: %s", err, short(stderr.String()))
	}
	return out.String(), 0
}

// TestTraps looks for the names of functions in the stacks of traps, as each compiler leaves them.
func TestTraps(t *testing.T) {
	noRaces(t)
	for _, test := range []struct {
		name, arg, message string
		binary             func(testing.TB) []byte
		inner, outer       string
	}{
		{"C", "trap", "unreachable", cCorpus, "the_innermost", "the_caller"},
		{"Rust", "trap", "unreachable", rustCorpus, "the_innermost", "the_caller"},
		{"Go", "trap", "out of bounds memory access", goKernels, "main.theInnermost", "main.theCaller"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var l loader
			cfg := wasmhost.Config{Load: l.load, CacheDir: machineCode}
			g := program{name: test.arg}.guest(&l, test.binary(t))
			for way, h := range map[string]*wasmhost.Host{"reused": open(t, cfg), "fresh": closing(t)(wasmhost.OpenFresh(cfg)), "interpreted": openInterpreter(t, cfg)} {
				got, err := tell(t.Context(), h, g)
				if err != nil {
					t.Fatal(err)
				}
				if got.Fault == nil || got.Fault.Code != grid.Trap || !strings.Contains(got.Fault.Message, test.message) {
					t.Fatalf("%s: exit code %d, fault %+v, stderr %q; want a trap", way, got.Exit, got.Fault, got.stderr)
				}
				_, outer, ok := strings.Cut(got.Fault.Stack, test.inner)
				if !ok || !strings.Contains(outer, test.outer) {
					t.Errorf("%s: the stack is\n%s\nwant %s in %s", way, got.Fault.Stack, test.inner, test.outer)
				}
			}
		})
	}
}

// A panic in Rust is a trap in this target, told on stderr.
func TestRustPanic(t *testing.T) {
	noRaces(t)
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	got, err := tell(t.Context(), h, program{name: "panic"}.guest(&l, rustCorpus(t)))
	if err != nil {
		t.Fatal(err)
	}
	if got.Fault == nil || got.Fault.Code != grid.Trap || !strings.Contains(got.stderr, "panicked at") || !strings.Contains(got.stderr, "on purpose") || !strings.Contains(got.Fault.Stack, "panic") {
		t.Errorf("exit code %d, fault %+v, stderr %q", got.Exit, got.Fault, got.stderr)
	}
}

// fiveKernels are those that Go, C and Rust have.
var fiveKernels = []string{"sha256", "nbody", "matmul", "sort", "fib"}

// TestKernels has each kernel print the same whatever language it is written in.
func TestKernels(t *testing.T) {
	noRaces(t)
	list := make([]program, len(fiveKernels))
	oracle := newBare(t, goKernels(t))
	for i, name := range fiveKernels {
		list[i].name = name + " 3"
		list[i].want, _ = oracle.run(t, list[i])
	}
	t.Run("Go", func(t *testing.T) { runAll(t, goKernels(t), list) })
	t.Run("C", func(t *testing.T) { runAll(t, cKernels(t), list) })
	t.Run("Rust", func(t *testing.T) { runAll(t, rustKernels(t), list) })
}

// TestPOSIX runs a program that holds the C library, and WASI below it, to what POSIX promises.
func TestPOSIX(t *testing.T) {
	f := &fixed{binary: toolchain.C(t, "testdata/c/posix.c")}
	h := open(t, wasmhost.Config{Load: f.load})
	var stdout strings.Builder
	out, err := h.Run(t.Context(), &grid.Guest{
		Module: f.cid(), Args: []string{"posix"}, Stdout: &stdout,
		Mounts: map[string]fs.FS{"/in": fstest.MapFS{"a.txt": {Data: []byte("a")}, "b.txt": {}, "d/c.txt": {}}},
	})
	if err != nil || out.Fault != nil || out.Exit != 0 || stdout.String() != "all is well\n" {
		t.Errorf("%+v, %v\n%s", out, err, stdout.String())
	}
}
