package cli

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) jobCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "job JOB",
		Short: "Describe a job",
		Long:  "Describe a job: its state, its stages, and which nodes ran its tasks.\n\nJOB is a job's ID, or the first 4 or more characters of it.",
		Example: `  grid job jk3q
  grid job jk3q --json`,
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withJob(cmd.Context(), args[0], func(s *session, id grid.JobID) error {
				j, err := s.Job(cmd.Context(), id)
				if err != nil {
					return err
				}
				if asJSON {
					return e.printJSON(j)
				}
				return e.describeJob(&j, time.Now())
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

func (e *env) describeJob(j *grid.JobStatus, now time.Time) error {
	rows := [][]string{{"job", string(j.ID)}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("name", printable(j.Name))
	add("state", string(j.State))
	add("error", printable(j.Error))
	add("owner", j.Owner)
	add("submitted", j.Submitted.Local().Format(time.DateTime))
	if !j.Ended.IsZero() {
		add("ended", j.Ended.Local().Format(time.DateTime))
	}
	add("took", formatTime(jobTime(j, now)))
	add("spec", linkText(j.Spec))
	add("result", linkText(j.Result))
	if err := e.table(rows); err != nil {
		return err
	}
	fmt.Fprintln(e.out)
	rows = [][]string{{"STAGE", "TASKS", "DONE", "CACHED", "FAILED", "GUEST TIME"}}
	for _, st := range j.Stages {
		rows = append(rows, []string{
			printable(st.Name), fmt.Sprint(st.Tasks), fmt.Sprint(st.Done), fmt.Sprint(st.Cached), fmt.Sprint(st.Failed), formatTime(st.Ran),
		})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	nodes := map[string]uint32{}
	for _, st := range j.Stages {
		for n, c := range st.Nodes {
			nodes[n] += c
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	fmt.Fprintln(e.out)
	rows = [][]string{{"NODE", "TASKS"}}
	for _, n := range slices.Sorted(maps.Keys(nodes)) {
		rows = append(rows, []string{printable(n), fmt.Sprint(nodes[n])})
	}
	return e.table(rows)
}

func linkText(l grid.Link) string {
	if !l.Defined() {
		return ""
	}
	return l.String()
}
