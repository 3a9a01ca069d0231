package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// The plugins of this repository, built as users build them, give what their golden cases say, in the real sandbox. Each has
// a case for each of its functions, says what they are for, and is in the list of plugins/README.md.
func TestFirstParty(t *testing.T) {
	needsGo(t)
	const plugins = "../../../plugins"
	list, err := os.ReadFile(filepath.Join(plugins, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(plugins, "*", File))
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	cache := t.TempDir()
	for _, file := range dirs {
		dir := filepath.Dir(file)
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			p, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			l, err := p.language()
			if err != nil {
				t.Fatal(err)
			}
			needsCompiler(t, l.name)
			// Sandboxes are closed early, since each makes machine code of all that it has run, beside the test.
			describer := openBox(t)
			built, err := (&Builder{Cache: cache, Sandbox: func() (Sandbox, error) { return describer, nil }}).Build(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			describer.Close()
			box := openBox(t)
			binary, err := os.ReadFile(built.Path)
			if err != nil {
				t.Fatal(err)
			}
			id, err := box.Add(binary)
			if err != nil {
				t.Fatal(err)
			}
			cases, err := ReadCases(dir)
			if err != nil {
				t.Fatal(err)
			}
			r := &Runner{Sandbox: box, Module: id, Manifest: built.Manifest}
			tried := map[string]bool{}
			for _, c := range cases {
				rep, err := r.Run(t.Context(), c, false)
				if err != nil {
					t.Fatal(err)
				}
				tried[rep.Func] = true
				for _, p := range rep.Problems {
					t.Errorf("case %s: %s\n%s%s", c.Name, p.What, p.Diff, rep.Log)
				}
			}
			for _, f := range built.Manifest.Functions {
				if !tried[f.Name] || f.Doc == "" {
					t.Errorf("function %s has no case or no doc", f.Name)
				}
			}
			if built.Manifest.Name != name || !strings.Contains(string(list), "["+name+"]("+name+"/)") {
				t.Errorf("%s is not its folder's name, or is not in the list", built.Manifest.Name)
			}
		})
	}
}

// needsCompiler skips a test whose plugin cannot be built here.
func needsCompiler(t *testing.T, language string) {
	t.Helper()
	probe := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return file
	}
	switch language {
	case "c":
		toolchain.C(t, probe("p.c", "int main(void) { return 0; }\n"))
	case "rust":
		toolchain.Rust(t, probe("p.rs", "fn main() {}\n"))
	case "command": // all that have one are in AssemblyScript
		toolchain.AssemblyScript(t, probe("p.ts", "export function f(): i32 { return 1; }\n"))
	}
}
