package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// publicSwarm is the name of the public swarm of nodes that were told no other.
const publicSwarm = "public"

// who may begin a conversation in a public swarm.
type who uint8

const (
	ours   who = iota // nodes of this realm; so it is for whatever is not listed
	lease             // strangers, too, about tasks that are lent: the handler looks whether it is about such
	anyone            // whoever is there: it tells nothing
)

// access is what strangers reach of a node in a public swarm. Every protocol of the node is here, or a test fails.
var access = map[grid.Protocol]who{
	"ping/1": anyone,
	"join/1": anyone, // the handshake of members, spoken under the private swarm's name
	"kin/1":  anyone, // of which realm this node is

	"steal/1":  lease, // gives what is to be offloaded
	"wake/1":   lease, // is heeded by who lends
	"claim/1":  lease, // counts for tasks that the peer was given
	"report/1": lease, // the same
	"rows/1":   lease, // the same
	"drop/1":   lease, // counts for tasks that the peer gave
	"revoke/1": lease, // the same
	"blocks/2": lease, // sends what such tasks read, or have left: see grid.Node.MayRead

	"recall/1": ours, "job/1": ours, "job-cancel/1": ours, "job-why/1": ours, "load/1": ours, "about/1": ours,
	"job-watch/1": ours, "job-tasks/1": ours, "job-events/1": ours, "task-log/1": ours,
	"pulse/1": ours, "stretches/1": ours, "realm-events/1": ours, "speed/1": ours,
	"pins/1": ours, "ledger/1": ours, "ledger-watch/1": ours, "realm/1": ours, "raft/1": ours,
}

// kinProtocol asks a node of which realm it is: an empty request, and a [kinReply].
const kinProtocol grid.Protocol = "kin/1"

// kinReply proves it: by the node's membership in the private swarm whose members are its realm. It is empty for a node that is a realm
// by itself.
type kinReply struct {
	Realm       peer.ID  `cbor:"realm,omitempty"`
	Chain       [][]byte `cbor:"chain,omitempty"`       // see docs/swarm.md
	Successions [][]byte `cbor:"successions,omitempty"` // the same
}

// Times and bounds of getting to know the others.
const (
	meetEvery   = 2 * time.Second
	meetTimeout = 5 * time.Second
	meetAtOnce  = 16
	maxMet      = 1 << 12 // strangers whose realms are known
	maxKinReply = 128 << 10
)

// public is a node's part in a public swarm. Its realm is the members of its private swarm, or itself alone. A nil one is that of a node in
// another kind of swarm, where nobody is told apart.
type public struct {
	self peer.ID
	log  *slog.Logger

	// Set before anything is served.
	swarm *member.Service // nil: the node is a realm by itself
	realm peer.ID         // the swarm's ID

	poke chan struct{}

	mu      sync.Mutex
	present map[peer.ID]bool // who is connected, and whether the realm was told so
	subs    []*subscriber
	realms  map[peer.ID]peer.ID // of strangers, as they have proved
	met     map[peer.ID]bool    // who was asked, since it is connected
}

type subscriber struct{ f func(grid.PeerEvent) }

func newPublic(key crypto.PrivKey, log *slog.Logger) (*public, error) {
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "identity: %w", err)
	}
	return &public{self: self, log: log, poke: make(chan struct{}, 1), present: map[peer.ID]bool{}, realms: map[peer.ID]peer.ID{}, met: map[peer.ID]bool{}}, nil
}

// enter makes the members of a private swarm the node's realm.
func (p *public) enter(s *member.Service, id peer.ID) { p.swarm, p.realm = s, id }

// admits reports whether a peer is of this realm.
func (p *public) admits(id peer.ID) bool { return id == p.self || p.swarm != nil && p.swarm.Admits(id) }

// allows refuses strangers what is not for them, and members what their role does not allow.
func (p *public) allows(from peer.ID, proto grid.Protocol) error {
	switch {
	case from == p.self:
		return nil
	case p.admits(from):
		return p.swarm.Allows(from, proto)
	case access[proto] == ours:
		return grid.Errorf(grid.Denied, "%s is not of this realm, and strangers are not answered", from).
			Hint("a node joins this one's realm with a token: `grid swarm invite` makes one")
	}
	return nil
}

func (p *public) guard() func(peer.ID, grid.Protocol) error {
	if p == nil {
		return nil
	}
	return p.allows
}

// joinAs is the name under which members greet each other.
func (p *public) joinAs() string {
	if p == nil || p.swarm == nil {
		return ""
	}
	return member.NetworkName(p.realm)
}

// realmOf tells of which realm peers are.
func (p *public) realmOf() func(peer.ID) peer.ID {
	if p == nil {
		return nil
	}
	return func(id peer.ID) peer.ID {
		if p.admits(id) {
			return p.realm
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.realms[id]
	}
}

// mayRead tells who may read which blocks.
func (p *public) mayRead(n *atomic.Pointer[grid.Node]) func(context.Context, peer.ID, cid.Cid) bool {
	if p == nil {
		return nil
	}
	return func(ctx context.Context, id peer.ID, c cid.Cid) bool {
		if p.admits(id) {
			return true
		}
		node := n.Load()
		return node != nil && node.MayRead(ctx, id, c)
	}
}

// follow begins to follow who is connected.
func (p *public) follow(n grid.Network) (stop func()) {
	return n.Subscribe(func(ev grid.PeerEvent) {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.met, ev.Peer)
		if !ev.Up {
			delete(p.realms, ev.Peer)
			if p.present[ev.Peer] {
				p.tell(grid.PeerEvent{Peer: ev.Peer})
			}
			delete(p.present, ev.Peer)
			return
		}
		if p.present[ev.Peer] {
			p.tell(grid.PeerEvent{Peer: ev.Peer})
		}
		p.present[ev.Peer] = false
		p.settle(ev.Peer)
		select {
		case p.poke <- struct{}{}:
		default:
		}
	})
}

// settle tells the realm of a peer that has become one of it, or is none any more; it reports the latter. p.mu is held.
func (p *public) settle(id peer.ID) (gone bool) {
	told, present := p.present[id]
	if is := p.admits(id); present && is != told {
		p.present[id] = is
		p.tell(grid.PeerEvent{Peer: id, Up: is})
		return !is
	}
	return false
}

func (p *public) tell(ev grid.PeerEvent) {
	for _, s := range p.subs {
		s.f(ev)
	}
}

// reconsider acts on what is new about a member: what was begun with one that is none any more is cut off.
func (p *public) reconsider(h *p2p.Host) func(peer.ID) {
	return func(id peer.ID) {
		p.mu.Lock()
		gone := p.settle(id)
		p.mu.Unlock()
		if gone {
			h.HangUp(id)
		}
	}
}

// contacts are those of addresses that are of this realm.
func (p *public) contacts(list []string) []string {
	if p == nil {
		return list
	}
	return slices.DeleteFunc(list, func(text string) bool {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return true
		}
		info, err := peer.AddrInfoFromP2pAddr(a)
		return err != nil || !p.admits(info.ID)
	})
}

// start gets to know the others until it is closed.
func (p *public) start(d *Daemon, h *p2p.Host) {
	h.Serve(kinProtocol, p.answer)
	ctx, cancel := context.WithCancel(context.Background())
	stop := p.follow(h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.meetAll(ctx, h)
	}()
	d.opened(closerFunc(func() error {
		stop()
		cancel()
		<-done
		return nil
	}))
}

// answer is kin/1.
func (p *public) answer(context.Context, peer.ID, []byte) ([]byte, error) {
	var r kinReply
	if p.swarm != nil {
		r.Realm = p.realm
		r.Chain, r.Successions = p.swarm.Proof()
	}
	return grid.Marshal(r)
}

// meetAll asks everybody that comes, and again those that could not answer.
func (p *public) meetAll(ctx context.Context, n *p2p.Host) {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		var todo, gone []peer.ID
		for id := range p.present {
			if p.settle(id) { // a membership has expired
				gone = append(gone, id)
			} else if !p.met[id] {
				todo = append(todo, id)
			}
		}
		p.mu.Unlock()
		for _, id := range gone {
			n.HangUp(id)
		}
		room := make(chan struct{}, meetAtOnce)
		var wg sync.WaitGroup
		for _, id := range todo {
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				p.meet(ctx, n, id)
			})
		}
		wg.Wait()
		select {
		case <-tick.C:
		case <-p.poke:
		case <-ctx.Done():
			return
		}
	}
}

// meet shows this node to a peer that may be of its realm, and asks others of which one they are.
func (p *public) meet(ctx context.Context, n grid.Network, id peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	call := func(proto grid.Protocol) func(context.Context, []byte) ([]byte, error) {
		return func(ctx context.Context, req []byte) ([]byte, error) { return n.Call(ctx, id, proto, req) }
	}
	var err error
	if p.swarm != nil {
		err = p.swarm.Greet(ctx, id, call(p2p.JoinProtocol))
	}
	var realm peer.ID
	again := err != nil && !final(err)
	if !p.admits(id) && !again {
		realm, err = p.askKin(ctx, id, call(kinProtocol))
		// A node that has just come up is connected before it serves all protocols.
		again = err != nil && (!final(err) || grid.CodeOf(err) == grid.Unsupported)
	}
	if err != nil {
		p.log.Debug("a peer does not say of which realm it is", "peer", id, "again", again, "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, present := p.present[id]; !present || again {
		return
	}
	p.met[id] = true
	if realm != "" && len(p.realms) < maxMet {
		p.realms[id] = realm
	}
	p.settle(id)
}

// final reports whether it is no use to ask again.
func final(err error) bool {
	switch grid.CodeOf(err) {
	case grid.Unsupported, grid.Denied, grid.Invalid, grid.Limit:
		return true
	}
	return false
}

// askKin asks a stranger of which realm it is, and checks the proof.
func (p *public) askKin(ctx context.Context, id peer.ID, call func(context.Context, []byte) ([]byte, error)) (peer.ID, error) {
	data, err := call(ctx, nil)
	if err != nil {
		return "", err
	}
	if len(data) > maxKinReply {
		return "", grid.Errorf(grid.Limit, "%s proves its realm with %d bytes, at most %d are allowed", id, len(data), maxKinReply)
	}
	return checkKin(id, data, time.Now)
}

// checkKin reads a proof.
func checkKin(id peer.ID, data []byte, now func() time.Time) (peer.ID, error) {
	var r kinReply
	if err := grid.UnmarshalMessage(data, &r); err != nil {
		return "", err
	}
	if r.Realm == "" {
		return id, nil // a realm by itself
	}
	if err := member.CheckProof(r.Realm, id, r.Chain, r.Successions, now); err != nil {
		return "", err
	}
	return r.Realm, nil
}

// quiet is the network without announcements: what a node has is nobody's business in a public swarm.
type quiet struct{ grid.Network }

// Provide is told at grid.Network.
func (quiet) Provide(context.Context, cid.Cid) error { return nil }

// Providers is told at grid.Network.
func (quiet) Providers(context.Context, cid.Cid, int) ([]peer.ID, error) { return nil, nil }

// within is the network as far as it is of the realm.
type within struct {
	quiet
	p *public
}

// Peers is told at grid.Network.
func (w within) Peers() []grid.PeerInfo {
	return slices.DeleteFunc(w.quiet.Peers(), func(i grid.PeerInfo) bool { return !w.p.admits(i.ID) })
}

// Subscribe is told at grid.Network.
func (w within) Subscribe(f func(grid.PeerEvent)) (stop func()) {
	s := &subscriber{f}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.subs = append(w.p.subs, s)
	for id, told := range w.p.present {
		if told {
			f(grid.PeerEvent{Peer: id, Up: true})
		}
	}
	return func() {
		w.p.mu.Lock()
		defer w.p.mu.Unlock()
		w.p.subs = slices.DeleteFunc(w.p.subs, func(o *subscriber) bool { return o == s })
	}
}

// networks are the network for what is of the realm only, and for the node.
func (p *public) networks(n grid.Network) (inside, all grid.Network) {
	if p == nil {
		return n, n
	}
	return within{quiet{n}, p}, quiet{n}
}

// share is what a node lends.
func (c *Config) share() (s grid.Share, err error) {
	if s, err = c.Share.Of(c.Workers, c.Memory); err != nil {
		return s, err
	}
	s.Allow, s.Deny = c.ShareAllow, c.ShareDeny
	return s, s.Check()
}
