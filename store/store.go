package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/block"
	"github.com/wasmgrid/wasmgrid/store/car"
	"github.com/wasmgrid/wasmgrid/store/dag"
	"github.com/wasmgrid/wasmgrid/store/keep"
	"github.com/wasmgrid/wasmgrid/store/ledger/local"
	"github.com/wasmgrid/wasmgrid/store/receipt"
)

// Config says where and how to store.
type Config struct {
	Dir    string       // the node's data folder; made when missing
	Quota  int64        // bytes that blocks may take on disk; 0: see keep.Config
	Logger *slog.Logger // nil: none
	Cache  int64        // bytes of small blocks to keep in memory, such as cache.DefaultSize; 0: none
	// Under is what a realm knew last, for Ledger; nil: nothing. See local.Config.
	Under func(context.Context) (local.Reader, error)
}

// Store is everything that one node keeps.
type Store struct {
	meta     *database
	segments *block.Segments
	keeper   *keep.Keeper
	files    *dag.Files
	archive  *car.Archive
	ledger   *local.Ledger
	cache    *receipt.Cache

	close func() error
}

// Open opens the store in a folder, and recovers what a crash has left. The error is Busy when another
// process has it open.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Dir == "" {
		return nil, grid.Errorf(grid.Invalid, "store: open: no folder is given")
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Join(cfg.Dir, metaDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, grid.Errorf(codeOf(err), "store: open %s: %w", cfg.Dir, err)
	}
	meta, err := openMeta(dir, vfs.Default, log)
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", cfg.Dir, err)
	}
	s := &Store{meta: meta}
	s.close = sync.OnceValue(s.closeAll)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.segments, err = block.Open(ctx, block.Config{Dir: filepath.Join(cfg.Dir, "blocks"), Index: meta, Logger: log}); err != nil {
		return nil, err
	}
	if s.ledger, err = local.Open(ctx, meta, local.Config{Under: cfg.Under}); err != nil {
		return nil, err
	}
	if s.keeper, err = keep.New(keep.Config{Segments: s.segments, Meta: meta, Quota: cfg.Quota, Cache: cfg.Cache, Logger: log}); err != nil {
		return nil, err
	}
	if s.cache, err = receipt.New(ctx, receipt.Config{Meta: meta, Drop: meta.drop, Most: receiptsFor(s.keeper)}); err != nil {
		return nil, err
	}
	s.files = dag.New(s.keeper)
	s.archive = car.New(s.keeper)
	return s, nil
}

// receiptsFor is how many bytes of receipts go with a store: an eighth of what its blocks may take, within bounds.
func receiptsFor(k *keep.Keeper) int64 {
	return min(max(k.Quota()/8, 4<<20), receipt.DefaultMost)
}

func codeOf(err error) grid.Code {
	switch c := grid.CodeOf(err); {
	case c != grid.Unknown:
		return c
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return grid.NoSpace
	case errors.Is(err, os.ErrPermission):
		return grid.Denied
	}
	return grid.Internal
}

// Blocks is the node's block store.
func (s *Store) Blocks() grid.Blocks { return s.keeper }

// Keeper decides what of the blocks stays. Whoever starts it stops it before Close.
func (s *Store) Keeper() *keep.Keeper { return s.keeper }

// Files is the view of the blocks as files.
func (s *Store) Files() grid.Files { return s.files }

// Surveyor tells about the DAGs of the blocks.
func (s *Store) Surveyor() grid.Surveyor { return s.files }

// Archive writes DAGs of the blocks into CAR files, and reads them back.
func (s *Store) Archive() grid.Archive { return s.archive }

// Ledger is the ledger of a realm of one.
func (s *Store) Ledger() grid.Ledger { return s.ledger }

// Cache is the memory of receipts.
func (s *Store) Cache() grid.Cache { return s.cache }

// Meta is the database of small things, for those parts that need more than a disk: package replica.
func (s *Store) Meta() datastore.Batching { return s.meta }

// Stat is how much is stored.
type Stat struct {
	BlockBytes uint64 // in segment files, with what deleted blocks still take
	MetaBytes  uint64 // of the database
}

// Stat tells how much disk the store takes.
func (s *Store) Stat(ctx context.Context) (st Stat, err error) {
	if st.BlockBytes, err = datastore.DiskUsage(ctx, s.segments); err == nil {
		st.MetaBytes, err = s.meta.DiskUsage(ctx)
	}
	return st, err
}

// Close makes everything durable and closes the store. Nothing of it may be in use any more. It may be
// called twice.
func (s *Store) Close() error { return s.close() }

// closeAll closes the segments first, for they write their last index entries.
func (s *Store) closeAll() (err error) {
	if s.segments != nil {
		err = s.segments.Close()
	}
	if err := errors.Join(err, s.meta.Close()); err != nil {
		return grid.Errorf(codeOf(err), "store: close: %w", err)
	}
	return nil
}

// logger gives pebble's news to ours: it is chatty, so all but errors are for debugging.
type logger struct{ *slog.Logger }

func (l logger) Infof(format string, args ...any) { l.Debug("pebble: " + fmt.Sprintf(format, args...)) }
func (l logger) Errorf(format string, args ...any) {
	l.Error("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return: what pebble holds in memory and on disk are no longer the same, and only to begin anew with what is on disk makes
// them so. It is mostly for a full disk, so the process ends with what a person can do, and without a trace of what its goroutines did.
func (l logger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	why, advice := fmt.Sprintf(format, args...), "look at the disk and its log (dmesg); `grid doctor` does, too"
	if strings.Contains(why, syscall.ENOSPC.Error()) || strings.Contains(why, syscall.EDQUOT.Error()) {
		advice = "free some space on that disk, or move the data folder to a larger one; what was acknowledged is on it"
	}
	fmt.Fprintf(os.Stderr, "grid: the store cannot go on: %s\n  hint: %s\n", why, advice)
	os.Exit(1)
}
