package exchange

import (
	"bufio"
	"context"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// Pull has one node send whole DAGs, what is here of them included, and returns what they consist of; it keeps them like Fetch. So
// it shows that the node has all of that, which nobody else is asked for. At most limit bytes may come. If it is shallow, it is about the
// roots' own blocks only.
func (x *Exchange) Pull(ctx context.Context, from peer.ID, roots []cid.Cid, limit int64, shallow bool) (map[cid.Cid]struct{}, error) {
	got := make(map[cid.Cid]struct{}, len(roots))
	want := make(map[cid.Cid]struct{}, len(roots)) // asked for or linked to, and not here yet
	for len(roots) > 0 {
		some := roots[:min(len(roots), maxRoots)]
		roots = roots[len(some):]
		var ask []cid.Cid
		for _, c := range some {
			if err := grid.CheckCID(c); err != nil {
				return nil, grid.Errorf(grid.CodeOf(err), "store: pull: %w", err)
			}
			if _, dup := got[c]; !dup {
				ask, want[c] = append(ask, c), struct{}{}
			}
		}
		if len(ask) == 0 {
			continue
		}
		if err := x.pull(ctx, from, ask, want, got, &limit, shallow); err != nil {
			return nil, grid.Errorf(codeOf(err), "store: pull %s from %s: %w", ask[0], from, err)
		}
	}
	return got, nil
}

// pull makes one request.
func (x *Exchange) pull(ctx context.Context, from peer.ID, roots []cid.Cid, want, got map[cid.Cid]struct{}, limit *int64, shallow bool) error {
	how := modeDAG
	if shallow {
		how = modeBlocks
	}
	s, err := x.net.Open(ctx, from, Protocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	_ = s.SetDeadline(x.now().Add(frameTime))
	if _, err := s.Write(request{how, roots}.encode()); err != nil {
		return err
	}
	x.stats.requests.Add(1)
	r := wireReader{bufio.NewReaderSize(s, 64<<10)}
	var batch []grid.Block
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := x.blocks.Put(ctx, batch...)
		batch, size = nil, 0
		return err
	}
	for {
		_ = s.SetDeadline(x.now().Add(frameTime))
		f, err := r.frame(func(n int) error {
			if *limit -= int64(n); *limit < 0 {
				return grid.Errorf(grid.Limit, "more bytes than are allowed")
			}
			_ = s.SetDeadline(x.now().Add(frameTime + time.Duration(n)*time.Second/frameRate))
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		switch f.typ {
		case frameBlock:
			if _, again := got[f.cid]; again {
				continue // another request has brought it
			}
			if _, asked := want[f.cid]; !asked {
				return malformed("a block that was not asked for")
			}
			b, err := grid.VerifyBlock(f.cid, f.data)
			if err != nil {
				return err
			}
			delete(want, f.cid)
			got[f.cid] = struct{}{}
			var links []cid.Cid
			if !shallow {
				if links, err = dag.Links(f.cid, f.data); err != nil {
					return err
				}
			}
			for _, c := range links {
				if _, has := got[c]; !has {
					want[c] = struct{}{}
				}
			}
			if len(got)+len(want) > maxVisited {
				return grid.Errorf(grid.Limit, "more than %d blocks", maxVisited)
			}
			x.stats.blocksIn.Add(1)
			x.stats.bytesIn.Add(uint64(len(f.data)))
			if batch, size = append(batch, b), size+len(f.data); size >= batchBytes || len(batch) >= batchBlocks {
				if err := flush(); err != nil {
					return err
				}
			}
		case frameMissing:
			return grid.Errorf(grid.NotFound, "it does not have %s, or does not give it", f.cid)
		case frameRefused:
			return f.err
		case frameEnd:
			if err := flush(); err != nil {
				return err
			}
			if len(want) > 0 {
				return malformed("the end comes before all that was asked for")
			}
			_ = s.SetDeadline(x.now().Add(frameTime))
			return s.Close()
		}
	}
}
