package cli

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

func (e *env) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Name grids, and choose one",
		Long: `Name grids, and choose one. A context is a node elsewhere, by a token of ` + "`grid token create`" + `, or one on this machine, by its home.
Which node a command uses is said by the first of these:

  1. --api, --home or --context
  2. GRID_API, GRID_HOME or GRID_CONTEXT in the environment, in this order
  3. the context of ` + "`grid context use`" + `
  4. the home in $XDG_DATA_HOME/grid, which is the context "default"`,
		Example: `  grid context add lab --api -  < token
  grid context use lab
  grid ps
  grid --context default ps`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.contextAddCommand(), e.contextUseCommand(), e.contextLsCommand(), e.contextShowCommand(), e.contextRmCommand())
	return cmd
}

// contexts is the file of contexts, if there is a place for it.
func (e *env) contexts() (string, error) {
	file := e.contextsFile()
	if file == "" {
		return "", grid.Errorf(grid.Invalid, "where this user's contexts are kept is unknown").Hint("set XDG_CONFIG_HOME, or HOME")
	}
	return file, nil
}

func (e *env) updateContexts(change func(*config.Contexts) error) error {
	file, err := e.contexts()
	if err != nil {
		return err
	}
	return config.UpdateContexts(file, change)
}

func (e *env) contextAddCommand() *cobra.Command {
	var at, home string
	var replace, use bool
	cmd := &cobra.Command{
		Use:   "add NAME --api TOKEN | --home FOLDER",
		Short: "Give a grid a name",
		Long: `Give a grid a name: a node elsewhere, by a token for its API, or one on this machine, by its home. The token - is read from
standard input, so that it is seen by nobody; with a URL, the token is that in GRID_TOKEN. It is kept in contexts.json in the user's
folder for configuration, which nobody else can read. Whether the node answers is not asked.`,
		Example: `  ssh lab grid token create --role submitter | grid context add lab --api - --use
  grid context add play --home /tmp/grid-devnet/node-1`,
		Args: wantArgs(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := config.CheckName(name); err != nil {
				return err
			}
			if name == config.Default {
				return grid.Errorf(grid.Conflict, "%s is always the home that is used if nothing else is said", name).Hint("choose another name")
			}
			if (at == "") == (home == "") {
				return usageError(cmd, "a context is either --api TOKEN or --home FOLDER")
			}
			c, err := e.newContext(cmd, at, home)
			if err != nil {
				return err
			}
			return e.updateContexts(func(all *config.Contexts) error {
				if _, there := all.Contexts[name]; there && !replace {
					return grid.Errorf(grid.Conflict, "there is a context %s already", name).Hint("choose another name, or give it another grid with --replace")
				}
				if all.Contexts[name] = c; use {
					all.Current = name
				}
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&at, "api", "", "a node elsewhere, by a `TOKEN` that names it, or a URL; -: from standard input")
	fl.StringVar(&home, "home", "", "a node on this machine, by its `FOLDER`")
	fl.BoolVar(&replace, "replace", false, "if there is a context of that name, take its place")
	fl.BoolVar(&use, "use", false, "and use it from now on")
	return cmd
}

// newContext makes a context of what add was given.
func (e *env) newContext(cmd *cobra.Command, at, home string) (c config.Context, err error) {
	if home != "" {
		c.Home, err = filepath.Abs(home)
		return c, err
	}
	if at == "-" {
		if at, err = e.readValue(cmd.Context()); err != nil {
			return c, err
		}
	}
	if c.API = strings.TrimSpace(at); !api.IsKey(c.API) {
		token, _ := e.lookupEnv("GRID_TOKEN")
		c.Token = strings.TrimSpace(token)
	}
	key, points, err := parseAPI(c.API, c.Token)
	if err == nil && len(key.At)+len(points) == 0 {
		err = grid.Errorf(grid.Invalid, "the token names no node").Hint("give the URL with --api, and the token in GRID_TOKEN")
	}
	return c, err
}

func (e *env) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "use NAME",
		Short: "Choose the grid that commands use",
		Long:  "Choose the grid that commands use from now on, until something goes before it: flags, or GRID_API, GRID_HOME or GRID_CONTEXT.",
		Example: `  grid context use lab
  grid context use default`,
		Args:              wantArgs(1, 1, "NAME"),
		ValidArgsFunction: first(e.completeContexts),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := e.updateContexts(func(all *config.Contexts) error {
				if _, err := all.Get(args[0]); err != nil {
					return err
				}
				if all.Current = args[0]; all.Current == config.Default {
					all.Current = ""
				}
				return nil
			})
			if err != nil {
				return err
			}
			if at, err := e.target(); err == nil && at.context != args[0] {
				e.note("%s goes before it", at.from)
			}
			return nil
		},
	}
}

// shownContext is a context as it is shown.
type shownContext struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Home    string `json:"home,omitempty"`
	API     string `json:"api,omitempty"` // without secrets
}

func (e *env) showContext(all *config.Contexts, name string) (s shownContext, err error) {
	c, err := all.Get(name)
	if err != nil {
		return s, err
	}
	s = shownContext{Name: name, Current: all.Current == name || all.Current == "" && name == config.Default, Home: c.Home}
	if c.API != "" {
		s.API = describeAPI(c.API)
	}
	if name == config.Default {
		s.Home, err = e.absHome("")
	}
	return s, err
}

func (e *env) printContexts(list []shownContext) error {
	rows := [][]string{{"NAME", "CURRENT", "GRID"}}
	for _, s := range list {
		mark, what := "", s.API
		if s.Current {
			mark = "*"
		}
		if what == "" {
			what = "home " + s.Home
		}
		rows = append(rows, []string{s.Name, mark, printable(what)})
	}
	return e.table(rows)
}

func (e *env) contextLsCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the grids that have names",
		Long:    "List the grids that have names, and mark the one that was chosen. Tokens are not shown, but for their IDs.",
		Example: `  grid context ls`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := config.LoadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			var list []shownContext
			for _, name := range append([]string{config.Default}, all.Names()...) {
				s, err := e.showContext(&all, name)
				if err != nil {
					return err
				}
				list = append(list, s)
			}
			if show.formatted() {
				return show.print(list)
			}
			if err := e.printContexts(list); err != nil {
				return err
			}
			if at, err := e.target(); err == nil && at.context == "" {
				e.note("commands use none of them now: %s goes before", at.from)
			}
			return nil
		},
	}
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) contextShowCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:               "show [NAME]",
		Short:             "Show which grid a name stands for",
		Long:              "Show which grid a name stands for; without NAME, that which was chosen.",
		Example:           `  grid context show lab`,
		Args:              wantArgs(0, 1, "NAME"),
		ValidArgsFunction: first(e.completeContexts),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := config.LoadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			name := config.Default
			if all.Current != "" {
				name = all.Current
			}
			if len(args) > 0 {
				name = args[0]
			}
			s, err := e.showContext(&all, name)
			if err != nil {
				return err
			}
			if show.formatted() {
				return show.print(s)
			}
			return e.printContexts([]shownContext{s})
		},
	}
	show.prints(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) contextRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Forget the names of grids",
		Long:              "Forget the names of grids, with their tokens, which the grids still take: `grid token rm` ends that. All of them are there, or none is forgotten.",
		Example:           `  grid context rm lab`,
		Args:              wantArgs(1, -1, "NAME"),
		ValidArgsFunction: e.completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			was := ""
			err := e.updateContexts(func(all *config.Contexts) error {
				for _, name := range args {
					if name == config.Default {
						return grid.Errorf(grid.Invalid, "the context %s is always there", name)
					}
					if _, err := all.Get(name); err != nil {
						return err
					}
				}
				for _, name := range args {
					delete(all.Contexts, name)
				}
				if slices.Contains(args, all.Current) {
					was, all.Current = all.Current, ""
				}
				return nil
			})
			if err == nil && was != "" {
				e.note("%s was in use; commands use the context %s now", was, config.Default)
			}
			return err
		},
	}
}

// completeContexts offers the names of contexts.
func (e *env) completeContexts(_ *cobra.Command, _ []string, prefix string) (out []string, _ cobra.ShellCompDirective) {
	all, err := config.LoadContexts(e.contextsFile())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, name := range append([]string{config.Default}, all.Names()...) {
		if s, err := e.showContext(&all, name); err == nil && strings.HasPrefix(name, prefix) {
			out = append(out, name+"\t"+printable(s.API+s.Home))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
