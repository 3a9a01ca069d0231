package grid

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Explanation says why a job stands as it does: what it waits for, and what each node has to do with it.
type Explanation struct {
	Job    JobStatus   `json:"job"`                  // as it stands
	Reason string      `json:"reason"`               // what matters most, in a sentence
	Advice []string    `json:"advice,omitempty"`     // what may help
	Stages []StageView `json:"stages"`               // in the order of the spec
	Nodes  []NodeView  `json:"nodes,omitempty"`      // none once the job has ended
	More   int         `json:"more_nodes,omitempty"` // nodes that are left out, as there are too many
	// Tasks are some of those that run, with how far they are.
	Tasks []TaskProgress `json:"tasks,omitempty"`
	Last  []JobEvent     `json:"events,omitempty"` // the last that went wrong
	// Deadline is when it fails unless it has ended, Start when it does unless a task has begun to run.
	Deadline time.Time `json:"deadline,omitzero"`
	Start    time.Time `json:"start,omitzero"`

	paused *excess // that it is paused for
}

// StageView is what is to be known of a stage.
type StageView struct {
	Name    string     `json:"name"`    // as in the spec
	State   StageState `json:"state"`   // where it stands
	Text    string     `json:"text"`    // the same, in a sentence
	Left    uint32     `json:"left"`    // tasks that have not ended
	Running int        `json:"running"` // worker slots that are known to run it
	Fit     int        `json:"fit"`     // nodes that can run its tasks
	Class   Class      `json:"class"`   // what it asks of nodes
}

// StageState says where a stage stands.
type StageState string

// The states of a stage.
const (
	StageDone     StageState = "done"
	StageRunning  StageState = "running"
	StageQueued   StageState = "queued"   // nothing of it runs, though it could
	StageWaits    StageState = "waiting"  // for other stages
	StageUnplaced StageState = "unplaced" // no node can run it
)

// NodeView is what a node has to do with a job.
type NodeView struct {
	Node     string    `json:"node"`               // its peer ID
	State    NodeState `json:"state"`              // what it has to do with the job
	Text     string    `json:"text"`               // the same, in a sentence
	Owner    bool      `json:"owner,omitempty"`    // it drives the job
	Load     *Load     `json:"load,omitempty"`     // as it says
	Capacity *Capacity `json:"capacity,omitempty"` // likewise
	Running  int       `json:"running"`            // worker slots that run the job
	// Lacks says of the stages that have not ended, by name, why this node can run none of their tasks.
	Lacks map[string]string `json:"lacks,omitempty"`
}

// NodeState says what a node has to do with a job.
type NodeState string

// The states of a node.
const (
	NodeRuns    NodeState = "runs"    // some of it
	NodeFree    NodeState = "free"    // it could
	NodeBusy    NodeState = "busy"    // with other work
	NodeUnfit   NodeState = "unfit"   // it can run nothing of it
	NodeSilent  NodeState = "silent"  // it does not answer
	NodeAccused NodeState = "accused" // it is left alone, for what it did
)

// What a node is asked about its load.
const protoLoad Protocol = "load/1" // any node to any other: loadMsg, loadReply

// protoWhy asks a job's owner to explain it.
const protoWhy Protocol = "job-why/1" // any node to owner: whyMsg, Explanation

type (
	loadMsg struct {
		Job JobID `cbor:"job,omitempty"`
	}
	loadReply struct {
		Load    Load       `cbor:"load"`
		Has     Capacity   `cbor:"has"`
		Running []stageRun `cbor:"running,omitempty"` // of the job
		Spawned int        `cbor:"spawned,omitempty"` // slots that run what its tasks have spawned
		Tasks   []taskRun  `cbor:"tasks,omitempty"`   // of the job, some of those that run
	}
	stageRun struct {
		Stage uint32 `cbor:"stage"`
		Slots int    `cbor:"slots"`
	}
	whyMsg struct {
		Job JobID `cbor:"job"`
	}
)

// Bounds on an explanation.
const (
	maxNodeViews  = 512
	loadTimeLimit = time.Second     // for one node's answer
	whyTimeout    = 4 * time.Second // for all of them
	maxLastWrong  = 5
)

func (n *Node) serveWhy() {
	serveCall(n, protoLoad, n.onLoad)
	serveCall(n, protoWhy, func(ctx context.Context, from peer.ID, m whyMsg) (Explanation, error) {
		if err := n.checkRealm(ctx, from); err != nil {
			return Explanation{}, err
		}
		j := n.own(m.Job)
		if j == nil {
			return Explanation{}, errElsewhere
		}
		return n.explain(ctx, j), nil
	})
}

func (n *Node) onLoad(ctx context.Context, from peer.ID, m loadMsg) (loadReply, error) {
	if err := n.checkRealm(ctx, from); err != nil {
		return loadReply{}, err
	}
	return n.ownLoad(m.Job), nil
}

func (n *Node) ownLoad(id JobID) loadReply {
	r := loadReply{Load: n.Load(), Has: n.Capacity}
	var stages map[uint32]int
	stages, r.Spawned = n.busy.of(id)
	for _, stage := range slices.Sorted(maps.Keys(stages)) {
		r.Running = append(r.Running, stageRun{stage, stages[stage]})
	}
	r.Tasks = n.attempts.of(id, time.Now())
	return r
}

// check refuses an answer that makes no sense.
func (r *loadReply) check() error {
	if len(r.Running) > MaxStages || len(r.Tasks) > maxTaskRuns || r.Spawned < 0 || r.Load.Running < 0 || r.Load.Slots < 0 {
		return Errorf(Invalid, "a load of %d of %d slots, in %d stages", r.Load.Running, r.Load.Slots, len(r.Running))
	}
	return r.Has.Check()
}

// occupied is what the worker slots run.
type occupied struct {
	mu    sync.Mutex
	slots map[int]Lease
}

func (o *occupied) set(slot int, l Lease) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.slots == nil {
		o.slots = make(map[int]Lease)
	}
	o.slots[slot] = l
}

func (o *occupied) clear(slot int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.slots, slot)
}

// of counts the slots that run each stage of a job, and what its tasks have spawned.
func (o *occupied) of(id JobID) (stages map[uint32]int, spawned int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	stages = make(map[uint32]int)
	for _, l := range o.slots {
		switch id {
		case l.Job:
			stages[l.Stage]++
		case rootJob(l.Job):
			spawned++
		}
	}
	return stages, spawned
}

func (o *occupied) leases() []Lease {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Values(o.slots))
}

// Why explains how a job stands, as well as can be told: its owner is asked, and that asks all nodes.
func (n *Node) Why(ctx context.Context, id JobID) (Explanation, error) {
	j, rec, err := n.find(ctx, id)
	var unwanted, advice string
	if err == nil && j == nil {
		unwanted, advice = n.unwanted(&rec)
	}
	switch {
	case err != nil:
		return Explanation{}, err
	case j != nil:
		return n.explain(ctx, j), nil
	case rec.State.Final():
		return n.explainEnd(ctx, &rec), nil
	case unwanted != "":
	case rec.Owner != n.self && !n.Bound && !n.gone(rec.Owner):
		ask, cancel := context.WithTimeout(ctx, callTimeout)
		e, err := call[Explanation](ask, n, rec.Owner, protoWhy, whyMsg{Job: rec.ID})
		cancel()
		if err == nil && e.check() == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return Explanation{}, context.Cause(ctx)
		}
	}
	e := Explanation{Job: n.describe(ctx, []Record{rec})[0]}
	e.times(&rec)
	e.Reason = cmp.Or(e.Job.Note, "its owner has just taken it up")
	for i := range e.Job.Stages {
		st := &e.Job.Stages[i]
		v := StageView{Name: st.Name, State: StageQueued, Left: st.Tasks - min(st.Done+st.Failed, st.Tasks)}
		if v.Left == 0 {
			v.State = StageDone
		}
		e.Stages = append(e.Stages, v)
	}
	if unwanted != "" {
		e.Reason, e.Advice = unwanted, []string{advice}
	} else if e.Job.State == Waiting {
		e.Advice = []string{"another node of the realm takes the job over when its owner's session has ended, within some seconds; if none does, look at `grid ledger status`"}
		if n.Bound {
			e.Reason, e.Advice = "its node is not running", []string{"start it with `grid up`"}
		}
	}
	return e, nil
}

// check refuses an explanation that is too much to show.
func (e *Explanation) check() error {
	if len(e.Stages) > MaxStages || len(e.Tasks) > maxTaskProgress || len(e.Nodes) > maxNodeViews || len(e.Last) > maxEventList {
		return Errorf(Invalid, "an explanation with %d stages, %d nodes and %d events", len(e.Stages), len(e.Nodes), len(e.Last))
	}
	return nil
}

func (e *Explanation) times(rec *Record) {
	if rec.Deadline > 0 {
		e.Deadline = rec.Submitted.Add(rec.Deadline)
	}
	if rec.Start > 0 {
		e.Start = rec.Submitted.Add(rec.Start)
	}
}

// explainEnd explains a job that has ended.
func (n *Node) explainEnd(ctx context.Context, rec *Record) Explanation {
	e := Explanation{Job: n.storedStatus(ctx, rec), Reason: "it is done: all tasks ended well"}
	e.times(rec)
	failed := 0
	for i := range e.Job.Stages {
		st := &e.Job.Stages[i]
		v := StageView{Name: st.Name, State: StageDone, Left: st.Tasks - min(st.Done+st.Failed, st.Tasks)}
		failed += int(st.Failed)
		switch {
		case v.Left > 0:
			v.State, v.Text = StageQueued, fmt.Sprintf("%d of %d tasks did not end", v.Left, st.Tasks)
		case st.Failed > 0:
			v.Text = fmt.Sprintf("%d of %d tasks failed", st.Failed, st.Tasks)
		}
		e.Stages = append(e.Stages, v)
	}
	switch {
	case rec.Error != "":
		e.Reason = rec.Error
	case failed > 0:
		e.Reason = fmt.Sprintf("it is done, though %s failed: so many may", plural(failed, "task"))
		e.advise("`grid logs %s` shows what its tasks printed, and how they failed", rec.ID)
	}
	t := &teller{n: n, f: func(ev JobEvent) error {
		if ev.Kind != EventStage && ev.Kind != EventStarted {
			e.Last = append(e.Last, ev)
		}
		return nil
	}}
	if err := t.final(ctx, rec); err != nil {
		n.log.Debug("events not read", "job", rec.ID, "err", err)
	}
	e.Last = e.Last[max(0, len(e.Last)-maxLastWrong):]
	switch rec.Code {
	case Exit, Trap:
		e.advise("`grid logs %s` shows what its tasks printed, `grid job %s --task N` how one of them ended", rec.ID, rec.ID)
		if rec.State == Failed {
			e.advise("--keep-going has the other tasks run all the same, --allow-failures N has the job end well in spite of some failures")
		}
	case Limit:
		e.advise("give tasks more, with --memory, --scratch, --output-limit or --fuel, whichever ran out")
	case Deadline:
		e.advise("give it more time: --deadline and --start-within for the job, --timeout and --total-timeout for a task")
	case Unavailable, NoSpace, Internal:
		e.advise("the nodes failed, not the program: `grid events %s` tells which; --attempts has tasks tried more often", rec.ID)
	}
	return e
}

func (e *Explanation) advise(format string, args ...any) {
	e.Advice = append(e.Advice, fmt.Sprintf(format, args...))
}

// demand is what a stage asks of nodes, ready to be compared with what they have.
type demand struct {
	class   Class
	require Selector
	any     bool // every node with a slot will do
}

func demandsOf(spec *Spec, p *Policy) []demand {
	out := make([]demand, len(spec.Stages))
	for i := range out {
		d := &out[i]
		d.class = spec.Stages[i].class(p)
		d.require, _ = ParseSelector(d.class.Require) // it was checked
		d.any = d.class.Require == "" && d.class.Cores <= 1 && d.class.Memory == 0 && d.class.Scratch == 0
	}
	return out
}

// explain explains a job that runs here.
func (n *Node) explain(ctx context.Context, j *job) Explanation {
	st, _ := j.status()
	j.mu.Lock()
	rec, trouble, paused := j.rec, j.trouble, j.paused
	opened := make([]bool, len(j.stages))
	for i := range j.stages {
		opened[i] = j.stages[i].results != nil
	}
	story := j.story.since(time.Time{})
	j.mu.Unlock()
	e := Explanation{Job: st, paused: paused}
	e.times(&rec)
	for _, ev := range story {
		switch ev.Kind {
		case EventRetry, EventFailed, EventLost, EventAccused, EventUnplaced, EventPolicy, EventPaused, EventResumed:
			e.Last = append(e.Last, ev)
		}
	}
	e.Last = e.Last[max(0, len(e.Last)-maxLastWrong):]

	plans := j.spec.plans(&rec.Policy)
	var open []int // stages that have not ended
	for i := range j.spec.Stages {
		s := &st.Stages[i]
		v := StageView{Name: s.Name, Left: s.Tasks - min(s.Done+s.Failed, s.Tasks), Class: j.demands[i].class, State: StageQueued}
		switch {
		case v.Left == 0 && opened[i]:
			v.State = StageDone
		case !opened[i]:
			v.State, v.Text = StageWaits, "to be laid out"
			var of []string
			for _, need := range plans[i].Needs {
				if o := &st.Stages[need.Stage]; o.Done+o.Failed < o.Tasks {
					of = append(of, o.Name)
				}
			}
			if len(of) > 0 {
				v.Text = "for " + strings.Join(of, ", ")
			}
			open = append(open, i)
		default:
			open = append(open, i)
		}
		e.Stages = append(e.Stages, v)
	}
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	n.viewNodes(ctx, j, open, &e)
	for _, i := range open {
		v := &e.Stages[i]
		switch {
		case v.Fit == 0:
			v.State, v.Text = StageUnplaced, "no node that is up can run its tasks"
		case v.Running > 0:
			v.State, v.Text = StageRunning, fmt.Sprintf("%d of %d tasks left, %d slots run it", v.Left, st.Stages[i].Tasks, v.Running)
		case v.State == StageQueued:
			v.Text = fmt.Sprintf("%d of %d tasks left, none runs just now", v.Left, st.Stages[i].Tasks)
		}
	}
	e.conclude(j, open, &trouble)
	return e
}

// viewNodes asks all nodes of the realm, and those that are connected, how they are.
func (n *Node) viewNodes(ctx context.Context, j *job, open []int, e *Explanation) {
	ids := []peer.ID{n.self}
	known := map[peer.ID]Capacity{n.self: n.Capacity}
	seen := map[peer.ID]bool{n.self: true}
	more := func(list []peer.ID) {
		slices.Sort(list)
		for _, id := range list {
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	if n.realm != nil {
		up := n.realm.up()
		more(up)
		for _, id := range up {
			if has, ok := n.realm.capacity(id); ok && id != n.self {
				known[id] = has
			}
		}
	}
	var around []peer.ID
	for _, p := range n.Network.Peers() {
		around = append(around, p.ID)
	}
	more(around)
	if len(ids) > maxNodeViews {
		e.More = len(ids) - maxNodeViews
		ids = ids[:maxNodeViews]
	}
	replies, errs := make([]loadReply, len(ids)), make([]error, len(ids))
	room := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for i, id := range ids {
		if id == n.self {
			replies[i] = n.ownLoad(j.rec.ID)
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ask, cancel := context.WithTimeout(ctx, loadTimeLimit)
			defer cancel()
			replies[i], errs[i] = call[loadReply](ask, n, id, protoLoad, loadMsg{Job: j.rec.ID})
			if errs[i] == nil {
				errs[i] = replies[i].check()
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		v := NodeView{Node: id.String(), Owner: id == n.self}
		has, sure := known[id]
		if r := &replies[i]; errs[i] == nil {
			v.Load, has, sure = &r.Load, r.Has, true
			v.Running += r.Spawned
			e.show(id, r.Tasks)
			for _, run := range r.Running {
				v.Running += max(run.Slots, 0)
				if int(run.Stage) < len(e.Stages) {
					e.Stages[run.Stage].Running += max(run.Slots, 0)
				}
			}
		}
		fits, outside := 0, 0
		if sure {
			v.Capacity = &has
		}
		for _, s := range open {
			var err error
			switch {
			case !n.inRealm(id) && j.spec.Stages[s].whyInside(&j.rec.Policy) != nil:
				err = j.spec.Stages[s].whyInside(&j.rec.Policy)
				outside++
			case sure:
				err = has.Fits(&j.demands[s].class)
			}
			if err == nil {
				err = j.shunned(s, id)
			}
			if err == nil {
				fits++
				if errs[i] == nil || sure {
					e.Stages[s].Fit++
				}
				continue
			}
			if v.Lacks == nil {
				v.Lacks = map[string]string{}
			}
			v.Lacks[e.Stages[s].Name] = err.Error()
		}
		acc, accused := n.accused.of(id)
		switch {
		case outside > 0 && outside == len(open):
			v.State, v.Text = NodeUnfit, j.spec.Stages[open[0]].whyInside(&j.rec.Policy).Error()
		case errs[i] != nil && CodeOf(errs[i]) == Denied:
			v.State, v.Text = NodeSilent, "it is of another realm, and does not say how it is"
		case errs[i] != nil:
			v.State, v.Text = NodeSilent, fmt.Sprintf("it does not answer: %v", errs[i])
		case v.Running > 0:
			v.State, v.Text = NodeRuns, fmt.Sprintf("%d of its %d slots run the job", v.Running, v.Load.Slots)
		case fits == 0 && len(open) > 0:
			v.State, v.Text = NodeUnfit, "it can run nothing that is left of the job"
		case accused:
			v.State, v.Text = NodeAccused, fmt.Sprintf("it may be left alone, for what it did %v ago: %s", time.Since(acc.at).Round(time.Second), acc.why)
		case v.Load.Running >= v.Load.Slots || v.Load.Queued > 0:
			v.State, v.Text = NodeBusy, fmt.Sprintf("%d of its %d slots are busy, %d tasks are queued", v.Load.Running, v.Load.Slots, v.Load.Queued)
		default:
			v.State, v.Text = NodeFree, fmt.Sprintf("%d of its %d slots are busy", v.Load.Running, v.Load.Slots)
		}
		if len(v.Lacks) == 1 && len(open) == 1 {
			v.Text = v.Lacks[e.Stages[open[0]].Name]
		}
		e.Nodes = append(e.Nodes, v)
	}
	e.order()
}

// conclude says what matters most.
func (e *Explanation) conclude(j *job, open []int, trouble *hostFailure) {
	running, busy, silent, fit := 0, 0, 0, 0
	for i := range e.Nodes {
		v := &e.Nodes[i]
		running += v.Running
		switch v.State {
		case NodeBusy:
			busy++
			fit++
		case NodeFree, NodeRuns, NodeAccused:
			fit++
		case NodeSilent:
			silent++
		}
	}
	for _, i := range open {
		if v := &e.Stages[i]; v.State == StageUnplaced {
			e.Reason = fmt.Sprintf("no node that is up can run stage %s: %s", v.Name, unplacedReason(e.Nodes, v.Name))
			e.adviseUnplaced(&j.demands[i])
			return
		}
	}
	left := 0
	for _, i := range open {
		left += int(e.Stages[i].Left)
	}
	few := j.tooFew()
	if few != "" {
		e.advise("start more nodes with `grid up --join ADDRESS`, or ask for fewer")
	}
	switch {
	case e.paused != nil:
		e.Reason = e.Job.Note
		if running > 0 {
			e.Reason += fmt.Sprintf(" (%s of it run in %s)", plural(running, "task"), plural(countRunning(e.Nodes), "node"))
		}
		e.advise("`grid quota show %s` tells how the quota stands; who may raise it does so with `grid quota set %s`, and the job goes on by itself", e.paused.of, e.paused.Subject)
	case few != "" && running == 0:
		e.Reason = few
	case len(open) == 0:
		e.Reason = "all its tasks have ended, and its end is being recorded"
		if e.Job.Note != "" {
			e.Reason = e.Job.Note
		}
	case running > 0:
		e.Reason = fmt.Sprintf("it runs: %s in %s, and %s left", plural(running, "task"), plural(countRunning(e.Nodes), "node"), plural(left, "task"))
		if p := j.rec.Parallel; p > 0 && running >= int(p) {
			e.Reason += fmt.Sprintf("; no more than %d run at a time, as --parallel asks", p)
		}
	case fit > 0 && busy == fit:
		e.Reason = fmt.Sprintf("all %s that could run it are busy with other work", plural(fit, "node"))
		e.advise("wait: nodes share their slots out between users and jobs, so its turn comes; --priority puts it before your other jobs")
		e.advise("start more nodes with `grid up --join ADDRESS`")
	case trouble.Message != "":
		e.Reason = fmt.Sprintf("nothing of it runs just now; the last failure of a node was at task %d: %s", trouble.Index, trouble.Message)
		e.advise("tasks that failed for their node's reasons are tried again after a pause, elsewhere if possible; `grid events %s` tells of each", j.rec.ID)
	case fit == 0 && silent > 0:
		e.Reason = "the nodes that could run it do not answer"
		e.advise("`grid peers` shows who is connected")
	default:
		e.Reason = "nothing of it runs just now, though it could: its tasks are being laid out, or on their way to a node"
	}
	if trouble.Message != "" && running > 0 {
		e.advise("some tasks failed for their node's reasons, the last one with: %s", trouble.Message)
	}
}

func countRunning(nodes []NodeView) (n int) {
	for i := range nodes {
		if nodes[i].State == NodeRuns {
			n++
		}
	}
	return n
}

// unplacedReason is what most nodes lack for a stage.
func unplacedReason(nodes []NodeView, stage string) string {
	if len(nodes) == 1 {
		return cmp.Or(nodes[0].Lacks[stage], "there is none")
	}
	count := make(map[string]int)
	for i := range nodes {
		if why := nodes[i].Lacks[stage]; why != "" {
			why, _, _ = strings.Cut(why, labelIsHere) // what label there is instead differs
			count[why]++
		}
	}
	most, all := "", 0
	for why, n := range count {
		if all += n; n > count[most] || n == count[most] && why < most {
			most = why
		}
	}
	if most == "" {
		return "there is none"
	}
	if count[most] == all && all == len(nodes) {
		return most
	}
	return fmt.Sprintf("%s (%d of %s)", most, count[most], plural(len(nodes), "node"))
}

// adviseUnplaced says what would give a stage a place.
func (e *Explanation) adviseUnplaced(d *demand) {
	var with []string // labels that a node would need
	for _, t := range d.require.terms {
		switch t.op {
		case opIn:
			with = append(with, t.key+"="+t.values[0])
		case opHas:
			with = append(with, t.key+"=true")
		}
	}
	labelled := false
	for i := range e.Nodes {
		if c := e.Nodes[i].Capacity; c != nil {
			ok, _ := d.require.Match(c.Labels)
			labelled = labelled || ok
		}
	}
	switch {
	case !labelled && len(with) > 0 && !slices.ContainsFunc(with, func(l string) bool { k, _, _ := strings.Cut(l, "="); return builtin(k) }):
		e.advise("start a node with `grid up --label %s`, or drop --require", strings.Join(with, ","))
	case !labelled:
		e.advise("start a node that matches %q, or ask for another with --require", d.require)
	default:
		e.advise("ask for less with --cores, --reserve-memory or --reserve-scratch, or start a larger node")
	}
	e.advise("the job stays until such a node comes; `grid cancel %s` ends it, and --start-within bounds how long one waits", e.Job.ID)
}

func builtin(key string) bool { return key == LabelOS || key == LabelArch || key == LabelNode }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// unplaced says which stage of a job that runs here no node of the realm can run, and where to ask; "" when each has one.
func (n *Node) unplaced(j *job) string {
	if text := n.misfit(j); text != "" {
		return fmt.Sprintf("%s; `grid job --why %s` tells more", text, j.rec.ID)
	}
	return j.tooFew()
}

// misfit says which stage of a job that runs here no node of the realm can run.
func (n *Node) misfit(j *job) string {
	for i := range j.demands {
		d := &j.demands[i]
		if d.any {
			continue
		}
		j.mu.Lock()
		s := &j.stages[i].status
		name, ended := s.Name, s.Tasks > 0 && s.Done+s.Failed >= s.Tasks
		j.mu.Unlock()
		if ended || n.Capacity.CanRun(&d.class, d.require) {
			continue
		}
		nodes := 1
		if n.realm != nil {
			var found bool
			if nodes, found = n.realm.canRun(d); found {
				continue
			}
		}
		return fmt.Sprintf("none of %s can run its stage %s%s", plural(nodes, "node"), name, d.text())
	}
	return ""
}

// text says what is asked.
func (d *demand) text() string {
	c := &d.class
	var asks []string
	if c.Require != "" {
		asks = append(asks, c.Require)
	}
	if c.Cores > 1 {
		asks = append(asks, plural(int(c.Cores), "core"))
	}
	if c.Memory > 0 {
		asks = append(asks, sizeText(c.Memory)+" of memory")
	}
	if c.Scratch > 0 {
		asks = append(asks, sizeText(c.Scratch)+" of scratch")
	}
	if len(asks) == 0 {
		return ""
	}
	return ", which requires " + strings.Join(asks, " and ")
}

// canRun reports whether a node of the realm, of those that say what they have, can run what is asked; one that does
// not say may.
func (r *realm) canRun(d *demand) (nodes int, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.nodes {
		has, ok := r.has[id]
		if !ok || has.CanRun(&d.class, d.require) {
			return 0, true
		}
	}
	return max(len(r.nodes), 1), false
}
