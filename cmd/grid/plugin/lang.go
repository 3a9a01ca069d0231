package plugin

import (
	"bytes"
	"context"
	"errors"
	"go/build"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// language is how the programs of one language are told and built.
type language struct {
	name    string   // as --lang has it
	marks   []string // files of which one tells that a folder is of the language; may be patterns
	notWasm string   // a hint, when what comes of the build is no module
	build   func(ctx context.Context, s *source, out string) error

	setup    string            // what a new folder needs once, before it builds
	sdk      string            // its SDK's folder below that of Go's; "": Go's itself
	skip     []string          // what of it is not for a copy
	sdkFiles map[string]string // what a copy needs besides
}

// Languages are the names of those that there are templates for.
func Languages() []string {
	var names []string
	for _, l := range languages {
		names = append(names, l.name)
	}
	return names
}

// Setup is the command that a new folder of a language needs once, before it builds; "": none.
func Setup(lang string) string {
	l, err := languageNamed(lang)
	if err != nil {
		return ""
	}
	return l.setup
}

var goLanguage = &language{
	name: "go", marks: []string{"go.mod", "*.go"}, notWasm: "a program is `package main` with a func main", build: goBuild,
	sdkFiles: map[string]string{"go.mod": "module " + sdkPath + "\n\ngo 1.24\n"},
}

var languages = []*language{
	goLanguage,
	{name: "rust", marks: []string{"Cargo.toml", "main.rs"}, build: rustBuild, sdk: "rust", notWasm: "a Cargo.toml needs crate-type = [\"cdylib\"] below [lib]"},
	{name: "c", marks: []string{"*.c", "src/*.c"}, build: cBuild, sdk: "c"},
	{name: "assemblyscript", marks: []string{"asconfig.json"}, build: ascBuild, setup: "npm install", sdk: "assemblyscript", skip: []string{"package.json", "package-lock.json"}},
}

// language finds out what a project is written in.
func (p *Project) language() (*language, error) {
	if len(p.Command) > 0 {
		return &language{name: "command", build: commandBuild, notWasm: "build.output in " + File + " names the module that build.command makes"}, nil
	}
	for _, l := range languages {
		for _, mark := range l.marks {
			if found, _ := filepath.Glob(filepath.Join(escapeGlob(p.Dir), mark)); len(found) > 0 {
				return l, nil
			}
		}
	}
	return nil, failed(grid.Errorf(grid.Invalid, "build %s: it is not clear what it is written in", p.Dir),
		"tell how it is built, by build.command and build.output in "+File)
}

// escapeGlob has a pattern take a path for what it is.
func escapeGlob(path string) string {
	return strings.NewReplacer(`[`, `\[`, `*`, `\*`, `?`, `\?`).Replace(path)
}

// tool is a command that a build runs.
type tool struct {
	name    string   // for messages, such as "go build"
	command []string // what to run
	env     []string // besides our own
	install string   // what to do when it is missing
	lacks   []string // what it says when a part of it is missing
	hint    string   // when it fails
}

// run runs a tool in the source's folder. What it says is told as it is.
func (s *source) run(ctx context.Context, t tool) error {
	path, err := exec.LookPath(t.command[0])
	if err != nil {
		return failed(grid.Errorf(grid.NotFound, "build %s: there is no command %s: %w", s.name, t.command[0], err), t.install)
	}
	cmd := exec.CommandContext(ctx, path, t.command[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), append(t.env, "PWD="+s.dir)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return grid.Errorf(grid.Canceled, "build %s: interrupted", s.name)
	case err != nil && slices.ContainsFunc(t.lacks, func(l string) bool { return bytes.Contains(said.Bytes(), []byte(l)) }):
		t.hint = t.install
		fallthrough
	case err != nil && said.Len() > 0:
		return failed(grid.Errorf(grid.Invalid, "build %s failed:\n%s", s.name, indent(strings.TrimSpace(said.String()))), t.hint)
	case err != nil:
		return failed(grid.Errorf(grid.Invalid, "build %s failed: %s: %w", s.name, t.name, err), t.hint)
	}
	return nil
}

// indent sets text off from the message around it.
func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

// goBuild runs go build.
//
// What decides whether a build is up to date (sources, embedded files, modules, workspaces, toolchain, environment) only go
// knows for sure. Handed the module that it made before, whose build ID is a hash of all of that, it links nothing if the
// ID still fits: some 50 ms.
func goBuild(ctx context.Context, s *source, out string) error {
	// Without the version control's stamp, equal sources give equal modules, so that results stay known.
	args := []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-w", "-o", out}
	if isLibrary(s.dir) {
		args = append(args, "-buildmode=c-shared")
	}
	t := tool{
		name: "go build", command: append(args, "."), env: []string{"GOOS=wasip1", "GOARCH=wasm"},
		install: "install Go from https://go.dev/dl, or give a .wasm file",
	}
	if s.project == nil {
		t.hint = goHint(s.dir)
	}
	return s.run(ctx, t)
}

// goHint says what a folder lacks that go could not build; nothing, where go says it better.
func goHint(dir string) string {
	if files, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(files) == 0 {
		return "a folder is one of a plugin, with a plugin.yaml, as `grid plugin new` makes it, or of a Go main package"
	}
	dir, err := filepath.Abs(dir)
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return ""
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "there is no go.mod: run `go mod init NAME` in the folder"
		}
		dir = up
	}
	return ""
}

const sdkPath = "github.com/wasmgrid/wasmgrid/sdk"

// libraries are the packages for functions that others call: our SDK, and Extism's.
var libraries = []string{sdkPath, "github.com/extism/go-pdk"}

// isLibrary tells whether a main package is written for one of them. Then it is built as a library, which is initialised
// once for many tasks.
func isLibrary(dir string) bool {
	target := build.Default
	target.GOOS, target.GOARCH, target.CgoEnabled = "wasip1", "wasm", false
	p, err := target.ImportDir(dir, 0) // go build will say what is wrong
	return err == nil && slices.ContainsFunc(p.Imports, func(path string) bool { return slices.Contains(libraries, path) })
}

// cInstall says what C needs.
const cInstall = "on Debian, `apt-get install clang lld wasi-libc libclang-rt-dev-wasm32`; elsewhere the WASI SDK, with WASI_SDK_PATH set to its folder"

// cBuild runs clang on all C files of the folder.
func cBuild(ctx context.Context, s *source, out string) error {
	clang := "clang"
	if sdk := os.Getenv("WASI_SDK_PATH"); sdk != "" {
		clang = filepath.Join(sdk, "bin", "clang")
	}
	args := []string{clang, "--target=wasm32-wasi", "-O2", "-mexec-model=reactor", "-I.", "-I" + sdkDir, "-Wl,--strip-debug", "-o", out}
	files, err := s.files("*.c", "src/*.c")
	if err != nil {
		return err
	}
	return s.run(ctx, tool{
		name: "clang", command: append(args, files...), install: cInstall,
		lacks: []string{"wasm-ld", "stdio.h' file not found", "libclang_rt", "crt1", "No available targets"},
	})
}

// files finds the folder's files that match patterns, by their paths below it, so that what is built of them does not
// depend on where the folder is.
func (s *source) files(patterns ...string) (files []string, err error) {
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(escapeGlob(s.dir), p))
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "build %s: %w", s.name, err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(s.dir, f)
			if err != nil {
				return nil, grid.Errorf(grid.Invalid, "build %s: %w", s.name, err)
			}
			files = append(files, rel)
		}
	}
	return files, nil
}

// rustInstall says what Rust needs.
const rustInstall = "`rustup target add wasm32-wasip1`, or on Debian `apt-get install rustc libstd-rust-dev-wasm32 lld`"

// rustTargets are the names that the same target has had, the newest first.
var rustTargets = []string{"wasm32-wasip1", "wasm32-wasi"}

// rustBuild runs cargo where there is a Cargo.toml, else rustc on main.rs.
func rustBuild(ctx context.Context, s *source, out string) error {
	if !exists(filepath.Join(s.dir, "Cargo.toml")) {
		rustc, target := rustTarget(ctx, "rustc", "/usr/bin/rustc") // rustup's is often first, and has no such target
		if target == "" {
			return failed(grid.Errorf(grid.NotFound, "build %s: there is no rustc that compiles for WebAssembly", s.name), rustInstall)
		}
		command := []string{rustc, "--target", target, "--edition", "2021", "--crate-type", "cdylib", "--crate-name", "plugin", "-O", "-C", "strip=debuginfo", "main.rs"}
		if s.upToDate(out, command) {
			return nil
		}
		deps := out + ".d"
		defer os.Remove(deps)
		os.Remove(s.module + madeExt) // it is of the module before
		err := s.run(ctx, tool{
			name: "rustc", command: append(command[:len(command):len(command)], "--emit", "link="+out+",dep-info="+deps),
			install: rustInstall, lacks: []string{"linker `", "can't find crate for `std`"},
		})
		if err != nil {
			return err
		}
		if text, err := readFile(deps, maxDeps); err == nil {
			s.noteMade(parseDeps(text), command)
		}
		return nil
	}
	_, target := rustTarget(ctx, "rustc")
	if target == "" {
		return failed(grid.Errorf(grid.NotFound, "build %s: rustc does not compile for WebAssembly", s.name), rustInstall)
	}
	made := filepath.Join(s.dir, "target", "grid", "plugin.wasm") // always there, or cargo would build anew each time
	if err := os.MkdirAll(filepath.Dir(made), 0o755); err != nil {
		return osError(err)
	}
	err := s.run(ctx, tool{
		name: "cargo", install: "install Rust with cargo: https://rustup.rs, then " + rustInstall,
		command: []string{"cargo", "rustc", "--lib", "--release", "--target", target, "--", "-C", "strip=debuginfo", "--emit", "link=" + made},
	})
	if err != nil {
		return err
	}
	return s.take(made, out)
}

// rustTarget finds the first of some compilers that has the library of a WebAssembly target.
func rustTarget(ctx context.Context, compilers ...string) (rustc, target string) {
	for _, c := range compilers {
		for _, t := range rustTargets {
			dir, err := exec.CommandContext(ctx, c, "--print", "target-libdir", "--target", t).Output()
			if err == nil && exists(strings.TrimSpace(string(dir))) {
				return c, t
			}
		}
	}
	return "", ""
}

// ascBuild runs the AssemblyScript compiler that npm has put into the folder, by its asconfig.json.
func ascBuild(ctx context.Context, s *source, out string) error {
	asc := filepath.Join("node_modules", "assemblyscript", "bin", "asc.js")
	if !exists(filepath.Join(s.dir, asc)) {
		return failed(grid.Errorf(grid.NotFound, "build %s: there is no AssemblyScript compiler in node_modules", s.name), "run `npm install` in the plugin's folder, once")
	}
	files, err := s.below(".ts", ".json")
	if err != nil {
		return err
	}
	files = append(files, filepath.Join("node_modules", ".package-lock.json")) // what npm has put there
	command := []string{"node", asc, "--config", "asconfig.json"}
	made := append(command[:len(command):len(command)], files...)
	if s.upToDate(out, made) {
		return nil
	}
	os.Remove(s.module + madeExt) // it is of the module before
	err = s.run(ctx, tool{
		name: "asc", command: append(command, "-o", out),
		install: "install Node.js, version 20 or newer, from https://nodejs.org",
	})
	if err == nil {
		s.noteMade(files, made)
	}
	return err
}

// below lists the folder's files with some endings, but for those of cases, hidden folders and node_modules.
func (s *source) below(endings ...string) (files []string, err error) {
	err = filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(s.dir, p)
		switch {
		case err != nil || rerr != nil:
			return errors.Join(err, rerr)
		case d.IsDir() && p != s.dir && (rel == CasesDir || d.Name() == "node_modules" || d.Name()[0] == '.'):
			return fs.SkipDir
		case !d.IsDir() && slices.Contains(endings, filepath.Ext(p)):
			files = append(files, rel)
		}
		if len(files) > maxSources {
			return grid.Errorf(grid.Limit, "build %s: it has more than %d files", s.name, maxSources)
		}
		return nil
	})
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(osError(err)), "build %s: %w", s.name, err)
	}
	return files, nil
}

// maxSources bounds the files of a folder that are looked at.
const maxSources = 10_000

// commandBuild runs build.command of plugin.yaml, and takes what it made.
func commandBuild(ctx context.Context, s *source, out string) error {
	p := s.project
	t := tool{name: p.Command[0], command: p.Command, install: "build.command in " + File + " names it: install it"}
	if strings.ContainsRune(t.command[0], '/') && !filepath.IsAbs(t.command[0]) {
		t.command = append([]string{filepath.Join(s.dir, t.command[0])}, t.command[1:]...)
	}
	if err := s.run(ctx, t); err != nil {
		return err
	}
	made := filepath.Join(s.dir, filepath.FromSlash(p.Output))
	if !exists(made) {
		return failed(grid.Errorf(grid.NotFound, "build %s: %s has not made %s", s.name, p.Command[0], p.Output),
			"build.output in "+File+" names the module that build.command makes")
	}
	return s.take(made, out)
}

// take copies what a tool made.
func (s *source) take(made, out string) error {
	data, err := readFile(made, module.MaxSize)
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "build %s: %w", s.name, err)
	}
	return WriteFile(out, data)
}
