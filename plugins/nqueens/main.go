// Nqueens counts the ways to put n queens on a board of n by n squares so that none attacks another. It divides the
// boards by where the queens of the first rows stand, and has a task of its own count each part.
//
// It is the lesson on tasks that spawn tasks: a function that calls itself with [sdk.Go], and a cut-off, below which
// the work is not worth a task and is done here and now.
package main

import (
	"flag"
	"fmt"
	"math/bits"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// Flags are the job's. Tasks that are spawned do not see them: what a task is to know travels in its value.
var (
	size = flag.Int("n", 12, "the size of the board, 1 to 20")
	cut  = flag.Int("cut", 2, "in how many rows queens are put before the rest of a board is one task's")
)

// A function that is made here, and not in main, is made once for all tasks, which begin the sooner.
var counting = sdk.Func("count", count).Doc("Counts the ways to complete a board.")

func main() {
	sdk.Main(
		sdk.Do("queens", queens).Doc("Prints in how many ways the queens can be put."),
		counting,
	)
}

// Board is a board whose first rows have their queens. The sets have a bit for each column.
type Board struct {
	N, Cut int
	Row    int    // the next one
	Taken  uint32 // columns that have a queen
	Left   uint32 // squares of this row that one attacks from the right
	Right  uint32 // and from the left
}

// queens is what the job runs.
func queens(ctx sdk.Context) error {
	if *size < 1 || *size > 20 || *cut < 0 {
		return fmt.Errorf("-n %d -cut %d: want a board of 1 to 20 rows", *size, *cut)
	}
	n, err := count(ctx, Board{N: *size, Cut: *cut})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(ctx.Stdout(), n)
	return err
}

// count counts the ways to complete a board. Until the cut-off each place in the row makes a board that is another
// task's, and all of these run at once.
func count(ctx sdk.Context, b Board) (uint64, error) {
	if b.Row >= b.Cut || b.Row == b.N {
		return b.solve(), nil
	}
	var parts []*sdk.Promise[uint64]
	for free := b.free(); free != 0; free &= free - 1 {
		parts = append(parts, sdk.Go(ctx, count, b.with(free&-free)))
	}
	var sum uint64
	for i, p := range parts {
		n, err := p.Await()
		if err != nil {
			return 0, err
		}
		sum += n
		ctx.Progress(uint64(i+1), uint64(len(parts)))
	}
	return sum, nil
}

// free is where a queen may be put in the next row.
func (b *Board) free() uint32 { return (1<<b.N - 1) &^ (b.Taken | b.Left | b.Right) }

// with is the board with one more queen.
func (b *Board) with(queen uint32) Board {
	next := *b
	next.Row++
	next.Taken |= queen
	next.Left, next.Right = (b.Left|queen)<<1, (b.Right|queen)>>1
	return next
}

// solve counts by trying.
func (b *Board) solve() uint64 {
	if b.Row == b.N {
		return 1
	}
	if b.Row == b.N-1 {
		return uint64(bits.OnesCount32(b.free()))
	}
	var sum uint64
	for free := b.free(); free != 0; free &= free - 1 {
		next := b.with(free & -free)
		sum += next.solve()
	}
	return sum
}
