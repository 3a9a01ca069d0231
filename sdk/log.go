package sdk

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

func (c Context) stderr() io.Writer {
	if w := c.task().host.Stderr; w != nil {
		return w
	}
	return os.Stderr
}

// Logf writes a line to stderr, which the grid keeps as the task's log.
func (c Context) Logf(format string, args ...any) {
	fmt.Fprintf(c.stderr(), strings.TrimSuffix(format, "\n")+"\n", args...)
}

// Log writes lines with a level, a message and attributes to stderr, which the grid keeps as the task's log. They have no
// time: the clock of a pure task tells none, and the grid knows when a task ran.
func (c Context) Log() *slog.Logger {
	t := c.task()
	if t.log == nil {
		t.log = slog.New(slog.NewTextHandler(c.stderr(), &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	return t.log
}

// Progress says how much of the task's work is done, of how much; total is 0 when nobody knows. Whoever watches the job
// sees it. Calling it often is cheap.
func (c Context) Progress(done, total uint64) {
	f := c.task().host.Progress
	if f == nil {
		f = hostProgress
	}
	c.refused("progress", f(done, total))
}

// Count adds n to the counter of that name: letters, digits and '_', such as lines_read. The job and the node's metrics
// show the sum over all tasks.
func (c Context) Count(name string, n uint64) {
	f := c.task().host.Count
	if f == nil {
		f = hostCount
	}
	c.refused("count "+name, f(name, n))
}

// Observe adds a value to the histogram of that name, named like a counter.
func (c Context) Observe(name string, v float64) {
	f := c.task().host.Observe
	if f == nil {
		f = hostObserve
	}
	c.refused("observe "+name, f(name, v))
}

// refused logs what the host did not take, once in a task: it is no reason to fail.
func (c Context) refused(what string, err error) {
	if t := c.task(); err != nil && !t.told {
		t.told = true
		c.Logf("%s: %v", what, err)
	}
}
