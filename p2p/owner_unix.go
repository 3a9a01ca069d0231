//go:build unix

package p2p

import (
	"os"
	"syscall"
)

const nonBlocking = syscall.O_NONBLOCK

// ownedByUs reports whether the file belongs to the user that this process runs as.
func ownedByUs(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// private reports whether nobody but the owner may use the file in the ways of mask, as in chmod.
func private(info os.FileInfo, mask os.FileMode) bool { return info.Mode().Perm()&mask == 0 }
