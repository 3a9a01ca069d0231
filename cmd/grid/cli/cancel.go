package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel JOB...",
		Short: "End jobs",
		Long: `End jobs that are running, on whatever node of the realm. Results of tasks that have ended are kept, as far as the
job's owner can be reached.`,
		Example:           `  grid cancel jk3q`,
		Args:              wantArgs(1, -1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.eachJob(cmd.Context(), args, "cancel", "cancelled", func(s *session, id grid.JobID) error {
				return s.Cancel(cmd.Context(), id)
			})
		},
	}
}

// eachJob does something to each job that is named, goes on after those it cannot be done to, and says which it is
// done to.
func (e *env) eachJob(ctx context.Context, names []string, verb, done string, f func(*session, grid.JobID) error) error {
	return e.with(ctx, anyNode, func(s *session) error {
		var errs []error
		for _, name := range names {
			id, err := findJob(ctx, s, name)
			if err == nil {
				err = f(s, id)
			}
			if err != nil {
				errs = append(errs, grid.Errorf(grid.CodeOf(err), "%s %s: %w", verb, name, err))
				continue
			}
			e.note("job %s is %s", id, done)
		}
		return errors.Join(errs...)
	})
}
