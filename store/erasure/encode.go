package erasure

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// maxBuffers bounds the memory in which blocks are coded, in bytes.
const maxBuffers = 128 << 20

// workers is how many groups are worked on at a time, when each has n blocks in memory.
func workers(n int) int {
	return max(1, min(runtime.GOMAXPROCS(0), 8, maxBuffers/(n*grid.MaxBlock)))
}

// Encode codes the DAG of root, all of which must be here: it stores parity blocks and the manifest. They
// survive a crash once Blocks.Sync has returned. Equal DAGs and parameters give equal manifests. The error
// names a block that is not here; what has been stored by then stays.
//
// It works on one group per core, M+1 blocks of each in memory, besides some 200 bytes for each block of
// the DAG.
func Encode(ctx context.Context, blocks grid.Blocks, root cid.Cid, p Params) (*Manifest, error) {
	m, err := encode(ctx, blocks, root, p)
	if err != nil {
		return nil, grid.Errorf(codeOf(err), "store: code %s: %w", root, err)
	}
	return m, nil
}

func encode(ctx context.Context, blocks grid.Blocks, root cid.Cid, p Params) (*Manifest, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	rs, err := p.coder()
	if err != nil {
		return nil, err
	}
	m := &Manifest{params: p, root: root}
	if m.index, m.data, err = scan(ctx, blocks, root); err != nil {
		return nil, err
	}
	// Longest first, else in the order of the walk: a group's blocks are of one size or nearly, and the group
	// that may be incomplete is the one of the shortest.
	slices.SortStableFunc(m.data, func(a, b entry) int { return int(b.size) - int(a.size) })
	groups := (len(m.data) + p.K - 1) / p.K
	m.parity, m.longest = make([]digest, groups*p.M), make([]uint32, groups)
	if err := m.bound(); err != nil {
		return nil, err
	}

	var next atomic.Int64
	work, ctx2 := errgroup.WithContext(ctx)
	for range min(workers(p.M+1), groups) {
		work.Go(func() error {
			bufs := make([][]byte, p.M)
			for g := int(next.Add(1)) - 1; g < groups; g = int(next.Add(1)) - 1 {
				if err := m.encodeGroup(ctx2, blocks, rs, g, bufs); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	for _, list := range [][]entry{m.index, m.data} {
		for _, e := range list {
			m.bytes += uint64(e.size)
		}
	}
	return m, m.encode(func(b grid.Block) error { return blocks.Put(ctx, b) })
}

// encodeGroup stores the parity of a group, and notes digests and lengths. It sums up in bufs.
func (m *Manifest) encodeGroup(ctx context.Context, blocks grid.Blocks, rs *coder, g int, bufs [][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data := m.group(g)
	longest := 0
	for i := range data {
		b, err := blocks.Get(ctx, data[i].cid)
		if err != nil {
			return err
		}
		data[i].size = uint32(len(b)) // until now it was what the DAG claims
		if len(b) > longest {
			for j := range bufs {
				bufs[j] = slices.Grow(bufs[j][:longest], len(b)-longest)[:len(b)]
				clear(bufs[j][longest:])
			}
			longest = len(b)
		}
		if err := rs.encode(b, i, bufs); err != nil {
			return grid.Errorf(grid.Internal, "%w", err)
		}
	}
	m.longest[g] = uint32(longest)
	parity := make([]grid.Block, len(bufs))
	for j := range bufs {
		parity[j] = grid.NewBlock(cid.Raw, bufs[j][:longest])
		m.parity[g*len(bufs)+j] = digestOf(parity[j].CID())
	}
	return blocks.Put(ctx, parity...)
}

// What scan knows of a block: under which codecs it has been visited, and which list it is in.
const (
	asRaw = 1 << iota
	asPB
	asCBOR
	isData
	isIndex
)

// scan lists the blocks of a DAG, in the order of dag.Walk. A raw block is not read when the node above it
// claims its length: it is read later anyway, and a false claim does no more than to put it into a group
// with blocks of other lengths. Each block is listed once, even when it is linked under several codecs.
func scan(ctx context.Context, blocks grid.Blocks, root cid.Cid) (index, data []entry, err error) {
	type link struct {
		cid   cid.Cid
		size  uint32
		known bool
	}
	seen := map[digest]uint8{}
	for stack := []link{{cid: root}}; len(stack) > 0; {
		l := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if err := grid.CheckCID(l.cid); err != nil {
			return nil, nil, err
		}
		var as uint8
		switch codec := l.cid.Prefix().Codec; codec {
		case cid.Raw:
			as = asRaw
		case cid.DagProtobuf:
			as = asPB
		case cid.DagCBOR:
			as = asCBOR
		default:
			return nil, nil, grid.Errorf(grid.Unsupported, "block %s: codec 0x%x is not known here", l.cid, codec)
		}
		d := digestOf(l.cid)
		state := seen[d]
		if state&as != 0 {
			continue
		}
		state |= as
		var links []cid.Cid
		if as != asRaw || !l.known {
			b, err := blocks.Get(ctx, l.cid)
			if err != nil {
				return nil, nil, err
			}
			if links, err = dag.Links(l.cid, b); err != nil {
				return nil, nil, err
			}
			sizes := dag.Sizes(l.cid, b)
			for i := len(links) - 1; i >= 0; i-- {
				below := link{cid: links[i]}
				if i < len(sizes) && sizes[i] > 0 && sizes[i] <= grid.MaxBlock { // some writers leave it out
					below.size, below.known = uint32(sizes[i]), true
				}
				stack = append(stack, below)
			}
			l.size = uint32(len(b))
		}
		switch {
		case len(links) > 0 && state&isIndex == 0:
			index = append(index, entry{l.cid, l.size})
			state |= isIndex
		case len(links) == 0 && state&(isIndex|isData) == 0:
			data = append(data, entry{l.cid, l.size})
			state |= isData
		}
		seen[d] = state
		if len(index)+len(data) > maxListed {
			return nil, nil, tooLarge()
		}
	}
	data = slices.DeleteFunc(data, func(e entry) bool { return seen[digestOf(e.cid)]&isIndex != 0 })
	return index, data, nil
}
