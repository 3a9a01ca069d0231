// Pi estimates π by throwing points at a square and counting those that fall into its circle. Its function throw does
// so for one seed, add adds up what other tasks have counted, any number of times, and tell prints the estimate.
//
// It is the lesson for a sweep over parameters, and for a reduction by a tree, whose tasks read what others of their
// kind have printed: values of one type, as JSON.
package main

import (
	"errors"
	"flag"
	"fmt"
	"iter"
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
		sdk.Func("throw", throw).Doc("Throws points, and counts those in the circle."),
		sdk.Stream("add", add).Doc("Adds counts up."),
		sdk.Stream("tell", tell).Doc("Prints the estimate that counts make."),
	)
}

// Count is what tasks tell one another.
type Count struct {
	Hits   uint64 `json:"hits" doc:"Points in the circle."`
	Points uint64 `json:"points" doc:"All points."`
}

// throw takes nothing but its flags. A job sweeps over the seeds.
func throw(ctx sdk.Context, _ struct{}) (Count, error) {
	r := rand.New(rand.NewPCG(*seed, 0))
	c := Count{Points: *points}
	for i := range c.Points {
		if i%1_000_000 == 0 {
			ctx.Progress(i, c.Points)
		}
		x, y := r.Float64(), r.Float64()
		if x*x+y*y < 1 {
			c.Hits++
		}
	}
	ctx.Count("points", c.Points)
	return c, nil
}

// sum reads what other tasks have counted. A stream does not mind how many of them there are.
func sum(counts iter.Seq2[Count, error]) (all Count, err error) {
	for c, err := range counts {
		if err != nil {
			return all, err
		}
		all.Hits += c.Hits
		all.Points += c.Points
	}
	return all, nil
}

// add gives what it takes, so that its results can be added up again.
func add(_ sdk.Context, counts iter.Seq2[Count, error], emit func(Count) error) error {
	all, err := sum(counts)
	if err != nil {
		return err
	}
	return emit(all)
}

// tell gives a text, which is printed as it is.
func tell(_ sdk.Context, counts iter.Seq2[Count, error], emit func(string) error) error {
	all, err := sum(counts)
	if err != nil {
		return err
	}
	if all.Points == 0 {
		return errors.New("no points were thrown")
	}
	share := float64(all.Hits) / float64(all.Points)
	spread := 4 * math.Sqrt(share*(1-share)/float64(all.Points))
	return emit(fmt.Sprintf("%.6f, give or take %.6f, from %d points", 4*share, spread, all.Points))
}
