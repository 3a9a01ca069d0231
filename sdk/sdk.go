// Package sdk is what a plugin, a program for the grid, imports. A program hands its functions over to [Main]; a job's
// stages, a call or another task name the one they run.
//
//	func main() {
//		sdk.Main(
//			sdk.Func("count", count),
//			sdk.Map("map", add, countWords),
//			sdk.Reduce("reduce", add, printTable),
//		)
//	}
//
// [Func] is for functions that take a value and give one, [Stream] for those that take and give many, as JSON; [Map] runs
// over a task's input files and emits values under keys, and [Reduce] gets what all tasks of the stage before emitted,
// each key once; [Do] is for everything else. Every function gets a [Context], which leads to all that a task has: its
// inputs and outputs, its log, secrets, the realm's map, and other tasks, which it can start and wait for with [Go].
//
// Functions of other kinds extend a node: [Admission] says which jobs are accepted, [Notifier] is told of what happens to
// them, [Scorer] says which nodes suit a stage, and [Splitter] how files become tasks.
//
// On the grid, main runs for every task, but what comes before it need not: grid run builds such a program as a library
// (go build -buildmode=c-shared), which is started once and put back to that start for each task. So package variables
// and init functions are the place for what is costly and the same for all, such as tables, compiled patterns and
// warming up; they see no arguments, inputs or files, and their randomness and time are the same for every task.
// Built as a command, the program does the same, more slowly.
//
// The same program runs by hand: built natively or as plain Wasm, without the grid, it runs the function that the
// variable GRID_FUNC names, or else maps the files named as arguments (or stdin) and reduces what comes of it. `go test`
// runs functions through package sdktest.
//
// docs/sdk.md is the guide. The package needs only the standard library. What a guest can see is specified in
// docs/abi.md; the names are in package abi.
package sdk

import (
	"bufio"
	"iter"
	"reflect"
)

// Function is a named function of a program. Make one with [Func], [Stream], [Map], [Reduce] or [Do].
type Function struct{ *function }

type function struct {
	name, kind, doc string
	run             func(Context) error
	fn              uintptr      // of the author's function, made by Func; 0
	in, out         reflect.Type // of the values of typed functions; nil
	named           bool         // properly
}

func makeFunction(f function) Function {
	f.named = validName(f.name)
	return Function{&f}
}

// The kinds of functions that stages run.
const (
	kindFunc   = "func"
	kindStream = "stream"
	kindMap    = "map"
	kindReduce = "reduce"
	kindTask   = "task"
)

// Name is what stages call it.
func (f Function) Name() string { return f.name }

// Kind says how it takes its input and gives its output: "func", "stream", "map", "reduce" or "task", or one of the
// kinds that extend a node.
func (f Function) Kind() string { return f.kind }

// Doc gives the function a text that says what it is for, which users see. It returns the function with it:
//
//	sdk.Func("count", count).Doc("Counts the words of a text.")
func (f Function) Doc(text string) Function {
	d := *f.function
	d.doc = text
	return Function{&d}
}

// Do makes a function that is called once for each task.
func Do(name string, f func(ctx Context) error) Function {
	return makeFunction(function{name: name, kind: kindTask, run: f})
}

// Map makes a function that is called once for each input file of a task, in order of names. What it
// emits goes to stdout when all inputs are done, in order of keys, values under one key combined.
// combine must not mind the order; it may change and return a.
func Map[V any](name string, combine func(a, b V) V, f func(ctx Context, in *Input, out *Emitter[V]) error) Function {
	return makeFunction(function{name: name, kind: kindMap, run: func(ctx Context) error {
		out := newEmitter(combine)
		for in, err := range ctx.Inputs() {
			if err == nil {
				err = f(ctx, in, out)
			}
			if err != nil {
				return err
			}
		}
		w := bufio.NewWriterSize(ctx.Stdout(), 64<<10)
		if err := out.encode(w); err != nil {
			return err
		}
		return w.Flush()
	}})
}

// Reduce makes a function that is called once for each task with everything that a [Map] of the same
// value type emitted: each key once, in order, with its values combined. It holds all of them in
// memory.
func Reduce[V any](name string, combine func(a, b V) V, f func(ctx Context, all iter.Seq2[string, V]) error) Function {
	return makeFunction(function{name: name, kind: kindReduce, run: func(ctx Context) error {
		merged := newEmitter(combine)
		for in, err := range ctx.Inputs() {
			if err == nil {
				err = merged.decode(in)
			}
			if err != nil {
				return err
			}
		}
		ctx.task().input = ""
		return f(ctx, merged.all())
	}})
}

// Run runs the function once. A panic comes back as an error, like any other telling the function and
// the input it was at.
func (f Function) Run(h Host) (err error) {
	t := &task{host: h}
	done := false
	defer func() {
		if !done {
			err = &panicError{recover(), authorsStack()}
		}
		if err != nil {
			err = &runError{f.name, t.input, err}
		}
	}()
	err = f.run(Context{t})
	done = true
	return err
}
