package plugin

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseDeps(t *testing.T) {
	for text, want := range map[string][]string{
		"":        nil,
		"nothing": nil,
		"out.wasm: main.rs sdk/grid.rs\n\nmain.rs:\n":    {"main.rs", "sdk/grid.rs"},
		"o.wasm: a.c \\\n  dir/b.h \\\r\n c.h":           {"a.c", "dir/b.h", "c.h"},
		`o: with\ space.rs a$$b.rs c\#d.rs` + "\nx: y\n": {"with space.rs", "a$b.rs", "c#d.rs"},
		`o: C:\dir\file.rs`:                              {`C:\dir\file.rs`},
		"o: \\":                                          {`\`},
	} {
		if got := parseDeps([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What was made is made again when a file, the command or the compiler is another.
func TestUpToDate(t *testing.T) {
	dir := folder(t, map[string]string{"a.rs": "a", "bin/compiler": "v1", "out.wasm": library})
	out, compiler := filepath.Join(dir, "out.wasm"), filepath.Join(dir, "bin", "compiler")
	if err := os.Chmod(compiler, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &source{dir: dir, module: filepath.Join(dir, "module")}
	command := []string{compiler, "-O"}
	if s.upToDate(out, command) {
		t.Error("nothing is known, and it is up to date")
	}
	s.noteMade([]string{"a.rs"}, command)
	if !s.upToDate(out, command) {
		t.Error("nothing has changed, and it is not up to date")
	}
	if s.upToDate(out, []string{compiler, "-O2"}) || s.upToDate(filepath.Join(dir, "none.wasm"), command) {
		t.Error("another command, or no module, is up to date")
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("a.rs", "b")
	if s.upToDate(out, command) {
		t.Error("a file has changed")
	}
	s.noteMade([]string{"a.rs"}, command)
	write("bin/compiler", "version 2")
	if s.upToDate(out, command) {
		t.Error("the compiler has changed")
	}
	s.noteMade([]string{"a.rs", "gone.rs"}, command)
	if s.upToDate(out, command) {
		t.Error("a file is not there")
	}
}

func FuzzParseDeps(f *testing.F) {
	f.Add([]byte("o: a\\ b $$ c\\\n d\n"))
	f.Fuzz(func(t *testing.T, text []byte) { parseDeps(text) })
}
