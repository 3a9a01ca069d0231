package cli

import "syscall"

// detached gives a process a group of its own, so that no console's Ctrl-C ends it.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
