// Package toolchain builds guests from source, with the compilers of this machine, for tests and
// benchmarks that want programs as people make them. Nothing that was built is kept beyond the process.
//
// Go is taken for granted. Tests whose guests are C or Rust are skipped where that cannot be built,
// unless the environment says that it can (see [Require]). Those in AssemblyScript are skipped where its compiler was not
// installed, by npm ci in sdk/assemblyscript.
package toolchain

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Require is the environment variable that has tests fail, rather than be skipped, for want of a
// compiler, when it is "all". The continuous integration sets it where it has installed all of them.
const Require = "GRID_TOOLCHAINS"

// Go builds a command for the grid: an import path of this module, or a folder that begins with "./". The
// flags go to "go build".
func Go(tb testing.TB, path string, flags ...string) []byte {
	tb.Helper()
	return binary(tb, compiler{command: []string{"go", "build"}, env: []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}}, path, flags)
}

// C builds the program of one C file. The flags go to clang, after those for an optimised program with
// the names of its functions.
func C(tb testing.TB, file string, flags ...string) []byte {
	tb.Helper()
	return binary(tb, c.need(tb), file, flags)
}

// Rust builds the program of one Rust file, like [C].
func Rust(tb testing.TB, file string, flags ...string) []byte {
	tb.Helper()
	return binary(tb, rust.need(tb), file, flags)
}

// AssemblyScript builds the library of one AssemblyScript file, like [C].
func AssemblyScript(tb testing.TB, file string, flags ...string) []byte {
	tb.Helper()
	l := assemblyScript()
	if _, err := os.Stat(l.compilers[0].command[1]); err != nil {
		tb.Skipf("AssemblyScript guests cannot be built here: %v; install the compiler: npm ci --ignore-scripts --prefix sdk/assemblyscript", err)
	}
	return binary(tb, l.need(tb), file, flags)
}

// language is what can be built where one of some compilers works.
type language struct {
	name, packages string
	probe          string // a file's name, and the least program
	source         string
	compilers      []compiler

	once  sync.Once
	works compiler // no command when there is none
	why   []error
}

// compiler is a command, to which flags, "-o", a file and its source are added.
type compiler struct{ command, env []string }

var (
	c = language{
		name: "C", packages: "clang lld wasi-libc libclang-rt-dev-wasm32",
		probe: "probe.c", source: "#include <stdio.h>\nint main(void) { return puts(\"\") == EOF; }\n",
		compilers: []compiler{{command: []string{"clang", "--target=wasm32-wasi", "-O2"}}},
	}
	rust = language{
		name: "Rust", packages: "rustc libstd-rust-dev-wasm32 lld",
		probe: "probe.rs", source: "fn main() { println!(); }\n",
		compilers: []compiler{rustc("rustc", "wasm32-wasip1"), rustc("rustc", "wasm32-wasi"), rustc("/usr/bin/rustc", "wasm32-wasi")},
	}
)

// assemblyScript has its compiler in the folder of the SDK, where npm puts what the lock file there names.
var assemblyScript = sync.OnceValue(func() *language {
	root, err := os.Getwd()
	for ; err == nil && filepath.Dir(root) != root; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
	}
	asc := filepath.Join(root, "sdk", "assemblyscript", "node_modules", "assemblyscript", "bin", "asc.js")
	return &language{
		name: "AssemblyScript", packages: "nodejs (20 or newer)",
		probe: "probe.ts", source: "export function f(): i32 { return 1; }\n",
		compilers: []compiler{{command: []string{"node", asc, "-O", "--debug", "--exportStart", "_initialize"}}},
	}
})

// rustc leaves names in, for stack traces, but not what a debugger needs, which would be megabytes.
func rustc(path, target string) compiler {
	return compiler{command: []string{path, "--target", target, "--edition", "2021", "-O", "-C", "strip=debuginfo"}}
}

// need gives the first compiler that works. Where none does, the test ends.
func (l *language) need(tb testing.TB) compiler {
	tb.Helper()
	l.once.Do(l.find)
	if l.works.command == nil {
		text := fmt.Sprintf("%s guests cannot be built here; on Debian, install %s\n%v", l.name, l.packages, l.why)
		if os.Getenv(Require) == "all" {
			tb.Fatal(text)
		}
		tb.Skip(text)
	}
	return l.works
}

func (l *language) find() {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		l.why = []error{err}
		return
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, l.probe)
	if err := os.WriteFile(source, []byte(l.source), 0o600); err != nil {
		l.why = []error{err}
		return
	}
	for _, x := range l.compilers {
		_, err := x.build(source, nil)
		if err == nil {
			l.works, l.why = x, nil
			return
		}
		l.why = append(l.why, err)
	}
}

func (c compiler) build(source string, flags []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	args := append(append(c.command[1:len(c.command):len(c.command)], flags...), "-o", out, source)
	cmd := exec.Command(c.command[0], args...)
	cmd.Env = append(os.Environ(), c.env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(c.command, " "), err, text)
	}
	return os.ReadFile(out)
}

// built holds, by what is to be built, functions that build it once.
var built sync.Map

func binary(tb testing.TB, c compiler, source string, flags []string) []byte {
	tb.Helper()
	wd, err := os.Getwd() // a test may change it
	if err != nil {
		tb.Fatal(err)
	}
	key := fmt.Sprintf("%q", append([]string{wd, c.command[0], source}, flags...))
	build, _ := built.LoadOrStore(key, sync.OnceValues(func() ([]byte, error) { return c.build(source, flags) }))
	b, err := build.(func() ([]byte, error))()
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Clone(b)
}
