package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/member"
)

// Bounds on what a leader does at a time.
const (
	maxSteps    = 16
	stepTimeout = 10 * time.Second
	shunFor     = 30 * time.Second
	silence     = 3 // ticks after which a replica that was not heard of counts as away
)

// lead takes the steps that the planner wants, if this node is the leader.
func (r *Realm) lead(ctx context.Context) {
	if !r.isLeader() {
		r.planner = nil
		return
	}
	if r.planner == nil {
		r.planner = member.New(r.cfg.Plan)
	}
	r.rouse(ctx)
	for range maxSteps {
		s := r.planner.Next(time.Now(), r.view())
		if s.Do == member.Nothing {
			return
		}
		if err := r.step(ctx, s); err != nil {
			r.log.Warn("members: step not taken", "step", s.Do, "peer", s.ID, "why", s.Why, "err", err)
			if s.Do == member.Add {
				shun := shunFor
				if grid.CodeOf(err) == grid.Busy { // it has not ended its joining
					shun = r.cfg.Tick
				}
				r.mu.Lock()
				r.shunned[s.ID] = time.Now().Add(shun)
				r.mu.Unlock()
				continue
			}
			return
		}
		r.log.Info("members: "+string(s.Do), "peer", s.ID, "why", s.Why)
		if s.Do == member.HandOver {
			return
		}
	}
	r.wake()
}

// view is the realm as the planner wants to see it.
func (r *Realm) view() member.View {
	self, now := r.cfg.Network.Self(), time.Now()
	prog, last := r.progress(), r.lastIndex()
	v := member.View{Leader: self}
	servers := r.servers()
	r.mu.Lock()
	defer r.mu.Unlock()
	has := map[peer.ID]bool{}
	for _, s := range servers {
		has[s.ID] = true
		m, a := r.members[s.ID], r.met[s.ID]
		p, heard := prog[s.ID]
		rep := member.Replica{ID: s.ID, Voter: s.Voter, Zone: m.Zone, Gone: m.Removed || s.ID != self && !r.keeps(s.ID), Old: a != nil && a.Realm == r.st.ID && a.Old}
		rep.Up = s.ID == self || heard && p.Heard < silence*r.cfg.Tick && !rep.Old
		if s.ID != self {
			rep.Lag = last - min(p.Applied, last)
		}
		v.Replicas = append(v.Replicas, rep)
	}
	for id, m := range r.members {
		a := r.met[id]
		if m.Removed || has[id] || !r.keeps(id) || a == nil || a.Realm != r.st.ID || a.Old || now.Before(r.shunned[id]) {
			continue
		}
		v.Nodes = append(v.Nodes, member.Node{ID: id, Zone: m.Zone})
	}
	return v
}

func (r *Realm) step(ctx context.Context, s member.Step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch s.Do {
	case member.Add:
		if err := r.askToServe(ctx, s.ID); err != nil {
			return err
		}
		return r.addLearner(ctx, s.ID)
	case member.Promote:
		return r.promote(ctx, s.ID)
	case member.Demote:
		return r.demote(ctx, s.ID)
	case member.Remove:
		return r.remove(ctx, s.ID)
	case member.HandOver:
		return r.transfer(ctx, s.ID)
	}
	return grid.Errorf(grid.Internal, "ledger: unknown step %q", s.Do)
}

func (r *Realm) askToServe(ctx context.Context, id peer.ID) error {
	g := r.greeting(id)
	g.Do = doServe
	_, err := r.call(ctx, id, g, greetTimeout)
	return err
}

// rouse asks replicas that do not know that they are to be ready.
func (r *Realm) rouse(ctx context.Context) {
	servers := r.servers()
	var list []peer.ID
	r.mu.Lock()
	for _, s := range servers {
		if a := r.met[s.ID]; a != nil && a.Realm == r.st.ID && !a.Replica && !a.Old && !s.Voter && !r.members[s.ID].Removed {
			list = append(list, s.ID)
		}
	}
	r.mu.Unlock()
	for _, id := range list {
		if err := r.askToServe(ctx, id); err != nil {
			r.log.Debug("a replica is not ready", "peer", id, "err", err)
		}
	}
}

// patience is how long a replica that was down waits for others to answer before it starts with those that have.
const patience = 3 // ticks

// checkDisk finds out from the other replicas whether this node's copy is as new as it should be, and starts it. One that has
// lost what it had acknowledged must not vote: a leader without it might be elected. It waits until it is a learner.
func (r *Realm) checkDisk(ctx context.Context) {
	self := r.cfg.Network.Self()
	last := r.lastIndex()
	r.mu.Lock()
	id, mine := r.st.ID, r.st.Incarnation
	answered, all, copies := 0, 0, 1
	listed := slices.Clone(r.st.Known)
	if s, ok := find(listed, self); ok && s.Voter {
		answered = 1
	}
	var newest []server
	var leader peer.ID
	for p, a := range r.met {
		s, ok := find(listed, p)
		if a.Realm != id || !a.told || !ok && !r.keeps(p) {
			continue
		}
		if a.Copy {
			copies++
		}
		if ok {
			if all++; s.Voter {
				answered++
			}
		}
		if !r.keeps(p) {
			continue // who may not keep the ledger, or no more, may make up the rest
		}
		if !r.old && (a.Known >= mine || last > 0 && a.Acked > last) {
			r.old = true
			r.log.Error("this node's copy of the ledger is older than what it has acknowledged: it does not vote until it is brought up to date",
				"incarnation", mine, "realm knows", a.Known, "last", last, "acknowledged", a.Acked)
		}
		if len(a.Servers) > 0 {
			newest, leader = a.Servers, p
		}
	}
	old := r.old
	if old {
		r.note(noteDisk, "this node's copy of the ledger is older than what it has acknowledged, so it may not vote. It is made a learner once a majority of the other voters is up: start them")
	}
	late := time.Since(r.began) >= patience*r.cfg.Tick
	r.mu.Unlock()
	if !old {
		enough := answered >= voters(listed)/2+1
		if enough && all >= len(listed)-1 || late && (enough || copies >= len(listed)/2+1) { // the list may be out of date
			r.begin("its copy is as new as the others know")
		}
		return
	}
	if newest == nil {
		return
	}
	if l, ok := r.leader(); ok && l != self {
		leader = l
	}
	reply, err := r.confirm(ctx, leader)
	if err != nil || !reply.Leads || reply.Realm != id {
		return
	}
	if reply.Removed {
		r.removed(ctx, id)
		return
	}
	for _, s := range reply.Servers {
		if s.ID == self && s.Voter {
			return
		}
	}
	// The copy begins anew: what else it holds may never have been committed, and would speak for who lacks what was.
	if err := r.update(func(st *state) {
		st.begin(reply.Servers, reply.Committed)
		st.Incarnation = max(st.Incarnation, reply.Known+1)
	}); err != nil {
		r.log.Error("ledger", "err", err)
		return
	}
	r.begin("it is no voter any more")
}

func (r *Realm) begin(why string) {
	r.shift.Lock()
	defer r.shift.Unlock()
	if err := r.beReplica(r.ctx); err != nil {
		r.log.Error("ledger: the replica does not start", "err", err)
		return
	}
	r.log.Info("the replica starts", "why", why)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting, r.old = false, false
	r.note(noteDisk, "")
	r.wake()
}
