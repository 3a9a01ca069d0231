package sdk

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

func hostSecret(name string) ([]byte, error) { return os.ReadFile(abi.Secrets + "/" + name) }

func hostOpen(name string) (fs.File, error) { return os.Open(abi.Data + "/" + name) }

// noKV is a map that nobody keeps.
type noKV struct{}

func (noKV) Get(string) (Item, error)                      { return Item{}, syscall.ENOTSUP }
func (noKV) List(_, _ string, _ int) ([]Item, bool, error) { return nil, false, syscall.ENOTSUP }
func (noKV) Commit(Commit) (uint64, error)                 { return 0, syscall.ENOTSUP }

func hostKV() Store { return noKV{} }

func hostProgress(done, total uint64) error    { return nil }
func hostCount(name string, n uint64) error    { return nil }
func hostObserve(name string, v float64) error { return nil }

// starting reports whether this is a library that is being started: then it has no name.
func starting() bool { return len(os.Args) == 0 }

// streams are stdin and stdout, without what package os has around them: on the grid they are always ready.
func streams() (io.Reader, io.Writer) { return stream(0), stream(1) }

// stream is a file descriptor.
type stream int

// Read reads what there is.
func (s stream) Read(b []byte) (int, error) {
	n, err := syscall.Read(int(s), b)
	switch {
	case err != nil:
		return max(n, 0), fmt.Errorf("read stdin: %w", err)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of b.
func (s stream) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, err := syscall.Write(int(s), b[done:])
		if err != nil {
			return done, fmt.Errorf("write stdout: %w", err)
		}
		done += n
	}
	return done, nil
}

// variables are those of the environment, if a task was given them by grid_call.
var variables []string

// variable is one of the environment's.
func variable(name string) (string, bool) {
	if variables == nil {
		return os.LookupEnv(name)
	}
	for _, e := range variables {
		if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:], true
		}
	}
	return "", false
}
