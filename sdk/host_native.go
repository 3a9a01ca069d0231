//go:build !wasip1

package sdk

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Without the grid, what a node would give comes from the process's surroundings.

// hostSecret looks for a variable, then a file.
func hostSecret(name string) ([]byte, error) {
	variable := "GRID_SECRET_" + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, name)
	if v, ok := os.LookupEnv(variable); ok {
		return []byte(v), nil
	}
	if !fs.ValidPath(name) || strings.Contains(name, "/") {
		return nil, syscall.EINVAL
	}
	return os.ReadFile(filepath.Join(strings.TrimPrefix(abi.Secrets, "/"), name))
}

func hostOpen(name string) (fs.File, error) {
	return os.Open(filepath.Join(strings.TrimPrefix(abi.Data, "/"), filepath.FromSlash(name)))
}

var memory Memory

func hostKV() Store { return &memory }

func hostProgress(done, total uint64) error    { return nil }
func hostCount(name string, n uint64) error    { return nil }
func hostObserve(name string, v float64) error { return nil }

// starting reports whether this is a library that is being started.
func starting() bool { return false }

// streams are stdin, if it is to be read first, and stdout.
func streams() (io.Reader, io.Writer) { return os.Stdin, os.Stdout }

// variable is one of the environment's.
func variable(name string) (string, bool) { return os.LookupEnv(name) }

// inputRoom is a buffer for the input of a task of one value.
func inputRoom() []byte { return make([]byte, 0, 1<<10) }
