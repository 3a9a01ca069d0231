// Pi estimates π by throwing points at a square and counting those that fall into its circle. Its function throw does
// so for one seed, add adds up what other tasks have counted, any number of times, and tell prints the estimate.
//
// It is the lesson for a sweep over parameters, and for a reduction by a tree, whose tasks read what others of their
// kind have printed.
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var (
	seed   = flag.Uint64("seed", 1, "where the random numbers begin")
	points = flag.Uint64("points", 1_000_000, "how many points to throw")
)

func main() {
	sdk.Main(
		sdk.Do("throw", throw).Doc("Throws points, and counts those in the circle."),
		sdk.Do("add", add).Doc("Adds counts up."),
		sdk.Do("tell", tell).Doc("Prints the estimate that counts make."),
	)
}

// count is what tasks print.
type count struct{ hits, points uint64 }

func (c count) print(ctx sdk.Context) error {
	_, err := fmt.Fprintln(ctx.Stdout(), c.hits, c.points)
	return err
}

func throw(ctx sdk.Context) error {
	r := rand.New(rand.NewPCG(*seed, 0))
	c := count{points: *points}
	for range c.points {
		x, y := r.Float64(), r.Float64()
		if x*x+y*y < 1 {
			c.hits++
		}
	}
	return c.print(ctx)
}

// sum reads what other tasks have counted.
func sum(ctx sdk.Context) (all count, err error) {
	for in, err := range ctx.Inputs() {
		if err != nil {
			return all, err
		}
		var c count
		if _, err := fmt.Fscan(in, &c.hits, &c.points); err != nil {
			return all, fmt.Errorf("want two numbers: %w", err)
		}
		all.hits += c.hits
		all.points += c.points
	}
	return all, nil
}

func add(ctx sdk.Context) error {
	all, err := sum(ctx)
	if err != nil {
		return err
	}
	return all.print(ctx)
}

func tell(ctx sdk.Context) error {
	all, err := sum(ctx)
	if err != nil {
		return err
	}
	if all.points == 0 {
		return fmt.Errorf("no points were thrown")
	}
	share := float64(all.hits) / float64(all.points)
	spread := 4 * math.Sqrt(share*(1-share)/float64(all.points))
	_, err = fmt.Fprintf(ctx.Stdout(), "%.6f, give or take %.6f, from %d points\n", 4*share, spread, all.points)
	return err
}
