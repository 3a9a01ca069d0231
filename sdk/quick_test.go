package sdk

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

type plain struct {
	I   int     `json:"i"`
	U   uint8   `json:"u"`
	I8  int8    `json:"i8"`
	F   float64 `json:"f"`
	F32 float32
	S   string `json:"s"`
	B   bool   `json:"b"`
	L   []int
	LL  [][]string
	P   *plain `json:"p"`
	PP  []*plain
	In  struct{ X, Y int64 } `json:"in"`
}

var texts = []string{
	`{}`, ` { } `, `{"i":1,"u":2,"i8":-3,"f":4.5e-1,"F32":0.1,"s":"abc ü","b":true,"L":[],"LL":[["a"],[],["b","c"]],"p":{"i":7},"PP":[{"p":{}}],"in":{"X":1,"Y":-2}}`,
	`{"i":01}`, `{"i":-0}`, `{"u":-0}`, `{"u":256}`, `{"i8":128}`, `{"i":999999999999999999}`, `{"i":9223372036854775807}`, `{"i":99999999999999999999}`,
	`{"i":1.0}`, `{"i":1e2}`, `{"f":1E+400}`, `{"f":.5}`, `{"f":5.}`, `{"f":-}`, `{"F32":1e39}`, `{"f":"1"}`, `{"f":-0.0}`, `{"f":00}`, `{"f":1ee}`, `{"f":+1}`,
	`{"s":"a\nb"}`, "{\"s\":\"a\nb\"}", "{\"s\":\"\xff\"}", `{"s":"a`, `{"S":"other case"}`, `{"unknown":[1,{}],"i":1}`, `{"i":1,"i":2}`, `{"p":{"i":1},"p":{"u":2}}`,
	`{"p":null,"L":null,"i":null}`, `null`, `[]`, `1`, ``, `{"i":1}x`, `{"i":1,}`, `{,}`, `{"i"}`, `{"i":}`, `{"b":truefalse}`, `{"b":tru`, `{"L":[1,]}`, `{"L":[1 2]}`,
	"\t{\n\"i\" : 1 ,\r\"L\" : [ 1 , 2 ] } ", `{"in":{"X":1},"b":false}`, `{"":1}`,
	strings.Repeat(`{"p":`, 150) + "{}" + strings.Repeat("}", 150),
}

// What is read quickly is what encoding/json reads; what is not plain is left to it.
func checkQuick[T any](t *testing.T, text string) {
	var got, want T
	ok := quick([]byte(text), &got)
	err := json.Unmarshal([]byte(text), &want)
	if ok && (err != nil || !reflect.DeepEqual(got, want)) {
		t.Errorf("%q is read as %+v, by encoding/json as %+v, %v", text, got, want, err)
	}
}

func FuzzQuick(f *testing.F) {
	for _, s := range texts {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkQuick[plain](t, s)
		checkQuick[[]plain](t, s)
		checkQuick[map[string]plain](t, s)
		checkQuick[*float32](t, s)
		checkQuick[embedded](t, s)
		checkQuick[leaf](t, s)
		checkQuick[bool](t, s)
		checkQuick[node](t, s)
	})
}

func TestQuick(t *testing.T) {
	for i, text := range texts[:2] {
		if v := new(plain); !quick([]byte(text), v) {
			t.Errorf("text %d is not read quickly", i)
		}
	}
	for _, v := range []any{new(map[string]int), new(any), new([]byte), new(embedded), new(json.RawMessage), new(struct{ M map[string]int })} {
		if planOf(reflect.TypeOf(v).Elem()).plain {
			t.Errorf("%T is taken for plain", v)
		}
	}
	if !planOf(reflect.TypeFor[node]()).plain {
		t.Error("a type that contains itself is not plain")
	}
}

func BenchmarkDecode(b *testing.B) {
	data := []byte(`{"i":1,"u":2,"f":4.5,"s":"a name","b":true,"L":[1,2,3],"in":{"X":1,"Y":-2}}`)
	b.Run("quick", func(b *testing.B) {
		for b.Loop() {
			if _, err := decode[plain](data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		for b.Loop() {
			var v plain
			if err := json.Unmarshal(data, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
