package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

// grantFlags say what tasks may use besides what they are given.
type grantFlags struct {
	net, kv, secrets, data, decrypt []string
	all                             bool // that the plugin wants
}

func (g *grantFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&g.net, "allow-net", nil, "let tasks send HTTP requests to `HOST:PORT`, *.DOMAIN:PORT, or an address or range; makes them impure; may be repeated")
	fl.StringArrayVar(&g.kv, "allow-kv", nil, "let tasks read and write keys of the realm's map that begin with `PREFIX`, or with PREFIX:ro only read them; makes them impure; may be repeated")
	fl.StringArrayVar(&g.secrets, "allow-secret", nil, "let tasks read the secret `NAME` in /secrets; makes them impure; may be repeated")
	fl.StringArrayVar(&g.data, "allow-data", nil, "let tasks read what `CID` names in /cid; * lets them read any CID; may be repeated")
	fl.StringArrayVar(&g.decrypt, "allow-decrypt", nil, "show tasks what was encrypted to the key that the secret `NAME` holds as it was; may be repeated")
	fl.BoolVar(&g.all, "grant-all", false, "let tasks use all that the plugin says it wants; it is told on standard error")
}

func (g *grantFlags) granted() grid.Grants {
	return grid.Grants{Net: g.net, KV: g.kv, Secrets: g.secrets, Data: g.data, Decrypt: g.decrypt}
}

// How many running tasks are shown of a job, and when asked why it is not faster.
const (
	shownTasks    = 8
	maxShownTasks = 64
)

// jobProgress shows how far the running tasks of a job are. That some node does not tell is no reason to fail.
func (e *env) jobProgress(ctx context.Context, s *session, id grid.JobID) error {
	x, err := s.Why(ctx, id)
	if err != nil {
		return nil
	}
	return e.showProgress(&x, shownTasks)
}

// showProgress shows running tasks, at most so many.
func (e *env) showProgress(x *grid.Explanation, most int) error {
	if len(x.Tasks) == 0 {
		return nil
	}
	fmt.Fprintln(e.out)
	rows := [][]string{{"RUNNING", "NODE", "FOR", "PROGRESS"}}
	for i := range x.Tasks[:min(len(x.Tasks), most)] {
		t := &x.Tasks[i]
		name := fmt.Sprintf("task %d", t.Index)
		if int(t.Stage) < len(x.Stages) {
			name += " of " + printable(x.Stages[t.Stage].Name)
		}
		rows = append(rows, []string{name, printable(shortNode(t.Node)), formatTime(t.Running.Round(10 * time.Millisecond)), progressText(t)})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	if more := len(x.Tasks) - most; more > 0 {
		e.note("%s more are running", plural(more, "task"))
	}
	return nil
}

// progressText is what a task last said of how far it is.
func progressText(t *grid.TaskProgress) string {
	switch {
	case !t.Said:
		return "-"
	case t.Total == 0:
		return fmt.Sprint(t.Done)
	}
	return fmt.Sprintf("%d/%d (%.0f%%)", t.Done, t.Total, 100*min(float64(t.Done)/float64(t.Total), 1))
}

// showMetrics shows what a job's tasks have counted and measured.
func (e *env) showMetrics(j *grid.JobStatus) error {
	rows := [][]string{{"STAGE", "COUNTED", ""}}
	for i := range j.Stages {
		st := &j.Stages[i]
		for k := range st.Metrics {
			rows = append(rows, []string{printable(st.Name), metricName(&st.Metrics[k]), metricText(&st.Metrics[k])})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	fmt.Fprintln(e.out)
	return e.table(rows)
}

func metricName(m *grid.Metric) string { return printable(m.Name) }

// metricText is a counter, or what is to be known of a histogram.
func metricText(m *grid.Metric) string {
	if m.Kind != grid.Histogram || m.Count == 0 {
		return fmt.Sprint(m.Count)
	}
	return fmt.Sprintf("%s, %.4g on average, half of them at most %.4g", plural(m.Count, "value"), m.Sum/float64(m.Count), m.Quantile(0.5))
}
