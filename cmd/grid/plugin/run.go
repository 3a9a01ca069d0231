package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/rogpeppe/go-internal/diff"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Runner runs cases of one plugin in a sandbox.
type Runner struct {
	Sandbox  Sandbox
	Module   cid.Cid // which the sandbox has
	Manifest *grid.Manifest
}

// Warm waits until the module's machine code is there, for at most so long. Without it a run may be interpreted, which
// takes longer, and gives the same.
func (r *Runner) Warm(ctx context.Context, most time.Duration) (warm bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	_, err = r.Sandbox.Inspect(bounded, r.Module, true)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// Result is what one run of a case came to.
type Result struct {
	Golden
	Log     []byte // what it wrote to stderr
	Exit    uint32
	Fault   *grid.Fault
	Fuel    uint64 // with that of its children
	Memory  uint64
	Time    time.Duration
	Metrics []grid.Metric
}

// Report is what became of a case.
type Report struct {
	Case     string        `json:"case"`
	Func     string        `json:"func"`
	OK       bool          `json:"ok"`
	Updated  bool          `json:"updated,omitempty"`
	Problems []Problem     `json:"problems,omitempty"`
	Exit     uint32        `json:"exit_code"`
	Fault    *grid.Fault   `json:"fault,omitempty"`
	Fuel     uint64        `json:"fuel"`
	Memory   uint64        `json:"memory_bytes"`
	Time     time.Duration `json:"time_ns"`
	Impure   bool          `json:"impure,omitempty"` // it was run once: another run may give something else
	Metrics  []grid.Metric `json:"metrics,omitempty"`
	Log      string        `json:"log,omitempty"` // of a case that is not ok
}

// Problem is one thing about a case that is not as it should be.
type Problem struct {
	What string `json:"what"` // a file of the case, or "again" when a second run gave something else
	Diff string `json:"diff"`
}

// function finds the function that a case is of.
func (r *Runner) function(c *Case) (string, error) {
	name := c.Func
	if name == "" {
		name, _, _ = strings.Cut(c.Name, ".")
	}
	if _, ok := r.Manifest.Find(name); ok {
		return name, nil
	}
	if c.Func == "" && len(r.Manifest.Functions) == 1 {
		return r.Manifest.Functions[0].Name, nil
	}
	var names []string
	for _, f := range r.Manifest.Functions {
		names = append(names, f.Name)
	}
	err := grid.Errorf(grid.NotFound, "case %s: the plugin has no function %q", c.Name, name)
	if near := grid.Nearest(name, names); near != "" {
		return "", err.Hint("did you mean %s?", near)
	}
	return "", err.Hint("call the case FUNCTION or FUNCTION.WHAT, or name the function in its %s; there are %s", caseFile, strings.Join(names, ", "))
}

// grants are what a case is given: by default all that the plugin wants, but for the network.
func (r *Runner) grants(c *Case) grid.Grants {
	if c.Grants != nil {
		return *c.Grants
	}
	g := r.Manifest.Wants
	g.Net = nil
	return g
}

// call is a case made ready to be run any number of times.
type call struct {
	r      *Runner
	c      *Case
	fn     string
	guest  grid.Guest // without streams, map and tasks
	grants grid.Grants
	stdin  []byte
	dir    string // temporary
	roots  []*os.Root
}

// open reads what a case is given. Close the call.
func (r *Runner) open(c *Case) (_ *call, err error) {
	k := &call{r: r, c: c, grants: r.grants(c)}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if k.fn, err = r.function(c); err != nil {
		return nil, err
	}
	if c.Dir != "" {
		root, name := c.within(stdinFile)
		k.stdin, err = readWithin(root, name, maxGolden)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if k.dir, err = os.MkdirTemp("", "grid-case-*"); err != nil {
		return nil, osError(err)
	}
	g := &k.guest
	g.Module, g.Func, g.Args = r.Module, k.fn, append([]string{"main"}, c.Args...)
	g.Env = guestEnv(k.fn, c.Env)
	if c.Task != nil {
		g.Env = append(g.Env, abi.EnvTask+"="+strconv.FormatUint(uint64(*c.Task), 10))
	}
	if c.Partitions > 0 {
		g.Env = append(g.Env, abi.EnvPartitions+"="+strconv.FormatUint(uint64(c.Partitions), 10))
	}
	g.Limits, g.Impure, g.Net = c.Limits, c.Impure || len(k.grants.Net) > 0, k.grants.Net
	g.Mounts = map[string]fs.FS{}
	if c.Dir != "" {
		if err := k.mountWithin(abi.In, inDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for guest, local := range c.Mounts {
		if err := k.mountWithin(guest, filepath.FromSlash(local)); err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "case %s: mount %s: %w", c.Name, guest, err).Hint("mounts are folders")
		}
	}
	return k, k.secrets()
}

func (k *call) mount(guest, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return osError(err)
	}
	k.roots = append(k.roots, root)
	k.guest.Mounts[guest] = root.FS()
	return nil
}

// mountWithin shows a folder of the case.
func (k *call) mountWithin(guest, name string) error {
	dir, name := k.c.within(name)
	whole, err := os.OpenRoot(dir)
	if err != nil {
		return osError(err)
	}
	defer whole.Close()
	root, err := whole.OpenRoot(name)
	if err != nil {
		return osError(err)
	}
	k.roots = append(k.roots, root)
	k.guest.Mounts[guest] = root.FS()
	return nil
}

// secrets writes those that the case is granted.
func (k *call) secrets() error {
	if len(k.c.Secrets) == 0 {
		return nil
	}
	dir := filepath.Join(k.dir, "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return osError(err)
	}
	for name, value := range k.c.Secrets {
		if k.c.Grants != nil && !slices.Contains(k.grants.Secrets, name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			return osError(err)
		}
	}
	return k.mount(abi.Secrets, dir)
}

func (k *call) close() {
	for _, r := range k.roots {
		r.Close()
	}
	if k.dir != "" {
		os.RemoveAll(k.dir)
	}
}

// run runs the case once.
func (k *call) run(ctx context.Context) (*Result, error) {
	g := k.guest
	var stdout, stderr bytes.Buffer
	g.Stdin, g.Stdout, g.Stderr = bytes.NewReader(k.stdin), &stdout, &stderr
	var kv *memoryKV
	if len(k.grants.KV) > 0 {
		var err error
		if kv, err = newKV(k.grants.KV, k.c.KV); err != nil {
			return nil, err
		}
		g.KV = kv
	}
	var fuel uint64
	g.Tasks = &family{r: k.r, parent: &g, env: k.c.Env, depth: 1, dir: k.dir, fuel: &fuel, known: map[[sha256.Size]byte]*childEnd{}}
	out, err := k.r.Sandbox.Run(ctx, &g)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "case %s: %w", k.c.Name, err)
	}
	res := &Result{
		Golden: Golden{Stdout: stdout.Bytes(), End: ending(&out, stderr.Bytes())},
		Log:    stderr.Bytes(), Exit: out.Exit, Fault: out.Fault, Fuel: out.Fuel + fuel, Memory: out.Memory, Time: out.Run, Metrics: out.Metrics,
	}
	if out.Out != nil {
		if res.Out, err = readTree(out.Out); err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "case %s: %w", k.c.Name, err)
		}
	}
	if kv != nil {
		if after := kv.all(); !maps.Equal(after, k.c.KV) {
			res.KV = after
		}
	}
	return res, nil
}

// ending is the form of the file error: how a guest ended, and the line that says why.
func ending(out *grid.Outcome, log []byte) string {
	switch {
	case out.Fault != nil:
		first, _, _ := strings.Cut(out.Fault.Message, "\n")
		return strings.TrimSpace(out.Fault.Code.Error() + "\n" + first)
	case out.Exit == 0:
		return ""
	}
	why := ""
	for line := range strings.Lines(string(log)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(why, "panic:") {
			break // a stack follows, which changes with each build
		}
		if line != "" {
			why = line
		}
	}
	return strings.TrimSpace(fmt.Sprintf("exit %d\n%s", out.Exit, why))
}

// Run runs a case, twice if it is pure, and compares what comes out with what must, or with update writes it.
func (r *Runner) Run(ctx context.Context, c *Case, update bool) (*Report, error) {
	k, err := r.open(c)
	if err != nil {
		return nil, err
	}
	defer k.close()
	want, err := c.golden()
	if err != nil {
		return nil, err
	}
	res, err := k.run(ctx)
	if err != nil {
		return nil, err
	}
	rep := &Report{Case: c.Name, Func: k.fn, Exit: res.Exit, Fault: res.Fault, Fuel: res.Fuel, Memory: res.Memory, Time: res.Time, Impure: k.guest.Impure, Metrics: res.Metrics}
	if !rep.Impure && !(res.Fault != nil && res.Fault.Code == grid.Deadline) { // how far it comes by then is chance
		again, err := k.run(ctx)
		if err != nil {
			return nil, err
		}
		rep.Time = min(rep.Time, again.Time) // the first one may have been interpreted
		rep.Problems = unlike(res, again)
	}
	found := want.compare(&res.Golden, res.said())
	if update && len(found) > 0 && len(rep.Problems) == 0 {
		if err := c.Update(&res.Golden); err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "case %s: %w", c.Name, err)
		}
		rep.Updated, found = true, nil
	}
	rep.Problems = append(rep.Problems, found...)
	if rep.OK = len(rep.Problems) == 0; !rep.OK {
		rep.Log = strings.ToValidUTF8(string(res.Log), "?")
	}
	return rep, nil
}

// said is all in which the reason for an end may be found.
func (r *Result) said() string {
	said := string(r.Log)
	if r.Fault != nil {
		said += "\n" + r.Fault.Message + "\n" + r.Fault.Stack
	}
	return said
}

// unlike compares two runs that should be the same.
func unlike(a, b *Result) []Problem {
	found := a.compareAll(&b.Golden)
	if a.Fuel != b.Fuel && len(found) == 0 {
		found = append(found, Problem{Diff: fmt.Sprintf("the first run used %d fuel, the second %d", a.Fuel, b.Fuel)})
	}
	for i := range found {
		found[i].What = strings.TrimSpace("again " + found[i].What)
	}
	return found
}

// compare tells how what has come out differs from what must. The lines of an end, but for the first, need only be in
// what was said.
func (g *Golden) compare(got *Golden, said string) []Problem {
	want, is := *g, *got
	first, rest, _ := strings.Cut(g.End, "\n")
	is.End, _, _ = strings.Cut(got.End, "\n")
	want.End = first
	lacking := ""
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); !strings.Contains(said, line) {
			lacking = line
		}
	}
	if first != is.End || lacking != "" {
		want.End, is.End = g.End, got.End
	} else {
		want.End, is.End = "", ""
	}
	return want.compareAll(&is)
}

func (g *Golden) compareAll(got *Golden) []Problem {
	var found []Problem
	differ := func(what, want, is string) {
		if want != is {
			found = append(found, Problem{What: what, Diff: difference(what, want, is)})
		}
	}
	line := func(s string) string {
		if s != "" {
			s += "\n"
		}
		return s
	}
	differ(errorFile, line(g.End), line(got.End))
	differ(stdoutFile, string(g.Stdout), string(got.Stdout))
	names := maps.Clone(g.Out)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, got.Out)
	for _, p := range slices.Sorted(maps.Keys(names)) {
		want, wanted := g.Out[p]
		is, there := got.Out[p]
		what := path.Join(outDir, p)
		switch {
		case !there:
			found = append(found, Problem{What: what, Diff: "it was not made\n"})
		case !wanted && is == "":
			found = append(found, Problem{What: what, Diff: "an empty file, which should not be there\n"})
		default:
			differ(what, want, is)
		}
	}
	var want, is []byte
	if g.KV != nil {
		want, _ = encodeKV(g.KV)
	}
	if got.KV != nil {
		is, _ = encodeKV(got.KV)
	}
	differ(kvFile, string(want), string(is))
	return found
}

// Bounds on what is shown of a difference.
const (
	maxDiffInput = 1 << 20
	maxDiffLines = 60
)

// difference shows to people how one text differs from another.
func difference(name, want, got string) string {
	if len(want)+len(got) > maxDiffInput || strings.ContainsRune(want+got, 0) {
		at := 0
		for at < min(len(want), len(got)) && want[at] == got[at] {
			at++
		}
		return fmt.Sprintf("differs from byte %d on: want %s, got %s\n", at, excerpt(want, at), excerpt(got, at))
	}
	text := string(diff.Diff("want "+name, []byte(want), "got "+name, []byte(got)))
	_, text, _ = strings.Cut(text, "\n") // the command line
	lines := strings.SplitAfter(text, "\n")
	if len(lines) > maxDiffLines {
		return strings.Join(lines[:maxDiffLines], "") + fmt.Sprintf("... and %d more lines\n", len(lines)-maxDiffLines)
	}
	return text
}

func excerpt(s string, at int) string {
	if at == len(s) {
		return fmt.Sprintf("the end, at %d", len(s))
	}
	return fmt.Sprintf("%.32q (%d bytes in all)", s[at:min(len(s), at+32)], len(s))
}
