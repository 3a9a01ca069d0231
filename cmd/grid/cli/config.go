package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and change settings",
		Long: `Show and change settings: what ` + "`grid up`" + ` is to do when its flags do not say. The first of these that has a value counts:

  1. the flag on the command line      --workers 4
  2. the environment                   GRID_UP_WORKERS=4
  3. the home's file                   config.yaml in the home of the node
  4. the user's file                   $XDG_CONFIG_HOME/grid/config.yaml, for all homes

A value takes the place of the one that comes after it; lists are not joined. A node reads its settings when it starts.`,
		Example: `  grid config set up.workers 4
  grid config set up.label gpu=false rack=r12
  grid config show
  GRID_UP_WORKERS=2 grid up`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.configShowCommand(), e.configSetCommand(), e.configUnsetCommand(), e.configCheckCommand(), e.configPathCommand())
	return cmd
}

// shownSetting is a setting as it is shown.
type shownSetting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"` // text, or a list of texts; tokens are left out
	Source string `json:"source"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

// checked reads all settings as a node would, but for text, which takes the place of what is in file if that is not "".
func (e *env) checked(files []string, file string, text []byte) (*cobra.Command, origins, error) {
	f := &upFlags{}
	cmd := e.upCommandOf(f)
	from := origins{}
	for _, name := range files {
		values, err := loadSettings(name, settingsOf(cmd))
		if name == file {
			var problems []jobfile.Problem
			if values, problems = config.Parse(text, settingsOf(cmd)); len(problems) > 0 {
				return nil, nil, badFile(name, problems)
			}
			err = nil
		}
		if err != nil {
			return nil, nil, err
		}
		if err := apply(cmd.Flags(), name, values, from); err != nil {
			return nil, nil, err
		}
	}
	return cmd, from, from.explain(f.check(cmd))
}

func (e *env) configShowCommand() *cobra.Command {
	var all bool
	var show output
	cmd := &cobra.Command{
		Use:   "show [KEY...]",
		Short: "Show settings and where they come from",
		Long: `Show the settings that have another value than their default, with what gave it: a variable of the environment, or a file and its
line; and which node commands use. Tokens are not shown.`,
		Example: `  grid config show
  grid config show --all
  grid config show up.workers --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := e.target()
			if err != nil {
				return err
			}
			up := e.upCommand()
			from, err := e.configure(up, e.configFiles(at.home))
			if err != nil {
				return err
			}
			rows := []shownSetting{{Key: "home", Value: at.home, Source: at.from}}
			if at.api != "" {
				rows[0].Source = "for keys"
				rows = append(rows, shownSetting{Key: "api", Value: describeAPI(at.api), Source: at.from})
			}
			if at.context != "" {
				rows = append(rows, shownSetting{Key: "context", Value: at.context, Source: at.from})
			}
			list := settingsOf(up)
			if len(args) > 0 {
				rows = nil
				wanted := list[:0:0]
				for _, key := range args {
					s, err := config.Find(list, key)
					if err != nil {
						return err
					}
					wanted = append(wanted, *s)
				}
				list = wanted
			}
			for i := range list {
				if o := from[list[i].Flag]; all || len(args) > 0 || o != (origin{}) {
					rows = append(rows, showSetting(&list[i], up.Flag(list[i].Flag), o))
				}
			}
			if show.formatted() {
				return show.print(rows)
			}
			table := [][]string{{"KEY", "VALUE", "FROM"}}
			for _, r := range rows {
				text := fmt.Sprint(r.Value)
				if many, ok := r.Value.([]string); ok {
					text = strings.Join(many, ", ")
				}
				if text == "" {
					text = "-"
				}
				table = append(table, []string{r.Key, printable(text), printable(r.Source)})
			}
			return e.table(table)
		},
	}
	cmd.ValidArgsFunction = e.completeSettings(false)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "and those that have their default")
	show.lists(e, cmd, "{{.key}}")
	return cmd
}

func showSetting(s *config.Setting, f *pflag.Flag, o origin) shownSetting {
	values := valuesOf(f)
	for i := range values {
		values[i] = shown(values[i])
	}
	out := shownSetting{Key: s.Key(), Source: o.String(), File: o.file, Line: o.line}
	switch {
	case s.List && values == nil:
		out.Value = []string{}
	case s.List:
		out.Value = values
	default:
		out.Value = strings.Join(values, "")
	}
	return out
}

// settingsFile is the file that a verb is to change: the home's, or the user's.
func (e *env) settingsFile(user bool) (files []string, file string, err error) {
	home, err := e.homeDir()
	if err != nil {
		return nil, "", err
	}
	files = e.configFiles(home)
	if !user {
		return files, files[0], nil
	}
	if file = e.userFile(config.FileName); file == "" {
		return nil, "", grid.Errorf(grid.Invalid, "where this user's settings are is unknown").Hint("set XDG_CONFIG_HOME, or HOME")
	}
	return files, file, nil
}

// change has one setting in a file changed.
func (e *env) change(user bool, key string, f func([]byte, *config.Setting) ([]byte, error)) error {
	return e.rewrite(user, func(text []byte, all []config.Setting) ([]byte, error) {
		s, err := config.Find(all, key)
		if err != nil {
			return nil, err
		}
		return f(text, s)
	})
}

// rewrite has a file of settings changed, if it is right before and after.
func (e *env) rewrite(user bool, f func([]byte, []config.Setting) ([]byte, error)) error {
	files, file, err := e.settingsFile(user)
	if err != nil {
		return err
	}
	list := settingsOf(e.upCommand())
	if _, err := loadSettings(file, list); err != nil {
		return err
	}
	text, _, err := config.Read(file)
	if err != nil {
		return err
	}
	fresh, err := f(text, list)
	if err != nil || bytes.Equal(fresh, text) {
		return err
	}
	if _, _, err := e.checked(files, file, fresh); err != nil {
		return err
	}
	if err := config.Write(file, fresh); err != nil {
		return err
	}
	if at, err := e.homeDir(); err == nil {
		if _, err := os.Stat(daemon.Socket(at)); err == nil {
			e.hint("a node that is up reads it when it is started again: `grid down`, and `grid up -d`")
		}
	}
	return nil
}

func (e *env) configSetCommand() *cobra.Command {
	var user bool
	cmd := &cobra.Command{
		Use:   "set KEY VALUE...",
		Short: "Give a setting a value",
		Long: `Give a setting a value, in the file of the home, or of the user. Comments in the file stay. What ` + "`grid up`" + ` would not take is not
written. A setting that is a list takes several values. The value - is read from standard input, as tokens should be, since others on
the machine can see command lines.`,
		Example: `  grid config set up.workers 4
  grid config set up.listen /ip4/0.0.0.0/tcp/4747 /ip4/0.0.0.0/udp/4747/quic-v1
  ssh founder grid swarm invite | grid config set up.join -
  grid config set --user up.no-mdns true`,
		Args: wantArgs(2, -1, "KEY or VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.change(user, args[0], func(text []byte, s *config.Setting) ([]byte, error) {
				values := args[1:]
				if !s.List && len(values) > 1 {
					return nil, usageError(cmd, "%s takes one value, and %q is another", s.Key(), values[1])
				}
				if len(values) == 1 && values[0] == "-" {
					v, err := e.readValue(cmd.Context())
					if err != nil {
						return nil, err
					}
					values = []string{v}
				}
				return config.Set(text, s, values)
			})
		},
	}
	cmd.ValidArgsFunction = e.completeSettings(true)
	cmd.Flags().BoolVar(&user, "user", false, "in this user's file, for all homes")
	return cmd
}

// maxValue is how many bytes a value from standard input may have.
const maxValue = 64 << 10

// readValue reads a line from standard input.
func (e *env) readValue(ctx context.Context) (string, error) {
	read, text, err := make(chan struct{}), []byte(nil), error(nil)
	go func() { // reads have no deadline: after an interrupt it ends with the input, or the process
		defer close(read)
		text, err = io.ReadAll(io.LimitReader(e.stdin, maxValue+1))
	}()
	select {
	case <-ctx.Done():
		return "", grid.Errorf(grid.Canceled, "interrupted")
	case <-read:
	}
	value := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", grid.Errorf(grid.Invalid, "standard input: %w", err)
	case len(text) > maxValue:
		return "", grid.Errorf(grid.Limit, "standard input has more than %d KiB", maxValue>>10)
	case value == "" || strings.ContainsAny(value, "\r\n\x00"):
		return "", grid.Errorf(grid.Invalid, "standard input has to be one line, with the value")
	}
	return value, nil
}

func (e *env) configUnsetCommand() *cobra.Command {
	var user bool
	cmd := &cobra.Command{
		Use:     "unset KEY",
		Short:   "Take a setting out of a file",
		Long:    "Take a setting out of the file of the home, or of the user, so that it has what comes after that. It is no error if it is not there.",
		Example: `  grid config unset up.workers`,
		Args:    wantArgs(1, 1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.change(user, args[0], func(text []byte, s *config.Setting) ([]byte, error) {
				text, was, err := config.Unset(text, s)
				if err == nil && !was {
					e.note("%s is not in the file", s.Key())
				}
				return text, err
			})
		},
	}
	cmd.ValidArgsFunction = e.completeSettings(true)
	cmd.Flags().BoolVar(&user, "user", false, "of this user's file")
	return cmd
}

func (e *env) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with a file of settings",
		Long:  "Say what is wrong with a file of settings, with its lines; without FILE, with those of the home and the user, together. Nothing is started.",
		Example: `  grid config check
  grid config check config.yaml`,
		Args: wantArgs(0, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if _, err := os.Stat(args[0]); errors.Is(err, fs.ErrNotExist) {
					return grid.Errorf(grid.NotFound, "%s: no such file", args[0])
				}
				_, _, err := e.checked(args, "", nil)
				return err
			}
			files, _, err := e.settingsFile(false)
			if err != nil {
				return err
			}
			_, _, err = e.checked(files, "", nil)
			return err
		},
	}
}

func (e *env) configPathCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "path",
		Short:   "Print which files of settings are read",
		Long:    "Print which files of settings are read, whether they are there or not, that which goes before the other first.",
		Example: `  "$EDITOR" "$(grid config path | head -1)" && grid config check`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, _, err := e.settingsFile(false)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.out, strings.Join(files, "\n"))
			return err
		},
	}
}

// completeSettings offers keys; first: for the first argument only.
func (e *env) completeSettings(first bool) completer {
	return func(_ *cobra.Command, args []string, prefix string) (out []string, _ cobra.ShellCompDirective) {
		if first && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		up := e.upCommand()
		for _, s := range settingsOf(up) {
			if strings.HasPrefix(s.Key(), prefix) {
				_, usage := pflag.UnquoteUsage(up.Flag(s.Flag))
				out = append(out, s.Key()+"\t"+usage)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// describeAPI is a token or a URL as it may be shown.
func describeAPI(text string) string {
	if key, _, err := parseAPI(text, "-"); err == nil && len(key.At) > 0 {
		return key.At[0].Addr + ", token " + key.ID
	}
	return shown(text)
}
