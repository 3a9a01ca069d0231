package grid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	// endWait bounds how long who asks for a job's end waits for it; the work goes on.
	endWait = time.Minute
	// storeTimeout bounds the writing of a job's results.
	storeTimeout = 10 * time.Minute
	// roomWait bounds how long a job that has ended waits for room on its owner's disk, or for its quota: all of its work would be lost.
	roomWait = 10 * time.Minute
)

// errLost says that a job is another node's by now, or was ended by one.
var errLost = errors.New("the job is another node's by now, or has ended")

// unsure reports whether a commit that failed with a code may have been carried out all the same, or may be
// when it is tried again.
func unsure(c Code) bool {
	switch c {
	case Unavailable, Deadline, Busy, Canceled, NoSpace, Internal, Unknown:
		return true
	}
	return false
}

// commit commits a transaction, which has an ID, and tries until its outcome is known, or ctx ends.
func (n *Node) commit(ctx context.Context, t Txn) (uint64, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		try, cancel := context.WithTimeout(ctx, ledgerTimeout)
		rev, err := n.Ledger.Commit(try, t)
		cancel()
		if err == nil || n.Bound || !unsure(CodeOf(err)) {
			return rev, err
		}
		n.log.Warn("a commit has failed; it is tried again", "err", err)
		if !pauseFor(ctx, pause) {
			return 0, context.Cause(ctx)
		}
	}
}

// read reads an entry, and tries until it has got an answer, or ctx ends. The error may be NotFound.
func (n *Node) read(ctx context.Context, key string) (Entry, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		try, cancel := context.WithTimeout(ctx, ledgerTimeout)
		e, err := n.Ledger.Get(try, key)
		cancel()
		if err == nil || n.Bound || !unsure(CodeOf(err)) {
			return e, err
		}
		if !pauseFor(ctx, pause) {
			return Entry{}, context.Cause(ctx)
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// write writes the record of a job of this node, and returns only once it is known whether it was written, or ctx
// has ended. build changes the record and makes the transaction; it is called again when something else than the
// record got in its way. The error is errLost when the job is no longer this node's, which then forgets it.
func (n *Node) write(ctx context.Context, j *job, build func(*Record) (Txn, error)) error {
	select {
	case j.writing <- struct{}{}:
		defer func() { <-j.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		j.mu.Lock()
		rec, lost := j.rec, j.lost
		rec.Stages = nil
		j.mu.Unlock()
		if lost || rec.State.Final() { // what comes after the end, such as a checkpoint that was under way, is not written over it
			return errLost
		}
		t, err := build(&rec)
		if err != nil {
			return err
		}
		rev, err := n.commit(ctx, t)
		if c := CodeOf(err); err != nil && (c == Conflict || c == OutOfDate) {
			var again bool
			if rev, again, err = n.refused(ctx, j, t.Put[0].Value); again && pauseFor(ctx, pause/8) {
				continue
			}
		}
		if err == errLost {
			n.lose(j)
			return err
		}
		if err != nil {
			return Errorf(CodeOf(err), "record job %s: %w", rec.ID, err)
		}
		j.mu.Lock()
		j.version = rev
		j.rec.State, j.rec.Code, j.rec.Error, j.rec.Ended = rec.State, rec.Code, rec.Error, rec.Ended
		j.rec.Result, j.rec.Checkpoint, j.rec.Stages, j.rec.Used = rec.Result, rec.Checkpoint, rec.Stages, rec.Used
		j.touch()
		j.mu.Unlock()
		return nil
	}
}

// refused finds out why a record was not written: because that had been done before, and the answer was lost; or
// because of something else in the transaction, so that it is to be tried again; or because the job is lost.
func (n *Node) refused(ctx context.Context, j *job, value []byte) (version uint64, again bool, err error) {
	e, err := n.read(ctx, jobKey(j.rec.ID))
	switch {
	case CodeOf(err) == NotFound:
		return 0, false, errLost
	case err != nil:
		return 0, false, err
	case bytes.Equal(e.Value, value):
		return e.Version, false, nil
	case e.Version == j.version: // which only who writes changes
		return 0, true, Errorf(Conflict, "what the job's end changes besides was changed meanwhile")
	}
	return 0, false, errLost
}

// end brings a job to a final state: its results become blocks, and one ledger transaction makes the end known,
// together with the refs that it publishes. why is nil when it is Done. It is false when the job has ended
// already, or is another node's. Nothing is told of an end that is not in the ledger; as long as that cannot be
// reached, the job is running, and it is tried again.
func (n *Node) end(j *job, state State, why error) bool {
	if j.batch != nil { // it ends with the task that spawned it
		return false
	}
	j.mu.Lock()
	if j.ending {
		j.mu.Unlock()
		return false
	}
	j.ending = true // nothing is booked from here on
	j.stopTimer()
	j.mu.Unlock()
	if n.Bound {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), endWait) // a closing node ends its jobs too
		defer cancel()
		return n.finish(ctx, j, state, why)
	}
	ended := make(chan bool, 1)
	n.spawn(func() { ended <- n.finish(j.ctx, j, state, why) })
	t := time.NewTimer(endWait)
	defer t.Stop()
	select {
	case ok := <-ended:
		return ok
	case <-t.C:
	case <-n.ctx.Done():
	}
	return false
}

// finish does what end promises.
func (n *Node) finish(ctx context.Context, j *job, state State, why error) (done bool) {
	held := holds{n: n} // what the record will name
	defer held.end()
	began := time.Now()
	if j.inherited {
		n.restore(j)
	}
	j.mu.Lock()
	stages, checkpoint := j.summary(), j.rec.Checkpoint
	j.mu.Unlock()
	result, published, err := n.results(ctx, j, state, why, &held)
	defer func() {
		if !done && result.Defined() && n.ctx.Err() == nil { // the job is lost
			n.spawn(func() { n.disown(j.rec.ID, result) })
		}
	}()
	for pause := time.Second; !n.Bound && CodeOf(err) == NoSpace && time.Since(began) < roomWait; pause = min(2*pause, lastTry) {
		n.log.Warn("no room for a job's result; it is tried again", "job", j.rec.ID, "for", roomWait, "err", err)
		j.waits(fmt.Sprintf("all tasks have ended, and the result waits for room at the job's owner, for %s at most: %v", roomWait, err))
		held.end() // that makes room, too
		if !pauseFor(ctx, pause) {
			return false
		}
		result, published, err = n.results(ctx, j, state, why, &held)
	}
	j.waits("")
	stored := time.Now()
	if ctx.Err() != nil {
		return false // closing, or lost
	}
	if err != nil {
		n.log.Error("result not stored", "job", j.rec.ID, "err", err)
		state, why = Failed, Errorf(CodeOf(err), "store the result: %w", err)
	}
	var replaced []Link
	var total History
	now := time.Now()
	build := func(rec *Record) (Txn, error) {
		rec.finish(state, why)
		checkpoint = rec.Checkpoint // of one that was just being written, too
		rec.Result, rec.Checkpoint, rec.Stages = result, Link{}, stages
		j.mu.Lock()
		all := j.used(state)
		rest := all.less(j.meter.wrote.Total())
		j.mu.Unlock()
		rec.Used = &all
		t, err := rec.txn(j.version)
		if err == nil {
			total, err = j.countIn(&t, rest, now)
		}
		if err == nil && state == Done {
			replaced, err = n.publish(ctx, rec, published, &t)
		}
		return t, err
	}
	err = n.write(ctx, j, build)
	if err != nil && err != errLost && ctx.Err() == nil { // no ledger takes that
		n.log.Error("end of job not recorded; it is recorded as failed", "job", j.rec.ID, "err", err)
		state, why, stages = Failed, Errorf(CodeOf(err), "record the job's end: %w", err), nil
		for again := true; again; again = !n.Bound && err != nil && err != errLost && pauseFor(ctx, lastTry) {
			err = n.write(ctx, j, build)
		}
		if err != nil && n.Bound { // the command ends anyhow
			j.mu.Lock()
			j.rec.finish(state, why)
			j.touch()
			j.mu.Unlock()
			err = nil
		}
	}
	if err != nil {
		return false
	}
	n.measures.ended(state, time.Since(j.rec.Submitted))
	n.traces.ended(j, began, stored)
	j.cancel()
	j.mu.Lock()
	n.noticedEnd(j)
	j.mu.Unlock()
	n.noteStandings(j)
	n.allowances.endedWith(j.rec.ID, jobUsage{j.rec.by(), total})
	n.mu.Lock()
	delete(n.jobs, j.rec.ID)
	n.mu.Unlock()
	n.post(JobEnded{Job: j.rec.ID}) // should it have been laid out meanwhile
	if kit := j.rec.Kit; kit.Defined() || checkpoint.Defined() || len(replaced) > 0 {
		n.spawn(func() {
			n.unpin(kit)
			n.unpin(checkpoint)
			n.letGo(replaced, published)
		})
	}
	return true
}

// disown takes back the pin of a result that another owner's record does not name when the job has ended, and nobody would look for.
func (n *Node) disown(id JobID, result Link) {
	for n.sleep(disownEvery) {
		ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
		e, err := n.read(ctx, jobKey(id))
		cancel()
		switch rec, bad := decodeRecord(e); {
		case CodeOf(err) == NotFound:
			n.unpin(result)
			return
		case err != nil: // later
		case bad != nil:
			return
		case rec.State.Final():
			if rec.Result != result {
				n.unpin(result)
			}
			return
		}
	}
}

// disownEvery is how often disown looks.
const disownEvery = 10 * time.Second

// results stores what a job came to, holds it, and has other nodes keep it, too. published is what its refs are to name.
func (n *Node) results(ctx context.Context, j *job, state State, why error, held *holds) (result, published Link, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	used := n.HoldUsed()
	defer used()
	if result, err = n.storeResult(ctx, j, j.whole(state, why)); err != nil {
		return Link{}, Link{}, err
	}
	rec := &j.rec // of what does not change
	publishes := state == Done && len(rec.Publish) > 0
	if publishes {
		if published, err = n.publishable(ctx, j); err != nil {
			return result, Link{}, err
		}
	}
	held.add(result.Cid)
	if published.Defined() {
		held.add(published.Cid)
	}
	used() // others may take minutes to make their copies
	if err := n.Blocks.Sync(ctx); err != nil {
		return result, Link{}, err
	}
	want, now := n.copies(rec.Copies)
	replicas := rec.Replicas
	if replicas == 0 && now > 1 {
		replicas = want
	}
	least := min(replicas, max(now, 1))
	if state != Done {
		least = 1
	}
	if replicas > 0 && (state == Done || now > 1) {
		p := Pin{Root: result, Name: "job " + string(rec.ID), Replicas: replicas}
		if _, err := n.spread(ctx, p, least); err != nil && ctx.Err() == nil {
			if rec.Replicas > 0 {
				return result, Link{}, err
			}
			n.log.Warn("the result is only on this node", "job", rec.ID, "err", err)
		}
	}
	if publishes {
		err = n.pinPublished(ctx, rec, published, max(replicas, 1), least)
	}
	return result, published, err
}

// storeResult writes the job's completions as tables, and its events.
func (n *Node) storeResult(ctx context.Context, j *job, events []JobEvent) (Link, error) {
	res := Result{Job: j.rec.ID, Stages: make([]Link, len(j.stages)), Events: events}
	for s := range j.stages {
		var err error
		if res.Stages[s], err = n.writeTable(ctx, j.stages[s].results); err != nil {
			return Link{}, err
		}
	}
	b, err := EncodeBlock(res)
	if err != nil {
		return Link{}, err
	}
	if err := n.Blocks.Put(ctx, b); err != nil {
		return Link{}, err
	}
	return Link{b.CID()}, n.Blocks.Sync(ctx)
}

// publishable is what refs to a job's outcome name: what its last stage's one task left in /out, else its standard
// output; of several tasks the folder that gathering tasks see.
func (n *Node) publishable(ctx context.Context, j *job) (Link, error) {
	last := uint32(len(j.stages) - 1)
	j.mu.Lock()
	st := &j.stages[last].status
	name, none := st.Name, st.Done == 0
	j.mu.Unlock()
	if none { // though the job may fail as many
		return Link{}, Errorf(NotFound, "nothing to publish: no task of stage %s has ended well", name)
	}
	if len(j.stages[last].results) != 1 {
		all, err := n.allOf(ctx, j, last)
		return all.CID, err
	}
	c, err := j.completion(taskRef{last, 0})
	if err != nil {
		return Link{}, err
	}
	if out := c.Receipt.Out; out.Defined() {
		return out, nil
	}
	o := &c.Receipt.Stdout
	if o.CID.Defined() {
		return o.CID, nil
	}
	b := NewBlock(cid.Raw, o.Inline)
	return Link{b.CID()}, n.Blocks.Put(ctx, b)
}

// pinPublished has what refs are to name kept, under the name of the first of them. A promise that somebody else
// has made for it is left as it is.
func (n *Node) pinPublished(ctx context.Context, rec *Record, root Link, replicas, least int) error {
	p := Pin{Root: root, Name: refPin(rec.Publish[0]), Replicas: replicas}
	if n.realm != nil { // the store of a command has nobody to ask
		if st, err := n.Pins.Status(ctx, root.Cid, false); err == nil && st.Wanted() >= replicas {
			return nil
		} else if err == nil {
			p.Name = st.Name // it is to outlive the ref
		}
	}
	_, err := n.spread(ctx, p, least)
	return err
}

// publish adds to a transaction that ends a job what sets its refs. replaced is what they named before.
func (n *Node) publish(ctx context.Context, rec *Record, root Link, t *Txn) (replaced []Link, err error) {
	for _, name := range rec.Publish {
		key := RefKeys + name
		e, err := n.read(ctx, key)
		if err != nil && CodeOf(err) != NotFound {
			return nil, err
		}
		var old *Ref
		if err == nil {
			var r Ref
			if err := Unmarshal(e.Value, &r); err != nil {
				n.log.Warn("a ref that cannot be read is replaced", "ref", name, "err", err)
				r = Ref{}
			} else if r.CID.Defined() {
				replaced = append(replaced, r.CID)
			}
			old = &r
		}
		next, err := refEntry(name, Ref{CID: root, Job: rec.ID, Updated: rec.Ended}, old)
		if err != nil {
			return nil, err
		}
		t.If = append(t.If, Cond{Key: key, Version: e.Version})
		t.Put = append(t.Put, next)
		if err := n.audit(t, AuditFact{Act: ActPublishRef, Subject: name, CID: root, Note: "by job " + string(rec.ID)}); err != nil {
			return nil, err
		}
	}
	return replaced, nil
}

// letGo takes back the pins of what refs do not name any longer: those that were made for refs, and of what no
// other ref names.
func (n *Node) letGo(replaced []Link, published Link) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), callTimeout) // a closing node does it, too
	defer cancel()
	for _, root := range replaced {
		if root == published {
			continue
		}
		st, err := n.Pins.Status(ctx, root.Cid, false)
		if err != nil || !strings.HasPrefix(st.Name, refPinMark) {
			continue
		}
		named := false
		_, err = RangeAll(ctx, n.Ledger, RefKeys, false, func(e Entry) error {
			var r Ref
			if err := Unmarshal(e.Value, &r); err != nil {
				return err
			}
			named = named || r.CID == root
			return nil
		})
		if err == nil && !named {
			n.unpin(root)
		}
	}
}
