package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) refCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ref",
		Short: "Give data names that can move on",
		Long: `Give data names. A ref is a name in the realm's ledger that can be set to another CID; its data is kept as long as it
names it. Wherever a command takes CID[/PATH] it takes NAME[/PATH] of a ref, too. A CID, and where files are taken
a file of yours, comes first; ref:NAME always means the ref.`,
		Example: `  grid ref set data/latest bafy...
  grid cat data/latest/readme.txt`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.refSetCommand(), e.refListCommand(), e.refGetCommand(), e.refRemoveCommand())
	return cmd
}

func (e *env) refSetCommand() *cobra.Command {
	var cond grid.RefCond
	var was string
	var show output
	cmd := &cobra.Command{
		Use:   "set NAME CID[/PATH]",
		Short: "Have a name mean something",
		Long: `Have a name mean what CID[/PATH], or another ref, names now. Its data is pinned. With --if or --if-absent it is set only
if that holds; else the exit code is 68 and nothing is changed.`,
		Example: "  grid ref set data/latest bafy...\n  grid ref set data/latest bafy... --if bafy...",
		Args:    wantArgs(2, 2, "NAME and CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if was != "" && cond.Absent {
				return usageError(cmd, "--if and --if-absent exclude each other")
			}
			if was != "" {
				var err error
				if cond.CID, err = grid.ParseLink(was); err != nil {
					return err
				}
			}
			return e.with(ctx, anyNode, func(s *session) error {
				to, err := resolveCID(ctx, s, args[1])
				if err != nil {
					return err
				}
				r, err := s.SetRef(ctx, strings.TrimPrefix(args[0], grid.RefMark), to, cond)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(r)
				}
				_, err = fmt.Fprintln(e.out, r.CID)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&was, "if", "", "only if it names this `CID`")
	cmd.Flags().BoolVar(&cond.Absent, "if-absent", false, "only if there is no such ref")
	show.prints(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) refListCommand() *cobra.Command {
	var stale bool
	var show output
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Short:   "List refs",
		Long:    "List the refs of the realm whose names begin with PREFIX: name, CID, how often it was set, when, and by which job.",
		Example: "  grid ref ls\n  grid ref ls data/ --json",
		Args:    wantArgs(0, 1, "PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				refs, err := s.Refs(cmd.Context(), prefix, stale)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(refs)
				}
				if len(refs) == 0 {
					e.note("there are no refs")
					return nil
				}
				rows := [][]string{{"NAME", "CID", "SET", "UPDATED", "JOB"}}
				for _, r := range refs {
					rows = append(rows, []string{printable(r.Name), r.CID.String(), fmt.Sprint(r.Count), r.Updated.Local().Format(time.DateTime), string(r.Job)})
				}
				return e.table(rows)
			})
		},
	}
	cmd.Flags().BoolVar(&stale, "stale", false, "list what the node knows, though it may be out of date")
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) refGetCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:               "get NAME",
		Short:             "Print what a name means",
		Long:              "Print the CID that a ref names.",
		Example:           "  grid ref get data/latest",
		Args:              wantArgs(1, 1, "NAME"),
		ValidArgsFunction: e.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				r, err := s.Ref(cmd.Context(), strings.TrimPrefix(args[0], grid.RefMark))
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(r)
				}
				_, err = fmt.Fprintln(e.out, r.CID)
				return err
			})
		},
	}
	show.prints(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) refRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Remove refs",
		Long:              "Remove refs. Their data is kept no longer, unless another ref or a pin needs it.",
		Example:           "  grid ref rm data/latest",
		Args:              wantArgs(1, -1, "NAME"),
		ValidArgsFunction: e.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, name := range args {
					if err := s.RemoveRef(cmd.Context(), strings.TrimPrefix(name, grid.RefMark), grid.RefCond{}); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// resolve finds what CID[/PATH], or NAME[/PATH] of a ref, names.
func resolve(ctx context.Context, s *session, text string) (grid.Link, string, error) {
	at, err := s.Resolve(ctx, text)
	return at.Root, at.Path, err
}
