package grid

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var errCancelled = Errorf(Canceled, "cancelled by request")

// Bounds on a cancellation.
const (
	cancelTries    = 8                // owners that a job may have while it is being cancelled
	cancelPatience = 30 * time.Second // for an owner that has agreed to record the job's end
	takeUpPatience = 2 * time.Second  // for this node to take a job up that the ledger says it owns
)

// Cancel ends a job of the realm: nothing more of it runs. What has been completed stays readable. It is the
// owner that ends the job; if that does not answer, the job is ended in the ledger, where the owner finds out.
// A job that has ended before is a Conflict.
func (n *Node) Cancel(ctx context.Context, id JobID) error {
	id, err := n.cancel(ctx, id)
	if err == nil {
		n.auditAfter(ctx, AuditFact{Act: ActCancel, Subject: string(id)})
	}
	return err
}

// cancel does it, and tells the whole of an ID that may have been shortened.
func (n *Node) cancel(ctx context.Context, id JobID) (JobID, error) {
	for range cancelTries {
		j, rec, err := n.find(ctx, id)
		switch {
		case err != nil:
			return id, err
		case j != nil:
			if err := n.cancelHere(j); err != errMoved {
				return j.rec.ID, err
			}
			continue
		case rec.State.Final():
			return id, Errorf(Conflict, "job %s is not running: it is %s", rec.ID, rec.State)
		}
		id = rec.ID
		if err := n.cancelThere(ctx, &rec); err == nil || !errors.Is(err, errMoved) {
			return id, err
		}
	}
	return id, Errorf(Busy, "job %s changes too fast to be cancelled", id).Hint("try again")
}

// errMoved says that a job is not where it was.
var errMoved = errors.New("the job has moved")

// cancelHere ends a job that runs here.
func (n *Node) cancelHere(j *job) error {
	id := j.rec.ID
	n.post(JobEnded{Job: id})
	switch {
	case n.end(j, Cancelled, errCancelled):
		return nil
	case !n.runs(j):
		return errMoved // or has ended
	}
	return Errorf(Conflict, "job %s is just ending", id)
}

// cancelThere ends a job that does not run here.
func (n *Node) cancelThere(ctx context.Context, rec *Record) error {
	why := error(errCancelled)
	switch {
	case rec.Owner != n.self:
		if n.gone(rec.Owner) {
			break
		}
		ask, stop := context.WithTimeout(ctx, askTimeout)
		_, err := call[struct{}](ask, n, rec.Owner, protoCancel, cancelMsg{Job: rec.ID, Epoch: rec.Epoch})
		stop()
		switch {
		case err == nil:
			return n.awaitCancelled(ctx, rec)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case CodeOf(err) == Denied:
			return err
		case CodeOf(err) == NotFound: // it was just ending, or has not begun
			if now, _, err := n.readRecord(ctx, rec.ID); err != nil {
				return err
			} else if now.State != rec.State || now.Epoch != rec.Epoch {
				return errMoved
			}
		}
		n.log.Info("job is ended without its owner", "job", rec.ID, "owner", rec.Owner, "err", err)
	case !n.Bound && n.taken(ctx, rec.ID):
		return errMoved // to here
	}
	if rec.Owner != n.self {
		why = Errorf(Canceled, "cancelled by request, while its owner %s did not answer", rec.Owner)
	}
	return n.endIdle(ctx, rec, Cancelled, why)
}

// taken waits a little for this node to take up a job of its own.
func (n *Node) taken(ctx context.Context, id JobID) bool {
	for began := time.Now(); n.job(id) == nil; {
		select {
		case <-time.After(takeUpPatience / 50):
		case <-ctx.Done():
			return false
		}
		if time.Since(began) > takeUpPatience {
			return false
		}
	}
	return true
}

// awaitCancelled waits for the owner to record what it has agreed to.
func (n *Node) awaitCancelled(ctx context.Context, rec *Record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cancelPatience,
		Errorf(Deadline, "the owner of job %s has not recorded its end within %v", rec.ID, cancelPatience).Hint("`grid wait %s` waits for it", rec.ID))
	t := n.startTrail(ctx, rec.ID)
	defer func() { cancel(); <-t.done }()
	for {
		s := t.now(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case CodeOf(s.err) == NotFound || CodeOf(s.err) == Corrupt:
			return s.err
		case s.rec.State == Cancelled:
			return nil
		case s.rec.State != "" && s.rec.State.Final():
			return Errorf(Conflict, "job %s has just ended: it is %s", rec.ID, s.rec.State)
		case s.rec.ID != "" && s.rec.Epoch != rec.Epoch:
			return errMoved
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
		}
	}
}

// endIdle ends a job that nobody drives: its record is all there is of it. Should its owner be alive
// after all, it finds at its next write that the record is not its own any more.
func (n *Node) endIdle(ctx context.Context, rec *Record, state State, why error) error {
	now, version, err := n.readRecord(ctx, rec.ID)
	switch {
	case err != nil:
		return err
	case now.State.Final() || now.Epoch != rec.Epoch:
		return errMoved
	}
	if now.Stages == nil { // for whoever asks later how much there was to do
		get, stop := context.WithTimeout(ctx, askTimeout)
		var spec Spec
		if data, err := n.block(get, now.Spec.Cid); err == nil && Unmarshal(data, &spec) == nil {
			now.Stages = plannedStages(&spec)
			n.countStored(get, &now)
		}
		stop()
	}
	now.finish(state, why)
	data, err := Marshal(now)
	if err != nil {
		return err
	}
	_, err = n.Ledger.Commit(ctx, Txn{
		If:     []Cond{{Key: jobKey(rec.ID), Version: version}},
		Put:    []Entry{{Key: jobKey(rec.ID), Value: data}},
		Delete: now.closed(),
	})
	if CodeOf(err) == Conflict {
		return errMoved
	}
	if err != nil {
		return Errorf(CodeOf(err), "record job %s: %w", rec.ID, err)
	}
	return nil
}

// countStored counts in a record's stages what its owner has saved, as far as that is to be had.
func (n *Node) countStored(ctx context.Context, rec *Record) {
	stages := slices.Clone(rec.Stages)
	seen := make(taskSet)
	err := n.storedTasks(ctx, rec, taskPick{}, func(stage uint32, c *Completion) error {
		if int(stage) >= len(stages) || c.Index >= stages[stage].Tasks || !seen.add(stage, c.Index) {
			return nil
		}
		if c.Receipt.OK() {
			stages[stage].Done++
		} else {
			stages[stage].Failed++
		}
		return nil
	})
	if err == nil {
		rec.Stages = stages
	}
}

// onCancel begins to end a job that runs here. The ledger tells when it has ended.
func (n *Node) onCancel(ctx context.Context, from peer.ID, m cancelMsg) (struct{}, error) {
	if err := n.checkRealm(ctx, from); err != nil {
		return struct{}{}, err
	}
	j := n.own(m.Job)
	if j == nil || j.rec.Epoch != m.Epoch {
		return struct{}{}, Errorf(NotFound, "job %.40q does not run here in epoch %d", m.Job, m.Epoch)
	}
	n.spawn(func() { _ = n.cancelHere(j) }) // if it has just ended, the ledger says so
	return struct{}{}, nil
}
