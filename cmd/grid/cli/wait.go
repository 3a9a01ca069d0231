package cli

import (
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) waitCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job has ended",
		Long: `Wait until a job has ended. The exit code is the one that ` + "`grid run`" + ` would have given. An interrupt ends the
wait, not the job. The job may run on any node of the realm; when its owner is lost, the wait goes on with the next one.`,
		Example: `  id=$(grid run -d ./sim --count 1000)
  grid wait $id && grid get $id -o results`,
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withJob(cmd.Context(), args[0], func(s *session, id grid.JobID) error {
				f := &follower{e: e, s: s, id: id, follow: true, showBar: true}
				job, err := f.run(cmd.Context())
				if err != nil {
					return err
				}
				failure := f.reportFailures(&job)
				if show.formatted() {
					if err := show.print(job); err != nil {
						return err
					}
				}
				return failure
			})
		},
	}
	show.prints(e, cmd, "{{.id}}")
	return cmd
}
