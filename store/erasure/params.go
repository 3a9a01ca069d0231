package erasure

import (
	"fmt"

	"github.com/klauspost/reedsolomon"

	"github.com/wasmgrid/wasmgrid/grid"
)

// MaxColumns bounds K+M: as many nodes are needed for one DAG, and a rebuilt block needs K others.
const MaxColumns = grid.MaxCopies

// Params say how a DAG is coded: a group has up to K data blocks, and M parity blocks.
type Params struct {
	K, M int
}

// String is the form "4+2".
func (p Params) String() string { return fmt.Sprintf("%d+%d", p.K, p.M) }

// Check refuses what cannot be coded.
func (p Params) Check() error {
	if p.K < 1 || p.M < 1 || p.K > MaxColumns || p.M > MaxColumns || p.K+p.M > MaxColumns {
		return grid.Errorf(grid.Invalid, "%s is not a way to code a DAG", p).
			Hint("have at least one block on each side of the plus, and at most %d together", MaxColumns)
	}
	return nil
}

// Columns is how many nodes the DAG is spread over.
func (p Params) Columns() int { return p.K + p.M }

// Column is where block i of a group belongs: its data blocks are numbered from 0, its parity blocks from K.
// Columns turn by one from group to group, so that all keep, serve and mend about as much.
func (p Params) Column(group, i int) int { return (group + i) % p.Columns() }

// slot is the block of a group that belongs to a column.
func (p Params) slot(group, column int) int {
	return ((column-group)%p.Columns() + p.Columns()) % p.Columns()
}

// coder does the arithmetic. Groups are worked on in parallel, so that it needs no goroutines of its own.
func (p Params) coder() (*coder, error) {
	rs, err := reedsolomon.New(p.K, p.M, reedsolomon.WithCauchyMatrix(), reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "Reed-Solomon code %s: %w", p, err)
	}
	return &coder{rs.(arithmetic), p}, nil
}

type arithmetic interface {
	reedsolomon.Encoder
	reedsolomon.Extensions
}

// coder adds blocks one by one to sums that begin as zeros. A block that is shorter than a sum counts as if
// zeros followed, which add nothing: no block is ever copied to be filled up.
type coder struct {
	rs arithmetic
	p  Params
}

// encode adds data block i to the parity blocks.
func (c *coder) encode(data []byte, i int, parity [][]byte) error {
	if len(data) == 0 {
		return nil
	}
	return c.rs.EncodeIdx(data, i, cut(parity, len(data)))
}

// decode adds block i to the blocks that are being rebuilt; those that are not are nil. from marks the K
// blocks that will be added, counting those that are not there because the group has fewer than K.
func (c *coder) decode(data []byte, i int, from []bool, sums [][]byte) error {
	if len(data) == 0 {
		return nil
	}
	in := make([][]byte, c.p.Columns())
	in[i] = data
	return c.rs.DecodeIdx(cut(sums, len(data)), from, in)
}

func cut(all [][]byte, n int) [][]byte {
	short := make([][]byte, len(all))
	for i, b := range all {
		if b != nil {
			short[i] = b[:n]
		}
	}
	return short
}
