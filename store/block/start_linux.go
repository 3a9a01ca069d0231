package block

import (
	"errors"

	"golang.org/x/sys/unix"
)

func (f diskFile) start(offset, length int64) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil // a closed file says so when it is used
	}
	var started error
	if err := conn.Control(func(fd uintptr) {
		started = unix.SyncFileRange(int(fd), offset, length, unix.SYNC_FILE_RANGE_WRITE)
	}); err != nil {
		return nil
	}
	// The bytes may be gone, and fsync need not hear of it again. Any other error is of a file system that
	// cannot do this, and harmless.
	if errors.Is(started, unix.EIO) || errors.Is(started, unix.ENOSPC) || errors.Is(started, unix.EDQUOT) {
		return started
	}
	return nil
}
