package grid

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TaskProgress is how far a running task is.
type TaskProgress struct {
	Node    string        `json:"node"`       // that runs it
	Stage   uint32        `json:"stage"`      // counted from 0
	Index   uint32        `json:"index"`      // of the task in its stage, counted from 0
	Running time.Duration `json:"running_ns"` // since the attempt began
	// Said reports whether the guest has told how far it is: Done of Total, in units of its own. Total 0: it does not
	// know of how much.
	Said  bool   `json:"said,omitempty"`
	Done  uint64 `json:"done,omitempty"`
	Total uint64 `json:"total,omitempty"`
}

// taskRun is a task that runs on the node which is asked.
type taskRun struct {
	Stage   uint32        `cbor:"stage"`
	Index   uint32        `cbor:"index"`
	Running time.Duration `cbor:"running"`
	Said    bool          `cbor:"said,omitempty"`
	Done    uint64        `cbor:"done,omitempty"`
	Total   uint64        `cbor:"total,omitempty"`
}

// Bounds on what is told of running tasks: of one node, and in an explanation.
const (
	maxTaskRuns     = 64
	maxTaskProgress = 512
)

// attempt is one that runs on this node.
type attempt struct {
	job          JobID
	stage, index uint32
	began        time.Time
	impure       bool
	hidden       bool // nobody is to see what it prints
	out, err     tape

	mu          sync.Mutex
	said        bool
	done, total uint64
}

// progress takes in what the guest says. It is [Guest.Progress].
func (a *attempt) progress(done, total uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said, a.done, a.total = true, done, total
}

// attempts are those that run on a node.
type attempts struct {
	mu   sync.Mutex
	list map[*attempt]struct{}
}

// begin notes an attempt, until it is ended. What a hidden one prints is not shown while it runs: it is another realm's, or
// run again to look whether the result was right.
func (r *attempts) begin(t *Task, at time.Time, hidden bool) (a *attempt, end func()) {
	a = &attempt{job: t.Job, stage: t.Stage, index: t.Index, began: at, impure: t.Impure(), hidden: hidden}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		r.list = make(map[*attempt]struct{})
	}
	r.list[a] = struct{}{}
	return a, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.list, a)
	}
}

// of tells of a job's attempts; of many, those that began first.
func (r *attempts) of(id JobID, now time.Time) (runs []taskRun) {
	var list []*attempt
	r.mu.Lock()
	for a := range r.list {
		if a.job == id {
			list = append(list, a)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b *attempt) int {
		return cmp.Or(a.began.Compare(b.began), cmp.Compare(a.stage, b.stage), cmp.Compare(a.index, b.index))
	})
	for _, a := range list[:min(len(list), maxTaskRuns)] {
		a.mu.Lock()
		runs = append(runs, taskRun{a.stage, a.index, max(now.Sub(a.began), 0), a.said, a.done, a.total})
		a.mu.Unlock()
	}
	return runs
}

// show adds a node's running tasks to what is told of a job.
func (e *Explanation) show(node peer.ID, runs []taskRun) {
	for _, r := range runs[:min(len(runs), maxTaskProgress-len(e.Tasks))] {
		if int(r.Stage) < len(e.Stages) {
			e.Tasks = append(e.Tasks, TaskProgress{node.String(), r.Stage, r.Index, r.Running, r.Said, r.Done, r.Total})
		}
	}
}

// order puts running tasks into the order of their numbers.
func (e *Explanation) order() {
	slices.SortFunc(e.Tasks, func(a, b TaskProgress) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Node, b.Node))
	})
}
