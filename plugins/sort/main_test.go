package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// generated are the records of a task.
func generated(t *testing.T, number int) string {
	return sdktest.Run(t, sdk.Do("generate", generate), nil, sdktest.Number(number)).Stdout
}

// TestSort runs the stages one after the other, as docs/examples/sort.yaml has the grid do.
func TestSort(t *testing.T) {
	*records, *parts, *every = 500, 3, 7
	const tasks = 4
	run := func(f func(sdk.Context) error, inputs map[string]string) sdktest.Result {
		t.Helper()
		return sdktest.Run(t, sdk.Do("f", f), inputs)
	}
	name := func(folder string, i int) string { return fmt.Sprintf("%s%07d", folder, i) }
	samples, sums, shares := map[string]string{}, map[string]string{}, make([]map[string]string, *parts)
	for i := range shares {
		shares[i] = map[string]string{}
	}
	for i := range tasks {
		data := map[string]string{name("", i): generated(t, i)}
		samples[name("", i)] = run(sample, data).Stdout
		sums[name("made/", i)] = run(sum, data).Stdout
	}
	keys := run(bounds, samples).Stdout
	for i := range tasks {
		r := run(partition, map[string]string{"bounds/0000000": keys, name("records/", i): generated(t, i)})
		for k := range shares {
			shares[k][name("", i)] = r.Out[name("", k)]
		}
	}
	for k, share := range shares {
		sorted := run(sortShare, share).Stdout
		if n := len(sorted) / recordSize; n < tasks**records / *parts / 2 {
			t.Errorf("share %d has only %d records", k, n)
		}
		sums[name("sorted/", k)] = run(sum, map[string]string{"0": sorted}).Stdout
	}
	if got := run(check, sums).Stdout; !strings.HasPrefix(got, "2000 records are in order") {
		t.Error(got)
	}
	good := sums["sorted/0000001"]
	sums["sorted/0000001"] = strings.Replace(good, "true", "false", 1)
	if _, err := sdktest.Try(sdk.Do("check", check), sums); err == nil || !strings.Contains(err.Error(), "not in order") {
		t.Errorf("a share that is not in order: %v", err)
	}
	delete(sums, "sorted/0000001")
	if _, err := sdktest.Try(sdk.Do("check", check), sums); err == nil || !strings.Contains(err.Error(), "2000 records were made") {
		t.Errorf("a share is lost: %v", err)
	}
	sums["sorted/0000001"], sums["sorted/0000002"] = sums["sorted/0000002"], good
	if _, err := sdktest.Try(sdk.Do("check", check), sums); err == nil || !strings.Contains(err.Error(), "but the one before ends with") {
		t.Errorf("shares are in the wrong order: %v", err)
	}
}

func TestCutShort(t *testing.T) {
	*parts = 2
	for _, f := range []func(sdk.Context) error{sample, sum, sortShare} {
		if _, err := sdktest.Try(sdk.Do("f", f), map[string]string{"0": "half a record"}); err == nil {
			t.Error("half a record is taken for a whole one")
		}
	}
	if _, err := sdktest.Try(sdk.Do("f", partition), map[string]string{"records/0": ""}); err == nil {
		t.Error("there are no bounds")
	}
}
