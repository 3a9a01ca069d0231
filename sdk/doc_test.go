package sdk_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// The Go code in docs/sdk.md is that of example_test.go, or a program that can be built, for the grid and natively.
func TestGuide(t *testing.T) {
	doc, err := os.ReadFile("../docs/sdk.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(doc), "```go\n")[1:]
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		if !strings.HasPrefix(code, "package main") {
			if !strings.Contains(string(examples), code) {
				t.Errorf("docs/sdk.md has what is not in example_test.go:\n%s", code)
			}
			continue
		}
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(code), 0o666); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(t.TempDir(), "program")
		for _, env := range [][]string{{"GOOS=wasip1", "GOARCH=wasm"}, nil} {
			cmd := exec.Command("go", "build", "-o", program, file)
			cmd.Env = append(os.Environ(), env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), "GRID_FUNC=words")
		cmd.Stdin = strings.NewReader("the quick fox")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "3" {
			t.Errorf("%v, %q", err, out)
		}
	}
	if len(blocks) < 10 {
		t.Errorf("%d blocks of code were found", len(blocks))
	}
}

// What Source gives builds, without tests.
func TestSource(t *testing.T) {
	src := sdk.Source()
	if err := fstest.TestFS(src, "sdk.go", "abi/abi.go", "sdktest/sdktest.go", "reactor_wasip1_wasm.s"); err != nil {
		t.Error(err)
	}
	err := fs.WalkDir(src, ".", func(p string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(p, "_test.go") || p == "source.go" || strings.Contains(p, "testdata") {
			t.Errorf("it has %s", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "sdk"), src); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module github.com/wasmgrid/wasmgrid\n\ngo 1.26\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"GOOS=wasip1", ""} {
		cmd := exec.Command("go", "build", "./...")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", target)
		if target != "" {
			cmd.Env = append(cmd.Env, "GOARCH=wasm")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", target, err, out)
		}
	}
}
