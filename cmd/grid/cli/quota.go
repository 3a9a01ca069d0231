package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) quotaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "Bound what submitters may use",
		Long: `Bound what submitters may use in the realm, in a day, a month (UTC) or in all: tasks, the time of worker slots, bytes that tasks read
and write, and bytes that are pinned. Who has used a quota up has no more jobs accepted; those that run are paused, and go
on by themselves when the quota begins anew, or is raised.

A SUBMITTER is USER, whichever node the jobs come from; @NODE, for all jobs that a node has accepted, whoever they are for;
USER@NODE for both; default for each user, or @default for each node, that has no quota of its own. Which node a job comes
from is proven; for whom it is, is what that node says.`,
		Example: `  grid quota set alice --cpu 10h --bytes 100GiB --per month
  grid quota set default --tasks 100000 --per day
  grid quota show alice
  grid quota ls`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.quotaSetCommand(), e.quotaListCommand(), e.quotaShowCommand(), e.quotaRemoveCommand())
	return cmd
}

func (e *env) quotaSetCommand() *cobra.Command {
	var a grid.Allowance
	var per, bytes, stored string
	var show output
	cmd := &cobra.Command{
		Use:   "set SUBMITTER",
		Short: "Set a quota",
		Long: `Set a quota, in place of the one that SUBMITTER has for the same time: what is not named is not bounded. A submitter may have one
a day, one a month and one in all.

--cpu is the time that guests run, times the cores that each task reserves; runs that only verify results count, too. --bytes is
what tasks read of their inputs and write. --stored is what is pinned at a time, each copy counted; it is for nodes, @NODE or
@default, as it is not known which user has pinned what.`,
		Example: "  grid quota set alice --cpu 10h --per day\n  grid quota set @default --stored 500GiB",
		Args:    wantArgs(1, 1, "SUBMITTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.Subject, a.Per = args[0], grid.Per(per)
			for _, f := range []struct {
				name, text string
				to         *int64
			}{{"--bytes", bytes, &a.Bytes}, {"--stored", stored, &a.Stored}} {
				if f.text == "" {
					continue
				}
				n, err := parseSize(f.text)
				if err != nil || n > 1<<62 {
					return usageError(cmd, "%s %q: want a size such as 100GiB", f.name, f.text)
				}
				*f.to = int64(n)
			}
			if err := a.Check(); err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				set, err := s.SetQuota(cmd.Context(), a)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(set)
				}
				e.note("%s: %s", printable(set.Subject), &set)
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.Int64Var(&a.Tasks, "tasks", 0, "run at most `N` tasks")
	fl.DurationVar(&a.CPU, "cpu", 0, "use worker slots for at most `TIME`, such as 10h")
	fl.StringVar(&bytes, "bytes", "", "have tasks read and write at most `SIZE`, such as 100GiB")
	fl.StringVar(&stored, "stored", "", "have at most `SIZE` pinned, copies counted (of nodes)")
	fl.StringVar(&per, "per", string(grid.PerMonth), "for each `TIME`: day, month or total")
	completeFlag(cmd, "per", "day", "month", "total")
	show.prints(e, cmd, "{{.subject}}")
	return cmd
}

func (e *env) quotaListCommand() *cobra.Command {
	return e.quotasCommand("ls", "List the realm's quotas",
		"List the realm's quotas, with what was used of each that is for one submitter.", 0, func([]string) string { return "" })
}

func (e *env) quotaShowCommand() *cobra.Command {
	return e.quotasCommand("show [SUBMITTER]", "Show the quotas that a submitter is under",
		"Show the quotas that a submitter is under, its own or the default ones, and what was used of them. Without SUBMITTER it is the user of this account.",
		1, func(args []string) string {
			if len(args) == 1 {
				return args[0]
			}
			return userName()
		})
}

func (e *env) quotasCommand(use, short, long string, most int, subject func([]string) string) *cobra.Command {
	var show output
	verb, _, _ := strings.Cut(use, " ")
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Example: fmt.Sprintf("  grid quota %s\n  grid quota %s --json", verb, verb),
		Args:    wantArgs(0, most, "SUBMITTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			of := subject(args)
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := s.Quotas(cmd.Context(), of)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(list)
				}
				if len(list) == 0 {
					if of != "" {
						e.note("%s is under no quota", printable(of))
					} else {
						e.note("there are no quotas")
					}
					return nil
				}
				rows := [][]string{{"SUBMITTER", "QUOTA", "USED", "BEGINS ANEW"}}
				for i := range list {
					q := &list[i]
					again := "never"
					if !q.Again.IsZero() {
						again = q.Again.Local().Format(time.DateTime)
					}
					used := "by each"
					if q.Used != nil {
						used = quotaShare(q)
					} else {
						again = "-"
					}
					rows = append(rows, []string{printable(q.Subject), q.Allowance.String(), used, again})
				}
				return e.table(rows)
			})
		},
	}
	show.watches(cmd)
	show.lists(e, cmd, "{{.subject}}")
	return cmd
}

// quotaShare says how much of a quota was used.
func quotaShare(q *grid.QuotaStatus) string {
	var parts []string
	share := func(used, most int64, text string) {
		if most > 0 {
			parts = append(parts, fmt.Sprintf("%s (%.0f%%)", text, 100*float64(used)/float64(most)))
		}
	}
	if u := q.Used; u != nil {
		share(u.Tasks, q.Tasks, fmt.Sprintf("%d of %s", u.Tasks, plural(q.Tasks, "task")))
		share(int64(u.Spent()), int64(q.CPU), fmt.Sprintf("%s of %v", shortTime(u.Spent()), q.CPU))
		share(u.Bytes(), q.Bytes, fmt.Sprintf("%s of %s", formatSize(u.Bytes()), formatSize(q.Bytes)))
	}
	text := strings.Join(parts, ", ")
	if text != "" && q.Per != grid.PerTotal {
		text += " this " + string(q.Per)
	}
	if q.Allowance.Stored > 0 {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("%s of %s stored", formatSize(q.Pinned), formatSize(q.Allowance.Stored))
	}
	return text
}

func (e *env) quotaRemoveCommand() *cobra.Command {
	var per string
	cmd := &cobra.Command{
		Use:     "rm SUBMITTER",
		Short:   "Remove a quota",
		Long:    "Remove a quota. Jobs that were paused because of it go on, unless another one is used up, or the default, which bounds SUBMITTER from then on.",
		Example: "  grid quota rm alice --per day",
		Args:    wantArgs(1, 1, "SUBMITTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := grid.ParsePer(per)
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				return s.RemoveQuota(cmd.Context(), args[0], p)
			})
		},
	}
	cmd.Flags().StringVar(&per, "per", string(grid.PerMonth), "the one for each `TIME`: day, month or total")
	completeFlag(cmd, "per", "day", "month", "total")
	return cmd
}
