//go:build unix

package cli

import "syscall"

// detached gives a process a session of its own, so that no terminal ends it.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
