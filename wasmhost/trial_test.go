package wasmhost_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// feeder is a stdin that gives some bytes, and more once it is told to.
type feeder struct {
	first string
	wait  func()
	then  io.Reader
}

func (f *feeder) Read(b []byte) (int, error) {
	if f.first != "" {
		n := copy(b, f.first)
		f.first = f.first[n:]
		return n, nil
	}
	if f.wait != nil {
		f.wait()
		f.wait = nil
	}
	return f.then.Read(b)
}

// A guest that is interpreted when the machine code gets ready begins anew, and shows no trace of it.
func TestTrials(t *testing.T) {
	binary, err := gridtest.BuildGuest([]byte(`package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "trap" {
		var p *int
		defer func() { fmt.Println(recover() != nil); os.Exit(9) }()
		*p = 1
	}
	lines := bufio.NewScanner(os.Stdin)
	for n := 1; lines.Scan(); n++ {
		fmt.Println(n, len(lines.Bytes()))
		fmt.Fprintln(os.Stderr, "seen", n)
	}
}
`))
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 50_000) + "\n"
	for _, test := range []struct {
		name, first, then string
		late              bool // the rest of stdin comes when the machine code is ready
		args              []string
		exit              uint32
	}{
		{name: "short", then: "one\ntwo\n"},
		{name: "late", first: "one\n", then: "two\nthree\n", late: true},
		{name: "much", then: strings.Repeat(long, 40)}, // more than is held back
		{name: "fails", args: []string{"guest", "trap"}, exit: 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixed{binary: binary}
			h := closing(t)(wasmhost.Open(wasmhost.Config{Load: f.load})) // what is kept is not interpreted
			var stdout, stderr, want bytes.Buffer
			for n, line := range strings.Split(strings.TrimSuffix(test.first+test.then, "\n"), "\n") {
				if line != "" {
					want.WriteString(fmt.Sprintln(n+1, len(line)))
				}
			}
			if test.exit == 9 {
				want.Reset()
				want.WriteString("true\n")
			}
			stdin := &feeder{first: test.first, then: strings.NewReader(test.then)}
			if test.late {
				stdin.wait = func() {
					if _, err := h.Inspect(t.Context(), f.cid(), true); err != nil {
						t.Error(err)
					}
				}
			}
			var fuel uint64
			for range 2 { // the second time there is machine code
				stdout.Reset()
				stderr.Reset()
				out, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Args: test.args, Stdin: stdin, Stdout: &stdout, Stderr: &stderr})
				if err != nil || out.Exit != test.exit || out.Fault != nil || stdout.String() != want.String() ||
					strings.Count(stderr.String(), "seen") != strings.Count(stdout.String(), " ") {
					t.Fatalf("%+v, %v\nstdout %.200s\nwant %.200s\nstderr %.200s", out, err, stdout.String(), want.String(), stderr.String())
				}
				if fuel != 0 && out.Fuel != fuel && !test.late {
					t.Errorf("fuel %d, before %d", out.Fuel, fuel)
				}
				fuel = out.Fuel
				stdin = &feeder{then: strings.NewReader(test.first + test.then)}
			}
		})
	}
}

// Every guest of a node is given a map and tasks; only those that may use them are begun but once.
func TestOnce(t *testing.T) {
	w := new(abiWorld)
	given := grid.Guest{KV: w, Tasks: w}
	for _, test := range []struct {
		name string
		info module.Info
		g    grid.Guest
		want bool
	}{
		{"uses neither", module.Info{Grid: true}, given, false},
		{"map", module.Info{Map: true}, given, true},
		{"tasks", module.Info{Spawns: true}, given, true},
		{"none to use", module.Info{Map: true, Spawns: true}, grid.Guest{}, false},
		{"impure", module.Info{}, grid.Guest{Impure: true}, true},
		{"network", module.Info{}, grid.Guest{Net: []string{"example.org:443"}}, true},
		{"profile", module.Info{}, grid.Guest{Profile: true}, true},
	} {
		if got := wasmhost.Once(test.info, &test.g); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// A process that ends as soon as it has its answer leaves the machine code behind, if it waits for that.
func TestFinish(t *testing.T) {
	hello, err := goHello()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &fixed{binary: hello}
	h, err := wasmhost.Open(wasmhost.Config{Load: f.load, CacheDir: dir, Finish: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	exits(t, h, f.cid(), 0)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(entries(t, dir)); n != 1 {
		t.Errorf("%d files, want the module's", n)
	}
}
