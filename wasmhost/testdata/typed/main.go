// Command typed is a plugin of small typed functions, for measuring what calls cost.
package main

import (
	"io"
	"iter"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// Functions that are made when the program is initialised are quicker to call.
var (
	sum     = sdk.Func("add", add)
	doubles = sdk.Stream("double", double)
)

func main() {
	sdk.Main(
		sum, doubles,
		sdk.Func("late", func(_ sdk.Context, in Late) (Late, error) { return in, nil }),
		sdk.Func("bytes", func(_ sdk.Context, in []byte) ([]byte, error) { return in, nil }),
		sdk.Stream("lines", lines),
		sdk.Do("nothing", func(sdk.Context) error { return nil }),
		sdk.Do("copy", func(ctx sdk.Context) error {
			for in, err := range ctx.Inputs() {
				if err == nil {
					_, err = io.CopyBuffer(struct{ io.Writer }{ctx.Stdout()}, struct{ io.Reader }{in}, make([]byte, 256<<10))
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	)
}

// Terms is what add takes.
type Terms struct {
	A    int    `json:"a"`
	B    int    `json:"b"`
	Name string `json:"name,omitempty"`
}

// Sum is what it gives.
type Sum struct {
	Sum  int    `json:"sum"`
	Name string `json:"name,omitempty"`
}

// Late is of a function that is not made before its task begins.
type Late struct {
	A    int    `json:"a"`
	B    int    `json:"b"`
	Name string `json:"name,omitempty"`
}

func add(_ sdk.Context, in Terms) (Sum, error) { return Sum{in.A + in.B, in.Name}, nil }

func double(_ sdk.Context, in iter.Seq2[Terms, error], emit func(Sum) error) error {
	for v, err := range in {
		if err == nil {
			err = emit(Sum{2 * (v.A + v.B), v.Name})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func lines(_ sdk.Context, in iter.Seq2[[]byte, error], emit func([]byte) error) error {
	for v, err := range in {
		if err == nil {
			err = emit(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
