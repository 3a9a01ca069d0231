package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

// lineFlags are those of grid logs that show lines, rather than what tasks wrote as it is.
type lineFlags struct {
	lines, stamps bool
	since, node   string
	grep, stream  string
	limit         int
}

func (f *lineFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.lines, "lines", false, "show lines as they are printed, of tasks that run, too; so do the flags that follow, and -f on a terminal")
	fl.StringVar(&f.since, "since", "", "only what was printed after a `TIME`: 10m ago, or a date such as 2006-01-02T15:04:05Z")
	fl.StringVar(&f.node, "node", "", "only of tasks that ran on this `NODE`, by its ID or the end of it")
	fl.StringVar(&f.grep, "grep", "", "only lines with this `PATTERN`, in RE2's syntax")
	fl.StringVar(&f.stream, "stream", "", "only this `STREAM`: stdout or stderr")
	fl.BoolVarP(&f.stamps, "timestamps", "t", false, "tell when each line was printed")
	fl.IntVar(&f.limit, "limit", 0, "no more than `N` lines")
	completeFlag(cmd, "stream", grid.StreamOut, grid.StreamErr)
}

// wanted reports whether lines are.
func (f *lineFlags) wanted(cmd *cobra.Command) bool {
	for _, name := range []string{"since", "node", "grep", "stream", "timestamps", "limit"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return f.lines
}

// query is what is asked for.
func (f *lineFlags) query(ctx context.Context, e *env, s *session, follow bool) (q grid.LogQuery, err error) {
	q = grid.LogQuery{Stream: f.stream, Grep: f.grep, Follow: follow, Limit: f.limit}
	if q.Since, err = parseSince(f.since, e.now()); err != nil {
		return q, grid.Errorf(grid.Invalid, "--since %q: %w", f.since, err)
	}
	if f.node != "" {
		q.Node, err = findNode(ctx, s, f.node)
	}
	return q, err
}

// findNode finds a node by its ID or the end of that, which is what tells nodes apart.
func findNode(ctx context.Context, s *session, text string) (string, error) {
	if _, err := parseNode(text, "peers"); err == nil {
		return text, nil
	}
	end := strings.TrimPrefix(text, "…")
	self, err := s.Node(ctx)
	if err != nil {
		return "", err
	}
	peers, err := s.Peers(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, id := range append([]string{self.ID}, idsOf(peers)...) {
		if end != "" && strings.HasSuffix(id, end) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", grid.Errorf(grid.NotFound, "no node that is connected has an ID that ends with %.60q", end).Hint("`grid peers` lists them; one that is gone is named by all of its ID")
	}
	return "", grid.Errorf(grid.Invalid, "the IDs of %d nodes end with %q", len(found), end).Hint("give more of it")
}

func idsOf(peers []grid.PeerInfo) (ids []string) {
	for i := range peers {
		ids = append(ids, peers[i].ID.String())
	}
	return ids
}

// showLines shows the lines that q asks for.
func (e *env) showLines(ctx context.Context, s *session, id grid.JobID, q grid.LogQuery, f *lineFlags, asJSON bool) error {
	job, err := s.Job(ctx, id)
	if err != nil {
		return err
	}
	p := linePrinter{e: e, stamps: f.stamps, stages: len(job.Stages) > 1 && q.Stage == nil}
	tasks := uint32(0)
	for i := range job.Stages {
		tasks += job.Stages[i].Tasks
	}
	p.tasks = tasks > 1 && q.Task == nil || p.stages
	for i := range job.Stages {
		p.names = append(p.names, job.Stages[i].Name)
	}
	show := p.print
	if asJSON {
		enc := json.NewEncoder(e.out)
		show = func(l grid.LogLine) error { return enc.Encode(l) }
	}
	shown := 0
	if err := s.Logs(ctx, id, q, func(l grid.LogLine) error { shown++; return show(l) }); err != nil {
		return err
	}
	if job, err = s.Job(ctx, id); err == nil && job.Error != "" && !asJSON {
		e.note("job %s: %s", id, printable(job.Error))
	} else if err == nil && shown == 0 && !asJSON && !job.State.Final() {
		e.note("nothing was printed yet; -f waits for it")
	}
	return err
}

// linePrinter writes lines for people: those of stdout to stdout, all others to stderr.
type linePrinter struct {
	e             *env
	stamps        bool
	tasks, stages bool // tell those of several apart
	names         []string
}

// stampForm is a time in a column.
const stampForm = "2006-01-02T15:04:05.000Z07:00"

func (p *linePrinter) print(l grid.LogLine) error {
	to, terminal := p.e.out, p.e.terminal
	if l.Stream != grid.StreamOut {
		to, terminal = p.e.err, p.e.width() > 0
	}
	text := l.Text
	if terminal {
		text = printableLines(strings.TrimSuffix(text, "\r"))
	}
	var b bytes.Buffer
	if p.stamps {
		b.WriteString(p.e.paint(dim, l.At.Local().Format(stampForm)) + " ")
	}
	if p.tasks {
		label := fmt.Sprint(l.Task)
		if p.stages {
			stage := fmt.Sprint(l.Stage)
			if int(l.Stage) < len(p.names) {
				stage = printable(p.names[l.Stage])
			}
			label = stage + "/" + label
		}
		b.WriteString(p.e.paint(dim, label+" |") + " ")
	}
	if l.Stream == grid.StreamNote {
		b.WriteString(p.e.paint(dim, "grid:") + " ")
	}
	b.WriteString(text + "\n")
	_, err := to.Write(b.Bytes())
	return err
}

// stamp is a time for people: today's without the day.
func stamp(t, now time.Time) string {
	t = t.Local()
	if y, m, d := t.Date(); now.Sub(t) < 24*time.Hour {
		if ny, nm, nd := now.Local().Date(); y == ny && m == nm && d == nd {
			return t.Format("15:04:05.000")
		}
	}
	return t.Format("2006-01-02 15:04:05")
}
