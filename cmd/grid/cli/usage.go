package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) usageCommand() *cobra.Command {
	var by, since string
	var show output
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show what users, nodes or jobs have used",
		Long: `Show what the tasks of each user have used in the realm, as the receipts of their nodes say: how many tasks, the time of worker
slots, fuel, bytes read and written, and beside it the quotas that bound them. With --by node it is by the node that accepted
the jobs; with --by job each job whose record is kept.

"grid usage verify JOB" works out anew from its signed receipts what a job has used.`,
		Example: `  grid usage
  grid usage --by node --since 2026-01-01
  grid usage --by job --since 24h --json`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseSince(since, e.now())
			if err != nil {
				return usageError(cmd, "--since %q: %v", since, err)
			}
			way := grid.UsageBy(by)
			if way != grid.ByUser && way != grid.ByNode && way != grid.ByJob {
				return usageError(cmd, "--by %q: want user, node or job", by)
			}
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := s.Usage(cmd.Context(), way, from)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(list)
				}
				if len(list) == 0 {
					e.note("nothing was used%s", map[bool]string{true: " since then"}[!from.IsZero()])
					return nil
				}
				return e.table(usageRows(list, way))
			})
		},
	}
	cmd.Flags().StringVar(&by, "by", string(grid.ByUser), "add up by `WHOM`: user, node or job")
	completeFlag(cmd, "by", "user", "node", "job")
	cmd.Flags().StringVar(&since, "since", "", "only from the day of a `TIME` on (UTC): 24h ago, or a date such as 2006-01-02; of months before this one, whole months")
	show.watches(cmd)
	show.lists(e, cmd, `{{or .job .node .user "(others)"}}`)
	cmd.AddCommand(e.usageVerifyCommand())
	return cmd
}

func usageRows(list []grid.Used, by grid.UsageBy) [][]string {
	head := []string{"TASKS", "CPU", "FUEL", "READ", "WRITTEN", "CHECKS"}
	rows := [][]string{append(map[grid.UsageBy][]string{grid.ByUser: {"USER"}, grid.ByNode: {"NODE"}, grid.ByJob: {"JOB", "USER", "STATE"}}[by], head...)}
	if by != grid.ByJob {
		rows[0] = append(rows[0], "QUOTAS")
	}
	for i := range list {
		u := &list[i]
		var row []string
		switch by {
		case grid.ByUser:
			row = []string{userText(u.User)}
		case grid.ByNode:
			row = []string{printable(u.Node.String())}
		default:
			row = []string{string(u.Job), userText(u.User), string(u.State)}
		}
		checks := "-"
		if u.Checks > 0 {
			checks = fmt.Sprintf("%d, %s", u.Checks, shortTime(u.CheckT))
		}
		row = append(row, fmt.Sprint(u.Tasks), shortTime(u.CPU), fmt.Sprint(u.Fuel), formatSize(u.Read), formatSize(u.Wrote), checks)
		if by != grid.ByJob {
			var quotas []string
			for k := range u.Quotas {
				quotas = append(quotas, quotaShare(&u.Quotas[k]))
			}
			row = append(row, strings.Join(quotas, "; "))
		}
		rows = append(rows, row)
	}
	return rows
}

// userText is a user's name; those that a node has made too many of have none.
func userText(user string) string {
	if user == "" {
		return "(others)"
	}
	return printable(user)
}

func shortTime(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second / 10).String()
}

func (e *env) usageVerifyCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "verify JOB",
		Short: "Work out anew from its receipts what a job has used",
		Long: `Work out anew, from the receipts that a job has left, what it has used, check that each was signed by the node that has run the
task, and compare that with what the ledger says. If they differ the exit code is 1. Whether a receipt is true is what
"grid verify" tells, by running tasks again.`,
		Example:           "  grid usage verify jk3q\n  grid usage verify jk3q --json",
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withJob(cmd.Context(), args[0], func(s *session, id grid.JobID) error {
				return e.recount(cmd.Context(), s, id, &show)
			})
		},
	}
	show.prints(e, cmd, "")
	return cmd
}

func (e *env) recount(ctx context.Context, s *session, id grid.JobID, show *output) error {
	c, err := s.RecountUsage(ctx, id)
	if err != nil {
		return err
	}
	if show.formatted() {
		err = show.print(c)
	} else {
		u := &c.Receipts
		_, err = fmt.Fprintf(e.out, "by %s: %s, %s of CPU time, %d of fuel, %s read and %s written\n",
			plural(c.Count, "receipt"), plural(u.Tasks, "task"), shortTime(u.CPU), u.Fuel, formatSize(u.Read), formatSize(u.Wrote))
		for _, list := range []struct {
			what  string
			lines []string
		}{{"note", c.Notes}, {"forged", c.Forged}, {"differs", c.Differs}} {
			for _, line := range list.lines {
				if err == nil {
					_, err = fmt.Fprintf(e.out, "%s: %s\n", list.what, printable(line))
				}
			}
		}
	}
	if err != nil {
		return err
	}
	if !c.OK() {
		return grid.Errorf(grid.Corrupt, "the ledger does not say what the receipts of job %s do", id).
			Hint("its owner has counted wrongly, or somebody has changed its record: `grid audit` tells who submitted it, `grid job %s` who owned it", id)
	}
	e.note("the ledger says the same")
	return nil
}
