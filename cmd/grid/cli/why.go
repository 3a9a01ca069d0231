package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// shownEvents is how many events a job's description ends with.
const shownEvents = 5

// lastEvents shows what happened last to a job. That its owner does not tell just now is no reason to fail.
func (e *env) lastEvents(ctx context.Context, s *session, j *grid.JobStatus) error {
	var last []grid.RealmEvent
	err := s.RealmEvents(ctx, grid.EventQuery{Job: j.ID}, func(ev grid.RealmEvent) error {
		if last = append(last, ev); len(last) > shownEvents {
			last = last[1:]
		}
		return nil
	})
	if ctx.Err() != nil {
		return err
	}
	if len(last) > 0 {
		fmt.Fprintln(e.out)
	}
	for i := range last {
		if _, err := fmt.Fprintln(e.out, eventText(j, &last[i])); err != nil {
			return err
		}
	}
	return nil
}

// explainJob shows why a job stands as it does.
func (e *env) explainJob(x *grid.Explanation, now time.Time) error {
	rows := [][]string{{"job", string(x.Job.ID)}, {"state", string(x.Job.State)}, {"why", printable(x.Reason)}}
	for _, advice := range x.Advice {
		rows = append(rows, []string{"try", printable(advice)})
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"deadline", x.Deadline}, {"start by", x.Start}} {
		if t.at.IsZero() || x.Job.State.Final() {
			continue
		}
		in := "it has passed"
		if left := t.at.Sub(now); left > 0 {
			in = "in " + formatTime(left.Round(time.Second))
		}
		rows = append(rows, []string{t.name, fmt.Sprintf("%s, %s", t.at.Local().Format(time.DateTime), in)})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	if len(x.Stages) > 0 && x.Job.State != grid.Done {
		fmt.Fprintln(e.out)
		rows = [][]string{{"STAGE", "STATE", "LEFT", "RUNNING", "NODES", ""}}
		for i := range x.Stages {
			v := &x.Stages[i]
			rows = append(rows, []string{
				printable(v.Name), printable(string(v.State)), fmt.Sprint(v.Left), fmt.Sprint(v.Running), fmt.Sprint(v.Fit), printable(stageText(v)),
			})
		}
		if err := e.table(rows); err != nil {
			return err
		}
	}
	if len(x.Nodes) > 0 {
		fmt.Fprintln(e.out)
		rows = [][]string{{"NODE", "STATE", "LABELS", ""}}
		for i := range x.Nodes {
			v := &x.Nodes[i]
			rows = append(rows, []string{printable(shortNode(v.Node)), printable(string(v.State)), orDash(nodeLabels(v.Capacity)), printable(nodeText(v))})
		}
		if err := e.table(rows); err != nil {
			return err
		}
		if x.More > 0 {
			e.note("%s more", plural(x.More, "node"))
		}
	}
	if err := e.showProgress(x, maxShownTasks); err != nil {
		return err
	}
	if len(x.Last) > 0 {
		fmt.Fprintln(e.out)
	}
	for i := range x.Last {
		if _, err := fmt.Fprintln(e.out, eventLine(&x.Job, &x.Last[i])); err != nil {
			return err
		}
	}
	return nil
}

func stageText(v *grid.StageView) string {
	text := v.Text
	c := &v.Class
	for _, ask := range []struct {
		what, value string
	}{{"requires", c.Require}, {"prefers", c.Prefer}, {"cores", count(uint64(c.Cores))}, {"memory", size(c.Memory)}, {"scratch", size(c.Scratch)}} {
		if ask.value != "" && v.State != grid.StageDone {
			if text != "" {
				text += "; "
			}
			text += ask.what + " " + ask.value
		}
	}
	if c.Realm && v.State != grid.StageDone {
		if text != "" {
			text += "; "
		}
		text += "stays in this realm, whose keys or secrets it uses"
	}
	return text
}

func count(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func size(n uint64) string {
	if n == 0 {
		return ""
	}
	return formatSize(n)
}

// nodeLabels are a node's labels but for its own name.
func nodeLabels(c *grid.Capacity) string {
	if c == nil {
		return ""
	}
	l := maps.Clone(c.Labels)
	delete(l, grid.LabelNode)
	return printable(l.String())
}

// nodeText is what is said of a node, and of each stage that it cannot run.
func nodeText(v *grid.NodeView) string {
	text := v.Text
	if v.Owner {
		text += " (the job's owner)"
	}
	for _, stage := range slices.Sorted(maps.Keys(v.Lacks)) {
		if why := v.Lacks[stage]; !strings.Contains(text, why) {
			text += fmt.Sprintf("; not %s: %s", stage, why)
		}
	}
	return text
}
