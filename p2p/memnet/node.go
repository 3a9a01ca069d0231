package memnet

import (
	"context"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/frame"
	"github.com/wasmgrid/wasmgrid/p2p/internal/pipe"
	"github.com/wasmgrid/wasmgrid/p2p/internal/roster"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

// Node is one node's view of its world.
type Node struct {
	world  *World
	id     peer.ID
	table  *serve.Table
	roster roster.Roster
}

var _ grid.Network = (*Node)(nil)

// Self is the node's name.
func (n *Node) Self() peer.ID { return n.id }

// Peers lists the nodes that this one has a link to, sorted by ID.
func (n *Node) Peers() []grid.PeerInfo {
	list := n.roster.List()
	infos := make([]grid.PeerInfo, len(list))
	for i, e := range list {
		infos[i] = grid.PeerInfo{
			ID:        e.ID,
			Addrs:     []string{"/memory/" + e.ID.String()},
			Transport: "memory",
			RTT:       n.world.latency(n.id, e.ID) + n.world.latency(e.ID, n.id),
			Since:     e.Since,
		}
	}
	return infos
}

// Subscribe is told at grid.Network.
func (n *Node) Subscribe(f func(grid.PeerEvent)) (stop func()) { return n.roster.Subscribe(f) }

// Guard has every call and stream that another node begins here asked of f first.
func (n *Node) Guard(f func(from peer.ID, p grid.Protocol) error) { n.table.Guard(f) }

// Serve is told at grid.Network.
func (n *Node) Serve(p grid.Protocol, f func(context.Context, peer.ID, []byte) ([]byte, error)) {
	n.table.Serve(p, f)
}

// Handle is told at grid.Network.
func (n *Node) Handle(p grid.Protocol, f func(context.Context, peer.ID, grid.Stream)) {
	n.table.Handle(p, f)
}

// Call is told at grid.Network.
func (n *Node) Call(ctx context.Context, to peer.ID, p grid.Protocol, req []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	if to == n.id {
		return n.table.Local(ctx, n.id, p, req)
	}
	if len(req) > grid.MaxMessage {
		return nil, frame.TooLong("request", len(req))
	}
	far, l := n.world.between(n, to)
	if far == nil {
		return nil, n.unreachable(to)
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	n.world.sent(n.id, to, p, len(req))
	if !n.world.cross(ctx, l, n.id, to) {
		return nil, n.broken(ctx, to, p)
	}
	type answer struct {
		reply []byte
		err   error
	}
	done := make(chan answer, 1)
	go func() { // ends with the handler's context, as Local heeds it
		reply, err := far.table.Local(call, n.id, p, req)
		n.world.sent(to, n.id, p, len(reply))
		done <- answer{reply, err}
	}()
	select {
	case a := <-done:
		if ctx.Err() != nil || !n.world.cross(ctx, l, to, n.id) {
			return nil, n.broken(ctx, to, p)
		}
		return a.reply, a.err
	case <-l.down:
	case <-ctx.Done():
	}
	return nil, n.broken(ctx, to, p)
}

// Open is told at grid.Network.
func (n *Node) Open(ctx context.Context, to peer.ID, p grid.Protocol) (grid.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, serve.Ended(ctx, p, to)
	}
	far, l := n, (*link)(nil)
	if to != n.id {
		if far, l = n.world.between(n, to); far == nil {
			return nil, n.unreachable(to)
		}
	}
	if !far.table.Streams(p) {
		return nil, serve.Unsupported(p)
	}
	here, there := pipe.New(n.world.delay(n.id, to), n.world.delay(to, n.id))
	if !n.world.attach(l, there, n.id, to) {
		return nil, n.unreachable(to)
	}
	go func() {
		defer n.world.detach(l, there)
		stop := context.AfterFunc(far.table.Context(), func() { _ = there.Reset() })
		defer stop()
		far.table.Stream(n.id, p, n.world.meter(there, to, n.id, p))
	}()
	return n.world.meter(here, n.id, to, p), nil
}

// attach makes the far end of a stream part of a link, if that is still there. A stream of a node to itself has none.
func (w *World) attach(l *link, s *pipe.End, from, to peer.ID) bool {
	if l == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if isClosed(l.down) {
		return false
	}
	s.HoldIn(!isClosed(*l.way(from, to)))
	s.HoldOut(!isClosed(*l.way(to, from)))
	l.streams[s] = to
	return true
}

func (w *World) detach(l *link, s *pipe.End) {
	if l == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(l.streams, s)
}

// Provide is told at grid.Network.
func (n *Node) Provide(_ context.Context, root cid.Cid) error {
	if err := grid.CheckCID(root); err != nil {
		return err
	}
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes[n.id] == n && !slices.Contains(w.providers[root], n.id) {
		w.providers[root] = append(w.providers[root], n.id)
	}
	return nil
}

// Providers is told at grid.Network. It never names this node, and finds those across a cut link too,
// as a record may outlive its node's being reachable.
func (n *Node) Providers(_ context.Context, root cid.Cid, most int) ([]peer.ID, error) {
	if err := grid.CheckCID(root); err != nil {
		return nil, err
	}
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []peer.ID
	for _, p := range w.providers[root] {
		if p != n.id && len(list) < most {
			list = append(list, p)
		}
	}
	return list, nil
}

// Refusals lists what this node has refused others, the most frequent first.
func (n *Node) Refusals() []grid.Refusal { return n.table.Refusals() }

// Close leaves the world and waits for the node's handlers and subscriptions. It may be called twice.
func (n *Node) Close() error {
	n.world.leave(n)
	n.table.Stop()
	n.table.Wait()
	n.roster.Close()
	return nil
}

// leave kills n unless another node has taken its name since.
func (w *World) leave(n *Node) {
	w.mu.Lock()
	mine := w.nodes[n.id] == n
	w.mu.Unlock()
	if mine {
		w.Kill(n.id)
	}
}

func (n *Node) unreachable(to peer.ID) error {
	return grid.Errorf(grid.Unavailable, "p2p: %s cannot be reached", to)
}

// broken is the error for a call that ended on the way.
func (n *Node) broken(ctx context.Context, to peer.ID, p grid.Protocol) error {
	if ctx.Err() != nil {
		return serve.Ended(ctx, p, to)
	}
	return grid.Errorf(grid.Unavailable, "p2p: call %s of %s: the connection broke", p, to)
}
