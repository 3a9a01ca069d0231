package grid

import (
	"encoding/binary"
	"math/bits"

	"github.com/ipfs/go-cid"
)

// Summary is a compact, inexact set of DAGs by their roots, a Bloom filter: what was added is always found, and a
// few others, too. The zero Summary is empty. Its length is a power of two.
//
// See B. H. Bloom, Space/Time Trade-offs in Hash Coding with Allowable Errors (1970), with the two hashes of
// A. Kirsch and M. Mitzenmacher, Less Hashing, Same Performance (2006).
type Summary []byte

const (
	// MaxSummary bounds a summary, in bytes.
	MaxSummary = 8 << 10

	summaryBits   = 10 // of a summary for each root, for one in a hundred that is found by mistake
	summaryHashes = 7
)

// RootHash stands for a root in summaries and hints. It is never 0.
func RootHash(c cid.Cid) uint64 {
	b := c.Bytes() // ends with the digest
	var tail [8]byte
	copy(tail[:], b[max(0, len(b)-8):])
	return max(binary.LittleEndian.Uint64(tail[:]), 1)
}

// NewSummary makes a summary that has room for n roots.
func NewSummary(n int) Summary {
	if n <= 0 {
		return nil
	}
	bytes := uint(max(n, 1)*summaryBits+7) / 8
	return make(Summary, min(1<<bits.Len(bytes-1), MaxSummary))
}

// Add adds a root by its RootHash.
func (s Summary) Add(root uint64) {
	for i := range s.places(root) {
		s[i/8] |= 1 << (i % 8)
	}
}

// Has reports whether a root was added, or seems to have been.
func (s Summary) Has(root uint64) bool {
	if len(s) == 0 || root == 0 {
		return false
	}
	for i := range s.places(root) {
		if s[i/8]>>(i%8)&1 == 0 {
			return false
		}
	}
	return true
}

// Check refuses a summary that cannot be one.
func (s Summary) Check() error {
	if n := len(s); n > MaxSummary || n&(n-1) != 0 {
		return Errorf(Invalid, "a summary of %d bytes: want a power of two up to %d", n, MaxSummary)
	}
	return nil
}

func (s Summary) places(root uint64) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		step := bits.RotateLeft64(root, 32) | 1
		for range summaryHashes {
			if !yield(root % (8 * uint64(len(s)))) {
				return
			}
			root += step
		}
	}
}
