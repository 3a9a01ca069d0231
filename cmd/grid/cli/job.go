package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) jobCommand() *cobra.Command {
	var why bool
	var show output
	var task uint32
	var stage string
	cmd := &cobra.Command{
		Use:   "job JOB",
		Short: "Describe a job, or one of its tasks; explain it; forget jobs",
		Long: `Describe a job: its state, its stages, which nodes ran its tasks, and what happened to it last.

With --why explain why it does not run, or not faster, or why it failed: what each stage waits for, what each node
has to do with it, and what may help.

With --task describe that task of the last stage, or of --stage: where it ran, how it ended and why, what it used, and
where its time went.

JOB is a job's ID, or the first 4 or more characters of it.`,
		Example: `  grid job jk3q
  grid job jk3q --why
  grid events -f jk3q
  grid job jk3q --stage count --task 17
  grid job jk3q --json
  grid job rm jk3q`,
		Args:              wantArgs(1, 1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			set := cmd.Flags().Changed
			if set("stage") && !set("task") {
				return usageError(cmd, "--stage says which stage's --task is meant, but there is no --task")
			}
			if why && set("task") {
				return usageError(cmd, "--why is about a job, --task about one of its tasks")
			}
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				id, err := findJob(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				if why {
					x, err := s.Why(cmd.Context(), id)
					if err != nil {
						return err
					}
					if show.formatted() {
						return show.print(x)
					}
					return e.explainJob(&x, time.Now())
				}
				j, err := s.Job(cmd.Context(), id)
				if err != nil {
					return err
				}
				if set("task") {
					ref, err := pickTask(&j, task, stage)
					if err != nil {
						return err
					}
					return e.describeTask(cmd.Context(), s, &j, *ref, &show)
				}
				if show.formatted() {
					return show.print(j)
				}
				if err := e.describeJob(&j, time.Now()); err != nil {
					return err
				}
				if !j.State.Final() {
					e.noteStale(s)
				}
				if j.State == grid.Running {
					if err := e.jobProgress(cmd.Context(), s, id); err != nil {
						return err
					}
				}
				return e.lastEvents(cmd.Context(), s, &j)
			})
		},
	}
	show.watches(cmd)
	show.prints(e, cmd, "")
	cmd.Flags().BoolVar(&why, "why", false, "explain why the job stands as it does, and what may help")
	cmd.Flags().Uint32Var(&task, "task", 0, "describe task `N`, counted from 0")
	cmd.Flags().StringVar(&stage, "stage", "", "the `STAGE` of --task, by its name or its number from 0 (default the last one)")
	cmd.AddCommand(e.jobRemoveCommand(), e.jobValidateCommand(), e.jobSchemaCommand())
	return cmd
}

func (e *env) jobRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm JOB...",
		Short: "Forget jobs that have ended",
		Long: `Forget jobs that have ended, on all nodes of the realm. What nothing else needs of what they were made of and came
to is no longer kept; its bytes go when their room is needed. Old jobs are forgotten without that, as told at
` + "`grid up --help`" + `, --keep-jobs. A job that runs has to be cancelled first.`,
		Example:           `  grid job rm jk3q jx2f`,
		Args:              wantArgs(1, -1, "JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.eachJob(cmd.Context(), args, "remove", "forgotten", func(s *session, id grid.JobID) error {
				_, err := s.RemoveJob(cmd.Context(), id)
				return err
			})
		},
	}
}

// describeTask tells how one task ended.
func (e *env) describeTask(ctx context.Context, s *session, j *grid.JobStatus, ref taskRef, show *output) error {
	var end *grid.TaskEnd
	err := s.Tasks(ctx, j.ID, false, func(t grid.TaskEnd) error {
		if (taskRef{t.Stage, t.Index}) == ref {
			end = &t
		}
		return nil
	})
	if err != nil {
		return err
	}
	if end == nil {
		return grid.Errorf(grid.NotFound, "task %d of job %s has not ended", ref.index, j.ID)
	}
	if show.formatted() {
		return show.print(end)
	}
	return e.table(taskRows(j, end))
}

// taskRows describes the end of a task to people.
func taskRows(j *grid.JobStatus, t *grid.TaskEnd) [][]string {
	var rows [][]string
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("task", fmt.Sprintf("%d of stage %s", t.Index, printable(j.Stages[t.Stage].Name)))
	add("input", printable(t.Input))
	add("node", printable(t.Node))
	switch {
	case t.Fault != nil:
		add("ended", fmt.Sprintf("failed, %v: %s", t.Fault.Code, printable(t.Fault.Message)))
		for line := range strings.Lines(t.Fault.Stack) {
			add("stack", printable(strings.TrimSpace(line)))
		}
	default:
		add("ended", fmt.Sprintf("exited with code %d", t.Exit))
	}
	if t.Cached {
		add("known", "from an earlier run, which the rest is about")
	}
	if t.Impure {
		add("impure", "it saw the real clock and real randomness")
	}
	add("fuel", fmt.Sprint(t.Fuel))
	add("memory", formatSize(t.Memory))
	add("calls", fmt.Sprint(t.Calls))
	p := &t.Phases
	for _, phase := range []struct {
		name string
		took time.Duration
	}{{"fetch", p.Fetch}, {"compile", p.Compile}, {"queue", p.Queue}, {"start", p.Start}, {"run", p.Run}, {"store", p.Store}} {
		add(phase.name, formatTime(phase.took))
	}
	for i := range t.Metrics {
		add(metricName(&t.Metrics[i]), metricText(&t.Metrics[i]))
	}
	add("stdout", formatSize(t.Stdout.Size))
	add("stderr", formatSize(t.Stderr.Size))
	add("out", linkText(t.Out))
	add("profile", linkText(t.Profile))
	return rows
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
	add("note", printable(j.Note))
	add("error", printable(j.Error))
	add("user", printable(j.User))
	if j.Priority != 0 {
		add("priority", fmt.Sprint(j.Priority))
	}
	if j.Parallel > 0 {
		add("parallel", fmt.Sprintf("at most %s at a time", plural(j.Parallel, "task")))
	}
	if j.Deadline > 0 {
		add("deadline", j.Submitted.Add(j.Deadline).Local().Format(time.DateTime))
	}
	if j.Start > 0 {
		add("start by", j.Submitted.Add(j.Start).Local().Format(time.DateTime))
	}
	if j.Offload != grid.OffloadNone {
		add("offloaded", string(j.Offload))
	}
	if j.Verify.On() {
		add("verify", j.Verify.String())
	}
	for _, line := range verification(j) {
		add(line[0], line[1])
	}
	add("owner", printable(j.Owner))
	if j.Epoch > 1 {
		add("owners", fmt.Sprintf("%d so far, one after the other", j.Epoch))
	}
	add("submitted", j.Submitted.Local().Format(time.DateTime))
	if !j.Ended.IsZero() {
		add("ended", j.Ended.Local().Format(time.DateTime))
	}
	add("took", formatTime(jobTime(j, now)))
	add("spec", linkText(j.Spec))
	add("result", linkText(j.Result))
	add("trace", printable(j.Trace))
	if err := e.table(rows); err != nil {
		return err
	}
	fmt.Fprintln(e.out)
	rows = [][]string{{"STAGE", "TASKS", "DONE", "CACHED", "FAILED", "GUEST TIME"}}
	spawned := slices.ContainsFunc(j.Stages, func(st grid.StageStatus) bool { return st.Spawned > 0 })
	if spawned {
		rows[0] = append(rows[0], "SPAWNED")
	}
	plugins := slices.ContainsFunc(j.Stages, func(st grid.StageStatus) bool { return st.Plugin != "" })
	if plugins {
		rows[0] = append(rows[0], "PLUGIN")
	}
	for _, st := range j.Stages {
		row := []string{
			printable(st.Name), fmt.Sprint(st.Tasks), fmt.Sprint(st.Done), fmt.Sprint(st.Cached), fmt.Sprint(st.Failed), formatTime(st.Ran),
		}
		if spawned {
			row = append(row, fmt.Sprint(st.Spawned))
		}
		if plugins {
			row = append(row, printable(st.Plugin))
		}
		rows = append(rows, row)
	}
	if err := e.table(rows); err != nil {
		return err
	}
	if err := e.showMetrics(j); err != nil {
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

// verification says what verifying a job's results has cost, and brought to light.
func verification(j *grid.JobStatus) (rows [][2]string) {
	var runs, split, ended uint64
	var fuel uint64
	liars := map[string]uint32{}
	for _, st := range j.Stages {
		ended += uint64(st.Done + st.Failed)
		if c := st.Check; c != nil {
			runs, split, fuel = runs+uint64(c.Runs), split+uint64(c.Split), fuel+c.Fuel
			for id, n := range c.Liars {
				liars[id] += n
			}
		}
	}
	if !j.Verify.On() {
		return nil
	}
	rows = append(rows, [2]string{"verified by", fmt.Sprintf("%d runs more, for %d tasks that have ended, and %d fuel", runs, ended, fuel)})
	if split > 0 {
		rows = append(rows, [2]string{"not agreed", plural(split, "task")})
	}
	for _, id := range slices.Sorted(maps.Keys(liars)) {
		rows = append(rows, [2]string{"refuted", fmt.Sprintf("%s, %s", printable(id), plural(liars[id], "time"))})
	}
	return rows
}

func linkText(l grid.Link) string {
	if !l.Defined() {
		return ""
	}
	return l.String()
}
