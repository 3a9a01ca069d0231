//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// group gives a command a group of its own, which is interrupted with it: nodes that a benchmark has started end when it does.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}
