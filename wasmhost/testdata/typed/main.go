// Command typed is a plugin of small functions, for tests and for measuring what calls cost.
package main

import (
	"fmt"
	"io"
	"iter"
	"strconv"

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
		sdk.Do("tally", tally),
		sdk.Func("boom", boom),
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

// tally uses what a task may be granted, and tells what it gets.
func tally(ctx sdk.Context) error {
	kv := ctx.KV()
	err := kv.Txn(func(tx *sdk.Tx) error {
		it, err := tx.Get("runs")
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(it.Value))
		tx.Put("runs", strconv.AppendInt(nil, int64(n+1), 10))
		tx.Delete("old")
		return nil
	})
	if err != nil {
		return err
	}
	if err := kv.Put("last", []byte("tally")); err != nil {
		return err
	}
	for it, err := range kv.List("") {
		if err != nil {
			return err
		}
		fmt.Fprintf(ctx.Stdout(), "%s=%s ", it.Key, it.Value)
	}
	none, err := kv.Get("none")
	fmt.Fprintln(ctx.Stdout(), none.Version, err, kv.Put("denied", nil), kv.Txn(func(tx *sdk.Tx) error {
		tx.If("runs", 1)
		return nil
	}))
	secret, err := ctx.Secret("token")
	fmt.Fprintf(ctx.Stdout(), "%s %v\n", secret, err)
	_, err = ctx.Secret("other")
	fmt.Fprintln(ctx.Stdout(), err)
	f, err := ctx.Open("bafy", "a/b.txt")
	if err != nil {
		return err
	}
	data, err := io.ReadAll(f)
	fmt.Fprintf(ctx.Stdout(), "%s %v %s\n", data, err, ctx.Env("MORE"))
	ctx.Progress(1, 2)
	ctx.Progress(2, 2)
	ctx.Count("things", 2)
	ctx.Count("things", 3)
	ctx.Count("no name", 1)
	ctx.Count("neither is this", 1)
	ctx.Observe("size", 1.5)
	ctx.Log().Warn("all is told", "args", ctx.Args(), "number", ctx.Number())
	return nil
}

func boom(_ sdk.Context, list []int) (int, error) { return list[len(list)], nil }
