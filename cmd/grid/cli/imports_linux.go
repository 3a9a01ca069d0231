package cli

import (
	"io/fs"
	"syscall"
)

// changeOf tells when a file's data or inode last changed, which no program can set, and which inode it is.
func changeOf(info fs.FileInfo) (ctime int64, inode, device uint64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ctim.Nano(), st.Ino, uint64(st.Dev)
	}
	return 0, 0, 0
}
