package main

import (
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func TestPi(t *testing.T) {
	defer func(n uint64) { *points = n }(*points)
	*points = 10_000
	var counted []Count
	for *seed = range 8 {
		var r sdktest.Result
		counted = append(counted, sdktest.Call(t, throw, struct{}{}, sdktest.Into(&r)))
		if r.Counters["points"] != 10_000 || len(r.Progress) == 0 {
			t.Errorf("%+v", r)
		}
	}
	sums := append(sdktest.Stream(t, add, counted[:3]), sdktest.Stream(t, add, counted[3:])...)
	told := sdktest.Stream(t, tell, sums)[0]
	if again := sdktest.Stream(t, tell, counted)[0]; again != told || !strings.HasPrefix(told, "3.1") || !strings.HasSuffix(told, "from 80000 points") {
		t.Errorf("by a tree %q, at once %q", told, again)
	}
	for _, text := range []string{"x", "", `{"hits":0,"points":0}`} {
		if _, err := sdktest.Try(sdk.Stream("tell", tell), map[string]string{"a": text}); err == nil {
			t.Errorf("%q was added up", text)
		}
	}
}
