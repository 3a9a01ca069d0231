// Package cli is the grid command: one file per verb, each of which parses its flags, speaks to a node
// through package api, and prints. It decides nothing about jobs or data; that is the node's.
//
// Results go to standard output and nothing else does; progress, notes and errors go to standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/grid"
)

// env is what a verb may touch of the world.
type env struct {
	*ui
	stdin     io.Reader
	lookupEnv func(string) (string, bool)
	environ   func() []string // all of the environment; nil: what is in it is not known
	home      string          // of --home
	api       string          // of --api
	context   string          // of --context
	now       func() time.Time
	connect   func(context.Context, *env, need) (*session, error) // openSession, or a test's
	pause     func(context.Context, time.Duration) error          // pauseFor, or a test's
	outside   outside
}

// Main runs the command that args name, without the program's own name, and returns its exit code.
//
// The first SIGINT or SIGTERM asks the verb to end; the second one kills the process.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// A reader of our output that goes away is an error to handle, as a job may have to be cancelled.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	e := &env{ui: newUI(stdout, stderr), stdin: stdin, lookupEnv: os.LookupEnv, environ: os.Environ, now: time.Now, connect: openSession, pause: pauseFor}
	return e.main(ctx, args)
}

// Command is the command with all below it, for what is made of their descriptions: manuals and completions. It is not to be run.
func Command() *cobra.Command {
	e := &env{ui: newUI(io.Discard, io.Discard), stdin: strings.NewReader(""), lookupEnv: os.LookupEnv, now: time.Now, connect: openSession, pause: pauseFor}
	return e.rootCommand()
}

// main runs one command and reports its error.
func (e *env) main(ctx context.Context, args []string) int {
	root := e.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	e.outside.close()
	e.endLine()
	if err == nil {
		err = e.lost()
	}
	if x := (*exitError)(nil); err != nil && ctx.Err() != nil && grid.CodeOf(err) == grid.Canceled && !errors.As(err, &x) {
		err = &exitError{exitInterrupted, grid.Errorf(grid.Canceled, "interrupted")}
	}
	e.report(err)
	return exitCode(err)
}

// report prints an error once, with the next step when there is one.
func (e *env) report(err error) {
	var x *exitError
	if err == nil || errors.Is(err, syscall.EPIPE) || errors.As(err, &x) && x.err == nil {
		return // nothing to say, nobody to say it to, or said before
	}
	fmt.Fprintf(e.err, "%s %s\n", e.paint(red, "grid:"), printableLines(strings.TrimRight(err.Error(), "\n")))
	if advice := grid.AdviceOf(err); advice != "" {
		fmt.Fprintf(e.err, "  %s %s\n", e.paint(bold, "hint:"), printableLines(advice))
	}
}

// The groups of verbs in the help.
const (
	groupRun  = "run"
	groupJobs = "jobs"
	groupData = "data"
	groupNode = "node"
	groupMany = "swarm"
)

func (e *env) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "grid",
		Short: "Run WebAssembly over many machines",
		Long: `grid runs WebAssembly modules over many inputs, on this machine and on every other one that joins.

  grid run hello.wasm                          run a module once; no set-up is needed
  grid run ./wordcount --each 'texts/*.txt'    build a program, run it once for each file
  grid run ./wordcount --each 'texts/**' --reduce -o out
  grid submit job.yaml                         run a job of many stages, from a file
  grid ps -a, grid logs JOB, grid get JOB      what ran, what it said, what it made
  grid add PATH, grid get CID                  data into the grid, and out again

Write plugins, in Go, Rust, C or AssemblyScript, and call them by name on all machines:

  grid plugin new word-count                   a folder with a program, tests and the SDK
  grid plugin test word-count                  build it and try it out, in the sandbox
  grid plugin install word-count
  grid call word-count.count '{"text": "one two"}'

Make a grid of several machines, then run the same commands on any of them:

  grid up -d                                   on the first one; it prints its addresses
  grid up -d --join ADDRESS                    on every other one
  grid swarm init --name lab && grid up -d     one that only those join whom you invite,
  grid swarm invite                            by a token for grid up -d --join TOKEN
  grid devnet 3                                one of three nodes on this machine, to play with

Watch it work:

  grid dash                                    a web page: nodes, jobs, tasks, data, logs
  grid top, grid events -f, grid logs -f JOB   the same in a terminal`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		Args:              cobra.ArbitraryArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDescriptions: false},
		Version:           versionLine(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.SetIn(e.stdin)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.PersistentFlags().StringVar(&e.home, "home", "", "the node's data `FOLDER` (default $GRID_HOME, else $XDG_DATA_HOME/grid)")
	root.PersistentFlags().StringVar(&e.api, "api", "", "use the node that a `TOKEN` names, or a URL, with the token in $GRID_TOKEN (default $GRID_API, else the home's)")
	root.PersistentFlags().BoolVarP(&e.quiet, "quiet", "q", false, "no notes and no progress; of lists, the names only")
	root.PersistentFlags().StringVar(&e.context, "context", "", "use the node of a `NAME` that `grid context add` made (default $GRID_CONTEXT, else that of `grid context use`)")
	_ = root.RegisterFlagCompletionFunc("context", e.completeContexts)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(help)
	root.SetUsageFunc(func(c *cobra.Command) error {
		if c == root {
			return rootUsage(c)
		}
		return usage(c, nil)
	})
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetHelpCommand(helpCommand(root))
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run"},
		&cobra.Group{ID: groupJobs, Title: "Jobs"},
		&cobra.Group{ID: groupData, Title: "Data"},
		&cobra.Group{ID: groupNode, Title: "Node"},
		&cobra.Group{ID: groupMany, Title: "Swarm and realm"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRun, e.runCommand(), e.callCommand(), e.submitCommand(), e.moduleCommand(), e.pluginCommand())
	add(groupJobs, e.psCommand(), e.jobCommand(), e.logsCommand(), e.eventsCommand(), e.waitCommand(), e.cancelCommand(), e.verifyCommand(), e.replayCommand())
	add(groupData, e.addCommand(), e.getCommand(), e.lsCommand(), e.catCommand(), e.statCommand(), e.diffCommand(), e.pinCommand(), e.rmCommand(), e.carCommand(), e.refCommand(), e.kvCommand(), e.keyCommand())
	add(groupNode, e.upCommand(), e.downCommand(), e.statusCommand(), e.topCommand(), e.dashCommand(), e.peersCommand(), e.nodeCommand(), e.storeCommand(), e.backupCommand(), e.restoreCommand(), e.doctorCommand(), e.configCommand(), e.contextCommand(), e.devnetCommand(), e.benchCommand(), e.tuneCommand())
	add(groupMany, e.swarmCommand(), e.memberCommand(), e.ledgerCommand(), e.tokenCommand(), e.secretCommand(), e.quotaCommand(), e.usageCommand(), e.auditCommand())
	root.AddCommand(e.versionCommand(), e.completionCommand(), exitCodesTopic(), formatsTopic(), commandsTopic(root))
	e.complete(root)
	return root
}

// helpCommand is help in place of cobra's own, which succeeds when asked about a command that is none.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		Long:  "Explain a command, or list them all.",
		Example: `  grid help run
  grid help exit-codes`,
		ValidArgsFunction: func(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
			for _, c := range root.Commands() {
				if !c.Hidden {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return root.Help()
			}
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == root || len(rest) > 0 && cmd.HasSubCommands() {
				return unknownCommand(root, strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// nameOf is the name of a command in a message, behind which grid is said already.
func nameOf(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "grid ") }

// usageError is a wrong command line.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return &exitError{exitUsage, grid.Errorf(grid.Invalid, format, args...).Hint("see `%s --help`", cmd.CommandPath())}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	err := grid.Errorf(grid.Invalid, "there is no command %q", name).Hint("`grid help` lists the commands")
	if near := nearCommands(cmd.Root(), name); len(near) > 0 {
		err.Hint("did you mean `%s`?", strings.Join(near, "` or `"))
	}
	return &exitError{exitUsage, err}
}

// nearCommands are the subcommands of a command that a name may have meant.
func nearCommands(cmd *cobra.Command, name string) (near []string) {
	if words := familiar[name]; cmd == cmd.Root() && words != nil {
		for _, w := range words {
			near = append(near, cmd.CommandPath()+" "+w)
		}
		return near
	}
	best := 2 // a name that differs in more places was not meant
	for _, c := range cmd.Commands() {
		d := grid.Distance(name, c.Name())
		if strings.HasPrefix(c.Name(), name) {
			d = 1
		}
		switch {
		case c.Hidden || d > best || d >= len(c.Name()):
		case d < best:
			best, near = d, []string{c.CommandPath()}
		default:
			near = append(near, c.CommandPath())
		}
	}
	return near
}

// flagError explains a flag that could not be parsed, naming the one that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if v := (*pflag.InvalidValueError)(nil); errors.As(err, &v) {
		return usageError(cmd, "%s: --%s %q: %s", nameOf(cmd), v.GetFlag().Name, v.GetValue(), wantedValue(v))
	}
	msg := err.Error()
	if none := (*pflag.NotExistError)(nil); errors.As(err, &none) && none.GetSpecifiedShortnames() != "" {
		return &exitError{exitUsage, grid.Errorf(grid.Invalid, "%s has no flag -%s", nameOf(cmd), none.GetSpecifiedName()).
			Hint("see `%s --help`; arguments that begin with a dash go behind --, as in `-- -%s`", cmd.CommandPath(), none.GetSpecifiedShortnames())}
	}
	bad, ok := strings.CutPrefix(msg, "unknown flag: --")
	if !ok {
		return usageError(cmd, "%s: %s", nameOf(cmd), msg)
	}
	out := grid.Errorf(grid.Invalid, "%s has no flag --%s", nameOf(cmd), bad).Hint("see `%s --help`", cmd.CommandPath())
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := grid.Nearest(bad, names); near != "" {
		out.Hint("did you mean --%s?", near)
	}
	return &exitError{exitUsage, out}
}

// wantedValue says what a flag takes.
func wantedValue(v *pflag.InvalidValueError) string {
	switch v.GetFlag().Value.Type() {
	case "uint32":
		return "want a whole number from 0 to 4294967295"
	case "int":
		return "want a whole number"
	case "bool":
		return "want true or false"
	case "duration":
		return "want a time such as 90s, 5m or 1h30m"
	case "SIZE":
		return "want a size such as 512k, 64MiB or 2G"
	}
	if mode := v.Unwrap(); v.GetFlag().Value.Type() == "MODE" {
		return strings.TrimPrefix(mode.Error(), fmt.Sprintf("verification %.40q: ", v.GetValue())) + "; " + grid.AdviceOf(mode)
	}
	return v.Unwrap().Error()
}

// wantArgs checks how many arguments there are; most < 0 is no bound. what names them in the error.
func wantArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError(cmd, "%s: %s is missing", nameOf(cmd), what)
		case most >= 0 && len(args) > most:
			return usageError(cmd, "%s: %q is one argument too many", nameOf(cmd), args[most])
		}
		return nil
	}
}
