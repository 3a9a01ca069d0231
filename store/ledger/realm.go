package ledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/member"
)

// RealmConfig says how a node takes part in a realm. Network and Dir must be given.
type RealmConfig struct {
	Network grid.Network
	Dir     string // a folder of its own; made when missing
	Name    string // of the realm; "": what it was before, or [DefaultRealm]
	Zone    string // what nodes that may fail together have in common
	// Local is what commands without a node have kept: its entries move to the realm. nil: there is none.
	Local grid.Ledger
	// Audit makes the entry of an act, which is written together with it. nil: there are none.
	Audit  func(grid.AuditFact) (grid.Entry, error)
	Timing Timing        // of elections
	Plan   member.Config // rules for voters
	// Tick is how often the node looks at its realm. Default 1 s.
	Tick time.Duration
	// Settle is how long the node gets to know others before it joins one of them; if that is alone, too, for how long nobody else has turned up. Default 1 s.
	Settle time.Duration
	// Keeps tells who may keep copies of the ledger, and so vote, take others into the realm, and pass on what they write; nil: everybody.
	Keeps func(peer.ID) bool
	// Prefers tells whose realm others are to join, of two nodes that are alone; nil: nobody's rather than another's.
	Prefers func(peer.ID) bool
	// May refuses a transaction that a node may not make; nil: everybody may everything. The leader asks, about the node that a
	// transaction is from, whoever has passed it on; and so does whoever takes a node into the realm about what that brings along.
	// held reads the ledger as it is there. An error with another code than Denied says to ask again later.
	May    func(from peer.ID, t *grid.Txn, held grid.Held) error
	Logger *slog.Logger // nil: nobody hears

	disk func(dir string) (Disk, error) // of tests
}

// Realm is a node's part in its realm: the ledger, and the nodes that share it. Whoever opens one has a ledger that
// works at once: a realm of one, which by itself joins others of the same name as they are met.
type Realm struct {
	*Ledger
	cfg RealmConfig
	log *slog.Logger

	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	again chan struct{} // something has happened

	gate  *semaphore.Weighted // writers have one of it, who is about to join another realm has all
	began time.Time
	drawn uint64 // at this start

	// Of the loop alone.
	planner *member.Planner
	revived time.Time // when a stopped replica was last tried
	held    bool      // the gate

	shift sync.Mutex // held while the node becomes something else; taken before mu

	mu         sync.Mutex
	st         state
	met        map[peer.ID]*acquaintance
	starts     map[peer.ID]start
	newcomer   time.Time // when a node was met that is alone
	greeted    map[peer.ID]time.Time
	underWay   map[peer.ID]bool
	members    map[peer.ID]record    // as last read, or heard of
	shunned    map[peer.ID]time.Time // nodes that could not be made learners, until when
	served     time.Time             // when it was told to keep a copy
	registered bool                  // the realm knows this incarnation
	waiting    bool                  // a replica that has not started, as its disk may be old
	old        bool                  // it is
	frozen     bool                  // about to join another realm
	since      time.Time             // when it was made so, or no more
	leaving    bool                  // for good: nobody is to join the realm of one that it begins
	ending     bool                  // it is being closed: it inherits nothing any more
	pledged    time.Time             // when it last agreed to inherit the only vote
	moved      bool                  // what commands without a node have kept is in the realm
	avoid      map[string]time.Time
	notes      map[noteKind]string
}

var _ grid.Ledger = (*Realm)(nil)

// clientTicks is how often a client, which has to ask others, asks for what it was not told.
const clientTicks = 10

// gateSize is more than there are writers.
const gateSize = 1 << 30

type noteKind int

const (
	noteDisk noteKind = iota // in the order of their weight
	noteJoin
	noteApart
	noteKinds
)

// OpenRealm opens a node's part in its realm, and founds a realm of one if there is none. ctx bounds only the opening,
// which does not wait for other nodes.
func OpenRealm(ctx context.Context, cfg RealmConfig) (_ *Realm, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Tick = cmp.Or(cfg.Tick, time.Second)
	cfg.Settle = cmp.Or(cfg.Settle, time.Second)
	if cfg.Name != "" {
		if err := CheckRealmName(cfg.Name); err != nil {
			return nil, err
		}
	}
	r := &Realm{
		cfg: cfg, log: cfg.Logger, again: make(chan struct{}, 1), gate: semaphore.NewWeighted(gateSize), began: time.Now(), drawn: mathrand.Uint64(), starts: map[peer.ID]start{},
		shunned: map[peer.ID]time.Time{}, met: map[peer.ID]*acquaintance{}, greeted: map[peer.ID]time.Time{}, underWay: map[peer.ID]bool{},
		members: map[peer.ID]record{}, avoid: map[string]time.Time{}, notes: map[noteKind]string{}, moved: cfg.Local == nil,
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, grid.Errorf(grid.Internal, "ledger: %w", err)
	}
	if err := r.readOrFound(); err != nil {
		return nil, err
	}
	r.Ledger, err = Open(ctx, Config{Network: cfg.Network, Dir: filepath.Join(cfg.Dir, raftDir), Timing: cfg.Timing, OpenDisk: cfg.disk, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	r.hooks = hooks{incarnation: r.incarnation, voteFrom: r.voteFrom, admit: r.admit, serve: r.mayUse, write: cfg.May, forward: cfg.Keeps}
	if err := r.start(ctx); err != nil {
		r.stop()
		r.Ledger.Close()
		return nil, err
	}
	cfg.Network.Serve(realmProtocol, r.serveRealm)
	unsubscribe := cfg.Network.Subscribe(func(grid.PeerEvent) { r.wake() })
	r.wg.Go(func() {
		defer unsubscribe()
		r.run()
	})
	r.wg.Go(r.heedMembers)
	return r, nil
}

// readOrFound reads what the node remembers, or makes it up, and counts this start.
func (r *Realm) readOrFound() error {
	self := r.cfg.Network.Self()
	st, found, err := readState(r.cfg.Dir, self)
	if err != nil {
		return err
	}
	if !found {
		st = state{Node: self.String(), Name: cmp.Or(r.cfg.Name, DefaultRealm)}
		st.reset(self)
	}
	if name := cmp.Or(r.cfg.Name, st.Name); name != st.Name {
		if len(st.Known) > 1 || !st.Replica {
			return grid.Errorf(grid.Conflict, "ledger: this node belongs to the realm %q with others", st.Name).
				Hint("start it with --realm %s, or use another home for the realm %q", st.Name, name)
		}
		st.Name, st.Joining = name, ""
	}
	st.Incarnation++
	r.st = st
	return st.write(r.cfg.Dir)
}

// reset makes it the state of a new realm of one.
func (st *state) reset(self peer.ID) {
	st.ID, st.Replica, st.Fresh, st.Held, st.VoteFrom, st.Joining = rand.Text(), true, true, false, 0, ""
	st.Known = []knownServer{{ID: self, Voter: true}}
}

// begin is for a copy that begins anew, in a realm whose log is committed up to an index.
func (st *state) begin(servers []server, committed uint64) {
	st.Replica, st.Fresh, st.Held, st.Known, st.VoteFrom = true, true, false, known(servers), max(st.VoteFrom, committed)
}

// voteFrom is told at hooks.
func (r *Realm) voteFrom() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.VoteFrom
}

// start begins as what the node was.
func (r *Realm) start(ctx context.Context) error {
	st := r.st
	holds, err := r.holds()
	if err != nil {
		return err
	}
	if holds && (st.Fresh || !st.Replica) {
		if err := r.wipe(); err != nil {
			return err
		}
		holds = false
	}
	_, listed := find(st.Known, r.cfg.Network.Self())
	alone := listed && len(st.Known) == 1
	switch {
	case !st.Replica:
		if err := r.update(func(st *state) { st.Fresh = false }); err != nil {
			return err
		}
		return r.follow(ctx, r.identity(), ids(st.Known))
	case alone && st.Fresh:
		if err := r.found(ctx, r.identity()); err != nil {
			return err
		}
		r.log.Info("founded a realm of one", "realm", st.ID, "name", st.Name)
		return r.update(func(st *state) { st.Fresh, st.Held = false, true })
	case st.Held && !holds && alone:
		return grid.Errorf(grid.Corrupt, "ledger: the realm's only copy is missing from %s", r.cfg.Dir).
			Hint("put it back. To begin anew with an empty ledger, move %s away", r.cfg.Dir)
	case !alone:
		r.waiting, r.old = true, st.Held && !holds // the others will tell
		return r.follow(ctx, r.identity(), r.others(st.Known))
	}
	if st.Joining != "" {
		r.held = r.gate.TryAcquire(gateSize)
		r.setFrozen(true)
	}
	return r.beReplica(ctx)
}

// beReplica makes the node a replica, of what its folder holds if that is of use.
func (r *Realm) beReplica(ctx context.Context) error {
	r.mu.Lock()
	fresh := r.st.Fresh
	r.mu.Unlock()
	if fresh {
		if err := r.wipe(); err != nil {
			return err
		}
	}
	if err := r.replicate(ctx, r.identity()); err != nil {
		return err
	}
	return r.update(func(st *state) { st.Fresh, st.Held = false, true })
}

// beClient makes the node a client of its realm, and deletes the copy that it has.
func (r *Realm) beClient(ctx context.Context) error {
	r.mu.Lock()
	known := r.others(r.st.Known)
	r.mu.Unlock()
	if err := r.follow(ctx, r.identity(), known); err != nil {
		return err
	}
	if err := r.wipe(); err != nil {
		return err
	}
	return r.update(func(st *state) { st.Fresh = false })
}

// await looks now and then until something is so.
func (r *Realm) await(ctx context.Context, so func() bool) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !so() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (r *Realm) wake() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// run looks at the realm now and then, and whenever something has happened.
func (r *Realm) run() {
	ticker := time.NewTicker(r.cfg.Tick)
	defer ticker.Stop()
	for r.ctx.Err() == nil {
		changed := r.changed()
		r.turn()
		select {
		case <-ticker.C:
		case <-r.again:
		case <-changed:
		case <-r.ctx.Done():
		}
	}
}

// turn is one look at the realm.
func (r *Realm) turn() {
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	r.greetAll()
	if r.isWaiting() {
		r.checkDisk(ctx)
		return
	}
	if _, known := r.leader(); known {
		if r.keepsCopy() { // others are told
			if _, err := r.readMembers(ctx, true); err != nil {
				r.log.Debug("members not read", "err", err)
			}
		}
		r.register(ctx)
	}
	r.remember()
	r.revive(ctx)
	r.lead(ctx)
	r.checkRemoved(ctx)
	r.considerJoining(r.ctx)
	r.mu.Lock()
	due := !r.moved && !r.frozen && r.registered
	r.noteApart()
	r.mu.Unlock()
	if due {
		if err := r.carryLocal(ctx); err != nil {
			r.log.Debug("entries of commands without a node are not moved yet", "err", err)
			return
		}
		r.mu.Lock()
		r.moved = true
		r.mu.Unlock()
	}
}

// reviveEvery is how often a replica that has stopped because its disk was full tries to go on.
const reviveEvery = 15 // ticks

// revive starts the replica again if it has stopped for a full disk, as a start of the node would.
func (r *Realm) revive(ctx context.Context) {
	if !r.keepsCopy() || !r.full() || time.Since(r.revived) < reviveEvery*r.cfg.Tick {
		return
	}
	r.revived = time.Now()
	r.shift.Lock()
	defer r.shift.Unlock()
	if err := r.beReplica(ctx); err != nil {
		r.log.Warn("the replica, whose disk was full, does not go on yet", "err", err)
		return
	}
	r.log.Info("the replica goes on, as its disk has room again")
}

// What others see of the state. Each takes the lock.

func (r *Realm) identity() identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return identity{Name: r.st.Name, ID: r.st.ID}
}

func (r *Realm) realmID() string   { return r.identity().ID }
func (r *Realm) realmName() string { return r.identity().Name }

func (r *Realm) incarnation() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.Incarnation
}

func (r *Realm) joining() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.Joining
}

func (r *Realm) isWaiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

func (r *Realm) keepsCopy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.Replica
}

func (r *Realm) setFrozen(f bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen, r.since = f, time.Now()
}

// record is what the realm should know of this node. The lock is held.
func (r *Realm) record() record {
	return record{Joined: time.Now().UTC().Truncate(time.Millisecond), Incarnation: r.st.Incarnation, Start: r.drawn, Zone: r.cfg.Zone}
}

// update changes the state, durably before anybody sees it.
func (r *Realm) update(f func(*state)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.st
	f(&st)
	if err := st.write(r.cfg.Dir); err != nil {
		return err
	}
	r.st = st
	return nil
}

// note remembers what stands in the way; "" is nothing. The lock is held.
func (r *Realm) note(k noteKind, text string) {
	if text == "" {
		delete(r.notes, k)
		return
	}
	r.notes[k] = text
}

// noteApart tells of realms that do not join by themselves. The lock is held.
func (r *Realm) noteApart() {
	mine := party{Name: r.st.Name, ID: r.st.ID, Members: r.size()}
	var list []string
	for _, a := range r.met {
		if between(mine, party{Name: a.Name, ID: a.Realm, Members: a.Members}) == apart && !slices.Contains(list, a.Realm) {
			list = append(list, a.Realm)
		}
	}
	slices.Sort(list)
	text := ""
	if len(list) > 0 {
		text = "there is another realm of this name in the swarm, " + strings.Join(list, ", ") + ", and realms of several nodes do not join by themselves. " +
			"To bring its nodes here, remove them there one by one with `grid ledger remove NODE`: each then joins this one. To keep them apart, give one another name with `grid up --realm`"
	}
	if text != r.notes[noteApart] {
		if text != "" {
			r.log.Warn(text)
		}
		r.note(noteApart, text)
	}
}

func ids(list []knownServer) (all []peer.ID) {
	for _, s := range list {
		all = append(all, s.ID)
	}
	return all
}

// others are the replicas without this node.
func (r *Realm) others(list []knownServer) []peer.ID {
	return slices.DeleteFunc(ids(list), func(id peer.ID) bool { return id == r.cfg.Network.Self() })
}

func known(list []server) (all []knownServer) {
	for _, s := range list[:min(len(list), maxKnown)] {
		all = append(all, knownServer{ID: s.ID, Voter: s.Voter})
	}
	slices.SortFunc(all, func(a, b knownServer) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// remember keeps the replicas that the node knows of for the time after a restart.
func (r *Realm) remember() {
	now := known(r.servers())
	r.mu.Lock()
	for i := range now {
		before, _ := find(r.st.Known, now[i].ID)
		now[i].Incarnation = max(before.Incarnation, r.members[now[i].ID].Incarnation)
	}
	keep := len(now) == 0 || slices.Equal(now, r.st.Known)
	r.mu.Unlock()
	if keep {
		return
	}
	if err := r.update(func(st *state) { st.Known = now }); err != nil {
		r.log.Error("replicas not remembered", "err", err)
	}
}

func memberKey(id peer.ID) string { return grid.MemberKeys + id.String() }

func decodeRecord(e grid.Entry, rec *record) error {
	if err := grid.UnmarshalMessage(e.Value, rec); err != nil {
		return grid.Errorf(grid.Corrupt, "ledger: %s: %w", e.Key, err)
	}
	return nil
}

// heedMembers has a client know who is in the realm: it reads that once, and is told of changes from then on. To read it again and again
// would be as much for each member as there are others.
func (r *Realm) heedMembers() {
	for r.ctx.Err() == nil {
		pause := r.cfg.Tick
		if _, known := r.leader(); known && !r.keepsCopy() {
			id := r.realmID()
			revision, err := r.readMembers(r.ctx, true)
			if err == nil {
				r.wake()
				err = r.Watch(r.ctx, grid.MemberKeys, revision, func(c grid.Changes) error { return r.membersChanged(id, c) })
			}
			if r.ctx.Err() == nil {
				r.log.Debug("members not followed", "err", err)
			}
			if grid.CodeOf(err) == grid.Limit {
				pause *= clientTicks
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-r.ctx.Done():
			t.Stop()
		}
	}
}

// membersChanged takes in what has become of some members of a realm. Its error ends the watch that a node needs no more.
func (r *Realm) membersChanged(realm string, c grid.Changes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.ID != realm || r.st.Replica {
		return grid.Errorf(grid.OutOfDate, "ledger: this node is no client of the realm %s any more", realm)
	}
	for _, e := range c.Put {
		id, rec, err := memberIn(e)
		if err != nil {
			return err
		}
		r.members[id] = rec
	}
	for _, key := range c.Delete {
		if id, err := peer.Decode(strings.TrimPrefix(key, grid.MemberKeys)); err == nil {
			delete(r.members, id)
		}
	}
	r.wake()
	return nil
}

// memberIn is the member that an entry tells of.
func memberIn(e grid.Entry) (id peer.ID, rec record, err error) {
	if id, err = peer.Decode(strings.TrimPrefix(e.Key, grid.MemberKeys)); err != nil {
		return id, rec, grid.Errorf(grid.Corrupt, "ledger: %q is no member: %w", e.Key, err)
	}
	return id, rec, decodeRecord(e, &rec)
}

// readMembers reads who is in the realm, as of a revision.
func (r *Realm) readMembers(ctx context.Context, stale bool) (revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	id := r.realmID()
	all := map[peer.ID]record{}
	revision, err = grid.RangeAll(ctx, r.Ledger, grid.MemberKeys, stale, func(e grid.Entry) error {
		p, rec, err := memberIn(e)
		all[p] = rec
		return err
	})
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.ID == id {
		r.members = all
	}
	return revision, nil
}

// register tells the realm of this incarnation.
func (r *Realm) register(ctx context.Context) {
	r.mu.Lock()
	done, id, rec, recovered := r.registered || r.frozen, r.st.ID, r.record(), r.st.Recovered
	r.mu.Unlock()
	if done {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	self := r.cfg.Network.Self()
	var old record
	_, err := grid.Update(ctx, gated{r, id}, func(tx *grid.Tx) error {
		old = record{}
		e, ok, err := tx.Get(memberKey(self))
		if err == nil && ok {
			err = decodeRecord(e, &old)
		}
		if err != nil || old.Removed || old.Incarnation > rec.Incarnation {
			return err
		}
		if recovered {
			if err := errors.Join(removeOthers(tx, self), r.audit(tx, grid.ActRecover, self)); err != nil {
				return err
			}
		}
		return r.putMember(tx, self, rec)
	})
	if err == nil && recovered {
		err = r.update(func(st *state) { st.Recovered = false })
	}
	switch {
	case err != nil:
		r.log.Debug("not registered yet", "err", err)
	case old.Removed:
		r.removed(ctx, id)
	case old.Incarnation > rec.Incarnation:
		r.tooOld(ctx, old.Incarnation)
	default:
		r.mu.Lock()
		if r.st.ID == id {
			r.registered = true
		}
		r.mu.Unlock()
	}
}

// removeOthers takes all members but one off the list.
func removeOthers(tx *grid.Tx, but peer.ID) error {
	all, err := tx.Range(grid.MemberKeys)
	if err != nil {
		return err
	}
	for _, e := range all {
		var rec record
		if err := decodeRecord(e, &rec); err != nil {
			return err
		}
		if e.Key == memberKey(but) || rec.Removed {
			continue
		}
		rec.Removed = true
		data, err := grid.Marshal(rec)
		if err != nil {
			return err
		}
		tx.Put(e.Key, data)
	}
	return nil
}

// tooOld is what to do when the realm knows of a later start of this node than this one. A voter stops voting; for others it does no
// harm.
func (r *Realm) tooOld(ctx context.Context, known uint64) {
	r.shift.Lock()
	defer r.shift.Unlock()
	servers := r.servers()
	r.mu.Lock()
	replicas := r.others(r.st.Known)
	r.mu.Unlock()
	if slices.Contains(servers, server{r.cfg.Network.Self(), true}) && len(replicas) > 0 {
		r.log.Error("this node's copy of the ledger is an old one: it stops voting", "incarnation", r.incarnation(), "realm knows", known)
		if err := r.follow(ctx, r.identity(), replicas); err != nil {
			r.log.Error("ledger", "err", err)
			return
		}
		r.mu.Lock()
		r.waiting, r.old = true, true
		r.mu.Unlock()
		return
	}
	if err := r.update(func(st *state) { st.Incarnation = known + 1 }); err != nil {
		r.log.Error("ledger", "err", err)
	}
}

// checkRemoved finds out whether this node has been removed from the realm, or keeps a copy no more.
func (r *Realm) checkRemoved(ctx context.Context) {
	self := r.cfg.Network.Self()
	r.mu.Lock()
	id := r.st.ID
	why := r.members[self].Removed
	var leader peer.ID
	gone := false
	for p, a := range r.met {
		if !r.keeps(p) {
			continue // who may not keep the ledger may make it up
		}
		gone = gone || a.Gone && a.Realm != id && slices.ContainsFunc(r.st.Known, func(s knownServer) bool { return s.ID == p })
		if a.Realm != id || len(a.Servers) == 0 {
			continue
		}
		out := r.st.Replica && time.Since(r.served) > clientTicks*r.cfg.Tick && !slices.ContainsFunc(a.Servers, func(s server) bool { return s.ID == self })
		if a.Removed || out {
			why, leader = true, p // an ear-witness, to be heard again
		}
	}
	replica := r.st.Replica
	r.mu.Unlock()
	switch {
	case r.isLeader():
		return
	case gone:
		r.removed(ctx, id)
		return
	case !why:
		return
	}
	if l, ok := r.leader(); ok && l != self {
		leader = l
	}
	if leader == "" {
		return
	}
	reply, err := r.confirm(ctx, leader)
	kept := slices.ContainsFunc(reply.Servers, func(s server) bool { return s.ID == self })
	switch {
	case err != nil || reply.Realm != id:
	case reply.Removed && replica && kept:
		// Its vote still counts, and may be needed to do without it: it stays until the leader has taken it off.
	case reply.Removed:
		r.removed(ctx, id)
	case replica && reply.Leads && !kept:
		r.shift.Lock()
		defer r.shift.Unlock()
		r.log.Info("this node keeps no copy of the ledger any more", "realm", id)
		if err := r.update(func(st *state) { st.Replica, st.Fresh, st.Held, st.Known = false, true, false, known(reply.Servers) }); err != nil {
			r.log.Error("ledger", "err", err)
			return
		}
		if err := r.beClient(ctx); err != nil {
			r.log.Error("ledger", "err", err)
		}
	}
}

func (r *Realm) confirm(ctx context.Context, leader peer.ID) (greeting, error) {
	g := r.greeting(leader)
	g.Do = doConfirm
	return r.call(ctx, leader, g, greetTimeout)
}

// removed begins anew, with a realm of one: this node was removed from the realm that it was in.
func (r *Realm) removed(ctx context.Context, from string) {
	r.shift.Lock()
	defer r.shift.Unlock()
	r.log.Warn("this node was removed from its realm, and begins a new one", "realm", from,
		"hint", "it joins the old one again after a minute, if it meets no other: end it if it is to stay away")
	r.mu.Lock()
	r.avoid[from] = time.Now().Add(avoidRemoved)
	others := r.others(r.st.Known)
	r.mu.Unlock()
	self := r.cfg.Network.Self()
	err := r.follow(ctx, r.identity(), others)
	if err == nil {
		err = r.update(func(st *state) { st.reset(self); st.Incarnation++ }) // what it was stays removed
	}
	if err == nil {
		err = r.wipe()
	}
	if err == nil {
		err = r.found(ctx, r.identity())
	}
	if err == nil {
		err = r.update(func(st *state) { st.Fresh, st.Held = false, true })
	}
	if err != nil {
		r.log.Error("ledger: no new realm", "err", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members, r.registered, r.waiting, r.old = map[peer.ID]record{}, false, false, false
	clear(r.met) // what they said was about the old realm
	r.note(noteDisk, "")
}

// becomeReplica is asked for by a leader that is about to make this node a learner.
// committed is how much of the log that leader knows to be everybody's.
func (r *Realm) becomeReplica(from peer.ID, realm string, servers []server, committed uint64) error {
	r.shift.Lock()
	defer r.shift.Unlock()
	r.mu.Lock()
	switch {
	case r.st.ID != realm:
		r.mu.Unlock()
		return grid.Errorf(grid.Conflict, "ledger: this node is of the realm %s", r.st.ID)
	case len(servers) == 0:
		r.mu.Unlock()
		return grid.Errorf(grid.Invalid, "ledger: a leader that names no replica")
	case r.frozen || r.waiting:
		r.mu.Unlock()
		return grid.Errorf(grid.Busy, "ledger: this node is not ready")
	case r.st.Replica:
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	if err := r.update(func(st *state) { st.begin(servers, committed) }); err != nil {
		return err
	}
	r.mu.Lock()
	r.served = time.Now()
	r.mu.Unlock()
	r.log.Info("this node is to keep a copy of the ledger", "realm", realm, "leader", from)
	return r.beReplica(r.ctx)
}

// admit is asked by replicas: one that runs on an old copy of its disk must not take part.
func (r *Realm) admit(from peer.ID, h hello) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.members[from]
	switch {
	case ok && m.Removed && h.Incarnation <= m.Incarnation:
		return grid.Errorf(grid.Denied, "ledger: node %s was removed from the realm", from)
	case ok && h.Incarnation < m.Incarnation:
		return grid.Errorf(grid.Denied, "ledger: node %s runs on an old copy of its disk: it is incarnation %d, and the realm knows %d", from, h.Incarnation, m.Incarnation).
			Hint("start it again; it is then brought up to date before it votes")
	}
	return nil
}

// mayUse is asked when a node wants to use the ledger through this one.
func (r *Realm) mayUse(from peer.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen {
		return grid.Errorf(grid.Busy, "ledger: this node is about to join another realm")
	}
	return nil
}

// Commit waits while the node joins another realm.
func (r *Realm) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if err := r.enter(ctx); err != nil {
		return 0, err
	}
	defer r.gate.Release(1)
	return r.Ledger.Commit(ctx, t)
}

// OpenSession waits while the node joins another realm. Sessions end when it has.
func (r *Realm) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer r.gate.Release(1)
	return r.Ledger.OpenSession(ctx, ttl)
}

func (r *Realm) enter(ctx context.Context) error {
	if r.gate.Acquire(ctx, 1) != nil {
		return grid.Errorf(grid.Unavailable, "ledger: this node is joining another realm: %w", context.Cause(ctx)).Hint("`grid ledger status` tells what it waits for; try again")
	}
	return nil
}

// Remove removes a node from the realm: it loses its copy, if it has one, and what it says of itself is not believed any more. It
// is for nodes that do not come back. One that is up begins a realm of its own.
func (r *Realm) Remove(ctx context.Context, id peer.ID) error {
	_, err := grid.Update(ctx, r, func(tx *grid.Tx) error {
		all, err := tx.Range(grid.MemberKeys)
		if err != nil {
			return err
		}
		var found *record
		others := 0
		for _, e := range all {
			var rec record
			if err := decodeRecord(e, &rec); err != nil {
				return err
			}
			switch {
			case rec.Removed:
			case e.Key == memberKey(id):
				found = &rec
			default:
				others++
			}
		}
		switch {
		case found == nil:
			return grid.Errorf(grid.NotFound, "ledger: node %s is not in the realm %q", id, r.realmName())
		case others == 0:
			return grid.Errorf(grid.Conflict, "ledger: node %s is the only one of its realm", id)
		}
		found.Removed = true
		data, err := grid.Marshal(found)
		if err != nil {
			return err
		}
		tx.Put(memberKey(id), data)
		return r.audit(tx, grid.ActRemoveMember, id)
	})
	r.wake()
	return noMajority(err)
}

// Status describes the realm as this node sees it.
func (r *Realm) Status(ctx context.Context) (grid.LedgerStatus, error) {
	st, err := r.Ledger.Status(ctx)
	if err != nil {
		return st, err
	}
	servers, prog, self := r.servers(), r.progress(), r.cfg.Network.Self()
	connected := map[peer.ID]bool{self: true}
	for _, p := range r.cfg.Network.Peers() {
		connected[p.ID] = true
	}
	leader, led := r.leader()
	r.mu.Lock()
	defer r.mu.Unlock()
	st.Realm, st.RealmID = r.st.Name, r.st.ID
	all := map[peer.ID]grid.LedgerMember{self: {}}
	for id, m := range r.members {
		if !m.Removed {
			all[id] = grid.LedgerMember{}
		}
	}
	roles := map[peer.ID]grid.Role{}
	for _, s := range servers {
		roles[s.ID] = grid.Learner
		if s.Voter {
			roles[s.ID] = grid.Voter
		}
		all[s.ID] = grid.LedgerMember{}
	}
	if led {
		roles[leader] = grid.Leader
	}
	last := r.lastIndex()
	st.Members = st.Members[:0:0]
	for _, id := range slices.Sorted(maps.Keys(all)) {
		m := grid.LedgerMember{ID: id, Role: cmp.Or(roles[id], grid.Client), Up: connected[id]}
		if p, ok := prog[id]; ok {
			m.Applied, m.Heard = p.Applied, p.Heard
			m.Lag = last - min(p.Applied, last)
		} else if a := r.met[id]; a != nil {
			m.Heard = time.Since(a.heard)
		}
		st.Members = append(st.Members, m)
	}
	for k := range noteKinds {
		if n := r.notes[k]; n != "" {
			st.Note = n
			break
		}
	}
	return st, nil
}

// Replicas lists the nodes that keep copies of the realm's ledger, as far as this node knows.
func (r *Realm) Replicas() []peer.ID {
	var ids []peer.ID
	for _, s := range r.servers() {
		ids = append(ids, s.ID)
	}
	return ids
}
