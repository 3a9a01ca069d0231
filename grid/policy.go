package grid

import (
	"sync"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxAttempts is how many tries a job may ask for, of a task that fails for its nodes' reasons.
const MaxAttempts = 100

// check refuses a policy that cannot be had.
func (p *Policy) check() error {
	switch {
	case len(p.User) > MaxName || !utf8.ValidString(p.User):
		return Errorf(Invalid, "the user's name %.40q: want at most %d bytes of UTF-8", p.User, MaxName)
	case p.Priority > MaxPriority || p.Priority < -MaxPriority:
		return Errorf(Invalid, "priority %d: want %d to %d", p.Priority, -MaxPriority, MaxPriority)
	case p.Deadline < 0 || p.Start < 0:
		return Errorf(Invalid, "a deadline of %v, and %v to start: neither may be negative", p.Deadline, p.Start)
	case p.Deadline > 0 && p.Start > p.Deadline:
		return Errorf(Invalid, "the job may take %v to start, but is to have ended after %v", p.Start, p.Deadline)
	}
	if err := p.checkOffload(); err != nil {
		return err
	}
	return p.Verify.check()
}

// normalizePlacing checks what a spec asks of nodes, and brings selectors into their canonical form.
func (s *Spec) normalizePlacing() error {
	if len(s.Salt) > MaxName || !utf8.ValidString(s.Salt) {
		return Errorf(Invalid, "the salt %.40q: want at most %d bytes of UTF-8", s.Salt, MaxName)
	}
	for i := range s.Stages {
		st := &s.Stages[i]
		if err := st.normalizePlacing(); err != nil {
			return Errorf(CodeOf(err), "stage %d (%s): %w", i, st.Name, err)
		}
	}
	return nil
}

func (st *Stage) normalizePlacing() error {
	for _, f := range []struct {
		name string
		text *string
	}{{"require", &st.Require}, {"prefer", &st.Prefer}} {
		sel, err := ParseSelector(*f.text)
		if err != nil {
			return Errorf(CodeOf(err), "%s: %w", f.name, err)
		}
		*f.text = sel.String()
	}
	if st.Reserve.Cores > MaxCores {
		return Errorf(Limit, "%d cores for one task, at most %d are allowed", st.Reserve.Cores, MaxCores)
	}
	if st.Attempts > MaxAttempts {
		return Errorf(Limit, "%d attempts, at most %d are allowed", st.Attempts, MaxAttempts)
	}
	return nil
}

// class is what scheduling needs to know of a stage's tasks.
func (st *Stage) class(p *Policy) Class {
	cl := Class{
		User: p.User, Priority: p.Priority, Require: st.Require, Prefer: st.Prefer,
		Cores: st.Reserve.Cores, Memory: st.Reserve.Memory, Scratch: st.Reserve.Scratch, Pure: !st.Impure, Checked: p.Verify.On(),
		Realm: st.Grants.Realm(),
	}
	if st.offloads(p) {
		cl.Offload, cl.MemoryLimit, cl.ScratchLimit = true, st.Limits.Memory, st.Limits.Scratch
	}
	return cl
}

// leastStart is how long a new owner waits for the first task of a job, whatever is left of the time it has to start:
// what the last owner had under way is not known yet.
const leastStart = 10 * time.Second

// opening tells the scheduler of a job that this node owns from now on.
func (j *job) opening(now time.Time) JobOpened {
	rec := &j.rec
	ev := JobOpened{
		Lease: j.lease(), Stages: j.spec.plans(&rec.Policy), KeepGoing: j.spec.KeepGoing, Allow: j.spec.Allow, Parallel: rec.Parallel,
		Paused: j.paused != nil,
	}
	if rec.Deadline > 0 {
		ev.Deadline = max(rec.Submitted.Add(rec.Deadline).Sub(now), 1)
	}
	if rec.Start > 0 && !rec.Checkpoint.Defined() {
		ev.Start = max(rec.Submitted.Add(rec.Start).Sub(now), 1)
		if rec.Epoch > 1 {
			ev.Start = max(ev.Start, leastStart)
		}
	}
	return ev
}

// Quota bounds what one user may have with one node: jobs that run, and tasks of these that have not ended.
type Quota struct {
	Jobs  int    // 0: 10,000
	Tasks uint64 // 0: 16,777,216
}

// DefaultQuota is what a user may have unless the node's owner says otherwise.
var DefaultQuota = Quota{Jobs: 10_000, Tasks: 1 << 24}

// admissions keeps users within their quotas while their jobs are being accepted.
type admissions struct {
	mu      sync.Mutex
	pending map[string]Quota // of jobs that are being accepted, by user
}

// reserve books a job's place in its user's quota until release: from then on it counts as it runs.
func (n *Node) reserve(user string, spec *Spec) (release func(), err error) {
	most := n.Quota
	if most.Jobs <= 0 {
		most.Jobs = DefaultQuota.Jobs
	}
	if most.Tasks == 0 {
		most.Tasks = DefaultQuota.Tasks
	}
	add := Quota{Jobs: 1}
	for i := range spec.Stages {
		add.Tasks += uint64(spec.Stages[i].Tasks)
	}
	a := &n.admissions
	a.mu.Lock()
	defer a.mu.Unlock()
	has := a.pending[user]
	for _, j := range n.running() {
		if j.rec.User == user {
			has.Jobs++
			has.Tasks += j.left()
		}
	}
	switch {
	case has.Jobs+add.Jobs > most.Jobs:
		return nil, Errorf(Limit, "user %s has %d jobs running with this node, which accepts %d of one user", user, has.Jobs, most.Jobs).
			Hint("wait for some of them, or cancel them (`grid ps`); `grid up --max-jobs-per-user` sets the bound")
	case has.Tasks+add.Tasks > most.Tasks:
		return nil, Errorf(Limit, "user %s has %d tasks left with this node, which accepts %d of one user, and this job has %d", user, has.Tasks, most.Tasks, add.Tasks).
			Hint("wait for some of them, or cancel jobs (`grid ps`); `grid up --max-queued-per-user` sets the bound")
	}
	if a.pending == nil {
		a.pending = make(map[string]Quota)
	}
	p := a.pending[user]
	a.pending[user] = Quota{p.Jobs + add.Jobs, p.Tasks + add.Tasks}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		p := a.pending[user]
		if p = (Quota{p.Jobs - add.Jobs, p.Tasks - add.Tasks}); p.Jobs > 0 {
			a.pending[user] = p
		} else {
			delete(a.pending, user)
		}
	}, nil
}

// left counts the tasks of a job that have not ended.
func (j *job) left() (tasks uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.stages {
		st := &j.stages[i].status
		tasks += uint64(st.Tasks - min(st.Done+st.Failed, st.Tasks))
	}
	return tasks
}

// checkLeases leaves out leases from a victim that no honest owner makes, and reports whether there were any.
func checkLeases(leases []Lease) (good []Lease, bad error) {
	good = leases[:0]
	for _, l := range leases {
		if err := checkLease(&l); err != nil {
			bad = Errorf(CodeOf(err), "lease on %.40q: %w", l.Job, err)
			continue
		}
		good = append(good, l)
	}
	return good, bad
}

func checkLease(l *Lease) error {
	switch {
	case l.Job == "" || len(l.Job) > MaxName:
		return Errorf(Invalid, "no job has such an ID")
	case l.Stage >= MaxStages:
		return Errorf(Invalid, "stage %d, a job has at most %d", l.Stage, MaxStages)
	case l.Lo >= l.Hi || l.Hi > MaxTasks:
		return Errorf(Invalid, "tasks %v", l.Span)
	case l.Owner.Validate() != nil:
		return Errorf(Invalid, "no owner")
	}
	for _, text := range []string{l.Class.Require, l.Class.Prefer} {
		if sel, err := ParseSelector(text); err != nil {
			return err
		} else if sel.String() != text {
			return Errorf(Invalid, "selector %q is not in its canonical form", clip(text))
		}
	}
	return l.Class.Check()
}

// accusations remembers which peers were found to do what no honest node does, the last few of them.
type accusations struct {
	mu   sync.Mutex
	last map[peer.ID]accusation
}

type accusation struct {
	at  time.Time
	why string
}

const maxAccused = 256

// accusePause is for how long after one accusation of a peer others of it are left out: whoever sends nonsense as fast
// as it can must not fill the log, nor push all else out of a job's events.
const accusePause = time.Second

// accuse tells the scheduler, and the log, of a peer that did what no honest node does.
func (n *Node) accuse(p peer.ID, job JobID, why string) {
	if last, ok := n.accused.of(p); ok && time.Since(last.at) < accusePause {
		return
	}
	why = clean(why, maxMessage)
	n.log.Warn("a peer is not to be trusted", "peer", p, "job", job, "why", why)
	n.accused.note(p, why)
	n.post(Accused{Peer: p, Job: job, Why: why})
}

func (a *accusations) note(p peer.ID, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = make(map[peer.ID]accusation)
	}
	if _, known := a.last[p]; !known && len(a.last) >= maxAccused {
		oldest := p
		for id, acc := range a.last {
			if oldest == p || acc.at.Before(a.last[oldest].at) {
				oldest = id
			}
		}
		delete(a.last, oldest)
	}
	a.last[p] = accusation{time.Now(), why}
}

func (a *accusations) of(p peer.ID) (accusation, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc, ok := a.last[p]
	return acc, ok
}
