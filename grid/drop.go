package grid

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// When a job is over nothing of it is to run on, anywhere. There are three ways in which a node hears of it, as each
// alone may fail:
//
//  1. The owner tells everybody whom it ever gave leases, not just those who hold some as far as it knows; it tells
//     again until it is heard. Whoever is told answers whom it gave leases in turn, and the owner tells those.
//  2. Every node of the realm sees in the ledger that the job is not open any more. So it ends, too, when its owner
//     is dead or cut off.
//  3. Who claims a lease on it is told that it is of no use.
//
// A lease may still be on its way from one thief to another then. So nodes remember which jobs have just ended.

// Bounds on what is remembered and told.
const (
	maxGivenJobs  = 4096 // jobs of which it is remembered who was given leases
	maxGivenPeers = 1024 // of one of them
	dropTries     = 8
	dropTry       = time.Second           // for one try
	dropPause     = 50 * time.Millisecond // after the first; it doubles
	dropAtOnce    = 64
	maxEnds       = 4096 // jobs of which it is remembered that they have ended
)

// ends are the jobs of the realm that have ended last.
type ends struct {
	mu    sync.Mutex
	all   map[JobID]struct{}
	order []JobID
}

func (e *ends) add(id JobID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, again := e.all[id]; again {
		return
	}
	if e.all == nil {
		e.all = make(map[JobID]struct{})
	}
	for len(e.order) >= maxEnds {
		delete(e.all, e.order[0])
		e.order = e.order[1:]
	}
	e.all[id] = struct{}{}
	e.order = append(e.order, id)
}

// of lists those leases that are of jobs that have ended, or of what the tasks of such have spawned.
func (e *ends) of(leases []Lease) (over []Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range leases {
		if _, ended := e.all[rootJob(l.Job)]; ended {
			over = append(over, l)
		}
	}
	return over
}

// dropReply says whom the node has given leases on the job.
type dropReply struct {
	Gave []peer.ID `cbor:"gave,omitempty"`
}

// givenKey is what leases were given of: a job with one of its owners.
type givenKey struct {
	job   JobID
	owner peer.ID
}

// given is whom this node has given leases, by job. Of too many jobs the oldest are forgotten, but batches of children
// first: there may be thousands below one job, and each of them ends when that does.
type given struct {
	mu    sync.Mutex
	to    map[givenKey]*givenTo
	order []givenKey
}

type givenTo struct {
	epoch Epoch // of the newest lease
	peers map[peer.ID]struct{}
}

func (g *given) note(leases []Lease, to peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range leases {
		k := givenKey{leases[i].Job, leases[i].Owner}
		t := g.to[k]
		if t == nil {
			if g.to == nil {
				g.to = make(map[givenKey]*givenTo)
			}
			for len(g.order) >= maxGivenJobs {
				i := max(0, slices.IndexFunc(g.order, func(k givenKey) bool { return rootJob(k.job) != k.job }))
				delete(g.to, g.order[i])
				g.order = slices.Delete(g.order, i, i+1)
			}
			t = &givenTo{peers: make(map[peer.ID]struct{})}
			g.to[k] = t
			g.order = append(g.order, k)
		}
		t.epoch = max(t.epoch, leases[i].Epoch)
		if len(t.peers) < maxGivenPeers {
			t.peers[to] = struct{}{}
		}
	}
}

// of lists whom leases were given, and the epoch of the newest. The list stays: an answer may be lost.
func (g *given) of(job JobID, owner peer.ID) ([]peer.ID, Epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.to[givenKey{job, owner}]
	if t == nil {
		return nil, 0
	}
	return slices.Collect(maps.Keys(t.peers)), t.epoch
}

// onDrop takes in that a job is over, and says who else is to be told.
func (n *Node) onDrop(_ context.Context, from peer.ID, m dropMsg) (dropReply, error) {
	n.post(Dropped{From: from, Job: m.Job, Epoch: m.Epoch})
	gave, _ := n.given.of(m.Job, from)
	return dropReply{gave}, nil
}

// endEverywhere tells all who may hold leases of this node on a job that it is over.
func (n *Node) endEverywhere(id JobID) {
	gave, epoch := n.given.of(id, n.self)
	d := &dropping{n: n, msg: dropMsg{Job: id, Epoch: epoch}}
	d.tell(gave...)
}

// tellDropped tells a node that claims leases on a job that it is over. If that is lost, it claims again.
func (n *Node) tellDropped(e TellDropped) {
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	if _, err := call[dropReply](ctx, n, e.To, protoDrop, dropMsg{Job: e.Job, Epoch: e.Epoch}); err != nil {
		n.log.Debug("node not told that a job is over", "node", e.To, "job", e.Job, "err", err)
	}
}

// dropping is the telling of one end.
type dropping struct {
	n   *Node
	msg dropMsg

	mu   sync.Mutex
	told map[peer.ID]struct{}
}

// tell tells nodes that have not been told yet, each on a goroutine of its own.
func (d *dropping) tell(ids ...peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told == nil {
		d.told = map[peer.ID]struct{}{d.n.self: {}}
	}
	for _, id := range ids {
		if _, told := d.told[id]; told || len(d.told) > maxGivenJobs || id.Validate() != nil {
			continue
		}
		d.told[id] = struct{}{}
		d.n.spawn(func() { d.tellOne(id) })
	}
}

// tellOne tells a node until it answers, or there is no hope: then it finds out by itself.
func (d *dropping) tellOne(id peer.ID) {
	n := d.n
	for try, pause := 1, dropPause; ; try, pause = try+1, 2*pause {
		select {
		case n.dropRoom <- struct{}{}:
		case <-n.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(n.ctx, dropTry)
		reply, err := call[dropReply](ctx, n, id, protoDrop, d.msg)
		cancel()
		<-n.dropRoom
		if err == nil {
			// Who holds something has claimed it from here. Anybody else may be made up.
			d.tell(slices.DeleteFunc(reply.Gave[:min(len(reply.Gave), maxGivenPeers)], n.gone)...)
			return
		}
		if try == dropTries || !transient(CodeOf(err)) || n.gone(id) || n.ctx.Err() != nil {
			n.log.Debug("node not told that a job is over", "node", id, "job", d.msg.Job, "err", err)
			return
		}
		if !n.sleep(pause) {
			return
		}
	}
}

// over ends what runs here of a job that the ledger says has ended, whoever owned it when its leases were given. What
// its tasks have spawned ends with it.
func (n *Node) over(id JobID, owners []peer.ID) {
	n.ends.add(id)
	n.errands.stop(id)
	drops := make(map[givenKey]Epoch)
	for _, owner := range owners {
		drops[givenKey{id, owner}] = math.MaxUint64
	}
	for _, l := range append(n.busy.leases(), n.parking.leases()...) {
		if _, known := drops[givenKey{l.Job, l.Owner}]; !known && (l.Job == id || descends(l.Job, id)) {
			drops[givenKey{l.Job, l.Owner}] = l.Epoch
		}
	}
	for k, epoch := range drops {
		if k.owner != n.self {
			n.post(Dropped{From: k.owner, Job: k.job, Epoch: epoch})
		}
	}
}

// descends reports whether a job is of tasks that tasks of a root have spawned.
func descends(id, root JobID) bool { return strings.HasPrefix(string(id), string(root)+".") }

// errands are what is under way for jobs besides tasks that run, such as reports.
type errands struct {
	mu  sync.Mutex
	all map[*errand]struct{}
}

type errand struct {
	job    JobID
	cancel context.CancelFunc
}

// run gives a context for something that is of no use once the job is over. done ends it.
func (e *errands) run(ctx context.Context, job JobID) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	x := &errand{job, cancel}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = make(map[*errand]struct{})
	}
	e.all[x] = struct{}{}
	return ctx, func() {
		cancel()
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.all, x)
	}
}

func (e *errands) stop(job JobID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for x := range e.all {
		if x.job == job || descends(x.job, job) {
			x.cancel()
		}
	}
}
