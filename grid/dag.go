package grid

import (
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// checkSources checks where a stage's inputs come from and in what form it leaves its output, and settles how many
// tasks that makes. As sources come before the stage, a spec has no cycles.
func (st *Stage) checkSources(before []Stage) error {
	tasks, by := st.Tasks, "its number of tasks"
	switch {
	case st.Inputs.Defined():
		by = "its table"
	case tasks == 0:
		by = ""
	}
	names := make(map[string]bool, len(st.From))
	inputs := uint64(0)
	if len(st.From) > MaxStages {
		return Errorf(Limit, "it takes from %d stages, at most %d are allowed", len(st.From), MaxStages)
	}
	for k := range st.From {
		src := &st.From[k]
		if int(src.Stage) >= len(before) {
			return Errorf(Invalid, "it takes from stage %d, which does not come before it", src.Stage).
				Hint("a stage takes from earlier ones only: put stage %d first", src.Stage)
		}
		from := &before[src.Stage]
		if err := src.check(from); err != nil {
			return err
		}
		switch {
		case src.As == "" && (len(st.From) > 1 || st.Inputs.Defined()):
			return Errorf(Invalid, "what it takes from stage %d (%s) needs a name, as it has other inputs, too", src.Stage, from.Name)
		case names[src.As]:
			return Errorf(Invalid, "two of its sources are named %q", src.As)
		}
		names[src.As] = true
		n, each := src.tasks(from), src.inputs(from)
		if inputs += each; inputs > MaxTaskInputs {
			return Errorf(Limit, "with those from stage %d (%s) each task has up to %d inputs, at most %d are allowed",
				src.Stage, from.Name, inputs, MaxTaskInputs).Hint("put a stage between them that combines fewer outputs at a time")
		}
		if n == 0 {
			continue
		}
		how := fmt.Sprintf("%s of stage %d (%s)", src.how(), src.Stage, from.Name)
		if by == "" {
			tasks, by = n, how
		} else if n != tasks {
			return Errorf(Invalid, "%s makes %d tasks, but %s %d", by, tasks, how, n)
		}
	}
	if tasks == 0 && len(st.From) > 0 {
		tasks = 1
	}
	st.Tasks = tasks
	switch {
	case tasks == 0:
		return Errorf(Invalid, "no tasks")
	case tasks > MaxTasks:
		return Errorf(Limit, "%d tasks, at most %d are allowed", tasks, MaxTasks).
			Hint("give each task several inputs, with --group")
	case st.Merge && (st.Feed || st.Stdin.Defined()):
		return Errorf(Invalid, "stdin is either the merged lines of the task's inputs or something else")
	case st.Merge && len(st.From) == 0 && !st.Inputs.Defined():
		return Errorf(Invalid, "it merges its inputs, but has none")
	case st.Split != "" && st.Split != SplitLines:
		return Errorf(Invalid, "split %.40q: want %q, or nothing when the tasks do it themselves", st.Split, SplitLines)
	case st.Split != "" && st.Partitions == 0:
		return Errorf(Invalid, "its output is to be split, but into how many partitions is not said")
	case st.Partitions > MaxPartitions:
		return Errorf(Limit, "%d partitions, at most %d are allowed", st.Partitions, MaxPartitions)
	case uint64(st.Partitions)*uint64(tasks) > MaxPieces:
		return Errorf(Limit, "%d tasks of %d partitions make %d pieces, at most %d are allowed",
			tasks, st.Partitions, uint64(st.Partitions)*uint64(tasks), MaxPieces)
	}
	return nil
}

// check checks a source on its own.
func (s *Source) check(from *Stage) error {
	switch {
	case s.Part && s.Fan > 0:
		return Errorf(Invalid, "it takes from stage %d (%s) either by parts or by fan", s.Stage, from.Name)
	case s.Part && from.Partitions == 0:
		return Errorf(Invalid, "it takes from stage %d (%s) by parts, but that leaves none", s.Stage, from.Name).
			Hint("give that stage a number of partitions")
	case s.As != "" && (!fs.ValidPath(s.As) || s.As == "." || strings.ContainsAny(s.As, "/\x00") || len(s.As) > MaxName):
		return Errorf(Invalid, "the name %.40q of what it takes from stage %d (%s): want one element of a path, of at most %d bytes",
			s.As, s.Stage, from.Name, MaxName)
	}
	return nil
}

// tasks is how many tasks a source makes; 0: any number.
func (s *Source) tasks(from *Stage) uint32 {
	switch {
	case s.Part:
		return from.Partitions
	case s.Fan > 0:
		return (from.Tasks-1)/s.Fan + 1
	}
	return 0
}

// inputs is how many inputs of a task are of a source, at most.
func (s *Source) inputs(from *Stage) uint64 {
	switch {
	case s.Part:
		return uint64(from.Tasks)
	case s.Fan > 0:
		return 2 * uint64(min(s.Fan, from.Tasks)) // what it printed and what it left
	}
	return 1
}

func (s *Source) how() string {
	if s.Part {
		return "each part"
	}
	return fmt.Sprintf("each %d tasks", s.Fan)
}

// needs is which tasks of its stage, of so many, task i takes from.
func (s *Source) needs(i, tasks uint32) Span {
	if s.Part || s.Fan == 0 {
		return Span{0, tasks}
	}
	lo := min(uint64(i)*uint64(s.Fan), uint64(tasks))
	return Span{uint32(lo), uint32(min(lo+uint64(s.Fan), uint64(tasks)))}
}

// name is what an entry of a source is called below /in.
func (s *Source) name(entry string) string {
	if s.As == "" {
		return entry
	}
	return s.As + "/" + entry
}

// plans are the shapes of the stages under a policy, for the scheduler.
func (s *Spec) plans(p *Policy) []StagePlan {
	plans := make([]StagePlan, len(s.Stages))
	for i := range s.Stages {
		st := &s.Stages[i]
		plans[i] = StagePlan{Tasks: st.Tasks, Class: st.class(p), Attempts: int(st.Attempts)}
		for _, src := range st.From {
			plans[i].Needs = append(plans[i].Needs, Need{Stage: src.Stage, Fan: src.Fan})
		}
	}
	return plans
}

// given tells which stages have their outputs given on task by task.
func (s *Spec) given() []bool {
	given := make([]bool, len(s.Stages))
	for i := range s.Stages {
		for _, src := range s.Stages[i].From {
			given[src.Stage] = given[src.Stage] || src.Fan > 0
		}
	}
	return given
}

// preparing is what the preparation of a stage's tasks needs. Who finds that nobody is at it does it, until nothing
// is left to do: only todo and busy are guarded, by the job's mu.
type preparing struct {
	todo   []Span
	busy   bool
	plan   *plan
	others *recaller // who may know of tasks that have been run; made when the first one is asked
}

// toPrepare adds to the tasks of a stage that are to be prepared. It is true if somebody has to do it.
func (j *job) toPrepare(stage uint32, spans []Span) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := &j.stages[stage]
	for _, s := range spans {
		st.status.Blocked -= min(st.status.Blocked, s.Len())
	}
	st.prep.todo = append(st.prep.todo, spans...)
	if st.prep.busy {
		return false
	}
	st.prep.busy = true
	return true
}

// next takes what there is to prepare of a stage; nothing when that is all.
func (j *job) next(stage uint32) []Span {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := &j.stages[stage].prep
	spans := p.todo
	p.todo, p.busy = nil, len(spans) > 0
	return spans
}

// prepare has tasks prepared, unless others of their stage are just being: then these come next.
func (n *Node) prepare(e Prepare) {
	j := n.job(e.Job)
	if j == nil || j.over(j.rec.Epoch) { // it was cancelled before the scheduler had heard of it
		n.post(JobEnded{Job: e.Job})
		return
	}
	if j.batch != nil || !j.toPrepare(e.Stage, e.Spans) { // a batch is laid out by who spawned it
		return
	}
	for spans := j.next(e.Stage); len(spans) > 0; spans = j.next(e.Stage) {
		if err := n.layOut(j, e.Work, spans); err != nil {
			if n.ctx.Err() == nil && n.end(j, Failed, Errorf(CodeOf(err), "stage %d: %w", e.Stage, err)) { // else this node may have taken it anew
				n.post(JobEnded{Job: e.Job})
			}
			return
		}
	}
}

const (
	// firstPiece and laterPieces are how many tasks are looked up among earlier receipts before the
	// scheduler may hand out what remains of them: few at first, so that work begins at once.
	firstPiece  = 256
	laterPieces = 4096
)

// layOut finds out what is known of tasks whose inputs are there, books it, and lets the scheduler hand out the others.
func (n *Node) layOut(j *job, w Work, spans []Span) error {
	n.openStage(j, w.Stage)
	l := j.lease()
	l.Stage = w.Stage
	if st := &j.spec.Stages[w.Stage]; len(st.From) == 0 {
		l.Table = st.Inputs
	}
	prep := &j.stages[w.Stage].prep
	if prep.plan == nil {
		p, err := n.planFor(n.ctx, l)
		if err != nil {
			return err
		}
		prep.plan = p
	}
	if err := n.bookVain(j, prep.plan, spans); err != nil {
		return err
	}
	most := uint32(firstPiece)
	for len(spans) > 0 {
		var group []Span
		group, spans = cutSpans(spans, most)
		most = laterPieces
		known, err := n.bookKnown(j, prep, group)
		if err != nil {
			return err
		}
		if !n.post(Prepared{Work: w, Table: l.Table, Ready: group, Done: known.done, Failed: known.failed, Votes: j.votes(w.Stage, group)}) {
			return nil
		}
		n.hint(prep.plan, group...)
	}
	return nil
}

// cutSpans takes the first tasks off spans, so many at most.
func cutSpans(spans []Span, most uint32) (first, rest []Span) {
	for k, s := range spans {
		if s.Len() >= most {
			first = append(first, Span{s.Lo, s.Lo + most})
			rest = append(rest, Span{s.Lo + most, s.Hi})
			if s.Len() == most {
				rest = nil
			}
			return first, append(rest, spans[k+1:]...)
		}
		if s.Len() > 0 {
			first, most = append(first, s), most-s.Len()
		}
	}
	return first, nil
}

// openStage makes room for a stage's results, once, and books those that earlier owners have saved.
func (n *Node) openStage(j *job, stage uint32) {
	j.stages[stage].open.Do(func() {
		j.open(stage)
		if j.inherited {
			j.load.Do(func() { j.saved = n.loadCheckpoint(j) })
			n.bookSaved(j, Work{j.rec.ID, stage}, j.saved[stage])
		}
	})
}

// restore books what earlier owners have saved of stages that this one has not come to: a job that ends now has done that, too.
func (n *Node) restore(j *job) {
	restoring := func(is bool) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.restoring = is
	}
	restoring(true)
	defer restoring(false)
	j.load.Do(func() { j.saved = n.loadCheckpoint(j) })
	for stage, tables := range j.saved {
		if len(tables) > 0 {
			n.openStage(j, uint32(stage))
		}
	}
}

// bookVain books what comes of failures that the job was allowed, or goes on after. What tasks need has ended when
// they are prepared. Of that, what has no result was given up: this node says so. A task that needs nothing but what
// has failed is not run.
func (n *Node) bookVain(j *job, p *plan, spans []Span) error {
	st := &p.stage
	if len(st.From) == 0 {
		return nil
	}
	some := true // of every source, some tasks have failed
	for k := range st.From {
		src := &st.From[k]
		for _, i := range j.missing(src, spans) {
			if err := n.bookGivenUp(j, taskRef{src.Stage, i}); err != nil {
				return err
			}
		}
		some = some && j.failures(src.Stage) > 0
	}
	if !some {
		return nil
	}
	var vain []Completion
	for _, s := range spans {
		for i := s.Lo; i < s.Hi; i++ {
			why, err := j.vain(st, i)
			if err != nil {
				return err
			}
			if why == "" {
				continue
			}
			c, err := n.failure(p, i, Fault{Code: NotFound, Message: clean(why, maxMessage)})
			if err != nil {
				return err
			}
			vain = append(vain, c)
		}
	}
	_, _, err := j.book(p.lease.Work(), p.lease.Epoch, vain, false, true)
	return err
}

// missing lists the tasks that some others need of a source and that have no result.
func (j *job) missing(src *Source, spans []Span) (out []uint32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ending {
		return nil
	}
	results, tasks := j.stages[src.Stage].results, j.spec.Stages[src.Stage].Tasks
	if src.Fan == 0 && len(spans) > 0 {
		spans = spans[:1] // each of them needs all
	}
	for _, s := range spans {
		for i := src.needs(s.Lo, tasks).Lo; i < src.needs(s.Hi-1, tasks).Hi; i++ {
			if int(i) >= len(results) || results[i] == nil {
				out = append(out, i)
			}
		}
	}
	return out
}

// failures counts the tasks of a stage that have failed.
func (j *job) failures(stage uint32) uint32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stages[stage].status.Failed
}

// vain says why a task is not to be run, "" if it is: all that it needs has failed.
func (j *job) vain(st *Stage, i uint32) (why string, err error) {
	for k := range st.From {
		src := &st.From[k]
		from := &j.spec.Stages[src.Stage]
		need := src.needs(i, from.Tasks)
		if src.Fan == 0 && j.failures(src.Stage) < from.Tasks {
			return "", nil
		}
		for t := need.Lo; t < need.Hi; t++ {
			c, err := j.ended(src.Stage, t)
			if err != nil {
				return "", err
			}
			if c.Receipt.OK() {
				return "", nil
			}
			if why == "" {
				why = fmt.Sprintf("not run, as what it needs has failed: %s task %d: %v", from.Name, t, c.Receipt.Err())
			}
		}
	}
	return why, nil
}

// bookGivenUp books a task that no node could run.
func (n *Node) bookGivenUp(j *job, ref taskRef) error {
	n.openStage(j, ref.stage)
	j.mu.Lock()
	last, ok := j.troubles[ref]
	j.mu.Unlock()
	if !ok {
		last = hostFailure{Code: Unavailable, Message: "its nodes could not run it"}
	}
	r := Receipt{Node: n.self, Started: time.Now().UnixNano(), Fault: &Fault{Code: last.Code, Message: clean("given up: "+last.Message, maxMessage)}}
	if err := Sign(n.Key, &r); err != nil {
		return err
	}
	_, _, err := j.book(Work{j.rec.ID, ref.stage}, j.rec.Epoch, []Completion{{Index: ref.index, Receipt: r}}, false, true)
	return err
}

// bookRest books the tasks of a job that is about to end that were given up: if it ends well, all that have no result.
func (n *Node) bookRest(j *job, e CloseJob) error {
	for _, f := range e.Failed {
		if f.Attempts > 0 {
			if err := n.bookGivenUp(j, taskRef{f.Stage, f.Index}); err != nil {
				return err
			}
		}
	}
	if e.Bad || e.Failures <= uint32(len(e.Failed)) { // only the first ones are listed
		return nil
	}
	for stage := range uint32(len(j.stages)) {
		for _, i := range j.missing(&Source{Stage: stage}, []Span{{0, 1}}) {
			if err := n.bookGivenUp(j, taskRef{stage, i}); err != nil {
				return err
			}
		}
	}
	return nil
}

// failure is the result of a task that this node has not run, and that nobody need run.
func (n *Node) failure(p *plan, i uint32, f Fault) (Completion, error) {
	t, err := p.task(n.ctx, i)
	if err != nil {
		return Completion{}, err
	}
	key, err := t.Key()
	if err != nil {
		return Completion{}, err
	}
	r := Receipt{Key: key, Node: n.self, Started: time.Now().UnixNano(), Fault: &f}
	if err := Sign(n.Key, &r); err != nil {
		return Completion{}, err
	}
	return completion(&t, r, false), nil
}

// maxTroubles bounds the tasks of which it is remembered why nodes could not run them.
const maxTroubles = 1 << 10

// troubled notes why a node could not run a task.
func (j *job) troubled(stage uint32, f hostFailure) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.trouble = f
	ref := taskRef{stage, f.Index}
	if _, again := j.troubles[ref]; !again && len(j.troubles) >= maxTroubles {
		return
	}
	if j.troubles == nil {
		j.troubles = make(map[taskRef]hostFailure)
	}
	j.troubles[ref] = f
}
