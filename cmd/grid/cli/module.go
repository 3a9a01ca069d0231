package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) moduleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "module",
		Short:   "Look into modules",
		Long:    "Look into WebAssembly modules, before they are run or instead of it.",
		Example: `  grid module inspect hello.wasm`,
		Args:    noSubcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.inspectCommand())
	return cmd
}

// noSubcommand refuses words where there should have been a subcommand.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := grid.Errorf(grid.Invalid, "%s has no command %q", nameOf(cmd), args[0]).Hint("`%s --help` lists its commands", cmd.CommandPath())
	if near := nearCommands(cmd, args[0]); len(near) > 0 {
		err.Hint("did you mean `%s`?", strings.Join(near, "` or `"))
	}
	return &exitError{exitUsage, err}
}

func (e *env) inspectCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "inspect MODULE",
		Short: "Tell what a module is, and how it is run",
		Long: `Tell what a module is: a program or a library, which functions a job may name, what it imports, how much memory it
wants. And tell how the node runs it:

  reused       an instance serves task after task, each time put back to what it was before the program began
  snapshot     the same for a library, put back to what it was when it had been initialised
  fresh        each task has an instance of its own, which takes longer; the reason is given
  interpreted  this node has no compiler for its processor

MODULE is a .wasm file, the CID of one, or the folder of a plugin or a Go program, which is built.`,
		Example: `  grid module inspect hello.wasm
  grid module inspect ./plugins/wordcount --json`,
		Args: wantArgs(1, 1, "MODULE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.withModule(ctx, args[0], func(s *session, c grid.Link) error {
				m, err := s.Inspect(ctx, c.Cid)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(struct {
						CID grid.Link `json:"cid"`
						grid.Module
					}{c, m})
				}
				return e.table(moduleRows(c, &m))
			})
		},
	}
	show.prints(e, cmd, "{{.cid}}")
	return cmd
}

// withModule brings what a command line names as a module, a file, folder, URL or CID, to a node, and hands both to f.
func (e *env) withModule(ctx context.Context, what string, f func(s *session, module grid.Link) error) error {
	p, err := e.plan(ctx, &runFlags{}, what, nil)
	if err != nil {
		return err
	}
	defer p.close()
	return e.with(ctx, anyNode, func(s *session) error {
		req, err := p.upload(ctx, e, s)
		if err != nil {
			return err
		}
		return f(s, req.Stages[0].Module)
	})
}

// moduleRows describes a module to people.
func moduleRows(c grid.Link, m *grid.Module) [][]string {
	kind := "command (a program)"
	if m.Kind == grid.Reactor {
		kind = "reactor (a library)"
	}
	if m.Extism {
		kind += ", a plug-in for Extism"
	}
	rows := [][]string{{"cid", c.String()}, {"kind", kind}}
	if m.Manifest != nil {
		rows = append(rows, []string{"plugin", printable(m.Manifest.String())}) // `grid plugin inspect` tells more
	}
	if m.Kind == grid.Reactor {
		names := slices.Clone(m.Functions)
		if m.Manifest != nil {
			for _, f := range m.Manifest.Functions {
				if !slices.Contains(names, f.Name) {
					names = append(names, f.Name)
				}
			}
		}
		functions := strings.Join(names, " ")
		if m.Any && m.Manifest == nil {
			functions = strings.TrimSpace(functions + " (and what it finds by name)")
		}
		rows = append(rows, []string{"functions", printable(functions)})
	}
	memory := formatSize(m.MinMemory)
	if m.MaxMemory > 0 {
		memory += " to " + formatSize(m.MaxMemory)
	}
	names := "yes"
	if !m.Names {
		names = "no; stacks and profiles show numbers"
	}
	rows = append(rows,
		[]string{"size", formatSize(int64(m.Size))},
		[]string{"memory", memory},
		[]string{"names", names},
		[]string{"imports", fmt.Sprintf("%d: %s", len(m.Imports), printable(strings.Join(m.Imports, " ")))},
		[]string{"instances", m.Way},
		[]string{"since", printable(m.Why)},
	)
	if m.Image > 0 {
		rows = append(rows, []string{"image", formatSize(m.Image)})
	}
	return rows
}
