package jobfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

var splitFiles = []Input{{Name: "a", Path: "/x/a", Size: 10}, {Name: "d/b", Path: "/x/d/b", Size: 3}, {Name: "empty", Path: "/x/e"}}

func TestParsePieces(t *testing.T) {
	got, err := ParsePieces(strings.NewReader(`{"file":"a","length":4}

{"file":"a","offset":2}
{"file":"d/b","offset":1,"length":1,"name":"only/one"}
`), splitFiles)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, p := range got {
		text += fmt.Sprintln(p.Name, p.Path, p.Offset, p.Size, p.Cut)
	}
	if want := "a.0000000 /x/a 0 4 true\na.0000001 /x/a 2 8 true\nonly/one /x/d/b 1 1 true\n"; text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	for _, test := range []struct{ text, says string }{
		{"", "no pieces"},
		{"hello", "no piece"},
		{`{"file":"c"}`, `no file "c"`},
		{`{"file":"a","offset":-1}`, "from -1 on"},
		{`{"file":"a","length":-1}`, "-1 bytes"},
		{`{"file":"a","offset":11}`, "which has 10"},
		{`{"file":"a","offset":9,"length":2}`, "which has 10"},
		{`{"file":"a","offset":9,"length":9223372036854775807}`, "which has 10"},
		{`{"file":"a","offset":10}`, "empty"},
		{`{"file":"empty"}`, "empty"},
		{`{"file":"a","name":"../x"}`, "clean relative path"},
		{`{"file":"a","name":"."}`, "clean relative path"},
		{`{"file":"a","colour":"red"}`, "colour"},
		{`{"file":"a"} {"file":"a"}`, "more than one"},
		{`{"file":"a"}` + "\n" + `{"file":"c"}`, "line 2"},
		{`{"file":"` + strings.Repeat("a", maxPieceLine) + `"}`, "more than"},
	} {
		if _, err := ParsePieces(strings.NewReader(test.text), splitFiles); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%.60q: %v, want %q", test.text, err, test.says)
		}
	}
	many := strings.NewReader(strings.Repeat("{\"file\":\"a\"}\n", grid.MaxTasks+1))
	if _, err := ParsePieces(many, splitFiles); grid.CodeOf(err) != grid.Limit {
		t.Errorf("too many pieces: %v", err)
	}
}

func FuzzPieces(f *testing.F) {
	f.Add(`{"file":"a","length":4}`)
	f.Add(`{"file":"d/b","offset":1,"length":1,"name":"x"}`)
	f.Fuzz(func(t *testing.T, text string) {
		pieces, err := ParsePieces(strings.NewReader(text), splitFiles)
		if err != nil {
			return
		}
		for _, p := range pieces {
			var size int64
			for _, in := range splitFiles {
				if in.Path == p.Path {
					size = in.Size
				}
			}
			if p.Offset < 0 || p.Size <= 0 || p.Offset+p.Size > size {
				t.Fatalf("%+v of a file of %d bytes", p, size)
			}
		}
	})
}

func TestSplitKey(t *testing.T) {
	const text = `stages:
  count:
    module: m.wasm
    each: {files: "texts/*", split: cutter.lines@1}
`
	f, problems := Parse([]byte(text), nil)
	if f == nil {
		t.Fatal(problems)
	}
	p, err := f.Plan(folder{"texts/a": "one\ntwo\n"})
	if err != nil || p.Request.Stages[0].Tasks != 2 || p.Rows[0][1][0].Offset != 4 || p.Rows[0][1][0].Size != 4 {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{
		strings.Replace(text, "cutter.lines@1", "Bad Name", 1),
		strings.Replace(text, "cutter.lines@1", "cutter.lines, lines: 3", 1),
	} {
		if f, _ := Parse([]byte(bad), nil); f != nil {
			t.Errorf("it takes\n%s", bad)
		}
	}
}
