//go:build !wasip1

package sdk

// Without the grid a task is a call, in the order in which they are spawned.

func spawn(ctx Context, name string, stdin []byte, args []string) *Future {
	data, err := runHere(ctx, name, stdin, args)
	return &Future{data: data, err: err}
}
