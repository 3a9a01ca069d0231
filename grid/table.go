package grid

import (
	"context"
	"sort"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
)

// tablePart is how many encoded bytes of rows go into one block of a table.
const tablePart = 256 << 10

// tableIndex is the root block of a table: where each part begins.
type tableIndex struct {
	Rows  uint32     `cbor:"rows"`
	Parts []tableRef `cbor:"parts"`
}

type tableRef struct {
	First uint32 `cbor:"first"` // number of the part's first row
	CID   Link   `cbor:"cid"`   // a DAG-CBOR array of rows
}

// TableWriter stores a long list of records as blocks. Equal lists give equal CIDs.
type TableWriter[T any] struct {
	blocks Blocks
	index  tableIndex
	part   []cbor.RawMessage
	size   int
}

// NewTable begins a table in the given store.
func NewTable[T any](blocks Blocks) *TableWriter[T] { return &TableWriter[T]{blocks: blocks} }

// Add appends a row.
func (w *TableWriter[T]) Add(ctx context.Context, row T) error {
	data, err := Marshal(row)
	if err != nil {
		return Errorf(Internal, "encode row %d of a table: %w", w.index.Rows, err)
	}
	if len(w.part) > 0 && w.size+len(data) > tablePart {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	w.part = append(w.part, data)
	w.size += len(data)
	w.index.Rows++
	return nil
}

func (w *TableWriter[T]) flush(ctx context.Context) error {
	if len(w.part) == 0 {
		return nil
	}
	first := w.index.Rows - uint32(len(w.part))
	b, err := EncodeBlock(w.part)
	if err != nil {
		return Errorf(CodeOf(err), "row %d of a table: %w", first, err)
	}
	if err := w.blocks.Put(ctx, b); err != nil {
		return err
	}
	w.index.Parts = append(w.index.Parts, tableRef{First: first, CID: Link{b.CID()}})
	w.part, w.size = w.part[:0], 0
	return nil
}

// Close stores what is left and returns the table's root.
func (w *TableWriter[T]) Close(ctx context.Context) (Link, error) {
	if err := w.flush(ctx); err != nil {
		return Link{}, err
	}
	b, err := EncodeBlock(w.index)
	if err != nil {
		return Link{}, err
	}
	return Link{b.CID()}, w.blocks.Put(ctx, b)
}

// Table reads a list of records stored as blocks. It is for one goroutine.
type Table[T any] struct {
	get   func(context.Context, cid.Cid) ([]byte, error)
	root  Link
	index tableIndex
	part  int // the one decoded in rows, or -1
	rows  []T
}

// OpenTable reads a table's index. get reads one block; it may fetch it.
func OpenTable[T any](ctx context.Context, get func(context.Context, cid.Cid) ([]byte, error), root Link) (*Table[T], error) {
	t := &Table[T]{get: get, root: root, part: -1}
	data, err := get(ctx, root.Cid)
	if err != nil {
		return nil, Errorf(CodeOf(err), "table %s: %w", root, err)
	}
	if err := Unmarshal(data, &t.index); err != nil {
		return nil, Errorf(Invalid, "table %s: %w", root, err)
	}
	for i, p := range t.index.Parts {
		if i == 0 && p.First != 0 || i > 0 && p.First <= t.index.Parts[i-1].First || p.First >= t.index.Rows {
			return nil, Errorf(Invalid, "table %s: part %d begins at row %d", root, i, p.First)
		}
	}
	if t.index.Rows > 0 && len(t.index.Parts) == 0 {
		return nil, Errorf(Invalid, "table %s: %d rows but no parts", root, t.index.Rows)
	}
	return t, nil
}

// Len is the number of rows.
func (t *Table[T]) Len() uint32 { return t.index.Rows }

// Row reads row i. Rows read in order cost one block read for each part.
func (t *Table[T]) Row(ctx context.Context, i uint32) (T, error) {
	var zero T
	if i >= t.index.Rows {
		return zero, Errorf(NotFound, "table %s has %d rows, no row %d", t.root, t.index.Rows, i)
	}
	n := t.partOf(i)
	if n != t.part {
		if err := t.load(ctx, n); err != nil {
			return zero, err
		}
	}
	return t.rows[i-t.index.Parts[n].First], nil
}

// partOf is the number of the part that row i is in.
func (t *Table[T]) partOf(i uint32) int {
	return sort.Search(len(t.index.Parts), func(k int) bool { return t.index.Parts[k].First > i }) - 1
}

func (t *Table[T]) load(ctx context.Context, n int) error {
	ref, end := t.index.Parts[n], t.index.Rows
	if n+1 < len(t.index.Parts) {
		end = t.index.Parts[n+1].First
	}
	data, err := t.get(ctx, ref.CID.Cid)
	if err != nil {
		return Errorf(CodeOf(err), "table %s: part %d: %w", t.root, n, err)
	}
	var rows []T
	if err := Unmarshal(data, &rows); err != nil {
		return Errorf(Invalid, "table %s: part %d: %w", t.root, n, err)
	}
	if uint32(len(rows)) != end-ref.First {
		return Errorf(Invalid, "table %s: part %d has %d rows, its index says %d", t.root, n, len(rows), end-ref.First)
	}
	t.part, t.rows = n, rows
	return nil
}
