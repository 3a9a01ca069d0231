package grid

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"
)

// The conversations between nodes about work. Each is one request and one reply in CBOR; the
// specification for other implementers is docs/protocol.md.
const (
	protoSteal  Protocol = "steal/1"  // thief to victim: stealMsg, stealReply
	protoWake   Protocol = "wake/1"   // victim to thief: wakeMsg, nothing
	protoClaim  Protocol = "claim/1"  // holder to owner: claimMsg, nothing
	protoReport Protocol = "report/1" // holder to owner: reportMsg, reportReply
	protoDrop   Protocol = "drop/1"   // owner to holder: dropMsg, dropReply
	protoRecall Protocol = "recall/1" // new owner to anybody: recallMsg, recallReply
	protoRows   Protocol = "rows/1"   // holder to owner: rowsMsg, rowsReply
)

type (
	stealMsg struct {
		Slots int      `cbor:"slots"`           // that are idle
		Can   Capacity `cbor:"can,omitzero"`    // what the thief can run
		Holds Summary  `cbor:"holds,omitempty"` // of the large inputs that it has
	}
	// stealReply without leases may name peers that have some.
	stealReply struct {
		Leases []Lease   `cbor:"leases"`
		Try    []peer.ID `cbor:"try,omitempty"`
	}
	wakeMsg  struct{}
	claimMsg struct {
		Job   JobID  `cbor:"job"`
		Stage uint32 `cbor:"stage"`
		Epoch Epoch  `cbor:"epoch"`
		Spans []Span `cbor:"spans"`
		Back  []Span `cbor:"back,omitempty"` // that it gives back
	}
	reportMsg struct {
		Job    JobID         `cbor:"job"`
		Stage  uint32        `cbor:"stage"`
		Epoch  Epoch         `cbor:"epoch"`
		Done   []Completion  `cbor:"done"`
		Failed []hostFailure `cbor:"failed,omitempty"`
	}
	// reportReply acknowledges: everything accepted is recorded by the owner, outputs included.
	reportReply struct {
		Over bool `cbor:"over"` // the job is not running (any more)
	}
	dropMsg struct {
		Job   JobID `cbor:"job"`
		Epoch Epoch `cbor:"epoch"`
	}
)

type (
	// recallMsg asks for the receipts of invocations, at most MaxRecall of them.
	recallMsg struct {
		Keys []Key `cbor:"keys"`
	}
	// recallReply has the receipts of successful attempts, of the first Looked of the keys. The caller asks for the
	// others again.
	recallReply struct {
		Receipts []Receipt `cbor:"receipts"`
		Looked   int       `cbor:"looked"`
	}
)

// hostFailure is an attempt that failed through no fault of the guest's.
type hostFailure struct {
	Index   uint32 `cbor:"index"`
	Code    Code   `cbor:"code"`
	Message string `cbor:"message"`
}

// Deadlines of the conversations.
const (
	callTimeout   = 5 * time.Second
	reportTimeout = 2 * time.Minute // the owner fetches outputs before it answers
)

// maxTry is how many peers a victim without work may name.
const maxTry = 3

// maxThiefSlots bounds what a thief is believed to have in idle slots.
const maxThiefSlots = 1 << 16

func (n *Node) serve() {
	n.serveJobs()
	serveCall(n, protoSteal, n.onSteal)
	serveCall(n, protoWake, func(_ context.Context, from peer.ID, _ wakeMsg) (struct{}, error) {
		n.post(Woken{From: from})
		return struct{}{}, nil
	})
	serveCall(n, protoClaim, func(_ context.Context, from peer.ID, m claimMsg) (struct{}, error) {
		j := n.job(m.Job)
		if j != nil && !n.inRealm(from) {
			if m.Spans = n.wasGiven(from, Work{m.Job, m.Stage}, m.Spans); m.Epoch > j.rec.Epoch {
				return struct{}{}, nil
			}
		}
		if j != nil && m.Epoch > j.rec.Epoch {
			n.suspect(j)
		}
		n.post(Claimed{From: from, Work: Work{m.Job, m.Stage}, Epoch: m.Epoch, Spans: m.Spans, Back: m.Back})
		return struct{}{}, nil
	})
	serveCall(n, protoReport, n.onReport)
	serveCall(n, protoRecall, n.onRecall)
	serveCall(n, protoRows, n.onRows)
	n.serveRevoke()
	serveCall(n, protoDrop, n.onDrop)
	n.serveAbout()
	n.serveLooks()
	n.serveSpeed()
}

func serveCall[Req, Reply any](n *Node, p Protocol, f func(context.Context, peer.ID, Req) (Reply, error)) {
	n.Network.Serve(p, func(ctx context.Context, from peer.ID, data []byte) ([]byte, error) {
		if !n.enter() {
			return nil, errClosing
		}
		defer n.wg.Done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(n.ctx, cancel)()
		var req Req
		if err := UnmarshalMessage(data, &req); err != nil {
			n.accuse(from, "", "it sent a malformed "+string(p)+" message")
			return nil, Errorf(Invalid, "%s from %s: %w", p, from, err)
		}
		reply, err := f(ctx, from, req)
		if err != nil {
			return nil, err
		}
		return Marshal(reply)
	})
}

// enter counts one call of a peer among what Close waits for. It is false when the node is closing; else
// wg.Done follows.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Add(1)
	return true
}

func call[Reply any](ctx context.Context, n *Node, to peer.ID, p Protocol, req any) (Reply, error) {
	var reply Reply
	data, err := Marshal(req)
	if err != nil {
		return reply, err
	}
	if data, err = n.Network.Call(ctx, to, p, data); err != nil {
		return reply, err
	}
	return reply, UnmarshalMessage(data, &reply)
}

// tell sends a message whose loss does no harm.
func (n *Node) tell(to peer.ID, p Protocol, msg any) error {
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	_, err := call[struct{}](ctx, n, to, p, msg)
	if err != nil {
		n.log.Debug("message not delivered", "protocol", p, "to", to, "err", err)
	}
	return err
}

// maxTells bounds the messages on their way to one peer whose loss does no harm. Some of them it brings about itself,
// such as by a claim on a job that is not here: one that takes no answer must not keep ever more of them waiting.
const maxTells = 64

// tells counts such messages.
type tells struct {
	mu sync.Mutex
	to map[peer.ID]int
}

// spawnTo runs f, which tells a peer something, on a goroutine, unless too many are at that already.
func (n *Node) spawnTo(to peer.ID, f func()) {
	t := &n.tells
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.to == nil {
		t.to = make(map[peer.ID]int)
	}
	if t.to[to] >= maxTells {
		return
	}
	t.to[to]++
	n.spawn(func() {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.to[to]--; t.to[to] == 0 {
				delete(t.to, to)
			}
		}()
		f()
	})
}

// check refuses what no honest thief says.
func (m *stealMsg) check() error {
	if err := m.Holds.Check(); err != nil {
		return err
	}
	return m.Can.Check()
}

func (n *Node) onSteal(ctx context.Context, from peer.ID, m stealMsg) (stealReply, error) {
	if err := m.check(); err != nil {
		n.accuse(from, "", "it asked for work as no node does: "+err.Error())
		return stealReply{}, err
	}
	realm, known := n.foreignRealm(from)
	if !known {
		return stealReply{}, nil // it asks again, and will have said by then of which realm it is
	}
	start := time.Now()
	ch := make(chan AnswerSteal, 1)
	n.mu.Lock()
	n.calls++
	id := n.calls
	n.asked[id] = ch
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.asked, id)
		n.mu.Unlock()
	}()
	n.post(StealAsked{From: from, Call: id, Slots: min(max(m.Slots, 0), maxThiefSlots), Can: m.Can, Outside: !n.inRealm(from), Realm: realm,
		Holds: m.Holds, Here: n.held.sum(time.Now())})
	select {
	case a := <-ch:
		n.given.note(a.Leases, from)
		n.lendOut(a.Leases, from)
		n.traces.moveLeases(a.Leases, "give", trace.SpanKindServer, start, from)
		return stealReply{a.Leases, a.Try}, nil
	case <-ctx.Done():
	case <-n.ctx.Done():
	}
	return stealReply{}, errClosing
}

// answer gives a waiting thief its leases. When the thief has gone meanwhile, nobody will claim them,
// and they run out.
func (n *Node) answer(e AnswerSteal) {
	n.mu.Lock()
	ch := n.asked[e.Call]
	delete(n.asked, e.Call) // a second answer would have to wait for somebody to take the first
	n.mu.Unlock()
	if ch != nil {
		n.measures.Given.Add(tasksIn(e.Leases))
		n.measures.Leases[leaseGiven].Add(uint64(len(e.Leases)))
		ch <- e
	}
}

func (n *Node) askSteal(e AskSteal) {
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	if e.Outside {
		if err := n.lendsTo(e.Victim); err != nil {
			n.log.Debug("a stranger is not asked for work", "peer", e.Victim, "err", err)
			n.post(StealAnswered{From: e.Victim, Failed: true})
			return
		}
	}
	start := time.Now()
	reply, err := call[stealReply](ctx, n, e.Victim, protoSteal, n.stealing(e, start))
	took := time.Since(start)
	if err != nil {
		n.log.Debug("steal failed", "victim", e.Victim, "err", err)
	}
	var bad error
	if reply.Leases, bad = checkLeases(reply.Leases); bad != nil {
		n.accuse(e.Victim, "", bad.Error())
	}
	reply.Leases = n.onlyAllowed(ctx, n.onlyOurs(reply.Leases, e.Victim, e.Outside), e.Victim)
	n.measures.asked(reply.Leases, err)
	n.traces.moveLeases(reply.Leases, "steal", trace.SpanKindClient, start, e.Victim)
	n.loot.note(e.Victim, tasksIn(reply.Leases))
	n.post(StealAnswered{From: e.Victim, Leases: reply.Leases, Try: reply.Try[:min(len(reply.Try), maxTry)], Took: took, Failed: err != nil})
	for _, l := range n.ends.of(reply.Leases) { // the victim does not know yet
		n.post(Dropped{From: l.Owner, Job: l.Job, Epoch: l.Epoch})
	}
}

// sendClaim tells an owner what this node holds. One that cannot be reached, and was not connected before, went away
// unnoticed.
func (n *Node) sendClaim(e SendClaim) {
	err := n.tell(e.To, protoClaim, claimMsg{Job: e.Job, Stage: e.Stage, Epoch: e.Epoch, Spans: e.Spans, Back: e.Back})
	if CodeOf(err) != Unavailable || n.ctx.Err() != nil {
		return
	}
	if !slices.ContainsFunc(n.Network.Peers(), func(p PeerInfo) bool { return p.ID == e.To }) {
		n.post(PeerChanged{PeerEvent: PeerEvent{Peer: e.To}})
	}
}
