package car

import (
	"context"
	"io"
	"runtime"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// Archive is grid.Archive over blocks.
type Archive struct{ blocks grid.Blocks }

var _ grid.Archive = (*Archive)(nil)

// New writes and reads archives of the given blocks.
func New(blocks grid.Blocks) *Archive { return &Archive{blocks} }

func wrap(err error, format string, args ...any) error {
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Internal
	}
	return grid.Errorf(code, "store: "+format+": %w", append(args, err)...)
}

// readAhead is how many blocks are read before the one that is being written has gone out.
const readAhead = 4

// Export writes a CARv1; see grid.Archive. An error of w is returned as it is.
func (a *Archive) Export(ctx context.Context, w io.Writer, parts ...grid.Selection) error {
	if len(parts) == 0 {
		return grid.Errorf(grid.Invalid, "store: export: no DAG is named")
	}
	ends, ways := make([]cid.Cid, len(parts)), make([][]cid.Cid, len(parts))
	for i, p := range parts {
		var err error
		if ends[i], ways[i], err = dag.Find(ctx, a.blocks, p); err != nil {
			return wrap(err, "export %s", p.Root)
		}
	}
	out, err := newWriter(w, ends)
	if err != nil {
		return err
	}
	// Blocks are read and verified on another goroutine than the one that writes them.
	ctx, cancel := context.WithCancel(ctx)
	ahead := make(chan section, readAhead)
	var walkErr error
	go func() {
		defer close(ahead)
		walkErr = a.walk(ctx, parts, ends, ways, func(c cid.Cid, data []byte) error {
			select {
			case ahead <- section{c, data}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	defer func() {
		cancel()
		for range ahead { // wait for its end
		}
	}()
	for s := range ahead {
		if err := out.section(s); err != nil {
			return err
		}
	}
	if walkErr != nil {
		return wrap(walkErr, "export %s", parts[0].Root)
	}
	return out.flush()
}

// walk visits what the parts select.
func (a *Archive) walk(ctx context.Context, parts []grid.Selection, ends []cid.Cid, ways [][]cid.Cid, visit func(cid.Cid, []byte) error) error {
	w := dag.NewWalker(a.blocks)
	w.Repeats = parts[0].Repeats
	for i, p := range parts {
		for _, c := range ways[i] {
			if err := w.Block(ctx, c, visit); err != nil {
				return err
			}
		}
		var err error
		switch {
		case p.Bytes != nil || p.Scope == grid.ScopeEntity:
			err = w.Entity(ctx, ends[i], p.Bytes, visit)
		case p.Scope == grid.ScopeBlock:
			err = w.Block(ctx, ends[i], visit)
		default:
			err = w.All(ctx, ends[i], visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Blocks are checked and stored in batches.
const (
	batchBytes = 4 << 20
	batchCount = 1024 // blocks
)

// batch is sections that were read and not yet checked. Their data lies in buf.
type batch struct {
	buf      []byte
	sections []section
	offsets  []int64
}

// batches is those that are free: a Put of blocks does not keep their data.
var batches = sync.Pool{New: func() any { return &batch{buf: make([]byte, 0, batchBytes)} }}

// fits reports whether a section of n bytes has room.
func (b *batch) fits(n int) bool {
	return len(b.sections) < batchCount && n <= cap(b.buf)-len(b.buf)
}

// Import stores what an archive holds; see grid.Archive.
func (a *Archive) Import(ctx context.Context, src io.Reader, partial bool) (grid.Imported, error) {
	in := grid.Imported{Roots: []grid.ImportedRoot{}}
	r, err := newReader(src)
	if err != nil {
		return in, wrap(err, "import a CAR")
	}
	if len(r.roots) == 0 && !partial {
		return in, wrap(r.fail(0, grid.Invalid, "it names no root").
			Hint("--partial stores blocks that belong to nothing; name them yourself then"), "import a CAR")
	}
	if in.Blocks, in.Bytes, err = a.take(ctx, r); err != nil {
		return in, wrap(err, "import a CAR")
	}
	if err := a.blocks.Sync(ctx); err != nil {
		return in, err
	}
	known := dag.NewWalker(a.blocks) // what roots share is gone through once
	for _, c := range r.roots {
		root := grid.ImportedRoot{CID: grid.Link{Cid: c}, Whole: true}
		if err := known.Whole(ctx, c); err != nil {
			switch grid.CodeOf(err) {
			case grid.NotFound, grid.Invalid, grid.Unsupported, grid.Limit:
			default:
				return in, wrap(err, "import a CAR: root %s", c)
			}
			if !partial {
				return in, grid.Errorf(grid.Invalid, "store: import a CAR: its root %s is not whole: %w", c, err).
					Hint("the %d blocks in it are stored; --partial accepts that some are missing", in.Blocks)
			}
			root.Whole, root.Why = false, err.Error()
			known = dag.NewWalker(a.blocks) // what it has seen is not whole
		}
		in.Roots = append(in.Roots, root)
	}
	return in, nil
}

// take stores all sections, checking them on several goroutines. Its error is that of the lowest offset.
func (a *Archive) take(ctx context.Context, r *reader) (blocks, bytes int64, err error) {
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, min(runtime.GOMAXPROCS(0), 8)+1)
		mu    sync.Mutex
		worst error // of the batches
		at    int64
	)
	failed := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return worst != nil
	}
	send := func(b *batch) {
		slots <- struct{}{} // the others end by themselves
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			off, err := a.store(ctx, b)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if worst == nil || off < at {
				worst, at = err, off
			}
		}()
	}
	b := batches.Get().(*batch)
	for err == nil && !failed() {
		var n int
		start := r.off
		if n, err = r.length(); err != nil {
			break
		}
		if !b.fits(n) {
			send(b)
			b = batches.Get().(*batch)
		}
		end := len(b.buf) + n
		var s section
		if s, err = r.section(start, b.buf[len(b.buf):end]); err == nil && s.cid.Defined() {
			b.buf = b.buf[:end]
			b.sections, b.offsets = append(b.sections, s), append(b.offsets, start)
			blocks++
			bytes += int64(len(s.data))
		}
		if err == nil {
			err = ctx.Err()
		}
	}
	send(b)
	wg.Wait()
	switch {
	case worst != nil:
		return 0, 0, worst
	case err == io.EOF:
		return blocks, bytes, nil
	}
	return 0, 0, err
}

// store checks a batch and puts it, and takes it back. The offset is that of the section at fault.
func (a *Archive) store(ctx context.Context, b *batch) (int64, error) {
	defer func() {
		clear(b.sections)
		b.buf, b.sections, b.offsets = b.buf[:0], b.sections[:0], b.offsets[:0]
		batches.Put(b)
	}()
	if len(b.sections) == 0 {
		return 0, nil
	}
	good := make([]grid.Block, 0, len(b.sections))
	var fault error
	var at int64
	for i, s := range b.sections {
		block, err := grid.VerifyBlock(s.cid, s.data)
		if err != nil {
			fault, at = grid.Errorf(grid.CodeOf(err), "at byte %d: %w", b.offsets[i], err), b.offsets[i]
			break
		}
		good = append(good, block)
	}
	if err := a.blocks.Put(ctx, good...); err != nil && fault == nil {
		fault, at = err, b.offsets[0]
	}
	return at, fault
}
