//go:build unix

package config

import (
	"os"

	"golang.org/x/sys/unix"
)

func lockFile(f *os.File) (err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	return err
}
