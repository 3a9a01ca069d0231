//go:build !wasip1

package sdk

// Without the grid a task is a call, in the order in which they are spawned.

func spawn(name string, stdin []byte, args []string) *Future {
	data, err := runHere(name, stdin, args)
	return &Future{data: data, err: err}
}

func spawnOr(_ string, _ []byte, here func() ([]byte, error)) *Future {
	data, err := here()
	return &Future{data: data, err: err}
}
