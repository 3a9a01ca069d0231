// Wordcount counts the words of many files. Its map function counts those of a task's inputs; its
// reduce function adds the counts up, prints the most frequent words and leaves the whole table in
// counts.tsv. A word is a run of letters and digits; case does not matter.
//
// It is the lesson to start with: a program for the grid is a main that registers functions.
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"iter"
	"slices"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// Flags work as in any program; a stage's arguments set them.
var top = flag.Int("top", 20, "how many of the most frequent words to print")

func main() {
	sdk.Main(
		sdk.Map("map", add, countWords).Doc("Counts the words of files."),
		sdk.Reduce("reduce", add, printCounts).Doc("Adds counts up, and prints the most frequent words."),
	)
}

// add combines two counts of one word, on both sides of the wire.
func add(a, b int) int { return a + b }

// countWords is called once for each input file.
func countWords(ctx sdk.Context, in *sdk.Input, out *sdk.Emitter[int]) error {
	text, err := in.Bytes()
	if err != nil {
		return err
	}
	sdk.Words(text, func(word []byte) { out.EmitBytes(word, 1) })
	ctx.Count("bytes", uint64(len(text))) // added up over all tasks, for who looks at the job
	return nil
}

// printCounts is called once, with every word in order and its count.
func printCounts(ctx sdk.Context, all iter.Seq2[string, int]) error {
	type count struct {
		word string
		n    int
	}
	var counts []count
	for word, n := range all {
		counts = append(counts, count{word, n})
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.word, b.word))
	})

	// What is printed is the task's result.
	for _, c := range counts[:min(max(*top, 0), len(counts))] {
		fmt.Fprintf(ctx.Stdout(), "%10d %s\n", c.n, c.word)
	}

	// Files come back beside it.
	f, err := ctx.Create("counts.tsv")
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, c := range counts {
		fmt.Fprintf(w, "%s\t%d\n", c.word, c.n)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
