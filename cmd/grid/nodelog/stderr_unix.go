//go:build unix && !linux

package nodelog

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeStderr has what the process writes to standard error, such as how it crashed, go to a file.
func takeStderr(f *os.File) { _ = unix.Dup2(int(f.Fd()), int(os.Stderr.Fd())) }
