package grid

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

// watchEvery is the shortest time between two pictures that a watcher gets of one job.
const watchEvery = 100 * time.Millisecond

// Jobs describes all jobs in the ledger, newest first.
func (n *Node) Jobs(ctx context.Context) ([]JobStatus, error) {
	out := []JobStatus{}
	_, err := RangeAll(ctx, n.Ledger, jobPrefix, false, func(e Entry) error {
		rec, err := decodeRecord(e)
		if err != nil {
			n.log.Error("job record unreadable", "key", e.Key, "err", err)
		} else if j := n.job(rec.ID); j != nil {
			st, _ := j.status()
			out = append(out, st)
		} else {
			out = append(out, n.storedStatus(ctx, &rec))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b JobStatus) int {
		return cmp.Or(b.Submitted.Compare(a.Submitted), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// storedStatus describes a job that is not running here from its record; only its name has to be read from the spec.
func (n *Node) storedStatus(ctx context.Context, rec *Record) JobStatus {
	var spec Spec
	if data, err := n.Blocks.Get(ctx, rec.Spec.Cid); err == nil {
		_ = Unmarshal(data, &spec) // a lost spec costs no more than the name
	}
	st := statusOf(rec, spec.Name, rec.Stages)
	if !st.State.Final() {
		st.State = Waiting
	}
	return st
}

// find looks a job up by its ID or a unique beginning of it. j is nil when the job does not run here.
func (n *Node) find(ctx context.Context, id JobID) (j *job, rec Record, err error) {
	if j := n.job(id); j != nil {
		return j, Record{}, nil
	}
	if len(id) < jobKeyMin || strings.Trim(string(id), "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return nil, rec, Errorf(Invalid, "%q is not a job ID: want at least its first %d characters", id, jobKeyMin).
			Hint("`grid ps -a` lists the jobs of this node")
	}
	page, err := n.Ledger.Range(ctx, Query{Prefix: jobKey(id), Limit: 2})
	entries := page.Entries
	switch {
	case err != nil:
		return nil, rec, err
	case len(entries) == 0:
		return nil, rec, Errorf(NotFound, "no job %s on this node", id).Hint("`grid ps -a` lists the jobs of this node")
	case len(entries) > 1:
		return nil, rec, Errorf(Invalid, "%s is the beginning of several job IDs", id).Hint("give more of it")
	}
	if rec, err = decodeRecord(entries[0]); err != nil {
		return nil, rec, err
	}
	return n.job(rec.ID), rec, nil
}

// Job describes one job, named by its ID or a unique beginning of it.
func (n *Node) Job(ctx context.Context, id JobID) (JobStatus, error) {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return JobStatus{}, err
	}
	if j != nil {
		st, _ := j.status()
		return st, nil
	}
	return n.storedStatus(ctx, &rec), nil
}

// Watch calls f with the job's status now and whenever it has changed, not more often than some ten
// times a second, and last with the final one. An error of f ends it.
func (n *Node) Watch(ctx context.Context, id JobID, f func(JobStatus) error) error {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	if j == nil {
		return f(n.storedStatus(ctx, &rec))
	}
	for {
		st, changed := j.status()
		if err := f(st); err != nil || st.State.Final() {
			return err
		}
		if err := n.settle(ctx, j, changed); err != nil {
			return err
		}
	}
}

// settle waits for a change and then, for others to join it, a little longer, but not past the end.
func (n *Node) settle(ctx context.Context, j *job, changed <-chan struct{}) error {
	var pause <-chan time.Time
	for {
		select {
		case <-changed:
			st, next := j.status()
			if st.State.Final() {
				return nil
			}
			if changed = next; pause == nil {
				t := time.NewTimer(watchEvery)
				defer t.Stop()
				pause = t.C
			}
		case <-pause:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.ctx.Done():
			return errClosing
		}
	}
}

var errClosing = Errorf(Unavailable, "the node is closing")

// Tasks calls f for each task that has ended: in order of completion while the job runs, in order of
// stage and index once it has ended. With follow it goes on until the job ends. An error of f ends it.
func (n *Node) Tasks(ctx context.Context, id JobID, follow bool, f func(TaskEnd) error) error {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	if j == nil {
		return n.storedTasks(ctx, &rec, f)
	}
	for next := 0; ; {
		j.mu.Lock()
		refs, changed, final := j.order[next:], j.changed, j.rec.State.Final()
		j.mu.Unlock()
		for _, ref := range refs {
			c, err := j.completion(ref)
			if err != nil {
				return err
			}
			if err := f(taskEnd(ref.stage, &c)); err != nil {
				return err
			}
		}
		next += len(refs)
		if final || !follow {
			return nil
		}
		if len(refs) > 0 {
			continue // there may be more by now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.ctx.Done():
			return errClosing
		}
	}
}

// storedTasks reads the results of a job that has ended.
func (n *Node) storedTasks(ctx context.Context, rec *Record, f func(TaskEnd) error) error {
	if !rec.Result.Defined() {
		return nil
	}
	get := func(ctx context.Context, c cid.Cid) ([]byte, error) { return n.block(ctx, c, rec.Owner) }
	data, err := get(ctx, rec.Result.Cid)
	if err != nil {
		return Errorf(CodeOf(err), "result of job %s: %w", rec.ID, err)
	}
	var res Result
	if err := Unmarshal(data, &res); err != nil {
		return Errorf(Corrupt, "result of job %s: %w", rec.ID, err)
	}
	for stage, link := range res.Stages {
		t, err := OpenTable[Completion](ctx, get, link)
		if err != nil {
			return err
		}
		for i := range t.Len() {
			c, err := t.Row(ctx, i)
			if err != nil {
				return err
			}
			if err := f(taskEnd(uint32(stage), &c)); err != nil {
				return err
			}
		}
	}
	return nil
}

func taskEnd(stage uint32, c *Completion) TaskEnd {
	r := &c.Receipt
	return TaskEnd{
		Stage: stage, Index: c.Index, Input: c.Input, Inputs: c.Inputs, Node: r.Node.String(), Cached: c.Cached,
		Exit: r.Exit, Fault: r.Fault, Out: r.Out, Phases: r.Phases, Memory: r.Memory, Fuel: r.Fuel,
		Calls: r.Calls, Impure: r.Impure, Profile: r.Profile,
		Stdout: TaskOutput{Size: r.Stdout.Size, Data: r.Stdout.Inline, CID: r.Stdout.CID},
		Stderr: TaskOutput{Size: r.Stderr.Size, Data: r.Stderr.Inline, CID: r.Stderr.CID},
	}
}
