package cli

import (
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
			ctx := cmd.Context()
			return e.with(ctx, anyNode, func(s *session) error {
				var errs []error
				for _, arg := range args {
					id, err := findJob(ctx, s, arg)
					if err == nil {
						err = s.Cancel(ctx, id)
					}
					if err != nil {
						errs = append(errs, grid.Errorf(grid.CodeOf(err), "cancel %s: %w", arg, err))
						continue
					}
					e.note("job %s is cancelled", id)
				}
				return errors.Join(errs...)
			})
		},
	}
}
