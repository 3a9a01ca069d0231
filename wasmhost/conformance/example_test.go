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
	return []string{"--baseDir=" + base, "--use=abort=" + grid + "/abort", "--use=seed=" + grid + "/seed", "--use=trace=" + grid + "/trace"}
}

// The example of each SDK builds with the SDK beside it, and does what it says.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	for _, l := range []struct {
		sdk   string
		files []string
		build func(t *testing.T, dir string) []byte
	}{
		{"c", []string{"grid.h", "example/main.c"}, func(t *testing.T, dir string) []byte {
			return toolchain.C(t, filepath.Join(dir, "main.c"), "-mexec-model=reactor", "-Wall", "-Wextra", "-Werror")
		}},
		{"rust", []string{"grid.rs", "example/main.rs"}, func(t *testing.T, dir string) []byte {
			return toolchain.Rust(t, filepath.Join(dir, "main.rs"), "--crate-type=cdylib", "-Dwarnings")
		}},
		{"assemblyscript", []string{"grid.ts", "example/main.ts"}, func(t *testing.T, dir string) []byte {
			return toolchain.AssemblyScript(t, "main.ts", ascFlags(dir, "grid")...)
		}},
	} {
		t.Run(l.sdk, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range l.files {
				data, err := os.ReadFile(filepath.Join("../../sdk", l.sdk, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			e := newEngine(t, l.build(t, dir))
			if m, err := e.host.Inspect(t.Context(), e.module, true); err != nil || m.Way != wasmhost.Snapshot {
				t.Errorf("%+v, %v", m, err)
			}
			check(t, test{stdout: "LOUD 1"}, e.run(t, test{f: "shout", stdin: "loud 1"}))
			letters := e.run(t, test{f: "letters", in: map[string]string{"a": "Ada", "b": "d!"}})
			check(t, test{stdout: "a\t2\nd\t2\n"}, letters)
			check(t, test{stdout: "a 2\nd 2\n"}, e.run(t, test{f: "print", in: map[string]string{"0000000": letters.stdout}}))
			if l.sdk != "c" { // which has no values with types
				check(t, test{stdout: "144"}, e.run(t, test{f: "square", stdin: " -12\n"}))
				check(t, test{fails: true, stderr: "square: "}, e.run(t, test{f: "square", stdin: "twelve"}))
			}
		})
	}
}

// The plugins that are not written in Go give what their cases say.
func TestPlugins(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	for name, build := range map[string]func(t *testing.T, dir string) []byte{
		"checksum": func(t *testing.T, dir string) []byte {
			return toolchain.C(t, filepath.Join(dir, "main.c"), "-mexec-model=reactor", "-I../../sdk/c", "-Wall", "-Wextra", "-Werror")
		},
		"columns": func(t *testing.T, dir string) []byte {
			return toolchain.Rust(t, filepath.Join(dir, "main.rs"), "--crate-type=cdylib", "-Dwarnings")
		},
		"wordlengths": func(t *testing.T, _ string) []byte {
			return toolchain.AssemblyScript(t, "plugins/wordlengths/main.ts", ascFlags("../..", "sdk/assemblyscript/grid")...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("../../plugins", name)
			e := newEngine(t, build(t, dir))
			cases, err := filepath.Glob(filepath.Join(dir, "cases", "*"))
			if err != nil || len(cases) == 0 {
				t.Fatalf("%d cases, %v", len(cases), err)
			}
			for _, c := range cases {
				read := func(name string) string {
					b, err := os.ReadFile(filepath.Join(c, name))
					if err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
					return string(b)
				}
				f, _, _ := strings.Cut(filepath.Base(c), ".")
				call := test{f: f, stdin: read("stdin"), stdout: read("stdout"), in: map[string]string{}}
				files, err := filepath.Glob(filepath.Join(c, "in", "*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					call.in[filepath.Base(file)] = read(filepath.Join("in", filepath.Base(file)))
				}
				t.Run(filepath.Base(c), func(t *testing.T) { check(t, call, e.run(t, call)) })
			}
		})
	}
}
