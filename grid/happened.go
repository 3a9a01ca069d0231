package grid

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The rooms of events.
const (
	RoomJob    = "job"
	RoomNode   = "node"
	RoomLedger = "ledger"
	RoomData   = "data"
	RoomSwarm  = "swarm"
)

// EventRooms are all of them.
var EventRooms = []string{RoomJob, RoomNode, RoomLedger, RoomData, RoomSwarm}

// Kinds of events other than of jobs.
const (
	KindUp       = "up"       // node: it has come
	KindGone     = "gone"     // node: its session with the ledger has ended
	KindDraining = "draining" // node: it hands on what it keeps
	KindDrained  = "drained"  // node: that was ended
	KindFull     = "full"     // node: its disk has no room
	KindRoom     = "room"     // node: it has again
	KindLeader   = "leader"   // ledger: it has another leader
	KindShort    = "short"    // data: pins have fewer copies than were promised
	KindWhole    = "whole"    // data: they have all again
	KindJoined   = "joined"   // swarm: a node belongs to the realm from now on
	KindRemoved  = "removed"  // swarm: a node belongs to it no longer
	KindApproved = "approved" // swarm: a node that waited was let in
	KindRole     = "role"     // swarm: a member has another role
	KindRenewed  = "renewed"  // swarm: a membership lasts longer, or less long
	KindRevoked  = "revoked"  // swarm: a membership has ended
	KindRotated  = "rotated"  // swarm: its authority has another key
)

// MaxRealmEvents is how many events a node keeps: the last ones of its own.
const MaxRealmEvents = 1 << 12

const (
	// eventsShown is about how many of the events that are kept are gathered for one who asks: of many nodes each tells the last ones alone.
	eventsShown = 1 << 16
	// maxEventWord bounds a kind or a name, in bytes.
	maxEventWord = 64
)

// happenings are the events that a node tells.
type happenings struct {
	mu   sync.Mutex
	list []RealmEvent // the oldest first, once it is full from next%MaxRealmEvents on
	next uint64
}

// Happened tells the realm of something that is not about a job. about may be "".
func (n *Node) Happened(room, kind string, about peer.ID, text string) {
	ev := RealmEvent{Room: room, Kind: kind, Text: text}
	if about != "" {
		ev.Node = about.String()
	}
	n.happened(ev)
}

func (n *Node) happened(ev RealmEvent) {
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	ev.At, ev.From, ev.Text = ev.At.UTC().Round(0), n.self.String(), clean(ev.Text, maxEventText)
	h := &n.happenings
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(ev)
	if n.Told != nil {
		n.Told(ev)
	}
}

// add notes an event; mu is held.
func (h *happenings) add(ev RealmEvent) {
	if len(h.list) < MaxRealmEvents {
		h.list = append(h.list, ev)
	} else {
		h.list[h.next%MaxRealmEvents] = ev
	}
	h.next++
}

// reopen begins with what the node told before it was started.
func (n *Node) reopen(past []RealmEvent) {
	c := clockOf{now: time.Now()}
	for _, ev := range past[max(0, len(past)-MaxRealmEvents):] {
		if takeEvent(&ev, n.self, c) {
			n.happenings.add(ev)
		}
	}
}

// happenedTo tells the realm of an event of a job.
func (n *Node) happenedTo(id JobID, name string, ev *JobEvent) { n.happened(realmEvent(id, name, ev)) }

func realmEvent(id JobID, name string, ev *JobEvent) RealmEvent {
	e := RealmEvent{At: ev.At, Room: RoomJob, Kind: string(ev.Kind), Job: id, Name: name, Tasks: ev.Tasks, Text: ev.Text}
	if ev.HasStage() {
		e.Stage = new(ev.Stage)
	}
	if ev.Node != "" {
		e.Node = ev.Node.String()
	}
	return e
}

// ownEvents answers what this node has told.
func (n *Node) ownEvents(m *lookMsg) lookReply[RealmEvent] {
	h := &n.happenings
	h.mu.Lock()
	defer h.mu.Unlock()
	lo, hi, reply := lookSpan[RealmEvent](n, m, h.next)
	lo = max(lo, h.next-min(h.next, MaxRealmEvents))
	limit := MaxRealmEvents
	if m.Limit > 0 {
		limit = min(limit, m.Limit)
	}
	for i := hi; i > lo && len(reply.Items) < limit; i-- { // the last ones
		ev := &h.list[(i-1)%MaxRealmEvents]
		if at := ev.At.UnixNano(); m.wants(at, at) && (m.Job == "" || m.Job == ev.Job) {
			reply.Items = append(reply.Items, *ev)
		}
	}
	slices.Reverse(reply.Items)
	return reply
}

// takeEvent makes what a peer tells fit to be shown.
func takeEvent(ev *RealmEvent, from peer.ID, c clockOf) bool {
	ev.From = from.String()
	if ev.At = c.local(ev.At); ev.At.After(c.now.Add(clockSlack)) || ev.At.Year() < 2000 {
		ev.At = c.now.UTC().Round(0)
	}
	if ev.Job != "" {
		if _, err := ParseJobID(string(ev.Job)); err != nil {
			return false
		}
	}
	if ev.Node != "" {
		if _, err := ParseNodeID(ev.Node); err != nil {
			return false
		}
	}
	ev.Kind, ev.Name, ev.Text = clean(ev.Kind, maxEventWord), clean(ev.Name, MaxName), clean(ev.Text, maxEventText)
	return slices.Contains(EventRooms, ev.Room) && ev.Tasks.Lo <= ev.Tasks.Hi && (ev.Stage == nil || *ev.Stage < MaxStages)
}

// EventQuery says which events of the realm are wanted. Its zero value stands for all that are kept.
type EventQuery struct {
	Since  time.Time // after this; zero: any
	Job    JobID     // of this job, or the one whose ID begins so: also after it has ended, and whoever owned it
	Room   string    // of this room
	Follow bool      // and then those to come, until the caller goes or, of one job, until it has ended
}

// Check refuses what is no query.
func (q *EventQuery) Check() error {
	switch {
	case q.Room != "" && !slices.Contains(EventRooms, q.Room):
		return Errorf(Invalid, "there are no events of %.40q", q.Room).Hint("use %s", strings.Join(EventRooms, ", "))
	case q.Job != "" && q.Room != "" && q.Room != RoomJob:
		return Errorf(Invalid, "events of a job are of the room %s, not of %s", RoomJob, q.Room)
	}
	return nil
}

// RealmEvents calls f for each event that is kept, the oldest first; with Follow also for those to come. Of a job these are all that are kept of
// it; of the realm what nodes that answer have told since they were started. An error of f ends it.
func (n *Node) RealmEvents(ctx context.Context, q EventQuery, f func(RealmEvent) error) error {
	if err := q.Check(); err != nil {
		return err
	}
	if q.Job != "" {
		return n.jobsEvents(ctx, &q, f)
	}
	m := lookMsg{Since: nanos(q.Since), Limit: eventsShown}
	return n.bulletin.read(ctx, m, "", q.Follow, func(list []RealmEvent) error {
		slices.SortStableFunc(list, func(a, b RealmEvent) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.From, b.From)) })
		for _, ev := range list {
			if q.Room != "" && ev.Room != q.Room {
				continue
			}
			if err := f(ev); err != nil {
				return err
			}
		}
		return nil
	})
}

// jobsEvents tells of one job.
func (n *Node) jobsEvents(ctx context.Context, q *EventQuery, f func(RealmEvent) error) error {
	st, err := n.Job(ctx, q.Job)
	if err != nil {
		return err
	}
	owner := st.Owner
	return n.Events(ctx, st.ID, q.Follow, func(ev JobEvent) error {
		if ev.Kind == EventStarted && ev.Node != "" {
			owner = ev.Node.String()
		}
		if !q.Since.IsZero() && !ev.At.After(q.Since) {
			return nil
		}
		e := realmEvent(st.ID, st.Name, &ev)
		e.From = owner
		return f(e)
	})
}

// census is what a node has told, or left to others to tell, of who is in the realm.
type census struct {
	nodes   map[peer.ID]struct{} // that are up; nil: not told yet
	members map[peer.ID]struct{}
}

// tells reports whether it is for this node to tell of another: just one of those that are up does.
func (n *Node) tellsOf(what string, id peer.ID, up map[peer.ID]struct{}) bool {
	return rank(JobID(what+"/"+id.String()), n.self, up, func(other peer.ID) bool { return other != id }) == 0
}

// counted tells of nodes that have come or gone, by the difference to what was known before. A node tells itself that it
// is up. n.realm.mu is held.
func (n *Node) counted() {
	r := n.realm
	was := n.census.nodes
	n.census.nodes = make(map[peer.ID]struct{}, len(r.nodes))
	for id := range r.nodes {
		n.census.nodes[id] = struct{}{}
		if _, known := was[id]; id == n.self && !known {
			n.Happened(RoomNode, KindUp, id, fmt.Sprintf("up, with %s, of version %s", plural(n.Slots, "slot"), Version))
		}
	}
	for id := range was {
		if _, up := r.nodes[id]; !up && id != n.self && n.tellsOf("node", id, r.nodes) {
			n.Happened(RoomNode, KindGone, id, "gone: its session with the ledger has ended")
		}
	}
}

// memberRead and memberChanged tell of nodes that have come to belong to the realm, or do no longer.
func (n *Node) memberRead(all []Entry) {
	members := make(map[peer.ID]struct{}, len(all))
	for _, e := range all {
		if id, belongs, ok := memberIn(e); ok && belongs {
			members[id] = struct{}{}
		}
	}
	was := n.census.members
	if n.census.members = members; was == nil {
		return
	}
	for id := range members {
		if _, known := was[id]; !known {
			n.tellMember(id, true)
		}
	}
	for id := range was {
		if _, belongs := members[id]; !belongs {
			n.tellMember(id, false)
		}
	}
}

func (n *Node) memberChanged(c Changes) {
	for _, e := range c.Put {
		id, belongs, ok := memberIn(e)
		if _, did := n.census.members[id]; !ok || did == belongs {
			continue
		}
		if belongs {
			n.census.members[id] = struct{}{}
		} else {
			delete(n.census.members, id)
		}
		n.tellMember(id, belongs)
	}
	for _, key := range c.Delete {
		id, err := peer.Decode(strings.TrimPrefix(key, MemberKeys))
		if _, did := n.census.members[id]; err == nil && did {
			delete(n.census.members, id)
			n.tellMember(id, false)
		}
	}
}

func (n *Node) tellMember(id peer.ID, belongs bool) {
	up := make(map[peer.ID]struct{})
	for _, other := range n.realm.up() {
		up[other] = struct{}{}
	}
	switch {
	case !n.tellsOf("member", id, up):
	case belongs:
		n.Happened(RoomSwarm, KindJoined, id, "belongs to the realm from now on")
	default:
		n.Happened(RoomSwarm, KindRemoved, id, "belongs to the realm no longer")
	}
}

// memberIn is who an entry of the realm's list of nodes is about, and whether it belongs to it still.
func memberIn(e Entry) (id peer.ID, belongs, ok bool) {
	id, err := peer.Decode(strings.TrimPrefix(e.Key, MemberKeys))
	if err != nil {
		return "", false, false
	}
	var m struct {
		Removed bool `cbor:"removed"`
	}
	return id, Unmarshal(e.Value, &m) != nil || !m.Removed, true
}
