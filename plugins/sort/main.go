// Sort sorts records of 100 bytes by their first ten, on many machines: more of them than one machine could hold. It
// makes the records itself and checks the outcome, as the sort benchmarks do.
//
//	generate  makes records; each task its own
//	sample    picks some keys of what a task has made
//	bounds    picks, from all samples, the keys that part the records into equal shares
//	partition deals a task's records out into those shares
//	sort      sorts one share, from all tasks
//	sum       counts records and sums their hashes up, and tells whether they are in order
//	check     compares the sums of what was made with those of what was sorted
//
// It is the lesson for a shuffle whose parts the tasks make themselves.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk"
)

const (
	keySize    = 10
	recordSize = 100
)

var (
	records = flag.Int("records", 10_000, "how many records a task makes")
	parts   = flag.Int("parts", 4, "in how many shares records are sorted")
	every   = flag.Int("every", 100, "of how many records one is a sample")
)

func main() {
	sdk.Main(
		sdk.Do("generate", generate).Doc("Makes records."),
		sdk.Do("sample", sample).Doc("Picks some keys of a task's records."),
		sdk.Do("bounds", bounds).Doc("Picks the keys that part the records into equal shares."),
		sdk.Do("partition", partition).Doc("Deals records out into shares."),
		sdk.Do("sort", sortShare).Doc("Sorts one share."),
		sdk.Do("sum", sum).Doc("Counts records, sums their hashes up, and tells whether they are in order."),
		sdk.Do("check", check).Doc("Compares the sums of what was made with those of what was sorted."),
	)
}

// generate makes the records of one task. They depend on nothing but its number.
func generate(ctx sdk.Context) error {
	number, err := strconv.ParseUint(ctx.Number(), 10, 32)
	if err != nil {
		return fmt.Errorf("the task has no number: %w", err)
	}
	r := rand.New(rand.NewPCG(number, recordSize))
	w := bufio.NewWriterSize(ctx.Stdout(), 64<<10)
	rec := make([]byte, recordSize)
	for i := range *records {
		for k := range keySize {
			rec[k] = byte(r.Uint32())
		}
		copy(rec[keySize:], fmt.Sprintf("%010d.%010d", number, i))
		for k := keySize + 21; k < recordSize; k++ {
			rec[k] = 'A' + byte((i+k)%26)
		}
		if _, err := w.Write(rec); err != nil {
			return err
		}
	}
	ctx.Count("records_made", uint64(*records))
	return w.Flush()
}

// each calls f with every record of a file. f must not keep it.
func each(in io.Reader, f func(rec []byte) error) error {
	r := bufio.NewReaderSize(in, 64<<10)
	rec := make([]byte, recordSize)
	for {
		switch _, err := io.ReadFull(r, rec); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("a record is cut short: %w", err)
		}
		if err := f(rec); err != nil {
			return err
		}
	}
}

// sample picks keys.
func sample(ctx sdk.Context) error {
	w := bufio.NewWriter(ctx.Stdout())
	n := 0
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		if err := each(in, func(rec []byte) error {
			if n++; (n-1)%max(*every, 1) == 0 {
				w.Write(rec[:keySize])
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return w.Flush()
}

// bounds picks the first keys of all shares but the first.
func bounds(ctx sdk.Context) error {
	var keys [][keySize]byte
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		text, err := in.Bytes()
		if err != nil {
			return err
		}
		for len(text) >= keySize {
			keys = append(keys, [keySize]byte(text))
			text = text[keySize:]
		}
	}
	slices.SortFunc(keys, func(a, b [keySize]byte) int { return bytes.Compare(a[:], b[:]) })
	for i := 1; i < *parts; i++ {
		var key [keySize]byte
		if len(keys) > 0 {
			key = keys[i*len(keys) / *parts]
		}
		if _, err := ctx.Stdout().Write(key[:]); err != nil {
			return err
		}
	}
	return nil
}

// partition deals records out by the bounds, which are in the folder bounds. The share of part N goes into the file that
// has N for its name, in seven digits: so the grid knows whose input it is.
func partition(ctx sdk.Context) error {
	var keys []byte
	shares := make([]bytes.Buffer, *parts)
	for in, err := range ctx.Inputs() { // in order of names
		if err != nil {
			return err
		}
		if strings.HasPrefix(in.Name, "bounds/") {
			text, err := in.Bytes()
			if err != nil {
				return err
			}
			keys = slices.Clone(text)
			continue
		}
		if len(keys) != (*parts-1)*keySize {
			return fmt.Errorf("there are %d bytes of bounds, want %d", len(keys), (*parts-1)*keySize)
		}
		if err := each(in, func(rec []byte) error {
			lo, hi := 0, *parts-1 // the share is the number of bounds that are not above the key
			for lo < hi {
				if mid := (lo + hi) / 2; bytes.Compare(keys[mid*keySize:][:keySize], rec[:keySize]) <= 0 {
					lo = mid + 1
				} else {
					hi = mid
				}
			}
			shares[lo].Write(rec)
			return nil
		}); err != nil {
			return err
		}
	}
	for i := range shares {
		if shares[i].Len() == 0 {
			continue
		}
		f, err := ctx.Create(fmt.Sprintf("%07d", i))
		if err != nil {
			return err
		}
		if _, err := f.Write(shares[i].Bytes()); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// sortShare sorts what all tasks have put into one share.
func sortShare(ctx sdk.Context) error {
	var all []byte
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		text, err := in.Bytes()
		if err != nil {
			return err
		}
		all = append(all, text...)
	}
	if len(all)%recordSize != 0 {
		return fmt.Errorf("%d bytes are no whole records", len(all))
	}
	order := make([]int32, len(all)/recordSize)
	for i := range order {
		order[i] = int32(i)
	}
	rec := func(i int32) []byte { return all[int(i)*recordSize:][:recordSize] }
	ctx.Progress(0, uint64(len(order)))
	slices.SortFunc(order, func(a, b int32) int { return bytes.Compare(rec(a), rec(b)) })
	w := bufio.NewWriterSize(ctx.Stdout(), 64<<10)
	for _, i := range order {
		if _, err := w.Write(rec(i)); err != nil {
			return err
		}
	}
	ctx.Progress(uint64(len(order)), uint64(len(order)))
	ctx.Count("records_sorted", uint64(len(order)))
	return w.Flush()
}

// total is what there is to say of many records.
type total struct {
	count, hash uint64 // hashes are added up, so that the order does not matter
	sorted      bool
	first, last []byte // keys
}

func (s total) String() string {
	return fmt.Sprintf("%d %016x %t %x. %x.", s.count, s.hash, s.sorted, s.first, s.last)
}

// sum tells about a task's records.
func sum(ctx sdk.Context) error {
	s := total{sorted: true}
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		if err := each(in, func(rec []byte) error {
			key := rec[:keySize]
			s.sorted = s.sorted && bytes.Compare(s.last, key) <= 0
			if s.count == 0 {
				s.first = slices.Clone(key)
			}
			s.last = append(s.last[:0], key...)
			s.hash += hash(rec)
			s.count++
			return nil
		}); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(ctx.Stdout(), s)
	return err
}

// hash is FNV-1a.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// check compares what was made, in the folder made, with what was sorted, in the folder sorted.
func check(ctx sdk.Context) error {
	var made, sorted total
	for in, err := range ctx.Inputs() { // in order of names, so of shares
		if err != nil {
			return err
		}
		var s total
		var first, last string
		if _, err := fmt.Fscan(in, &s.count, (*hexNumber)(&s.hash), &s.sorted, &first, &last); err != nil {
			return fmt.Errorf("want what sum prints: %w", err)
		}
		to := &made
		if strings.HasPrefix(in.Name, "sorted/") {
			to = &sorted
			switch {
			case !s.sorted:
				return fmt.Errorf("share %s is not in order", in.Name)
			case s.count > 0 && first < string(sorted.last):
				return fmt.Errorf("share %s begins with key %s, but the one before ends with %s", in.Name, first, sorted.last)
			case s.count > 0:
				sorted.last = []byte(last)
			}
		}
		to.count += s.count
		to.hash += s.hash
	}
	if made.count != sorted.count || made.hash != sorted.hash {
		return fmt.Errorf("%d records were made (%016x), but %d are sorted (%016x)", made.count, made.hash, sorted.count, sorted.hash)
	}
	_, err := fmt.Fprintf(ctx.Stdout(), "%d records are in order, checksum %016x\n", sorted.count, sorted.hash)
	return err
}

// hexNumber reads 16 digits.
type hexNumber uint64

// Scan is that of [fmt.Scanner].
func (h *hexNumber) Scan(state fmt.ScanState, _ rune) error {
	word, err := state.Token(true, nil)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(string(word), 16, 64)
	*h = hexNumber(n)
	return err
}
