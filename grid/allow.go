package grid

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

const (
	// quotaEvery is how often a node that owns jobs under quotas looks at what was used in the realm. So much
	// later than another node's checkpoint it may pause them.
	quotaEvery = 2 * time.Second
	// quotaCost is how many times as far apart looks are at least as one takes.
	quotaCost = 20
)

// allowances is what a node knows of the realm's quotas, and of what was used.
type allowances struct {
	poke chan struct{} // something has changed, or may have

	mu     sync.Mutex
	known  bool // quotas have been read once
	bounds bounds
	sum    spending // by the ledger, without jobs that had not ended
	open   map[JobID]jobUsage
	read   time.Time
	took   time.Duration
	ends   uint64 // of jobs of this node, so far
}

func (a *allowances) stir() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// quotasRead and quotasChanged take in the realm's quotas.
func (n *Node) quotasRead(all []Entry) {
	a := &n.allowances
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known, a.bounds = true, make(bounds, len(all))
	for _, e := range all {
		n.quotaPut(e)
	}
	a.stir()
}

func (n *Node) quotasChanged(c Changes) {
	a := &n.allowances
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range c.Put {
		n.quotaPut(e)
	}
	for _, key := range c.Delete {
		delete(a.bounds, key)
	}
	a.stir()
}

// quotaPut notes a quota. The lock is held.
func (n *Node) quotaPut(e Entry) {
	q, err := decodeAllowance(e)
	if err != nil {
		n.log.Warn("a quota is not kept, as it cannot be read", "err", err)
		delete(n.allowances.bounds, e.Key)
		return
	}
	n.allowances.bounds[e.Key] = q
}

// quotas are the realm's, as far as they are known.
func (n *Node) quotas(ctx context.Context) (bounds, error) {
	a := &n.allowances
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known {
		return a.copied(), nil
	}
	b := make(bounds)
	_, err := RangeAll(ctx, n.Ledger, QuotaKeys, false, func(e Entry) error {
		if q, err := decodeAllowance(e); err == nil {
			b[e.Key] = q
		}
		return nil
	})
	return b, err
}

func (a *allowances) copied() bounds {
	b := make(bounds, len(a.bounds))
	for k, v := range a.bounds {
		b[k] = v
	}
	return b
}

// spending is what was used in the realm: of this node's own jobs by now, of others up to their last checkpoint. What
// the ledger says is read unless it was just now.
func (n *Node) spending(ctx context.Context, now time.Time) (spending, error) {
	a := &n.allowances
	a.mu.Lock()
	defer a.mu.Unlock()
	if age := now.Sub(a.read); a.sum == nil || age < 0 || age >= max(quotaEvery, quotaCost*a.took) {
		sum, open, err := n.readUsage(ctx, true)
		if err != nil {
			return nil, err
		}
		a.sum, a.open, a.read, a.took = sum, open, now, time.Since(now)
	}
	return n.withOwn(a.sum, a.open, now), nil
}

// spendingNow is the same by all that the realm knows now. This node's next decisions are by it, too: what it has told
// somebody to be used up is refused from then on.
func (n *Node) spendingNow(ctx context.Context, now time.Time) (spending, error) {
	a := &n.allowances
	a.mu.Lock()
	ends := a.ends
	a.mu.Unlock()
	sum, open, err := n.readUsage(ctx, false) // which may take long
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.After(a.read) && a.ends == ends { // else what a job has used that ended meanwhile may be missing
		a.sum, a.open, a.read, a.took = sum, open, now, time.Since(now)
	}
	return n.withOwn(sum, open, now), nil
}

// withOwn adds to sums what jobs have used that have not ended, or not been folded: of this node's own what they have by now.
func (n *Node) withOwn(sum spending, open map[JobID]jobUsage, now time.Time) spending {
	out := make(spending, len(sum))
	for s, h := range sum {
		out[s] = h
	}
	own := make(map[JobID]bool)
	for _, j := range n.running() {
		own[j.rec.ID] = true
		by, h := j.usedNow(now)
		out[by] = out[by].Merge(h)
	}
	for id, u := range open {
		if !own[id] {
			out[u.Submitter] = out[u.Submitter].Merge(u.Used)
		}
	}
	return out
}

// usedNow is what a job that runs here has used so far.
func (j *job) usedNow(now time.Time) (Submitter, History) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rest := j.used(Running).less(j.meter.wrote.Total())
	return j.rec.by(), j.meter.wrote.Add(DayOf(now), rest)
}

// endedWith notes what a job of this node has used, which has just ended, until the ledger is read again.
func (a *allowances) endedWith(id JobID, u jobUsage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends++
	if a.open != nil {
		a.open[id] = u
	}
}

// mayUse refuses a job of a submitter who has used up a quota.
func (n *Node) mayUse(ctx context.Context, s Submitter) error {
	if n.Bound {
		return nil
	}
	over, err := n.exceeded(ctx, s)
	switch {
	case err != nil:
		return Errorf(CodeOf(err), "it is not known what was used of quotas: %w", err)
	case over != nil:
		return over.err()
	}
	return nil
}

func (n *Node) exceeded(ctx context.Context, s Submitter) (*excess, error) {
	b, err := n.quotas(ctx)
	if err != nil || len(b.of(s)) == 0 {
		return nil, err
	}
	now := time.Now()
	sp, err := n.spending(ctx, now)
	if err != nil {
		return nil, err
	}
	over, _ := b.judge(s, sp, DayOf(now))
	return over, nil
}

// startTimeout bounds how long a job waits at its start to know whether it may.
const startTimeout = 2 * time.Second

// bounded has a job that is about to start begin paused, if that is how it is to be.
func (n *Node) bounded(j *job) {
	if n.Bound {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, startTimeout)
	defer cancel()
	over, err := n.exceeded(ctx, j.rec.by())
	switch {
	case err != nil:
		n.log.Warn("a job starts though it is not known what was used of quotas", "job", j.rec.ID, "err", err)
	case over != nil:
		j.mu.Lock()
		j.pause(over)
		j.mu.Unlock()
	}
}

// keepQuotas pauses jobs of this node for whom a quota is used up, and lets them go on when it is not any more.
func (n *Node) keepQuotas() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		pause := time.Hour
		if err := n.applyQuotas(time.Now()); err == nil || errors.Is(err, errUnbounded) {
			if err == nil {
				n.allowances.mu.Lock()
				pause = max(quotaEvery, quotaCost*n.allowances.took)
				n.allowances.mu.Unlock()
			}
		} else if n.ctx.Err() == nil {
			n.log.Warn("it is not known what was used of quotas", "err", err)
			pause = quotaEvery
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-n.allowances.poke:
		case <-n.ctx.Done():
			return
		}
	}
}

// errUnbounded says that there is nothing to look at.
var errUnbounded = errors.New("no quotas")

// applyQuotas looks at all jobs that run here.
func (n *Node) applyQuotas(now time.Time) error {
	ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
	defer cancel()
	n.allowances.mu.Lock()
	b := n.allowances.copied()
	n.allowances.mu.Unlock()
	jobs := n.running()
	var sp spending
	if len(b) > 0 && len(jobs) > 0 {
		var err error
		if sp, err = n.spending(ctx, now); err != nil {
			return err
		}
	}
	together := make(map[Submitter]int64)
	for _, j := range jobs {
		together[j.rec.by()]++
	}
	type verdict struct {
		over *excess
		left Usage
	}
	verdicts := make(map[Submitter]verdict)
	for s := range together {
		over, left := b.judge(s, sp, DayOf(now))
		verdicts[s] = verdict{over, left}
	}
	for _, j := range jobs {
		s := j.rec.by()
		if change, on := n.bind(j, verdicts[s].over, verdicts[s].left, together[s]); change {
			n.post(Paused{Job: j.rec.ID, On: on})
			if on { // so that others know, too
				n.spawn(func() { n.checkpoint(j) })
			}
		}
	}
	if len(b) == 0 || len(jobs) == 0 {
		return errUnbounded
	}
	return nil
}

// bind pauses a job, or lets it go on, and has this looked at again when the job has used its part of what is left, of
// so many jobs of its submitter here. The scheduler is to be told of a change.
func (n *Node) bind(j *job, over *excess, left Usage, jobs int64) (change, on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ending || j.lost || !j.begun {
		return false, false
	}
	m := &j.meter
	m.most = nil
	if over == nil && (left.Tasks < math.MaxInt64 || left.CPU < math.MaxInt64 || left.Read < math.MaxInt64) {
		part := func(used, left int64) int64 { return sumOf(used, max(left/jobs, 1)) }
		m.most = &Usage{
			Tasks: part(m.mine.Tasks, left.Tasks), CPU: time.Duration(part(int64(m.mine.Spent()), int64(left.CPU))),
			Read: part(m.mine.Bytes(), left.Read),
		}
	}
	switch {
	case over != nil && j.paused == nil:
		j.pause(over)
		return true, true
	case over != nil:
		j.paused = over
	case j.paused != nil:
		j.paused = nil
		j.tellLocked(JobEvent{Kind: EventResumed, Text: "it goes on: no quota of its submitter is used up any more"})
		return true, false
	}
	return false, false
}

// pause notes why nothing of a job is handed out. j.mu is held.
func (j *job) pause(over *excess) {
	j.paused = over
	j.tellLocked(JobEvent{Kind: EventPaused, Text: clean(j.pausedText(), maxEventText)})
}

// pausedText says why a job is paused. j.mu is held.
func (j *job) pausedText() string {
	return "paused: " + j.paused.Error() + "; what runs of it goes on, the rest " + j.paused.until()
}
