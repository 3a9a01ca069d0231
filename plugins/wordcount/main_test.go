package main

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGolden(t *testing.T) {
	inputs := map[string]string{}
	files, err := filepath.Glob("testdata/in/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		inputs[filepath.Base(f)] = string(data)
	}
	*top = 5
	mapper, reducer := sdk.Map("map", add, countWords), sdk.Reduce("reduce", add, printCounts)
	r := sdktest.MapReduce(t, mapper, reducer, inputs)
	golden(t, "testdata/top.txt", r.Stdout)
	golden(t, "testdata/counts.tsv", r.Out["counts.tsv"])

	// However the files are shared out among tasks, the result is the same.
	one := sdktest.Run(t, mapper, inputs)
	if again := sdktest.Run(t, reducer, map[string]string{"0000000": one.Stdout}); !maps.Equal(again.Out, r.Out) {
		t.Errorf("one task for all files gives another table:\n%s", again.Out["counts.tsv"])
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", name, got)
	}
}
