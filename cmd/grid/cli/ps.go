package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) psCommand() *cobra.Command {
	var all bool
	var show output
	cmd := &cobra.Command{
		Use:   "ps [-a]",
		Short: "List jobs",
		Long: `List the jobs of the realm that are running, newest first; with -a also those that have ended. They are the same on
every node. When other nodes own some of them, the owner is told by the end of its peer ID; a job is waiting while its
owner does not answer, until another node takes it over.`,
		Example: `  grid ps
  grid ps -a --json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				jobs, err := s.Jobs(cmd.Context())
				if err != nil {
					return err
				}
				node, err := s.Node(cmd.Context())
				if err != nil {
					return err
				}
				if slices.ContainsFunc(jobs, func(j grid.JobStatus) bool { return !j.State.Final() }) {
					e.noteStale(s)
				}
				return e.listJobs(jobs, node.ID, all, &show, time.Now())
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list jobs that have ended, too")
	show.watches(cmd)
	show.wide().lists(e, cmd, "{{.id}}")
	return cmd
}

// noteStale says of jobs that have not ended that nobody is there who would know more of them.
func (e *env) noteStale(s *session) {
	if s.embedded {
		e.note("no node is running here: this is what its home knew last, and a job of a realm goes on at the others of its nodes")
		e.hint("ask one of these with --home or --api, or start this one with `grid up -d`")
	}
}

// listJobs prints jobs as the node called self sees them.
func (e *env) listJobs(jobs []grid.JobStatus, self string, all bool, show *output, now time.Time) error {
	shown := []grid.JobStatus{}
	for _, j := range jobs {
		if all || !j.State.Final() {
			shown = append(shown, j)
		}
	}
	if show.formatted() {
		return show.print(shown)
	}
	if len(shown) == 0 {
		if ended := len(jobs); ended > 0 {
			e.note("no job is running; `grid ps -a` lists the %d that ended", ended)
		} else {
			e.note("there are no jobs")
		}
		return nil
	}
	elsewhere := slices.ContainsFunc(jobs, func(j grid.JobStatus) bool { return j.Owner != self })
	rows := [][]string{{"JOB", "NAME", "STATE", "TASKS", "AGE", "TOOK"}}
	if elsewhere {
		rows[0] = append(rows[0], "OWNER")
	}
	if show.isWide() {
		rows[0] = append(rows[0], "SPEC", "RESULT")
	}
	for _, j := range shown {
		done, total, _ := countTasks(&j)
		row := []string{
			string(j.ID), orDash(printable(j.Name)), string(j.State), fmt.Sprintf("%d/%d", done, total),
			formatTime(now.Sub(j.Submitted).Round(time.Second)), formatTime(jobTime(&j, now)),
		}
		if elsewhere {
			owner := j.Owner
			if !show.isWide() {
				owner = shortNode(owner)
			}
			row = append(row, printable(owner))
		}
		if show.isWide() {
			row = append(row, linkText(j.Spec), linkText(j.Result))
		}
		rows = append(rows, row)
	}
	if err := e.table(rows); err != nil {
		return err
	}
	for _, j := range shown {
		if j.Note != "" {
			e.note("job %s: %s", printable(string(j.ID)), printable(j.Note))
		}
	}
	return nil
}

func countTasks(j *grid.JobStatus) (done, total, failed uint32) {
	for _, st := range j.Stages {
		done += st.Done
		total += st.Tasks
		failed += st.Failed
	}
	return done, total, failed
}

// jobTime is how long a job took, or has taken.
func jobTime(j *grid.JobStatus, now time.Time) time.Duration {
	if !j.Ended.IsZero() {
		now = j.Ended
	}
	return now.Sub(j.Submitted)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
