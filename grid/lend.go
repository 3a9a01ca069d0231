package grid

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A node lends to nodes of other realms, strangers, only what it was told to, and its jobs go to strangers only if it is
// said of the job. What a stranger's task finds here is its files and nothing else: it is granted nothing, and what it
// reads was fetched from its owner.

// Share is what a node lends to strangers. The zero value lends nothing.
type Share struct {
	Slots int // that their tasks may use at a time
	// Memory and Scratch are for all of their tasks together; each task may use its part of a slot, see [Share.Each].
	// Scratch also bounds what is fetched for one of their stages.
	Memory, Scratch uint64
	// Time is for how long one task may have a slot. What takes longer is given back; 0: 10 minutes.
	Time time.Duration
	// Allow are nodes and realms that it lends to, by ID; none: to all. Deny are those that it does not, whatever Allow says.
	Allow, Deny []peer.ID
}

// lentTime is how long one task of a stranger's has a slot unless it is said: as long as tasks may run whose jobs do not say.
const lentTime = 10 * time.Minute

// MaxShareList bounds Allow and Deny.
const MaxShareList = 1 << 10

// Each is what one task may use of a share at most.
func (s *Share) Each() (memory, scratch uint64) {
	n := uint64(max(s.Slots, 1))
	return s.Memory / n, s.Scratch / n
}

// Portion is a share as a person asks for it, in parts of a node that are not known yet. Of CPU one of the two must be given; what
// else is not has a default.
type Portion struct {
	Percent       int    // of the slots, rounded, one at least
	Slots         int    // or so many
	MemoryPercent int    // of the memory for all tasks; the default is the same part as of the slots
	Memory        uint64 // or bytes
	Scratch       uint64 // bytes; by default a GiB for each slot
	Time          time.Duration
}

// Of is the share of a node of so many slots, and so much memory for tasks.
func (p Portion) Of(slots int, memory uint64) (s Share, err error) {
	if p == (Portion{}) {
		return s, nil
	}
	if p.Slots > slots {
		return s, Errorf(Invalid, "cannot lend %d slots: this node has %d", p.Slots, slots).Hint("--share cpu=%d lends all of them, --workers gives it more", slots)
	}
	if p.Memory > memory {
		return s, Errorf(Invalid, "cannot lend %s of memory: this node has %s for all tasks together", sizeText(p.Memory), sizeText(memory)).Hint("--task-memory gives it more")
	}
	if s.Slots = p.Slots; s.Slots == 0 {
		s.Slots = max((slots*p.Percent+50)/100, 1)
	}
	switch {
	case p.Memory > 0:
		s.Memory = p.Memory
	case p.MemoryPercent > 0:
		s.Memory = memory / 100 * uint64(p.MemoryPercent)
	default:
		s.Memory = memory / uint64(max(slots, 1)) * uint64(s.Slots)
	}
	s.Memory = max(s.Memory, 1)
	if s.Scratch = p.Scratch; s.Scratch == 0 {
		s.Scratch = uint64(s.Slots) << 30
	}
	s.Time = cmp.Or(p.Time, lentTime)
	return s, nil
}

// Check refuses a share that cannot be.
func (s *Share) Check() error {
	if len(s.Allow) > MaxShareList || len(s.Deny) > MaxShareList {
		return Errorf(Limit, "%d nodes and realms to lend to, and %d not to: at most %d are possible", len(s.Allow), len(s.Deny), MaxShareList)
	}
	if s.Slots == 0 && len(s.Allow)+len(s.Deny) > 0 {
		return Errorf(Invalid, "it is said to whom this node lends, but not what").Hint("add --share cpu=50%%")
	}
	return nil
}

// ShareView is a share for people.
type ShareView struct {
	Slots   int      `json:"slots"`           // worker slots that strangers may have at a time
	Memory  uint64   `json:"memory_bytes"`    // for all guests of strangers together
	Scratch uint64   `json:"scratch_bytes"`   // for all guests of strangers together
	TimeMS  int64    `json:"time_ms"`         // for one task
	Allow   []string `json:"allow,omitempty"` // nodes and realms whose tasks it runs, by ID; none: all
	Deny    []string `json:"deny,omitempty"`  // nodes and realms whose tasks it does not run, by ID
	Ran     uint64   `json:"tasks_ran"`       // for other realms
	// Refused counts what strangers asked this node to run and it does not run for them.
	Refused uint64 `json:"tasks_refused"`
}

// ShareView tells what this node lends; nil: nothing.
func (n *Node) ShareView() *ShareView {
	s := &n.Share
	if s.Slots == 0 {
		return nil
	}
	return &ShareView{Slots: s.Slots, Memory: s.Memory, Scratch: s.Scratch, TimeMS: cmp.Or(s.Time, lentTime).Milliseconds(), Allow: texts(s.Allow), Deny: texts(s.Deny), Ran: n.lent.ran.Load(), Refused: n.lent.refused.Load()}
}

func texts(list []peer.ID) (out []string) {
	for _, id := range list {
		out = append(out, id.String())
	}
	return out
}

// lending counts what was done for strangers.
type lending struct{ ran, refused atomic.Uint64 }

// errNotLent is why a node runs nothing for a stranger.
var errNotLent = Errorf(Denied, "this node lends nothing to other realms").Hint("start it with `grid up --share cpu=50%%`")

// errLong is why a task of a stranger's is given back.
var errLong = Errorf(Busy, "the task takes longer than this node lends a slot for").Hint("let it do less at a time, or run the job without --offload")

// lentFor bounds how long a task of a lease has its slot, if it is a stranger's: what runs is not stopped when own work comes.
func (n *Node) lentFor(ctx context.Context, l Lease) (context.Context, context.CancelFunc) {
	if !l.Outside {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, cmp.Or(n.Share.Time, lentTime), errLong)
}

// lendsTo refuses a stranger that this node lends nothing to.
func (n *Node) lendsTo(id peer.ID) error {
	s := &n.Share
	if s.Slots == 0 {
		return errNotLent
	}
	realm := n.realmOf(id)
	in := func(list []peer.ID) bool {
		return slices.Contains(list, id) || realm != "" && slices.Contains(list, realm)
	}
	switch {
	case in(s.Deny):
		return Errorf(Denied, "this node does not lend to %s", id).Hint("--share-deny names it, or its realm")
	case len(s.Allow) > 0 && !in(s.Allow):
		return Errorf(Denied, "this node does not lend to %s", id).Hint("--share-allow names neither it nor its realm")
	}
	return nil
}

// realmOf is the ID of the realm that another node has proved to be of; "" when none is known.
func (n *Node) realmOf(id peer.ID) peer.ID {
	if n.RealmOf == nil {
		return ""
	}
	return n.RealmOf(id)
}

// foreignRealm is the realm of a stranger: "" for one of this realm, and where realms are not told apart. In a public swarm it is
// false of one that has not proved anything yet.
func (n *Node) foreignRealm(id peer.ID) (realm peer.ID, ok bool) {
	if n.RealmOf == nil || n.inRealm(id) {
		return "", true
	}
	switch realm = n.RealmOf(id); realm {
	case "":
		return "", false
	case n.RealmOf(n.self): // its ledger does not tell of it yet
		return "", true
	}
	return realm, true
}

// voicesBeyond are those of the strangers that are connected: of which realms they are.
func (n *Node) voicesBeyond() (list []peer.ID) {
	n.kin.mu.Lock()
	told := maps.Clone(n.kin.told)
	n.kin.mu.Unlock()
	for id, outside := range told {
		if realm, ok := n.foreignRealm(id); outside && ok {
			list = append(list, cmp.Or(realm, id))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// lentCapacity is what strangers are told that this node has for a task of theirs.
func (n *Node) lentCapacity() Capacity {
	memory, scratch := n.Share.Each()
	return Capacity{Labels: n.Capacity.Labels, Slots: n.Share.Slots, Memory: memory, Scratch: scratch}
}

// fromOutside takes of what a stranger gave those leases that are its own and that this node lends itself for, as such. The others
// run out.
func (n *Node) fromOutside(leases []Lease, victim peer.ID) []Lease {
	memory, scratch := n.Share.Each()
	good := leases[:0]
	for _, l := range leases {
		cl := &l.Class
		if l.Owner != victim || !cl.Offload || cl.Realm || !cl.Pure || cl.Depth > 0 ||
			max(cl.Memory, cl.MemoryLimit) > memory || max(cl.Scratch, cl.ScratchLimit) > scratch || int(max(cl.Cores, 1)) > n.Share.Slots {
			n.lent.refused.Add(uint64(l.Len()))
			n.log.Debug("a lease of another realm is not taken", "lease", l, "owner", l.Owner, "victim", victim)
			continue
		}
		// What it may use counts as used, and its user has no standing here.
		l.Outside = true
		cl.Memory, cl.Scratch = max(cl.Memory, cl.MemoryLimit), max(cl.Scratch, cl.ScratchLimit)
		cl.User, cl.Pinned = victim.String(), true
		good = append(good, l)
	}
	return good
}

// checkLent refuses to run what a stranger's lease did not tell of: grants, impure tasks, and larger ones; and what the realm's
// admission policy refuses.
func (n *Node) checkLent(ctx context.Context, l Lease, st *Stage) error {
	if !l.Outside {
		return nil
	}
	if err := n.lendsTo(l.Owner); err != nil && l.Owner != n.self {
		return err
	}
	if st.Impure || !st.Grants.Empty() {
		n.lent.refused.Add(1)
		return Errorf(Denied, "stage %d of job %s is impure or granted something: for other realms only pure tasks are run, that are granted nothing", l.Stage, l.Job)
	}
	if st.Limits.Memory > l.Class.Memory || st.Limits.Scratch > l.Class.Scratch {
		n.lent.refused.Add(1)
		return Errorf(Denied, "stage %d of job %s may use %s of memory and %s of scratch, more than its lease says", l.Stage, l.Job, sizeText(st.Limits.Memory), sizeText(st.Limits.Scratch))
	}
	return n.admitLent(ctx, l, st)
}

// Offload says whether a job may go to nodes of other realms.
type Offload string

// The answers. What is offloaded can be read by those who run it: the job's spec, modules and inputs. Impure stages, and those that
// are granted something, stay inside.
const (
	OffloadNone       Offload = ""           // no
	OffloadVerified   Offload = "verified"   // if it is verified
	OffloadUnverified Offload = "unverified" // whatever strangers say is believed
)

// checkOffload refuses to send a job to strangers who would be believed without its user having said so.
func (p *Policy) checkOffload() error {
	switch p.Offload {
	case OffloadNone, OffloadUnverified:
		return nil
	case OffloadVerified:
		if !p.Verify.On() {
			return Errorf(Invalid, "the job is to be offloaded to other realms, and to believe whatever they say").
				Hint("have it verified, by quorum=2 or another way; or say expressly that it is not to be")
		}
		return nil
	}
	return Errorf(Invalid, "offload %.40q: want %q, %q or nothing", string(p.Offload), OffloadVerified, OffloadUnverified)
}

// SetOffload sets a policy from what a person said: that the job may be offloaded, and how it is to be verified, "" if nothing was
// said of that. Then what is offloaded is verified by a quorum of two.
func (p *Policy) SetOffload(offload bool, verify string) (err error) {
	if p.Verify, err = ParseVerify(verify); err != nil {
		return err
	}
	switch {
	case !offload:
		p.Offload = OffloadNone
	case verify == "":
		p.Offload, p.Verify = OffloadVerified, Verify{Mode: VerifyQuorum, N: 2}
	case p.Verify.On():
		p.Offload = OffloadVerified
	default:
		p.Offload = OffloadUnverified
	}
	return nil
}

// offloads reports whether the tasks of a stage may go to strangers.
func (st *Stage) offloads(p *Policy) bool {
	return p.Offload != OffloadNone && !st.Impure && st.Grants.Empty()
}

// whyInside says why a stage's tasks are given to no stranger, as an error.
func (st *Stage) whyInside(p *Policy) error {
	switch {
	case p.Offload == OffloadNone:
		return Errorf(Denied, "it is of another realm, and the job is not to be offloaded").Hint("submit it with --offload to have other realms run it, too: they can read what they run")
	case st.Grants.Realm():
		return errOutside
	case st.Impure || !st.Grants.Empty():
		return Errorf(Denied, "it is of another realm, and tasks that are impure or granted something stay in this one")
	}
	return nil
}

// checkInside refuses what a node from elsewhere says of tasks that only nodes of the realm may run: none was given any.
func (n *Node) checkInside(ctx context.Context, from peer.ID, j *job, stage uint32) error {
	if j.batch == nil && j.spec.Stages[stage].offloads(&j.rec.Policy) {
		return nil
	}
	if err := n.checkRealm(ctx, from); err != nil {
		return Errorf(CodeOf(err), "stage %s stays in this realm: %w", j.spec.Stages[stage].Name, err)
	}
	return nil
}

// stealing is what a victim is told. Strangers do not hear what this node has.
func (n *Node) stealing(e AskSteal, now time.Time) stealMsg {
	if e.Outside {
		return stealMsg{Slots: e.Slots, Can: n.lentCapacity()}
	}
	return stealMsg{Slots: e.Slots, Can: n.Capacity, Holds: n.held.sum(now)}
}

// kin is what the scheduler was told of who is of the realm.
type kin struct {
	mu   sync.Mutex
	told map[peer.ID]bool // of those that are up, whether they are outside
}

// peerChanged tells the scheduler that a peer came or went.
func (n *Node) peerChanged(ev PeerEvent) {
	n.kin.mu.Lock()
	defer n.kin.mu.Unlock()
	outside := ev.Up && !n.inRealm(ev.Peer)
	if n.kin.told == nil {
		n.kin.told = make(map[peer.ID]bool)
	}
	if delete(n.kin.told, ev.Peer); ev.Up {
		n.kin.told[ev.Peer] = outside
	}
	n.post(PeerChanged{ev, outside})
}

// relate tells the scheduler which peers have become nodes of the realm, or are none any more.
func (n *Node) relate() {
	n.kin.mu.Lock()
	defer n.kin.mu.Unlock()
	for id, outside := range n.kin.told {
		if now := !n.inRealm(id); now != outside {
			n.kin.told[id] = now
			n.post(PeerChanged{PeerEvent{Peer: id, Up: true}, now})
		}
	}
}
