package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// folder makes files in a new folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := create(filepath.Join(dir, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const goodYAML = `
name: words
version: 1.2.3
description: Counts words.
license: MIT
authors: [Ada <ada@example.org>, Bob]
homepage: https://example.org
wants: {kv: [counters/], secrets: api-token}
functions:
  - name: count
    doc: Counts.
    kind: func
    input: {type: object, properties: {n: {type: integer}}}
build: {command: [make, words.wasm], output: words.wasm}
`

func TestOpen(t *testing.T) {
	dir := folder(t, map[string]string{File: goodYAML, "README.md": "# words\n"})
	p, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := p.Manifest
	if m.String() != "words@1.2.3" || m.License != "MIT" || len(m.Authors) != 2 || m.Docs != "# words\n" || m.Wants.KV[0] != "counters/" || m.Wants.Secrets[0] != "api-token" {
		t.Errorf("%+v", m)
	}
	f, ok := m.Find("count")
	if !ok || f.Doc != "Counts." || f.Kind != grid.TypedFunc || string(f.Input) != `{"properties":{"n":{"type":"integer"}},"type":"object"}` {
		t.Errorf("%+v", f)
	}
	if strings.Join(p.Command, " ") != "make words.wasm" || p.Output != "words.wasm" {
		t.Errorf("%+v", p)
	}
	if _, err := Open(t.TempDir()); grid.CodeOf(err) != grid.NotFound || !strings.Contains(grid.AdviceOf(err), "grid plugin new") {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestOpenBad(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want, hint string }{
		"empty":       {"", "empty", ""},
		"key":         {"name: a\nversion: 1.0.0\ndescripton: x\n", `:3:1: plugin.yaml has no key "descripton"`, "did you mean description?"},
		"name":        {"name: A b\nversion: 1.0.0\n", `:1:7: "A b" is not a name for a plugin`, "begin with a letter"},
		"version":     {"name: a\nversion: v1\n", `:2:10: "v1" is not a version`, "MAJOR.MINOR.PATCH"},
		"no version":  {"name: a\n", "has a name and a version", "version: 0.1.0"},
		"twice":       {"name: a\nname: b\nversion: 1.0.0\n", "there twice", ""},
		"wants":       {"name: a\nversion: 1.0.0\nwants: {nett: x}\n", `wants has no key "nett"`, "did you mean net?"},
		"net":         {"name: a\nversion: 1.0.0\nwants:\n  net: ['http://x']\n", ":4:", ""},
		"kind":        {"name: a\nversion: 1.0.0\nfunctions: [{name: f, kind: fun}]\n", `got "fun"`, "did you mean func?"},
		"no function": {"name: a\nversion: 1.0.0\nfunctions: [{kind: func}]\n", "no name", ""},
		"two":         {"name: a\nversion: 1.0.0\nfunctions: [{name: f}, {name: f}]\n", `"f" is there twice`, ""},
		"build":       {"name: a\nversion: 1.0.0\nbuild: {command: make}\n", "both command and output", ""},
		"outside":     {"name: a\nversion: 1.0.0\nbuild: {command: make, output: ../x}\n", "not a file below", ""},
		"docs":        {"name: a\nversion: 1.0.0\ndocs: none.md\n", "docs of the plugin", ""},
		"docs out":    {"name: a\nversion: 1.0.0\ndocs: /etc/passwd\n", "not a file below", ""},
		"two wrong":   {"nam: a\nversion: x\n", `:2:10: "x" is not a version`, "docs/plugins.md"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(folder(t, map[string]string{File: tt.yaml}))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(grid.AdviceOf(err), tt.hint) {
				t.Errorf("got %v\nhint %q\nwant %q, %q", err, grid.AdviceOf(err), tt.want, tt.hint)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	own := description{ABI: 2, Itself: true, Functions: []grid.Function{{Name: "count", Kind: grid.TypedFunc, Doc: "own"}, {Name: "map", Kind: grid.MapFunc}}}
	got, err := own.merge([]grid.Function{{Name: "map", Doc: "said"}})
	if err != nil || len(got) != 2 || got[0].Doc != "own" || got[1].Doc != "said" || got[1].Kind != grid.MapFunc {
		t.Errorf("%+v, %v", got, err)
	}
	if own.Functions[1].Doc != "" {
		t.Error("the description was changed")
	}
	for _, tt := range []struct {
		d    description
		said []grid.Function
		want string
	}{
		{own, []grid.Function{{Name: "cuont"}}, `no function "cuont"`},
		{own, []grid.Function{{Name: "map", Kind: grid.TypedFunc}}, "is of the kind map, not func"},
		{description{ABI: 1}, nil, "does not tell which functions"},
		{description{ABI: 1}, []grid.Function{{Name: "f"}}, "has no kind"},
	} {
		if _, err := tt.d.merge(tt.said); err == nil || !strings.Contains(err.Error(), tt.want) || grid.AdviceOf(err) == "" {
			t.Errorf("%v: %v", tt.said, err)
		}
	}
	if got := leastABI([]string{"grid.http_open", "wasi_snapshot_preview1.fd_write"}); got != 1 {
		t.Errorf("ABI %d", got)
	}
	if got := leastABI([]string{"grid.kv"}); got != 2 {
		t.Errorf("ABI %d", got)
	}
}

func FuzzProject(f *testing.F) {
	f.Add([]byte(goodYAML))
	f.Add([]byte("name: a\nversion: 1.0.0\nfunctions: &a [{name: f, input: *a}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := new(Project)
		p.read(text)
	})
}

func TestNewRefuses(t *testing.T) {
	full := folder(t, map[string]string{"mine.txt": "x"})
	file := filepath.Join(full, "mine.txt")
	for _, tt := range []struct{ name, lang, dir, want string }{
		{"Bad Name", "go", t.TempDir(), "not a name for a plugin"},
		{"a", "cobol", t.TempDir(), `no template for the language "cobol"`},
		{"a", "go", full, "is not empty: it has mine.txt"},
		{"a", "go", file, "mine.txt"},
	} {
		if _, err := New(tt.name, tt.lang, tt.dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

func TestNew(t *testing.T) {
	for _, lang := range Languages() {
		t.Run(lang, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sub", "it")
			files, err := New("fresh-one", lang, dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{File, "README.md", ".gitignore", "cases/count/stdin"} {
				if !strings.Contains(strings.Join(files, " "), want) {
					t.Errorf("no %s in %q", want, files)
				}
			}
			for _, f := range files {
				text, err := os.ReadFile(filepath.Join(dir, f))
				if err != nil || strings.Contains(string(text), "{{") {
					t.Errorf("%s: %v\n%s", f, err, text)
				}
			}
			p, err := Open(dir)
			if err != nil || p.Manifest.Name != "fresh-one" {
				t.Fatal(p, err)
			}
			if l, err := p.language(); err != nil || l.name != lang {
				t.Errorf("it is taken for %v: %v", l, err)
			}
			cases, err := ReadCases(dir)
			if err != nil || len(cases) < 2 {
				t.Errorf("%d cases: %v", len(cases), err)
			}
			for _, c := range cases { // the first thing that a newcomer sees must not be a failure
				if c := filepath.Join(dir, CasesDir, c.Name); !exists(filepath.Join(c, "stdout")) && !exists(filepath.Join(c, "error")) {
					t.Errorf("%s does not say what must come out", c)
				}
			}
			// The copy of the SDK is renewed, what is not a copy is left alone.
			stale := filepath.Join(dir, sdkDir, "stale.txt")
			os.WriteFile(stale, nil, 0o644)
			if err := UpdateSDK(dir); err != nil || exists(stale) {
				t.Errorf("update: %v, stale file there: %v", err, exists(stale))
			}
			os.WriteFile(filepath.Join(dir, sdkDir, sdkNote), []byte("mine"), 0o644)
			if err := UpdateSDK(dir); grid.CodeOf(err) != grid.Conflict {
				t.Errorf("update of a folder that is no copy: %v", err)
			}
		})
	}
}

// TestDocsWithin: what is published is in the folder, and not where a link in it leads.
func TestDocsWithin(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	dir := t.TempDir()
	for name, text := range map[string]string{secret: "mine", filepath.Join(dir, File): "name: p\nversion: 1.0.0\n", filepath.Join(dir, "real.md"): "docs"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	readme := filepath.Join(dir, "README.md")
	if err := os.Symlink("real.md", readme); err != nil {
		t.Skip(err)
	}
	if p, err := Open(dir); err != nil || p.Manifest.Docs != "docs" {
		t.Errorf("a link within: %+v, %v", p, err)
	}
	if err := errors.Join(os.Remove(readme), os.Symlink(secret, readme)); err != nil {
		t.Fatal(err)
	}
	if p, err := Open(dir); err == nil {
		t.Errorf("a link to elsewhere: %+v", p)
	} else {
		t.Log(err)
	}
	if err := errors.Join(os.Remove(readme), os.Mkdir(readme, 0o700)); err != nil {
		t.Fatal(err)
	}
	if p, err := Open(dir); err == nil {
		t.Errorf("a folder: %+v", p)
	}
}
