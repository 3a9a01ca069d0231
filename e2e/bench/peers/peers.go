// Package peers runs what e2e/bench measures of Grid by what people would use instead, as Debian packages it: Dask, GNU parallel, and a
// queue in Redis with workers in Python.
//
// Each peer has a driver, run_NAME.py, which starts what the peer needs, with its data in a folder that is deleted afterwards and no open port but on the
// loopback, has it do a job once, and ends it; work.py says how it is spoken to. The benchmarks in this package ask the drivers for their jobs and check
// the answers. They run by themselves, too:
//
//	go test ./e2e/bench/peers -run '^$' -bench Tasks/redis
//
// What is timed is from the submission to the last result, of what has been started and has run something before, as with a node of Grid. Nothing
// of the peers is set otherwise than they come, but that Dask's workers have one thread each and no nannies, and that Redis saves nothing: both are faster so.
package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// Peer is a tool that can do some of the work.
type Peer struct {
	Name     string
	Packages []string // of Debian
	Lacks    string   // what Grid does with each task and this does not, for who compares them

	module   string   // of Python, which its driver imports
	commands []string // that it needs; the first has a version
	version  string   // an expression of Python, if no command has one
	idles    bool     // something of it stays up
	few      int      // how many tasks that do nothing take some seconds
}

// All are the peers there are.
var All = []*Peer{
	{Name: "dask", Packages: []string{"python3-distributed"}, module: "distributed", version: "distributed.__version__", idles: true, few: 2000,
		Lacks: "no sandbox, nothing kept on disk, all lost with the scheduler, results not verified"},
	{Name: "parallel", Packages: []string{"parallel", "gawk", "python3"}, module: "subprocess", commands: []string{"parallel", "gawk"}, few: 1000,
		Lacks: "no sandbox, a log of exit codes and no more, all lost with the command, nothing tried again unless asked, results not verified"},
	{Name: "redis", Packages: []string{"redis-server", "python3-redis"}, module: "redis", commands: []string{"redis-server"}, idles: true, few: 20_000,
		Lacks: "no sandbox, nothing kept on disk, a task is lost with its worker, results not verified"},
}

// Named finds peers by their names, which are separated by commas.
func Named(names string) (list []*Peer, err error) {
	known := map[string]*Peer{}
	var all []string
	for _, p := range All {
		known[p.Name] = p
		all = append(all, p.Name)
	}
	for name := range strings.SplitSeq(names, ",") {
		p := known[name]
		if p == nil {
			return nil, fmt.Errorf("%q is not among the peers, which are %s", name, strings.Join(all, ", "))
		}
		delete(known, name) // not twice
		list = append(list, p)
	}
	return list, nil
}

// Found is a peer that can run here.
type Found struct {
	*Peer
	Version string
	python  string
}

var version = regexp.MustCompile(`\d+(\.\d+)*`)

// Find looks whether a peer is installed. If it is not, the error says what is missing, and how to install it.
func (p *Peer) Find(ctx context.Context) (*Found, error) {
	f := &Found{Peer: p}
	expression := p.version
	if expression == "" {
		expression = "0"
	}
	// What Debian packages is of its own Python, which need not be the first.
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.CommandContext(ctx, python, "-c", fmt.Sprintf("import %s; print(%s)", p.module, expression)).Output()
		if err == nil {
			f.python, f.Version = python, version.FindString(string(out))
			break
		}
	}
	if f.python == "" {
		return nil, p.missing("no python3 has the module " + p.module)
	}
	for i, name := range p.commands {
		out, err := exec.CommandContext(ctx, name, "--version").Output()
		if err != nil {
			return nil, p.missing(fmt.Sprintf("%s does not run: %v", name, err))
		}
		if i == 0 {
			f.Version = version.FindString(string(out))
		}
	}
	return f, nil
}

func (p *Peer) missing(what string) error {
	return fmt.Errorf("%s; on Debian: apt-get install %s, or --install", what, strings.Join(p.Packages, " "))
}

// Install installs what a peer needs, as Debian packages it, and tells how it goes. It needs the rights to do so.
func (p *Peer) Install(ctx context.Context, out io.Writer) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s is installed by apt-get, which is not here: install %s as this system does it", p.Name, strings.Join(p.Packages, ", "))
	}
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-q", "-y", "--no-install-recommends"}, p.Packages...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if err := cmd.Run(); err != nil {
			return errors.Join(fmt.Errorf("apt-get %s: %w", args[0], err), ctx.Err())
		}
	}
	return nil
}
