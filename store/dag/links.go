package dag

import (
	"context"
	"encoding/binary"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Links lists the CIDs that a block links to, in the order in which they stand there, repeated where they
// are repeated. It knows the codecs raw, DAG-PB and DAG-CBOR; the error is Unsupported for others and
// Invalid for a malformed block.
func Links(c cid.Cid, data []byte) ([]cid.Cid, error) {
	switch codec := c.Prefix().Codec; codec {
	case cid.Raw:
		return nil, nil
	case cid.DagProtobuf:
		links, err := pbLinks(data)
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "links of %s: %w", c, err)
		}
		return links, nil
	case cid.DagCBOR:
		links, err := cborLinks(data)
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "links of %s: %w", c, err)
		}
		return links, nil
	default:
		return nil, grid.Errorf(grid.Unsupported, "links of %s: codec 0x%x is not known here", c, codec)
	}
}

func pbLinks(block []byte) (links []cid.Cid, err error) {
	err = fields(block, func(num protowire.Number, typ protowire.Type, _ uint64, b []byte) error {
		if num != 2 || typ != protowire.BytesType {
			return nil
		}
		l, err := decodeLink(b)
		links = append(links, l.CID)
		return err
	})
	return links, err
}

// maxNesting is how deep arrays, maps and tags may lie in one another.
const maxNesting = 64

// cborLinks finds every tag 42 in a DAG-CBOR block, without decoding the rest of it.
func cborLinks(data []byte) ([]cid.Cid, error) {
	s := cborScan{rest: data}
	if err := s.item(0); err != nil {
		return nil, err
	}
	if len(s.rest) > 0 {
		return nil, grid.Errorf(grid.Invalid, "malformed DAG-CBOR: %d bytes behind the end", len(s.rest))
	}
	return s.links, nil
}

type cborScan struct {
	rest  []byte
	links []cid.Cid
}

func (s *cborScan) fail(what string) error {
	return grid.Errorf(grid.Invalid, "malformed DAG-CBOR: %s", what)
}

// head reads the major type and argument that every item begins with.
func (s *cborScan) head() (major byte, arg uint64, err error) {
	if len(s.rest) == 0 {
		return 0, 0, s.fail("it ends too early")
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	major, info := b>>5, b&31
	if info < 24 {
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, s.fail("an indefinite or reserved length")
	}
	n := 1 << (info - 24)
	if len(s.rest) < n {
		return 0, 0, s.fail("it ends too early")
	}
	var buf [8]byte
	copy(buf[8-n:], s.rest[:n])
	s.rest = s.rest[n:]
	return major, binary.BigEndian.Uint64(buf[:]), nil
}

// item skips one item and what is in it, keeping links.
func (s *cborScan) item(depth int) error {
	if depth > maxNesting {
		return s.fail("nested too deeply")
	}
	major, arg, err := s.head()
	if err != nil {
		return err
	}
	switch major {
	case 2, 3: // bytes, text
		if arg > uint64(len(s.rest)) {
			return s.fail("a string runs past the end")
		}
		s.rest = s.rest[arg:]
	case 4, 5: // array, map
		if arg > uint64(len(s.rest)) { // each item has at least one byte
			return s.fail("an array or map runs past the end")
		}
		for range arg << (major - 4) {
			if err := s.item(depth + 1); err != nil {
				return err
			}
		}
	case 6:
		if arg == 42 {
			return s.link()
		}
		return s.item(depth + 1)
	}
	return nil
}

func (s *cborScan) link() error {
	major, n, err := s.head()
	if err != nil {
		return err
	}
	if major != 2 || n < 2 || n > uint64(len(s.rest)) || s.rest[0] != 0 {
		return s.fail("tag 42 is not on a CID")
	}
	c, err := cid.Cast(s.rest[1:n])
	if err != nil {
		return s.fail("tag 42 is not on a CID")
	}
	s.links = append(s.links, c)
	s.rest = s.rest[n:]
	return nil
}

// Walk visits root and everything below it that it links to, each block once, depth first, links in
// their order: the order in which the exchange sends them. An error of visit, of a block that is not
// here, or of one that is malformed ends it. The data given to visit is read-only.
func Walk(ctx context.Context, blocks grid.Blocks, root cid.Cid, visit func(cid.Cid, []byte) error) error {
	seen := map[cid.Cid]struct{}{}
	stack := []cid.Cid{root}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := seen[c]; ok {
			continue
		}
		seen[c] = struct{}{}
		data, err := blocks.Get(ctx, c)
		if err != nil {
			return err
		}
		if err := visit(c, data); err != nil {
			return err
		}
		links, err := Links(c, data)
		if err != nil {
			return err
		}
		for i := len(links) - 1; i >= 0; i-- {
			if _, ok := seen[links[i]]; !ok {
				stack = append(stack, links[i])
			}
		}
	}
	return nil
}

// Survey looks for everything below root and tells what is not here, at most most of it, and how many bytes
// what is here has. Leaves are not read: the size of one is what the block that links to it says.
func Survey(ctx context.Context, blocks grid.Blocks, root cid.Cid, most int) (missing []cid.Cid, bytes int64, err error) {
	type ref struct {
		cid  cid.Cid
		size uint64 // of a leaf; 0: not known
	}
	seen := map[cid.Cid]struct{}{}
	stack := []ref{{cid: root}}
	for len(stack) > 0 && len(missing) < most {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := seen[at.cid]; ok {
			continue
		}
		seen[at.cid] = struct{}{}
		if at.cid.Prefix().Codec == cid.Raw && at.size > 0 {
			here, err := blocks.Has(ctx, at.cid)
			if err != nil {
				return nil, 0, err
			}
			if !here {
				missing = append(missing, at.cid)
			}
			bytes += int64(min(at.size, grid.MaxBlock))
			continue
		}
		data, err := blocks.Get(ctx, at.cid)
		if code := grid.CodeOf(err); code == grid.NotFound || code == grid.Corrupt {
			missing = append(missing, at.cid)
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		bytes += int64(len(data))
		if at.cid.Prefix().Codec == cid.DagProtobuf {
			n, err := decodePB(data)
			if err != nil {
				return nil, 0, grid.Errorf(grid.Invalid, "links of %s: %w", at.cid, err)
			}
			for _, l := range n.links {
				stack = append(stack, ref{l.CID, l.Size})
			}
			continue
		}
		links, err := Links(at.cid, data)
		if err != nil {
			return nil, 0, err
		}
		for _, l := range links {
			stack = append(stack, ref{cid: l})
		}
	}
	return missing, bytes, nil
}
