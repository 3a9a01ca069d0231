package grid

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Retention says how long a realm remembers jobs that have ended.
type Retention struct {
	Age  time.Duration // since a job's end; 0: 30 days; below 0: for ever
	Jobs int           // that have ended, the latest; 0: 10,000; below 0: any number
}

const (
	defaultAge  = 30 * 24 * time.Hour
	defaultJobs = 10_000

	// sweepFirst is how long after its start a node looks for jobs to forget: not long, as it may be one that does not stay up long, and the others
	// leave it to that one. sweepEvery is how often, and sweepSoon how much sooner when there were more than sweepMost.
	sweepFirst   = 10 * time.Second
	sweepEvery   = 10 * time.Minute
	sweepSoon    = 5 * time.Second
	sweepMost    = 256
	sweepTimeout = 2 * time.Minute
	// sweepSlack is how many entries beyond the jobs it may remember the ledger of a command has before that
	// takes the time to forget some.
	sweepSlack = 1000
	// clocksAsked is of how many others a node asks the time before it forgets what is old.
	clocksAsked = 6
)

// jobPins begin the names of the pins that are made for jobs.
var jobPins = []string{"job ", "checkpoint of job "}

// madeForJob reports whether a pin is there for a job alone.
func madeForJob(pin string) bool {
	return slices.ContainsFunc(jobPins, func(p string) bool { return strings.HasPrefix(pin, p) })
}

// sweeper forgets old jobs now and then.
func (n *Node) sweeper() {
	timer := time.NewTimer(sweepFirst + rand.N(sweepFirst))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-n.ctx.Done():
			return
		}
		next := sweepEvery
		if n.sweeps() {
			ctx, cancel := context.WithTimeout(n.ctx, sweepTimeout)
			removed, more, err := n.sweep(ctx, time.Now())
			cancel()
			if err != nil && n.ctx.Err() == nil {
				n.log.Warn("old jobs are not forgotten", "err", err)
			}
			if removed > 0 {
				n.log.Info("old jobs forgotten", "jobs", removed)
			}
			if more && err == nil {
				next = sweepSoon
			}
		}
		timer.Reset(next)
	}
}

// sweepBound is for the node of a command, which does not live long enough to sweep in its own time.
func (n *Node) sweepBound() {
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	st, err := n.Ledger.Status(ctx)
	if most := n.Retention.jobs(); err != nil || most < 0 || st.Entries < uint64(most)+sweepSlack {
		return
	}
	if _, _, err := n.sweep(ctx, time.Now()); err != nil {
		n.log.Warn("old jobs are not forgotten", "err", err)
	}
}

func (r Retention) age() time.Duration { return cmp.Or(r.Age, defaultAge) }
func (r Retention) jobs() int          { return cmp.Or(r.Jobs, defaultJobs) }

// sweeps reports whether this node is the one of its realm that forgets old jobs: that, of those that are up,
// whose hash is the least. Should two think so, no harm is done.
func (n *Node) sweeps() bool {
	if n.realm == nil {
		return true
	}
	if !isClosed(n.realm.known) {
		return false
	}
	hash := func(id peer.ID) []byte {
		sum := sha256.Sum256([]byte("history\x00" + string(id)))
		return sum[:]
	}
	if n.may(n.self, RoleSubmitter) != nil {
		return false
	}
	mine := hash(n.self)
	for _, id := range n.realm.up() {
		if id != n.self && n.may(id, RoleSubmitter) == nil && bytes.Compare(hash(id), mine) < 0 {
			return false
		}
	}
	return true
}

// sweep forgets ended jobs that are too old or too many at a time, the oldest first. There may be more than it
// forgets at once.
func (n *Node) sweep(ctx context.Context, now time.Time) (removed int, more bool, err error) {
	type past struct {
		id    JobID
		ended time.Time
	}
	var all []past
	_, err = RangeAll(ctx, n.Ledger, jobPrefix, true, func(e Entry) error {
		rec, err := decodeRecord(e)
		if err == nil && rec.State.Final() {
			all = append(all, past{rec.ID, rec.Ended})
		}
		return nil // what cannot be read is left alone
	})
	if err != nil {
		return 0, false, err
	}
	slices.SortFunc(all, func(a, b past) int { return cmp.Or(a.ended.Compare(b.ended), cmp.Compare(a.id, b.id)) })
	old := 0
	if most := n.Retention.jobs(); most >= 0 {
		old = max(len(all)-most, 0)
	}
	if age := n.Retention.age(); age >= 0 && old < len(all) && now.Sub(all[old].ended) > age {
		now = n.agreed(ctx, now)
		for old < len(all) && now.Sub(all[old].ended) > age {
			old++
		}
	}
	doomed := make([]JobID, 0, min(old, sweepMost))
	for _, p := range all[:min(old, sweepMost)] {
		doomed = append(doomed, p.id)
	}
	removed, err = n.forgetJobs(ctx, doomed)
	return removed, old > sweepMost, err
}

// agreed is what time it is by this node's clock and those of some others that are up: the one in the middle, and of two
// in the middle the earlier. So one clock alone that is wrong does not make what is young old. It is zero, for which all
// is young, when there are others and none answers.
func (n *Node) agreed(ctx context.Context, own time.Time) time.Time {
	if n.realm == nil {
		return own
	}
	others := slices.DeleteFunc(n.realm.up(), func(id peer.ID) bool { return id == n.self })
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	others = others[:min(len(others), clocksAsked)]
	theirs := make([]time.Time, len(others))
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for i, id := range others {
		asked.Go(func() {
			p := PeerAbout{PeerInfo: PeerInfo{ID: id}}
			if n.about(ctx, &p); p.Error == "" {
				theirs[i] = time.Now().Add(p.Ahead)
			}
		})
	}
	asked.Wait()
	theirs = slices.DeleteFunc(theirs, time.Time.IsZero)
	if len(others) > 0 && len(theirs) == 0 {
		return time.Time{}
	}
	all := append(theirs, own)
	slices.SortFunc(all, time.Time.Compare)
	at := all[(len(all)-1)/2]
	if own.Sub(at) > clockWrong {
		n.log.Warn("this node's clock is ahead of the others': jobs are forgotten by theirs", "ahead", own.Sub(at).Round(time.Second))
	}
	return at
}

// clockWrong is from when on a clock is far enough off to be told of where days count.
const clockWrong = time.Hour

// RemoveJob forgets a job that has ended, named by its ID or a unique beginning of it. What nothing else needs
// of what it was made of and came to is no longer kept. A job that has not ended is a Conflict.
func (n *Node) RemoveJob(ctx context.Context, id JobID) (JobID, error) {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return "", err
	}
	if j != nil {
		rec = Record{ID: j.rec.ID, State: Running}
	}
	if !rec.State.Final() {
		return "", Errorf(Conflict, "job %s has not ended", rec.ID).Hint("`grid cancel %s` ends it", rec.ID)
	}
	removed, err := n.forgetJobs(ctx, []JobID{rec.ID})
	if err == nil && removed == 0 {
		err = errNoJob(rec.ID)
	}
	if err == nil {
		n.auditAfter(ctx, AuditFact{Act: ActRemoveJob, Subject: string(rec.ID)})
	}
	return rec.ID, err
}

// roots lists the DAGs that are pinned because of the job.
func (r *Record) roots() (out []cid.Cid) {
	for _, l := range []Link{r.Spec, r.Kit, r.Checkpoint, r.Result} {
		if l.Defined() {
			out = append(out, l.Cid)
		}
	}
	return out
}

// forgetJobs takes ended jobs out of the ledger, and takes back the pins that were made for them and that no other
// job and no ref needs. It is no error when others do the same. A job whose pins cannot be taken back now is left
// for later. A pin that is made for a new job between the look and the taking back is lost, and with it no
// more than copies: its owner keeps what it needs.
func (n *Node) forgetJobs(ctx context.Context, ids []JobID) (removed int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	type doomed struct {
		rec     Record
		version uint64
	}
	var jobs []doomed
	leaving := make(map[JobID]struct{})
	needed := make(map[cid.Cid]bool) // of the roots of these jobs, whether something else needs them
	for _, id := range ids {
		rec, version, err := n.readRecord(ctx, id)
		switch {
		case CodeOf(err) == NotFound:
			continue
		case err != nil:
			return 0, err
		case !rec.State.Final():
			continue // no job comes back, but who knows
		}
		jobs = append(jobs, doomed{rec, version})
		leaving[id] = struct{}{}
		for _, c := range rec.roots() {
			needed[c] = false
		}
	}
	if len(jobs) == 0 {
		return 0, nil
	}
	need := func(c cid.Cid) {
		if _, ours := needed[c]; ours {
			needed[c] = true
		}
	}
	if _, err := RangeAll(ctx, n.Ledger, jobPrefix, false, func(e Entry) error {
		if _, gone := leaving[JobID(strings.TrimPrefix(e.Key, jobPrefix))]; gone {
			return nil
		}
		rec, err := decodeRecord(e)
		if err != nil {
			return nil
		}
		for _, c := range rec.roots() {
			need(c)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	if _, err := RangeAll(ctx, n.Ledger, RefKeys, false, func(e Entry) error {
		var r Ref
		if err := Unmarshal(e.Value, &r); err == nil {
			need(r.CID.Cid)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	var errs []error
	for i := range jobs {
		d := &jobs[i]
		if err := n.forgetJob(ctx, &d.rec, d.version, needed); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

func (n *Node) forgetJob(ctx context.Context, rec *Record, version uint64, needed map[cid.Cid]bool) error {
	for _, c := range rec.roots() {
		if needed[c] {
			continue
		}
		if err := n.dropPin(ctx, c); err != nil {
			return Errorf(CodeOf(err), "job %s: %w", rec.ID, err)
		}
	}
	_, err := n.Ledger.Commit(ctx, Txn{
		If:     []Cond{{Key: jobKey(rec.ID), Version: version}},
		Delete: []string{jobKey(rec.ID)},
	})
	if err != nil && CodeOf(err) != Conflict { // a conflict: somebody else did it
		return Errorf(CodeOf(err), "job %s: %w", rec.ID, err)
	}
	return nil
}

// dropPin takes back a pin that was made for a job. One that somebody made by hand is theirs.
func (n *Node) dropPin(ctx context.Context, root cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	st, err := n.Pins.Status(ctx, root, false)
	if err == nil && madeForJob(st.Name) {
		err = n.Pins.Unpin(ctx, root)
	}
	if CodeOf(err) == NotFound {
		return nil
	}
	return err
}
