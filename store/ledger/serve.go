package ledger

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// handleCall answers a call of ledger/1.
func (l *Ledger) handleCall(ctx context.Context, from peer.ID, data []byte) ([]byte, error) {
	if !l.enter() {
		return nil, errClosed()
	}
	defer l.wg.Done()
	req, err := decodeRequest(data)
	if err != nil {
		return grid.Marshal(failed(err))
	}
	r, err := l.admit(req.Realm, from)
	if err != nil {
		return grid.Marshal(failed(err))
	}
	if r == nil {
		return grid.Marshal(&reply{Code: grid.Unavailable, Message: "this node keeps no copy", Other: true})
	}
	if req.Origin != "" {
		switch {
		case !r.has(from):
			return grid.Marshal(failed(grid.Errorf(grid.Denied, "only replicas pass requests on")))
		case l.hooks.forward != nil && !l.hooks.forward(from): // who asked can ask another one
			return grid.Marshal(failed(grid.Errorf(grid.Unavailable, "%s may keep no copy any more, and so pass nothing on", from)))
		}
		from = req.Origin
	}
	wait := min(time.Duration(req.Wait)*time.Millisecond, maxWait)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return grid.Marshal(l.finish(r, req, r.answer(ctx, from, req)))
}

// admit looks whether a node may use this node's replica, which may be nil.
func (l *Ledger) admit(realm string, from peer.ID) (*replica, error) {
	l.mu.Lock()
	r, ours := l.rep, l.realm
	l.mu.Unlock()
	switch {
	case ours.ID == "":
		return nil, grid.Errorf(grid.Unavailable, "this node is of no realm yet")
	case realm != ours.ID:
		return nil, otherRealm(ours.Name)
	case l.hooks.serve != nil:
		if err := l.hooks.serve(from); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// has reports whether a node is a replica.
func (r *replica) has(id peer.ID) bool {
	for _, s := range r.servers() {
		if s.ID == id {
			return true
		}
	}
	return false
}

// finish adds to an answer what this node knows of the replicas.
func (l *Ledger) finish(r *replica, req *request, p *reply) *reply {
	v := r.view()
	p.Leader, p.Conf = v.leader, v.conf
	if v.leader == l.net.Self() {
		p.Term = v.term
	}
	if v.conf != req.Conf {
		for _, s := range v.servers {
			p.Servers = append(p.Servers, wireServer(s))
		}
	}
	return p
}

// answer does what a request of a node asks for, or says who may.
func (r *replica) answer(ctx context.Context, from peer.ID, req *request) *reply {
	if req.Kind == askRange && req.Stale {
		return r.readRange(req)
	}
	o := r.office.Load()
	switch {
	case o == nil && req.Kind == askStatus:
		return r.status(nil)
	case o == nil && req.Hops > 0:
		return r.passOn(ctx, from, req)
	case o == nil:
		return &reply{Code: grid.Unavailable, Message: "this node does not lead", Other: true}
	case req.Kind == askCommit && req.Term != o.term:
		return &reply{Code: grid.Unavailable, Message: "it was sent to the leader of another term", Other: true}
	}
	switch req.Kind {
	case askGet, askRange:
		if err := r.current(ctx, o); err != nil {
			return failed(err)
		}
		if req.Kind == askRange {
			return r.readRange(req)
		}
		p := &reply{Revision: r.machine.Revision()}
		if e, ok := r.machine.Get(string(req.Key)); ok {
			p.Entries = toWire([]grid.Entry{e})
		}
		return p
	case askCommit:
		return r.commit(ctx, o, from, req)
	case askRenew:
		return r.renew(ctx, o, from, grid.SessionID(req.Session))
	case askStatus:
		return r.status(o)
	}
	return failed(grid.Errorf(grid.Unsupported, "a request of kind %d", req.Kind).Hint("run the same version on all nodes"))
}

func (r *replica) readRange(req *request) *reply {
	page, err := r.machine.Range(grid.Query{Prefix: string(req.Prefix), After: string(req.After), Limit: req.Limit, At: req.At})
	if err != nil {
		return failed(err)
	}
	return &reply{Entries: toWire(page.Entries), More: page.More, Revision: page.Revision}
}

// commit applies a command, once what was committed before this office began has been.
func (r *replica) commit(ctx context.Context, o *office, from peer.ID, req *request) *reply {
	cmd := req.cmd
	if cmd.Open != nil && cmd.Open.Owner != from {
		return failed(grid.Errorf(grid.Denied, "a session of %s cannot be opened by %s", cmd.Open.Owner, from))
	}
	if err := r.mayApply(ctx, o, from, cmd); err != nil {
		return failed(err)
	}
	result, err := r.batch.do(ctx, *cmd, req.Try)
	if err != nil {
		p := failed(err)
		if p.Code == grid.Internal && grid.CodeOf(err) == grid.Unknown {
			p.Code = grid.Unavailable
		}
		return p
	}
	if result.Code == 0 {
		switch {
		case cmd.Open != nil:
			o.lease.opened(*cmd.Open)
		case cmd.End != nil:
			o.lease.ended(cmd.End)
		}
	}
	revision := result.Revision
	if result.Retry {
		revision = r.machine.Revision()
	}
	return &reply{Code: result.Code, Message: clip(result.Message), Advice: result.Advice, Retry: result.Retry, Revision: revision}
}

// mayApply refuses a command that the node that it is from may not have applied: a session is ended, and entries are put under it, by
// its owner alone.
func (r *replica) mayApply(ctx context.Context, o *office, from peer.ID, cmd *machine.Command) error {
	write := r.l.hooks.write
	if write == nil || cmd.Open != nil {
		return nil
	}
	select {
	case <-o.ready: // the sessions are known from here on
	case <-o.lost:
		return errLost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	sessions := cmd.End
	if cmd.Txn != nil {
		for i := range cmd.Txn.Put {
			if s := cmd.Txn.Put[i].Session; s != "" {
				sessions = append(sessions, s)
			}
		}
	}
	if owner := o.lease.others(from, sessions); owner != "" {
		return grid.Errorf(grid.Denied, "a session of %s is not for %s to use or to end", owner, from)
	}
	if cmd.Txn == nil {
		return nil
	}
	return write(from, cmd.Txn, r.held)
}

// held reads what this replica holds: grid.Held.
func (r *replica) held(prefix string, f func(grid.Entry) error) error {
	q := grid.Query{Prefix: prefix}
	for {
		page, err := r.machine.Range(q)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if err := f(e); err != nil {
				return err
			}
		}
		if !page.More || len(page.Entries) == 0 {
			return nil
		}
		q.After, q.At = page.Entries[len(page.Entries)-1].Key, page.Revision
	}
}

// passOn asks the leader for a node that cannot reach it.
func (r *replica) passOn(ctx context.Context, from peer.ID, req *request) *reply {
	id, ok := r.leader()
	if !ok || id == r.l.net.Self() {
		return &reply{Code: grid.Unavailable, Message: "this node knows of no leader", Other: true}
	}
	on := *req
	on.Hops--
	on.Origin = from
	p, sent, err := r.l.send(ctx, id, &on)
	if err != nil {
		if sent {
			err = errUnsure{err}
		}
		return failed(err)
	}
	// What it says of the leader and the replicas is for this node; the asker gets this node's view of them.
	r.l.learn(id, p)
	p.Servers = nil
	return p
}

// status tells how the replicas are, as the leader sees them or, without o, as any other does.
func (r *replica) status(o *office) *reply {
	p := &reply{Revision: r.machine.Revision()}
	if o == nil {
		p.Other = true
		p.Code, p.Message = grid.Unavailable, "this node does not lead"
		return p
	}
	held := r.machine.Stats()
	p.Held, p.Bytes, p.Sessions = held.Entries, held.Bytes, held.Sessions
	last := r.raft.LastIndex()
	all := r.progress()
	for _, s := range r.servers() {
		m := wireMember{ID: s.ID, Role: grid.Learner}
		if s.Voter {
			m.Role = grid.Voter
		}
		if k, ok := all[s.ID]; ok {
			m.Applied, m.Heard = k.Applied, uint64(k.Heard)
			m.Lag = last - min(last, k.Applied)
			m.Up = k.Heard < upWithin(r.l.cfg.Timing)
		}
		if s.ID == r.l.net.Self() {
			m.Role = grid.Leader
		}
		p.Members = append(p.Members, m)
	}
	return p
}

// upWithin is how recently a replica must have answered to count as up.
func upWithin(t Timing) time.Duration { return max(4*t.Election, time.Second) }

// Status is told at grid.Ledger. Of the members it lists the replicas.
func (l *Ledger) Status(ctx context.Context) (grid.LedgerStatus, error) {
	if err := ctx.Err(); err != nil {
		return grid.LedgerStatus{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timing.Try)
	defer cancel()
	p, err := l.ask(ctx, "status", &request{Kind: askStatus})
	v := l.view()
	l.mu.Lock()
	st := grid.LedgerStatus{Realm: l.realm.Name, RealmID: l.realm.ID, Role: grid.Client, Revision: l.revision.Load(), Term: v.term}
	r, broken := l.rep, l.broken
	l.mu.Unlock()
	self := l.net.Self()
	if r != nil {
		s := r.machine.Stats() // unless the leader knows better
		st.Revision, st.Entries, st.Bytes, st.Sessions = s.Revision, s.Entries, s.Bytes, s.Sessions
		st.Term = r.raft.CurrentTerm()
		st.Role = grid.Learner
	}
	if v.leader != "" {
		st.Leader = v.leader.String()
	}
	for _, s := range v.servers {
		m := grid.LedgerMember{ID: s.ID, Role: grid.Learner, Up: s.ID == self}
		if s.Voter {
			m.Role = grid.Voter
		}
		if r != nil && s.ID == self {
			st.Role, m.Applied = m.Role, r.raft.LastIndex()
		}
		st.Members = append(st.Members, m)
	}
	if err == nil {
		st.Members = nil
		st.Revision = max(st.Revision, p.Revision)
		st.Entries, st.Bytes, st.Sessions = p.Held, p.Bytes, p.Sessions
		for _, m := range p.Members {
			st.Members = append(st.Members, grid.LedgerMember{
				ID: m.ID, Role: m.Role, Up: m.Up, Applied: m.Applied, Lag: m.Lag, Heard: time.Duration(m.Heard),
			})
			if m.ID == self {
				st.Role = m.Role
			}
		}
	} else {
		up := make(map[peer.ID]bool)
		for _, i := range l.net.Peers() {
			up[i.ID] = true
		}
		for i := range st.Members {
			st.Members[i].Up = st.Members[i].Up || up[st.Members[i].ID]
		}
		st.Note = err.Error()
		if hint := grid.AdviceOf(err); hint != "" {
			st.Note += "; " + hint
		}
	}
	if broken != nil {
		st.Note = broken.Error() + "; " + grid.AdviceOf(broken)
	}
	return st, nil
}
