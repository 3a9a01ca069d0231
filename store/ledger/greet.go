package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// realmProtocol is the conversation of nodes about realms. Request and reply are a [greeting] each, in CBOR.
const realmProtocol grid.Protocol = "realm/1"

// greeting is what a node says of itself and its realm.
type greeting struct {
	Name        string   `cbor:"name"`        // of the realm
	Realm       string   `cbor:"realm"`       // its ID
	Incarnation uint64   `cbor:"incarnation"` // of the node
	Start       uint64   `cbor:"start"`       // drawn at each start: an old copy of a disk may count the same
	Zone        string   `cbor:"zone,omitempty"`
	Members     int      `cbor:"members"`             // of the realm, as far as it knows
	Copy        bool     `cbor:"copy,omitempty"`      // it keeps a copy, or is ready to
	Replica     bool     `cbor:"replica,omitempty"`   // and takes part in replication
	Old         bool     `cbor:"old,omitempty"`       // its copy is an old one: it waits until it is no voter
	Busy        bool     `cbor:"busy,omitempty"`      // it is about to join another realm, or has only begun: nobody can join it
	Joining     string   `cbor:"joining,omitempty"`   // the realm that it has begun to join, and may be a member of by now
	Servers     []server `cbor:"servers,omitempty"`   // the replicas of the realm, as far as it knows
	Committed   uint64   `cbor:"committed,omitempty"` // up to where it knows the log to be committed

	// About the node that is spoken to, and the start of it that the sender has heard of; without one, nothing is said of starts.
	Known   uint64 `cbor:"known,omitempty"`   // the incarnation that the realm knows
	Acked   uint64 `cbor:"acked,omitempty"`   // last log index that it is known to have had
	Member  bool   `cbor:"member,omitempty"`  // it is in the realm
	Removed bool   `cbor:"removed,omitempty"` // it was removed from the realm

	Gone bool `cbor:"gone,omitempty"` // its realm was this node's, who was alone in it and has left it

	// Of a request: what is asked for.
	Do      string       `cbor:"do,omitempty"`
	Entries []grid.Entry `cbor:"entries,omitempty"` // of take
	Join    *record      `cbor:"join,omitempty"`    // of take: with it, the node becomes a member

	Conflicts []string `cbor:"conflicts,omitempty"` // of the reply to take: keys that have another value there
	Leads     bool     `cbor:"leads,omitempty"`     // of the reply to confirm: the leader itself says so, and has made sure that it still is
}

// What is asked for.
const (
	doGreet   = ""
	doServe   = "serve"   // be ready to be made a learner
	doCheck   = "check"   // tell which of these entries are in conflict
	doTake    = "take"    // put these entries into the realm
	doConfirm = "confirm" // say for sure what is said of replicas and removals
	doInherit = "inherit" // be ready to take the only vote from the sender, which ends
)

// record is an entry of the ledger under member/.
type record struct {
	Joined      time.Time `cbor:"joined"`
	Incarnation uint64    `cbor:"incarnation"` // the last one that the realm has met
	Start       uint64    `cbor:"start"`       // what was drawn at it
	Zone        string    `cbor:"zone,omitempty"`
	Removed     bool      `cbor:"removed,omitempty"` // it was a member until it was removed
}

// Bounds on greetings.
const (
	maxConflicts = 16
	maxStarts    = 1 << 14
	greetTimeout = 5 * time.Second
	takeTimeout  = 20 * time.Second
)

func (g *greeting) check() error {
	switch {
	case CheckRealmName(g.Name) != nil, g.Realm == "", len(g.Realm) > maxRealm, len(g.Joining) > maxRealm, len(g.Zone) > grid.MaxName, len(g.Servers) > maxServers,
		len(g.Do) > 16, len(g.Conflicts) > maxConflicts, g.Join != nil && len(g.Join.Zone) > grid.MaxName:
		return grid.Errorf(grid.Invalid, "ledger: a greeting out of bounds")
	}
	for _, s := range g.Servers {
		if s.ID.Validate() != nil {
			return grid.Errorf(grid.Invalid, "ledger: a greeting names a replica without an ID")
		}
	}
	return nil
}

func decodeGreeting(data []byte) (g greeting, err error) {
	if err := grid.UnmarshalMessage(data, &g); err != nil {
		return g, err
	}
	return g, g.check()
}

// start is the newest start of a node that this one has heard of.
type start struct{ incarnation, drawn uint64 }

// acquaintance is a peer that has told of itself.
type acquaintance struct {
	greeting
	heard time.Time
	told  bool // it has answered this node, and so knows of this start
}

// greeting is what this node tells a peer by itself.
func (r *Realm) greeting(to peer.ID) greeting {
	r.mu.Lock()
	var said *greeting
	if a := r.met[to]; a != nil {
		said = &a.greeting
	}
	r.mu.Unlock()
	return r.answer(to, said)
}

// answer is what this node tells a peer that has said something of itself; nil: it has not. Only of the very start that the peer told of
// can it be said which others there were: a peer that is not counted among those of this node yet, or no more, may have told all the same.
func (r *Realm) answer(to peer.ID, said *greeting) greeting {
	prog := r.progress()
	servers := r.servers()
	committed := r.commitIndex()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(servers) == 0 { // a copy that is empty yet
		for _, s := range r.st.Known {
			servers = append(servers, server{s.ID, s.Voter})
		}
	}
	g := greeting{
		Name: r.st.Name, Realm: r.st.ID, Incarnation: r.st.Incarnation, Start: r.drawn, Zone: r.cfg.Zone, Members: r.size(),
		Copy: r.st.Replica, Replica: r.st.Replica && !r.waiting, Old: r.old, Joining: r.st.Joining, Servers: servers[:min(len(servers), maxServers)],
		Committed: committed,
	}
	g.Busy = r.busy(time.Now())
	m, member := r.members[to]
	g.Member, g.Removed = member && !m.Removed, m.Removed
	if p, ok := prog[to]; ok {
		g.Acked = p.Applied
	}
	if said == nil {
		return g
	}
	g.Gone = slices.Contains(r.st.Former, said.Realm)
	if s, ok := find(r.st.Known, to); ok {
		g.Known = s.Incarnation
	}
	g.Known = max(g.Known, m.Incarnation)
	if member && m.Start == said.Start && g.Known == m.Incarnation {
		g.Known-- // the realm has heard of this very start, before this node was asked
	}
	if s := r.starts[to]; s.drawn != said.Start {
		g.Known = max(g.Known, s.incarnation)
	}
	return g
}

// size counts the realm's members. The lock is held.
func (r *Realm) size() (n int) {
	for _, m := range r.members {
		if !m.Removed {
			n++
		}
	}
	if !r.st.Replica || len(r.st.Known) > 1 {
		return max(n, 2) // it has just joined, or has not read yet who else is there
	}
	return max(n, 1)
}

// call asks a peer for something. What is answered is learned.
func (r *Realm) call(ctx context.Context, to peer.ID, g greeting, timeout time.Duration) (greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	data, err := grid.Marshal(g)
	if err != nil {
		return greeting{}, err
	}
	if data, err = r.cfg.Network.Call(ctx, to, realmProtocol, data); err != nil {
		return greeting{}, err
	}
	reply, err := decodeGreeting(data)
	if err != nil {
		return greeting{}, err
	}
	r.learn(to, reply, true)
	return reply, nil
}

// serveRealm answers peers.
func (r *Realm) serveRealm(ctx context.Context, from peer.ID, data []byte) ([]byte, error) {
	q, err := decodeGreeting(data)
	if err != nil {
		return nil, err
	}
	if r.ctx.Err() != nil {
		return nil, grid.Errorf(grid.Unavailable, "ledger: this node is about to end")
	}
	var conflicts []string
	leads := false
	switch q.Do {
	case doGreet:
		r.learn(from, q, false)
	case doServe:
		if !r.keeps(from) {
			return nil, grid.Errorf(grid.Denied, "ledger: %s may not lead this realm, and so not say who keeps copies", from)
		}
		if err := r.becomeReplica(from, q.Realm, q.Servers, q.Committed); err != nil {
			return nil, err
		}
	case doInherit:
		if err := r.pledge(from); err != nil {
			return nil, err
		}
	case doCheck, doTake:
		if conflicts, err = r.take(ctx, from, &q); err != nil {
			return nil, err
		}
	case doConfirm:
		// A read that is not stale has the leader ask the others whether it still is.
		if _, err := r.Ledger.Get(ctx, memberKey(from)); err != nil && grid.CodeOf(err) != grid.NotFound {
			return nil, err
		}
		leads = r.isLeader()
		if _, err := r.readMembers(ctx, false); err != nil {
			return nil, err
		}
	default:
		return nil, grid.Errorf(grid.Unsupported, "ledger: %q is asked for", q.Do)
	}
	g := r.answer(from, &q)
	g.Conflicts, g.Leads = conflicts, leads
	return grid.Marshal(g)
}

// learn remembers what a peer has told.
func (r *Realm) learn(from peer.ID, g greeting, told bool) {
	g.Entries = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.starts[from]; g.Realm == r.st.ID && g.Incarnation > s.incarnation && len(r.starts) < maxStarts {
		r.starts[from] = start{g.Incarnation, g.Start}
	}
	before, again := r.met[from]
	if again && before.Realm == g.Realm && before.Start == g.Start {
		told, g.Known = told || before.told, max(g.Known, before.Known)
	}
	if g.Name == r.st.Name && g.Realm != r.st.ID && g.Members == 1 && (!again || before.Realm != g.Realm) {
		r.newcomer = time.Now()
	}
	r.met[from] = &acquaintance{g, time.Now(), told}
	if !again || told && !before.told || before.Realm != g.Realm || before.Busy != g.Busy || before.Joining != g.Joining || before.Old != g.Old || before.Members != g.Members || before.Replica != g.Replica {
		r.wake()
	}
}

// greetAll greets the peers that it is time to greet: those not met yet at once, replicas of the own realm and those
// whose realm this one might join often, and everybody if this node leads.
func (r *Realm) greetAll() {
	peers := r.cfg.Network.Peers()
	servers := r.servers()
	leads := r.isLeader()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	present := make(map[peer.ID]struct{}, len(peers))
	for _, p := range peers {
		present[p.ID] = struct{}{}
		a := r.met[p.ID]
		every := 30 * r.cfg.Tick
		switch {
		case r.waiting, a != nil && a.Name == r.st.Name && a.Realm != r.st.ID:
			every = r.cfg.Tick
		case leads, slices.ContainsFunc(servers, func(s server) bool { return s.ID == p.ID }):
			every = 5 * r.cfg.Tick
		}
		last := r.greeted[p.ID]
		if r.underWay[p.ID] || a != nil && now.Sub(last) < every || a == nil && now.Sub(last) < r.cfg.Tick {
			continue
		}
		r.greeted[p.ID], r.underWay[p.ID] = now, true
		r.wg.Go(func() {
			_, err := r.call(r.ctx, p.ID, r.greeting(p.ID), greetTimeout)
			if err != nil && grid.CodeOf(err) != grid.Unsupported {
				r.log.Debug("not greeted", "peer", p.ID, "err", err)
			}
			r.mu.Lock()
			delete(r.underWay, p.ID)
			r.mu.Unlock()
		})
	}
	for id := range r.met {
		if _, ok := present[id]; !ok {
			delete(r.met, id)
		}
	}
	for id := range r.greeted {
		if _, ok := present[id]; !ok {
			delete(r.greeted, id)
		}
	}
}
