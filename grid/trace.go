package grid

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// The trace of a job is made by all nodes that have a part in it, each of its own spans, and nothing is sent between nodes for that: the
// IDs of the trace, of the job's span, and of those of its stages are hashes of the job's ID. Spans are made once what they tell of has
// ended, so that a node which is not traced does nothing for it.

// TraceOf is the ID of the trace of a job, and of the tasks that its tasks spawn.
func TraceOf(id JobID) (t trace.TraceID) {
	copy(t[:], traceHash(rootJob(id), "trace"))
	return t
}

// JobSpan is the span of a job, which lasts until it has ended, for others to refer to. Whether it is sampled is not known here: it says so.
func JobSpan(id JobID) trace.SpanContext {
	return remoteSpan(id, jobSpan(id))
}

func jobSpan(id JobID) (s trace.SpanID) {
	copy(s[:], traceHash(rootJob(id), "job"))
	return s
}

// stageSpan is of a stage of a job. What tasks have spawned counts for the job as a whole: nobody but their parent's node knows more.
func stageSpan(id JobID, stage uint32) (s trace.SpanID) {
	if rootJob(id) != id {
		return jobSpan(id)
	}
	copy(s[:], traceHash(id, "stage", uint64(stage)))
	return s
}

// attemptSpan is of one attempt at a task.
func attemptSpan(a *attemptTrace, node peer.ID) (s trace.SpanID) {
	copy(s[:], traceHash(a.job, "attempt "+string(node), uint64(a.stage), uint64(a.index), uint64(a.from.UnixNano())))
	return s
}

func traceHash(id JobID, what string, numbers ...uint64) []byte {
	b := []byte("grid " + string(id) + " " + what + "\x00")
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

func remoteSpan(id JobID, span trace.SpanID) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: TraceOf(id), SpanID: span, TraceFlags: trace.FlagsSampled, Remote: true})
}

type spanKey struct{}

// SpanIDs tells of the context that a span of a job is begun with which IDs that is to have; whoever makes the spans must see to it. It is to be
// sampled by the ID of its trace alone, so that all nodes agree. A zero span is any. ok is false for what is of no job.
func SpanIDs(ctx context.Context) (t trace.TraceID, span trace.SpanID, ok bool) {
	c, ok := ctx.Value(spanKey{}).(trace.SpanContext)
	return c.TraceID(), c.SpanID(), ok
}

// MaxTraceparent is how long a traceparent may be, in bytes.
const MaxTraceparent = 256

// ParseTraceparent reads a traceparent of the W3C's Trace Context: the span in which something is done.
func ParseTraceparent(s string) (trace.SpanContext, error) {
	if len(s) <= MaxTraceparent {
		ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": s})
		if c := trace.SpanContextFromContext(ctx); c.IsValid() {
			return c, nil
		}
	}
	return trace.SpanContext{}, Errorf(Invalid, "%.80q is no traceparent", s).
		Hint("it is like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, as W3C Trace Context has it")
}

// Bounds on the spans that one node makes for one job: beyond them it counts. A job that a node has had no part in for a while counts as another one.
const (
	tracedFirst  = 32  // attempts from the first on
	tracedFailed = 32  // of the others, those that failed
	tracedSlow   = 8   // of the others, the slowest, once it is known which these are
	tracedChance = 8   // of the others, some by chance
	tracedMoves  = 128 // steals, reports and such
	tracedJobs   = 512 // at a time
	traceIdle    = 10 * time.Second
)

// traces makes the spans of what a node does for jobs. nil makes none.
type traces struct {
	tracer trace.Tracer
	self   peer.ID

	mu   sync.Mutex
	jobs map[JobID]*jobTrace // of late
}

// jobTrace is what was traced of a job here, or will be.
type jobTrace struct {
	touched     time.Time
	first, last time.Time // of its attempts
	seen, made  int       // attempts
	failed      int       // of those made
	slow        []attemptTrace
	chance      []attemptTrace
	rest        int // from which they were drawn
	moves       int
	moved       int // not made
}

// attemptTrace is what the span of an attempt tells.
type attemptTrace struct {
	job          JobID
	stage, index uint32
	slot         int
	owner        peer.ID
	from, to     time.Time
	started      time.Time // its first phase; zero: it came to none
	phases       Phases
	code         Code // why it failed; 0: it did not
	fuel         uint64
	memory       uint64
}

// span makes a span of a job that has ended. A zero id is any.
func (t *traces) span(job JobID, parent, id trace.SpanID, name string, from, to time.Time, kind trace.SpanKind, code Code, attrs []attribute.KeyValue, links ...trace.Link) trace.SpanID {
	ctx := context.WithValue(context.Background(), spanKey{}, trace.NewSpanContext(trace.SpanContextConfig{TraceID: TraceOf(job), SpanID: id}))
	if parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, remoteSpan(job, parent))
	}
	_, s := t.tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithSpanKind(kind), trace.WithAttributes(attrs...), trace.WithLinks(links...))
	if code != 0 {
		word := code.Error()
		s.SetStatus(codes.Error, word) // and no more: what a guest or a user says of it is theirs
		s.SetAttributes(attribute.String("error.type", word))
	}
	s.End(trace.WithTimestamp(to))
	return s.SpanContext().SpanID()
}

func jobAttr(id JobID) attribute.KeyValue { return attribute.String("grid.job", string(id)) }

func stageAttr(stage uint32) attribute.KeyValue { return attribute.Int64("grid.stage", int64(stage)) }

func peerAttr(id peer.ID) attribute.KeyValue { return attribute.String("grid.peer", id.String()) }

func tasksAttr(n int) attribute.KeyValue { return attribute.Int("grid.tasks", n) }

// attempt tells of an attempt that has ended, or failed with err.
func (t *traces) attempt(l Lease, index uint32, slot int, from, to time.Time, c *Completion, err error) {
	if t == nil || l.Outside || err == nil && c.Cached { // another realm's traces are its own
		return
	}
	a := attemptTrace{job: l.Job, stage: l.Stage, index: index, slot: slot, owner: l.Owner, from: from, to: to}
	if err != nil {
		a.code = cmp.Or(CodeOf(err), Internal)
	} else {
		r := &c.Receipt
		a.started, a.phases, a.fuel, a.memory = time.Unix(0, r.Started), r.Phases, r.Fuel, r.Memory
		if e := r.Err(); e != nil {
			a.code = CodeOf(e)
		}
	}
	now := false
	t.with(l.Job, to, func(j *jobTrace) { now = j.add(a) })
	if now {
		t.make(&a)
	}
}

// with calls f with what was traced of a job. If there are too many jobs, the one that was idle the longest is flushed.
func (t *traces) with(id JobID, now time.Time, f func(*jobTrace)) {
	id = rootJob(id)
	var old JobID
	t.mu.Lock()
	j := t.jobs[id]
	if j == nil {
		if len(t.jobs) >= tracedJobs {
			first := now
			for other, j := range t.jobs {
				if !j.touched.After(first) {
					old, first = other, j.touched
				}
			}
		}
		j = &jobTrace{}
		t.jobs[id] = j
	}
	j.touched = now
	f(j)
	t.mu.Unlock()
	if old != "" {
		t.flush(old)
	}
}

// add takes in an attempt, and tells whether its span is to be made now.
func (j *jobTrace) add(a attemptTrace) bool {
	if j.seen++; j.seen == 1 || a.from.Before(j.first) {
		j.first = a.from
	}
	if a.to.After(j.last) {
		j.last = a.to
	}
	if j.seen <= tracedFirst || a.code != 0 && j.failed < tracedFailed {
		if j.made++; a.code != 0 {
			j.failed++
		}
		return true
	}
	at, _ := slices.BinarySearchFunc(j.slow, a, func(x, y attemptTrace) int { return cmp.Compare(x.to.Sub(x.from), y.to.Sub(y.from)) })
	j.slow = slices.Insert(j.slow, at, a)
	if len(j.slow) <= tracedSlow {
		return false
	}
	a, j.slow = j.slow[0], slices.Delete(j.slow, 0, 1)
	if j.rest++; len(j.chance) < tracedChance {
		j.chance = append(j.chance, a)
	} else if i := rand.IntN(j.rest); i < tracedChance {
		j.chance[i] = a
	}
	return false
}

// make makes the span of an attempt, with its phases below it.
func (t *traces) make(a *attemptTrace) {
	attrs := []attribute.KeyValue{jobAttr(a.job), stageAttr(a.stage), attribute.Int64("grid.task", int64(a.index)), attribute.Int("grid.slot", a.slot)}
	if a.owner != t.self {
		attrs = append(attrs, attribute.String("grid.owner", a.owner.String()))
	}
	if !a.started.IsZero() {
		attrs = append(attrs, attribute.Int64("grid.fuel", int64(a.fuel)), attribute.Int64("grid.memory_bytes", int64(a.memory)))
	}
	id := t.span(a.job, stageSpan(a.job, a.stage), attemptSpan(a, t.self), "task", a.from, a.to, trace.SpanKindInternal, a.code, attrs)
	if a.started.IsZero() {
		return
	}
	at, p := a.started, &a.phases
	for i, d := range [...]time.Duration{p.Fetch, p.Compile, p.Queue, p.Start, p.Run + p.Parked, p.Store} {
		if d > 0 {
			t.span(a.job, id, trace.SpanID{}, PhaseNames[i], at, at.Add(d), trace.SpanKindInternal, 0, nil)
			at = at.Add(d)
		}
	}
}

// move makes the span of something that nodes say to one another about tasks of a stage.
func (t *traces) move(job JobID, stage uint32, name string, kind trace.SpanKind, from time.Time, with peer.ID, tasks int, err error) {
	if t == nil {
		return
	}
	now, over := time.Now(), false
	t.with(job, now, func(j *jobTrace) {
		if over = j.moves >= tracedMoves; over {
			j.moved++
		} else {
			j.moves++
		}
	})
	if over {
		return
	}
	var code Code
	if err != nil {
		code = cmp.Or(CodeOf(err), Internal)
	}
	t.span(job, stageSpan(job, stage), trace.SpanID{}, name, from, now, kind, code, []attribute.KeyValue{jobAttr(job), stageAttr(stage), peerAttr(with), tasksAttr(tasks)})
}

// moveLeases is move for each lease but those of other realms.
func (t *traces) moveLeases(leases []Lease, name string, kind trace.SpanKind, from time.Time, with peer.ID) {
	if t == nil {
		return
	}
	for i := range leases {
		if l := &leases[i]; !l.Outside {
			t.move(l.Job, l.Stage, name, kind, from, with, int(l.Len()), nil)
		}
	}
}

// flush makes what is left to be made for a job.
func (t *traces) flush(id JobID) {
	if t == nil || rootJob(id) != id {
		return
	}
	t.mu.Lock()
	j := t.jobs[id]
	delete(t.jobs, id)
	t.mu.Unlock()
	t.end(id, j)
}

func (t *traces) end(id JobID, j *jobTrace) {
	if j == nil {
		return
	}
	for _, list := range [][]attemptTrace{j.slow, j.chance} {
		for i := range list {
			t.make(&list[i])
		}
		j.made += len(list)
	}
	left := j.seen - j.made
	if j.seen == 0 {
		j.first, j.last = j.touched, j.touched
	}
	if left > 0 || j.moved > 0 {
		t.span(id, jobSpan(id), trace.SpanID{}, "left out", j.first, j.last, trace.SpanKindInternal, 0,
			[]attribute.KeyValue{jobAttr(id), tasksAttr(j.seen), attribute.Int("grid.tasks_left_out", left), attribute.Int("grid.moves_left_out", j.moved)})
	}
}

// idle flushes the jobs that nothing was done for since a time.
func (t *traces) idle(since time.Time) {
	if t == nil {
		return
	}
	old := make(map[JobID]*jobTrace)
	t.mu.Lock()
	for id, j := range t.jobs {
		if j.touched.Before(since) {
			old[id] = j
			delete(t.jobs, id)
		}
	}
	t.mu.Unlock()
	for id, j := range old {
		t.end(id, j)
	}
}

// keepTraces runs as long as the node.
func (n *Node) keepTraces() {
	tick := time.NewTicker(traceIdle / 2)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			n.traces.idle(now.Add(-traceIdle))
		case <-n.ctx.Done():
			return
		}
	}
}

// submission times the parts of a job's submission.
type submission struct{ began, admitted, secured time.Time }

// submitted tells of a job that was accepted.
func (t *traces) submitted(rec *Record, s *submission) {
	if t == nil {
		return
	}
	now := time.Now()
	id := t.span(rec.ID, jobSpan(rec.ID), trace.SpanID{}, "submit", s.began, now, trace.SpanKindInternal, 0, []attribute.KeyValue{jobAttr(rec.ID), attribute.Int("grid.copies", max(rec.Durable, 1))}, callerLink(rec)...)
	t.span(rec.ID, id, trace.SpanID{}, "admit", s.began, s.admitted, trace.SpanKindInternal, 0, nil)
	t.span(rec.ID, id, trace.SpanID{}, "replicate", s.admitted, s.secured, trace.SpanKindInternal, 0, nil)
	t.span(rec.ID, id, trace.SpanID{}, "commit", s.secured, now, trace.SpanKindInternal, 0, nil)
}

// callerLink links to the span in which a job was submitted.
func callerLink(rec *Record) []trace.Link {
	if rec.Caller == "" {
		return nil
	}
	c, err := ParseTraceparent(rec.Caller)
	if err != nil {
		return nil
	}
	return []trace.Link{{SpanContext: c}}
}

// tookOver tells that a job has got this node as its owner.
func (t *traces) tookOver(rec *Record) {
	if t == nil {
		return
	}
	now := time.Now()
	t.span(rec.ID, jobSpan(rec.ID), trace.SpanID{}, "take over", now, now, trace.SpanKindInternal, 0, []attribute.KeyValue{jobAttr(rec.ID), attribute.Int64("grid.epoch", int64(rec.Epoch))})
}

// ended tells of a job that this node has brought to its end: of the end since began, when results were there at stored, of the stages, and of the whole.
func (t *traces) ended(j *job, began, stored time.Time) {
	if t == nil {
		return
	}
	j.mu.Lock()
	rec := j.rec
	type lasted struct {
		StageStatus
		began, ended time.Time
	}
	stages := make([]lasted, len(j.stages))
	for i := range j.stages {
		st := &j.stages[i]
		stages[i] = lasted{st.status, st.began, st.ended}
	}
	j.mu.Unlock()
	now := time.Now()
	t.flush(rec.ID)
	tasks := 0
	for i := range stages {
		st := &stages[i]
		tasks += int(st.Tasks)
		if st.began.IsZero() {
			continue
		}
		if st.ended.IsZero() {
			st.ended = began
		}
		var code Code
		if st.Failed > 0 {
			code = cmp.Or(rec.Code, Exit)
		}
		t.span(rec.ID, jobSpan(rec.ID), stageSpan(rec.ID, uint32(i)), "stage", st.began, st.ended, trace.SpanKindInternal, code, []attribute.KeyValue{
			jobAttr(rec.ID), stageAttr(uint32(i)), attribute.String("grid.stage_name", st.Name), attribute.String("grid.plugin", st.Plugin),
			tasksAttr(int(st.Tasks)), attribute.Int("grid.tasks_done", int(st.Done)), attribute.Int("grid.tasks_known", int(st.Cached)), attribute.Int("grid.tasks_failed", int(st.Failed)),
		})
	}
	id := t.span(rec.ID, jobSpan(rec.ID), trace.SpanID{}, "end", began, now, trace.SpanKindInternal, 0, []attribute.KeyValue{jobAttr(rec.ID)})
	t.span(rec.ID, id, trace.SpanID{}, "store results", began, stored, trace.SpanKindInternal, 0, nil)
	t.span(rec.ID, id, trace.SpanID{}, "commit", stored, now, trace.SpanKindInternal, 0, nil)
	t.span(rec.ID, trace.SpanID{}, jobSpan(rec.ID), "job", rec.Submitted, now, trace.SpanKindInternal, rec.Code, []attribute.KeyValue{
		jobAttr(rec.ID), attribute.String("grid.job_name", rec.Name), attribute.String("grid.state", string(rec.State)), attribute.Int64("grid.epoch", int64(rec.Epoch)), tasksAttr(tasks),
	}, callerLink(&rec)...)
}
