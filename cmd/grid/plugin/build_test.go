package plugin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// noBox is for what needs no sandbox.
func noBox() (Sandbox, error) { return nil, errors.New("no sandbox here") }

func needsGo(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("runs the compiler")
	}
}

// TestProgram: a build is made again exactly when something that it is made of changes.
func TestProgram(t *testing.T) {
	needsGo(t)
	dir := folder(t, map[string]string{
		"go.mod":         "module example.com/p\n\ngo 1.24\n",
		"cmd/main.go":    "package main\n\nimport \"example.com/p/dep\"\n\nfunc main() { println(dep.Word, text) }\n",
		"cmd/embed.go":   "package main\n\nimport _ \"embed\"\n\n//go:embed t.txt\nvar text string\n",
		"cmd/t.txt":      "first text",
		"dep/dep.go":     "package dep\n\nconst Word = \"first word\"\n",
		"broken/main.go": "package main\n\nfunc main() { nonsense() }\n",
	})
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("GOWORK", "off")
	b := &Builder{Cache: filepath.Join(t.TempDir(), "c"), Sandbox: noBox}
	build := func() string {
		t.Helper()
		built, err := b.Build(t.Context(), "cmd")
		if err != nil || built.Manifest != nil {
			t.Fatal(built, err)
		}
		data, err := os.ReadFile(built.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	one := build()
	if build() != one {
		t.Error("the same sources gave another module")
	}
	os.WriteFile("dep/dep.go", []byte("package dep\n\nconst Word = \"other word\"\n"), 0o666)
	if two := build(); !strings.Contains(two, "other word") {
		t.Error("a changed package was not built")
	}
	os.WriteFile("cmd/t.txt", []byte("other text"), 0o666)
	if !strings.Contains(build(), "other text") {
		t.Error("a changed embedded file was not built")
	}
	wantBuildError := func(dir, want string, advice bool) {
		t.Helper()
		_, err := b.Build(t.Context(), dir)
		if bad := (*BuildError)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || (grid.AdviceOf(err) != "") != advice {
			t.Errorf("%s: %v, %q", dir, err, grid.AdviceOf(err))
		}
	}
	wantBuildError("broken", "nonsense", false) // the compiler says what to do
	wantBuildError("dep", "no WebAssembly module", true)
	if list, _ := os.ReadDir(b.Cache); len(list) != 1 {
		t.Errorf("the cache holds %v", list)
	}
	t.Setenv("PATH", "")
	wantBuildError("cmd", "there is no command go", true)
	prune(b.Cache, time.Now().Add(time.Hour))
	if list, _ := os.ReadDir(b.Cache); len(list) != 0 {
		t.Errorf("the cache holds %v", list)
	}
}

// library is a module that exports run and does nothing.
var library = string(emptyModule[:18]) + "\x07\x07\x01\x03run\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"

func openBox(t testing.TB) *daemon.Sandbox {
	t.Helper()
	box, err := daemon.OpenSandbox("", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close() })
	return box
}

// A module that other tools make says nothing of itself: plugin.yaml does.
func TestCommandBuild(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip(err)
	}
	box := openBox(t)
	yaml := "name: other\nversion: 0.1.0\nbuild: {command: [sh, make.sh], output: out/m.wasm}\n"
	functions := "functions: [{name: run, kind: task, doc: Runs.}]\n"
	dir := folder(t, map[string]string{
		File: yaml + functions, "lib.wasm": library, "out/x": "",
		"make.sh": "cp lib.wasm out/m.wasm\n", "cases/run/case.yaml": "",
	})
	asked := 0
	b := &Builder{Cache: t.TempDir(), Sandbox: func() (Sandbox, error) { asked++; return box, nil }}
	built, err := b.Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if m := built.Manifest; m.String() != "other@0.1.0" || m.ABI != 1 || len(m.Functions) != 1 || m.Functions[0].Doc != "Runs." {
		t.Errorf("%+v", m)
	}
	binary, err := os.ReadFile(built.Path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := module.ReadCustom(binary)
	if err != nil || c.Manifest.String() != "other@0.1.0" {
		t.Errorf("in the module: %+v, %v", c.Manifest, err)
	}
	if _, err := b.Build(t.Context(), dir); err != nil || asked != 1 {
		t.Errorf("a second build: %v; the sandbox was needed %d times", err, asked)
	}
	if left, _ := filepath.Glob(filepath.Join(b.Cache, "new-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	id, err := box.Add(binary)
	if err != nil {
		t.Fatal(err)
	}
	r := &Runner{Sandbox: box, Module: id, Manifest: built.Manifest}
	cases, err := ReadCases(dir)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := r.Run(t.Context(), cases[0], false)
	if err != nil || !rep.OK || rep.Func != "run" {
		t.Errorf("%+v, %v", rep, err)
	}
	bench, err := r.Bench(t.Context(), cases, time.Millisecond, func() (Sandbox, error) { return daemon.OpenSandbox("", nil) }, binary)
	if err != nil || len(bench.Cases) != 1 || bench.Cases[0].Calls < 1 || bench.Cases[0].Ratio <= 0 || bench.Empty.PerSecond <= 0 {
		t.Errorf("%+v, %v", bench, err)
	}

	for _, tt := range []struct{ yaml, script, want string }{
		{yaml + "functions: [{name: other, kind: task}]\n", "cp lib.wasm out/m.wasm", "does not export"},
		{yaml, "cp lib.wasm out/m.wasm", "does not tell which functions"},
		{yaml + functions, "rm -f out/m.wasm", "has not made out/m.wasm"},
		{yaml + functions, "echo this went wrong; exit 3", "this went wrong"},
		{yaml + functions, "echo text > out/m.wasm", "no WebAssembly module"},
		{"name: other\nversion: 0.1.0\n", "", "not clear what it is written in"},
	} {
		os.WriteFile(filepath.Join(dir, File), []byte(tt.yaml), 0o644)
		os.WriteFile(filepath.Join(dir, "make.sh"), []byte(tt.script+"\n"), 0o644)
		if _, err := b.Build(t.Context(), dir); err == nil || !strings.Contains(err.Error(), tt.want) || grid.AdviceOf(err) == "" && !strings.Contains(tt.want, "went wrong") {
			t.Errorf("%q: %v", tt.script, err)
		}
	}
}

func TestIsLibrary(t *testing.T) {
	for imports, want := range map[string]bool{
		`"fmt"`:                              false,
		`"github.com/wasmgrid/wasmgrid/sdk"`: true,
		`"github.com/extism/go-pdk"`:         true,
		`"github.com/extism/go-sdk"`:         false,
	} {
		if got := isLibrary(folder(t, map[string]string{"main.go": "package main\n\nimport " + imports + "\n"})); got != want {
			t.Errorf("import %s: %v", imports, got)
		}
	}
}

// TestGoHint: a build that fails says what the folder lacks, and nothing where the compiler has said what is wrong.
func TestGoHint(t *testing.T) {
	for _, tt := range []struct {
		files map[string]string
		want  string
	}{
		{nil, "a Go main package"},
		{map[string]string{"main.go": "package main"}, "go mod init"},
		{map[string]string{"main.go": "package main", "go.mod": "module x"}, ""},
	} {
		if got := goHint(folder(t, tt.files)); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.files, got, tt.want)
		}
	}
}
