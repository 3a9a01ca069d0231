//go:build unix

package daemon

import (
	"os"
	"syscall"
)

// ownFolder makes a folder if there is none, and reports whether it is one of this user's that nobody else can write to.
func ownFolder(dir string) bool {
	_ = os.Mkdir(dir, 0o700)
	info, err := os.Lstat(dir) // a link may lead elsewhere tomorrow
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o022 == 0
}
