package grid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// watchEvery is the shortest time between two pictures that a watcher gets of one job.
const watchEvery = 100 * time.Millisecond

// Jobs describes all jobs of the realm, newest first. Those that run on other nodes are asked for there.
func (n *Node) Jobs(ctx context.Context) ([]JobStatus, error) {
	var recs []Record
	_, err := RangeAll(ctx, n.Ledger, jobPrefix, false, func(e Entry) error {
		rec, err := decodeRecord(e)
		if err != nil {
			n.log.Error("job record unreadable", "key", e.Key, "err", err)
		} else {
			recs = append(recs, rec)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := n.describe(ctx, recs)
	slices.SortFunc(out, func(a, b JobStatus) int {
		return cmp.Or(b.Submitted.Compare(a.Submitted), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// describe tells how jobs stand: those that run here from the books, ended ones from their records, and the
// others from what their owners answer, who are all asked at the same time.
func (n *Node) describe(ctx context.Context, recs []Record) []JobStatus {
	out := make([]JobStatus, len(recs))
	asked := make(map[peer.ID][]int)
	for i := range recs {
		rec := &recs[i]
		if j := n.job(rec.ID); j != nil {
			out[i], _ = j.status()
		} else if out[i] = n.storedStatus(ctx, rec); !rec.State.Final() && !n.Bound {
			asked[rec.Owner] = append(asked[rec.Owner], i)
		}
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, askAtOnce)
	for owner, list := range asked {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			n.describeOf(ctx, owner, recs, list, out)
		})
	}
	wg.Wait()
	return out
}

// describeOf fills in the jobs of list, all of one owner.
func (n *Node) describeOf(ctx context.Context, owner peer.ID, recs []Record, list []int, out []JobStatus) {
	ids := make([]JobID, len(list))
	for k, i := range list {
		ids[k] = recs[i].ID
	}
	pictures := map[JobID]*jobPicture{}
	err := errElsewhere
	if owner != n.self {
		var aerr error
		if pictures, aerr = n.ask(ctx, owner, ids); aerr != nil {
			for _, i := range list {
				out[i].Note = waitingNote(&recs[i], n.self, aerr)
			}
			return
		}
	}
	for _, i := range list {
		rec := &recs[i]
		if p := pictures[rec.ID]; p != nil && p.Epoch >= rec.Epoch {
			out[i] = p.status(rec)
			continue
		}
		// It has ended, has gone to another node, or is about to be taken up.
		if now, _, rerr := n.readRecord(ctx, rec.ID); rerr == nil {
			*rec = now
		}
		if j := n.job(rec.ID); j != nil {
			out[i], _ = j.status()
			continue
		}
		if out[i] = n.storedStatus(ctx, rec); !rec.State.Final() {
			out[i].Note = waitingNote(rec, n.self, err)
		}
	}
}

// waitingNote says why nothing is known of a job, after its owner was asked in vain.
func waitingNote(rec *Record, self peer.ID, err error) string {
	switch {
	case rec.Owner == self:
		return "it is about to be taken up here"
	case errors.Is(err, errElsewhere):
		return fmt.Sprintf("its owner %s is about to take it up", rec.Owner)
	case CodeOf(err) == Denied || CodeOf(err) == Unsupported || CodeOf(err) == Busy:
		return fmt.Sprintf("its owner %s does not tell: %v", rec.Owner, err)
	}
	return fmt.Sprintf("its owner %s does not answer; another node takes over when its session ends", rec.Owner)
}

// status is what a picture from the owner of a recorded job shows.
func (p *jobPicture) status(rec *Record) JobStatus {
	st := statusOf(rec, p.Name, p.Stages)
	st.State, st.Epoch, st.Note = Running, p.Epoch, clean(p.Note, maxMessage)
	return st
}

// storedStatus describes a job that does not run here from its record and, as far as that is here, its spec.
func (n *Node) storedStatus(ctx context.Context, rec *Record) JobStatus {
	st := statusOf(rec, rec.Name, rec.Stages)
	if rec.Name == "" || rec.Stages == nil {
		var spec Spec
		if data, err := n.Blocks.Get(ctx, rec.Spec.Cid); err == nil && Unmarshal(data, &spec) == nil {
			st.Name = spec.Name
			if st.Stages == nil {
				st.Stages = plannedStages(&spec)
			}
		}
	}
	if !st.State.Final() {
		st.State = Waiting
	}
	return st
}

// plannedStages is what a job is to do, of which nothing is done.
func plannedStages(spec *Spec) []StageStatus {
	out := make([]StageStatus, len(spec.Stages))
	for i := range out {
		out[i] = StageStatus{Name: spec.Stages[i].Name, Plugin: spec.Stages[i].Plugin, Tasks: spec.Stages[i].Tasks, Nodes: map[string]uint32{}}
	}
	return out
}

// readRecord reads the record of a job, and the version of its entry.
func (n *Node) readRecord(ctx context.Context, id JobID) (Record, uint64, error) {
	e, err := n.Ledger.Get(ctx, jobKey(id))
	if err != nil {
		if CodeOf(err) == NotFound {
			err = errNoJob(id)
		}
		return Record{}, 0, err
	}
	rec, err := decodeRecord(e)
	return rec, e.Version, err
}

func errNoJob(id JobID) error {
	return Errorf(NotFound, "no job %s in this realm", id).Hint("`grid ps -a` lists the jobs")
}

// find looks a job up by its ID or a unique beginning of it. j is nil when the job does not run here.
func (n *Node) find(ctx context.Context, id JobID) (j *job, rec Record, err error) {
	if j := n.own(id); j != nil {
		return j, Record{}, nil
	}
	if len(id) < jobKeyMin || strings.Trim(string(id), "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return nil, rec, Errorf(Invalid, "%q is not a job ID: want at least its first %d characters", id, jobKeyMin).
			Hint("`grid ps -a` lists the jobs")
	}
	page, err := n.Ledger.Range(ctx, Query{Prefix: jobKey(id), Limit: 2})
	entries := page.Entries
	switch {
	case err != nil:
		return nil, rec, err
	case len(entries) == 0:
		return nil, rec, errNoJob(id)
	case len(entries) > 1:
		return nil, rec, Errorf(Invalid, "%s is the beginning of several job IDs", id).Hint("give more of it")
	}
	if rec, err = decodeRecord(entries[0]); err != nil {
		return nil, rec, err
	}
	return n.job(rec.ID), rec, nil
}

// FindJob tells the whole ID of the one job whose ID begins with id.
func (n *Node) FindJob(ctx context.Context, id JobID) (JobID, error) {
	j, rec, err := n.find(ctx, id)
	if j != nil {
		return j.rec.ID, nil
	}
	return rec.ID, err
}

// Job describes one job of the realm, named by its ID or a unique beginning of it. When the job runs on
// another node that does not answer, its state is Waiting.
func (n *Node) Job(ctx context.Context, id JobID) (JobStatus, error) {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return JobStatus{}, err
	}
	if j != nil {
		st, _ := j.status()
		return st, nil
	}
	return n.describe(ctx, []Record{rec})[0], nil
}

// Watch calls f with the job's status now and whenever it has changed, not more often than some ten
// times a second, and last with the final one, on whatever node the job runs and however often that
// changes. It ends only with the job, ctx, or an error of f. While the owner or the ledger cannot be reached
// it waits, after telling so by a status that is Waiting and has a Note.
//
// A node that is Bound has nobody to wait for: there a job that does not run ends the watch, Waiting.
func (n *Node) Watch(ctx context.Context, id JobID, f func(JobStatus) error) error {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	if j == nil && (rec.State.Final() || n.Bound) {
		return f(n.storedStatus(ctx, &rec))
	}
	return n.attend(ctx, j, rec, &watcher{n: n, f: f})
}

// settle waits for a change and then, for others to join it, a little longer, but not past the end. It is
// false when nothing has changed for as long as quiet.
func (n *Node) settle(ctx context.Context, j *job, changed <-chan struct{}, quiet time.Duration) (bool, error) {
	t := time.NewTimer(quiet)
	defer t.Stop()
	news := false
	for {
		select {
		case <-changed:
			st, next := j.state()
			if st.Final() {
				return true, nil
			}
			if changed = next; !news {
				news = true
				t.Reset(watchEvery)
			}
		case <-t.C:
			return news, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-n.ctx.Done():
			return false, errClosing
		}
	}
}

func (j *job) final() bool {
	st, _ := j.state()
	return st.Final()
}

func (j *job) state() (State, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rec.State, j.changed
}

var errClosing = Errorf(Unavailable, "the node is closing")

// attendant looks after a job, which may go from node to node.
type attendant interface {
	// here attends the job while it runs on this node; done says that it has ended.
	here(ctx context.Context, j *job) (done bool, err error)
	// there attends it while it runs with the owner that the record names. The error says why it ended; one
	// of the caller's is a stopped.
	there(ctx context.Context, rec *Record) error
	// waits says that there is nothing to be had of the job just now.
	waits(ctx context.Context, rec *Record, note string) error
	// final comes last.
	final(ctx context.Context, rec *Record) error
}

// stopped is an error of who asked for a job, which ends the asking.
type stopped struct{ error }

// Pauses between tries to reach an owner. News from the ledger cut them short.
const (
	attendMinPause = 100 * time.Millisecond
	attendMaxPause = 2 * time.Second
)

// attend has a attend a job until it has ended, wherever it runs.
func (n *Node) attend(ctx context.Context, j *job, rec Record, a attendant) (err error) {
	defer func() {
		var s stopped
		if errors.As(err, &s) {
			err = s.error
		}
	}()
	if j != nil {
		if done, err := a.here(ctx, j); done || err != nil {
			return err
		}
		rec.ID = j.rec.ID
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(n.ctx, func() { cancel(errClosing) })()
	t := n.startTrail(ctx, rec.ID)
	defer func() { cancel(nil); <-t.done }()
	pause := attendMinPause
	for {
		if j := n.job(rec.ID); j != nil {
			if done, err := a.here(ctx, j); done || err != nil {
				return err
			}
		}
		s := t.now(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case CodeOf(s.err) == NotFound || CodeOf(s.err) == Corrupt:
			return s.err
		case s.err == nil && s.rec.State.Final():
			return a.final(ctx, &s.rec)
		}
		note := ""
		if s.rec.ID != "" {
			began := time.Now()
			err := errElsewhere
			if s.rec.Owner != n.self {
				if e := n.visit(ctx, &s, a); e != nil {
					var stop stopped
					if errors.As(e, &stop) {
						return e
					}
					note = waitingNote(&s.rec, n.self, e)
				}
			} else {
				note = waitingNote(&s.rec, n.self, err)
			}
			if time.Since(began) > attendMaxPause {
				pause = attendMinPause // it was there for a while
			}
		}
		if isClosed(s.changed) {
			pause = attendMinPause
			continue
		}
		if s = t.now(ctx); s.rec.ID == "" {
			s.rec = rec // as it was when this began
		}
		if s.err != nil {
			note = fmt.Sprintf("the realm's ledger cannot be reached: %v", s.err)
		}
		if note != "" && ctx.Err() == nil {
			if err := a.waits(ctx, &s.rec, note); err != nil {
				return err
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-s.changed:
			pause = attendMinPause
		case <-timer.C:
			pause = min(2*pause, attendMaxPause)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// visit attends the job with its owner, until that ends or the ledger says that the job is elsewhere.
func (n *Node) visit(ctx context.Context, s *sighting, a attendant) error {
	if n.gone(s.rec.Owner) {
		return Errorf(Unavailable, "node %s is down", s.rec.Owner)
	}
	ctx, cancel := context.WithCancel(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		select {
		case <-s.changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-left }()
	return a.there(ctx, &s.rec)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// trail keeps the latest record of a job at hand.
type trail struct {
	done chan struct{} // closed at its end

	mu    sync.Mutex
	last  sighting
	known chan struct{} // closed when there is a first sighting
}

// sighting is what the ledger said last of a job.
type sighting struct {
	rec     Record        // zero: nothing yet
	err     error         // why there is nothing newer
	changed chan struct{} // closed when the job has ended or has another owner, or its record is gone
}

// startTrail follows a job's record until ctx ends or the record is gone. An unavailable ledger is waited for.
func (n *Node) startTrail(ctx context.Context, id JobID) *trail {
	t := &trail{done: make(chan struct{}), known: make(chan struct{}), last: sighting{changed: make(chan struct{})}}
	go func() {
		defer close(t.done)
		pause := attendMinPause
		for {
			began := time.Now()
			err := n.readTrail(ctx, id, t)
			if ctx.Err() != nil {
				return
			}
			t.set(Record{}, err)
			if CodeOf(err) == NotFound || CodeOf(err) == Corrupt {
				return
			}
			if time.Since(began) > attendMaxPause {
				pause = attendMinPause
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
				pause = min(2*pause, attendMaxPause)
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}()
	return t
}

// readTrail reads the record and watches it until that fails.
func (n *Node) readTrail(ctx context.Context, id JobID, t *trail) error {
	read, cancel := context.WithTimeout(ctx, callTimeout)
	page, err := n.Ledger.Range(read, Query{Prefix: jobKey(id), Limit: 1})
	cancel()
	switch {
	case err != nil:
		return err
	case len(page.Entries) == 0:
		return Errorf(NotFound, "job %s has been removed", id)
	}
	see := func(e Entry) error {
		rec, err := decodeRecord(e)
		if err == nil {
			t.set(rec, nil)
		}
		return err
	}
	if err := see(page.Entries[0]); err != nil {
		return err
	}
	err = n.Ledger.Watch(ctx, jobKey(id), page.Revision, func(c Changes) error {
		if len(c.Delete) > 0 {
			return Errorf(NotFound, "job %s has been removed", id)
		}
		for _, e := range c.Put {
			if err := see(e); err != nil {
				return err
			}
		}
		return nil
	})
	if CodeOf(err) == OutOfDate {
		return nil // from where it is now, then
	}
	return err
}

// set notes what the ledger said: a record, or an error.
func (t *trail) set(rec Record, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.last
	news := CodeOf(err) == NotFound || CodeOf(err) == Corrupt
	if t.last.err = err; rec.ID != "" {
		news = was.rec.Owner != rec.Owner || was.rec.Epoch != rec.Epoch || was.rec.State != rec.State
		t.last.rec = rec
	}
	if news {
		t.last.changed = make(chan struct{})
		close(was.changed)
	}
	if !isClosed(t.known) {
		close(t.known)
	}
}

// now is the last sighting; the first one is waited for.
func (t *trail) now(ctx context.Context) sighting {
	select {
	case <-t.known:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// watcher gives pictures of a job.
type watcher struct {
	n    *Node
	f    func(JobStatus) error
	note string // of the last one
}

func (w *watcher) give(st JobStatus) error {
	w.note = st.Note
	if err := w.f(st); err != nil {
		return stopped{err}
	}
	return nil
}

func (w *watcher) here(ctx context.Context, j *job) (bool, error) {
	for {
		st, changed := j.status()
		if !st.State.Final() && !w.n.runs(j) {
			return false, nil
		}
		if err := w.give(st); err != nil || st.State.Final() {
			return true, err
		}
		for {
			news, err := w.n.settle(ctx, j, changed, quietCheck)
			if err != nil {
				return false, err
			}
			if news || !w.n.runs(j) {
				break
			}
		}
	}
}

func (w *watcher) there(ctx context.Context, rec *Record) error {
	return w.n.followOwner(ctx, rec.Owner, protoWatch, &followMsg{Job: rec.ID}, func(fr *followFrame) error {
		p := fr.Picture
		if p == nil {
			return nil
		}
		if err := p.check(); err != nil {
			return err
		}
		if p.Epoch < rec.Epoch {
			return errElsewhere // it was, before
		}
		return w.give(p.status(rec))
	})
}

func (w *watcher) waits(ctx context.Context, rec *Record, note string) error {
	if w.note == note {
		return nil // told before
	}
	st := JobStatus{ID: rec.ID, State: Waiting}
	if rec.Spec.Defined() {
		st = w.n.storedStatus(ctx, rec)
	}
	st.Note = note
	return w.give(st)
}

func (w *watcher) final(ctx context.Context, rec *Record) error {
	return w.give(w.n.storedStatus(ctx, rec))
}

// Tasks calls f for each task that has ended, once: in order of completion while the job runs, in order of
// stage and index once it has ended. With follow it goes on until the job ends, as [Node.Watch] does; without,
// it is Unavailable what the owner cannot be asked for. An error of f ends it.
func (n *Node) Tasks(ctx context.Context, id JobID, follow bool, f func(TaskEnd) error) error {
	return n.tasks(ctx, id, follow, taskPick{}, f)
}

// taskPick says which tasks are wanted: all, those of a stage, those of a number, or one.
type taskPick struct{ stage, index *uint32 }

func (p *taskPick) has(stage, index uint32) bool {
	return (p.stage == nil || *p.stage == stage) && (p.index == nil || *p.index == index)
}

// tasks is Tasks for those of pick. Others may come as well.
func (n *Node) tasks(ctx context.Context, id JobID, follow bool, pick taskPick, f func(TaskEnd) error) error {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	c := &collector{n: n, f: f, follow: follow, pick: pick, seen: make(taskSet)}
	switch {
	case j == nil && (rec.State.Final() || n.Bound):
		return c.final(ctx, &rec)
	case follow:
		return n.attend(ctx, j, rec, c)
	}
	return n.once(ctx, j, rec, c)
}

// onceTries is how often a job is looked for that moves while it is being asked for.
const onceTries = 5

// once has a attend a job as it is now. It does not follow it, so that its here and there come to an end at once.
func (n *Node) once(ctx context.Context, j *job, rec Record, a attendant) error {
	for try := 1; ; try++ {
		if j != nil {
			if _, err := a.here(ctx, j); err != nil {
				return unstop(err)
			}
			return nil
		}
		err := error(errElsewhere)
		switch {
		case rec.State.Final():
			return a.final(ctx, &rec)
		case n.gone(rec.Owner):
			err = Errorf(Unavailable, "node %s is down", rec.Owner)
		case rec.Owner != n.self:
			if err = a.there(ctx, &rec); err == nil {
				return nil
			}
			if u := unstop(err); u != err {
				return u
			}
		}
		if try == onceTries || !errors.Is(err, errElsewhere) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return Errorf(Unavailable, "job %s: %s", rec.ID, waitingNote(&rec, n.self, err)).
				Hint("`grid logs -f %s` waits for it", rec.ID)
		}
		select {
		case <-time.After(attendMinPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if j, rec, err = n.find(ctx, rec.ID); err != nil {
			return err
		}
	}
}

// unstop is the caller's error within err, if there is one, else err.
func unstop(err error) error {
	var s stopped
	if errors.As(err, &s) {
		return s.error
	}
	return err
}

// taskSet is tasks that were given already: a bit for each, by stage.
type taskSet map[uint32][]uint64

// add is false when the task is in the set already.
func (s taskSet) add(stage, index uint32) bool {
	bits := s[stage]
	for int(index/64) >= len(bits) {
		bits = append(bits, make([]uint64, max(len(bits), 16))...)
	}
	s[stage] = bits
	word, bit := &bits[index/64], uint64(1)<<(index%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// has reports whether the task is in the set.
func (s taskSet) has(stage, index uint32) bool {
	bits := s[stage]
	return int(index/64) < len(bits) && bits[index/64]&(1<<(index%64)) != 0
}

// collector gives the tasks of a job, each once.
type collector struct {
	n      *Node
	f      func(TaskEnd) error
	follow bool
	pick   taskPick // of what is stored
	seen   taskSet
	given  uint64

	epoch Epoch  // that next is of
	next  uint64 // position among the owner's completions
}

func (c *collector) give(stage uint32, done *Completion) error {
	if stage >= MaxStages || done.Index >= MaxTasks {
		return Errorf(Invalid, "a task %d of stage %d", done.Index, stage)
	}
	if !c.seen.add(stage, done.Index) {
		return nil
	}
	c.given++
	if err := c.f(taskEnd(stage, done)); err != nil {
		return stopped{err}
	}
	return nil
}

func (c *collector) here(ctx context.Context, j *job) (done bool, err error) {
	for next := 0; ; {
		j.mu.Lock()
		refs, changed, final := j.order[next:], j.changed, j.rec.State.Final()
		j.mu.Unlock()
		if final && next == 0 && c.given == 0 { // it ended before anybody asked, and its owner has not let go of it yet
			refs = slices.SortedFunc(slices.Values(refs), func(a, b taskRef) int {
				return cmp.Or(cmp.Compare(a.stage, b.stage), cmp.Compare(a.index, b.index))
			})
		}
		for _, ref := range refs {
			done, err := j.completion(ref)
			if err != nil {
				return false, err
			}
			if err := c.give(ref.stage, &done); err != nil {
				return false, err
			}
		}
		next += len(refs)
		if final || !c.follow {
			return true, nil
		}
		if len(refs) > 0 {
			continue // there may be more by now
		}
		if _, err := c.n.settle(ctx, j, changed, quietCheck); err != nil || !c.n.runs(j) && !j.final() {
			return false, err
		}
	}
}

func (c *collector) there(ctx context.Context, rec *Record) error {
	m := &followMsg{Job: rec.ID, Epoch: c.epoch, From: c.next, Follow: c.follow}
	owner := []peer.ID{rec.Owner}
	return c.n.followOwner(ctx, rec.Owner, protoTasks, m, func(fr *followFrame) error {
		if fr.Epoch == 0 {
			return nil // a sign of life, or the end
		}
		if fr.Epoch < rec.Epoch {
			return errElsewhere // it was, before
		}
		for i := range fr.Tasks {
			var done Completion
			if err := UnmarshalMessage(fr.Tasks[i].Done, &done); err != nil {
				return err
			}
			for _, l := range done.Receipt.Links() {
				c.n.likely.note(l.Cid, holders{done.Receipt.Node, owner})
			}
			if err := c.give(fr.Tasks[i].Stage, &done); err != nil {
				return err
			}
		}
		c.epoch, c.next = fr.Epoch, fr.Next
		return nil
	})
}

func (c *collector) waits(context.Context, *Record, string) error { return nil }

func (c *collector) final(ctx context.Context, rec *Record) error {
	ended := uint64(0)
	for i := range rec.Stages {
		ended += uint64(rec.Stages[i].Done) + uint64(rec.Stages[i].Failed)
	}
	if c.given > 0 && c.given == ended {
		return nil // that was all
	}
	return unstop(c.n.storedTasks(ctx, rec, c.pick, c.give))
}

// resultsAhead is how many blocks of a result are fetched at a time.
const resultsAhead = 32

// storedTasks reads the results of a job that has ended. What is not here comes from whoever has it: its
// owner may be long gone.
// Of those that pick leaves out most are not read.
func (n *Node) storedTasks(ctx context.Context, rec *Record, pick taskPick, f func(stage uint32, c *Completion) error) error {
	root := rec.Result
	if !root.Defined() { // it was ended without its owner, of whom there may be a checkpoint
		if root = rec.Checkpoint; !root.Defined() {
			return nil
		}
	}
	defer n.Hold(root.Cid)() // for as long as f takes
	from := n.keepers(ctx, rec, root)
	bring := func(ctx context.Context, blocks ...cid.Cid) error {
		var missing []cid.Cid
		for _, c := range blocks {
			if here, err := n.Blocks.Has(ctx, c); err != nil || !here {
				missing = append(missing, c)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		return n.Fetcher.Fetch(ctx, Want{Roots: missing, From: from, Shallow: true, Below: []cid.Cid{root.Cid}})
	}
	get := func(ctx context.Context, c cid.Cid) ([]byte, error) {
		data, err := n.Blocks.Get(ctx, c)
		if CodeOf(err) != NotFound {
			return data, err
		}
		if err := bring(ctx, c); err != nil {
			return nil, err
		}
		return n.Blocks.Get(ctx, c)
	}
	tables, err := resultTables(ctx, rec, get)
	if err != nil {
		return Errorf(CodeOf(err), "result of job %s: %w", rec.ID, err)
	}
	for _, part := range tables {
		if pick.stage != nil && part.Stage != *pick.stage {
			continue
		}
		t, err := OpenTable[Completion](ctx, get, part.Table)
		if err != nil {
			return Errorf(CodeOf(err), "result of job %s: %w", rec.ID, err)
		}
		lo, hi := uint32(0), t.Len()
		if pick.index != nil && rec.Result.Defined() { // then it is in order of the tasks
			if lo, err = findTask(ctx, t, *pick.index); err != nil {
				return Errorf(CodeOf(err), "result of job %s: %w", rec.ID, err)
			}
			hi = min(hi, lo+1)
		}
		for i := lo; i < hi; i++ {
			if k := t.partOf(i); k != t.part && k%resultsAhead == 0 {
				var parts []cid.Cid
				for _, p := range t.index.Parts[k:min(k+resultsAhead, len(t.index.Parts))] {
					parts = append(parts, p.CID.Cid)
				}
				if err := bring(ctx, parts...); err != nil {
					return Errorf(CodeOf(err), "result of job %s: %w", rec.ID, err)
				}
			}
			c, err := t.Row(ctx, i)
			if err != nil {
				return Errorf(CodeOf(err), "result of job %s: %w", rec.ID, err)
			}
			for _, l := range c.Receipt.Links() {
				n.likely.note(l.Cid, holders{c.Receipt.Node, from})
			}
			if err := f(part.Stage, &c); err != nil {
				return err
			}
		}
	}
	return nil
}

// findTask finds the row of a task, or of the first behind it.
func findTask(ctx context.Context, t *Table[Completion], index uint32) (uint32, error) {
	var err error
	row := sort.Search(int(t.Len()), func(i int) bool {
		c, rerr := t.Row(ctx, uint32(i))
		if err == nil {
			err = rerr
		}
		return err != nil || c.Index >= index
	})
	return uint32(row), err
}

// resultTables lists the tables of what a job came to; of one without a result, those of its checkpoint.
func resultTables(ctx context.Context, rec *Record, get func(context.Context, cid.Cid) ([]byte, error)) (tables []CheckpointPart, err error) {
	if rec.Result.Defined() {
		data, err := get(ctx, rec.Result.Cid)
		if err != nil {
			return nil, err
		}
		var res Result
		if err := UnmarshalMessage(data, &res); err != nil {
			return nil, Errorf(Corrupt, "%w", err)
		}
		for stage, link := range res.Stages {
			tables = append(tables, CheckpointPart{uint32(stage), link})
		}
		return tables, nil
	}
	for i, at := 0, rec.Checkpoint; at.Defined() && i < maxCheckpoints; i++ {
		data, err := get(ctx, at.Cid)
		if err != nil {
			return nil, err
		}
		var c Checkpoint
		if err := UnmarshalMessage(data, &c); err != nil {
			return nil, Errorf(Corrupt, "%w", err)
		}
		tables, at = append(tables, c.Parts...), c.Before
	}
	return tables, nil
}

func taskEnd(stage uint32, c *Completion) TaskEnd {
	r := &c.Receipt
	return TaskEnd{
		Stage: stage, Index: c.Index, Input: c.Input, Inputs: c.Inputs, Node: r.Node.String(), Cached: c.Cached,
		Exit: r.Exit, Fault: r.Fault, Out: r.Out, Started: time.Unix(0, r.Started).UTC(), Phases: r.Phases, Memory: r.Memory, Fuel: r.Fuel,
		Calls: r.Calls, Metrics: r.Metrics, Impure: r.Impure, Profile: r.Profile,
		Stdout: TaskOutput{Size: r.Stdout.Size, Data: r.Stdout.Inline, CID: r.Stdout.CID},
		Stderr: TaskOutput{Size: r.Stderr.Size, Data: r.Stderr.Inline, CID: r.Stderr.CID},
	}
}
