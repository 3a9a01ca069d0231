// Command all is a plugin whose functions use everything that a case can give.
package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/sdk"
)

func main() {
	sdk.Main(
		sdk.Func("fib", fib),
		sdk.Func("bump", bump),
		sdk.Do("look", look),
		sdk.Do("chance", chance),
		sdk.Do("forever", func(sdk.Context) error {
			for {
			}
		}),
	)
}

// fib spawns two tasks, of which many are the same.
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

// bump counts in the realm's map.
func bump(ctx sdk.Context, by uint32) (string, error) {
	item, err := ctx.KV().Get("counters/a")
	if err != nil {
		return "", err
	}
	n := append(item.Value, fmt.Sprint("+", by)...)
	ctx.Count("bumps", 1)
	return string(n), errors.Join(ctx.KV().Put("counters/a", n), ctx.KV().Put("counters/new", []byte{0xff, 0}))
}

// look prints all that it was given, and leaves files.
func look(ctx sdk.Context) error {
	token, err := ctx.Secret("token")
	if err != nil {
		return err
	}
	model, err := os.ReadFile("/model/weights.txt")
	if err != nil {
		return err
	}
	fmt.Fprintf(ctx.Stdout(), "%q %s %s %s %q\n", ctx.Args(), ctx.Number(), ctx.Env("LANG"), token, strings.TrimSpace(string(model)))
	for _, name := range []string{"a.txt", "deep/b.txt"} {
		f, err := ctx.Create(name)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(f, name); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// chance prints what differs from run to run of an impure task.
func chance(ctx sdk.Context) error {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	_, err := fmt.Fprintln(ctx.Stdout(), binary.LittleEndian.Uint64(b[:]), time.Now().UnixNano())
	return err
}
