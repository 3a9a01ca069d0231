package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

// resolve finds what CID[/PATH] or REF[/PATH] names.
func resolve(ctx context.Context, s *session, text string) (root grid.Link, path string, err error) {
	at, err := s.Resolve(ctx, text)
	return at.Root, at.Path, err
}

func (e *env) refCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ref",
		Short: "Give names to files and folders in the grid",
		Long: `Give names to files and folders in the grid. A ref is a name that all nodes of the realm know, for something that
has a CID; it can be moved to something else, in one step for everybody. Whatever takes a CID takes a ref, too; a
file on disk of that name goes first where both are possible, and ref:NAME always means the ref.

What a ref names is kept for as long as it names it.`,
		Example: `  grid ref set models/latest bafy...
  grid cat models/latest/weights.json
  grid run ./train --publish models/latest`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.refSetCommand(), e.refGetCommand(), e.refListCommand(), e.refRemoveCommand())
	return cmd
}

// refFlags say what must hold of a ref before it is changed.
type refFlags struct {
	cid     string
	absent  bool
	version uint64
}

func (f *refFlags) define(cmd *cobra.Command, set bool) {
	fl := cmd.Flags()
	fl.StringVar(&f.cid, "if", "", "only if it names this `CID`; else exit code 68")
	fl.Uint64Var(&f.version, "if-version", 0, "only if it has this `VERSION`")
	if set {
		fl.BoolVar(&f.absent, "if-absent", false, "only if there is no such ref")
		cmd.MarkFlagsMutuallyExclusive("if", "if-version", "if-absent")
	} else {
		cmd.MarkFlagsMutuallyExclusive("if", "if-version")
	}
}

func (f *refFlags) cond() (c grid.RefCond, err error) {
	c = grid.RefCond{Absent: f.absent, Version: f.version}
	if f.cid != "" {
		c.CID, err = grid.ParseLink(f.cid)
	}
	return c, err
}

func (e *env) refSetCommand() *cobra.Command {
	var f refFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set NAME CID[/PATH]",
		Short: "Have a ref name something, or something else",
		Example: `  grid ref set data/2026 bafy...
  grid ref set data/current data/2026                  what another ref names now
  grid ref set data/current bafy... --if bafy...       only if nobody has moved it meanwhile`,
		Args:              wantArgs(2, 2, "NAME and CID"),
		ValidArgsFunction: e.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cond, err := f.cond()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			return e.with(ctx, anyNode, func(s *session) error {
				to, err := resolveCID(ctx, s, args[1])
				if err != nil {
					return err
				}
				r, err := s.SetRef(ctx, args[0], to, cond)
				if err != nil {
					return err
				}
				if asJSON {
					return e.printJSON(r)
				}
				_, err = fmt.Fprintln(e.out, r.CID)
				return err
			})
		},
	}
	f.define(cmd, true)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

func (e *env) refGetCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "get NAME",
		Short:             "Print what a ref names",
		Example:           "  grid ref get models/latest",
		Args:              wantArgs(1, 1, "NAME"),
		ValidArgsFunction: e.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				r, err := s.Ref(cmd.Context(), args[0])
				switch {
				case err != nil:
					return err
				case asJSON:
					return e.printJSON(r)
				}
				_, err = fmt.Fprintln(e.out, r.CID)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document: also when it was set, how often, and by which job")
	return cmd
}

func (e *env) refListCommand() *cobra.Command {
	var asJSON, stale bool
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List refs",
		Example: `  grid ref ls
  grid ref ls models/ --json`,
		Args: wantArgs(0, 1, "PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				refs, err := s.Refs(cmd.Context(), firstOf(args), stale)
				switch {
				case err != nil:
					return err
				case asJSON:
					return e.printJSON(refs)
				case len(refs) == 0:
					e.note("there are no refs")
					return nil
				}
				rows := [][]string{{"NAME", "CID", "SET", "AGE", "JOB"}}
				for _, r := range refs {
					rows = append(rows, []string{
						printable(r.Name), r.CID.String(), fmt.Sprint(r.Count), formatTime(time.Since(r.Updated).Round(time.Second)), orDash(string(r.Job)),
					})
				}
				return e.table(rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&stale, "stale", false, "what this node knows, which may be out of date; needs no majority")
	return cmd
}

func (e *env) refRemoveCommand() *cobra.Command {
	var f refFlags
	cmd := &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove refs",
		Long:  "Remove refs. What they named is kept no longer on their account: it goes when its room is needed, unless a pin or another ref names it.",
		Example: `  grid ref rm data/2025
  grid ref rm data/current --if bafy...`,
		Args:              wantArgs(1, -1, "NAME"),
		ValidArgsFunction: e.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cond, err := f.cond()
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, name := range args {
					if err := s.RemoveRef(cmd.Context(), name, cond); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.define(cmd, false)
	return cmd
}

func firstOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// completeRefs offers the names of refs, if a node is running.
func (e *env) completeRefs(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	var out []string
	_ = e.with(ctx, daemonOnly, func(s *session) error { // what cannot be had is not offered
		refs, err := s.Refs(ctx, prefix, true)
		for _, r := range refs {
			out = append(out, r.Name+"\t"+r.CID.String())
		}
		return err
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}
