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

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"
	pebbleds "github.com/ipfs/go-ds-pebble"

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
	meta     *pebbleds.Datastore
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
	meta, err := openMeta(dir, log)
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
	if s.cache, err = receipt.New(ctx, receipt.Config{Meta: meta, Drop: s.dropMeta, Most: receiptsFor(s.keeper)}); err != nil {
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

// dropMeta deletes all keys below one in the database of small things, at the price of one deletion. Their room on disk is given back soon.
func (s *Store) dropMeta(_ context.Context, below datastore.Key) error {
	from, to := below.String()+"/", below.String()+"0" // the byte behind the slash
	if err := s.meta.DB.DeleteRange([]byte(from), []byte(to), pebble.NoSync); err != nil {
		return err
	}
	_, err := s.meta.DB.AsyncFlush() // what is deleted stays until the deletion itself has left the memory
	return err
}

// metaDir is where the database of small things is in a store's folder; it holds the lock of the store.
const metaDir = "meta"

// openMeta opens the database of small things. It is kept small itself: a command opens it for a
// moment, and all of it together is some hundred bytes per block.
func openMeta(dir string, log *slog.Logger) (*pebbleds.Datastore, error) {
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref() // the database holds its own reference
	d, err := pebbleds.NewDatastore(dir, pebbleds.WithPebbleOpts(&pebble.Options{
		Cache:              cache,
		MemTableSize:       4 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
		FS:                 vfs.Default, // without the watchdog goroutine that pebble adds otherwise
		Logger:             logger{log},
		EventListener:      &pebble.EventListener{BackgroundError: (&trouble{log: log}).failed},
	}))
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held by current process"):
		return nil, grid.Errorf(grid.Busy, "another process uses this folder: %w", err).
			Hint("stop the other node, or give this one a data folder of its own")
	case strings.Contains(err.Error(), "unknown format major version"): // pebble has no error of its own for it
		return nil, grid.Errorf(grid.Unsupported, "a newer version of grid has written this folder: %w", err).
			Hint("install that version again; or restore a backup into another home")
	case !refused(err): // pebble marks few of its complaints with ErrCorruption
		return nil, grid.Errorf(grid.Corrupt, "%w", err).
			Hint("the disk has changed the folder meta in it: check the disk, and restore the data folder")
	}
	return nil, grid.Errorf(codeOf(err), "%w", err)
}

// refused reports whether an error is the operating system's, for another reason than that a file is not there.
func refused(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && !errors.Is(errno, os.ErrNotExist)
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
