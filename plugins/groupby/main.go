// Groupby answers questions of the kind of SQL's GROUP BY about CSV files, which begin with the names of their columns:
//
//	SELECT country, count(*), avg(price) FROM files WHERE price > 0 GROUP BY country ORDER BY 2 DESC LIMIT 10
//
// The map function groups the rows of a task's files, reduce puts together what all tasks have of a group, and order sorts
// the groups, for which it takes all of them.
//
// It is the lesson on keys whose values are more than a number, and on combining: rows are put together where they are, and
// only groups travel.
package main

import (
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var (
	by     = flag.String("by", "", "the columns whose values make a group, with commas")
	aggs   = flag.String("agg", "count", "what to tell of a group, with commas: count, or count, sum, min, max or avg of a column, as in avg(price)")
	header = flag.Bool("header", true, "print a line of names first")
	column = flag.Int("order", 1, "sort by this column of the result, the first is 1")
	desc   = flag.Bool("desc", false, "sort the largest first")
	limit  = flag.Int("limit", 0, "print at most so many groups; 0: all")
)

func main() {
	sdk.Main(
		sdk.Map("map", combine, group).Doc("Groups the rows of CSV files by -by, and computes -agg of each group."),
		sdk.Reduce("reduce", combine, table).Doc("Puts groups of all tasks together, and prints them as CSV."),
		sdk.Do("order", order).Doc("Sorts what reduce tasks have printed with -header=false, and prints the first ones."),
	)
}

// cells are what is known of a group: a cell for each aggregate. It travels as [[2,7.5],...].
type cells [][2]float64

// A cell has the number of its values, and their sum, or the least or the greatest of them.
const (
	number = iota
	value
)

// combine puts two parts of one group together. Sums of floating-point numbers may differ in their last digits when rows
// are shared out among tasks otherwise; the same files in the same groups give the same.
func combine(a, b cells) cells {
	for i, f := range aggregates() {
		if i >= len(a) || i >= len(b) {
			break // of another -agg; table says so
		}
		a[i] = f.combine(a[i], b[i])
	}
	return a
}

// group is called for each file.
func group(ctx sdk.Context, in *sdk.Input, out *sdk.Emitter[cells]) error {
	rows := csv.NewReader(in)
	rows.ReuseRecord = true
	first, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	q, err := plan(slices.Clone(first))
	if err != nil {
		return err
	}
	var taken, seen uint64
	defer func() {
		ctx.Count("rows", seen)
		ctx.Count("rows_taken", taken)
		ctx.Count("not_numbers", q.strange)
	}()
	var key []byte // one for all rows; the emitter copies what is new
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if seen++; q.takes(row) {
			taken++
			key = q.appendKey(key[:0], row)
			out.EmitBytes(key, q.cells(row))
		}
	}
}

// table is called once in a task, with the groups in order of their keys, which are lines of CSV.
func table(ctx sdk.Context, all iter.Seq2[string, cells]) error {
	if *header {
		printHeader(ctx)
	}
	fs := aggregates()
	for key, c := range all {
		if len(c) != len(fs) {
			return fmt.Errorf("group %q has %d aggregates, want %d: -agg must be the same in all stages", key, len(c), len(fs))
		}
		line := key
		for i, f := range fs {
			if line += f.print(c[i]); i < len(fs)-1 {
				line += ","
			}
		}
		if _, err := fmt.Fprintln(ctx.Stdout(), line); err != nil {
			return err
		}
	}
	return nil
}

func printHeader(ctx sdk.Context) {
	var names []string
	if *by != "" {
		names = strings.Split(*by, ",")
	}
	for _, f := range aggregates() {
		names = append(names, f.text)
	}
	w := csv.NewWriter(ctx.Stdout())
	w.Write(names)
	w.Flush()
}

// order sorts the groups of all parts.
func order(ctx sdk.Context) error {
	var rows [][]string
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		part, err := csv.NewReader(in).ReadAll()
		if err != nil {
			return err
		}
		rows = append(rows, part...)
	}
	if len(rows) > 0 && (*column < 1 || *column > len(rows[0])) {
		return fmt.Errorf("-order %d: there are %d columns", *column, len(rows[0]))
	}
	// Rows that are equal stay in the order of all their fields, so that it does not matter which part they come from.
	slices.SortFunc(rows, slices.Compare)
	slices.SortStableFunc(rows, func(a, b []string) int {
		if c := compare(a[*column-1], b[*column-1]); !*desc {
			return c
		} else {
			return -c
		}
	})
	if *limit > 0 {
		rows = rows[:min(*limit, len(rows))]
	}
	if *header {
		printHeader(ctx)
	}
	return csv.NewWriter(ctx.Stdout()).WriteAll(rows)
}
