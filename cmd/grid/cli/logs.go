package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) logsCommand() *cobra.Command {
	var follow bool
	var show output
	var task uint32
	var stage string
	lines := new(lineFlags)
	cmd := &cobra.Command{
		Use:   "logs JOB",
		Short: "Show what a job's tasks printed",
		Long: `Show what a job's tasks printed: the last stage's standard output, in order of the tasks, and the standard
error of all tasks. How tasks failed is told at the end.

The job may run on any node of the realm, and may have ended. With -f what ends is shown as it comes, also when the
job goes to another node.

With --stage that stage's output is shown in place of the last one's, and what its tasks wrote to standard error alone;
with --task only that task of the last stage, or of --stage.

So far each byte is as the tasks wrote it, but on a terminal. With --lines, or another of the flags that pick lines, and with -f on a terminal, lines are
shown as they are printed, by all tasks and also by those that run now, on whatever node: standard output on standard output, standard
error, and notes of the grid, on standard error. Each line has its task before it, if there are several. On a terminal, control
characters are shown as such; a pipe or a file gets them as they are.`,
		Example: `  grid logs jk3q
  grid logs -f jk3q
  grid logs jk3q -f --since 10m --grep 'error|warn'
  grid logs jk3q --lines -t --json
  grid logs jk3q --stage count
  grid logs jk3q --stage count --task 17`,
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.withJob(ctx, args[0], func(s *session, id grid.JobID) error {
				if lines.wanted(cmd) || follow && e.terminal && !show.formatted() {
					q, err := lines.query(ctx, e, s, follow)
					if err == nil && (stage != "" || cmd.Flags().Changed("task")) {
						err = e.pickLines(ctx, cmd, s, id, &q, task, stage)
					}
					if err != nil {
						return err
					}
					return e.showLines(ctx, s, id, q, lines, &show)
				}
				f := &follower{e: e, s: s, id: id, follow: follow, stdout: true, stderr: true, visible: true}
				if one := cmd.Flags().Changed("task"); one || stage != "" {
					job, err := s.Job(ctx, id)
					if err != nil {
						return err
					}
					if one {
						f.only, err = pickTask(&job, task, stage)
					} else {
						f.stage, err = pickStage(&job, stage)
					}
					if err != nil {
						return err
					}
				}
				if show.formatted() {
					f.eachTask = func(t *grid.TaskEnd) error { return show.line(t) }
				}
				return e.showLogs(ctx, f)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "stay until the job has ended")
	cmd.Flags().Uint32Var(&task, "task", 0, "only task `N`, counted from 0")
	cmd.Flags().StringVar(&stage, "stage", "", "the `STAGE` that is shown, by its name or its number from 0 (default the last one)")
	show.prints(e, cmd, "")
	lines.add(cmd)
	return cmd
}

// pickLines has a query be about a stage, or about a task of that or the last one.
func (e *env) pickLines(ctx context.Context, cmd *cobra.Command, s *session, id grid.JobID, q *grid.LogQuery, task uint32, stage string) error {
	job, err := s.Job(ctx, id)
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("task") {
		q.Stage, err = pickStage(&job, stage)
		return err
	}
	ref, err := pickTask(&job, task, stage)
	if err == nil {
		q.Stage, q.Task = &ref.stage, &ref.index
	}
	return err
}

// pickStage finds the stage that a name or a number means; the last one for "".
func pickStage(job *grid.JobStatus, text string) (*uint32, error) {
	if text == "" {
		last := uint32(max(len(job.Stages), 1) - 1)
		return &last, nil
	}
	names := make([]string, len(job.Stages))
	for i := range job.Stages {
		if names[i] = job.Stages[i].Name; names[i] == text {
			n := uint32(i)
			return &n, nil
		}
	}
	if n, err := strconv.ParseUint(text, 10, 32); err == nil && n < uint64(len(names)) {
		n := uint32(n)
		return &n, nil
	}
	return nil, grid.Errorf(grid.NotFound, "job %s has no stage %s", job.ID, text).Hint("its stages, from 0 on: %s", strings.Join(names, ", "))
}

// pickTask checks that there is such a task.
func pickTask(job *grid.JobStatus, task uint32, name string) (*taskRef, error) {
	stage, err := pickStage(job, name)
	switch {
	case err != nil:
		return nil, err
	case int(*stage) >= len(job.Stages):
		return nil, grid.Errorf(grid.NotFound, "job %s has no stages that are known yet", job.ID)
	}
	if st := &job.Stages[*stage]; task >= st.Tasks {
		return nil, grid.Errorf(grid.NotFound, "stage %s of job %s has no task %d, only %s", st.Name, job.ID, task, plural(st.Tasks, "task")).
			Hint("tasks are counted from 0")
	}
	return &taskRef{*stage, task}, nil
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
