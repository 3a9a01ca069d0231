package sdk

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

//go:wasmimport grid spawn
func taskSpawn(request *byte, size uint32, child *uint32) uint32

//go:wasmimport grid await
func taskAwait(child uint32, fd, exit *uint32) uint32

func spawn(_ Context, name string, stdin []byte, args []string) *Future {
	b := encodeCall(name, stdin, args)
	var child uint32
	if errno := taskSpawn(&b[0], uint32(len(b)), &child); errno != 0 {
		return &Future{err: taskTold("spawn "+name, syscall.Errno(errno))}
	}
	return &Future{wait: func() ([]byte, error) {
		var fd, exit uint32
		if errno := taskAwait(child, &fd, &exit); errno != 0 {
			return nil, taskTold("task "+name, syscall.Errno(errno))
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		if exit != 0 {
			return nil, taskFailed(name, exit, lastTaskError())
		}
		data, err := io.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("task %s: read its output: %w", name, err)
		}
		return data, nil
	}}
}

// lastTaskError asks the host for its message.
func lastTaskError() string {
	var buf [abi.MaxMessage]byte
	var used uint32
	if lastError(&buf[0], uint32(len(buf)), &used) != 0 {
		return ""
	}
	return string(buf[:used])
}

func taskTold(what string, errno syscall.Errno) error {
	if text := lastTaskError(); text != "" {
		return &hostError{what + ": " + text, errno}
	}
	return fmt.Errorf("%s: %w", what, errno)
}
