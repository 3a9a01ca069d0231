package dag

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Links lists the CIDs that a block links to, in the order in which they stand there, repeated where they
// are repeated. It knows the codecs raw, DAG-PB and DAG-CBOR; the error is Unsupported for others and
// Invalid for a malformed block.
func Links(c cid.Cid, data []byte) ([]cid.Cid, error) {
	all, err := sizedLinks(c, data)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	links := make([]cid.Cid, len(all))
	for i, l := range all {
		links[i] = l.CID
	}
	return links, nil
}

// sizedLinks is Links with what DAG-PB says about each.
func sizedLinks(c cid.Cid, data []byte) (links []pbLink, err error) {
	switch codec := c.Prefix().Codec; codec {
	case cid.Raw:
		return nil, nil
	case cid.DagProtobuf:
		links, err = pbLinks(data)
	case cid.DagCBOR:
		links, err = cborLinks(data)
	default:
		return nil, grid.Errorf(grid.Unsupported, "links of %s: codec 0x%x is not known here", c, codec)
	}
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "links of %s: %w", c, err)
	}
	return links, nil
}

func pbLinks(block []byte) (links []pbLink, err error) {
	err = fields(block, func(num protowire.Number, typ protowire.Type, _ uint64, b []byte) error {
		if num != 2 || typ != protowire.BytesType {
			return nil
		}
		l, err := decodeLink(b)
		links = append(links, l)
		return err
	})
	return links, err
}

// maxNesting is how deep arrays, maps and tags may lie in one another.
const maxNesting = 64

// cborLinks finds every tag 42 in a DAG-CBOR block, without decoding the rest of it.
func cborLinks(data []byte) ([]pbLink, error) {
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
	links []pbLink
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
	s.links = append(s.links, pbLink{CID: c})
	s.rest = s.rest[n:]
	return nil
}

// Look reports whether a block is here, and its links. A leaf is not read, nor is any block when it is wanted
// shallow, without what is below it. A damaged block is as good as none, and stays: putting it anew heals it, and while it is there, all
// know that something is below it.
func Look(ctx context.Context, blocks grid.Blocks, c cid.Cid, shallow bool, log *slog.Logger) (links []cid.Cid, here bool, err error) {
	if shallow || c.Prefix().Codec == cid.Raw {
		here, err = blocks.Has(ctx, c)
		return nil, here, err
	}
	data, err := blocks.Get(ctx, c)
	switch {
	case err == nil:
		links, err = Links(c, data)
		return links, true, err
	case errors.Is(err, grid.NotFound):
		return nil, false, nil
	case errors.Is(err, grid.Corrupt):
		log.Warn("a damaged block is fetched again", "cid", c, "err", err)
		return nil, false, nil
	}
	return nil, false, err
}
