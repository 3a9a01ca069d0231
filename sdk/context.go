package sdk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
)

// Context is the task that a function runs in, and leads to all that there is around it. It is for one goroutine. The
// zero Context is that of no task: it has no inputs and arguments, its output is the process's, and what it asks for is
// asked of the host.
type Context struct{ t *task }

// task is what a Context leads to.
type task struct {
	host  Host
	input string // being read now, for messages
	buf   []byte // of Input.Bytes
	log   *slog.Logger
	told  bool // that a metric or progress was refused
}

func (c Context) task() *task {
	if c.t != nil {
		return c.t
	}
	return &task{}
}

// Host is what a function gets from outside: the grid, the command line or a test. What is nil is as the process has
// it: on the grid the node gives it, elsewhere there is a substitute in memory.
type Host struct {
	Inputs []File
	Stdout io.Writer
	Stderr io.Writer
	Args   []string
	Number string                                    // of the task, in stages that have no inputs
	Create func(name string) (io.WriteCloser, error) // of a file in /out, folders included

	Functions []Function                         // what the task may spawn
	Env       func(name string) string           // its variables
	Secret    func(name string) ([]byte, error)  // granted by name
	Open      func(name string) (fs.File, error) // CID/PATH of granted data
	KV        Store                              // the realm's map
	Progress  func(done, total uint64) error
	Count     func(name string, n uint64) error
	Observe   func(name string, v float64) error

	stdin io.Reader              // what typed functions read before they look for inputs
	list  func() ([]File, error) // lists the inputs, when somebody asks for them
}

// File is one input file.
type File struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// Args are the arguments of the stage or call that the flag package has not taken.
func (c Context) Args() []string { return c.task().host.Args }

// Number is the task's number, as text; "" in stages that have inputs.
func (c Context) Number() string { return c.task().host.Number }

// Env is a variable of the stage, "" without one.
func (c Context) Env(name string) string {
	if env := c.task().host.Env; env != nil {
		return env(name)
	}
	v, _ := variable(name)
	return v
}

// Stdout is the task's result.
func (c Context) Stdout() io.Writer {
	if w := c.task().host.Stdout; w != nil {
		return w
	}
	return os.Stdout
}

// Create makes a file that the task leaves behind, by its slash-separated path below /out. Folders on
// the way are made. The caller closes it.
func (c Context) Create(name string) (io.WriteCloser, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("create %q: want a clean relative path, such as %q", name, path.Join("tables", "counts.tsv"))
	}
	if create := c.task().host.Create; create != nil {
		return create(name)
	}
	return nil, fmt.Errorf("create %q: there is no task that could leave it", name)
}

// files lists the task's inputs.
func (c Context) files() (list []File, err error) {
	t := c.task()
	if t.host.list != nil {
		if t.host.Inputs, err = t.host.list(); err != nil {
			return nil, err
		}
		t.host.list = nil
	}
	return t.host.Inputs, nil
}

// Inputs opens the task's inputs one after the other. An input must not be used after the loop has
// moved on. An input that does not open ends the loop with its error.
func (c Context) Inputs() iter.Seq2[*Input, error] {
	t := c.task()
	return func(yield func(*Input, error) bool) {
		files, err := c.files()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, s := range files {
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
	task *task
	r    io.Reader
}

// Read reads on.
func (in *Input) Read(b []byte) (int, error) { return in.r.Read(b) }

// Bytes reads all the rest, into a buffer that serves the task's next input too.
func (in *Input) Bytes() ([]byte, error) {
	var err error
	in.task.buf, err = readAll(in.r, in.task.buf[:0])
	return in.task.buf, err
}

// readAll appends all that a reader gives.
func readAll(r io.Reader, buf []byte) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(64<<10, len(buf)))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// Secret gives the secret of that name, which the job was granted, as with `grid run --allow-secret NAME`. Do not print
// it: what tasks print is kept. By hand, the program takes it from the variable GRID_SECRET_NAME, the name in capitals
// and with _ for what is no letter or digit, or from the file secrets/NAME.
func (c Context) Secret(name string) ([]byte, error) {
	get := c.task().host.Secret
	if get == nil {
		get = hostSecret
	}
	v, err := get(name)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", name, err)
	}
	return v, nil
}

// Open opens a file or folder of the data with that CID, which the job was granted, as with `grid run --allow-data CID`;
// without a path, what the CID itself names. By hand it is looked for in the folder cid/CID.
func (c Context) Open(cid string, names ...string) (fs.File, error) {
	name := path.Join(append([]string{cid}, names...)...)
	if !fs.ValidPath(name) || cid == "" || !strings.HasPrefix(name+"/", cid+"/") {
		return nil, fmt.Errorf("open %q: want a CID, and a path below it", name)
	}
	open := c.task().host.Open
	if open == nil {
		open = hostOpen
	}
	f, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return f, nil
}

// KV is the realm's map, as far as the job was granted it, as with `grid run --allow-kv PREFIX`. By hand it is a map in
// memory, gone with the program.
func (c Context) KV() KV {
	if s := c.task().host.KV; s != nil {
		return KV{s}
	}
	return KV{hostKV()}
}
