package conformance_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// ascFlags are what the SDK for AssemblyScript needs, which lies at grid, without its ending, below the base folder.
func ascFlags(base, grid string) []string {
	return []string{"--baseDir=" + base, "--use=abort=" + grid + "/abort", "--use=seed=" + grid + "/seed", "--use=trace=" + grid + "/trace", "--initialMemory=16"}
}

// sdks are built from one source file with the SDK beside it, as their READMEs say.
var sdks = []struct {
	name, file, program, fence string
	build                      func(t *testing.T, dir string) []byte
}{
	{"c", "grid.h", "main.c", "c", func(t *testing.T, dir string) []byte {
		return toolchain.C(t, filepath.Join(dir, "main.c"), "-mexec-model=reactor", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
	}},
	{"rust", "grid.rs", "main.rs", "rust", func(t *testing.T, dir string) []byte {
		return toolchain.Rust(t, filepath.Join(dir, "main.rs"), "--crate-type=cdylib", "-Dwarnings", "-Adead_code")
	}},
	{"assemblyscript", "grid.ts", "main.ts", "ts", func(t *testing.T, dir string) []byte {
		return toolchain.AssemblyScript(t, "main.ts", ascFlags(dir, "grid")...)
	}},
}

// The example of each SDK does what it says.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	for _, sdk := range sdks {
		t.Run(sdk.name, func(t *testing.T) {
			dir := t.TempDir()
			place(t, dir, sdk.file, read(t, "../../sdk", sdk.name, sdk.file))
			place(t, dir, sdk.program, read(t, "../../sdk", sdk.name, "example", sdk.program))
			e := newEngine(t, sdk.build(t, dir))
			if m, err := e.host.Inspect(t.Context(), e.module, true); err != nil || m.Way != wasmhost.Snapshot {
				t.Errorf("%+v, %v", m, err)
			}
			check(t, test{stdout: "LOUD 1"}, e.run(t, test{f: "shout", stdin: "loud 1"}))
			letters := e.run(t, test{f: "letters", in: map[string]string{"a": "Ada", "b": "d!"}})
			check(t, test{stdout: "a\t2\nd\t2\n"}, letters)
			check(t, test{stdout: "a 2\nd 2\n"}, e.run(t, test{f: "print", in: map[string]string{"0000000": letters.stdout}}))
			if sdk.name != "c" { // which has no values with types
				check(t, test{stdout: "144"}, e.run(t, test{f: "square", stdin: " -12\n"}))
				check(t, test{fails: true, stderr: "square: "}, e.run(t, test{f: "square", stdin: "twelve"}))
				check(t, test{fails: true, stderr: "square: "}, e.run(t, test{f: "square", stdin: "1.5"}))
				check(t, test{stdout: "-62.5"}, e.run(t, test{f: "half", stdin: "-1.25E+2"}))
				check(t, test{fails: true, stderr: "half: "}, e.run(t, test{f: "half", stdin: "1-2"}))
				check(t, test{fails: true, stderr: "square: "}, e.run(t, test{f: "square", stdin: "123456789012345678901"}))
			}
		})
	}
}

// The SDK for Rust may be a crate.
func TestCrate(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	dir := t.TempDir()
	lib := filepath.Join(dir, "libgrid.rlib")
	place(t, dir, "libgrid.rlib", string(toolchain.Rust(t, "../../sdk/rust/grid.rs", "--crate-type=rlib", "--crate-name=grid", "-Dwarnings")))
	place(t, dir, "main.rs", strings.Replace(read(t, "../../sdk/rust/example/main.rs"), "mod grid;\n", "", 1))
	e := newEngine(t, toolchain.Rust(t, filepath.Join(dir, "main.rs"), "--crate-type=cdylib", "--extern=grid="+lib, "-Dwarnings"))
	check(t, test{stdout: "a\t2\nd\t2\n"}, e.run(t, test{f: "letters", in: map[string]string{"a": "Ada", "b": "d!"}}))
}

// The programs in each SDK's README are one when they are put together.
func TestReadmes(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	for _, sdk := range sdks {
		t.Run(sdk.name, func(t *testing.T) {
			var program strings.Builder
			blocks := strings.Split(read(t, "../../sdk", sdk.name, "README.md"), "```"+sdk.fence+"\n")
			for _, b := range blocks[1:] {
				code, _, _ := strings.Cut(b, "```")
				program.WriteString(code)
			}
			dir := t.TempDir()
			place(t, dir, sdk.file, read(t, "../../sdk", sdk.name, sdk.file))
			place(t, dir, sdk.program, program.String())
			e := newEngine(t, sdk.build(t, dir))
			check(t, test{stdout: "LOUD 1"}, e.run(t, test{f: "shout", stdin: "loud 1"}))
		})
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func place(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
