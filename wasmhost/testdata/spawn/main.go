// Command spawn is a guest that spawns tasks, for the tests.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/sdk"
)

func main() {
	sdk.Main(
		sdk.Func("fib", fib),
		sdk.Func("deep", deep),
		sdk.Do("fail", func(sdk.Context) error { return errors.New("on purpose") }),
		sdk.Do("trap", func(sdk.Context) error { var p *int; *p = 1; return nil }),
		sdk.Do("spin", func(sdk.Context) error {
			for {
			}
		}),
		sdk.Do("echo", func(ctx sdk.Context) error {
			for in, err := range ctx.Inputs() {
				if err != nil {
					return err
				}
				data, err := in.Bytes()
				if err != nil {
					return err
				}
				fmt.Fprintf(ctx.Stdout(), "%s %s", ctx.Args(), data)
			}
			return nil
		}),
		sdk.Do("watch", watch),
		sdk.Do("bomb", func(ctx sdk.Context) error {
			for {
				sdk.Spawn(ctx, "echo", nil)
			}
		}),
	)
}

// fib computes a number by a task for each smaller one.
func fib(ctx sdk.Context, n int) (int, error) {
	if n < 2 {
		return n, nil
	}
	a, b := sdk.Go(ctx, fib, n-1), sdk.Go(ctx, fib, n-2)
	x, err := a.Await()
	if err != nil {
		return 0, err
	}
	y, err := b.Await()
	return x + y, err
}

// deep awaits a task that awaits a task, and so on.
func deep(ctx sdk.Context, n int) (int, error) {
	if n == 0 {
		return 0, nil
	}
	m, err := sdk.Go(ctx, deep, n-1).Await()
	return m + 1, err
}

// watch spawns what its arguments name, with their input behind an equals sign, and tells what comes of it, the last first.
func watch(ctx sdk.Context) error {
	began := time.Now()
	var list []*sdk.Future
	for _, a := range ctx.Args() {
		name, in, _ := strings.Cut(a, "=")
		list = append(list, sdk.Spawn(ctx, name, []byte(in), "x", ""))
	}
	for i := len(list) - 1; i >= 0; i-- {
		data, err := list[i].Await()
		fmt.Fprintf(ctx.Stdout(), "%s: %q %v\n", ctx.Args()[i], data, err)
	}
	if d := time.Since(began); d != time.Millisecond { // the virtual clock stands still for who waits
		fmt.Fprintln(os.Stderr, d)
	}
	return nil
}
