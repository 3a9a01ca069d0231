package exchange

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	peerStreams = 16
	allStreams  = 128
	frameTime   = 10 * time.Second // for a frame, besides its length
	frameRate   = 64 << 10         // bytes/s
	leastRate   = 16 << 10         // bytes/s on average
	aheadBytes  = 256 << 10        // a server's walk gathers so many bytes, or
	aheadItems  = 128              // so many blocks, before it waits for them to be sent
)

// handle serves one stream.
func (x *Exchange) handle(ctx context.Context, from peer.ID, s grid.Stream) {
	ok, done := x.admit(from)
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(x.ctx, func() { cancel(); s.Reset() })()
	_ = s.SetDeadline(x.now().Add(frameTime))
	w := &sender{x: x, s: s, w: bufio.NewWriterSize(s, 64<<10)}
	defer func() {
		if w.heard != nil {
			<-w.heard // the stream is closed by now
		}
	}()
	err := error(grid.Errorf(grid.Busy, "too many streams at once"))
	if ok {
		err = x.serve(ctx, from, bufio.NewReaderSize(s, 4096), w)
	}
	if err != nil && ctx.Err() == nil {
		grid.Blame(s, err)
	}
	if err != nil && w.err == nil {
		_, _ = w.w.Write(appendRefusal(nil, err))
	}
	if w.flush() != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// admit counts a stream, if there is room for it. done is to be called in any case.
func (x *Exchange) admit(from peer.ID) (ok bool, done func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.streams[from] >= peerStreams || x.serving >= allStreams {
		return false, func() {}
	}
	x.streams[from]++
	x.serving++
	x.wg.Add(1)
	return true, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.serving--
		if x.streams[from]--; x.streams[from] == 0 {
			delete(x.streams, from)
		}
		x.wg.Done()
	}
}

// item is a step of the server's walk: a block, or one that is missing.
type item struct {
	cid     cid.Cid
	data    []byte
	missing bool
}

// serve answers one request. Its error is told to the client.
func (x *Exchange) serve(ctx context.Context, to peer.ID, r *bufio.Reader, w *sender) error {
	req, err := wireReader{r}.request()
	if err != nil {
		return err
	}
	walk, stop := context.WithCancel(ctx)
	w.listen(r, stop)
	groups := make(chan []item, 2)
	failed := make(chan error, 1)
	go func() {
		defer close(groups)
		failed <- x.walk(walk, to, req, groups)
	}()
	defer func() {
		stop()
		for range groups { // wait for the walk's end
		}
	}()
	for group := range groups {
		for _, it := range group {
			switch {
			case walk.Err() != nil && w.enough.Load():
				return w.end()
			case it.missing:
				err = w.missing(it.cid)
			default:
				err = x.pace.wait(walk, to, len(it.data), w.flush)
				switch {
				case err == nil:
					err = w.block(it.cid, it.data)
				case w.enough.Load():
					return w.end()
				}
			}
			if err != nil {
				return err
			}
		}
	}
	if err := <-failed; err != nil && !w.enough.Load() {
		return err
	}
	return w.end()
}

// listen waits for the client to close its side, which says that it has enough, or to hang up. Either ends
// the walk.
func (w *sender) listen(r *bufio.Reader, stop func()) {
	w.heard = make(chan struct{})
	go func() {
		defer close(w.heard)
		_, err := r.ReadByte()
		if timeout(err) {
			return // nothing was to be written for long: it can no longer be heard
		}
		w.enough.Store(err == io.EOF)
		stop()
	}()
}

// walk goes through what was asked for, ahead of what is being sent. It hands over the first block at once and
// then ever larger groups, for each costs a change of goroutines.
func (x *Exchange) walk(ctx context.Context, to peer.ID, req request, groups chan<- []item) error {
	seen := make(map[cid.Cid]struct{}, len(req.cids))
	var stack []cid.Cid // to be sent, the next one last
	push := func(cids []cid.Cid) {
		for i := len(cids) - 1; i >= 0; i-- {
			if _, ok := seen[cids[i]]; !ok {
				stack = append(stack, cids[i])
			}
		}
	}
	var group []item
	size, sent := 0, 0 // bytes
	for push(req.cids); len(stack) > 0; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := seen[c]; ok {
			continue
		}
		if seen[c] = struct{}{}; len(seen) > maxVisited || len(stack) > maxVisited {
			return grid.Errorf(grid.Limit, "more than %d blocks in one request", maxVisited)
		}
		data, err := x.read(ctx, to, c)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			if !errors.Is(err, grid.NotFound) {
				x.log.Warn("a block cannot be served", "cid", c, "error", err)
			}
		}
		group = append(group, item{c, data, err != nil})
		size += len(data)
		if size > sent || size >= aheadBytes || len(group) >= aheadItems {
			sent += size
			select {
			case groups <- group:
				group, size = nil, 0
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err == nil && req.mode == modeDAG {
			if links, err := dag.Links(c, data); err == nil { // else the client will see for itself
				push(links)
			}
		}
	}
	if len(group) > 0 {
		select {
		case groups <- group:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// read is a block that a peer may read, verified.
func (x *Exchange) read(ctx context.Context, to peer.ID, c cid.Cid) ([]byte, error) {
	if x.may != nil && !x.may(ctx, to, c) {
		return nil, grid.Errorf(grid.NotFound, "not for %s", to)
	}
	return x.blocks.Get(ctx, c)
}

// sender writes frames, keeping the time for each.
type sender struct {
	x   *Exchange
	s   grid.Stream
	w   *bufio.Writer
	buf []byte
	err error // of the stream: nothing more can be told

	enough atomic.Bool   // the client wants no more
	heard  chan struct{} // closed when nothing more is heard of the client; nil before listen
}

func (w *sender) write(size int, parts ...[]byte) error {
	if w.w.Available() < size { // else nothing goes out now
		_ = w.s.SetDeadline(w.x.now().Add(frameTime + time.Duration(size+w.w.Buffered())*time.Second/frameRate))
	}
	for _, p := range parts {
		if _, err := w.w.Write(p); err != nil {
			w.err = err
			return err
		}
	}
	return nil
}

func (w *sender) block(c cid.Cid, data []byte) error {
	w.buf = appendBlockHeader(w.buf[:0], c, data)
	if err := w.write(len(w.buf)+len(data), w.buf, data); err != nil {
		return err
	}
	w.x.stats.blocksOut.Add(1)
	w.x.stats.bytesOut.Add(uint64(len(data)))
	return nil
}

func (w *sender) missing(c cid.Cid) error {
	w.buf = appendCID(append(w.buf[:0], frameMissing), c)
	return w.write(len(w.buf), w.buf)
}

func (w *sender) end() error { return w.write(1, []byte{frameEnd}) }

func (w *sender) flush() error {
	if w.err == nil {
		_ = w.s.SetDeadline(w.x.now().Add(frameTime + time.Duration(w.w.Buffered())*time.Second/frameRate))
		w.err = w.w.Flush()
	}
	return w.err
}

// timeout reports whether a deadline was missed.
func timeout(err error) bool {
	var n net.Error
	return grid.CodeOf(err) == grid.Deadline || errors.As(err, &n) && n.Timeout()
}
