package main

import (
	"encoding/json"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// lines are JSON objects as text.
func lines(t *testing.T, texts ...string) (list []object) {
	t.Helper()
	for _, text := range texts {
		var o object
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	return list
}

func TestConditions(t *testing.T) {
	in := lines(t, `{"n": 10, "s": "b", "o": {"in": true, "x.y": null}}`)
	for text, want := range map[string]bool{
		"n=10": true, "n = 1e1": true, "n!=10": false, "n>9": true, "n<9": false, "n >= 10.0": true, "n<=10": true, "n>x": false, "s>1": false, "s!=1": true,
		"s=b": true, "s>a": true, "s~^[bc]$": true, "s~a": false, "s=": false, "s!=": true, "n~^1": true,
		"o.in=true": true, "o.x.y=null": true, "o.no=": false, "none!=1": false, "s.t=1": false,
	} {
		c, err := parseCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		all = []condition{c}
		if got := len(sdktest.Stream(t, transform, in)) == 1; got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
	all = nil
	for _, text := range []string{"", "n", "=1", "s~("} {
		if _, err := parseCondition(text); err == nil {
			t.Errorf("%q is taken for a condition", text)
		}
	}
}

func TestFields(t *testing.T) {
	defer func() { keep, move, drop, *skip = nil, nil, nil, false }()
	if err := parseFields("a,b=o.in,c", &keep); err != nil {
		t.Fatal(err)
	}
	if err := parseFields("z=a", &move); err != nil {
		t.Fatal(err)
	}
	drop, *skip = []string{"c"}, true
	r := sdktest.Run(t, sdk.Stream("map", transform), map[string]string{
		"1": `{"a": 1.50, "o": {"in": "<"}, "c": 1, "d": 2}` + "\nnonsense\n", "2": "{}",
	})
	if r.Stdout != `{"b":"<","z":1.50}`+"\n{}\n" || r.Counters["skipped"] != 1 || r.Counters["passed"] != 2 || len(r.Log()) != 1 {
		t.Errorf("%+v", r)
	}
	for _, text := range []string{"", "a,,b", "=a", "a="} {
		if err := parseFields(text, new([]field)); err == nil {
			t.Errorf("%q is taken for fields", text)
		}
	}
}
