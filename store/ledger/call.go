package ledger

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// Pauses between rounds of tries.
const (
	minPause = 5 * time.Millisecond
	maxPause = 250 * time.Millisecond
)

// call is one request with its tries.
type call struct {
	l      *Ledger
	what   string
	req    *request
	failed map[peer.ID]bool // that could not be reached lately
	last   error
	unsure bool // a try was sent whose outcome is unknown
}

// ask has a request answered: by this node if it may, else by the leader, else by one that can reach the leader. It
// tries again until there is a definite answer or time has run out.
func (l *Ledger) ask(ctx context.Context, what string, req *request) (*reply, error) {
	if !l.enter() {
		return nil, errClosed()
	}
	defer l.wg.Done()
	return l.askOpen(ctx, what, req)
}

// askOpen is ask for who knows that the ledger is not closed yet.
func (l *Ledger) askOpen(ctx context.Context, what string, req *request) (*reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.cfg.Timing.Call)
		defer cancel()
	}
	c := &call{l: l, what: what, req: req}
	if r := l.replica(); r != nil && (req.Stale || r.office.Load() != nil) && ctx.Err() == nil { // the short way
		if p, _ := c.try(ctx); p != nil {
			return c.done(p)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(errClosed()) })()
	pause := minPause
	for try := 0; ; try++ {
		if ctx.Err() != nil {
			return nil, c.gaveUp(ctx)
		}
		p, again := c.try(ctx)
		if p != nil {
			return c.done(p)
		}
		if again {
			if try < 4 {
				continue
			}
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		changed := l.changed()
		if again {
			changed = nil
		}
		select {
		case <-t.C:
		case <-changed: // somebody leads, perhaps
			t.Stop()
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

// done is a definite reply, or the error that it says.
func (c *call) done(p *reply) (*reply, error) {
	if err := p.err(); err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "ledger: %s: %w", c.what, err)
	}
	c.l.heard(p.Revision)
	return p, nil
}

// fail remembers not to ask a node again before the others.
func (c *call) fail(id peer.ID) {
	if c.failed == nil {
		c.failed = make(map[peer.ID]bool)
	}
	c.failed[id] = true
}

// try asks one node. The reply is definite; without one, again says that there is somebody else to ask at once.
func (c *call) try(ctx context.Context) (p *reply, again bool) {
	to, hops := c.pick()
	if to == "" {
		c.last = c.l.nobody()
		return nil, false
	}
	v := c.l.view()
	c.req.Conf, c.req.Hops = v.conf, hops
	if c.req.Kind == askCommit {
		c.req.Term = v.term
	}
	if to != c.l.net.Self() {
		limit := c.l.cfg.Timing.Try
		if d, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(d))
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		c.req.Wait = uint64(max(limit.Milliseconds(), 1))
	}
	p, sent, err := c.l.send(ctx, to, c.req)
	if sent {
		c.req.Try++
	}
	if err != nil {
		c.last = err
		c.unsure = c.unsure || sent
		c.fail(to)
		return nil, c.untried()
	}
	c.l.learn(to, p)
	c.unsure = c.unsure || p.Unsure
	switch {
	case p.Other:
		c.last = p.err()
		if p.Leader == "" {
			c.fail(to)
			return nil, c.untried()
		}
		return nil, true
	case p.Unsure, p.Code == grid.Unavailable, p.Code == grid.Busy, p.Code == grid.Deadline, p.Code == grid.Canceled:
		c.last = p.err()
		if p.Code != grid.Busy {
			c.fail(to)
			return nil, c.untried()
		}
		return nil, false
	case p.Retry && !c.unsure && c.req.cmd.Base < p.Revision:
		// Nothing was applied, neither now nor before: it can be a new request.
		cmd := *c.req.cmd
		cmd.Base = p.Revision
		c.req.cmd, c.req.Batch = &cmd, nil
		c.last = p.err()
		return nil, true
	}
	return p, false
}

// pick says whom to ask, and whether it may pass the request on.
func (c *call) pick() (to peer.ID, hops uint8) {
	l := c.l
	self := l.net.Self()
	r := l.replica()
	if r != nil && (c.req.Stale || r.office.Load() != nil) && !c.failed[self] {
		return self, 0
	}
	v := l.view()
	if !c.req.Stale && v.leader != "" && v.leader != self && !c.failed[v.leader] {
		return v.leader, 0
	}
	for _, id := range l.nearest(v.servers) {
		if !c.failed[id] {
			return id, maxHops
		}
	}
	clear(c.failed)
	return "", 0
}

// untried reports whether there is a replica that has not failed in this round.
func (c *call) untried() bool {
	for _, s := range c.l.view().servers {
		if s.ID != c.l.net.Self() && !c.failed[s.ID] {
			return true
		}
	}
	clear(c.failed)
	return false
}

// nearest orders replicas other than this node: those that are connected by their round trip, then the others.
func (l *Ledger) nearest(servers []server) []peer.ID {
	rtt := make(map[peer.ID]time.Duration)
	for _, p := range l.net.Peers() {
		rtt[p.ID] = max(p.RTT, 1)
	}
	ids := make([]peer.ID, 0, len(servers))
	for _, s := range servers {
		if s.ID != l.net.Self() {
			ids = append(ids, s.ID)
		}
	}
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	slices.SortStableFunc(ids, func(a, b peer.ID) int {
		x, y := rtt[a], rtt[b]
		switch {
		case (x == 0) != (y == 0):
			if x != 0 {
				return -1
			}
			return 1
		case x < y/2:
			return -1
		case y < x/2:
			return 1
		}
		return 0
	})
	return ids
}

// send sends a request to one node, which may be this one. sent says that, in spite of an error, it may have arrived.
func (l *Ledger) send(ctx context.Context, to peer.ID, req *request) (p *reply, sent bool, err error) {
	if to == l.net.Self() {
		r := l.replica()
		if r == nil {
			return nil, false, errLost()
		}
		return l.finish(r, req, r.answer(ctx, to, req)), true, nil
	}
	l.mu.Lock()
	req.Realm = l.realm.ID
	l.mu.Unlock()
	if req.Kind == askCommit && req.Batch == nil {
		if req.Batch, err = machine.AppendBatch(nil, []machine.Command{*req.cmd}); err != nil {
			return failed(err), false, nil
		}
	}
	data, err := grid.Marshal(req)
	if err != nil {
		return nil, false, err
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	data, err = l.net.Call(ctx, to, callProtocol, data)
	if err != nil {
		return nil, true, err
	}
	p, err = decodeReply(data)
	return p, true, err
}

// learn takes over what an answer tells of the replicas.
func (l *Ledger) learn(from peer.ID, p *reply) {
	if from == l.net.Self() {
		return
	}
	l.heard(p.Revision)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p.Servers) > 0 {
		l.known.servers, l.known.conf = nil, p.Conf
		for _, s := range p.Servers {
			l.known.servers = append(l.known.servers, server(s))
		}
	}
	l.known.leader = p.Leader
	if p.Term != 0 {
		l.known.term = p.Term
	}
	if l.rep != nil && p.Term != 0 {
		l.rep.told.Store(&view{leader: p.Leader, term: p.Term})
	}
}

// nobody says why there is nobody to ask.
func (l *Ledger) nobody() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.broken != nil && len(l.known.servers) < 2:
		return l.broken
	case l.rep == nil && len(l.known.servers) == 0:
		return grid.Errorf(grid.Unavailable, "this node is of no realm yet")
	}
	return grid.Errorf(grid.Unavailable, "no majority of the realm's voters can be reached").Hint(adviceNobody)
}

const adviceNobody = "`grid ledger status` shows who votes: start those that are down, or mend the network; if most are lost for good, see `grid ledger recover`"

// gaveUp is the error when time has run out.
func (c *call) gaveUp(ctx context.Context) error {
	cause := context.Cause(ctx)
	err := c.last
	if err == nil {
		err = cause
	}
	code := grid.CodeOf(cause)
	commit := c.req.Kind == askCommit
	if code == grid.Deadline && c.last != nil && !(c.unsure && commit) {
		code = grid.Unavailable
		if grid.CodeOf(c.last) == grid.Busy {
			code = grid.Busy
		}
	}
	if code == grid.Unknown {
		code = grid.Unavailable
	}
	if c.unsure && commit {
		return grid.Errorf(code, "ledger: %s: it may have been applied, or may be yet: %w", c.what, err).
			Hint("read what it was to change; to send it again with the same request ID is safe, too")
	}
	out := grid.Errorf(code, "ledger: %s: time ran out: %w", c.what, err)
	if code == grid.Unavailable && grid.AdviceOf(err) == "" {
		out.Hint(adviceNobody)
	}
	return out
}
