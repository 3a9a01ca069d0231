package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wasmgrid/wasmgrid/grid"
)

// follower tells a job's story while it runs: progress and what guests say on standard error, the last
// stage's output on standard output in order of the tasks.
type follower struct {
	e        *env
	s        *session
	id       grid.JobID
	follow   bool // stay until the job has ended
	showBar  bool
	stdout   bool     // hand on the last stage's output
	stderr   bool     // hand on what guests say
	only     *taskRef // just this task
	stage    *uint32  // just this stage
	visible  bool     // what goes to a terminal is not to do anything to it
	keep     bool     // keep every task's end, for --json
	eachTask func(*grid.TaskEnd) error

	epoch grid.Epoch // of the owner that was seen last
	waits string     // why the job waits, as told last

	prefix bool // tell lines of different tasks apart
	last   uint32
	next   uint32                   // index of the task of the last stage whose output is due
	early  map[uint32]*grid.TaskEnd // of the last stage, whose turn is yet to come
	seen   map[taskRef]struct{}
	failed []grid.TaskEnd
	tasks  []grid.TaskEnd // all, or those with a profile and those of the last stage that left something in /out
}

// taskRef names a task within a job.
type taskRef struct{ stage, index uint32 }

// maxReported is how many failed tasks are told of one by one.
const maxReported = 10

// run follows the job to its end, or tells what has ended so far.
func (f *follower) run(ctx context.Context) (grid.JobStatus, error) {
	f.early, f.seen = map[uint32]*grid.TaskEnd{}, map[taskRef]struct{}{}
	job, err := f.s.Job(ctx, f.id)
	if err != nil {
		return job, err
	}
	total := uint32(0)
	for _, st := range job.Stages {
		total += st.Tasks
	}
	f.prefix = total > 1 && f.only == nil
	f.last = uint32(max(len(job.Stages), 1) - 1)
	if f.only != nil {
		f.last = f.only.stage
	}
	if f.stage != nil {
		f.last = *f.stage
	}

	group, ctx2 := errgroup.WithContext(ctx)
	if f.follow {
		group.Go(func() (err error) {
			job, err = f.watch(ctx2)
			return err
		})
	}
	group.Go(func() error {
		if err := f.s.Tasks(ctx2, f.id, f.follow, func(t grid.TaskEnd) error { return f.task(ctx2, t) }); err != nil {
			return err
		}
		return f.flush(ctx2)
	})
	err = group.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	slices.SortFunc(f.tasks, byIndex)
	slices.SortFunc(f.failed, byIndex)
	return job, err
}

func byIndex(a, b grid.TaskEnd) int {
	return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Index, b.Index))
}

// watch waits for the job's end and shows progress.
func (f *follower) watch(ctx context.Context) (grid.JobStatus, error) {
	if !f.showBar {
		return f.s.Watch(ctx, f.id, func(j grid.JobStatus) error { f.news(&j); return nil })
	}
	m := f.e.startMeter(progress{what: "starting"})
	defer m.stop()
	return f.s.Watch(ctx, f.id, func(j grid.JobStatus) error {
		f.news(&j)
		if j.State != grid.Waiting { // which knows of no progress
			m.set(stageProgress(j))
		}
		return nil
	})
}

// news tells when a job has got another owner, or waits for one.
func (f *follower) news(j *grid.JobStatus) {
	if f.epoch != 0 && j.Epoch > f.epoch && !j.State.Final() {
		f.e.note("node %s has taken job %s over", printable(shortNode(j.Owner)), f.id)
	}
	f.epoch = max(f.epoch, j.Epoch)
	if j.Note != "" && j.Note != f.waits {
		f.e.note("job %s waits: %s", f.id, printable(j.Note))
	}
	f.waits = j.Note
}

// stageProgress is that of the first stage that has not ended.
func stageProgress(j grid.JobStatus) progress {
	for _, st := range j.Stages {
		if st.Done+st.Failed < st.Tasks || st.Tasks == 0 {
			return progress{
				what: st.Name, unit: "tasks",
				done: uint64(st.Done) + uint64(st.Failed), total: uint64(st.Tasks), free: uint64(st.Cached), failed: uint64(st.Failed),
			}
		}
	}
	return progress{what: "finishing"}
}

// task hands on what one task says, or keeps it for later.
func (f *follower) task(ctx context.Context, t grid.TaskEnd) error {
	ref := taskRef{t.Stage, t.Index}
	if _, again := f.seen[ref]; again || f.only != nil && *f.only != ref || f.stage != nil && *f.stage != ref.stage {
		return nil
	}
	f.seen[ref] = struct{}{}
	if f.eachTask != nil {
		return f.eachTask(&t)
	}
	if f.stderr {
		if err := f.say(ctx, &t); err != nil {
			return err
		}
	}
	if !t.OK() {
		f.failed = append(f.failed, t)
	}
	isLast := t.Stage == f.last
	if f.keep || isLast && t.Out.Defined() || t.Profile.Defined() {
		f.tasks = append(f.tasks, t)
	}
	if !f.stdout || !isLast {
		return nil
	}
	if f.only != nil {
		return f.copyShown(ctx, f.e.out, f.e.terminal, &t.Stdout)
	}
	f.early[t.Index] = &t
	for {
		due := f.early[f.next]
		if due == nil {
			return nil
		}
		delete(f.early, f.next)
		f.next++
		if err := f.copyShown(ctx, f.e.out, f.e.terminal, &due.Stdout); err != nil {
			return err
		}
	}
}

// flush hands on the outputs behind a task that never ended.
func (f *follower) flush(ctx context.Context) error {
	for _, i := range slices.Sorted(maps.Keys(f.early)) {
		if err := f.copyShown(ctx, f.e.out, f.e.terminal, &f.early[i].Stdout); err != nil {
			return err
		}
	}
	clear(f.early)
	return nil
}

// copyShown is copyOutput to where people look, which may be a terminal.
func (f *follower) copyShown(ctx context.Context, w io.Writer, terminal bool, o *grid.TaskOutput) error {
	if !f.visible || !terminal {
		return f.copyOutput(ctx, w, o)
	}
	v := &visibleWriter{w: w}
	err := f.copyOutput(ctx, v, o)
	return errors.Join(err, v.end())
}

func (f *follower) copyOutput(ctx context.Context, w io.Writer, o *grid.TaskOutput) error {
	if !o.CID.Defined() {
		if len(o.Data) == 0 {
			return nil
		}
		_, err := w.Write(o.Data)
		return err
	}
	r, err := f.s.Cat(ctx, o.CID.Cid, "")
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// say hands on a task's standard error, each line with the task's name when there are several.
func (f *follower) say(ctx context.Context, t *grid.TaskEnd) error {
	if t.Stderr.Size == 0 && len(t.Stderr.Data) == 0 {
		return nil
	}
	if !f.prefix {
		return f.copyShown(ctx, f.e.err, f.e.width() > 0, &t.Stderr)
	}
	w := &prefixWriter{w: f.e.err, prefix: f.e.paint(dim, taskLabel(t)+" |") + " "}
	err := f.copyShown(ctx, w, f.e.width() > 0, &t.Stderr)
	return errors.Join(err, w.end())
}

// taskLabel is how people know a task: by its only input, or its number.
func taskLabel(t *grid.TaskEnd) string {
	if t.Input != "" && t.Inputs <= 1 {
		return printable(t.Input)
	}
	return fmt.Sprint(t.Index)
}

// prefixWriter writes whole lines, each behind a prefix.
type prefixWriter struct {
	w      io.Writer
	prefix string
	line   []byte
}

// maxPrefixLine is where a line without an end is broken.
const maxPrefixLine = 64 << 10

func (p *prefixWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		if room := maxPrefixLine - len(p.line); len(line) > room {
			line, rest, whole = b[:room], b[room:], true
		}
		p.line = append(p.line, line...)
		b = rest
		if !whole {
			break
		}
		if err := p.put(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// put writes the line in one go, so that the progress line does not come between.
func (p *prefixWriter) put() error {
	_, err := p.w.Write(slices.Concat([]byte(p.prefix), p.line, []byte{'\n'}))
	p.line = p.line[:0]
	return err
}

// end writes what is left behind the last newline.
func (p *prefixWriter) end() error {
	if len(p.line) == 0 {
		return nil
	}
	return p.put()
}

// reportFailures tells which tasks failed and how, and returns the error to exit with; nil when the
// job is done.
func (f *follower) reportFailures(job *grid.JobStatus) error {
	if job.State == grid.Done && len(f.failed) == 0 {
		return nil
	}
	for i := range f.failed[:min(len(f.failed), maxReported)] {
		fmt.Fprint(f.e.err, failureText(job, &f.failed[i], f.e))
	}
	if more := len(f.failed) - maxReported; more > 0 {
		fmt.Fprintf(f.e.err, "%s and %s more failed\n", f.e.paint(red, "grid:"), plural(more, "task"))
	}
	if job.State == grid.Done {
		f.e.note("job %s is done all the same: so many tasks may fail", f.id)
		return nil
	}
	exit, err := exitFailure, grid.Errorf(grid.Unknown, "job %s %s", f.id, job.State)
	switch {
	case job.State == grid.Cancelled:
		exit = exitCancelled
		err = grid.Errorf(grid.Canceled, "job %s was cancelled", f.id)
	case len(f.failed) > 0:
		exit = taskExit(&f.failed[0])
		err = grid.Errorf(grid.Exit, "job %s: %s failed", f.id, plural(len(f.failed), "task")).
			Hint("`grid logs %s` shows all that the tasks said", f.id)
	case job.Error != "":
		exit = exitOf(job.Code)
		err = grid.Errorf(job.Code, "job %s failed: %s", f.id, job.Error).Hint("`grid job %s` shows how far it came", f.id)
	}
	return &exitError{exit, err}
}

// failureText tells how one task failed.
func failureText(job *grid.JobStatus, t *grid.TaskEnd, e *env) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s task %d", e.paint(red, "grid:"), t.Index)
	if len(job.Stages) > 1 && int(t.Stage) < len(job.Stages) {
		fmt.Fprintf(&b, " of stage %s", printable(job.Stages[t.Stage].Name))
	}
	switch {
	case t.Input != "" && t.Inputs > 1:
		fmt.Fprintf(&b, " (%s and %d more)", printable(t.Input), t.Inputs-1)
	case t.Input != "":
		fmt.Fprintf(&b, " (%s)", printable(t.Input))
	}
	if t.Fault == nil {
		fmt.Fprintf(&b, " exited with code %d\n", t.Exit)
		return b.String()
	}
	fmt.Fprintf(&b, " failed: %s\n", printable(t.Fault.Message))
	if stack := strings.TrimSpace(t.Fault.Stack); stack != "" {
		for line := range strings.Lines(stack) {
			fmt.Fprintf(&b, "    %s\n", printable(strings.TrimSpace(line)))
		}
	}
	return b.String()
}

// summary is the last line about a job that was run.
func summary(job *grid.JobStatus, took time.Duration) []string {
	var tasks, cached uint32
	nodes := map[string]uint32{}
	for _, st := range job.Stages {
		tasks += st.Done + st.Failed
		cached += st.Cached
		for n, c := range st.Nodes {
			nodes[n] += c
		}
	}
	var out []string
	if cached > 0 {
		were := "were"
		if cached == 1 {
			were = "was"
		}
		out = append(out, fmt.Sprintf("%d of %s %s known from earlier runs", cached, plural(tasks, "task"), were))
	}
	line := plural(tasks, "task") + " in " + formatTime(took)
	if len(nodes) > 0 {
		names := slices.SortedFunc(maps.Keys(nodes), func(a, b string) int {
			return cmp.Or(cmp.Compare(nodes[b], nodes[a]), cmp.Compare(a, b))
		})
		parts := make([]string, 0, len(names))
		for _, n := range names[:min(len(names), 8)] {
			parts = append(parts, fmt.Sprintf("%s %d", shortNode(n), nodes[n]))
		}
		if more := len(names) - 8; more > 0 {
			parts = append(parts, fmt.Sprintf("%d more", more))
		}
		line += " on " + plural(len(nodes), "node") + " (" + strings.Join(parts, ", ") + ")"
	}
	return append(out, line)
}

// shortNode is the end of a node's ID, which tells nodes apart; they all begin alike.
func shortNode(id string) string {
	const n = 6
	if len(id) <= n {
		return id
	}
	return "…" + id[len(id)-n:]
}
