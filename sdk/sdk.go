// Package sdk is what a program for the grid imports. A program registers functions under names and
// hands over to [Main]; a job's stages name the function they run.
//
//	func main() {
//		sdk.Main(
//			sdk.Map("map", add, countWords),
//			sdk.Reduce("reduce", add, printTable),
//		)
//	}
//
// [Map] runs over a task's input files and emits values under keys; [Reduce] gets what all tasks of the
// stage before emitted, each key once; [Do] is for everything else. A task can have others run, and wait for them, with
// [Go]. Values under one key are combined
// by a function of the author's, so that a map task sends each key once.
//
// On the grid, main runs for every task, but what comes before it need not: grid run builds such a program as a library
// (go build -buildmode=c-shared), which is started once and put back to that start for each task. So package variables
// and init functions are the place for what is costly and the same for all, such as tables, compiled patterns and
// warming up; they see no arguments, inputs or files, and their randomness and time are the same for every task.
// Built as a command, the program does the same, more slowly.
//
// The same program runs by hand: built natively or as plain Wasm, without the grid, it maps the files
// named as arguments (or stdin) and reduces what comes of it. `go test` runs functions through
// package sdktest.
//
// The package needs only the standard library. What a guest can see is specified in docs/abi.md; the
// names are in package abi.
package sdk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"runtime/debug"
	"strings"
)

// Func is a named function of a program. Make one with [Map], [Reduce], [Do] or [Call].
type Func struct {
	name string
	kind kind
	run  func(*Task) error
	fn   uintptr // of the author's function, made by Call; 0
}

type kind int

const (
	other kind = iota
	mapper
	reducer
)

// Name is what stages call it.
func (f Func) Name() string { return f.name }

// Do makes a function that is called once for each task.
func Do(name string, f func(t *Task) error) Func { return Func{name: name, run: f} }

// Map makes a function that is called once for each input file of a task, in order of names. What it
// emits goes to stdout when all inputs are done, in order of keys, values under one key combined.
// combine must not mind the order; it may change and return a.
func Map[V any](name string, combine func(a, b V) V, f func(t *Task, in *Input, out *Emitter[V]) error) Func {
	return Func{name: name, kind: mapper, run: func(t *Task) error {
		out := newEmitter(combine)
		for in, err := range t.Inputs() {
			if err == nil {
				err = f(t, in, out)
			}
			if err != nil {
				return err
			}
		}
		w := bufio.NewWriterSize(t.host.Stdout, 64<<10)
		if err := out.encode(w); err != nil {
			return err
		}
		return w.Flush()
	}}
}

// Reduce makes a function that is called once for each task with everything that a [Map] of the same
// value type emitted: each key once, in order, with its values combined. It holds all of them in
// memory.
func Reduce[V any](name string, combine func(a, b V) V, f func(t *Task, all iter.Seq2[string, V]) error) Func {
	return Func{name: name, kind: reducer, run: func(t *Task) error {
		merged := newEmitter(combine)
		for in, err := range t.Inputs() {
			if err == nil {
				err = merged.decode(in)
			}
			if err != nil {
				return err
			}
		}
		t.input = ""
		return f(t, merged.all())
	}}
}

// Task is the task that a function runs in. It is for one goroutine.
type Task struct {
	host  Host
	input string // being read now, for messages
	buf   []byte // of Input.Bytes
}

// Host is what a function gets from outside: the grid, the command line or a test.
type Host struct {
	Sources []Source
	Stdout  io.Writer
	Stderr  io.Writer
	Args    []string
	Number  string                                    // of the task, in stages that have no inputs
	Create  func(name string) (io.WriteCloser, error) // of a file in /out, folders included
}

// Source is one input file.
type Source struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// Run runs the function once. A panic comes back as an error, like any other telling the function and
// the input it was at.
func (f Func) Run(h Host) (err error) {
	t := &Task{host: h}
	done := false
	defer func() {
		if !done {
			err = fmt.Errorf("panic: %v\n%s", recover(), debug.Stack())
		}
		if err != nil {
			err = &runError{f.name, t.input, err}
		}
	}()
	err = f.run(t)
	done = true
	return err
}

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

// Args are the stage's arguments that the flag package has not taken.
func (t *Task) Args() []string { return t.host.Args }

// Number is the task's number, as text; "" in stages that have inputs.
func (t *Task) Number() string { return t.host.Number }

// Stdout is the task's result.
func (t *Task) Stdout() io.Writer { return t.host.Stdout }

// Logf writes a line to stderr, which the grid keeps as the task's log.
func (t *Task) Logf(format string, args ...any) {
	fmt.Fprintf(t.host.Stderr, strings.TrimSuffix(format, "\n")+"\n", args...)
}

// Create makes a file that the task leaves behind, by its slash-separated path below /out. Folders on
// the way are made. The caller closes it.
func (t *Task) Create(name string) (io.WriteCloser, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("create %q: want a clean relative path, such as %q", name, path.Join("tables", "counts.tsv"))
	}
	return t.host.Create(name)
}

// Inputs opens the task's inputs one after the other. An input must not be used after the loop has
// moved on. An input that does not open ends the loop with its error.
func (t *Task) Inputs() iter.Seq2[*Input, error] {
	return func(yield func(*Input, error) bool) {
		for _, s := range t.host.Sources {
			t.input = s.Name
			r, err := s.Open()
			if err != nil {
				yield(nil, err)
				return
			}
			more := yield(&Input{Name: s.Name, task: t, r: r}, nil)
			if err := r.Close(); err != nil && more {
				yield(nil, err)
				return
			}
			if !more {
				return
			}
		}
		t.input = ""
	}
}

// Input is one input file, open for reading.
type Input struct {
	Name string // its path below /in
	task *Task
	r    io.Reader
}

// Read reads on.
func (in *Input) Read(b []byte) (int, error) { return in.r.Read(b) }

// Bytes reads all the rest, into a buffer that serves the task's next input too.
func (in *Input) Bytes() ([]byte, error) {
	buf := in.task.buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(64<<10, len(buf)))...)[:len(buf)]
		}
		n, err := in.r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			in.task.buf = buf
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return buf, err
		}
	}
}
