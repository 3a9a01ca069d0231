package grid_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func sampleManifest() *grid.Manifest {
	return &grid.Manifest{
		Format: grid.ManifestFormat, Name: "word-count", Version: "1.2.0-rc.1", ABI: grid.ABIVersion,
		Description: "Counts words.", Docs: "# Words\n", License: "MIT", Authors: []string{"Ann <ann@example.org>"}, Homepage: "https://example.org",
		Wants: grid.Grants{Net: []string{"example.org"}, KV: []string{"counts/"}, Secrets: []string{"token"}},
		Functions: []grid.Function{
			{Name: "count", Kind: grid.TypedFunc, Doc: "Counts.", Input: json.RawMessage(`{"type":"string"}`), Output: json.RawMessage(`true`)},
			{Name: "map", Kind: grid.MapFunc},
		},
	}
}

func TestManifest(t *testing.T) {
	m := sampleManifest()
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if m.Wants.Net[0] != "example.org:443" {
		t.Errorf("what it wants is %q", m.Wants.Net)
	}
	back, err := grid.ParseManifest(data)
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("%+v became %+v, %v", m, back, err)
	}
	// Fields of later times.
	if _, err := grid.ParseManifest([]byte(strings.Replace(string(data), `{`, `{"mood":{"good":true},`, 1))); err != nil {
		t.Errorf("an unknown field: %v", err)
	}
}

func TestManifestRefused(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n+1) }
	for _, test := range []struct {
		name    string
		change  func(m *grid.Manifest)
		code    grid.Code
		message string
	}{
		{"no format", func(m *grid.Manifest) { m.Format = 0 }, grid.Invalid, "format 0"},
		{"newer format", func(m *grid.Manifest) { m.Format = 2 }, grid.Unsupported, "format 2, this node knows 1"},
		{"no name", func(m *grid.Manifest) { m.Name = "" }, grid.Invalid, "not a name for a plugin"},
		{"a bad name", func(m *grid.Manifest) { m.Name = "Word_Count" }, grid.Invalid, `"Word_Count" is not a name for a plugin`},
		{"a long name", func(m *grid.Manifest) { m.Name = long(64) }, grid.Invalid, "not a name for a plugin"},
		{"no version", func(m *grid.Manifest) { m.Version = "" }, grid.Invalid, "not a version"},
		{"a v", func(m *grid.Manifest) { m.Version = "v1.0.0" }, grid.Invalid, "not a version"},
		{"half a version", func(m *grid.Manifest) { m.Version = "1.0" }, grid.Invalid, "not a version"},
		{"build metadata", func(m *grid.Manifest) { m.Version = "1.0.0+7" }, grid.Invalid, "not a version"},
		{"no ABI", func(m *grid.Manifest) { m.ABI = 0 }, grid.Invalid, "names no ABI version"},
		{"newer ABI", func(m *grid.Manifest) { m.ABI = 9 }, grid.Unsupported, "word-count@1.2.0-rc.1: it was built for ABI version 9, and this node offers 2"},
		{"description", func(m *grid.Manifest) { m.Description = long(grid.MaxPlainText) }, grid.Limit, "the description has 4097 bytes"},
		{"docs", func(m *grid.Manifest) { m.Docs = long(grid.MaxDocs) }, grid.Limit, "the docs has 65537 bytes"},
		{"control characters", func(m *grid.Manifest) { m.Docs = "\x1b[2J" }, grid.Invalid, "not plain text"},
		{"licence", func(m *grid.Manifest) { m.License = "MIT\nor not" }, grid.Invalid, "more than one line"},
		{"authors", func(m *grid.Manifest) { m.Authors = make([]string, 33) }, grid.Limit, "33 authors"},
		{"not UTF-8", func(m *grid.Manifest) { m.Homepage = "\xff" }, grid.Invalid, "not plain text"},
		{"a function twice", func(m *grid.Manifest) { m.Functions[1].Name = "count" }, grid.Invalid, "two functions count"},
		{"function name", func(m *grid.Manifest) { m.Functions[1].Name = "2nd" }, grid.Invalid, `function 1: "2nd" is not a name`},
		{"kind", func(m *grid.Manifest) { m.Functions[1].Kind = "magic" }, grid.Unsupported, `of the kind "magic"`},
		{"function doc", func(m *grid.Manifest) { m.Functions[1].Doc = long(grid.MaxPlainText) }, grid.Limit, "doc of map"},
		{"schema", func(m *grid.Manifest) { m.Functions[0].Input = json.RawMessage(`[1]`) }, grid.Invalid, "the input of count is no JSON schema"},
		{"schema that is no JSON", func(m *grid.Manifest) { m.Functions[0].Output = json.RawMessage(`{`) }, grid.Invalid, "the output of count is no JSON schema"},
		{"long schema", func(m *grid.Manifest) {
			m.Functions[0].Input = json.RawMessage(`{"title":"` + long(grid.MaxSchema) + `"}`)
		}, grid.Limit, "the schema of the input of count"},
		{"wants", func(m *grid.Manifest) { m.Wants.Secrets = []string{"../x"} }, grid.Invalid, "what it wants"},
		{"functions", func(m *grid.Manifest) {
			m.Functions = nil
			for i := range grid.MaxFunctions + 1 {
				m.Functions = append(m.Functions, grid.Function{Name: fmt.Sprint("f", i), Kind: grid.TaskFunc})
			}
		}, grid.Limit, "257 functions"},
	} {
		m := sampleManifest()
		test.change(m)
		err := m.Check()
		if grid.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s: %v: %v", test.name, grid.CodeOf(err), err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	data, err := sampleManifest().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1,"name":"a","version":"1.0.0","abi":1,"functions":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := grid.ParseManifest(data)
		if err != nil {
			return
		}
		once, err := m.Encode()
		if err != nil {
			if grid.CodeOf(err) == grid.Limit { // escapes are longer
				return
			}
			t.Fatalf("what was accepted cannot be written: %v", err)
		}
		back, err := grid.ParseManifest(once)
		if err != nil {
			t.Fatalf("its own encoding is refused: %v", err)
		}
		twice, err := back.Encode()
		if err != nil || !slices.Equal(once, twice) {
			t.Fatalf("%s became %s, %v", once, twice, err)
		}
	})
}

// A module that begins with more memory than its tasks may have is refused before there is a job.
func TestModuleStartsIn(t *testing.T) {
	m := &grid.Module{Kind: grid.Command, MinMemory: 2 << 20}
	if err := grid.ModuleStartsIn(m, 2<<20); err != nil {
		t.Error(err)
	}
	if err := grid.ModuleStartsIn(m, 1<<20); grid.CodeOf(err) != grid.Limit || !strings.Contains(grid.AdviceOf(err), "--memory") {
		t.Errorf("%v, advice %q", err, grid.AdviceOf(err))
	}
}

// Whoever names no function of a library, or a wrong one, is told those that there are, as far as the module says it.
func TestModuleHas(t *testing.T) {
	anyOf := &grid.Module{Kind: grid.Reactor, Any: true}
	described := &grid.Module{Kind: grid.Reactor, Any: true, Manifest: sampleManifest()}
	exporting := &grid.Module{Kind: grid.Reactor, Functions: []string{"f", "g"}}
	for _, test := range []struct {
		m                *grid.Module
		function, advice string
	}{
		{anyOf, "", "name it with --func, in a job file with func: the module has those that it was built with; its author knows them"},
		{described, "", "name it with --func, in a job file with func: the module has count, map"},
		{exporting, "h", "it has f, g"},
		{&grid.Module{Kind: grid.Command}, "f", "leave out --func, in a job file func, to run its main; `grid plugin new` writes a module with functions"},
		{&grid.Module{Kind: grid.Command, Manifest: sampleManifest()}, "h", "leave out --func, in a job file func, to run its main; `grid plugin new` writes a module with functions"},
	} {
		err := grid.ModuleHas(test.m, test.function)
		if grid.CodeOf(err) != grid.Invalid || grid.AdviceOf(err) != test.advice {
			t.Errorf("%q: %v\nadvice %q", test.function, err, grid.AdviceOf(err))
		}
	}
	for _, test := range []struct {
		m        *grid.Module
		function string
	}{
		{&grid.Module{Kind: grid.Command}, ""},
		{&grid.Module{Kind: grid.Command, Any: true}, "f"},
		{&grid.Module{Kind: grid.Command, Manifest: sampleManifest()}, "count"},
		{anyOf, "f"},
		{exporting, "f"},
	} {
		if err := grid.ModuleHas(test.m, test.function); err != nil {
			t.Errorf("%q: %v", test.function, err)
		}
	}
}
