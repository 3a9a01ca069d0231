package main

import (
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func TestQueens(t *testing.T) {
	ways := []uint64{1, 1, 0, 0, 2, 10, 4, 40, 92, 352, 724}
	for n, want := range ways {
		for cut := range n + 2 {
			if got := sdktest.Call(t, count, Board{N: n, Cut: cut}); got != want {
				t.Errorf("%d queens, cut off at %d: %d ways, want %d", n, cut, got, want)
			}
			if cut == 3 && n > 7 { // without the grid tasks only cost time
				break
			}
		}
	}
	program := sdktest.Functions(counting)
	*size, *cut = 8, 2
	if r := sdktest.Run(t, sdk.Do("queens", queens), nil, program); r.Stdout != "92\n" {
		t.Errorf("%q", r.Stdout)
	}
	*size = 33
	if _, err := sdktest.Try(sdk.Do("queens", queens), nil, program); err == nil {
		t.Error("a board of 33 rows is taken")
	}
}
