package main

import (
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// These run natively, by go test. What is in the folder cases runs in the real sandbox, by grid plugin test.

func TestCount(t *testing.T) {
	got := sdktest.Call(t, count, Text{"the quick fox"})
	if want := (Counts{Words: 3, Longest: "quick"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := sdktest.TryCall(count, Text{}); err == nil {
		t.Error("a text without words is no error")
	}
}

func TestMapReduce(t *testing.T) {
	r := sdktest.MapReduce(t, sdk.Map("map", add, countWords), sdk.Reduce("reduce", add, printCounts), map[string]string{
		"a.txt": "to be or not",
		"b.txt": "To be",
	})
	if want := "2 be\n1 not\n1 or\n2 to\n"; r.Stdout != want {
		t.Errorf("got %q, want %q", r.Stdout, want)
	}
}
