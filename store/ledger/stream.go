package ledger

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// The protocol by which replicas replicate; docs/ledger-protocol.md describes it.
const raftProtocol grid.Protocol = "raft/1"

const (
	maxHello    = 4 << 10         // bytes of a hello, and of its answer
	helloBy     = 5 * time.Second // for the hello of a stream that was opened
	maxIncoming = 32              // streams of one peer
)

// welcome answers a hello. Code 0 admits.
type welcome struct {
	Code    grid.Code `cbor:"code,omitempty"`
	Message string    `cbor:"message,omitempty"`
	Advice  string    `cbor:"advice,omitempty"`
}

// layer carries raft's connections in streams of the grid's network. It is a raft.StreamLayer.
type layer struct {
	net      grid.Network
	hello    func() hello
	accepted chan net.Conn
	ctx      context.Context // ends when the layer is closed
	stop     context.CancelFunc

	mu       sync.Mutex
	conns    map[*conn]struct{}
	incoming map[peer.ID]int
	closed   bool
	wg       sync.WaitGroup // of those who serve streams
}

func newLayer(network grid.Network, hello func() hello) *layer {
	l := &layer{
		net: network, hello: hello, accepted: make(chan net.Conn),
		conns: make(map[*conn]struct{}), incoming: make(map[peer.ID]int),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// address is a peer ID as raft has it.
func address(id peer.ID) raft.ServerAddress { return raft.ServerAddress(id.String()) }

// Dial opens a stream and says hello. It does not wait for the answer: that comes before the first bytes read.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := peer.Decode(string(to))
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "ledger: %q is no peer ID", to)
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	s, err := l.net.Open(ctx, id, raftProtocol)
	if err != nil {
		return nil, err
	}
	c, err := l.keep(s, id)
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	c.dialed = true
	_ = s.SetDeadline(time.Now().Add(timeout))
	if err := writeSmall(s, l.hello()); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// serve is the handler of one incoming stream whose hello was read and found good; it returns when raft has closed it.
func (l *layer) serve(from peer.ID, s grid.Stream) {
	c, err := l.keep(s, from)
	if err != nil {
		return
	}
	defer c.Close()
	select {
	case l.accepted <- c:
		<-c.done
	case <-l.ctx.Done():
	}
}

// enter makes room for an incoming stream; leave must follow.
func (l *layer) enter(from peer.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errClosed()
	case l.incoming[from] >= maxIncoming:
		return grid.Errorf(grid.Limit, "ledger: %d streams of %s at once, more are not allowed", maxIncoming, raftProtocol)
	}
	l.incoming[from]++
	l.wg.Add(1)
	return nil
}

func (l *layer) leave(from peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.incoming[from]--; l.incoming[from] <= 0 {
		delete(l.incoming, from)
	}
	l.wg.Done()
}

func (l *layer) keep(s grid.Stream, far peer.ID) (*conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed()
	}
	c := &conn{Stream: s, layer: l, far: far, done: make(chan struct{})}
	l.conns[c] = struct{}{}
	return c, nil
}

// Accept is told at net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.ctx.Done():
		return nil, errClosed()
	}
}

// Close resets all streams and waits for those who serve them.
func (l *layer) Close() error {
	l.mu.Lock()
	l.closed = true
	var conns []*conn
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	l.stop()
	for _, c := range conns {
		_ = c.Close()
	}
	l.wg.Wait()
	return nil
}

// Addr is this node.
func (l *layer) Addr() net.Addr { return addr(l.net.Self()) }

type addr peer.ID

func (a addr) Network() string { return "grid" }
func (a addr) String() string  { return peer.ID(a).String() }

// conn is a stream as raft has it.
type conn struct {
	grid.Stream
	layer  *layer
	far    peer.ID
	dialed bool // an answer to our hello comes first
	once   sync.Once
	done   chan struct{} // closed by Close
}

// Read reads the answer to the hello first. Raft reads from one goroutine at a time.
func (c *conn) Read(p []byte) (int, error) {
	if c.dialed {
		var w welcome
		if err := readSmall(c.Stream, &w); err != nil {
			return 0, err
		}
		if w.Code != 0 {
			return 0, grid.Errorf(w.Code, "ledger: %s refuses to replicate with this node: %s", c.far, w.Message).Hint("%s", w.Advice)
		}
		c.dialed = false
	}
	return c.Stream.Read(p)
}

// Close resets the stream: raft closes only what it is done with, and a good end could block on a dead peer.
func (c *conn) Close() error {
	c.once.Do(func() {
		_ = c.Stream.Reset()
		c.layer.mu.Lock()
		delete(c.layer.conns, c)
		c.layer.mu.Unlock()
		close(c.done)
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr                { return c.layer.Addr() }
func (c *conn) RemoteAddr() net.Addr               { return addr(c.far) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// writeSmall writes a record with its length in two bytes before it.
func writeSmall(w io.Writer, v any) error {
	data, err := grid.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxHello {
		return grid.Errorf(grid.Internal, "ledger: a hello of %d bytes", len(data))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...))
	return err
}

func readSmall(r io.Reader, v any) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxHello {
		return grid.Errorf(grid.Invalid, "ledger: a hello of %d bytes, at most %d are allowed", n, maxHello)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	return grid.UnmarshalMessage(data, v)
}

// handleRaft is the handler of raft/1.
func (l *Ledger) handleRaft(_ context.Context, from peer.ID, s grid.Stream) {
	_ = s.SetDeadline(time.Now().Add(helloBy))
	refuse := func(err error) { // and let it arrive
		grid.Blame(s, err)
		_ = writeSmall(s, welcome{Code: grid.CodeOf(err), Message: clip(err.Error()), Advice: clip(grid.AdviceOf(err))})
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, io.LimitReader(s, 1<<20))
	}
	var h hello
	if err := readSmall(s, &h); err != nil {
		grid.Blame(s, err)
		return
	}
	r := l.replica()
	if r == nil {
		refuse(grid.Errorf(grid.Unavailable, "this node is no replica"))
		return
	}
	if h.Realm != r.realm.ID {
		refuse(otherRealm(r.realm.Name))
		return
	}
	if l.hooks.admit != nil {
		if err := l.hooks.admit(from, h); err != nil {
			refuse(err)
			return
		}
	}
	if err := r.layer.enter(from); err != nil {
		refuse(err)
		return
	}
	defer r.layer.leave(from)
	if writeSmall(s, welcome{}) != nil {
		return
	}
	_ = s.SetDeadline(time.Time{})
	r.layer.serve(from, s)
}

// clip bounds a text that goes into a small record.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 1<<10)], "") }

func errClosed() error { return grid.Errorf(grid.Unavailable, "ledger: it is closed") }

func otherRealm(name string) error {
	return grid.Errorf(grid.Denied, "this node is of realm %q, which has another ID", name).
		Hint("a node is of one realm: look at `grid ledger status` on both")
}
