//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// shell runs commands where there is no network and nothing that was downloaded before.
type shell struct {
	t      *testing.T
	prefix []string // what takes the network away, where the system lets us
	env    []string
	mod    string // where go would put what it downloads
}

// newShell gives commands a home of their own. Where namespaces can be made, they have no network in theirs; in any case
// the tools are told to use none, and the module cache of go is empty.
func newShell(t *testing.T) *shell {
	t.Helper()
	bin, home := binary(t), t.TempDir()
	o := &shell{t: t, mod: filepath.Join(home, "mod")}
	if exec.Command("unshare", "--user", "--map-root-user", "--net", "true").Run() == nil {
		o.prefix = []string{"unshare", "--user", "--map-root-user", "--net", "--"}
	}
	for _, name := range []string{"GOCACHE", "GOPATH"} {
		o.env = append(o.env, name+"="+goEnv(name))
	}
	for _, v := range os.Environ() { // where compilers of rustup are
		if strings.HasPrefix(v, "RUSTUP_HOME=") || strings.HasPrefix(v, "CARGO_HOME=") {
			o.env = append(o.env, v)
		}
	}
	if os.Getenv("RUSTUP_HOME") == "" {
		o.env = append(o.env, "RUSTUP_HOME="+filepath.Join(os.Getenv("HOME"), ".rustup"))
	}
	o.env = append(o.env,
		"PATH="+filepath.Dir(bin)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HOME="+home, "GRID_HOME="+filepath.Join(home, "grid"), "XDG_CACHE_HOME="+filepath.Join(home, "cache"), "XDG_RUNTIME_DIR="+filepath.Join(home, "run"),
		"NO_COLOR=1", "TMPDIR="+os.TempDir(),
		"GOMODCACHE="+o.mod, "GOPROXY=off", "GOSUMDB=off", "GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=", "GOENV=off", "CARGO_NET_OFFLINE=true",
	)
	return o
}

// run runs a command in a folder, and gives its exit code, stdout and stderr.
func (o *shell) run(dir string, args ...string) (exit int, stdout, stderr string) {
	o.t.Helper()
	all := append(o.prefix[:len(o.prefix):len(o.prefix)], args...)
	cmd := exec.CommandContext(o.t.Context(), all[0], all[1:]...)
	cmd.Dir, cmd.Env = dir, o.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var bad *exec.ExitError
	if err != nil && !errors.As(err, &bad) {
		o.t.Fatalf("%q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// ok runs a command that must succeed, and gives its stdout.
func (o *shell) ok(dir string, args ...string) string {
	o.t.Helper()
	exit, stdout, stderr := o.run(dir, args...)
	if exit != 0 {
		o.t.Fatalf("%q: exit code %d\n%s%s", args, exit, stdout, stderr)
	}
	return stdout
}

// fails runs a command that must fail, saying certain things.
func (o *shell) fails(code int, dir string, says []string, args ...string) {
	o.t.Helper()
	exit, stdout, stderr := o.run(dir, args...)
	for _, want := range says {
		if !strings.Contains(stdout+stderr, want) {
			o.t.Errorf("%q does not say %q:\n%s%s", args, want, stdout, stderr)
		}
	}
	if exit != code {
		o.t.Errorf("%q: exit code %d, want %d\n%s%s", args, exit, code, stdout, stderr)
	}
}

// probe writes the least program of a language, to see whether it can be built here.
func probe(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPlugins makes, builds, tests and runs a plugin in each language, from scratch, without a network.
func TestPlugins(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs compilers")
	}
	for _, lang := range []struct {
		name  string
		need  func(t *testing.T)
		begin func(t *testing.T, o *shell, dir string) // before the first build
		call  string                                   // input of count
		gives string
	}{
		{
			name: "go", need: func(*testing.T) {}, call: `{"text": "hello grid"}`, gives: `{"words":2,"longest":"hello"}`,
			begin: func(t *testing.T, o *shell, dir string) {
				o.ok(dir, "go", "vet", "./...")
				o.ok(dir, "go", "test", "./...")
				o.ok(dir, "go", "mod", "tidy")
			},
		},
		{
			name: "c", need: func(t *testing.T) { toolchain.C(t, probe(t, "p.c", "int main(void) { return 0; }\n")) }, call: "hello grid", gives: "2\n",
		},
		{
			name: "rust", need: func(t *testing.T) { toolchain.Rust(t, probe(t, "p.rs", "fn main() {}\n")) }, call: "hello grid", gives: "2\n",
		},
		{
			name: "assemblyscript", call: "hello grid", gives: "2\n",
			need: func(t *testing.T) {
				toolchain.AssemblyScript(t, probe(t, "p.ts", "export function f(): i32 { return 1; }\n"))
			},
			begin: func(t *testing.T, o *shell, dir string) {
				o.fails(65, dir, []string{"no AssemblyScript compiler", "npm install"}, "grid", "plugin", "build")
				if err := os.Symlink(filepath.Join(repo(t), "sdk/assemblyscript/node_modules"), filepath.Join(dir, "node_modules")); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(lang.name, func(t *testing.T) {
			lang.need(t)
			o, above := newShell(t), t.TempDir()
			dir := filepath.Join(above, "word-count")
			o.ok(above, "grid", "plugin", "new", "word-count", "--lang", lang.name)
			o.fails(68, above, []string{"not empty", "README.md"}, "grid", "plugin", "new", "word-count")
			if lang.begin != nil {
				lang.begin(t, o, dir)
			}

			if got := o.ok(above, "grid", "plugin", "build", "word-count"); got != "word-count/word-count.wasm\n" {
				t.Errorf("build prints %q", got)
			}
			module, err := os.ReadFile(filepath.Join(dir, "word-count.wasm"))
			if err != nil {
				t.Fatal(err)
			}
			// The same from another folder, built anew.
			other := filepath.Join(t.TempDir(), "elsewhere")
			if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			o.ok(other, "grid", "plugin", "build", "-o", "again.wasm")
			if again, err := os.ReadFile(filepath.Join(other, "again.wasm")); err != nil || !bytes.Equal(again, module) {
				t.Errorf("the same sources gave another module: %v", err)
			}

			// The cases of a new folder are golden as they are; one without its output is told how to get it.
			if got := o.ok(dir, "grid", "plugin", "test"); strings.Count(got, "ok ") != 4 || !strings.Contains(got, "fuel") {
				t.Errorf("test prints\n%s", got)
			}
			golden := filepath.Join(dir, "cases", "reduce", "stdout")
			if err := os.WriteFile(golden, []byte("2 be\n4 to\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			o.fails(1, dir, []string{"FAIL  reduce", "-4 to", "+3 to", "1 of 4 cases failed", "--update"}, "grid", "plugin", "test")
			o.ok(dir, "grid", "plugin", "test", "--update")
			if fixed, err := os.ReadFile(golden); err != nil || string(fixed) != "2 be\n3 to\n" {
				t.Errorf("--update leaves %q, %v", fixed, err)
			}
			if got := o.ok(dir, "grid", "plugin", "bench", "--time", "10ms", "--case", "count", "--json"); !strings.Contains(got, `"median_ns"`) || !strings.Contains(got, `"empty"`) {
				t.Errorf("bench prints\n%s", got)
			}

			if got := o.ok(dir, "grid", "run", ".", "--each", "cases/map/in/*", "--reduce"); got != "3 be\n1 not\n1 or\n3 to\n" {
				t.Errorf("run prints %q", got)
			}
			o.ok(dir, "grid", "plugin", "install", ".")
			if got := o.ok(dir, "grid", "call", "word-count.count", lang.call); strings.TrimSpace(got) != strings.TrimSpace(lang.gives) {
				t.Errorf("call prints %q, want %q", got, lang.gives)
			}
			o.fails(1, dir, []string{"there is no word in the text"}, "grid", "call", ".", "count", map[bool]string{true: `{"text":""}`, false: " "}[lang.name == "go"])
			if _, err := os.Stat(filepath.Join(o.mod, "cache", "download")); err == nil {
				t.Error("go has downloaded something")
			}
		})
	}
}

// TestPluginGuide runs the commands of docs/plugins.md, in order, in one shell. What it says is plugin.yaml or case.yaml must
// be one.
func TestPluginGuide(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs compilers")
	}
	text, err := os.ReadFile("../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for i, part := range strings.Split(string(text), "\n```") {
		if lang, body, ok := strings.Cut(part, "\n"); i%2 == 1 && ok {
			blocks[lang] = append(blocks[lang], body)
		}
	}
	if len(blocks["sh"]) < 5 || len(blocks["yaml"]) != 2 {
		t.Fatalf("%d blocks of commands, %d of YAML", len(blocks["sh"]), len(blocks["yaml"]))
	}
	o, above := newShell(t), t.TempDir()
	script := "set -e\n" + strings.Join(blocks["sh"], "\n")
	stdout := o.ok(above, "sh", "-c", script)
	for _, want := range []string{"word-count.wasm\n", `{"words":2,"longest":"hello"}`, "3 be\n1 not\n1 or\n3 to\n", "word-count@0.1.0", "(nothing)"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the commands do not print %q:\n%s", want, stdout)
		}
	}

	dir := filepath.Join(above, "word-count")
	yaml, _, _ := strings.Cut(blocks["yaml"][0], "\nbuild:")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "cases/count/model"), 0o700); err != nil {
		t.Fatal(err)
	}
	put("plugin.yaml", yaml+"\n")
	put("cases/count/case.yaml", blocks["yaml"][1])
	o.ok(dir, "grid", "plugin", "test", "--case", "count")
	put("plugin.yaml", blocks["yaml"][0])
	put("Makefile", "plugin.wasm:\n\tcp word-count.wasm plugin.wasm\n")
	if _, err := exec.LookPath("make"); err == nil {
		o.ok(dir, "grid", "plugin", "build", "-o", "made.wasm")
	}
}
