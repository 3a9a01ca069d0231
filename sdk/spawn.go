package sdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Go has f called with in, as a task of its own: on this node or another, now or when there is room. f is one that the
// program has given to [Main] by [Func], and a pure function: it is called once for equal values, by whomever, and what
// it gave is known from then on. It sees the mounts of this task, but not its inputs, and no variables that this task
// has changed.
//
// A task costs about a hundred microseconds, and on another node a round trip besides: f should run longer than that,
// and do small problems itself. When this task ends, those that it has not awaited are ended, too.
func Go[In, Out any](ctx Context, f func(Context, In) (Out, error), in In) *Promise[Out] {
	p := new(Promise[Out])
	name, err := ctx.nameOf(f)
	if err == nil {
		var data []byte
		if data, err = encode(in); err == nil {
			p.future = spawn(ctx, name, data, nil)
			return p
		}
	}
	p.future = &Future{err: err}
	return p
}

// Promise is what a call by [Go] will have come to. It is for one goroutine.
type Promise[Out any] struct{ future *Future }

// Await waits for the call to end, and gives its result, or tells how it failed. It may be called again.
func (p *Promise[Out]) Await() (Out, error) {
	var out Out
	data, err := p.future.Await()
	if err != nil {
		return out, err
	}
	if out, err = decode[Out](data); err != nil {
		return out, fmt.Errorf("the result of the call %w", err)
	}
	return out, nil
}

// Spawn has the named function of this program run as a task of its own, with stdin as its one input; see [Go], which
// is Spawn for functions with types. The caller must not change stdin.
func Spawn(ctx Context, name string, stdin []byte, args ...string) *Future {
	return spawn(ctx, name, stdin, args)
}

// Future is what a spawned task will have come to. It is for one goroutine.
type Future struct {
	wait func() ([]byte, error) // nil: it is over
	data []byte
	err  error
}

// Await waits for the task to end, and gives what it printed, or tells how it failed. It may be called again.
func (f *Future) Await() ([]byte, error) {
	if f.wait != nil {
		f.data, f.err = f.wait()
		f.wait = nil
	}
	return f.data, f.err
}

// nameOf finds the name of a function that was made by Func.
func (c Context) nameOf(f any) (string, error) {
	at := reflect.ValueOf(f).Pointer()
	for _, r := range c.task().host.Functions {
		if r.fn == at {
			return r.name, nil
		}
	}
	return "", fmt.Errorf("a function of the type %T is called as a task, and is not one of the program's: give sdk.Main an sdk.Func of it", f)
}

// encodeCall writes a request in the format of docs/abi.md.
func encodeCall(name string, stdin []byte, args []string) []byte {
	b := make([]byte, 0, 8+len(name)+len(stdin)+16*len(args))
	b = appendWord(b, name)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(args)))
	for _, a := range args {
		b = appendWord(b, a)
	}
	return append(b, stdin...)
}

// runHere runs a function in this process, for programs without the grid.
func runHere(ctx Context, name string, stdin []byte, args []string) ([]byte, error) {
	h := ctx.task().host
	f, err := pick(h.Functions, name)
	if err != nil {
		return nil, err
	}
	var stdout bytes.Buffer
	h.Args, h.Number, h.Stdout, h.Stderr = args, "", &stdout, ctx.stderr()
	h.Inputs = []File{{Name: "stdin", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(stdin)), nil }}}
	h.Create = func(string) (io.WriteCloser, error) { return nothing{}, nil }
	if err := f.Run(h); err != nil {
		return nil, fmt.Errorf("task %s: %w", name, err)
	}
	return stdout.Bytes(), nil
}

// nothing takes files that a child leaves behind, which nobody sees.
type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Close() error                { return nil }

// taskFailed is the error of a task that exited with a code, after it wrote stderr. What a call of the same function
// further down has said of the same is said once: only so much of stderr is told from task to task, and the cause comes
// last.
func taskFailed(name string, code uint32, stderr string) error {
	what := fmt.Sprintf("task %s: exit code %d", name, code)
	text := strings.TrimPrefix(strings.TrimSpace(stderr), name+": ") // by Main
	switch {
	case text == "":
		return errors.New(what)
	case strings.HasPrefix(text, what):
		return errors.New(text)
	}
	return fmt.Errorf("%s: %s", what, text)
}
