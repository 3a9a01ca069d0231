package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func TestPi(t *testing.T) {
	*points = 10_000
	counted := map[string]string{}
	for i := range 8 {
		*seed = uint64(i)
		counted[fmt.Sprintf("%07d", i)] = sdktest.Run(t, sdk.Do("throw", throw), nil).Stdout
	}
	left := map[string]string{}
	right := map[string]string{}
	for name, text := range counted {
		if name < "0000003" {
			left[name] = text
		} else {
			right[name] = text
		}
	}
	sums := map[string]string{
		"0000000": sdktest.Run(t, sdk.Do("add", add), left).Stdout,
		"0000001": sdktest.Run(t, sdk.Do("add", add), right).Stdout,
	}
	told := sdktest.Run(t, sdk.Do("tell", tell), sums).Stdout
	if again := sdktest.Run(t, sdk.Do("tell", tell), counted).Stdout; again != told || !strings.HasPrefix(told, "3.1") || !strings.HasSuffix(told, "from 80000 points\n") {
		t.Errorf("by a tree %q, at once %q", told, again)
	}
	if _, err := sdktest.Try(sdk.Do("tell", tell), map[string]string{"a": "x"}); err == nil {
		t.Error("nonsense was added up")
	}
}
