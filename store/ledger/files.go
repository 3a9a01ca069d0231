package ledger

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/wal"
)

// openFiles opens a replica's folder: the folder "wal" with the log and the vote, the folder "snapshots" with the newest
// two, and the file "lock", so that no other process writes there meanwhile. All of it is checked when it is read.
func openFiles(dir string) (d Disk, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Disk{}, openFailed(dir, err)
	}
	lock, err := vfs.Default.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return Disk{}, openFailed(dir, err)
	}
	log, err := wal.Open(filepath.Join(dir, "wal"), "")
	if err != nil {
		_ = lock.Close()
		return Disk{}, openFailed(dir, err)
	}
	closeAll := func() error { return errors.Join(log.Close(), lock.Close()) }
	snapshots, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		_ = closeAll()
		return Disk{}, openFailed(dir, err)
	}
	return Disk{Log: log, Stable: log, Snapshots: snapshots, Close: closeAll, Wipe: func() error {
		if err := closeAll(); err != nil {
			return err
		}
		return os.RemoveAll(dir)
	}}, nil
}

func openFailed(dir string, err error) error {
	code, hint := grid.CodeOf(err), grid.AdviceOf(err)
	switch {
	case code != grid.Unknown:
	case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held by current process"):
		code, hint = grid.Busy, "stop the other node, or give this one a data folder of its own"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code, hint = grid.NoSpace, "make room on the disk"
	case errors.Is(err, os.ErrPermission):
		code, hint = grid.Denied, "look at who owns the folder"
	default:
		code, hint = grid.Internal, "look at the folder and its disk"
	}
	return grid.Errorf(code, "ledger: open the replica in %s: %w", dir, err).Hint("%s", hint)
}
