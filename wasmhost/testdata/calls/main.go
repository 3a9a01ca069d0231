// Command calls has functions of one value each, for the benchmarks.
package main

import "github.com/wasmgrid/wasmgrid/sdk"

type pair struct{ A, B int }

type sum struct {
	Sum int `json:"sum"`
}

var (
	add  = sdk.Func("add", func(_ sdk.Context, in pair) (sum, error) { return sum{in.A + in.B}, nil })
	echo = sdk.Func("echo", func(_ sdk.Context, in []byte) ([]byte, error) { return in, nil })
)

func main() { sdk.Main(add, echo) }
