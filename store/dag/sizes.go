package dag

import "github.com/ipfs/go-cid"

// Sizes lists, for each of the Links of a block, the size that the block claims for all that is below the
// link; of a link to a raw block that is the block's own size. Nobody has checked the claims. It is nil for
// codecs whose links have no sizes, and for a malformed block.
func Sizes(c cid.Cid, data []byte) (sizes []uint64) {
	if c.Prefix().Codec != cid.DagProtobuf {
		return nil
	}
	links, err := sizedLinks(c, data)
	if err != nil {
		return nil
	}
	for _, l := range links {
		sizes = append(sizes, l.Size)
	}
	return sizes
}
