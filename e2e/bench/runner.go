package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/bench/peers"
)

// module is the one whose packages are measured.
const module = "github.com/wasmgrid/wasmgrid"

// patience is how long one measurement of a benchmark may take, and gentle how long it has to end when it is asked to.
const (
	patience = 15 * time.Minute
	gentle   = 30 * time.Second
)

// outcome is what came of a benchmark.
type outcome struct {
	measured
	err error
}

// measure runs what the lines need, one benchmark after the other, and tells on errs how far it is: of Grid, and of those peers which are installed. When
// ctx ends it returns what it has.
func measure(ctx context.Context, lines []*line, beside []*peers.Peer, count int, quick bool, errs io.Writer) (*report, error) {
	root, err := repository(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "grid-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &report{Machine: thisMachine(), Date: time.Now().UTC().Truncate(time.Second), Count: count, Quick: quick}
	r.Commit, r.Modified = commit(ctx, root)
	began := time.Now()
	r.LoadBefore = load()
	if cores := float64(r.Machine.Cores); r.LoadBefore > cores/4 {
		fmt.Fprintf(errs, "bench: this machine is at work already (load %.1f on %d processors): believe the ratios, not the figures\n", r.LoadBefore, r.Machine.Cores)
	}
	var names []string
	for _, p := range beside {
		column := peer{Name: p.Name, Lacks: p.Lacks}
		if f, err := p.Find(ctx); err != nil {
			column.Absent = err.Error()
			fmt.Fprintf(errs, "bench: %s is not measured: %s\n", p.Name, column.Absent)
		} else {
			column.Version = f.Version
			names = append(names, p.Name)
		}
		r.Peers = append(r.Peers, column)
	}
	steps := needed(lines, names)
	outcomes := map[*bench]outcome{}
	built := map[string]error{} // by package
	for i, s := range steps {
		if ctx.Err() != nil {
			outcomes[s.bench] = outcome{err: errors.New("interrupted")}
			continue
		}
		pkg := s.bench.pkg
		fmt.Fprintf(errs, "%d/%d %s %s\n", i+1, len(steps), pkg, s.bench.name)
		binary := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-")+".test")
		if _, ok := built[pkg]; !ok {
			built[pkg] = command(ctx, root, nil, "go", "test", "-c", "-o", binary, "./"+pkg)
		}
		if err := built[pkg]; err != nil {
			outcomes[s.bench] = outcome{err: err}
			continue
		}
		var out tail
		err := command(ctx, filepath.Join(root, filepath.FromSlash(pkg)), &out, binary, "-test.v", "-test.run", "^$", "-test.bench", s.pattern(),
			"-test.benchtime", s.bench.benchtime(quick), "-test.count", fmt.Sprint(count), "-test.timeout", (patience * time.Duration(count)).String())
		outcomes[s.bench] = outcome{parse(out.String()), err}
	}
	r.Took = time.Since(began).Round(time.Second).String()
	r.LoadAfter = load()
	for _, l := range lines {
		r.Lines = append(r.Lines, l.result(outcomes, names))
	}
	return r, nil
}

// step is a benchmark with those of its parts that are needed.
type step struct {
	*bench
	parts []string
}

// needed lists the benchmarks of lines in their order, each once: those of a package together, but what peers do of a line right behind it, for what else
// the machine does changes, and should be the same for both.
func needed(lines []*line, beside []string) (steps []step) {
	add := func(s series, near func(step) bool) {
		if s.bench == nil {
			return
		}
		i := slices.IndexFunc(steps, func(x step) bool { return x.bench == s.bench })
		if i < 0 {
			// Behind the last that it is to be near, or behind all.
			i = len(steps)
			for k, x := range steps {
				if near(x) {
					i = k + 1
				}
			}
			steps = slices.Insert(steps, i, step{bench: s.bench})
		}
		if !slices.Contains(steps[i].parts, s.part) {
			steps[i].parts = append(steps[i].parts, s.part)
		}
	}
	for _, l := range lines {
		for _, s := range []series{l.value, l.limit, l.ratio} {
			add(s, func(x step) bool { return x.pkg == s.bench.pkg })
		}
	}
	for _, l := range lines {
		for _, name := range beside {
			add(l.by(name), func(x step) bool { return x.bench == l.value.bench })
		}
	}
	return steps
}

// pattern is for -bench.
func (s step) pattern() string {
	var all []string
	for _, part := range s.parts {
		elements := []string{"^Benchmark" + s.name + "$"}
		if part != "" {
			for _, e := range strings.Split(part, "/") {
				elements = append(elements, "^"+regexp.QuoteMeta(e)+"$")
			}
		}
		all = append(all, strings.Join(elements, "/"))
	}
	return strings.Join(all, "|")
}

// command runs a program to its end, in a group of processes of its own, which is interrupted as a whole when ctx ends. If out is nil, what it
// printed is in the error.
func command(ctx context.Context, dir string, out *tail, name string, args ...string) error {
	var own tail
	if out == nil {
		out = &own
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.WaitDelay = gentle
	group(cmd)
	err := cmd.Run()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out.complaint())
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ buf bytes.Buffer }

// Write keeps p, and drops what is too old.
func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p[max(0, len(p)-maxOutput):])
	t.buf.Next(max(0, t.buf.Len()-maxOutput))
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string { return t.buf.String() }

// complaint is the line that tells most of what went wrong: a panic, or else what compilers say first.
func (t *tail) complaint() string {
	first := ""
	for text := range strings.Lines(t.String()) {
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "panic:") || strings.HasPrefix(text, "fatal error:") {
			return short(text)
		}
		if first == "" && text != "" && !strings.HasPrefix(text, "#") && !strings.HasPrefix(text, "Benchmark") && !strings.Contains(text, ": Benchmark") {
			first = text
		}
	}
	return short(first)
}

// repository is the folder of the module, which the working directory is in.
func repository(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}").Output()
	path, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if ctx.Err() != nil {
		return "", errors.New("interrupted")
	}
	if err != nil || path != module {
		return "", fmt.Errorf("this is not the repository of %s: change to it, for the benchmarks are built there", module)
	}
	return dir, nil
}

// commit is what is checked out, and whether files differ from it; "" if that is not to be had.
func commit(ctx context.Context, root string) (id string, modified bool) {
	git := func(args ...string) string {
		out, _ := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out))
	}
	return git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "--untracked-files=no") != ""
}
