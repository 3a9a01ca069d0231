// It counts the words of texts: of one, by a typed function, or of any number of files on all nodes, by a map and a reduce.
package main

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// Functions are made here, not in main: so it is done once, and not in every task.
var functions = []sdk.Function{
	sdk.Func("count", count).Doc("Counts the words of one text, and finds the longest."),
	sdk.Map("map", add, countWords).Doc("Counts the words of input files, for reduce."),
	sdk.Reduce("reduce", add, printCounts).Doc("Adds up what map has counted, and prints it in order of words."),
}

func main() { sdk.Main(functions...) }

// Text is what count takes. The plugin's manifest has the JSON schemas of such types.
type Text struct {
	Text string `json:"text"`
}

// Counts is what it gives.
type Counts struct {
	Words   int    `json:"words"`
	Longest string `json:"longest"`
}

// count is for one call: a value in, a value out. An error is told to the caller.
func count(ctx sdk.Context, in Text) (Counts, error) {
	var c Counts
	for word := range strings.FieldsSeq(in.Text) {
		c.Words++
		if len(word) > len(c.Longest) {
			c.Longest = word
		}
	}
	if c.Words == 0 {
		return c, errors.New("there is no word in the text")
	}
	ctx.Logf("counted %d words", c.Words)
	return c, nil
}

// add makes one of two values under the same key, on both sides of the wire.
func add(a, b int) int { return a + b }

// countWords is called for each input file. What it emits is combined by add.
func countWords(_ sdk.Context, in *sdk.Input, out *sdk.Emitter[int]) error {
	text, err := in.Bytes()
	if err != nil {
		return err
	}
	sdk.Words(text, func(word []byte) { out.EmitBytes(word, 1) })
	return nil
}

// printCounts is called once, with every key in order.
func printCounts(ctx sdk.Context, all iter.Seq2[string, int]) error {
	for word, n := range all {
		fmt.Fprintf(ctx.Stdout(), "%d %s\n", n, word)
	}
	return nil
}
