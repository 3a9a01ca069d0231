package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

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
	sdktest.Golden(t, "testdata/top.txt", r.Stdout)
	sdktest.Golden(t, "testdata/counts.tsv", r.Out["counts.tsv"])

	// However the files are shared out among tasks, the result is the same.
	one := sdktest.Run(t, mapper, inputs)
	if again := sdktest.Run(t, reducer, map[string]string{"0000000": one.Stdout}); !maps.Equal(again.Out, r.Out) {
		t.Errorf("one task for all files gives another table:\n%s", again.Out["counts.tsv"])
	}
}
