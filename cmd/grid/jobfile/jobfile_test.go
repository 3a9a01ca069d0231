package jobfile

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// folder is files in memory.
type folder map[string]string

// Split makes a piece of each line.
func (f folder) Split(_ string, files []Input) (out []Piece, err error) {
	var said strings.Builder
	for _, in := range files {
		at := 0
		for line := range strings.Lines(string(f[in.Path])) {
			fmt.Fprintf(&said, `{"file":%q,"offset":%d,"length":%d}`+"\n", in.Name, at, len(line))
			at += len(line)
		}
	}
	return ParsePieces(strings.NewReader(said.String()), files)
}

func (f folder) Find(patterns []string) (found []Input, err error) {
	for _, p := range patterns {
		n := len(found)
		for name, data := range f {
			if ok, _ := path.Match(p, name); ok || strings.HasSuffix(p, "**") && strings.HasPrefix(name, p[:len(p)-2]) {
				found = append(found, Input{Name: strings.TrimPrefix(name, "texts/"), Path: name, Size: int64(len(data))})
			}
		}
		if n == len(found) {
			return nil, grid.Errorf(grid.NotFound, "%q matches nothing", p)
		}
	}
	slices.SortFunc(found, func(a, b Input) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(found), nil
}

func (f folder) Open(in Input) (io.ReaderAt, io.Closer, error) {
	return strings.NewReader(f[in.Path]), io.NopCloser(nil), nil
}

var texts = folder{
	"texts/a.txt":   "one\ntwo\nfoo\n",
	"texts/b.txt":   "three\r\nfour\r\nfive",
	"texts/none":    "",
	"texts/d/x.txt": "x",
	"texts/d/y.txt": "yy",
}

// told is what a golden file says of a job file.
func told(text []byte, set map[string]string) string {
	var b strings.Builder
	f, problems := Parse(text, set)
	for _, p := range problems {
		fmt.Fprintf(&b, "%s: ", p.Where("FILE"))
		if p.Warning {
			b.WriteString("warning: ")
		}
		fmt.Fprintf(&b, "%s\n", p.Message)
		if p.Hint != "" {
			fmt.Fprintf(&b, "  hint: %s\n", p.Hint)
		}
	}
	if f == nil {
		return b.String()
	}
	p, err := f.Plan(texts)
	if err != nil {
		fmt.Fprintf(&b, "plan: %v\n", err)
		if hint := grid.AdviceOf(err); hint != "" {
			fmt.Fprintf(&b, "  hint: %s\n", hint)
		}
		return b.String()
	}
	data, err := json.MarshalIndent(p.Request, "", " ")
	if err != nil {
		panic(err)
	}
	b.Write(data)
	b.WriteString("\n")
	for i, st := range p.Stages {
		fmt.Fprintf(&b, "%s: module %s", p.Request.Stages[i].Name, st.Module)
		if st.Stdin != "" {
			fmt.Fprintf(&b, ", stdin %s", st.Stdin)
		}
		for _, m := range st.Mounts {
			fmt.Fprintf(&b, ", %s at %s", m.From, m.Path)
		}
		b.WriteString("\n")
		for k, row := range p.Rows[i] {
			fmt.Fprintf(&b, "  %d:", k)
			for _, in := range row {
				data := texts[in.Path]
				if in.Cut {
					data = data[in.Offset:][:in.Size]
				}
				fmt.Fprintf(&b, " %s=%q", in.Name, data)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".yaml")
		t.Run(base, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var set map[string]string
			if base == "wordcount" {
				set = map[string]string{"top": "5"}
			}
			got := told(text, set)
			golden := strings.TrimSuffix(name, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if ok := !strings.HasPrefix(base, "bad-"); ok != strings.Contains(got, `"stages"`) {
				t.Errorf("is it good or bad?\n%s", got)
			}
		})
	}
}

func TestSet(t *testing.T) {
	const text = "params: {a: {type: size}, b: {default: \"\", type: string}}\nstages: {s: {module: \"m${b}\", args: [\"${a}$${x}\"]}}\n"
	for _, tt := range []struct {
		set  map[string]string
		want string
	}{
		{nil, "FILE:1:10: the param a has no value\n  hint: give it one, --set a=VALUE, or a default\n"},
		{map[string]string{"a": "lots"}, `FILE:1:10: --set a: want a value of type size, got "lots"` + "\n"},
		{map[string]string{"a": "1k", "bb": ""}, "FILE: there is no param \"bb\" to set\n  hint: its params: a, b\n"},
		{map[string]string{"a": "1k", "b": ": [}"}, ""},
	} {
		f, problems := Parse([]byte(text), tt.set)
		if tt.want == "" {
			if f == nil || f.Stages[0].Module != "m: [}" || f.Stages[0].Args[0] != "1k${x}" {
				t.Errorf("%+v %v", f, problems)
			}
		} else if got := told([]byte(text), tt.set); got != tt.want {
			t.Errorf("%v: got %s", tt.set, got)
		}
	}
	if p := Params([]byte(text)); len(p) != 2 || p[0].Name != "a" || p[0].Optional || !p[1].Optional {
		t.Errorf("%+v", p)
	}
}

func TestBounds(t *testing.T) {
	deep := "stages: {a: {module: m, args: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}}"
	bomb := "x: &a0 [y]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("x%d: &a%d [%s]\n", i, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	many := "stages:\n"
	for i := range 65 {
		many += fmt.Sprintf("  s%d: {module: m}\n", i)
	}
	wrong := strings.Repeat("? x\n: y\n", 30) + "stages: {a: {module: m}}"
	for want, text := range map[string]string{
		"more than 1024 KiB": strings.Repeat("#", MaxBytes+1),
		"not UTF-8":          "\xff",
		"want text, got a":   deep,
		"has no key":         bomb + "stages: {a: {module: m, args: *a9}}",
		"64 are allowed":     many,
		"and 20 more":        wrong,
		"anchor":             "stages: {a: {module: *m}}",
		"circle":             "stages: {a: {module: m, from: a}}",
	} {
		if got := told([]byte(text), nil); !strings.Contains(got, want) {
			t.Errorf("want %q, got %.300s", want, got)
		}
	}
}

// compiled is the schema, ready to check with.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("job.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("job.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSchema checks that the schema and the parser know the same keys, and that the schema accepts what the parser does.
func TestSchema(t *testing.T) {
	s := compiled(t)
	var schema struct {
		Properties map[string]any
		Defs       map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	kinds := map[string][]string{}
	files, _ := filepath.Glob("testdata/*.yaml")
	examples, _ := filepath.Glob("../../../docs/examples/*.yaml")
	for _, name := range append(files, examples...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]string{}
		for _, p := range Params(text) {
			if !p.Optional {
				set[p.Name] = "1"
			}
		}
		r := &reader{seen: func(kind string, keys []string) { kinds[kind] = keys }}
		f, problems := r.parse(text, set)
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			continue
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(doc); f != nil && err != nil {
			t.Errorf("%s: the schema refuses it: %v", name, err)
		} else if strings.Contains(name, "bad-keys") && err == nil {
			t.Errorf("%s: the schema accepts it", name)
		}
		if f == nil && strings.Contains(name, "examples") {
			t.Errorf("%s: %v", name, problems)
		}
	}
	delete(kinds, top)
	names := map[string]string{"a stage": "stage", "a param": "param", "a range": "range"}
	for kind, keys := range kinds {
		name := kind
		if n := names[kind]; n != "" {
			name = n
		}
		var known []string
		for key := range schema.Defs[name].Properties {
			known = append(known, key)
		}
		slices.Sort(known)
		if !slices.Equal(known, keys) {
			t.Errorf("%s: the schema has %v, the parser %v", name, known, keys)
		}
	}
	if len(kinds) != 12 {
		t.Errorf("the files show %d kinds of objects: %v", len(kinds), kinds)
	}
}

func TestDeal(t *testing.T) {
	size := func(n int64) int64 { return n }
	for _, tt := range []struct {
		count int
		bytes int64
		want  string
	}{{2, 1 << 40, "[[5 1] [1 1] [9]]"}, {9, 3, "[[5] [1 1 1] [9]]"}, {1, 1, "[[5] [1] [1] [1] [9]]"}} {
		if got := fmt.Sprint(Deal([]int64{5, 1, 1, 1, 9}, tt.count, tt.bytes, size)); got != tt.want {
			t.Errorf("%d, %d: %s", tt.count, tt.bytes, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	names, _ := filepath.Glob("testdata/*.yaml")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 16<<10 {
			return
		}
		Params(text)
		file, problems := Parse(text, map[string]string{"top": "1"})
		if file == nil != Failed(problems) {
			t.Fatalf("%v with %v", file, problems)
		}
		if file == nil {
			return
		}
		p, err := file.Plan(texts)
		if err != nil {
			return
		}
		for i, st := range p.Request.Stages {
			if st.Tasks == 0 || st.Tasks > grid.MaxTasks {
				t.Errorf("stage %d has %d tasks", i, st.Tasks)
			}
			for _, from := range st.From {
				if int(from.Stage) >= i {
					t.Errorf("stage %d takes from %d", i, from.Stage)
				}
			}
		}
	})
}
