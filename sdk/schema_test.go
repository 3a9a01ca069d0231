package sdk

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type leaf struct {
	X int `json:"x" doc:"Where it is, in \"px\"."`
}

type node struct {
	Name string  `json:"name"`
	Kids []*node `json:"kids,omitempty"`
}

type embedded struct {
	leaf
	*outer
	Named leaf `json:"named"`
	X     string
}

type outer struct {
	Z    bool
	Same int `json:"same"`
}

type twice struct {
	A, B leaf
	M    map[string]leaf `json:",omitempty"`
}

type pair[A, B any] struct {
	First  A
	Second *B `json:",omitempty"`
}

type (
	ambiguous1 struct{ Field, Other int }
	ambiguous2 struct{ Field int }
	ambiguous  struct {
		ambiguous1
		ambiguous2
	}
)

func TestSchema(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{
		{"", ""}, {[]byte{}, ""},
		{1, `{"type":"integer"}`},
		{uint16(1), `{"type":"integer","minimum":0,"maximum":65535}`},
		{int8(1), `{"type":"integer","minimum":-128,"maximum":127}`},
		{1.5, `{"type":"number"}`},
		{true, `{"type":"boolean"}`},
		{struct{}{}, `{"type":"object"}`},
		{time.Time{}, `{"type":"string","format":"date-time"}`},
		{json.Number(""), `{"type":"number"}`},
		{json.RawMessage{}, `{}`},
		{big.Int{}, `{}`},
		{netip.Addr{}, `{"type":"string"}`},
		{[]int{}, `{"type":["array","null"],"items":{"type":"integer"}}`},
		{[2]bool{}, `{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":2}`},
		{map[string]any{}, `{"type":["object","null"],"additionalProperties":{}}`},
		{map[int]string{}, `{"type":["object","null"],"propertyNames":{"pattern":"^-?[0-9]+$"},"additionalProperties":{"type":"string"}}`},
		{map[netip.Addr][]byte{}, `{"type":["object","null"],"additionalProperties":{"type":["string","null"],"contentEncoding":"base64"}}`},
		{new(int), `{"anyOf":[{"type":"integer"},{"type":"null"}]}`},
		{leaf{}, `{"type":"object","properties":{"x":{"type":"integer","description":"Where it is, in \"px\"."}},"required":["x"]}`},
		{node{}, `{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"name":{"type":"string"},` +
			`"kids":{"type":"array","items":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}}},"required":["name"]}}}`},
		{[]node{}, `{"type":["array","null"],"items":{"$ref":"#/$defs/node"},"$defs":{"node":{"type":"object","properties":{"name":{"type":"string"},` +
			`"kids":{"type":"array","items":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}}},"required":["name"]}}}`},
		{twice{}, `{"type":"object","properties":{"A":{"$ref":"#/$defs/leaf"},"B":{"$ref":"#/$defs/leaf"},"M":{"type":"object","additionalProperties":{"$ref":"#/$defs/leaf"}}},` +
			`"required":["A","B"],"$defs":{"leaf":{"type":"object","properties":{"x":{"type":"integer","description":"Where it is, in \"px\"."}},"required":["x"]}}}`},
		{embedded{}, `{"type":"object","properties":{"x":{"type":"integer","description":"Where it is, in \"px\"."},"Z":{"type":"boolean"},"same":{"type":"integer"},` +
			`"named":{"type":"object","properties":{"x":{"type":"integer","description":"Where it is, in \"px\"."}},"required":["x"]},"X":{"type":"string"}},"required":["x","named","X"]}`},
		{ambiguous{}, `{"type":"object","properties":{"Other":{"type":"integer"}},"required":["Other"]}`},
		{pair[int, []string]{}, `{"type":"object","properties":{"First":{"type":"integer"},"Second":{"type":"array","items":{"type":"string"}}},"required":["First"]}`},
		{struct {
			A int    `json:"-"`
			C int    `json:",string"`
			D []byte `json:"d,omitempty" doc:"Bytes."`
			E time.Time
			F any `doc:"Anything."`
			g int
		}{}, `{"type":"object","properties":{"C":{"type":"string"},"d":{"type":"string","contentEncoding":"base64","description":"Bytes."},` +
			`"E":{"type":"string","format":"date-time"},"F":{"description":"Anything."}},"required":["C","E","F"]}`},
	} {
		got, err := schemaOf(reflect.TypeOf(tt.v))
		if err != nil || string(got) != tt.want {
			t.Errorf("%T:\n%s, %v\nwant\n%s", tt.v, got, err, tt.want)
		}
		if got != nil && !json.Valid(got) {
			t.Errorf("%T: no JSON: %s", tt.v, got)
		}
		// What encoding/json makes of the value has just the properties that the schema names.
		var schema struct {
			Properties map[string]any
			Required   []string
		}
		json.Unmarshal(got, &schema)
		var object map[string]any
		if data, err := json.Marshal(tt.v); err == nil && schema.Properties != nil && json.Unmarshal(data, &object) == nil {
			for name := range object {
				if _, ok := schema.Properties[name]; !ok {
					t.Errorf("%T: the schema has no property %s", tt.v, name)
				}
			}
			for _, name := range schema.Required {
				if _, ok := object[name]; !ok {
					t.Errorf("%T: %s is required, but not always there", tt.v, name)
				}
			}
		}
	}
	for _, tt := range []struct {
		v    any
		want string
	}{
		{make(chan int), "chan int is a chan"},
		{struct{ F []func() }{}, ".F[] is a func"},
		{struct {
			M map[bool]int `json:"m"`
		}{}, ".m is a map with keys of the type bool"},
		{map[string]complex128{}, "{} is a complex128"},
	} {
		if _, err := schemaOf(reflect.TypeOf(tt.v)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%T: %v, want %q", tt.v, err, tt.want)
		}
	}
}

// Strings are as encoding/json reads them.
func FuzzAppendString(f *testing.F) {
	f.Add("plain \"quoted\" \\ \n\r\t\x00\x7f é \u2028 \xff")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") && got != string([]rune(s)) {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	})
}

func TestDescribe(t *testing.T) {
	nothing := func(Context) error { return nil }
	got, err := Describe(
		Func("fib", fib).Doc("Fibonacci\nnumbers."),
		Func("upper", func(_ Context, s string) ([]byte, error) { return nil, nil }),
		Do("do-it", nothing),
		Map("map", func(a, b int) int { return a + b }, func(Context, *Input, *Emitter[int]) error { return nil }),
	)
	const want = `{"abi":2,"functions":[{"name":"fib","kind":"func","doc":"Fibonacci\nnumbers.","input":{"type":"integer"},"output":{"type":"integer"}},` +
		`{"name":"upper","kind":"func"},{"name":"do-it","kind":"task"},{"name":"map","kind":"map"}]}` + "\n"
	if string(got) != want || err != nil {
		t.Errorf("%s, %v\nwant\n%s", got, err, want)
	}
	many := make([]Function, 257)
	for i := range many {
		many[i] = Do(fmt.Sprint("f", i), nothing)
	}
	for _, tt := range []struct {
		funcs []Function
		want  string
	}{
		{nil, "no functions"},
		{many, "257 functions, at most 256"},
		{[]Function{Do("a", nothing), {}}, "function 2 of this program is an empty sdk.Function"},
		{[]Function{Do("", nothing)}, `function 1 of this program has the name ""`},
		{[]Function{Do("a", nothing), Do("1st", nothing)}, `function 2 of this program has the name "1st"`},
		{[]Function{Do("grid.describe", nothing)}, `has the name "grid.describe"`},
		{[]Function{Do(strings.Repeat("x", 65), nothing)}, "at most 64"},
		{[]Function{Do("a", nothing), Do("b", nothing), Do("a", nothing)}, `functions 1 and 3 of this program have the same name, "a"`},
		{[]Function{Func("f", func(Context, chan int) (int, error) { return 0, nil })}, `what function "f" takes: chan int is a chan`},
		{[]Function{Func("f", func(Context, int) (func(), error) { return nil, nil })}, `what function "f" gives: func() is a func`},
	} {
		if _, err := Describe(tt.funcs...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}
