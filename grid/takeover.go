package grid

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// takeStep is how much longer each node waits than the one before it, in the order that the job's name
	// gives them, until it takes a job over whose owner is gone: usually just one tries. The first waits one step, for an
	// owner that has lost its session and is there again in a moment.
	takeStep = 300 * time.Millisecond
	// takers bounds the jobs that are being taken over at a time.
	takers = 8
	// takeTimeout bounds one try.
	takeTimeout = 30 * time.Second
	// firstTry and lastTry bound the pause after a try that failed.
	firstTry = 500 * time.Millisecond
	lastTry  = 15 * time.Second
	// giveUpAfter is how long a job cannot be taken over by a node before that ends it as failed.
	giveUpAfter = 5 * time.Minute
	// resumeTimeout bounds how long the opening of a node waits for a ledger without a majority.
	resumeTimeout = time.Second
)

// rank is how many of the nodes come before this one when a job needs a new owner.
func rank(id JobID, self peer.ID, nodes map[peer.ID]struct{}, may func(peer.ID) bool) (before int) {
	weight := func(node peer.ID) uint64 {
		sum := sha256.Sum256([]byte(string(id) + "\x00" + string(node)))
		return binary.BigEndian.Uint64(sum[:])
	}
	mine := weight(self)
	for node := range nodes {
		if w := weight(node); node != self && (w < mine || w == mine && node < self) && may(node) {
			before++
		}
	}
	return before
}

// openRead takes in all jobs that are open.
func (n *Node) openRead(all []Entry) {
	r := n.realm
	r.mu.Lock()
	old := r.open
	r.open = make(map[JobID]*openJob, len(all))
	for _, e := range all {
		n.openPut(e, old[JobID(strings.TrimPrefix(e.Key, OpenKeys))])
	}
	ended := make(map[JobID][]peer.ID)
	for id, o := range old {
		if r.open[id] == nil {
			ended[id] = o.owners()
		}
	}
	r.learned(OpenKeys)
	r.stir()
	r.mu.Unlock()
	for id, owners := range ended {
		n.over(id, owners)
	}
	for _, j := range n.running() {
		if r.owner(j.rec.ID) != n.self {
			n.spawn(func() { n.check(j) })
		}
	}
}

// openChanged takes in what became of open jobs.
func (n *Node) openChanged(c Changes) {
	r := n.realm
	var moved, ended []JobID
	owners := make(map[JobID][]peer.ID)
	r.mu.Lock()
	for _, e := range c.Put {
		id := JobID(strings.TrimPrefix(e.Key, OpenKeys))
		o := n.openPut(e, r.open[id])
		if _, up := r.nodes[o.owner]; !up || o.owner == n.self {
			r.stir()
		}
		if o.owner != n.self {
			moved = append(moved, id)
		}
	}
	for _, key := range c.Delete {
		id := JobID(strings.TrimPrefix(key, OpenKeys))
		if o := r.open[id]; o != nil {
			owners[id] = o.owners()
		}
		delete(r.open, id)
		ended = append(ended, id)
	}
	r.mu.Unlock()
	for id, owners := range owners {
		n.over(id, owners)
	}
	for _, id := range moved {
		if j := n.job(id); j != nil && j.older(c.Revision, true) {
			n.spawn(func() { n.check(j) })
		}
	}
	for _, id := range ended {
		if j := n.job(id); j != nil && j.older(c.Revision, false) {
			n.spawn(func() { n.check(j) })
		}
	}
}

// openPut notes an open job. n.realm.mu is held.
func (n *Node) openPut(e Entry, old *openJob) *openJob {
	o := &openJob{version: e.Version}
	if id, err := peer.Decode(string(e.Value)); err == nil {
		o.owner = id
	} else {
		n.log.Warn("an open job has no owner", "key", e.Key, "err", err)
	}
	if old != nil && old.version == o.version { // what is known of the tries so far still counts
		o = old
	} else if old != nil {
		o.before = old.before
		if old.owner != o.owner && len(o.before) < maxOwners {
			o.before = append(slices.Clip(o.before), old.owner)
		}
		if r := n.realm; old.owner != o.owner && r.moved != nil {
			close(r.moved)
			r.moved = nil
		}
	}
	n.realm.open[JobID(strings.TrimPrefix(e.Key, OpenKeys))] = o
	return o
}

// maxOwners is how many of a job's owners are remembered, so that leases of theirs end with it.
const maxOwners = 64

// owners are all of a job's owners that are known.
func (o *openJob) owners() []peer.ID { return append(slices.Clip(o.before), o.owner) }

// older reports whether this node wrote the job's record before a revision, and, unless ending is set, is not just
// ending it.
func (j *job) older(revision uint64, ending bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.version < revision && (ending || !j.ending)
}

// takeOvers takes over jobs whose owners are gone, and takes up those of this node that do not run.
func (n *Node) takeOvers() {
	tickets := make(chan struct{}, takers)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := n.orphans(time.Now())
		for _, id := range due {
			select {
			case tickets <- struct{}{}:
			case <-n.ctx.Done():
				return
			}
			n.spawn(func() {
				defer func() { <-tickets }()
				n.tryTakeOver(id)
			})
		}
		timer.Reset(next)
		select {
		case <-n.realm.poke:
		case <-timer.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// orphans lists the jobs that this node is to take over now, and how long it may wait to look again.
func (n *Node) orphans(now time.Time) (due []JobID, next time.Duration) {
	next = time.Hour
	r := n.realm
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.told[NodeKeys] || !r.told[OpenKeys] {
		return nil, next
	}
	_, alive := r.nodes[n.self] // else the others would take what this node takes
	may := func(id peer.ID) bool { return n.may(id, RoleSubmitter) == nil }
	if !may(n.self) {
		return nil, next
	}
	for id, o := range r.open {
		if _, up := r.nodes[o.owner]; up && o.owner != n.self && !n.drops(o.owner) || o.owner == n.self && n.drives(id) {
			o.at, o.failing = time.Time{}, time.Time{}
			continue
		}
		if o.taking || !alive && o.owner != n.self {
			continue
		}
		if o.at.IsZero() {
			o.at, o.pause = now, firstTry
			if o.owner != n.self {
				o.at = now.Add(time.Duration(1+rank(id, n.self, r.nodes, may)) * takeStep)
			}
		}
		if wait := o.at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		o.taking = true
		due = append(due, id)
	}
	return due, next
}

// drives reports whether a job runs here, or is about to.
func (n *Node) drives(id JobID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, claimed := n.claims[id]
	return claimed || n.jobs[id] != nil
}

// claim keeps a job whose record is being written from being taken over by this very node.
func (n *Node) claim(id JobID) (release func()) {
	n.mu.Lock()
	n.claims[id] = struct{}{}
	n.mu.Unlock()
	return func() {
		n.mu.Lock()
		delete(n.claims, id)
		n.mu.Unlock()
		if n.realm != nil {
			n.realm.stir() // in case it came to nothing
		}
	}
}

// tryTakeOver tries to take a job over, and decides what is to come of a failure.
func (n *Node) tryTakeOver(id JobID) {
	r := n.realm
	r.mu.Lock()
	last := r.open[id] != nil && !r.open[id].failing.IsZero() && time.Since(r.open[id].failing) >= giveUpAfter
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(n.ctx, takeTimeout)
	err := n.takeOver(ctx, id, last)
	cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.stir()
	o := r.open[id]
	if o == nil {
		return
	}
	o.taking = false
	now := time.Now()
	o.at = now.Add(o.pause) // also after a success, of which the watch is about to tell
	if err == nil {
		return
	}
	if n.ctx.Err() == nil {
		n.log.Warn("job not taken over; it will be tried again", "job", id, "err", err)
	}
	if o.failing.IsZero() {
		o.failing = now
	}
	o.pause = min(2*o.pause, lastTry)
}

// takeOver makes this node the owner of a job that nobody drives. It is no error that somebody else was faster.
// The last try ends a job that cannot be taken up.
func (n *Node) takeOver(ctx context.Context, id JobID, last bool) error {
	e, err := n.Ledger.Get(ctx, jobKey(id))
	if err != nil && CodeOf(err) != NotFound {
		return err
	}
	var rec Record
	if err == nil {
		if rec, err = decodeRecord(e); err != nil {
			return err
		}
	}
	if err != nil || rec.State.Final() { // a leftover
		_, err = n.Ledger.Commit(ctx, Txn{If: []Cond{{Key: jobKey(id), Version: e.Version}}, Delete: []string{openKey(id), grantKey(id)}})
		return lostRace(err)
	}
	if n.drives(id) {
		return nil
	}
	var gone []string
	if rec.Owner != n.self && !n.drops(rec.Owner) {
		// What this node knows of the others may be a moment old, or, when it has just joined, of another realm.
		gone = append(gone, nodeKey(rec.Owner))
	}
	if rec.Bound {
		rec.finish(Cancelled, Errorf(Canceled, "the command that ran it was killed"))
		_, err := n.putRecord(ctx, rec, e.Version, gone...)
		return lostRace(err)
	}
	if err := n.mayGoOn(&rec); err != nil {
		if CodeOf(err) != Denied {
			return err
		}
		n.log.Warn("job ended", "job", id, "origin", rec.origin(), "owner", rec.Owner, "err", err)
		if err := n.endIdle(ctx, &rec, Failed, err); err != errMoved {
			return err
		}
		return nil
	}
	spec, err := n.readSpec(ctx, &rec)
	if err != nil {
		if !last {
			return err
		}
		n.log.Error("job cannot be taken up again", "job", id, "err", err)
		rec.finish(Failed, Errorf(CodeOf(err), "cannot be taken up again: %w", err))
		_, err := n.putRecord(ctx, rec, e.Version, gone...)
		return lostRace(err)
	}
	defer n.claim(id)()
	from := rec.Owner
	rec.Owner = n.self
	rec.Epoch++
	version, err := n.putRecord(ctx, rec, e.Version, gone...)
	if err != nil {
		return lostRace(err)
	}
	n.log.Info("job taken over", "job", id, "from", from, "epoch", rec.Epoch)
	j := n.newJob(*spec, rec, version)
	j.inherited = true
	if err := n.readUsed(ctx, j); err != nil {
		j.cancel()
		return err // as its owner now, this node tries again
	}
	n.start(j)
	n.check(j) // somebody may have ended it since, and this node was not found to run it
	return nil
}

// lostRace is no error where somebody else was faster.
func lostRace(err error) error {
	if CodeOf(err) == Conflict {
		return nil
	}
	return err
}

// readSpec reads a job's spec, fetching it when it is not here.
func (n *Node) readSpec(ctx context.Context, rec *Record) (*Spec, error) {
	data, err := n.block(ctx, rec.Spec.Cid, rec.Owner)
	if err != nil {
		return nil, Errorf(CodeOf(err), "its spec: %w", err)
	}
	var spec Spec
	if err := Unmarshal(data, &spec); err != nil {
		return nil, Errorf(CodeOf(err), "its spec: %w", err)
	}
	if err := spec.Normalize(); err != nil {
		return nil, Errorf(CodeOf(err), "its spec: %w", err)
	}
	return &spec, nil
}

// resume takes up the unfinished jobs of an earlier run of this node. Those that were bound to a command that was
// killed are over.
func (n *Node) resume(ctx context.Context) error {
	var mine []JobID
	_, err := RangeAll(ctx, n.Ledger, OpenKeys, false, func(e Entry) error {
		if string(e.Value) == n.self.String() {
			mine = append(mine, JobID(strings.TrimPrefix(e.Key, OpenKeys)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range mine {
		if n.Bound {
			if err := n.endKilled(ctx, id); err != nil {
				return err
			}
		} else if err := n.takeOver(ctx, id, false); err != nil {
			n.log.Warn("job not taken up yet; it will be tried again", "job", id, "err", err)
		}
	}
	return nil
}

// endKilled ends a job of a command that was killed. Jobs that are not bound to one wait for their node.
func (n *Node) endKilled(ctx context.Context, id JobID) error {
	e, err := n.Ledger.Get(ctx, jobKey(id))
	if err != nil {
		return err
	}
	rec, err := decodeRecord(e)
	if err != nil {
		n.log.Error("job record unreadable; left alone", "key", e.Key, "err", err)
		return nil
	}
	if !rec.Bound || rec.State.Final() {
		return nil
	}
	return n.takeOver(ctx, id, false)
}

// check asks the ledger whether a job is still this node's, and forgets it if it is not.
func (n *Node) check(j *job) {
	ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
	defer cancel()
	e, err := n.Ledger.Get(ctx, jobKey(j.rec.ID))
	if err != nil && CodeOf(err) != NotFound {
		n.log.Debug("not known who owns a job", "job", j.rec.ID, "err", err)
		return
	}
	if err == nil {
		rec, err := decodeRecord(e)
		mine := rec.Owner == n.self && rec.Epoch == j.rec.Epoch
		if err != nil || mine && (!rec.State.Final() || !j.older(math.MaxUint64, false)) {
			return // or this node has just ended it
		}
	}
	n.lose(j)
}

// suspect looks into a message of a later epoch than a job's: it may have another owner by now. Anybody can send
// such a message; only what the ledger says counts.
func (n *Node) suspect(j *job) {
	if n.realm == nil || j.batch != nil || !j.suspected.CompareAndSwap(false, true) {
		return
	}
	n.spawn(func() {
		n.check(j)
		n.sleep(time.Second) // once in a while is enough
		j.suspected.Store(false)
	})
}

// lose forgets a job that is no longer this node's: nothing more of it is booked, handed out or told.
func (n *Node) lose(j *job) {
	j.mu.Lock()
	if j.lost {
		j.mu.Unlock()
		return
	}
	j.ending, j.lost = true, true
	j.stopTimer()
	j.touch()
	j.mu.Unlock()
	j.cancel()
	n.log.Info("job let go: another node owns it by now, or has ended it", "job", j.rec.ID, "epoch", j.rec.Epoch)
	n.post(JobEnded{Job: j.rec.ID}) // before this node may take it over again
	n.mu.Lock()
	if n.jobs[j.rec.ID] == j {
		delete(n.jobs, j.rec.ID)
	}
	n.mu.Unlock()
	if n.realm != nil {
		n.realm.stir()
	}
}

// successor finds who drives a job by now, if that is somebody who came after an epoch.
func (n *Node) successor(id JobID, after Epoch) (peer.ID, Epoch, bool) {
	if n.realm == nil || n.realm.owner(id) == "" {
		return "", 0, false
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	e, err := n.Ledger.Get(ctx, jobKey(id))
	if err != nil {
		return "", 0, false
	}
	rec, err := decodeRecord(e)
	if err != nil || rec.State.Final() || rec.Epoch <= after {
		return "", 0, false
	}
	return rec.Owner, rec.Epoch, true
}
