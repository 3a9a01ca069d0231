package devnet

import "syscall"

// apart keeps a console's Ctrl-C from the nodes: who runs them ends them.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
