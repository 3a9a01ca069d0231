package sdk

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// runError says in which function, and at which input, a task failed.
type runError struct {
	function, input string
	err             error
}

func (e *runError) Error() string {
	if e.input == "" {
		return fmt.Sprintf("%s: %v", e.function, e.err)
	}
	return fmt.Sprintf("%s: input %s: %v", e.function, e.input, e.err)
}

func (e *runError) Unwrap() error { return e.err }

// panicError is a panic, with the calls that led to it as far as they are the author's.
type panicError struct {
	value any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v%s", e.value, e.stack) }

func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// maxFrames bounds the calls that are told of a panic.
const maxFrames = 32

// authorsStack tells, in a function that a panic defers to, where that was: a line for each call, innermost first,
// without those of the runtime and of this package, down to the function that the task runs.
func authorsStack() string {
	pcs := make([]uintptr, 4*maxFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	_, here, _, _ := runtime.Caller(0) // by files, since names are those of functions that ours were inlined into
	ours := func(file string) bool {
		return path.Dir(file) == path.Dir(here) && !strings.HasSuffix(file, "_test.go")
	}
	var b strings.Builder
	panicked, told := false, 0
	for more := true; more && told < maxFrames; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicked = true
		case ours(f.File) && strings.HasSuffix(f.Function, ".Function.Run"):
			return b.String()
		case !panicked, f.Function == "", strings.HasPrefix(f.Function, "runtime."), ours(f.File):
		default:
			told++
			fmt.Fprintf(&b, "\n    %s (%s:%d)", path.Base(f.Function), path.Base(strings.ReplaceAll(f.File, `\`, "/")), f.Line)
		}
	}
	return b.String()
}
