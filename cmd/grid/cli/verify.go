package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) verifyCommand() *cobra.Command {
	var sample, stage string
	var show output
	cmd := &cobra.Command{
		Use:   "verify JOB",
		Short: "Run a job's tasks again, and tell which receipts they prove",
		Long: `Run the tasks of a job that has ended again, on the node that is asked, with the very inputs that they had, and compare
what they come to with the receipts that count: how they ended, what they wrote, counted and measured, and their fuel.

Each receipt is proved, refuted, or it cannot be told: of impure tasks, of those that spawned others or that ended for
their node's reasons, and of what cannot be had any more. If one is refuted the exit code is 1.`,
		Example: `  grid verify jk3q
  grid verify jk3q --sample 5%
  grid verify jk3q --stage count --sample 20 --json`,
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withJob(cmd.Context(), args[0], func(s *session, id grid.JobID) error {
				j, err := s.Job(cmd.Context(), id)
				if err != nil {
					return err
				}
				var what grid.Recheck
				if stage != "" {
					if what.Stage, err = pickStage(&j, stage); err != nil {
						return err
					}
				}
				if what.Sample, err = sampleOf(&j, what.Stage, sample); err != nil {
					return usageError(cmd, "%v", err)
				}
				return e.verifyJob(cmd.Context(), s, &j, what, &show)
			})
		},
	}
	cmd.Flags().StringVar(&sample, "sample", "", "only so many tasks, `N` or N%, drawn at random")
	cmd.Flags().StringVar(&stage, "stage", "", "only tasks of `STAGE`, by its name or its number from 0")
	show.prints(e, cmd, "")
	return cmd
}

// sampleOf reads how many tasks are to be drawn; 0 stands for all.
func sampleOf(j *grid.JobStatus, stage *uint32, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n > 0) || percent && n > 100 || !percent && n != float64(int(n)) {
		return 0, fmt.Errorf("--sample %q: want a number of tasks, or a percentage such as 5%%", text)
	}
	if percent {
		all := 0
		for i := range j.Stages {
			if stage == nil || *stage == uint32(i) {
				all += int(j.Stages[i].Tasks)
			}
		}
		n = n*float64(all)/100 + 0.999
	}
	return max(int(n), 1), nil
}

// verifyJob runs tasks again, and says what came of it.
func (e *env) verifyJob(ctx context.Context, s *session, j *grid.JobStatus, what grid.Recheck, show *output) error {
	counts := map[grid.Verdict]int{}
	err := s.Recheck(ctx, j.ID, what, func(c grid.Rechecked) error {
		counts[c.Verdict]++
		switch {
		case show.formatted():
			return show.line(c)
		case c.Verdict == grid.Proved:
			return nil
		}
		_, err := fmt.Fprintf(e.out, "%-7s  task %d of %s, by %s: %s\n", printable(string(c.Verdict)), c.Index, printable(c.Name), printable(shortNode(c.Node.String())), printable(c.Why))
		return err
	})
	if err != nil {
		return err
	}
	if !show.formatted() {
		fmt.Fprintf(e.out, "job %s: %d proved, %d refuted, %d unsure\n", printable(string(j.ID)), counts[grid.Proved], counts[grid.Refuted], counts[grid.Unsure])
	}
	if counts[grid.Refuted] > 0 {
		return &exitError{exit: exitFailure}
	}
	return nil
}

func (e *env) replayCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "replay JOB[/STAGE]/TASK",
		Short: "Run one task again with its exact inputs, and tell what it leaves",
		Long: `Run one task of a job that has ended again, on the node that is asked, with the very inputs, arguments and limits that
it had. Tell how it ended, where what it wrote can be read, and whether it came to the same as the receipt that counts.
What it wrote is kept for an hour.

TASK is counted from 0, in the last stage or in STAGE, by its name or its number. If the results differ the exit code
is 1.`,
		Example: `  grid replay jk3q/17
  grid replay jk3q/count/17 --json`,
		Args: wantArgs(1, 1, "JOB/TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			job, stage, task, err := parseReplay(args[0])
			if err != nil {
				return usageError(cmd, "%v", err)
			}
			return e.withJob(cmd.Context(), job, func(s *session, id grid.JobID) error {
				j, err := s.Job(cmd.Context(), id)
				if err != nil {
					return err
				}
				ref, err := pickTask(&j, task, stage)
				if err != nil {
					return err
				}
				return e.replay(cmd.Context(), s, &j, *ref, &show)
			})
		},
	}
	show.prints(e, cmd, "")
	return cmd
}

// parseReplay reads JOB/TASK or JOB/STAGE/TASK.
func parseReplay(text string) (job, stage string, task uint32, err error) {
	parts := strings.Split(text, "/")
	if len(parts) == 3 {
		stage = parts[1]
	}
	n, err := strconv.ParseUint(parts[len(parts)-1], 10, 32)
	if err != nil || len(parts) < 2 || len(parts) > 3 || parts[0] == "" || len(parts) == 3 && stage == "" {
		return "", "", 0, fmt.Errorf("%q names no task: want JOB/TASK or JOB/STAGE/TASK, as in jk3q/17", text)
	}
	return parts[0], stage, uint32(n), nil
}

// replay runs one task again.
func (e *env) replay(ctx context.Context, s *session, j *grid.JobStatus, ref taskRef, show *output) error {
	var got *grid.Rechecked
	err := s.Recheck(ctx, j.ID, grid.Recheck{Stage: &ref.stage, Task: &ref.index}, func(c grid.Rechecked) error {
		got = &c
		return nil
	})
	switch {
	case err != nil:
		return err
	case got == nil:
		return grid.Errorf(grid.Unavailable, "the node did not tell what came of task %d of job %s", ref.index, j.ID)
	case show.formatted():
		err = show.print(got)
	default:
		err = e.showReplay(j, got)
	}
	if err == nil && got.Verdict == grid.Refuted {
		err = &exitError{exit: exitFailure}
	}
	return err
}

func (e *env) showReplay(j *grid.JobStatus, c *grid.Rechecked) error {
	var rows [][]string
	if c.Again != nil {
		rows = taskRows(j, c.Again)
		if out := c.Again.Stdout; out.CID.Defined() {
			rows = append(rows, []string{"stdout at", out.CID.String()})
		}
		if out := c.Again.Stderr; out.CID.Defined() {
			rows = append(rows, []string{"stderr at", out.CID.String()})
		}
	}
	says := map[grid.Verdict]string{
		grid.Proved: "the same as the receipt that counts", grid.Refuted: "NOT the same as the receipt that counts", grid.Unsure: "not comparable",
	}[c.Verdict]
	if c.Why != "" {
		says += ": " + printable(c.Why)
	}
	rows = append(rows, []string{"receipt", "by " + printable(c.Node.String())}, []string{"result", says})
	if err := e.table(rows); err != nil {
		return err
	}
	if c.Again != nil && !c.Again.Stdout.CID.Defined() && c.Again.Stdout.Size > 0 {
		fmt.Fprintln(e.out)
		_, err := e.out.Write(c.Again.Stdout.Data)
		return err
	}
	if c.Again != nil && c.Again.Stdout.CID.Defined() {
		e.hint("`grid cat %s` prints what it wrote", c.Again.Stdout.CID)
	}
	return nil
}
