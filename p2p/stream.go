package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/frame"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

// Times of calls and streams.
const (
	callTimeout    = 10 * time.Second // of a call whose context has no deadline
	requestTimeout = 30 * time.Second // for a request to arrive, once its stream is there
	replyTimeout   = 30 * time.Second // for a reply to leave
	closeTimeout   = 10 * time.Second // for the last bytes of a stream to leave

	smallReply = 16 << 10 // bytes that need no reservation
)

// stream is a libp2p stream whose errors have our codes.
type stream struct{ network.Stream }

func (s stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	return n, s.coded("read from", err)
}

func (s stream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	return n, s.coded("write to", err)
}

func (s stream) CloseWrite() error { return s.coded("close", s.Stream.CloseWrite()) }

// Close would wait for ever to tell a peer that has fallen silent, so it has a deadline of its own.
func (s stream) Close() error {
	_ = s.Stream.SetDeadline(time.Now().Add(closeTimeout))
	if err := s.Stream.Close(); err != nil {
		_ = s.Stream.Reset()
		return s.coded("close", err)
	}
	return nil
}

func (s stream) Reset() error { return s.Stream.Reset() }

func (s stream) coded(what string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var timeout net.Error
	code := grid.Unavailable
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		code = grid.Deadline
	case unsupported(err):
		code = grid.Unsupported
	}
	return grid.Errorf(code, "p2p: %s %s: %w", what, s.Conn().RemotePeer(), err)
}

func unsupported(err error) bool {
	return errors.Is(err, multistream.ErrNotSupported[protocol.ID]{})
}

// Open is told at grid.Network. Without a deadline in ctx, opening takes at most 10 s.
func (h *Host) Open(ctx context.Context, to peer.ID, p grid.Protocol) (grid.Stream, error) {
	if to == h.id {
		return openSelf(h.table, h.id, p)
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	s, err := h.newStream(ctx, to, p)
	if err != nil {
		return nil, h.failed(ctx, "open", to, p, err)
	}
	return stream{s}, nil
}

// openConnected is Open without dialling.
func (h *Host) openConnected(ctx context.Context, to peer.ID, p grid.Protocol, timeout time.Duration) (grid.Stream, error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "only if connected"), timeout)
	defer cancel()
	s, err := h.host.NewStream(allowRelayed(ctx), to, h.protocolID(p))
	if err != nil {
		return nil, h.failed(ctx, "open", to, p, err)
	}
	return stream{s}, nil
}

// Handle is told at grid.Network.
func (h *Host) Handle(p grid.Protocol, f func(context.Context, peer.ID, grid.Stream)) {
	h.table.Handle(p, f)
	h.host.SetStreamHandler(h.protocolID(p), func(s network.Stream) {
		h.table.Stream(s.Conn().RemotePeer(), p, stream{s})
	})
}

// Call is told at grid.Network.
func (h *Host) Call(ctx context.Context, to peer.ID, p grid.Protocol, req []byte) ([]byte, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if to == h.id {
		return h.table.Local(ctx, h.id, p, req)
	}
	if len(req) > grid.MaxMessage {
		return nil, frame.TooLong("request", len(req))
	}
	s, err := h.newStream(ctx, to, p)
	if err != nil {
		return nil, h.failed(ctx, "call", to, p, err)
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	reply, remote, err := exchange(s, req)
	if err != nil {
		_ = s.Reset()
		return nil, h.failed(ctx, "call", to, p, err)
	}
	_ = s.Close()
	return reply, remote
}

func exchange(s network.Stream, req []byte) (reply []byte, remote, err error) {
	if err := frame.WriteRequest(s, req); err != nil {
		return nil, nil, err
	}
	return frame.ReadReply(s, reserve(s))
}

// reserve counts the memory of a large message against the limits of its stream, peer and protocol; it
// is given back when the stream ends.
func reserve(s network.Stream) func(int) error {
	return func(n int) error {
		if err := s.Scope().ReserveMemory(n, network.ReservationPriorityAlways); err != nil {
			return grid.Errorf(grid.Busy, "p2p: no room for a message of %d bytes: %w", n, err).
				Hint("try again in a moment")
		}
		return nil
	}
}

// Serve is told at grid.Network. A peer may have 64 calls running here, all peers together 1,024. The
// context of f ends when the caller gives up or the network closes.
func (h *Host) Serve(p grid.Protocol, f func(context.Context, peer.ID, []byte) ([]byte, error)) {
	h.table.Serve(p, f)
	h.host.SetStreamHandler(h.protocolID(p), func(s network.Stream) { h.answer(p, s) })
}

// answer reads one request from a stream and replies to it. While bytes come or go, which takes as long as the peer
// likes, it holds no handler's place.
func (h *Host) answer(p grid.Protocol, s network.Stream) {
	from := s.Conn().RemotePeer()
	_ = s.SetDeadline(time.Now().Add(cmp.Or(h.requestBy, requestTimeout)))
	if err := h.table.Enter(from, p, serve.Message); err != nil {
		h.refuse(p, s, err)
		return
	}
	defer h.table.Leave(from, p, serve.Message)
	if err := h.table.Admit(from, p); err != nil {
		h.refuse(p, s, err)
		return
	}
	req, err := frame.ReadRequest(s, h.joinLimit(from, p, reserve(s)))
	if err != nil {
		h.table.Refused(from, p, reason(err))
		h.log.Debug("bad request", "peer", from, "protocol", p, "err", err)
		_ = s.Reset()
		return
	}
	if err := h.table.Enter(from, p, serve.Call); err != nil {
		h.reply(p, s, nil, err)
		return
	}
	// The caller says nothing more, so a read returns when it hangs up, or when we do.
	ctx, cancel := context.WithCancel(h.table.Context())
	defer cancel()
	_ = s.SetReadDeadline(time.Time{})
	hungUp := make(chan struct{})
	go func() {
		defer close(hungUp)
		defer cancel()
		_, _ = s.Read(make([]byte, 1))
	}()
	reply, err := h.table.Answer(ctx, from, p, req)
	h.table.Leave(from, p, serve.Call)
	h.reply(p, s, reply, err)
	_ = s.SetReadDeadline(time.Unix(1, 0)) // wakes the reader on any kind of stream
	<-hungUp
}

// refuse answers a call with an error without taking its request.
func (h *Host) refuse(p grid.Protocol, s network.Stream, err error) {
	if frame.SkipRequest(s) != nil {
		_ = s.Reset()
		return
	}
	h.reply(p, s, nil, err)
}

// reply writes a reply for which there is room, as long as its reader takes it.
func (h *Host) reply(p grid.Protocol, s network.Stream, body []byte, err error) {
	if err == nil && len(body) > smallReply {
		err = reserve(s)(len(body))
	}
	_ = s.SetWriteDeadline(time.Now().Add(replyTimeout))
	failed := frame.WriteReply(s, body, err)
	if failed == nil {
		failed = s.Close()
	}
	if failed != nil {
		if r := reason(failed); r == grid.RefusedSlow {
			h.table.Refused(s.Conn().RemotePeer(), p, r)
		}
		_ = s.Reset()
	}
}

// reason says why the bytes of a message were refused.
func reason(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return grid.RefusedSlow
	case grid.CodeOf(err) == grid.Busy:
		return grid.RefusedMemory
	case grid.CodeOf(err) == grid.Invalid, grid.CodeOf(err) == grid.Limit:
		return grid.RefusedMalformed
	}
	return grid.RefusedReset
}

// newStream opens a stream, dialling the peer if need be and looking for its addresses when there are
// none.
func (h *Host) newStream(ctx context.Context, to peer.ID, p grid.Protocol) (network.Stream, error) {
	if h.ctx.Err() != nil {
		return nil, grid.Errorf(grid.Unavailable, "the network is closed")
	}
	if !h.connected(to) && len(h.host.Peerstore().Addrs(to)) == 0 {
		if err := h.find(ctx, to); err != nil {
			return nil, err
		}
	}
	if h.gatekeeper != nil && p == JoinProtocol {
		if noDial, _ := network.GetNoDial(ctx); noDial && !h.connected(to) {
			return nil, network.ErrNoConn
		}
		c, err := h.host.Network().DialPeer(ctx, to)
		if err != nil {
			return nil, err
		}
		return bareStream(ctx, c, h.protocolID(p))
	}
	if h.gatekeeper != nil {
		if err := h.gatekeeper.reach(ctx, to); err != nil {
			return nil, err
		}
	}
	return h.host.NewStream(allowRelayed(ctx), to, h.protocolID(p))
}

// find asks the swarm for a peer's addresses.
func (h *Host) find(ctx context.Context, id peer.ID) error {
	unknown := grid.Errorf(grid.Unavailable, "nobody knows its address").
		Hint("is that node running? `grid peers` lists who is connected")
	if id.Validate() != nil || len(h.directory.Neighbours()) == 0 {
		return unknown
	}
	return bounded(ctx, findTimeout, func(ctx context.Context) error {
		info, err := h.directory.Find(ctx, id)
		if err != nil || len(info.Addrs) == 0 {
			return unknown
		}
		h.host.Peerstore().AddAddrs(id, info.Addrs, addrTTL)
		return nil
	})
}

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}

// failed says what became of a call or stream, by whose doing, and as which code.
func (h *Host) failed(ctx context.Context, what string, to peer.ID, p grid.Protocol, err error) error {
	deadline, ok := ctx.Deadline()
	code := grid.Unavailable
	var ours *grid.Error
	switch {
	case ctx.Err() != nil && grid.CodeOf(ctx.Err()) == grid.Canceled:
		code = grid.Canceled
	case ctx.Err() != nil, ok && !time.Now().Before(deadline):
		code = grid.Deadline
	case errors.As(err, &ours):
		code = ours.Code
	case unsupported(err):
		code = grid.Unsupported
	}
	if d := (*swarm.DialError)(nil); errors.As(err, &d) {
		err = &noAnswer{d}
	}
	e := grid.Errorf(code, "p2p: %s %s of %s: %w", what, p, to, err)
	if code == grid.Unsupported {
		e = e.Hint("run the same version on all nodes")
	}
	return e
}

// noAnswer is a failed dial in one line: libp2p's own error has one for each address.
type noAnswer struct{ *swarm.DialError }

func (n *noAnswer) Unwrap() error { return n.DialError }

func (n *noAnswer) Error() string {
	if len(n.DialErrors) == 0 {
		return fmt.Sprint(cmp.Or(n.Cause, errors.New("it is not known where it is")))
	}
	var why []string
	for i := range n.DialErrors {
		cause := n.DialErrors[i].Cause
		if errno := syscall.Errno(0); errors.As(cause, &errno) {
			cause = errno // without the addresses
		}
		if say, _, _ := strings.Cut(cause.Error(), "\n"); !slices.Contains(why, say) && len(why) < 2 && !errors.Is(cause, swarm.ErrDialBackoff) {
			why = append(why, say)
		}
	}
	said := fmt.Sprintf("it answers at none of its %d addresses", len(n.DialErrors)+n.Skipped)
	if len(why) > 0 {
		said += ": " + strings.Join(why, ", ")
	}
	return said
}
