package config

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

var table = []Setting{{Command: "up", Flag: "label", List: true}, {Command: "up", Flag: "store-quota"}, {Command: "up", Flag: "workers"}}

// got is what a text says, in one line.
func got(t testing.TB, text string) (values string, problems []jobfile.Problem) {
	t.Helper()
	list, problems := Parse([]byte(text), table)
	var parts []string
	for _, v := range list {
		parts = append(parts, v.Key()+"="+strings.Join(v.Texts, "|"))
	}
	return strings.Join(parts, " "), problems
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"# nothing\n---\n":                      "",
		"up:\n":                                 "",
		"up: {workers: 4}":                      "up.workers=4",
		"up:\n  label: a=b, c=d":                "up.label=a=b|c=d",
		"up:\n  label:\n  - a=b,c=d\n  - e=f\n": "up.label=a=b,c=d|e=f",
		"up:\n  label: []":                      "up.label=",
		"up:\n  store-quota: \"200GiB\"\n  workers: 0x10\n":   "up.store-quota=200GiB up.workers=0x10",
		"x-all: &a {workers: 2}\nup:\n  <<: *a\n  label: q=r": "",
	} {
		values, problems := got(t, text)
		if strings.HasPrefix(text, "x-all") {
			if len(problems) == 0 {
				t.Errorf("%q has a key that is none", text)
			}
			continue
		}
		if values != want || len(problems) > 0 {
			t.Errorf("%q: %q %v, want %q", text, values, problems, want)
		}
	}
}

func TestParseProblems(t *testing.T) {
	for text, want := range map[string]string{
		"up:\n  workrs: 4\n":                   "2 did you mean workers?",
		"pu:\n  workers: 4\n":                  "1 its keys: up",
		"up:\n  store_quota: 4\n":              "2 did you mean store-quota?",
		"up:\n  workers: 1\n  workers: 2\n":    "3 twice",
		"up:\n  workers:\n":                    "2 no value",
		"up:\n  workers: [1, 2]\n":             "2 got a list",
		"up:\n  workers: {a: b}\n":             "2 got a mapping",
		"up:\n  label: [{a: b}]\n":             "2 got a mapping",
		"up: 4":                                "1 want a mapping",
		"- up":                                 "1 want a mapping",
		"up:\n\tworkers: 4":                    "2 tabs",
		"up:\n  workers: !x 4\n":               "2 tags",
		"up: {}\n---\nup: {}":                  "2 second document",
		"up:\n  workers: 4\n\x00":              "3 zero byte",
		"\xff\xfe":                             "0 UTF-8",
		strings.Repeat("#", 1<<20) + "\nup: 1": "0 KiB",
		"up:\n  label: [" + strings.Repeat("a,", 1001) + "]": "2 more than 1000 values",
	} {
		_, problems := got(t, text)
		if len(problems) == 0 {
			t.Errorf("%.60q is taken", text)
			continue
		}
		p := problems[0]
		line, words, _ := strings.Cut(want, " ")
		if !strings.HasSuffix(p.Where("f"), map[bool]string{true: "f", false: ":" + line}[line == "0"]) && !strings.HasPrefix(p.Where("f"), "f:"+line+":") ||
			!strings.Contains(p.Message+p.Hint, words) {
			t.Errorf("%.60q: %s: %s (%s), want %s", text, p.Where("f"), p.Message, p.Hint, want)
		}
	}
}

// TestSet: what was there stays, comments too.
func TestSet(t *testing.T) {
	const text = `# of the lab
up:
  # as many as there are cores
  workers: 2 # for now
  label: # of this machine
    - rack=r12
# the end
`
	set := func(text, key string, values ...string) string {
		t.Helper()
		s, err := Find(table, key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := Set([]byte(text), s, values)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	changed := set(set(text, "up.workers", "4"), "up.store-quota", "200GiB")
	for _, comment := range []string{"# of the lab", "# as many as there are cores", "# for now", "# of this machine", "# the end"} {
		if !strings.Contains(changed, comment) {
			t.Errorf("%q is lost:\n%s", comment, changed)
		}
	}
	if v, p := got(t, changed); v != "up.label=rack=r12 up.store-quota=200GiB up.workers=4" || len(p) > 0 {
		t.Errorf("%s %v of\n%s", v, p, changed)
	}
	for _, from := range []string{"", "# alone", "up:\n", "up: {}", "up: {workers: 4}", "---\nup:\n  workers: 1\n"} {
		out := set(from, "up.label", "a=b", `x="y": #z`, "true", "12")
		if v, p := got(t, out); !strings.Contains(v, `up.label=a=b|x="y": #z|true|12`) || len(p) > 0 || strings.HasPrefix(from, "#") && !strings.HasPrefix(out, from) {
			t.Errorf("%q becomes %q: %s %v", from, out, v, p)
		}
	}
	s := &table[2]
	for range 2 {
		out, was, err := Unset([]byte(changed), s)
		if err != nil || was != strings.Contains(changed, "workers:") {
			t.Errorf("unset: %v %v", was, err)
		}
		changed = string(out)
	}
	if v, p := got(t, changed); strings.Contains(v, "workers") || len(p) > 0 || !strings.Contains(changed, "# of the lab") {
		t.Errorf("after unset: %s %v\n%s", v, p, changed)
	}
	if out, _, err := Unset([]byte("up:\n  workers: 1\n"), s); err != nil || string(out) != "up:\n" {
		t.Errorf("the last one: %q %v", out, err)
	}
	if _, err := Set([]byte("a: &a {workers: 1}\nup: *a"), s, []string{"2"}); grid.CodeOf(err) != grid.Unsupported {
		t.Errorf("an alias: %v", err)
	}
}

func TestFind(t *testing.T) {
	for key, want := range map[string]string{"up.workrs": "up.workers", "workers": "up.workers", "up.zzzzzzzz": "grid config show"} {
		if _, err := Find(table, key); grid.CodeOf(err) != grid.NotFound || !strings.Contains(grid.AdviceOf(err), want) {
			t.Errorf("%s: %v, %s", key, err, grid.AdviceOf(err))
		}
	}
	if got := table[1].Variable(); got != "GRID_UP_STORE_QUOTA" {
		t.Error(got)
	}
}

// FuzzSet: whatever is set in whatever file is what is read from it.
func FuzzSet(f *testing.F) {
	f.Add("up:\n  workers: 1 # c\n", "4")
	f.Add("# c", "a: b\n")
	f.Add("up: {label: [a]}", " \"'#")
	f.Add("#\r0", "0") // which YAML ends a comment with, too
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text)+len(value) > 1<<10 || strings.ContainsRune(value, 0) {
			return
		}
		if _, problems := Parse([]byte(text), table); len(problems) > 0 {
			return
		}
		out, err := Set([]byte(text), &table[2], []string{value})
		if err != nil {
			return
		}
		values, problems := Parse(out, table)
		for _, v := range values {
			if v.Flag == "workers" && len(problems) == 0 && v.Texts[0] == value {
				return
			}
		}
		if strings.ToValidUTF8(value, "") == value && !strings.ContainsFunc(value, func(r rune) bool {
			return r < ' ' || r == '\u2028' || r == '\u2029' || r == '\u0085' || r == '\ufeff' || r == '\ufffd'
		}) {
			t.Errorf("%q set in %q is %q: %v %v", value, text, out, values, problems)
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a", FileName)
	if text, closed, err := Read(name); text != nil || !closed || err != nil {
		t.Errorf("absent: %q %v %v", text, closed, err)
	}
	if err := Write(name, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if text, closed, err := Read(name); string(text) != "x" || !closed || err != nil {
		t.Errorf("%q %v %v", text, closed, err)
	}
	if _, _, err := Read(dir); grid.CodeOf(err) != grid.Invalid {
		t.Errorf("a folder: %v", err)
	}
	if err := os.WriteFile(name, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(name); grid.CodeOf(err) != grid.Limit {
		t.Errorf("too long: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("y")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if text, closed, err := Read(link); string(text) != "y" || closed || err != nil {
		t.Errorf("%q %v %v", text, closed, err)
	}
}

func TestContexts(t *testing.T) {
	name := filepath.Join(t.TempDir(), "contexts.json")
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			if err := UpdateContexts(name, func(c *Contexts) error {
				c.Contexts[string(rune('a'+i))] = Context{Home: "/h"}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	c, err := LoadContexts(name)
	if err != nil || len(c.Contexts) != 10 {
		t.Fatalf("%v, %v", c, err)
	}
	if _, err := c.Get("k"); grid.CodeOf(err) != grid.NotFound {
		t.Errorf("k: %v", err)
	}
	for _, bad := range []string{"", "A", "-a", "a b", "a/b", strings.Repeat("a", 65)} {
		if CheckName(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
	err = UpdateContexts(name, func(c *Contexts) error { c.Contexts["both"] = Context{Home: "/h", API: "x"}; return nil })
	if after, _ := LoadContexts(name); grid.CodeOf(err) != grid.Invalid || !reflect.DeepEqual(after, c) {
		t.Errorf("%v leaves %v", err, after)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadContexts(name); grid.CodeOf(err) != grid.Denied || !strings.Contains(grid.AdviceOf(err), "chmod 600") {
			t.Errorf("open to all: %v", err)
		}
	}
	for _, text := range []string{"{", `{"contexts": {"a": {}}}`, `{"contexts": {"A": {"home": "/h"}}}`, `{"contexts": {"default": {"home": "/h"}}}`, `{"other": 1}`, "{}{}", "\x00"} {
		bad := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadContexts(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzContexts(f *testing.F) {
	f.Add([]byte(`{"current": "a", "contexts": {"a": {"home": "/h"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := parseContexts(text); err == nil && c.check() != nil {
			t.Errorf("%q: %v", text, c.check())
		}
	})
}
