package wasmhost_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
)

// goPlugin is built with Extism's own Go PDK.
func goPlugin(tb testing.TB) []byte {
	return toolchain.Nested(tb, "testdata/extism/plugin", "-buildmode=c-shared")
}

// pluginCall is a call of a plug-in's function, and what comes of it.
type pluginCall struct {
	Func, Input string
	Config      map[string]string
	exit        uint32
	stdout      string // all of it
	stderr      string // a part
	fault       string // a part, or none
}

func (c *pluginCall) guest() *grid.Guest {
	g := &grid.Guest{Func: c.Func, Stdin: strings.NewReader(c.Input), Env: []string{"GRID_ABI=2"}}
	for k, v := range c.Config {
		g.Env = append(g.Env, k+"="+v)
	}
	return g
}

func (c *pluginCall) check(t *testing.T, h *wasmhost.Host, g *grid.Guest) {
	t.Helper()
	var stdout, stderr strings.Builder
	g.Stdout, g.Stderr = &stdout, &stderr
	out, err := h.Run(t.Context(), g)
	if err != nil {
		t.Errorf("%s: %v", c.Func, err)
		return
	}
	fault := ""
	if out.Fault != nil {
		fault = fmt.Sprintf("%v: %s", out.Fault.Code, out.Fault.Message)
	}
	if out.Exit != c.exit || stdout.String() != c.stdout || !strings.Contains(stderr.String(), c.stderr) || !strings.Contains(fault, c.fault) || (fault != "") != (c.fault != "") {
		t.Errorf("%s of %.40q: exit code %d, fault %q, stdout %q, stderr %q;\nwant %d, %q, %q, %q",
			c.Func, c.Input, out.Exit, fault, stdout.String(), stderr.String(), c.exit, c.fault, c.stdout, c.stderr)
	}
}

// goPluginCalls are of goPlugin.
var goPluginCalls = []pluginCall{
	{Func: "count_vowels", Input: "hello world", stdout: `{"count":3,"total":3,"vowels":"aeiouAEIOU"}`},
	{Func: "count_vowels", Input: "hello world", Config: map[string]string{"vowels": "lw"}, stdout: `{"count":4,"total":4,"vowels":"lw"}`},
	{Func: "count_vowels", Config: map[string]string{"GRID_X": "1"}, stdout: `{"count":0,"total":0,"vowels":"aeiouAEIOU"}`},
	{Func: "variables", stdout: `"" "first" "second" "" 42`},
	{Func: "fail", Input: "me", exit: 7, stderr: "no luck with me\n"},
	{Func: "echo", Input: "some input", stdout: "some input"},
	{Func: "echo"},
	{Func: "small", Input: "some input"},
}

// A plug-in that was built with Extism's Go PDK runs by every way there is, and each call is the first.
func TestGoPlugin(t *testing.T) {
	var l loader
	id := l.add(goPlugin(t))
	ways := map[string]func(wasmhost.Config) (*wasmhost.Host, error){
		wasmhost.Snapshot: wasmhost.OpenCompiled, wasmhost.Fresh: wasmhost.OpenFresh, "tiered": wasmhost.Open, "interpreted": wasmhost.OpenInterpreter,
	}
	told := map[string]string{}
	for way, open := range ways {
		if testing.Short() && way != "tiered" {
			continue
		}
		h := closing(t)(open(wasmhost.Config{Load: l.load}))
		const functions = "count_vowels crash echo fail fetch logs small variables"
		if m, err := h.Inspect(t.Context(), id, true); err != nil || m.Kind != grid.Reactor || !m.Extism || strings.Join(m.Functions, " ") != functions {
			t.Fatalf("%s: %+v, %v", way, m, err)
		} else if (way == wasmhost.Snapshot && m.Image > 0 || way == wasmhost.Fresh) && m.Way != way {
			t.Errorf("%s: it is %s, since %s", way, m.Way, m.Why)
		}
		calls := append(goPluginCalls[:len(goPluginCalls):len(goPluginCalls)],
			pluginCall{Func: "logs", stderr: "level=INFO msg=\"one line\"\nlevel=WARN msg=\"two\\nlines\"\nlevel=ERROR msg=bad\n"},
			pluginCall{Func: "logs", Config: map[string]string{"EXTISM_LOG": "Debug"}, stderr: "level=DEBUG msg=\"too fine\"\nlevel=INFO"},
			pluginCall{Func: "crash", fault: "trap: unreachable", stderr: "panic: on purpose"},
			pluginCall{Func: "echo", Input: strings.Repeat("0123456", 100_003), stdout: strings.Repeat("0123456", 100_003)},
			pluginCall{Func: "fetch", Config: map[string]string{"url": "http://example.org/"}, fault: "gives guests no network"},
		)
		for range 2 {
			for _, call := range calls {
				g := call.guest()
				g.Module = id
				call.check(t, h, g)
				g.Stdin = strings.NewReader(call.Input)
				got, err := account(t.Context(), h, *g)
				if err != nil {
					t.Fatal(err)
				}
				key := fmt.Sprint(call.Func, call.Config, len(call.Input))
				if before, ok := told[key]; ok && got != before {
					t.Errorf("%s, %s:\n%s\nelsewhere\n%s", way, key, got, before)
				}
				told[key] = got
			}
		}
	}
}

// A plug-in that was built with Extism's AssemblyScript PDK, from npm.
func TestAssemblyScriptPlugin(t *testing.T) {
	if testing.Short() {
		t.Skip("it fetches a compiler")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/extism/assemblyscript")); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"},
		{"node", "node_modules/assemblyscript/bin/asc.js", "plugin.ts", "--outFile", "plugin.wasm", "-O", "--use", "abort=plugin/abort"},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = dir
		if text, err := cmd.CombinedOutput(); err != nil {
			if command[0] == "npm" {
				t.Skipf("AssemblyScript's compiler and PDK cannot be fetched here: %q: %v\n%s", command, err, text)
			}
			t.Fatalf("%q: %v\n%s", command, err, text)
		}
	}
	binary, err := os.ReadFile(filepath.Join(dir, "plugin.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixed{binary: binary}
	h := open(t, wasmhost.Config{Load: f.load})
	for _, c := range []pluginCall{
		{Func: "greet", Input: "World", stdout: "Hello, World!"},
		{Func: "greet", Input: "World", Config: map[string]string{"greeting": "Howdy"}, stdout: "Howdy, World!"},
		{Func: "greet", exit: 4},
	} {
		g := c.guest()
		g.Module = f.cid()
		c.check(t, h, g)
	}
}

// Requests go where the guest was granted, as those of http_open.
func TestPluginFetches(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the plug-in once more")
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Server", "mine")
		w.WriteHeader(http.StatusTeapot)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("X-Mine"), body)
	}))
	defer srv.Close()
	net, err := guestnet.New(guestnet.Config{Policy: guestnet.Named})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixed{binary: goPlugin(t)}
	h := open(t, wasmhost.Config{Load: f.load, Net: net})
	port := srv.URL[strings.LastIndexByte(srv.URL, ':')+1:]
	grants, err := grid.NormalizeNetGrants([]string{"localhost:" + port})
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]string{"url": "http://localhost:" + port + "/"}
	c := pluginCall{Func: "fetch", Input: "a body", Config: config, stdout: "418 mine POST yes a body"}
	g := c.guest()
	g.Module, g.Net = f.cid(), grants
	c.check(t, h, g)
	c = pluginCall{Func: "fetch", Config: config, fault: "run the job with --allow-net localhost:" + port}
	g = c.guest()
	g.Module, g.Net = f.cid(), []string{"example.org:443"}
	c.check(t, h, g)
	c = pluginCall{Func: "fetch", Config: map[string]string{"url": "ftp://localhost/"}, fault: "only http and https"}
	g = c.guest()
	g.Module, g.Net = f.cid(), grants
	c.check(t, h, g)
}

// sdkPlugins are those that Extism's SDK for Go is tested with, in several languages, and what comes of them.
var sdkPlugins = []struct {
	file, about string
	calls       []pluginCall
}{
	{"count_vowels.wasm", "Rust", []pluginCall{{Func: "count_vowels", Input: "hello world", stdout: `{"count":3,"total":3,"vowels":"aeiouAEIOU"}`}}},
	{"count_vowels_std.wasm", "Go, a command", []pluginCall{{Func: "_start", Input: "hello world", stdout: `{"count": 3, "config": "<unset by host>", "a": "this is var a"}`}}},
	{"std_command.wasm", "Go, a command", []pluginCall{{Func: "_start", Input: "hello", stdout: "hello hello"}}},
	{"exit.wasm", "TinyGo, a command", []pluginCall{{Func: "_start", Config: map[string]string{"code": "3"}, exit: 3}, {Func: "_start", Config: map[string]string{"code": "0"}}}},
	{"config.wasm", "TinyGo", []pluginCall{{Func: "run_test", Config: map[string]string{"thing": "value"}, stdout: `{"config": "value"}`}}},
	{"var.wasm", "TinyGo", []pluginCall{{Func: "run_test", stdout: "a: 0"}, {Func: "run_test", stdout: "a: 0"}}},
	{"replace.wasm", "TinyGo", []pluginCall{{Func: "run_test", Input: "this is a test", stdout: "this is a wasm"}}},
	{"sleep.wasm", "TinyGo", []pluginCall{{Func: "run_test", Config: map[string]string{"duration": "3600"}, stdout: "slept for 3600 seconds"}}},
	{"fail.wasm", "C", []pluginCall{{Func: "run_test", exit: 1, stderr: "Some error message\n"}}},
	{"hello.wasm", "C", []pluginCall{{Func: "run_test", stdout: "Hello, world!"}}},
	{"alloc.wasm", "C", []pluginCall{{Func: "run_test"}}},
	{"input_offset.wasm", "text", []pluginCall{{Func: "input_offset_length", Input: "hello world", stdout: "\x0b\x00\x00\x00\x00\x00\x00\x00"}}},
	{"hello_haskell.wasm", "Haskell", []pluginCall{{Func: "testing", Input: "John", Config: map[string]string{"greeting": "Howdy"}, stdout: "Howdy, John"}}},
	{"log.wasm", "TinyGo", []pluginCall{{Func: "run_test", stderr: "level=WARN msg="}}},
	{"http_headers.wasm", "Rust", []pluginCall{{Func: "http_get", Input: `{"url":"http://127.0.0.1/"}`, fault: "gives guests no network"}}},
}

// sdk is the folder of Extism's SDK for Go.
func sdk(t *testing.T) string {
	return toolchain.NestedDir(t, "testdata/extism/oracle", "github.com/extism/go-sdk")
}

func TestSDKPlugins(t *testing.T) {
	dir := sdk(t)
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	load := func(t *testing.T, name string) *grid.Guest {
		b, err := os.ReadFile(filepath.Join(dir, "wasm", name))
		if err != nil {
			t.Fatal(err)
		}
		return &grid.Guest{Module: l.add(b)}
	}
	for _, p := range sdkPlugins {
		t.Run(p.file, func(t *testing.T) {
			if info, err := os.Stat(filepath.Join(dir, "wasm", p.file)); err != nil || testing.Short() && info.Size() > 300<<10 {
				t.Skip("it takes long to compile", err)
			}
			id := load(t, p.file).Module
			for _, c := range p.calls {
				g := c.guest()
				g.Module = id
				c.check(t, h, g)
			}
		})
	}
	t.Run("files", func(t *testing.T) {
		if testing.Short() {
			t.Skip("it takes long to compile")
		}
		c := pluginCall{Func: "try_read", Config: map[string]string{"path": "/in/a.txt"}, stdout: "hello from a file"}
		g := c.guest()
		g.Module = load(t, "read_write.wasm").Module
		g.Mounts = map[string]fs.FS{"/in": fstest.MapFS{"a.txt": {Data: []byte("hello from a file")}}}
		c.check(t, h, g)
	})
	for file, text := range map[string]string{
		"host.wasm": "extism:host/user.mult", "host_multiple.wasm": "extism:host/user.hostGreenMessage", "host_memory.wasm": "host.to_upper", "main.wasm": "lib.capitalize",
	} {
		err := h.Prepare(t.Context(), load(t, file).Module)
		if grid.CodeOf(err) != grid.Unsupported || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want Unsupported, with %q", file, err, text)
		}
	}
}

// What comes of plug-ins is what Extism's SDK for Go makes of them.
func TestOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some ten seconds to build the SDK")
	}
	dir := sdk(t)
	plugin := filepath.Join(t.TempDir(), "plugin.wasm")
	if err := os.WriteFile(plugin, goPlugin(t), 0o600); err != nil {
		t.Fatal(err)
	}
	type call struct {
		File string
		*pluginCall
	}
	var calls []call
	for i := range goPluginCalls {
		calls = append(calls, call{plugin, &goPluginCalls[i]})
	}
	for _, p := range sdkPlugins {
		for i := range p.calls {
			if c := &p.calls[i]; c.fault == "" && c.Config["duration"] == "" { // there, a sleep takes its time
				calls = append(calls, call{filepath.Join(dir, "wasm", p.file), c})
			}
		}
	}
	var in bytes.Buffer
	for _, c := range calls {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", ".")
	cmd.Dir, cmd.Stdin, cmd.Env = "testdata/extism/oracle", &in, append(os.Environ(), "GOWORK=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	results := json.NewDecoder(bytes.NewReader(out))
	for _, c := range calls {
		var r struct {
			Exit          uint32
			Output, Error string
		}
		if err := results.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Exit != c.exit || r.Output != c.stdout || c.exit != 0 && !strings.Contains(c.stderr, r.Error) && !strings.Contains(r.Error, "exit_code") {
			t.Errorf("%s, %s of %q: Extism says %+v; here it is %d, %q, %q", filepath.Base(c.File), c.Func, c.Input, r, c.exit, c.stdout, c.stderr)
		}
	}
}
