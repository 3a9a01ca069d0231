package toolchain

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Nested builds the command of a folder that is a Go module of its own, so that what it requires is not required by this
// one. Where that cannot be fetched the test is skipped, or fails if [Require] says so.
func Nested(tb testing.TB, dir string, flags ...string) []byte {
	tb.Helper()
	fetch(tb, dir)
	return Go(tb, ".", append([]string{"-C", dir}, flags...)...)
}

// NestedDir is the folder of a module that the one of dir requires.
func NestedDir(tb testing.TB, dir, path string) string {
	tb.Helper()
	for _, m := range fetch(tb, dir) {
		if m.Path == path {
			return m.Dir
		}
	}
	tb.Fatalf("the module of %s does not require %s", dir, path)
	return ""
}

type required struct{ Path, Dir string }

// fetch has all that the module of dir requires be here.
func fetch(tb testing.TB, dir string) (list []required) {
	tb.Helper()
	cmd := exec.Command("go", "mod", "download", "-json")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if os.Getenv(Require) == "all" {
			tb.Fatalf("what %s requires cannot be fetched: %v\n%s%s", dir, err, stderr.String(), out)
		}
		tb.Skipf("what %s requires cannot be fetched here, perhaps for want of a network: %v\n%s%s", dir, err, stderr.String(), out)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var m required
		if err := dec.Decode(&m); err != nil {
			tb.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}
