package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) logsCommand() *cobra.Command {
	var follow, asJSON bool
	var task, stage uint32
	cmd := &cobra.Command{
		Use:   "logs JOB",
		Short: "Show what a job's tasks printed",
		Long: `Show what a job's tasks printed: the last stage's standard output, in order of the tasks, and the standard
error of all tasks. How tasks failed is told at the end.

The job may run on any node of the realm, and may have ended. With -f what ends is shown as it comes, also when the
job goes to another node.

With --task only that task of the last stage, or of --stage, is shown.`,
		Example: `  grid logs jk3q
  grid logs -f jk3q
  grid logs jk3q --stage 0 --task 17`,
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if cmd.Flags().Changed("stage") && !cmd.Flags().Changed("task") {
				return usageError(cmd, "--stage says which stage's --task is meant, but there is no --task")
			}
			return e.withJob(ctx, args[0], func(s *session, id grid.JobID) error {
				f := &follower{e: e, s: s, id: id, follow: follow, stdout: true, stderr: true}
				if cmd.Flags().Changed("task") {
					job, err := s.Job(ctx, id)
					if err != nil {
						return err
					}
					if f.only, err = pickTask(&job, task, stage, cmd.Flags().Changed("stage")); err != nil {
						return err
					}
				}
				if asJSON {
					enc := json.NewEncoder(e.out)
					f.eachTask = func(t *grid.TaskEnd) error { return enc.Encode(t) }
				}
				return e.showLogs(ctx, f)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "stay until the job has ended")
	cmd.Flags().Uint32Var(&task, "task", 0, "only task `N`, counted from 0")
	cmd.Flags().Uint32Var(&stage, "stage", 0, "the `STAGE` of --task, counted from 0")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each task that has ended, a line each")
	return cmd
}

// pickTask checks that there is such a task.
func pickTask(job *grid.JobStatus, task, stage uint32, given bool) (*taskRef, error) {
	if !given {
		stage = uint32(max(len(job.Stages), 1) - 1)
	}
	if int(stage) >= len(job.Stages) {
		return nil, grid.Errorf(grid.NotFound, "job %s has no stage %d, only %s", job.ID, stage, plural(len(job.Stages), "stage"))
	}
	if n := job.Stages[stage].Tasks; task >= n {
		return nil, grid.Errorf(grid.NotFound, "stage %d of job %s has no task %d, only %s", stage, job.ID, task, plural(n, "task")).
			Hint("tasks are counted from 0")
	}
	return &taskRef{stage, task}, nil
}

func (e *env) showLogs(ctx context.Context, f *follower) error {
	job, err := f.run(ctx)
	if err != nil {
		return err
	}
	if f.only != nil && len(f.seen) == 0 {
		e.note("task %d has not ended", f.only.index)
	}
	for i := range f.failed {
		if _, err := e.err.Write([]byte(failureText(&job, &f.failed[i], e))); err != nil {
			return err
		}
	}
	if job.Error != "" && len(f.failed) == 0 {
		e.note("job %s: %s", job.ID, printable(job.Error))
	}
	return nil
}

// withJob runs f with a session and the job that a prefix of its ID names.
func (e *env) withJob(ctx context.Context, prefix string, f func(*session, grid.JobID) error) error {
	return e.with(ctx, anyNode, func(s *session) error {
		id, err := findJob(ctx, s, prefix)
		if err != nil {
			return err
		}
		return f(s, id)
	})
}
