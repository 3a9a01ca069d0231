package plugin

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestReadCases(t *testing.T) {
	dir := folder(t, map[string]string{
		"cases/b/stdin": "x",
		"cases/a.one/case.yaml": `
func: a
args: [-v, 3]
env: {B: 2, A: 1}
impure: true
grants: {kv: [k/]}
limits: {time: 2s, memory: 1MiB, fuel: 1_000, open-files: 3}
partitions: 4
task: 7
mounts: {/model: model}
kv: {k/a: 1}
secrets: {token: abc}
`,
		"cases/empty/case.yaml": "\n",
		"cases/note.txt":        "no case",
		"cases/.hidden/x":       "",
	})
	cases, err := ReadCases(dir)
	if err != nil || len(cases) != 3 {
		t.Fatal(len(cases), err)
	}
	seven := uint32(7)
	want := &Case{
		Name: "a.one", Dir: filepath.Join(dir, "cases", "a.one"), Func: "a", Args: []string{"-v", "3"}, Env: []string{"A=1", "B=2"}, Impure: true,
		Grants: &grid.Grants{KV: []string{"k/"}}, Limits: grid.Limits{Wall: 2 * time.Second, Memory: 1 << 20, Fuel: 1000, Open: 3},
		Partitions: 4, Task: &seven, Mounts: map[string]string{"/model": "model"}, KV: map[string]string{"k/a": "1"}, Secrets: map[string]string{"token": "abc"},
	}
	if !reflect.DeepEqual(cases[0], want) {
		t.Errorf("got %+v\nwant %+v", cases[0], want)
	}
	if one, err := ReadCases(dir, "b"); err != nil || len(one) != 1 || one[0].Name != "b" {
		t.Error(one, err)
	}
	if _, err := ReadCases(dir, "a.on"); err == nil || grid.AdviceOf(err) != "did you mean a.one?" {
		t.Error(err, grid.AdviceOf(err))
	}
	if _, err := ReadCases(t.TempDir()); grid.CodeOf(err) != grid.NotFound || grid.AdviceOf(err) == "" {
		t.Error(err)
	}
	if _, err := ReadCases(folder(t, map[string]string{"cases/x": ""})); grid.CodeOf(err) != grid.NotFound {
		t.Error(err)
	}
}

func TestBadCases(t *testing.T) {
	for yaml, want := range map[string]string{
		"fnuc: x":                     `:1:1: a case has no key "fnuc"`,
		"env: {A=B: x}":               "not a name for a variable",
		"mounts: {model: x}":          "not a clean absolute path",
		"mounts: {/model: ../x}":      "not a file below",
		"secrets: {-x: y}":            "not a name for a secret",
		"limits: {time: 3}":           "want a time",
		"grants: {kv: ['']}":          "want a prefix",
		"partitions: 0":               "whole number",
		"kv: [a]":                     "want a mapping",
		"task: x":                     "whole number",
		"limits: {memory: ten bytes}": "not a size",
	} {
		dir := folder(t, map[string]string{"cases/x/case.yaml": yaml})
		if _, err := ReadCases(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func FuzzCase(f *testing.F) {
	f.Add([]byte("func: a\nkv: {k/a: 1}\nmounts: {/m: m}\nlimits: {time: 2s}\n"))
	f.Fuzz(func(t *testing.T, text []byte) { new(Case).read(text) })
}

func TestGoldenRoundTrip(t *testing.T) {
	c := &Case{Dir: folder(t, map[string]string{"out/old.txt": "old", "stdin": "in"})}
	for _, want := range []*Golden{
		{Stdout: []byte("hello\n"), Out: map[string]string{"a/b.txt": "b", "empty": "", "link": "-> a/b.txt"}, KV: map[string]string{"k": "v", "bin": "\xff\x00", "odd": binaryValue}, End: "exit 3\nwhy"},
		{},
		{KV: map[string]string{}},
	} {
		if err := c.Update(want); err != nil {
			t.Fatal(err)
		}
		got, err := c.golden()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	if left, _ := os.ReadDir(c.Dir); len(left) != 2 { // stdin and kv.json
		t.Errorf("left: %v", left)
	}
	os.WriteFile(filepath.Join(c.Dir, kvFile), []byte("[]"), 0o600)
	if _, err := c.golden(); err == nil || !strings.Contains(err.Error(), kvFile) {
		t.Error(err)
	}
}

func TestCompare(t *testing.T) {
	what := func(ps []Problem) (out []string) {
		for _, p := range ps {
			out = append(out, p.What)
		}
		return out
	}
	for _, tt := range []struct {
		want, got Golden
		said      string
		differ    []string
	}{
		{},
		{want: Golden{Stdout: []byte("a\n")}, got: Golden{Stdout: []byte("b\n")}, differ: []string{"stdout"}},
		{want: Golden{Out: map[string]string{"x": "1", "y": "", "z": "3"}}, got: Golden{Out: map[string]string{"x": "2", "w": "", "z": "3"}}, differ: []string{"out/w", "out/x", "out/y"}},
		{want: Golden{End: "exit 1\nno text"}, got: Golden{End: "exit 1\ncount: no text"}, said: "count: no text\n"},
		{want: Golden{End: "exit 1\nno text"}, got: Golden{End: "exit 1\nother"}, said: "other\n", differ: []string{"error"}},
		{want: Golden{End: "exit 1"}, got: Golden{End: "exit 1\nother"}, said: "other\n"},
		{want: Golden{End: "exit 1"}, got: Golden{End: "trap\nunreachable"}, said: "unreachable", differ: []string{"error"}},
		{got: Golden{End: "exit 1\nx"}, said: "x", differ: []string{"error"}},
		{want: Golden{KV: map[string]string{"a": "1"}}, got: Golden{}, differ: []string{"kv.json"}},
	} {
		if got := what(tt.want.compare(&tt.got, tt.said)); !slices.Equal(got, tt.differ) {
			t.Errorf("%+v, %+v: %v", tt.want, tt.got, got)
		}
	}
	if d := difference("stdout", "a\nb\nc\n", "a\nx\nc\n"); !strings.Contains(d, "-b\n+x\n") || !strings.Contains(d, "want stdout") {
		t.Error(d)
	}
	if d := difference("out/x", "\x00abc", "\x00abd"); !strings.Contains(d, `from byte 3 on: want "c"`) {
		t.Error(d)
	}
	long := strings.Repeat("a\nb\n", 500)
	if d := difference("stdout", long, strings.ReplaceAll(long, "b", "c")); strings.Count(d, "\n") > maxDiffLines+2 || !strings.Contains(d, "more lines") {
		t.Error(d)
	}
}

func TestKV(t *testing.T) {
	ctx := t.Context()
	m, err := newKV([]string{"a/", "b/:ro"}, map[string]string{"a/1": "x", "a/2": "y", "a/3": "z", "b/1": "w", "c/1": "secret"})
	if err != nil {
		t.Fatal(err)
	}
	code := func(err error) grid.Code { return grid.CodeOf(err) }
	if e, err := m.Get(ctx, "a/1"); err != nil || string(e.Value) != "x" || e.Version == 0 {
		t.Error(e, err)
	}
	if _, err := m.Get(ctx, "a/9"); code(err) != grid.NotFound {
		t.Error(err)
	}
	if _, err := m.Get(ctx, "c/1"); code(err) != grid.Denied {
		t.Error(err)
	}
	list, more, err := m.List(ctx, "a/", "a/1", 1)
	if err != nil || !more || len(list) != 1 || list[0].Key != "a/2" {
		t.Error(list, more, err)
	}
	if _, _, err := m.List(ctx, "", "", 10); code(err) != grid.Denied {
		t.Error(err)
	}
	if _, err := m.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "b/1"}}}); code(err) != grid.Denied {
		t.Error(err)
	}
	if _, err := m.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: "a/1", Version: 9}}, Delete: []string{"a/1"}}); code(err) != grid.Conflict {
		t.Error(err)
	}
	rev, err := m.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: "a/4"}}, Put: []grid.Entry{{Key: "a/4", Value: []byte("new")}}, Delete: []string{"a/1"}})
	if err != nil || rev != 2 {
		t.Error(rev, err)
	}
	if got := m.all(); !maps.Equal(got, map[string]string{"a/2": "y", "a/3": "z", "a/4": "new", "b/1": "w", "c/1": "secret"}) {
		t.Error(got)
	}
}

// TestCaseWithin: what a case is given is in the plugin's folder, and not where a link leads out of it.
func TestCaseWithin(t *testing.T) {
	out := folder(t, map[string]string{"secret": "mine"})
	r := &Runner{Manifest: &grid.Manifest{Functions: []grid.Function{{Name: "f"}}}}
	for _, test := range []struct {
		name, link, to string
		ok             bool
	}{
		{"stdin within", stdinFile, "../../testdata/text", true},
		{"stdin elsewhere", stdinFile, filepath.Join(out, "secret"), false},
		{"files within", inDir, "../../testdata", true},
		{"files elsewhere", inDir, out, false},
		{"a mount elsewhere", "more", out, false},
	} {
		dir := folder(t, map[string]string{"testdata/text": "theirs", "cases/f/case.yaml": ""})
		if err := os.Symlink(test.to, filepath.Join(dir, CasesDir, "f", test.link)); err != nil {
			t.Skip(err)
		}
		c := &Case{Name: "f", Dir: filepath.Join(dir, CasesDir, "f")}
		if test.link == "more" {
			c.Mounts = map[string]string{"/more": "more"}
		}
		k, err := r.open(c)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
		if err != nil {
			continue
		}
		if test.link == stdinFile && string(k.stdin) != "theirs" {
			t.Errorf("%s: %q", test.name, k.stdin)
		}
		k.close()
	}
}
