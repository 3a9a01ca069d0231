package member

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Config sets the planner's rules. The zero Config is a good one for a local network.
type Config struct {
	Voters  int           // most voters; an even number counts as the one below. 0: 5
	Standby int           // learners to keep beside them. 0: 2
	Stable  time.Duration // how long a learner is up and close behind before it may vote. 0: 3 s
	Grace   time.Duration // how long a voter may be away before it is replaced. 0: 30 s
	Lag     uint64        // most log entries that are close behind. 0: 1024
}

func (c Config) filled() Config {
	c.Voters = max(1, (cmp.Or(c.Voters, 5)-1)|1)
	c.Standby = max(0, cmp.Or(c.Standby, 2))
	c.Stable = cmp.Or(c.Stable, 3*time.Second)
	c.Grace = cmp.Or(c.Grace, 30*time.Second)
	c.Lag = cmp.Or(c.Lag, 1024)
	return c
}

// Replica is a node that keeps a copy of the ledger.
type Replica struct {
	ID    peer.ID
	Voter bool
	Up    bool   // the leader hears of it
	Lag   uint64 // log entries that it is behind the leader
	Zone  string // what nodes that may fail together have in common
	Gone  bool   // it is to keep no copy any more
	Old   bool   // it has lost what it had, and waits to be a learner; then it is not Up
}

// Node is a node of the realm that is up and keeps no copy.
type Node struct {
	ID   peer.ID
	Zone string
}

// View is how things are, as the leader sees them.
type View struct {
	Leader   peer.ID // who asks; one of the voters, and up
	Replicas []Replica
	Nodes    []Node // that may be given a copy
}

// Do is a kind of step.
type Do string

// The kinds of steps.
const (
	Nothing  Do = ""
	Add      Do = "add"       // make a node a learner
	Promote  Do = "promote"   // make a learner a voter
	Demote   Do = "demote"    // make a voter a learner
	Remove   Do = "remove"    // have a replica keep no copy any more
	HandOver Do = "hand over" // make another voter the leader
)

// Step is one change.
type Step struct {
	Do  Do
	ID  peer.ID
	Why string
}

// Planner decides for one leader. A new leader begins with a new one.
type Planner struct {
	cfg  Config
	seen map[peer.ID]*health
}

// health is since when a replica has been as it is.
type health struct {
	up, close   bool
	down, ready time.Time // since when it is not up, since when it is up and close behind
}

// New makes a planner.
func New(cfg Config) *Planner { return &Planner{cfg: cfg.filled(), seen: make(map[peer.ID]*health)} }

// plan is one look at the realm.
type plan struct {
	*Planner
	View
	voters, learners []Replica
	up               int // voters
}

// Next tells the next step, which is Nothing when all is well or nothing can be done now. It is called often:
// at once after a step was made, and else about once in a second. now never goes backwards.
func (p *Planner) Next(now time.Time, v View) Step {
	p.observe(now, v)
	l := plan{Planner: p, View: v}
	for _, r := range v.Replicas {
		switch {
		case !r.Voter:
			l.learners = append(l.learners, r)
		case r.Up:
			l.up++
			fallthrough
		default:
			l.voters = append(l.voters, r)
		}
	}
	if !slices.ContainsFunc(l.voters, func(r Replica) bool { return r.ID == v.Leader && r.Up }) || l.up < majority(len(l.voters)) {
		return Step{}
	}
	if s := l.vote(now); s.Do != Nothing {
		return s
	}
	return l.standby(now)
}

func majority(n int) int { return n/2 + 1 }

// observe remembers since when replicas are up and close behind, or away.
func (p *Planner) observe(now time.Time, v View) {
	present := make(map[peer.ID]struct{}, len(v.Replicas))
	for _, r := range v.Replicas {
		present[r.ID] = struct{}{}
		h := p.seen[r.ID]
		if h == nil {
			h = &health{up: true}
			p.seen[r.ID] = h
		}
		if h.up && !r.Up {
			h.down = now
		}
		ok := r.Up && r.Lag <= p.cfg.Lag
		if ok && !h.close {
			h.ready = now
		}
		h.up, h.close = r.Up, ok
	}
	for id := range p.seen {
		if _, ok := present[id]; !ok {
			delete(p.seen, id)
		}
	}
}

// expired reports whether a replica has been away for too long.
func (p *Planner) expired(now time.Time, r Replica) bool {
	h := p.seen[r.ID]
	return !h.up && now.Sub(h.down) >= p.cfg.Grace
}

// ready reports whether a learner may become a voter.
func (p *Planner) ready(now time.Time, r Replica) bool {
	h := p.seen[r.ID]
	return !r.Gone && h.close && now.Sub(h.ready) >= p.cfg.Stable
}

// vote leads the voters towards those that they should be.
func (l *plan) vote(now time.Time) Step {
	var keep, lost, ready []Replica
	for _, r := range l.learners {
		if l.ready(now, r) {
			ready = append(ready, r)
		}
	}
	for _, r := range l.voters {
		switch {
		case r.ID == l.Leader && r.Gone:
			if s := l.succeed(ready); s.Do != Nothing {
				return s
			}
			keep = append(keep, r) // until somebody can take over
		case r.Gone, r.Old:
		case l.expired(now, r):
			lost = append(lost, r)
		default:
			keep = append(keep, r)
		}
	}
	size := min(l.cfg.Voters, len(keep)+len(ready))
	size -= 1 - size%2 // odd; keep has the leader
	if len(keep) > size && len(lost) > 0 && len(keep) < l.cfg.Voters {
		keep, size = append(keep, lost[0]), len(keep)+1 // rule 4: it may come back
	}
	target := l.choose(size, keep, ready)
	var best Step
	most := -1 // voters that may be lost after the best step
	try := func(s Step, voters, up int) {
		if spare := up - majority(voters); spare > most {
			best, most = s, spare
		}
	}
	n := len(l.voters)
	for _, r := range l.voters {
		switch {
		case slices.Contains(target, r.ID):
		case r.Gone && r.Up:
			try(Step{Remove, r.ID, "it has left the realm"}, n-1, l.up-1)
		case r.Gone:
			try(Step{Remove, r.ID, "it has left the realm"}, n-1, l.up)
		case r.Old:
			try(Step{Demote, r.ID, "its disk is older than what it has acknowledged"}, n-1, l.up)
		case !r.Up:
			try(Step{Demote, r.ID, "it has been away for too long"}, n-1, l.up)
		}
	}
	for _, r := range l.voters {
		if !slices.Contains(target, r.ID) && r.Up && !r.Gone {
			try(Step{Demote, r.ID, "there is no odd number of voters with it"}, n-1, l.up-1)
		}
	}
	for _, r := range ready {
		if slices.Contains(target, r.ID) {
			try(Step{Promote, r.ID, "it has been up and close behind"}, n+1, l.up+1)
		}
	}
	return best
}

// succeed has another voter take over from a leader that is to go; if there is none that could, a learner becomes one.
func (l *plan) succeed(ready []Replica) Step {
	for _, r := range l.voters {
		if r.ID != l.Leader && r.Up && !r.Gone && r.Lag <= l.cfg.Lag {
			return Step{HandOver, r.ID, "the leader has left the realm"}
		}
	}
	if len(ready) > 0 && l.up+1 >= majority(len(l.voters)+1) {
		return Step{Promote, ready[0].ID, "the leader has left the realm"}
	}
	return Step{}
}

// choose picks so many voters: those that are, the leader before those that are up before others, and then learners,
// each from the zone that has the fewest so far.
func (l *plan) choose(size int, voters, ready []Replica) []peer.ID {
	rank := func(r Replica) int {
		switch {
		case r.ID == l.Leader:
			return 0
		case r.Voter && r.Up:
			return 1
		case r.Voter:
			return 2
		}
		return 3
	}
	zones := make(map[string]int)
	rest := append(slices.Clone(voters), ready...)
	var ids []peer.ID
	for len(ids) < size {
		i := least(rest, func(a, b Replica) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(zones[a.Zone], zones[b.Zone]), cmp.Compare(a.Lag, b.Lag), cmp.Compare(a.ID, b.ID))
		})
		ids = append(ids, rest[i].ID)
		zones[rest[i].Zone]++
		rest = slices.Delete(rest, i, i+1)
	}
	return ids
}

func least[T any](s []T, compare func(a, b T) int) int {
	best := 0
	for i := range s {
		if compare(s[i], s[best]) < 0 {
			best = i
		}
	}
	return best
}

// standby keeps some learners beside the voters.
func (l *plan) standby(now time.Time) Step {
	zones := make(map[string]int)
	for _, r := range l.Replicas {
		zones[r.Zone]++
	}
	var live, lost []Replica
	for _, r := range l.learners {
		switch {
		case r.Gone:
			return Step{Remove, r.ID, "it has left the realm"}
		case l.expired(now, r):
			lost = append(lost, r)
		default:
			live = append(live, r)
		}
	}
	switch {
	case len(live) > l.cfg.Standby:
		i := least(live, func(a, b Replica) int {
			return cmp.Or(cmp.Compare(zones[b.Zone], zones[a.Zone]), cmp.Compare(b.Lag, a.Lag), cmp.Compare(a.ID, b.ID))
		})
		return Step{Remove, live[i].ID, "there are enough others on standby"}
	case len(live) == l.cfg.Standby && len(lost) > 0:
		return Step{Remove, lost[0].ID, "it has been away for too long, and others are on standby"}
	case len(live) < l.cfg.Standby && len(l.Nodes) > 0:
		i := least(l.Nodes, func(a, b Node) int {
			return cmp.Or(cmp.Compare(zones[a.Zone], zones[b.Zone]), cmp.Compare(a.ID, b.ID))
		})
		return Step{Add, l.Nodes[i].ID, "a learner is wanted on standby"}
	}
	return Step{}
}
