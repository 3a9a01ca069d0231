package sdk

import (
	"fmt"
	"io"
)

//go:wasmimport grid spawn
func taskSpawn(request *byte, size uint32, child *uint32) uint32

//go:wasmimport grid await
func taskAwait(child uint32, fd, exit *uint32) uint32

func spawn(_ Context, name string, stdin []byte, args []string) *Future {
	b := encodeCall(name, stdin, args)
	var child uint32
	if err := told(taskSpawn(&b[0], uint32(len(b)), &child)); err != nil {
		return &Future{err: fmt.Errorf("spawn %s: %w", name, err)}
	}
	return &Future{wait: func() ([]byte, error) {
		var fd, exit uint32
		if err := told(taskAwait(child, &fd, &exit)); err != nil {
			return nil, fmt.Errorf("task %s: %w", name, err)
		}
		f := open(fd, name)
		defer f.Close()
		if exit != 0 {
			return nil, taskFailed(name, exit, message())
		}
		data, err := io.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("task %s: read its output: %w", name, err)
		}
		return data, nil
	}}
}
