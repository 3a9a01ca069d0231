//go:build unix

package wasmhost

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var errLocked = errors.New("another process holds it")

// lockDir takes a lock on a folder without waiting. It is given up by Close, and when the process ends
// in whatever way.
func lockDir(dir string) (io.Closer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, err
	}
	return d, nil
}

func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func ownedByUs(info fs.FileInfo) bool        { return owner(info) == os.Geteuid() }
func ownedByUsOrRoot(info fs.FileInfo) bool  { return ownedByUs(info) || owner(info) == 0 }
func writableByOthers(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
