package ledger

import (
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"
)

// tempo decides for how long this replica bears a leader that it does not hear. Where the cores have more to do than they
// can, no leader gets to run in time, nor do those who would vote for the next: with one length for good, such a realm does
// nothing but elect. So the length doubles while reigns are short, and comes back step by step when one lasts. Two things
// are no sign of haste: a leader that went away, as its connection tells, so that a realm whose nodes die one after the other
// is as quick each time; and the first short reign, since one leader may always be stopped or cut off.
//
// Each replica decides for itself, and they need not agree: whatever the lengths, a leader is elected by a majority, and
// entries and reads need one. Only how soon that happens is at stake.
type tempo struct {
	base time.Duration // the length on machines with time to spare
	most int           // doublings at most

	term  uint64
	since time.Time // when the term was seen first, or when it last made up for a short one
	short int       // reigns that nothing has made up for yet
}

// mostDoublings make elections eight times as long: 4 to 8 s, if they are of 500 ms to 1 s.
const mostDoublings = 3

// calm is how many of the shortest elections a reign must last not to be short.
const calm = 60

// see takes in the newest term that this replica knows; gone tells that the leader before has gone away. It returns the
// length to use. Terms without a leader count like others: votes that come too late are the same ill.
func (t *tempo) see(now time.Time, term uint64, gone bool) time.Duration {
	calm := now.Sub(t.since) >= calm*t.base
	switch {
	case term > t.term:
		if t.term > 0 && !gone && !calm {
			t.short = int(min(uint64(t.short)+term-t.term, uint64(t.most)+1))
		}
		t.term, t.since = term, now
	case calm:
		t.short, t.since = max(0, t.short-1), now
	}
	return t.base << max(0, t.short-1)
}

// keepTempo has raft wait as long as the tempo says, for the leader and for votes; for the leader not while this node is the last
// that it knows of. A leader's heartbeats are a tenth of that length apart, and others may wait for them for the shortest. And one
// that had to give up its office, as raft insists when the process was stopped for a while, is the first that may have it again:
// the others wait, and would vote for nobody else.
func (r *replica) keepTempo() {
	base := r.l.cfg.Timing.Election
	t := tempo{base: base, most: r.l.cfg.doublings}
	tick := time.NewTicker(base)
	defer tick.Stop()
	var old, last peer.ID // leaders: at the last tick, and now
	gone := false
	usedLeader, usedVotes := base, base
	for {
		changed := r.l.changed()
		gone = gone || r.l.isAway(old) // and be it back at the tick
		if id, ok := r.leader(); ok {
			last = id
		}
		votes := time.Duration(r.trans.bears.Load())
		leader := votes
		if last == r.l.net.Self() {
			leader = base
		}
		if leader != usedLeader || votes != usedVotes {
			r.reload(func(c *raft.ReloadableConfig) { c.HeartbeatTimeout, c.ElectionTimeout = leader, votes })
			usedLeader, usedVotes = leader, votes
		}
		select {
		case <-changed:
		case <-r.stop:
			return
		case now := <-tick.C:
			term := r.raft.CurrentTerm()
			if bears := t.see(now, term, gone); bears != votes {
				r.trans.bears.Store(int64(bears))
				r.log.Info("the ledger's elections have another length", "realm", r.realm.Name, "term", term, "for", bears)
			}
			old, gone = last, false
		}
	}
}
