package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/cmd/grid/devnet"
	"github.com/wasmgrid/wasmgrid/grid"
)

// devnetFlags are the flags of grid devnet.
type devnetFlags struct {
	name, dir string
	slow      slowFlags
	kill      time.Duration
	seed      uint64
	private   bool
	set       []string
	detach    bool
	show      output
}

func (e *env) devnetCommand() *cobra.Command {
	f := &devnetFlags{}
	cmd := &cobra.Command{
		Use:   "devnet N",
		Short: "Run a swarm of several nodes on this machine, to play and to test with",
		Long: `Run a swarm of N nodes on this machine, each a process of its own, in a swarm of their own, until it is interrupted. How to use it is
printed when they are one realm. No node outlives this command, however it ends.

The nodes' homes are in a temporary folder, which is removed at the end, or in that of --dir, which keeps them for the next time. What
else the nodes are to be told is given with --set, as ` + "`grid config set`" + ` takes it.

With --latency and --loss the nodes are as if they were far apart. With --kill a node is killed every so often and started again, never the
first; --seed tells in which order.`,
		Example: `  grid devnet 3
  grid devnet 5 --latency 50ms±10ms --loss 1% --kill 30s
  grid devnet 3 -d --name play --dir ~/play --private
  grid devnet 3 --set up.replicas=2 --set up.workers=4
  grid devnet ls
  grid devnet down play`,
		Args: wantArgs(1, 1, "N"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"3", "5"}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.config(e, cmd, args[0])
			if err != nil {
				return err
			}
			if f.detach {
				return e.devnetDetached(cmd.Context(), f, c)
			}
			return e.runDevnet(cmd.Context(), f, c)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "devnet", "what the devnet is called on this machine: a `NAME` that no other has")
	fl.StringVar(&f.dir, "dir", "", "keep the nodes' homes in a `FOLDER` (default a temporary one)")
	f.slow.add(fl)
	fl.DurationVar(&f.kill, "kill", 0, "kill a node every so much `TIME`, and start it again")
	fl.Uint64Var(&f.seed, "seed", 1, "a `NUMBER` that says which nodes are killed in which order")
	fl.BoolVar(&f.private, "private", false, "make the swarm a private one")
	fl.StringArrayVar(&f.set, "set", nil, "give each node a setting, `KEY=VALUE`; a list has commas in it; may be repeated")
	fl.BoolVarP(&f.detach, "detach", "d", false, "run in the background, until grid devnet down")
	f.show.prints(e, cmd, "{{.name}}")
	_ = cmd.RegisterFlagCompletionFunc("set", func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		out, how := e.completeSettings(false)(c, args, prefix)
		for i := range out {
			out[i] = strings.Replace(out[i], "\t", "=\t", 1)
		}
		return out, how | cobra.ShellCompDirectiveNoSpace
	})
	cmd.AddCommand(e.devnetLsCommand(), e.devnetDownCommand())
	return cmd
}

// config is the devnet that the flags tell of.
func (f *devnetFlags) config(e *env, cmd *cobra.Command, count string) (c devnet.Config, err error) {
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > devnet.MaxNodes {
		return c, usageError(cmd, "%.40q is no number of nodes: want 1 to %d", count, devnet.MaxNodes)
	}
	switch {
	case devnet.CheckName(f.name) != nil:
		return c, usageError(cmd, "--name %.40q: want up to 32 lower-case letters, digits and dashes", f.name)
	case f.kill < 0 || f.kill > 0 && f.kill < time.Second:
		return c, usageError(cmd, "--kill %v: want a second at least", f.kill)
	case f.kill > 0 && n < 2:
		return c, usageError(cmd, "--kill: there is no node to kill, as the first is spared")
	}
	self, err := os.Executable()
	if err != nil {
		return c, grid.Errorf(grid.Internal, "start nodes: this program's own file is unknown: %w", err)
	}
	if f.dir != "" {
		if f.dir, err = filepath.Abs(f.dir); err != nil {
			return c, grid.Errorf(grid.Invalid, "--dir: %w", err)
		}
	}
	c = devnet.Config{
		Name: f.name, Dir: f.dir, Nodes: n, Private: f.private, Kill: f.kill, Seed: f.seed, Program: self,
		Logger: slog.New(slog.NewTextHandler(e.err, nil)), Settings: map[string][]string{"up.workers": {strconv.Itoa(max(1, runtime.NumCPU()/n))}},
	}
	up := &upFlags{}
	upCmd := e.upCommandOf(up)
	c.Table = settingsOf(upCmd)
	given := map[string][]string{}
	put := func(key, text string) error {
		s, err := config.Find(c.Table, key)
		if err != nil {
			return err
		}
		given[key] = s.Split(text)
		if err := setFlag(upCmd.Flags(), s, given[key]); err != nil {
			return usageError(cmd, "--set %s: %v", key, err)
		}
		return nil
	}
	for _, text := range f.set {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return c, usageError(cmd, "--set %.80q: want KEY=VALUE", text)
		}
		if err := put(key, value); err != nil {
			return c, err
		}
	}
	if f.slow.latency != "" {
		_ = put("up.latency", f.slow.latency) // text, which check looks at
	}
	if f.slow.loss != "" {
		_ = put("up.loss", f.slow.loss)
	}
	maps.Copy(c.Settings, given)
	return c, up.check(upCmd)
}

// runDevnet runs a devnet in this process.
func (e *env) runDevnet(ctx context.Context, f *devnetFlags, c devnet.Config) error {
	began := time.Now()
	n, err := devnet.Start(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := n.State()
	told := e.printDevnet(&st, &f.show)
	if told != nil {
		cancel() // nobody is there to use it
	} else {
		e.note("ready after %s; interrupt to end it, or `grid devnet down %s`", formatTime(time.Since(began)), st.Name)
	}
	return errors.Join(told, n.Run(ctx))
}

// printDevnet says what runs, and how to use it.
func (e *env) printDevnet(st *devnet.State, show *output) error {
	if show.formatted() {
		return show.print(st)
	}
	rows := [][]string{{"NODE", "PID", "PEER", "HOME"}}
	for _, n := range st.Nodes {
		rows = append(rows, []string{n.Name, strconv.Itoa(n.PID), n.ID, n.Home})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.out, "\nTo use it, in another terminal:\n  export GRID_HOME=%s\n  grid peers\n", shellWord(st.Nodes[0].Home))
	return err
}

// shellWord writes a path as a shell takes it.
func shellWord(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// devnetDetached starts this program again in the background, and waits until its nodes are one realm.
func (e *env) devnetDetached(ctx context.Context, f *devnetFlags, c devnet.Config) error {
	if st, err := devnet.Ask(ctx, c.Name); err == nil {
		return grid.Errorf(grid.Conflict, "a devnet that is called %s runs already, as process %d", c.Name, st.PID).
			Hint("end it with `grid devnet down %s`, or give this one another name with --name", c.Name)
	}
	name := devnet.LogFile(c.Name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return grid.Errorf(codeOfOS(err), "log %s: %w", name, reason(err))
	}
	log, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return grid.Errorf(codeOfOS(err), "log %s: %w", name, reason(err))
	}
	defer log.Close()
	args := []string{"devnet", strconv.Itoa(c.Nodes), "--name=" + f.name, "--latency=" + f.slow.latency, "--loss=" + f.slow.loss,
		"--kill=" + f.kill.String(), "--seed=" + strconv.FormatUint(f.seed, 10), "--private=" + strconv.FormatBool(f.private), "--dir=" + f.dir}
	for _, s := range f.set {
		args = append(args, "--set="+s)
	}
	child := exec.Command(c.Program, args...) // not bound to ctx: it is to outlive us
	child.Stderr, child.SysProcAttr = log, detached()
	if err := child.Start(); err != nil {
		return grid.Errorf(grid.Internal, "start a devnet: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }() // ends with the child, or with us
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			return startFailure("the devnet", err, name, 0)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), child.Process.Signal(os.Interrupt))
		case <-tick.C:
		}
		if st, err := devnet.Ask(ctx, c.Name); err == nil && st.Ready && st.PID == child.Process.Pid {
			return e.printDevnet(&st, &f.show)
		}
	}
}

func (e *env) devnetLsCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the devnets that run",
		Long:    "List the devnets of this user that run on this machine, with the home of the first node of each.",
		Example: `  grid devnet ls`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := devnet.List(cmd.Context())
			if err != nil {
				return err
			}
			if show.formatted() {
				return show.print(all)
			}
			if len(all) == 0 {
				e.note("no devnet runs")
				return nil
			}
			rows := [][]string{{"NAME", "NODES", "PID", "STATE", "HOME OF THE FIRST"}}
			for _, st := range all {
				state, home := "starting", ""
				if st.Ready {
					state = "ready"
				}
				if len(st.Nodes) > 0 {
					home = st.Nodes[0].Home
				}
				rows = append(rows, []string{st.Name, strconv.Itoa(len(st.Nodes)), strconv.Itoa(st.PID), state, printable(home)})
			}
			return e.table(rows)
		},
	}
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) devnetDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down [NAME]",
		Short:   "End a devnet",
		Long:    "End a devnet, and wait until all its nodes have ended. Without NAME, the only one that runs.",
		Example: `  grid devnet down`,
		Args:    wantArgs(0, 1, "NAME"),
		ValidArgsFunction: first(func(cmd *cobra.Command, _ []string, prefix string) (out []string, _ cobra.ShellCompDirective) {
			all, _ := devnet.List(cmd.Context()) // what cannot be had is not offered
			for _, st := range all {
				if strings.HasPrefix(st.Name, prefix) {
					out = append(out, fmt.Sprintf("%s\t%d nodes", st.Name, len(st.Nodes)))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				all, err := devnet.List(cmd.Context())
				switch {
				case err != nil:
					return err
				case len(all) == 0:
					return grid.Errorf(grid.NotFound, "no devnet runs")
				case len(all) > 1:
					return usageError(cmd, "%d devnets run: which is meant?", len(all))
				}
				args = []string{all[0].Name}
			}
			if err := devnet.Down(cmd.Context(), args[0]); err != nil {
				return err
			}
			e.note("the devnet %s has ended", args[0])
			return nil
		},
	}
}
