// Package conformance_test holds the suite that every SDK must pass, in whatever language: a plugin written with it is run
// in the real engine, and must do what docs/languages.md says. The plugins in testdata are the same program in each
// language that has an SDK here.
//
// To try an SDK that is not here, build its plugin as a library and name it:
//
//	go test ./wasmhost/conformance -run TestConformance/file -plugin=$PWD/plugin.wasm
package conformance_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
)

var plugin = flag.String("plugin", "", "a conformance plugin to test, a library")

// languages build the plugin from source, where their compilers are.
var languages = []struct {
	name  string
	build func(testing.TB) []byte
}{
	{"go", func(t testing.TB) []byte { return toolchain.Go(t, "./testdata/go", "-buildmode=c-shared") }},
	{"c", func(t testing.TB) []byte {
		return toolchain.C(t, "testdata/c/main.c", "-mexec-model=reactor", "-I../../sdk/c", "-Wall", "-Wextra", "-Werror")
	}},
	{"rust", func(t testing.TB) []byte {
		return toolchain.Rust(t, "testdata/rust/main.rs", "--crate-type=cdylib", "-Dwarnings")
	}},
	{"assemblyscript", func(t testing.TB) []byte {
		return toolchain.AssemblyScript(t, "wasmhost/conformance/testdata/assemblyscript/main.ts", ascFlags("../..", "sdk/assemblyscript/grid")...)
	}},
	{"file", func(t testing.TB) []byte {
		if *plugin == "" {
			t.Skip("no -plugin is named")
		}
		b, err := os.ReadFile(*plugin)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}},
}

// test is a call of one function and what must come of it.
type test struct {
	name   string // "" is f
	f      string
	args   []string
	env    []string
	stdin  string
	in     map[string]string // files below /in
	kv     bool              // it may use keys that begin with app/
	net    bool              // it may send requests to the test's server, whose URL it is then given as stdin
	fails  bool              // with exit code 1
	stdout string
	stderr string            // what is among the log
	out    map[string]string // files below /out
	more   func(t *testing.T, r *result)
}

type result struct {
	stdout, stderr string
	out            map[string]string
	outcome        grid.Outcome
	progress       []string
}

// tests are the suite. docs/languages.md says the same in words.
var tests = []test{
	{f: "echo", stdin: "as\x00it is\xff\n", stdout: "as\x00it is\xff\n"},
	{f: "echo", name: "echo nothing"},
	{f: "echo", name: "echo files", in: map[string]string{"b": "second", "a": "first "}, stdout: "first second"},
	{f: "echo", name: "echo much", stdin: large, stdout: large},
	{f: "upper", stdin: "aZ é 1\n", stdout: "AZ é 1\n"},
	{f: "once", stdout: "made at the start\n"},
	{f: "args", args: []string{"a", "", "b c", "é"}, stdout: "a\n\nb c\né\n"},
	{f: "args", name: "no args"},
	{f: "env", args: []string{"COLOR", "EMPTY", "NONE", "GRID_FUNC"}, env: []string{"COLOR=dark blue", "EMPTY="}, stdout: "COLOR=dark blue\nEMPTY=\nNONE=(unset)\nGRID_FUNC=env\n"},
	{f: "number", env: []string{"GRID_TASK=41"}, stdout: "41\n"},
	{f: "number", name: "no number", stdout: "(none)\n"},
	{f: "files", in: map[string]string{"b.txt": "hello", "a/z.txt": "", "a/deep/er.bin": "\x00\x01", "a.txt": "x"},
		stdout: "a/deep/er.bin 2\na/z.txt 0\na.txt 1\nb.txt 5\n",
		out:    map[string]string{"copy/b.txt": "hello", "copy/a/z.txt": "", "copy/a/deep/er.bin": "\x00\x01", "copy/a.txt": "x"}},
	{f: "files", name: "files of stdin", stdin: "hello", stdout: "stdin 5\n", out: map[string]string{"copy/stdin": "hello"}},
	{f: "files", name: "files of earlier tasks", in: map[string]string{"0000000": "a", "0000000.out/x": "not input", "in/0000001.out/x": "nor this", "in/0000001": "b"},
		stdout: "0000000 1\nin/0000001 1\n", out: map[string]string{"copy/0000000": "a", "copy/in/0000001": "b"}},
	{f: "lines", in: map[string]string{"a": "one\ntwo\n\nlast", "b": "x\n", "c": large}, stdout: fmt.Sprintf("%d %d\n", 5+len(large)/10, 11+len(large)/10*9)},
	{f: "lines", name: "long lines", stdin: strings.Repeat("x", 200_000) + "\n\n" + strings.Repeat("y", 70_000), stdout: "3 270000\n"},
	{f: "lines", name: "lines of many files", in: numbered(1200), stdout: "1200 4800\n"}, // more than may be open at a time
	{f: "words", in: map[string]string{"a": "b;a;b", "b": "a\tb;new\nline;back\\slash;b;\r;é"}, stdout: "\\r\t1\na\t1\na\\tb\t1\nb\t3\nback\\\\slash\t1\nnew\\nline\t1\né\t1\n"},
	{f: "words", name: "no words", in: map[string]string{"a": ""}},
	{f: "words", name: "many words", stdin: many(50_000), more: func(t *testing.T, r *result) {
		if lines := strings.SplitAfter(r.stdout, "\n"); len(lines) != 50_001 || !slices.IsSorted(lines[:50_000]) || lines[0] != "0\t2\n" {
			t.Errorf("%d lines, beginning %.100q", len(lines), r.stdout)
		}
	}},
	{f: "words", name: "words fail", in: map[string]string{"a": "fine", "b": "!on purpose"}, fails: true, stderr: "words: input b: on purpose\n"},
	{f: "total", in: map[string]string{"0000000": "a\t1\nb\t-2\n", "0000001": "a\t10\na\\tb\t3\nback\\\\slash\t4", "0000001.out/x": "no record"}, stdout: "[a]=11\n[a\tb]=3\n[b]=-2\n[back\\slash]=4\n"},
	{f: "total", name: "total of nothing"},
	{f: "total", name: "total of no records", in: map[string]string{"0000000": "a\t1\nb 1\n"}, fails: true, stderr: "total: input 0000000: line 2"},
	{f: "total", name: "total of no numbers", in: map[string]string{"0000000": "a\tx\n"}, fails: true, stderr: "total: input 0000000: line 1"},
	{f: "total", name: "total of a bad key", in: map[string]string{"0000000": "a\\x\t1\n"}, fails: true, stderr: "total: input 0000000: line 1"},
	{f: "fail", stdin: "on purpose", fails: true, stderr: "fail: on purpose\n"},
	{f: "crash", fails: true},
	{f: "log", stderr: "one\ntwo\n"},
	{f: "progress", more: func(t *testing.T, r *result) {
		if got := strings.Join(r.progress, " "); got != "1/4 4/4 7/0" {
			t.Errorf("progress %s", got)
		}
	}},
	{f: "metrics", more: func(t *testing.T, r *result) {
		want := `[{"name":"lines","kind":"counter","count":7},{"name":"size","kind":"histogram","count":2,"sum":3.5,"buckets":[{"exp":-1,"count":1},{"exp":2,"count":1}]}]`
		if got, _ := json.Marshal(r.outcome.Metrics); string(got) != want {
			t.Errorf("metrics %s\nwant    %s", got, want)
		}
	}},
	{f: "kv", kv: true, stdin: `get app/a
put app/a 1
get app/a
add app/a 41
get app/a
add app/b 7
new app/c app/b
get app/b
new app/c app/a
get app/c
put app/d four
list app/ 2
list app/ 10
delete app/a
get app/a
delete app/a
put other 1
get other
list app/x 10
`, stdout: "none\ndone\n1\ndone\n42\ndone\ndone\nnone\nconflict\n\ndone\napp/a = 42\napp/c = \nmore\napp/a = 42\napp/c = \napp/d = four\nend\ndone\nnone\ndone\ndenied\ndenied\nend\n"},
	{f: "secret", stdin: "token", stdout: "swordfish"},
	{f: "secret", name: "no secret", stdin: "other", fails: true, stderr: "secret: "},
	{f: "data", args: []string{granted, "dir/file"}, stdout: "granted"},
	{f: "data", name: "no data", args: []string{"bafyother", "file"}, fails: true, stderr: "data: "},
	{f: "random", more: func(t *testing.T, r *result) {
		if text := strings.TrimSuffix(r.stdout, "\n"); len(text) != 16 || strings.Trim(text, "0123456789abcdef") != "" || strings.Trim(text, "0") == "" {
			t.Errorf("random %q", r.stdout)
		}
	}},
	{f: "clock", more: func(t *testing.T, r *result) {
		ms, err := strconv.ParseInt(strings.TrimSuffix(r.stdout, "\n"), 10, 64)
		if at := time.UnixMilli(ms).Sub(time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil || at < 0 || at > time.Second {
			t.Errorf("clock %q: %v after the beginning, %v", r.stdout, at, err)
		}
	}},
	{f: "fib", stdin: "9", stdout: "34"},
	{f: "children", more: family},
	{f: "fetch", stdin: "http://localhost:1/", stdout: "denied"},
	{f: "fetch", name: "fetch with a grant", net: true, stdout: "418 yes POST hello"},
	{f: "absent", fails: true, stderr: `this program has no function "absent", only: echo, upper, once, args, env`},
	{f: "", name: "no function", fails: true, stderr: "no function was named; this program has: echo, upper, once, args, env"},
}

const granted = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"

// large has lines of ten bytes.
var large = strings.Repeat("123456789\n", 150_000)

// many has n words, and the first one twice.
func many(n int) string {
	var b strings.Builder
	b.WriteByte('0')
	for i := range n {
		fmt.Fprintf(&b, ";%d", i)
	}
	return b.String()
}

// numbered has n files of one line.
func numbered(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("dir%d/file%d", i%3, i)] = "line\n"
	}
	return files
}

func TestConformance(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			if testing.Short() && l.name != "c" {
				t.Skip("one language is enough for a short test")
			}
			conform(t, l.build(t))
		})
	}
}

// BenchmarkCall measures whole calls of a small function, and of a large input through it and back.
func BenchmarkCall(b *testing.B) {
	for _, l := range languages {
		b.Run(l.name, func(b *testing.B) {
			e := newEngine(b, l.build(b))
			if _, err := e.host.Inspect(b.Context(), e.module, true); err != nil {
				b.Fatal(err)
			}
			for name, call := range map[string]test{"raw": {f: "echo", stdin: "hello"}, "typed": {f: "fib", stdin: "1"}, "large": {f: "echo", stdin: large}} {
				b.Run(name, func(b *testing.B) {
					b.SetBytes(int64(len(call.stdin)))
					for b.Loop() {
						if r, err := e.call(b.Context(), call); err != nil || r.outcome.Exit != 0 {
							b.Fatal(r, err)
						}
					}
				})
			}
		})
	}
}

// conform runs the suite.
func conform(t *testing.T, binary []byte) {
	e := newEngine(t, binary)
	m, err := e.host.Inspect(t.Context(), e.module, true)
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != grid.Reactor || !m.Any || m.Way != wasmhost.Snapshot {
		t.Errorf("it is a %s, which finds any function: %v, run by %s, since %s; want a reactor with %s, run by %s", m.Kind, m.Any, m.Way, m.Why, abi.Call, wasmhost.Snapshot)
	}
	t.Logf("%d bytes, image %d bytes, imports %s", m.Size, m.Image, strings.Join(m.Imports, " "))
	for _, test := range tests {
		t.Run(cmp.Or(test.name, test.f), func(t *testing.T) {
			first := e.run(t, test)
			check(t, test, first)
			// What has run before is nothing to the next one.
			if again := e.run(t, test); !test.net && (again.stdout != first.stdout || again.stderr != first.stderr || again.outcome.Exit != first.outcome.Exit || again.outcome.Fuel != first.outcome.Fuel) {
				t.Errorf("once more it gives exit code %d, %d fuel, %.1000q, stderr %.1000q;\nbefore exit code %d, %d fuel, %.1000q, stderr %.1000q",
					again.outcome.Exit, again.outcome.Fuel, again.stdout, again.stderr, first.outcome.Exit, first.outcome.Fuel, first.stdout, first.stderr)
			}
		})
	}
	t.Run("random of another task", func(t *testing.T) {
		a := e.run(t, test{f: "random"})
		if b := e.run(t, test{f: "random", args: []string{"another"}}); a.stdout == b.stdout {
			t.Errorf("two tasks draw the same: %s", a.stdout)
		}
	})
	t.Run("describe", func(t *testing.T) { describe(t, e.run(t, test{f: abi.Describe})) })
}

func check(t *testing.T, test test, r *result) {
	t.Helper()
	if f := r.outcome.Fault; f != nil && !(test.f == "crash" && f.Code == grid.Trap) {
		t.Fatalf("it did not exit: %v: %s\n%s\nstderr: %s", f.Code, f.Message, f.Stack, r.stderr)
	}
	if failed := r.outcome.Exit != 0 || r.outcome.Fault != nil; failed != test.fails || r.outcome.Exit > 1 {
		t.Errorf("exit code %d, stderr %.2000s", r.outcome.Exit, r.stderr)
	}
	if test.more != nil {
		test.more(t, r)
	} else if r.stdout != test.stdout {
		t.Errorf("stdout %.2000q\nwant   %.2000q", r.stdout, test.stdout)
	}
	if !strings.Contains(r.stderr, test.stderr) {
		t.Errorf("stderr %.2000q\nwant   %.2000q", r.stderr, test.stderr)
	}
	if !maps.Equal(r.out, test.out) {
		t.Errorf("/out %.2000q\nwant %.2000q", r.out, test.out)
	}
}

// family checks what children came to, the last one first. How a trap is told is the language's.
func family(t *testing.T, r *result) {
	lines := strings.SplitAfter(r.stdout, "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[0], `task absent: exit code 1: this program has no function "absent", only: echo`) ||
		!strings.HasPrefix(lines[1], "task crash: ") || !strings.HasSuffix(r.stdout, "\ntask fail: exit code 1: on purpose\nargs: a\nb c\n") {
		t.Errorf("children: %s", r.stdout)
	}
}

// describe checks what the plugin says of itself.
func describe(t *testing.T, r *result) {
	var d struct {
		ABI       uint            `json:"abi"`
		Functions []grid.Function `json:"functions"`
	}
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil || r.outcome.Exit != 0 {
		t.Fatalf("%v\n%s%s", err, r.stdout, r.stderr)
	}
	if d.ABI != abi.Version {
		t.Errorf("ABI %d, want %d", d.ABI, abi.Version)
	}
	kinds := map[string]grid.FunctionKind{
		"echo": grid.TypedFunc, "upper": grid.TypedFunc, "fail": grid.TypedFunc, "secret": grid.TypedFunc, "fib": grid.TypedFunc, "fetch": grid.TypedFunc,
		"words": grid.MapFunc, "total": grid.ReduceFunc,
	}
	var names []string
	for _, f := range d.Functions {
		names = append(names, f.Name)
		if want := cmp.Or(kinds[f.Name], grid.TaskFunc); f.Kind != want || f.Doc == "" {
			t.Errorf("%s is a %q that does %q, want a %q with a doc", f.Name, f.Kind, f.Doc, want)
		}
		for _, schema := range []json.RawMessage{f.Input, f.Output} {
			var s struct{ Type string }
			if f.Name != "fib" && len(schema) > 0 || f.Name == "fib" && (json.Unmarshal(schema, &s) != nil || s.Type != "integer") {
				t.Errorf("%s has the schema %s", f.Name, schema)
			}
		}
	}
	if got := strings.Join(names, " "); got != "echo upper once args env number files lines words total fail crash log progress metrics kv secret data random clock fib children fetch" {
		t.Errorf("functions %s", got)
	}
	if !strings.Contains(r.stdout, `by \"tasks\"`) {
		t.Errorf("the doc of fib has quotes: %s", r.stdout)
	}
}

// engine runs calls of one plugin.
type engine struct {
	host   *wasmhost.Host
	module cid.Cid
	server string // host:port of one that answers
}

func newEngine(t testing.TB, binary []byte) *engine {
	t.Helper()
	hash, err := multihash.Sum(binary, multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	net, err := guestnet.New(guestnet.Config{Policy: guestnet.Named})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		w.Header().Set("X-Answer", r.Header.Get("X-Test"))
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s", r.Method, body)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	h, err := wasmhost.Open(wasmhost.Config{Net: net, Load: func(context.Context, cid.Cid) ([]byte, error) { return binary, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return &engine{h, cid.NewCidV1(cid.Raw, hash), "localhost:" + u.Port()}
}

func (e *engine) run(t *testing.T, test test) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := e.call(ctx, test)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// call runs one function, and ends what it has spawned and not awaited.
func (e *engine) call(ctx context.Context, test test) (*result, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &children{e: e, ctx: ctx}
	defer c.wait.Wait()
	defer cancel()
	r := new(result)
	var stdout, stderr bytes.Buffer
	g := &grid.Guest{
		Module: e.module, Func: test.f, Args: append([]string{"plugin"}, test.args...), Env: append([]string{"GRID_ABI=2"}, test.env...),
		Stdin: strings.NewReader(test.stdin), Stdout: &stdout, Stderr: &stderr, Tasks: c,
		Mounts: map[string]fs.FS{
			abi.Secrets: fstest.MapFS{"token": {Data: []byte("swordfish")}},
			abi.Data:    fstest.MapFS{granted + "/dir/file": {Data: []byte("granted")}},
		},
		Progress: func(done, total uint64) { r.progress = append(r.progress, fmt.Sprintf("%d/%d", done, total)) },
	}
	if test.f != "" {
		g.Env = append(g.Env, "GRID_FUNC="+test.f)
	}
	copy(g.Seed[:], strings.Join(test.args, " "))
	if len(test.in) > 0 {
		tree := fstest.MapFS{}
		for name, data := range test.in {
			tree[name] = &fstest.MapFile{Data: []byte(data)}
		}
		g.Mounts[abi.In] = tree
	}
	if test.kv {
		g.KV = &store{entries: map[string]grid.Entry{}}
	}
	if test.net {
		g.Net, g.Impure = []string{e.server}, true
		g.Stdin = strings.NewReader("http://" + e.server + "/path")
	}
	var err error
	if r.outcome, err = e.host.Run(ctx, g); err != nil {
		return nil, err
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	if r.outcome.Out == nil {
		return r, nil
	}
	r.out = map[string]string{}
	return r, fs.WalkDir(r.outcome.Out, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var b []byte
			b, err = fs.ReadFile(r.outcome.Out, p)
			r.out[p] = string(b)
		}
		return err
	})
}

// children runs what a guest spawns, at once.
type children struct {
	e    *engine
	ctx  context.Context
	list []chan ended
	wait sync.WaitGroup
}

type ended struct {
	grid.Ending
	err error
}

func (c *children) Spawn(_ context.Context, call grid.Call) (uint32, error) {
	if len(c.list) >= 1000 {
		return 0, grid.Errorf(grid.Limit, "spawned more than 1000 tasks")
	}
	done := make(chan ended, 1)
	c.list = append(c.list, done)
	c.wait.Go(func() {
		r, err := c.e.call(c.ctx, test{f: call.Func, args: call.Args, stdin: string(call.Stdin)})
		if err != nil {
			done <- ended{err: err}
			return
		}
		done <- ended{Ending: grid.Ending{Exit: r.outcome.Exit, Fault: r.outcome.Fault, Stdout: io.NopCloser(strings.NewReader(r.stdout)), Stderr: []byte(r.stderr)}}
	})
	return uint32(len(c.list) - 1), nil
}

func (c *children) Ended(i uint32) bool {
	return int(i) >= len(c.list) || c.list[i] == nil || len(c.list[i]) > 0
}

func (c *children) Await(ctx context.Context, i uint32) (grid.Ending, error) {
	if int(i) >= len(c.list) || c.list[i] == nil {
		return grid.Ending{}, grid.Errorf(grid.NotFound, "no task %d", i)
	}
	select {
	case e := <-c.list[i]:
		c.list[i] = nil
		return e.Ending, e.err
	case <-ctx.Done():
		return grid.Ending{}, context.Cause(ctx)
	}
}

// store is a map of which a guest may use what begins with app/.
type store struct {
	entries  map[string]grid.Entry
	revision uint64
}

func allowed(key string) error {
	if !strings.HasPrefix(key, "app/") {
		return grid.Errorf(grid.Denied, "the key %q was not granted", key)
	}
	return nil
}

func (s *store) Get(_ context.Context, key string) (grid.Entry, error) {
	if err := allowed(key); err != nil {
		return grid.Entry{}, err
	}
	e, ok := s.entries[key]
	if !ok {
		return e, grid.Errorf(grid.NotFound, "no key %q", key)
	}
	return e, nil
}

// List gives pages of two, so that a limit above that takes several.
func (s *store) List(_ context.Context, prefix, after string, limit int) (list []grid.Entry, more bool, err error) {
	if err := allowed(prefix); err != nil {
		return nil, false, err
	}
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if !strings.HasPrefix(key, prefix) || key <= after {
			continue
		}
		if len(list) == min(limit, 2) {
			return list, true, nil
		}
		list = append(list, s.entries[key])
	}
	return list, false, nil
}

func (s *store) Commit(_ context.Context, t grid.Txn) (uint64, error) {
	for _, c := range t.If {
		if s.entries[c.Key].Version != c.Version {
			return 0, grid.Errorf(grid.Conflict, "the key %q has changed", c.Key)
		}
	}
	for _, e := range t.Put {
		if err := allowed(e.Key); err != nil {
			return 0, err
		}
	}
	s.revision++
	for _, e := range t.Put {
		e.Value, e.Version = bytes.Clone(e.Value), s.revision
		s.entries[e.Key] = e
	}
	for _, key := range t.Delete {
		delete(s.entries, key)
	}
	return s.revision, nil
}
