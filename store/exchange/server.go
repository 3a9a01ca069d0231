package exchange

import (
	"bufio"
	"context"
	"errors"
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
	err := error(grid.Errorf(grid.Busy, "too many streams at once"))
	if ok {
		err = x.serve(ctx, s, w)
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

// serve answers one request. Its error is told to the client.
func (x *Exchange) serve(ctx context.Context, s grid.Stream, w *sender) error {
	req, err := wireReader{bufio.NewReaderSize(s, 4096)}.request()
	if err != nil {
		return err
	}
	seen := make(map[cid.Cid]struct{}, len(req.cids))
	var stack []cid.Cid // to be sent, the next one last
	push := func(cids []cid.Cid) {
		for i := len(cids) - 1; i >= 0; i-- {
			if _, ok := seen[cids[i]]; !ok {
				stack = append(stack, cids[i])
			}
		}
	}
	for push(req.cids); len(stack) > 0; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := seen[c]; ok {
			continue
		}
		if seen[c] = struct{}{}; len(seen) > maxVisited || len(stack) > maxVisited {
			return grid.Errorf(grid.Limit, "more than %d blocks in one request", maxVisited)
		}
		data, err := x.blocks.Get(ctx, c) // verified
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			if !errors.Is(err, grid.NotFound) {
				x.log.Warn("a block cannot be served", "cid", c, "error", err)
			}
			if err := w.missing(c); err != nil {
				return err
			}
			continue
		}
		if err := w.block(c, data); err != nil {
			return err
		}
		if req.mode == modeDAG {
			links, err := dag.Links(c, data)
			if err != nil {
				continue // the client will see for itself
			}
			push(links)
		}
	}
	return w.end()
}

// sender writes frames, keeping the time for each.
type sender struct {
	x   *Exchange
	s   grid.Stream
	w   *bufio.Writer
	buf []byte
	err error // of the stream: nothing more can be told
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
