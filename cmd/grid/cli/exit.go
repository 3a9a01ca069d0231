package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

// The exit codes. Those of guests, 1 to 125, are handed on by run and wait, so ours keep to numbers
// that programs rarely use.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitNoNode      = 64
	exitBuild       = 65
	exitTrap        = 120
	exitLimit       = 121
	exitCancelled   = 123
	exitDeadline    = 124
	exitInterrupted = 130
	exitPipe        = 141
)

// exit is an exit code, and what it means.
type exit struct {
	exit int
	code grid.Code // Unknown: given by name
	what string
}

// exits is the one mapping from codes to exit codes, in the order of its documentation.
var exits = []exit{
	{exitFailure, grid.Unknown, "it failed for a reason not listed here, or the guest exited with a code above 125"},
	{exitUsage, grid.Unknown, "the command line, a job file or a setting is wrong"},
	{exitNoNode, grid.Unknown, "no node is running, and the command needs one"},
	{exitBuild, grid.Unknown, "the program could not be built"},
	{66, grid.NotFound, "something that was named does not exist"},
	{67, grid.Invalid, "the node, or a check before it, found the input wrong"},
	{68, grid.Conflict, "the thing is in another state, or exists already"},
	{69, grid.Unavailable, "the node or a peer cannot be reached; try again"},
	{70, grid.Internal, "a fault of the grid's own"},
	{71, grid.NoSpace, "the disk or a quota is full"},
	{72, grid.Corrupt, "stored bytes do not match their hash"},
	{73, grid.Unsupported, "this version cannot do it"},
	{74, grid.OutOfDate, "it lies too far back to be known any more"},
	{75, grid.Busy, "somebody else holds it; try again"},
	{77, grid.Denied, "not allowed"},
	{exitTrap, grid.Trap, "the guest trapped"},
	{exitLimit, grid.Limit, "the guest, or the request, reached a limit"},
	{exitCancelled, grid.Canceled, "the job was cancelled"},
	{exitDeadline, grid.Deadline, "time ran out"},
	{exitInterrupted, grid.Unknown, "interrupted from the keyboard or by SIGTERM"},
	{exitPipe, grid.Unknown, "the reader of the output went away"},
}

// exitError is an error whose exit code is not that of its grid code. A nil err means that everything
// has been said already.
type exitError struct {
	exit int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.exit)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode is what a command that ended with err exits with.
func exitCode(err error) int {
	var x *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &x):
		return x.exit
	case errors.Is(err, syscall.EPIPE):
		return exitPipe
	}
	return exitOf(grid.CodeOf(err))
}

func exitOf(code grid.Code) int {
	for _, x := range exits {
		if x.code == code && code != grid.Unknown {
			return x.exit
		}
	}
	return exitFailure
}

// taskExit is the exit code for a task that failed.
func taskExit(t *grid.TaskEnd) int {
	switch {
	case t.Fault != nil:
		return exitOf(t.Fault.Code)
	case t.Exit <= 125:
		return int(t.Exit)
	}
	return exitFailure
}

func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("A command exits with 0 when all went well. `grid run` and `grid wait` hand on the exit code of the\nguest, 1 to 125, that failed first in the order of stages and tasks. Otherwise:\n\n")
	for _, x := range exits {
		fmt.Fprintf(&b, "  %3d  %s\n", x.exit, x.what)
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: strings.TrimRight(b.String(), "\n")}
}
