package sdk

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Main runs the function that the grid, or the variable GRID_FUNC, names. It returns when that went well; otherwise it
// tells on stderr what went wrong, and exits with 1. Without a name and the grid it runs the whole program by hand: the
// first Map over the files named as arguments, or else over stdin, then the first Reduce over what that emitted; without
// these, the first function there is. Main parses the command line, for programs that define flags.
func Main(funcs ...Function) {
	name, _ := variable(abi.EnvFunc)
	if !flag.Parsed() {
		parse(name)
	}
	if err := run(funcs, name, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// parse parses the command line. On the grid, what is wrong with it comes behind what it should be, and after the
// function's name: it is the last line of a log that people look at.
func parse(name string) {
	if _, onGrid := variable(abi.EnvABI); !onGrid || len(os.Args) < 2 {
		flag.Parse()
		return
	}
	line, usage, to := flag.CommandLine, flag.Usage, flag.CommandLine.Output()
	line.Init(name, flag.ContinueOnError)
	line.SetOutput(io.Discard)
	flag.Usage = func() {}
	err := line.Parse(os.Args[1:])
	line.SetOutput(to)
	flag.Usage = usage
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage()
		os.Exit(0)
	case err != nil:
		usage()
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(2)
	}
}

func run(funcs []Function, name string, args []string) error {
	if name == abi.Describe {
		text, err := Describe(funcs...)
		if err == nil {
			_, err = os.Stdout.Write(text)
		}
		return err
	}
	if err := check(funcs); err != nil {
		return err
	}
	_, onGrid := variable(abi.EnvABI)
	h := Host{Functions: funcs, Args: args, Stdout: os.Stdout, Stderr: os.Stderr}
	switch {
	case onGrid:
		h.Number, _ = variable(abi.EnvTask)
		h.Create = createIn(abi.Out)
		h.stdin, h.Stdout = streams()
		h.list = func() ([]File, error) { return inputs(abi.In) }
	case name != "":
		h.Create = createIn(filepath.FromSlash(strings.TrimPrefix(abi.Out, "/")))
		h.Inputs = named(nil)
	default:
		h.Create = createIn(filepath.FromSlash(strings.TrimPrefix(abi.Out, "/")))
		h.Inputs, h.Args = named(args), nil
		return byHand(funcs, h)
	}
	f, err := pick(funcs, name)
	if err != nil {
		return err
	}
	return f.Run(h)
}

// pick finds a function; a program with only one need not name it.
func pick(funcs []Function, name string) (Function, error) {
	for i := range funcs {
		if f := &funcs[i]; f.name == name || name == "" && len(funcs) == 1 {
			return *f, nil
		}
	}
	var names []string
	for _, f := range funcs {
		names = append(names, f.name)
	}
	if name == "" {
		return Function{}, fmt.Errorf("no function was named; this program has: %s", strings.Join(names, ", "))
	}
	return Function{}, fmt.Errorf("this program has no function %q, only: %s", name, strings.Join(names, ", "))
}

// byHand runs a map and a reduce in one process.
func byHand(funcs []Function, h Host) error {
	first := func(k string) *Function {
		for i, f := range funcs {
			if f.kind == k {
				return &funcs[i]
			}
		}
		return nil
	}
	m, r := first(kindMap), first(kindReduce)
	switch {
	case m == nil || r == nil:
		return funcs[0].Run(h)
	}
	var emitted bytes.Buffer
	stdout := h.Stdout
	h.Stdout = &emitted
	if err := m.Run(h); err != nil {
		return err
	}
	h.Stdout = stdout
	h.Inputs = []File{{Name: "the output of " + m.name, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(&emitted), nil
	}}}
	return r.Run(h)
}

// inputs lists the files below the folder of inputs, in order of their paths; without any, stdin is
// the one input. Folders that tasks of the stage before left behind are not input, only their stdouts.
func inputs(dir string) ([]File, error) {
	var list []File
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && p == dir:
			return fs.SkipAll // no inputs
		case err != nil:
			return err
		case d.IsDir() && gathered(p, dir):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		list = append(list, File{Name: filepath.ToSlash(name), Open: func() (io.ReadCloser, error) { return os.Open(p) }})
		return nil
	})
	if err == nil && len(list) == 0 {
		list = named(nil)
	}
	return list, err
}

// gathered recognises a folder left behind by a task of an earlier stage, in the folder of inputs or one below it.
func gathered(p, dir string) bool {
	if above := filepath.Dir(p); above != dir && filepath.Dir(above) != dir {
		return false
	}
	number, ok := strings.CutSuffix(filepath.Base(p), abi.GatherDir)
	return ok && len(number) == abi.GatherDigits && strings.Trim(number, "0123456789") == ""
}

// named makes sources of files, or of stdin when none is named.
func named(paths []string) []File {
	if len(paths) == 0 {
		return []File{{Name: "stdin", Open: func() (io.ReadCloser, error) { return io.NopCloser(os.Stdin), nil }}}
	}
	list := make([]File, len(paths))
	for i, p := range paths {
		list[i] = File{Name: p, Open: func() (io.ReadCloser, error) { return os.Open(p) }}
	}
	return list
}

// createIn makes files below a folder.
func createIn(dir string) func(name string) (io.WriteCloser, error) {
	return func(name string) (io.WriteCloser, error) {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			return nil, err
		}
		return os.Create(p)
	}
}
