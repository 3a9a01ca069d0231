package grid

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	jobPrefix = JobKeys
	jobKeyMin = 4 // characters that a shortened job ID must have at least
)

func jobKey(id JobID) string { return jobPrefix + string(id) }

// Submit records a job and starts it. When it returns the job is durable, and so is what it needs, on as many nodes
// as are to have a copy: it runs to its end whatever becomes of the caller, or of this node. Its modules must be fit to run, which is checked here, so that a bad one is
// refused at once; its tables and inputs are only looked at when their tasks' turns come.
func (n *Node) Submit(ctx context.Context, r Request) (JobID, error) {
	if !n.enter() {
		return "", errClosing
	}
	defer n.wg.Done()
	at := submission{began: time.Now()}
	if err := n.maySubmit(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	defer n.Hold(r.named()...)()
	used := n.HoldUsed()
	defer used()
	spec, err := n.admit(ctx, r)
	if err != nil {
		return "", err
	}
	if r.User == "" {
		r.User = n.self.String()
	}
	release, err := n.reserve(r.User, spec)
	if err != nil {
		return "", err
	}
	defer release()
	if err := n.mayUse(ctx, Submitter{n.self, r.User}); err != nil {
		return "", err
	}
	said, err := n.askPolicy(ctx, &r, spec)
	if err != nil {
		return "", err
	}
	b, err := EncodeBlock(spec)
	if err != nil {
		return "", err
	}
	if err := n.Blocks.Put(ctx, b); err != nil {
		return "", err
	}
	defer n.Hold(b.CID())()
	used() // copies elsewhere may take a while
	if err := n.Blocks.Sync(ctx); err != nil {
		return "", err
	}
	id, err := NewJobID(rand.Reader)
	if err != nil {
		return "", err
	}
	at.admitted = time.Now()
	rec := Record{
		ID: id, Name: spec.Name, Spec: Link{b.CID()}, Owner: n.self, Epoch: 1, State: Running, Fresh: r.NoCache, Bound: n.Bound,
		Replicas: r.Replicas, Copies: r.Copies, Publish: r.Publish, Origin: n.self, Policy: r.Policy, Submitted: at.began.UTC(),
	}
	if _, err := ParseTraceparent(r.Traceparent); err == nil {
		rec.Caller = r.Traceparent
	}
	if n.May != nil {
		if rec.Writes, err = spec.writable(); err != nil {
			return "", err
		}
	}
	rec.Durable = n.secure(ctx, &rec)
	at.secured = time.Now()
	defer n.claim(id)()
	version, err := n.putNew(ctx, &rec, spec, r.User)
	if err != nil {
		if unsure(CodeOf(err)) {
			return "", Errorf(CodeOf(err), "it is not known whether the job was accepted: %w", err).
				Hint("`grid ps` lists job %s if it was", id)
		}
		return "", err
	}
	n.traces.submitted(&rec, &at)
	n.start(n.newJob(*spec, rec, version), said...)
	return id, nil
}

// admit turns a request into a checked spec whose tables and modules are in place.
func (n *Node) admit(ctx context.Context, r Request) (*Spec, error) {
	if r.Replicas < 0 || r.Replicas > MaxCopies {
		return nil, Errorf(Invalid, "%d replicas of the results, at most %d can be had", r.Replicas, MaxCopies)
	}
	if r.Copies < 0 || r.Copies > MaxCopies {
		return nil, Errorf(Invalid, "%d copies of what the job needs, at most %d can be had", r.Copies, MaxCopies)
	}
	if err := r.Policy.check(); err != nil {
		return nil, err
	}
	if len(r.Publish) > MaxPublish {
		return nil, Errorf(Limit, "%d refs to publish, at most %d are allowed", len(r.Publish), MaxPublish)
	}
	for i, name := range r.Publish {
		if err := CheckRefName(name); err != nil {
			return nil, err
		}
		if slices.Contains(r.Publish[:i], name) {
			return nil, Errorf(Invalid, "the ref %q is to be published twice", name)
		}
	}
	spec := r.Spec
	spec.Stages = slices.Clone(spec.Stages) // the caller's is not ours to fill in
	if len(r.Rows) > len(spec.Stages) {
		return nil, Errorf(Invalid, "rows for %d stages, but there are %d", len(r.Rows), len(spec.Stages))
	}
	for i, rows := range r.Rows {
		if rows == nil {
			continue
		}
		st := &spec.Stages[i]
		if len(rows) > MaxTasks {
			return nil, Errorf(Limit, "stage %d has %d tasks, at most %d are allowed", i, len(rows), MaxTasks).
				Hint("give each task several inputs, with --group")
		}
		t := NewTable[Row](n.Blocks)
		for k, row := range rows {
			if err := CheckRow(row); err != nil {
				return nil, Errorf(CodeOf(err), "stage %d, task %d: %w", i, k, err)
			}
			if err := t.Add(ctx, row); err != nil {
				return nil, err
			}
		}
		var err error
		if st.Inputs, err = t.Close(ctx); err != nil {
			return nil, err
		}
		st.Tasks = uint32(len(rows))
	}
	if err := spec.Normalize(); err != nil {
		return nil, err
	}
	if err := n.checkVerify(&spec, r.Verify); err != nil {
		return nil, err
	}
	policy, err := n.PluginPolicy(ctx)
	if err != nil {
		return nil, err
	}
	modules := make(map[Link]Module)
	for i := range spec.Stages {
		st := &spec.Stages[i]
		if st.Inputs.Defined() && (i >= len(r.Rows) || r.Rows[i] == nil) {
			t, err := OpenTable[Row](ctx, func(ctx context.Context, c cid.Cid) ([]byte, error) { return n.block(ctx, c) }, st.Inputs)
			if err != nil {
				return nil, Errorf(CodeOf(err), "stage %d: inputs: %w", i, err)
			}
			if t.Len() != st.Tasks {
				return nil, Errorf(Invalid, "stage %d has %d tasks, but its table %d rows", i, st.Tasks, t.Len())
			}
		}
		m, ok := modules[st.Module]
		if !ok {
			var err error
			if m, err = n.Inspect(ctx, st.Module.Cid, false); err != nil {
				return nil, err
			}
			modules[st.Module] = m
		}
		switch err := cmp.Or(n.checkPlugin(ctx, &policy, st, &m), m.has(st.Func), m.startsIn(st.Limits.Memory)); {
		case err != nil && len(spec.Stages) == 1:
			return nil, err // there is nothing to tell it from
		case err != nil:
			return nil, Errorf(CodeOf(err), "stage %d (%s): %w", i, st.Name, err)
		}
		if m.Extism && !st.Merge && !st.Stdin.Defined() && (st.Inputs.Defined() || len(st.From) > 0) {
			st.Feed = true // a plug-in for Extism has no other way to its inputs
		}
	}
	return &spec, nil
}

// Inspect tells what a module is and how it is run here, bringing it here from the swarm if need be; see
// [Engine.Inspect]. Its errors say why it cannot be run.
func (n *Node) Inspect(ctx context.Context, module cid.Cid, settled bool) (Module, error) {
	defer n.Hold(module)()
	if err := n.Ensure(ctx, []cid.Cid{module}); err != nil {
		return Module{}, Errorf(CodeOf(err), "module: %w", err)
	}
	return n.Engine.Inspect(ctx, module, settled)
}

// has checks that a module has a function that a stage names.
func (m *Module) has(function string) error {
	told := false // by what an interpreter's plugin says of its script
	if m.Manifest != nil {
		_, told = m.Manifest.Find(function)
	}
	switch {
	case m.Kind == Command && (function == "" || told), m.Any && function != "", slices.Contains(m.Functions, function):
		return nil
	case m.Kind == Command:
		return Errorf(Invalid, "the module is a program without functions, and %q cannot be run of it: it exports its main alone, and never asks for "+EnvFunc, function).
			Hint("leave out --func, in a job file func, to run its main; `grid plugin new` writes a module with functions")
	case function == "":
		return Errorf(Invalid, "the module is a library (reactor), of which a stage runs one function").
			Hint("name it with --func, in a job file with func: the module has %s", m.list())
	}
	return Errorf(Invalid, "the module has no function %q", function).Hint("it has %s", m.list())
}

// startsIn checks that a limit leaves a module the memory that it begins with.
func (m *Module) startsIn(limit uint64) error {
	if m.MinMemory <= limit {
		return nil
	}
	return Errorf(Limit, "the module begins with %s of memory, its tasks' limit is %s", sizeText(m.MinMemory), sizeText(limit)).
		Hint("give them that much, and what they need besides, with --memory, in a job file with limits: {memory: SIZE}")
}

// maxListed is how many functions a message names.
const maxListed = 20

func (m *Module) list() string {
	names := m.Functions
	if m.Any && m.Manifest != nil { // the module does not tell, but the plugin does
		for _, f := range m.Manifest.Functions {
			names = append(names[:len(names):len(names)], f.Name)
		}
	}
	switch n := len(names); {
	case n > maxListed:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), n-maxListed)
	case n > 0:
		return strings.Join(names, ", ")
	case m.Any:
		return "those that it was built with; its author knows them"
	}
	return "none that a stage can run: exported, without parameters, giving nothing or an i32"
}

// start hands a recorded job to the scheduler.
func (n *Node) start(j *job, said ...JobEvent) {
	n.mu.Lock()
	n.jobs[j.rec.ID] = j
	n.mu.Unlock()
	j.tell(j.begin())
	if j.rec.Epoch > 1 {
		n.traces.tookOver(&j.rec)
	}
	for _, ev := range said {
		j.tell(ev)
	}
	n.bounded(j)
	scored := n.scoreJob(j.ctx, j) // which the scheduler takes no notice of yet
	j.mu.Lock()
	opening := j.opening(time.Now())
	j.mu.Unlock()
	n.post(opening)
	j.mu.Lock()
	j.begun = true
	ended := j.ending
	j.mu.Unlock()
	if ended { // and the scheduler was told before it knew the job
		n.post(JobEnded{Job: j.rec.ID})
	}
	n.allowances.stir()
	if scored {
		n.scoreJob(j.ctx, j) // what is known by now, so that it is there before the first task is
	}
}

// putNew writes the record of a new job.
func (n *Node) putNew(ctx context.Context, rec *Record, spec *Spec, user string) (uint64, error) {
	t, err := rec.txn(0)
	if err == nil {
		err = n.audit(&t, submitted(rec, spec, user))
	}
	if err != nil {
		return 0, err
	}
	rev, err := n.Ledger.Commit(ctx, t)
	if err != nil {
		return 0, Errorf(CodeOf(err), "record job %s: %w", rec.ID, err)
	}
	return rev, nil
}

// putRecord writes a job's record if its entry still has the given version, and keeps the list of
// open jobs.
//
// It is a Conflict, too, if there is an entry of one of the keys in absent.
func (n *Node) putRecord(ctx context.Context, rec Record, version uint64, absent ...string) (uint64, error) {
	t, err := rec.txn(version)
	if err != nil {
		return version, err
	}
	for _, key := range absent {
		t.If = append(t.If, Cond{Key: key})
	}
	rev, err := n.Ledger.Commit(ctx, t)
	if err != nil {
		return version, Errorf(CodeOf(err), "record job %s: %w", rec.ID, err)
	}
	return rev, nil
}

// txn is the transaction that writes a record whose entry has the given version.
func (r *Record) txn(version uint64) (Txn, error) {
	data, err := Marshal(r)
	if err != nil {
		return Txn{}, Errorf(Internal, "encode the record of job %s: %w", r.ID, err)
	}
	t := Txn{
		ID:  NewRequestID(),
		If:  []Cond{{Key: jobKey(r.ID), Version: version}},
		Put: []Entry{{Key: jobKey(r.ID), Value: data}},
	}
	if r.State.Final() {
		t.Delete = r.closed()
		return t, nil
	}
	t.Put = append(t.Put, Entry{Key: openKey(r.ID), Value: []byte(r.Owner.String())})
	if len(r.Writes) > 0 && version == 0 {
		data, err := Marshal(jobGrant{r.Writes})
		if err != nil {
			return Txn{}, Errorf(Internal, "encode what job %s may write: %w", r.ID, err)
		}
		t.Put = append(t.Put, Entry{Key: grantKey(r.ID), Value: data})
	}
	return t, nil
}

// closed are the keys that go when a job ends.
func (r *Record) closed() []string {
	if len(r.Writes) > 0 {
		return []string{openKey(r.ID), grantKey(r.ID)}
	}
	return []string{openKey(r.ID)}
}

func decodeRecord(e Entry) (Record, error) {
	var rec Record
	if err := Unmarshal(e.Value, &rec); err != nil {
		return rec, Errorf(Corrupt, "ledger entry %s: %w", e.Key, err)
	}
	return rec, nil
}

// endBound cancels what still runs when a bound node closes.
func (n *Node) endBound() {
	for _, j := range n.running() {
		n.post(JobEnded{Job: j.rec.ID})
		n.end(j, Cancelled, Errorf(Canceled, "the command that ran it ended"))
	}
}
