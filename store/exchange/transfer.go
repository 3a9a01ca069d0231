package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	frameQueue  = 8                // frames that wait for verification
	batchBytes  = 1 << 20          // blocks are stored so many bytes, or
	batchBlocks = 128              // so many blocks at a time
	lookupTime  = 20 * time.Second // for asking the swarm for providers
)

// A CID is, for a transfer, one of:
const (
	wanted = -1 // not here
	local  = 0  // was here before
	// any other number: came in the stream of that number
)

// transfer brings what is missing below some roots. It belongs to one goroutine.
type transfer struct {
	x     *Exchange
	f     *flight
	bytes int64 // that have come
	mode  mode
	state map[cid.Cid]int // of everything reachable from the roots, as far as it is known
	want  []cid.Cid       // what was ever missing, in the order of the walk
	left  int             // how many still are
	got   int             // how many have come
	round int             // the number of the stream
	batch []grid.Block
	size  int   // of batch, bytes
	fault error // ours: no other node can help
}

// transfer carries out a flight and returns an error for each root that was not completed.
func (x *Exchange) transfer(ctx context.Context, f *flight) map[cid.Cid]error {
	t := &transfer{x: x, f: f, mode: f.mode, state: map[cid.Cid]int{}}
	t.survey(ctx, f.roots...)
	var asked []string   // and what came of it
	var partly []peer.ID // those that did not have all of it
	absent := true       // nobody had anything worse to say than that
	next := x.candidates(ctx, f)
	for t.left > 0 && t.fault == nil && ctx.Err() == nil && len(asked) < maxProviders {
		p, ok := next()
		if !ok {
			break
		}
		err := t.ask(ctx, p)
		if err == nil {
			continue
		}
		x.log.Debug("fetch", "from", p, "error", err)
		asked = append(asked, fmt.Sprintf("%s: %v", p, err))
		if errors.Is(err, grid.NotFound) {
			partly = append(partly, p)
		} else {
			absent = false
		}
	}
	// Where a DAG is scattered, what one node sent may lead to what another has that was asked before.
	for before := -1; t.left > 0 && t.fault == nil && ctx.Err() == nil && len(partly) > 1 && t.got > before; {
		before = t.got
		for _, p := range partly {
			if err := t.ask(ctx, p); err != nil {
				x.log.Debug("fetch again", "from", p, "error", err)
			}
		}
	}
	if t.fault != nil && len(f.roots) > 1 { // one bad root is not to spoil the others
		failed := map[cid.Cid]error{}
		for _, c := range f.roots {
			alone := x.transfer(ctx, &flight{mode: f.mode, roots: []cid.Cid{c}, from: x.hints(f), limit: x.allowed(f)})
			if err := alone[c]; err != nil {
				failed[c] = err
			}
		}
		return failed
	}
	return t.verdict(ctx, f, asked, absent)
}

// verdict finds for each root what is still missing below it.
func (t *transfer) verdict(ctx context.Context, f *flight, asked []string, absent bool) map[cid.Cid]error {
	failed := map[cid.Cid]error{}
	if t.left == 0 && t.fault == nil {
		return failed
	}
	for _, root := range f.roots {
		fail := func(code grid.Code, format string, args ...any) *grid.Error {
			err := grid.Errorf(code, "store: fetch %s: "+format, append([]any{root}, args...)...)
			failed[root] = err
			return err
		}
		if err := ctx.Err(); err != nil {
			fail(grid.CodeOf(err), "%w", err)
			continue
		}
		again := &transfer{x: t.x, f: t.f, mode: t.mode, state: map[cid.Cid]int{}}
		again.survey(ctx, root)
		switch {
		case again.left > 0 && t.fault != nil:
			fail(codeOf(t.fault), "%w", t.fault)
		case again.fault != nil:
			fail(codeOf(again.fault), "%w", again.fault)
		case again.left == 0:
		case len(asked) == 0:
			fail(grid.Unavailable, "block %s is not here, and no other node is connected that could be asked", again.want[0]).
				Hint("connect to a node that has it")
		case absent:
			fail(grid.NotFound, "block %s could not be had; asked %s", again.want[0], strings.Join(asked, "; ")).
				Hint("connect to a node that has it, or add the data again")
		default:
			fail(grid.Unavailable, "block %s could not be had; asked %s", again.want[0], strings.Join(asked, "; ")).
				Hint("try again later")
		}
	}
	return failed
}

// candidates returns a function that names the nodes to ask, each once: those that callers have named,
// those that have announced a root, and all that are connected.
func (x *Exchange) candidates(ctx context.Context, f *flight) func() (peer.ID, bool) {
	seen := map[peer.ID]struct{}{x.net.Self(): {}}
	fresh := func(ids []peer.ID) (peer.ID, bool) {
		for _, p := range ids {
			if _, ok := seen[p]; !ok {
				seen[p] = struct{}{}
				return p, true
			}
		}
		return "", false
	}
	roots := f.roots[:min(len(f.roots), 4)]
	var found []peer.ID
	return func() (peer.ID, bool) {
		for {
			if p, ok := fresh(x.hints(f)); ok {
				return p, true
			}
			if p, ok := fresh(found); ok {
				return p, true
			}
			if len(roots) == 0 {
				break
			}
			lookup, cancel := context.WithTimeout(ctx, lookupTime)
			ids, err := x.net.Providers(lookup, roots[0], maxProviders)
			cancel()
			if err != nil {
				x.log.Debug("no providers", "root", roots[0], "error", err)
			}
			found, roots = append(found, ids...), roots[1:]
		}
		for _, p := range x.net.Peers() {
			found = append(found, p.ID)
		}
		return fresh(found)
	}
}

// survey walks from the given CIDs through what is here and notes what is not.
func (t *transfer) survey(ctx context.Context, cids ...cid.Cid) {
	var stack []cid.Cid
	push := func(cids []cid.Cid) {
		for i := len(cids) - 1; i >= 0; i-- {
			if _, ok := t.state[cids[i]]; !ok {
				stack = append(stack, cids[i])
			}
		}
	}
	for push(cids); len(stack) > 0 && t.fault == nil; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := t.state[c]; ok {
			continue
		}
		if len(t.state) >= maxVisited || len(stack) > maxVisited {
			t.fault = grid.Errorf(grid.Limit, "more than %d blocks below the roots", maxVisited)
			return
		}
		links, here, err := t.look(ctx, c)
		switch {
		case err != nil:
			t.fault = err
		case here:
			t.state[c] = local
			push(links)
		default:
			t.state[c] = wanted
			t.want = append(t.want, c)
			t.left++
		}
	}
}

// look reports whether a block is here, and its links. A damaged one is thrown away, to be fetched again.
func (t *transfer) look(ctx context.Context, c cid.Cid) (links []cid.Cid, here bool, err error) {
	if t.mode == modeBlocks || c.Prefix().Codec == cid.Raw {
		here, err = t.x.blocks.Has(ctx, c)
		return nil, here, err
	}
	data, err := t.x.blocks.Get(ctx, c)
	switch {
	case err == nil:
		links, err = dag.Links(c, data)
		return links, true, err
	case errors.Is(err, grid.NotFound):
		return nil, false, nil
	case errors.Is(err, grid.Corrupt):
		t.x.log.Warn("a damaged block is fetched again", "cid", c, "error", err)
		return nil, false, t.x.blocks.Delete(ctx, c)
	}
	return nil, false, err
}

// ask gets what it can from one node. The error says why that was not all: NotFound when the node does
// not have it.
func (t *transfer) ask(ctx context.Context, p peer.ID) error {
	denied := map[cid.Cid]struct{}{}
	for t.left > 0 {
		req := request{mode: t.mode}
		rest := t.want[:0]
		for _, c := range t.want {
			if t.state[c] != wanted {
				continue
			}
			rest = append(rest, c)
			if _, ok := denied[c]; !ok && len(req.cids) < maxRoots {
				req.cids = append(req.cids, c)
			}
		}
		t.want = rest
		if len(req.cids) == 0 {
			return grid.Errorf(grid.NotFound, "it does not have %d of the blocks", len(denied))
		}
		left, said := t.left, len(denied)
		err := t.stream(ctx, p, req, denied)
		if ferr := t.flush(ctx); ferr != nil && t.fault == nil {
			t.fault = ferr
		}
		if t.fault != nil {
			return t.fault
		}
		if err != nil {
			return err
		}
		if t.left >= left && len(denied) == said {
			return grid.Errorf(grid.Unavailable, "it answered without sending anything")
		}
	}
	return nil
}

// stream makes one request and takes in the answer.
func (t *transfer) stream(ctx context.Context, p peer.ID, req request, denied map[cid.Cid]struct{}) (err error) {
	s, err := t.x.net.Open(ctx, p, Protocol)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() }) // also frees the reader
	frames := make(chan frame, frameQueue)
	readErr := make(chan error, 1)
	defer func() {
		if err == nil && stop() {
			_ = s.Close()
		}
		cancel()
		for range frames { // wait for the reader's end
		}
	}()
	t.round++
	t.x.stats.requests.Add(1)
	_ = s.SetDeadline(t.x.now().Add(frameTime))
	if _, err := s.Write(req.encode()); err != nil {
		close(frames)
		return err
	}
	if err := s.CloseWrite(); err != nil {
		close(frames)
		return err
	}
	go func() {
		defer close(frames)
		readErr <- t.x.read(ctx, s, frames)
	}()
	for f := range frames {
		switch f.typ {
		case frameBlock:
			err = t.arrived(ctx, f.cid, f.data)
		case frameMissing:
			_, said := denied[f.cid]
			if _, ok := t.state[f.cid]; !ok || said { // it may lack what is here
				err = grid.Errorf(grid.Invalid, "it says that %s is missing, which was not asked for", f.cid)
			}
			denied[f.cid] = struct{}{}
		case frameRefused:
			err = f.err
		case frameEnd:
			return nil
		}
		if err == nil {
			err = t.fault
		}
		if err != nil {
			return err
		}
	}
	return <-readErr
}

// read takes frames from a stream until the last one, keeping the time. It owns the channel.
func (x *Exchange) read(ctx context.Context, s grid.Stream, frames chan<- frame) error {
	r := wireReader{bufio.NewReaderSize(s, 64<<10)}
	start, received := x.now(), 0
	deadline := func(n int) {
		now := x.now()
		one := now.Add(frameTime + time.Duration(n)*time.Second/frameRate)
		all := start.Add(frameTime + time.Duration(received+n)*time.Second/leastRate)
		if all.Before(one) {
			one = all
		}
		_ = s.SetDeadline(one)
	}
	for {
		if r.Buffered() == 0 { // else the deadline that stands is early enough
			deadline(0)
		}
		f, err := r.frame(func(n int) {
			if n > r.Buffered() {
				deadline(n)
			}
		})
		if err != nil {
			return err
		}
		received += f.size
		select {
		case frames <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
		if f.typ == frameEnd || f.typ == frameRefused {
			return nil
		}
	}
}

// arrived takes in one block.
func (t *transfer) arrived(ctx context.Context, c cid.Cid, data []byte) error {
	st, ok := t.state[c]
	if !ok {
		return grid.Errorf(grid.Invalid, "it sent block %s, which was not asked for", c)
	}
	if st == t.round {
		return grid.Errorf(grid.Invalid, "it sent block %s twice", c)
	}
	b, err := grid.VerifyBlock(c, data)
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "it sent a bad block: %w", err)
	}
	t.state[c] = t.round
	if st != wanted {
		t.x.stats.wasted.Add(1)
		return nil
	}
	t.bytes += int64(len(data))
	if limit := t.x.allowed(t.f); limit > 0 && t.bytes > limit {
		t.fault = grid.Errorf(grid.Limit, "it has more than the %d bytes that are allowed", limit)
		return t.fault
	}
	t.left--
	t.got++
	t.batch = append(t.batch, b)
	t.size += len(data)
	if t.size >= batchBytes || len(t.batch) >= batchBlocks {
		if err := t.flush(ctx); err != nil {
			t.fault = err
			return err
		}
	}
	if t.mode == modeDAG {
		links, err := dag.Links(c, data)
		if err != nil { // the DAG itself is at fault
			t.fault = err
			return err
		}
		t.survey(ctx, links...)
	}
	return nil
}

// flush stores what has arrived.
func (t *transfer) flush(ctx context.Context) error {
	if len(t.batch) == 0 {
		return nil
	}
	// What is here is kept even if nobody waits for it any more.
	if err := t.x.blocks.Put(context.WithoutCancel(ctx), t.batch...); err != nil {
		return err
	}
	t.x.stats.blocksIn.Add(uint64(len(t.batch)))
	t.x.stats.bytesIn.Add(uint64(t.size))
	clear(t.batch) // the blocks may be large
	t.batch, t.size = t.batch[:0], 0
	return nil
}
