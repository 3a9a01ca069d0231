package schema_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const order = `{
	"type": "object", "required": ["items"], "additionalProperties": false,
	"properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}}, "note": {"anyOf": [{"type": "string", "pattern": "^[a-z ]*$"}, {"type": "null"}]}},
	"$defs": {"item": {"type": "object", "required": ["price"], "properties": {"price": {"type": "number", "minimum": 0}}}}
}`

func TestCheck(t *testing.T) {
	s, err := schema.Compile([]byte(order))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ value, want string }{
		{`{"items":[{"price":1},{"price":2.5}],"note":null}`, ""},
		{`{"items":[]}`, ""},
		{`{"items":[{"price":1},{"price":"2"}]}`, "items[1].price: got string, want number"},
		{`{"items":[{}]}`, "items[0]: missing property 'price'"},
		{`{"items":[{"price":-1}]}`, "items[0].price: minimum: got -1, want 0"},
		{`{}`, "missing property 'items'"},
		{`{"items":[],"x":1}`, "additional properties 'x' not allowed"},
		{`{"items":[],"note":1}`, "note: got number, want"},
		{`[]`, "got array, want object"},
		{`{"items":[],"note":"UPPER"}`, "note: "},
		{"{\"items\":\n\n[,]}", "not JSON: invalid character ',' looking for beginning of value (line 3)"},
		{`{} {}`, "not JSON"},
		{``, "not JSON"},
		{strings.Repeat("[", 1000), "more than 256 deep"},
	} {
		err := s.Check([]byte(test.value))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.80s: %v, want %q", test.value, err, test.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, test := range []struct {
		schema string
		code   grid.Code
		want   string
	}{
		{`{`, grid.Invalid, "not JSON"},
		{`7`, grid.Invalid, "not a JSON schema"},
		{`{"type":"strung"}`, grid.Invalid, "type: value must be one of"},
		{`{"$ref":"https://example.org/s.json"}`, grid.Invalid, "outside of itself"},
		{`{"$ref":"/etc/passwd"}`, grid.Invalid, "outside of itself"},
		{`{"$ref":"#/$defs/no"}`, grid.Invalid, "not a JSON schema"},
		{`{"pattern":"("}`, grid.Invalid, "not a JSON schema"},
		{`{"pattern":"` + strings.Repeat("a", 600) + `"}`, grid.Invalid, "not a JSON schema"},
		{`{"pattern":"` + strings.Repeat("x{1000}", 20) + `"}`, grid.Invalid, "not a JSON schema"},
		{`{"title":"` + strings.Repeat("x", grid.MaxSchema) + `"}`, grid.Limit, "at most 65536"},
		{strings.Repeat(`{"not":`, 300) + `{}` + strings.Repeat(`}`, 300), grid.Limit, "deep"},
	} {
		_, err := schema.Compile([]byte(test.schema))
		if grid.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.80s: %v: %v", test.schema, grid.CodeOf(err), err)
		}
	}
}

// What a few bytes ask for can be too much.
func TestBombs(t *testing.T) {
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, `,{"pattern":"x{1000}%d"}`, i)
	}
	_, err := schema.Compile([]byte(`{"anyOf":[true` + many.String() + `]}`))
	if grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "the patterns take more steps") {
		t.Errorf("many patterns: %v", err)
	}
	m := &grid.Manifest{Name: "bomb", Functions: make([]grid.Function, 100)}
	for i := range m.Functions {
		m.Functions[i] = grid.Function{Name: "f", Input: fmt.Appendf(nil, `{"pattern":"x{1000}%d"}`, i)}
	}
	if err := schema.CheckManifest(m); grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "the patterns take more steps") {
		t.Errorf("many functions: %v", err)
	}
	if err := schema.CheckManifest(&grid.Manifest{Functions: m.Functions[:10]}); err != nil {
		t.Errorf("a few: %v", err)
	}
	var deep strings.Builder // 2^18 ways to the same
	for i := range 18 {
		fmt.Fprintf(&deep, `"%d":{"allOf":[{"$ref":"#/$defs/%d"},{"$ref":"#/$defs/%d"}]},`, i, i+1, i+1)
	}
	s, err := schema.Compile([]byte(`{"$ref":"#/$defs/0","$defs":{` + deep.String() + `"18":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer schema.Patience(time.Millisecond)()
	if err := s.Check([]byte(`1`)); grid.CodeOf(err) != grid.Limit {
		t.Errorf("many references: %v", err)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(order), []byte(`{"items":[{"price":1}]}`))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`1`))
	f.Add([]byte(`{"$id":"a","$dynamicRef":"#b","$defs":{"b":{"$dynamicAnchor":"b"}}}`), []byte(`[1]`))
	f.Fuzz(func(t *testing.T, s, value []byte) {
		schema.Text(s)
		if c, err := schema.Compile(s); err == nil {
			if err := c.Check(value); err != nil && err.Error() == "" {
				t.Fatal("an error without words")
			}
		}
	})
}

func TestText(t *testing.T) {
	for _, test := range []struct{ schema, want string }{
		{order, `{items: [{price: number}], note?: string | null}`},
		{`true`, "anything"}, {`false`, "nothing"}, {`{}`, "anything"}, {`{`, "anything"},
		{`{"type":"string","format":"date-time"}`, "string (date-time)"},
		{`{"type":"string","contentEncoding":"base64"}`, "base64"},
		{`{"enum":["a",1,null]}`, `"a" | 1 | null`},
		{`{"type":["array","null"],"items":{"type":"integer"}}`, "[integer] | null"},
		{`{"type":"object","additionalProperties":{"type":"number"}}`, "{…: number}"},
		{`{"$ref":"#"}`, "…"},
		{`{"$ref":"#/$defs/x~1y","$defs":{"x/y":{"const":7}}}`, "7"},
		{`{"type":"array"}`, "[anything]"},
	} {
		if got := schema.Text([]byte(test.schema)); got != test.want {
			t.Errorf("%.60s is %s, want %s", test.schema, got, test.want)
		}
	}
}
