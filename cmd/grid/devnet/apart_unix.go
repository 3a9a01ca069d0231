//go:build unix

package devnet

import "syscall"

// apart keeps a terminal's Ctrl-C from the nodes: who runs them ends them.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
