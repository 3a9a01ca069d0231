package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// How two realms of one name get along. A realm of one joins a realm of several; of two realms of one, the one whose node has the lower
// rank joins the other, or if they have the same, the one with the greater ID, so that there are no circles; one whose node may not keep the
// ledger is not joined. Realms of several stay apart.
type way string

const (
	same   way = "same"   // it is one realm
	joins  way = "joins"  // this one joins the other
	joined way = "joined" // the other joins this one
	apart  way = "apart"  // they stay apart, and somebody should know
	alien  way = "alien"  // they have nothing to do with each other
)

// party is a realm as its greeting tells of it.
type party struct {
	Name, ID string
	Members  int
	Rank     rank // of its node
}

// rank is how much a node may do for a ledger.
type rank uint8

const (
	barred    rank = iota // may not keep it
	able                  // may keep it
	preferred             // is to be joined rather than to join
)

func between(mine, theirs party) way {
	switch {
	case mine.Name != theirs.Name:
		return alien
	case mine.ID == theirs.ID:
		return same
	case mine.Members > 1 && theirs.Members > 1:
		return apart
	case mine.Members == 1 && theirs.Members == 1 && mine.Rank == barred && theirs.Rank == barred:
		return alien
	case mine.Members == 1 && theirs.Members == 1 && mine.Rank != theirs.Rank:
		if mine.Rank < theirs.Rank {
			return joins
		}
		return joined
	case mine.Members > 1, theirs.Members == 1 && mine.ID < theirs.ID:
		return joined
	}
	return joins
}

// keeps reports whether a node may keep a copy of the ledger.
func (r *Realm) keeps(id peer.ID) bool { return r.cfg.Keeps == nil || r.cfg.Keeps(id) }

func (r *Realm) rank(id peer.ID) rank {
	switch {
	case !r.keeps(id):
		return barred
	case r.cfg.Prefers != nil && r.cfg.Prefers(id):
		return preferred
	}
	return able
}

// barredTime is how long, from its start, a node waits for a realm of which only those tell who may not keep the ledger. They may
// have made it up.
const barredTime = time.Minute

// target is the realm that this node is going to join, if there is one among those of its peers: the one with the
// least ID, of several members if possible, and told of by who may keep its ledger. One that has begun to join this one is not joined:
// each would wait for the other. The lock is held.
func (r *Realm) target(now time.Time) (id string, via []peer.ID, ok bool) {
	mine := party{r.st.Name, r.st.ID, r.size(), able}
	if r.cfg.Keeps != nil || r.cfg.Prefers != nil {
		mine.Rank = r.rank(r.cfg.Network.Self())
	}
	type offer struct {
		party
		via []peer.ID
	}
	offers := make(map[string]*offer)
	for p, a := range r.met {
		theirs := party{a.Name, a.Realm, a.Members, r.rank(p)}
		if between(mine, theirs) != joins || a.Joining == mine.ID || now.Before(r.avoid[a.Realm]) || theirs.Rank == barred && now.Sub(r.began) >= barredTime {
			continue
		}
		o := offers[theirs.ID]
		switch {
		case o == nil, o.Rank == barred && theirs.Rank > barred:
			o = &offer{party: theirs}
			offers[theirs.ID] = o
		case (o.Rank == barred) == (theirs.Rank == barred):
			o.Members = max(o.Members, theirs.Members)
		}
		if !a.Busy && theirs.Rank > barred {
			o.via = append(o.via, p)
		}
	}
	rank := func(o *offer) int {
		switch {
		case o.Members == 1:
			return 2
		case o.Rank == barred:
			return 1
		}
		return 0
	}
	var best *offer
	for _, o := range offers {
		if best == nil || cmp.Or(cmp.Compare(rank(o), rank(best)), cmp.Compare(o.ID, best.ID)) < 0 {
			best = o
		}
	}
	if best == nil {
		return "", nil, false
	}
	return best.ID, best.via, true
}

// many reports whether a realm is said to be of several nodes. The lock is held.
func (r *Realm) many(id string) bool {
	for _, a := range r.met {
		if a.Realm == id && a.Members > 1 {
			return true
		}
	}
	return false
}

// quietMost is how many times [RealmConfig.Settle] a node waits, at most, for others to stop turning up.
const quietMost = 30

// quiet reports whether nodes have ceased to turn up that are alone, as all are that start together: of those, the one that all others
// join is known when all have met. Before that some would join one and some another, and two realms of several stay apart. The lock is held.
func (r *Realm) quiet(now time.Time) bool {
	return now.Sub(r.newcomer) >= r.cfg.Settle || now.Sub(r.began) >= quietMost*r.cfg.Settle
}

// busy reports whether nobody can join this node's realm now. The lock is held.
func (r *Realm) busy(now time.Time) bool {
	_, _, wants := r.target(now)
	return wants || r.frozen || r.leaving || r.ending || r.st.Joining != "" || r.size() == 1 && !r.quiet(now)
}

// considerJoining joins another realm, if that is what this one should do.
func (r *Realm) considerJoining(ctx context.Context) {
	now := time.Now()
	r.mu.Lock()
	maps.DeleteFunc(r.avoid, func(_ string, until time.Time) bool { return now.After(until) })
	id, via, ok := r.target(now)
	if pending := r.st.Joining; pending != "" { // which may have us by now
		id, via, ok = pending, nil, true
		for p, a := range r.met {
			if a.Realm == pending && !a.Busy && r.keeps(p) {
				via = append(via, p)
			}
		}
		if len(via) == 0 {
			r.note(noteJoin, "it was joining the realm "+pending+" when that was lost, and goes on when it meets a node of it, for "+joinPatience.String())
		}
	}
	settled := now.Sub(r.began) >= r.cfg.Settle && (r.quiet(now) || r.many(id))
	if !ok && len(r.avoid) == 0 {
		r.note(noteJoin, "")
	}
	r.mu.Unlock()
	if r.impatient() || !ok || len(via) == 0 || !settled || !r.isLeader() {
		return
	}
	for _, p := range via {
		if r.impatient() {
			return
		}
		if err := r.join(ctx, id, p); err == nil || grid.CodeOf(err) == grid.Conflict {
			return
		} else if ctx.Err() == nil {
			r.log.Info("realm not joined yet", "realm", id, "via", p, "err", err)
		}
	}
}

// joinPatience is how long nobody can write to this node's ledger as a realm that it has begun to join does not say whether it has it: its
// nodes may be gone for good.
const joinPatience = 30 * time.Second

// impatient gives up the realm that the node has begun to join, if there is one, when that has lasted too long. The realm may have the
// node's entries, and count it among its members, who then is of another realm: as if they had never met. When they do again, it joins
// anew, and what was changed in both meanwhile is a conflict.
func (r *Realm) impatient() bool {
	r.mu.Lock()
	pending, waits := r.st.Joining, time.Since(r.since) < joinPatience
	r.mu.Unlock()
	if pending == "" || waits || !r.held {
		return false
	}
	if err := r.update(func(st *state) { st.Joining = "" }); err != nil {
		r.log.Error("ledger", "err", err)
		return false
	}
	r.log.Warn("the realm that this node was joining is lost: it goes on with its own", "realm", pending, "after", joinPatience)
	r.mu.Lock()
	r.avoid[pending] = time.Now().Add(avoidLost)
	r.note(noteJoin, "")
	r.mu.Unlock()
	r.thaw()
	return true
}

// thaw lets those go on who wait to write. Only the loop calls it.
func (r *Realm) thaw() {
	r.held = false
	r.setFrozen(false)
	r.gate.Release(gateSize)
}

// Pieces in which entries are carried over.
const (
	maxCarryEntries = 400
	maxCarryBytes   = 2 << 20
	avoidConflict   = 15 * time.Second // until a realm that could not be joined is tried again
	avoidLost       = 15 * time.Second // until one is that was lost meanwhile
	avoidRemoved    = time.Minute      // until a node that was removed from a realm joins it again
	freezeTimeout   = 10 * time.Second
)

// join makes this node a member of another realm, with all that its own realm of one holds.
//
//  1. The other realm says that it can be written to. Nobody writes to the own realm any more: who tries, waits.
//  2. That it is about to join is made durable. After a crash it goes on from here.
//  3. Its entries are put into the other realm, the last of them in one transaction with its membership.
//  4. That it is of the other realm is made durable.
//  5. Its ledger becomes a client of the other realm, its own copy is deleted, and those who wait go on.
func (r *Realm) join(ctx context.Context, id string, via peer.ID) (err error) {
	if !r.held {
		g := r.greeting(via)
		g.Do = doConfirm
		if _, err := r.ask(ctx, via, g); err != nil {
			return err
		}
		fctx, cancel := context.WithTimeout(ctx, freezeTimeout)
		err := r.gate.Acquire(fctx, gateSize)
		cancel()
		if err != nil {
			return grid.Errorf(grid.Busy, "somebody is writing to the ledger")
		}
		r.held = true
		r.setFrozen(true)
	}
	settled := false // whether it is known how it ended
	shifts := false
	defer func() {
		if settled || r.joining() == "" {
			r.thaw()
		}
		if shifts { // a leader that has waited for this, to have a copy made, finds the node ready
			r.shift.Unlock()
		}
	}()
	if _, err := r.readMembers(ctx, false); err != nil {
		return err
	}
	r.mu.Lock()
	alone, resumed := r.size() == 1, r.st.Joining == id
	rec := r.record()
	r.mu.Unlock()
	var reply greeting
	if resumed { // the other realm tells whether it has us already
		g := r.greeting(via)
		g.Do = doConfirm
		if reply, err = r.ask(ctx, via, g); err != nil {
			return err
		}
		if reply.Realm != id {
			return grid.Errorf(grid.Busy, "%s has joined another realm", via)
		}
		if resumed = reply.Member; !resumed {
			if err := r.update(func(st *state) { st.Joining = "" }); err != nil {
				return err
			}
		}
	}
	if !alone && !resumed {
		return grid.Errorf(grid.Busy, "somebody has joined this node's realm meanwhile")
	}
	if !resumed {
		var ambiguous bool
		if reply, ambiguous, err = r.carry(ctx, id, via, rec); ambiguous {
			return err // it may be a member by now: only the other realm can tell
		}
		if err != nil {
			settled = true
			return errors.Join(err, r.update(func(st *state) { st.Joining = "" }))
		}
	}
	replicas := known(reply.Servers)
	if len(replicas) == 0 { // it knows none, and may be asked itself
		replicas = []knownServer{{ID: via}}
	}
	r.shift.Lock()
	shifts = true
	old := r.realmID()
	if err := r.update(func(st *state) {
		st.ID, st.Replica, st.Fresh, st.Held, st.VoteFrom, st.Joining = id, false, true, false, 0, ""
		st.Known = replicas
		former := append(slices.Clone(st.Former), old)
		st.Former = former[max(0, len(former)-maxFormer):]
	}); err != nil {
		return err
	}
	settled = true
	r.mu.Lock()
	r.members, r.registered = map[peer.ID]record{}, false
	delete(r.notes, noteJoin)
	r.mu.Unlock()
	r.log.Info("joined a realm", "realm", id, "name", r.realmName(), "from", old, "via", via)
	err = r.beClient(ctx)
	r.renewNow() // sessions learn that they have ended
	return err
}

// carry puts the own realm's entries and then this node into another realm. When it fails, the answer may be lost of what
// was done.
func (r *Realm) carry(ctx context.Context, id string, via peer.ID, rec record) (reply greeting, ambiguous bool, err error) {
	pieces, err := r.pieces(ctx)
	if err != nil {
		return reply, false, err
	}
	ask := func(do string, entries []grid.Entry, last bool) error {
		g := r.greeting(via)
		g.Do, g.Realm, g.Entries = do, id, entries
		if last {
			g.Join = &rec
		}
		if reply, err = r.ask(ctx, via, g); err == nil && len(reply.Conflicts) > 0 {
			err = r.conflict(id, reply.Conflicts)
		}
		return err
	}
	if len(pieces) > 1 { // one alone is all or nothing anyhow
		for _, p := range pieces {
			if err := ask(doCheck, p, false); err != nil {
				return reply, false, err
			}
		}
	}
	if err := r.update(func(st *state) { st.Joining = id }); err != nil {
		return reply, false, err
	}
	for i, p := range pieces {
		last := i == len(pieces)-1
		if err := ask(doTake, p, last); err != nil {
			return reply, last && maybeDone(err), err
		}
	}
	return reply, false, nil
}

// maybeDone reports whether what failed with err may have been done nevertheless.
func maybeDone(err error) bool {
	switch grid.CodeOf(err) {
	case grid.Busy, grid.Invalid, grid.Denied, grid.Unsupported, grid.Conflict, grid.Limit, grid.NoSpace:
		return false
	}
	return true
}

func (r *Realm) ask(ctx context.Context, to peer.ID, g greeting) (greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	data, err := grid.Marshal(g)
	if err != nil {
		return greeting{}, err
	}
	if data, err = r.cfg.Network.Call(ctx, to, realmProtocol, data); err != nil {
		return greeting{}, err
	}
	return decodeGreeting(data)
}

// conflict notes what keeps this realm from joining another one.
func (r *Realm) conflict(id string, keys []string) error {
	for i, k := range keys {
		keys[i] = grid.KeyForPeople(k)
	}
	list := strings.Join(keys, ", ")
	err := grid.Errorf(grid.Conflict, "ledger: this node does not join the realm %s that it has met: %s is in both, with different values", id, list).
		Hint("delete, remove or rename it in one of the two, or keep them apart with `grid up --realm OTHER`")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.avoid[id] = time.Now().Add(avoidConflict)
	if text := err.Message + "; " + err.Advice; text != r.notes[noteJoin] {
		r.note(noteJoin, text)
		r.log.Warn("realm not joined", "realm", id, "conflicts", list, "hint", err.Advice)
	}
	return err
}

// lasting reports whether an entry outlives the ledger that it is in.
func lasting(e grid.Entry) bool {
	return e.Session == "" && !strings.HasPrefix(e.Key, grid.MemberKeys) && !strings.HasPrefix(e.Key, grid.NodeKeys)
}

// carried reports whether an entry is of use in another realm. Whom to trust, what may run, and who may use how much, a realm says
// itself: a node that joins is not to bring its own good name, rules for the others, tokens for their APIs, or what was used elsewhere.
func carried(e grid.Entry) bool {
	for _, own := range []string{grid.StandingKeys, grid.PluginPolicyKey, grid.UsageKeys, grid.QuotaKeys, grid.TokenKeys} {
		if strings.HasPrefix(e.Key, own) {
			return false
		}
	}
	return lasting(e)
}

// pieces reads what is to be carried over. There is at least one piece, and what is open comes last: who finds an open
// job finds the job, too.
func (r *Realm) pieces(ctx context.Context) ([][]grid.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	var list, open, stay []grid.Entry
	if _, err := grid.RangeAll(ctx, r.Ledger, "", false, func(e grid.Entry) error {
		err := r.mayBring(ctx, r.cfg.Network.Self(), e)
		switch {
		case !carried(e):
		case grid.CodeOf(err) == grid.Denied:
			stay = append(stay, e)
		case err != nil:
			return err
		case strings.HasPrefix(e.Key, grid.OpenKeys):
			open = append(open, e)
		default:
			list = append(list, e)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := r.leaveBehind(ctx, stay); err != nil {
		return nil, err
	}
	return pieces(append(list, open...)), nil
}

// mayBring refuses an entry that a node may not write into the realm.
func (r *Realm) mayBring(ctx context.Context, from peer.ID, e grid.Entry) error {
	if r.cfg.May == nil {
		return nil
	}
	return r.cfg.May(from, &grid.Txn{Put: []grid.Entry{e}}, func(prefix string, f func(grid.Entry) error) error {
		_, err := grid.RangeAll(ctx, r.Ledger, prefix, true, f)
		return err
	})
}

// leaveBehind keeps entries, which this node may not write into the realm that it is about to join, with what commands without a node
// keep.
func (r *Realm) leaveBehind(ctx context.Context, list []grid.Entry) error {
	if len(list) == 0 {
		return nil
	}
	if r.cfg.Local == nil {
		return grid.Errorf(grid.Denied, "ledger: this node may not write %q and %d more into the realm that it is to join", list[0].Key, len(list)-1).
			Hint("remove them, or have its role changed")
	}
	for _, piece := range pieces(list) {
		if _, err := r.cfg.Local.Commit(ctx, grid.Txn{ID: grid.NewRequestID(), Put: piece}); err != nil {
			return err
		}
	}
	r.log.Warn("entries stay behind, as this node may not write them into the realm that it joins", "entries", len(list), "first", list[0].Key,
		"hint", "commands still find them while the node is down; with another role they move to the realm: `grid member set-role`")
	return nil
}

func pieces(list []grid.Entry) (all [][]grid.Entry) {
	size := 0
	piece := []grid.Entry{}
	for _, e := range list {
		n := len(e.Key) + len(e.Value)
		if len(piece) == maxCarryEntries || len(piece) > 0 && size+n > maxCarryBytes {
			all = append(all, piece)
			piece, size = nil, 0
		}
		piece = append(piece, grid.Entry{Key: e.Key, Value: e.Value})
		size += n
	}
	return append(all, piece)
}

// take puts entries of a realm of one into this one, and makes its node a member if the request says so.
func (r *Realm) take(ctx context.Context, from peer.ID, q *greeting) (conflicts []string, err error) {
	r.mu.Lock()
	busy, id, name := r.busy(time.Now()), r.st.ID, r.st.Name
	r.mu.Unlock()
	switch {
	case q.Name != name:
		return nil, grid.Errorf(grid.Denied, "ledger: this is the realm %q", name)
	case !r.keeps(r.cfg.Network.Self()):
		return nil, grid.Errorf(grid.Busy, "ledger: this node may take nobody into its realm").Hint("join through a node that may keep a copy of the ledger")
	case q.Realm != id || busy:
		return nil, grid.Errorf(grid.Busy, "ledger: this node is about to join another realm")
	case len(q.Entries) > maxCarryEntries:
		return nil, grid.Errorf(grid.Limit, "ledger: %d entries at once, at most %d are allowed", len(q.Entries), maxCarryEntries)
	}
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	skipped := 0
	errEnough := errors.New("only looked")
	_, err = grid.Update(ctx, gated{r, id}, func(tx *grid.Tx) error {
		conflicts, skipped = nil, 0
		for _, e := range q.Entries {
			if !carried(e) {
				return grid.Errorf(grid.Invalid, "ledger: %q cannot be carried over", e.Key)
			}
			if err := r.mayBring(ctx, from, e); err != nil {
				return notTaken(err)
			}
			have, ok, err := tx.Get(e.Key)
			switch {
			case err != nil:
				return notTaken(err)
			case !ok:
				tx.Put(e.Key, e.Value)
			case bytes.Equal(have.Value, e.Value):
			case grid.Clash(e.Key, e.Value, have.Value):
				if len(conflicts) < maxConflicts {
					conflicts = append(conflicts, e.Key)
				}
			default:
				skipped++
			}
		}
		if q.Do == doCheck || len(conflicts) > 0 {
			return errEnough
		}
		if q.Join != nil {
			return r.putMember(tx, from, *q.Join)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return conflicts, nil
	}
	if err == nil && q.Join != nil {
		r.log.Info("a node has joined the realm", "peer", from, "zone", q.Join.Zone, "entries", len(q.Entries), "already here", skipped)
		r.mu.Lock()
		r.members[from] = *q.Join
		r.wake()
		r.mu.Unlock()
	}
	return nil, err
}

// notTaken says of what failed before anything was written that it has not been.
func notTaken(err error) error {
	if !maybeDone(err) {
		return err
	}
	return grid.Errorf(grid.Busy, "ledger: the realm cannot take anybody in now: %w", err)
}

// putMember writes a member's record, unless there is a newer one.
func (r *Realm) putMember(tx *grid.Tx, id peer.ID, rec record) error {
	e, ok, err := tx.Get(memberKey(id))
	if err != nil {
		return notTaken(err)
	}
	joins := true
	if ok {
		var old record
		if err := decodeRecord(e, &old); err != nil {
			return err
		}
		if old.Incarnation > rec.Incarnation {
			rec.Incarnation, rec.Start = old.Incarnation, old.Start
		}
		if joins = old.Removed; !joins {
			rec.Joined = old.Joined
		}
		if old == rec {
			return nil
		}
	}
	if joins {
		if err := r.audit(tx, grid.ActJoin, id); err != nil {
			return err
		}
	}
	data, err := grid.Marshal(rec)
	if err != nil {
		return err
	}
	tx.Put(memberKey(id), data)
	return nil
}

// gated is the ledger for as long as it is that of one realm, and nobody is about to leave it.
type gated struct {
	*Realm
	realm string
}

func (g gated) Get(ctx context.Context, key string) (grid.Entry, error) {
	return g.Ledger.Get(ctx, key)
}

func (g gated) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if !g.gate.TryAcquire(1) {
		return 0, grid.Errorf(grid.Busy, "ledger: this node is about to join another realm")
	}
	defer g.gate.Release(1)
	if g.realmID() != g.realm {
		return 0, grid.Errorf(grid.Busy, "ledger: this node has joined another realm")
	}
	return g.Ledger.Commit(ctx, t)
}

// carryLocal moves what commands without a node have kept into the realm.
func (r *Realm) carryLocal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	var list []grid.Entry
	barred := 0
	if _, err := grid.RangeAll(ctx, r.cfg.Local, "", true, func(e grid.Entry) error {
		if !lasting(e) {
			return nil
		}
		switch err := r.mayBring(ctx, r.cfg.Network.Self(), e); {
		case err == nil:
			list = append(list, e)
		case grid.CodeOf(err) == grid.Denied:
			barred++
		default:
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	if barred > 0 {
		r.log.Warn("entries that commands without a node have written stay where they are, as this node may not write them into the realm", "entries", barred,
			"hint", "`grid member set-role` gives it another role")
	}
	stay := 0
	for _, piece := range pieces(list) {
		var done []grid.Entry
		id := r.realmID()
		if _, err := grid.Update(ctx, gated{r, id}, func(tx *grid.Tx) error {
			done = done[:0]
			for _, e := range piece {
				have, ok, err := tx.Get(e.Key)
				switch {
				case err != nil:
					return err
				case !ok:
					tx.Put(e.Key, e.Value)
				case !bytes.Equal(have.Value, e.Value):
					stay++
					r.log.Warn("an entry that a command without a node has written stays where it is, as the realm has another one", "key", e.Key,
						"hint", "while the node is down, delete or rename it, or leave it")
					continue
				}
				done = append(done, e)
			}
			return nil
		}); err != nil {
			return err
		}
		var del grid.Txn
		for _, e := range done {
			del.Delete = append(del.Delete, e.Key)
		}
		if len(done) > 0 {
			if _, err := r.cfg.Local.Commit(ctx, del); err != nil {
				return err
			}
		}
	}
	if len(list) > stay {
		r.log.Info("entries of commands without a node moved to the realm", "entries", len(list)-stay)
	}
	return nil
}

// audit has the transaction tell of what it does to a node.
func (r *Realm) audit(tx *grid.Tx, act grid.AuditAct, id peer.ID) error {
	if r.cfg.Audit == nil {
		return nil
	}
	e, err := r.cfg.Audit(grid.AuditFact{Act: act, Subject: id.String(), User: tx.User(), Note: "realm " + r.realmName()})
	if err == nil {
		tx.Put(e.Key, e.Value)
	}
	return err
}
