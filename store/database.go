package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"
	pebbleds "github.com/ipfs/go-ds-pebble"

	"github.com/wasmgrid/wasmgrid/grid"
)

// metaDir is where the database of small things is in a store's folder; it holds the lock of the store.
const metaDir = "meta"

// openMeta opens the database of small things, on vfs.Default or a test's files. It is kept small itself: a command opens it for a
// moment, and all of it together is some hundred bytes per block.
func openMeta(dir string, files vfs.FS, log *slog.Logger) (*database, error) {
	if err := unmarked(dir, files); err != nil {
		return nil, err
	}
	cache := pebble.NewCache(16 << 20)
	defer cache.Unref() // the database holds its own reference
	var levels [7]pebble.LevelOptions
	for i := range levels {
		levels[i].FilterPolicy = bloom.FilterPolicy(10) // most that is looked up is not there: each task of a new job
	}
	disk := &trouble{log: log, any: make(chan struct{}, 1)}
	d, err := pebbleds.NewDatastore(dir, pebbleds.WithPebbleOpts(&pebble.Options{
		Cache:              cache,
		Levels:             levels,
		MemTableSize:       4 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
		FS:                 files, // without the watchdog goroutine that pebble adds otherwise
		Logger:             logger{log},
		EventListener:      &pebble.EventListener{BackgroundError: disk.failed},
	}))
	switch {
	case err == nil:
		return &database{d, disk}, nil
	case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held by current process"):
		return nil, grid.Errorf(grid.Busy, "another process uses this folder: %w", err).
			Hint("stop the other node, or give this one a data folder of its own")
	case strings.Contains(err.Error(), "unknown format major version"): // pebble has no error of its own for it
		return nil, grid.Errorf(grid.Unsupported, "a newer version of grid has written this folder: %w", err).
			Hint("install that version again; or restore a backup into another home")
	case !refused(err): // pebble marks few of its complaints with ErrCorruption
		return nil, damaged(err)
	}
	return nil, grid.Errorf(codeOf(err), "%w", err)
}

func damaged(err error) error {
	return grid.Errorf(grid.Corrupt, "%w", err).
		Hint("the disk has changed the folder meta in it: check the disk, and restore the data folder")
}

// unmarked is an error when the file is gone by which pebble knows that there is a database: it would begin a new one in
// silence, and there are tables of the old one.
func unmarked(dir string, files vfs.FS) error {
	known, err := pebble.Peek(dir, files)
	if err != nil || known.Exists {
		return nil // what is wrong opening it tells better
	}
	names, err := files.List(dir)
	if err != nil {
		return nil
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasSuffix(name, ".sst") }); i >= 0 {
		return damaged(fmt.Errorf("%s has the table %s, and lacks the file marker.manifest", dir, names[i]))
	}
	return nil
}

// refused reports whether an error is the operating system's, for another reason than that a file is not there.
func refused(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && !errors.Is(errno, os.ErrNotExist)
}

// database is the database of small things. Most that is looked up in it is not there: the results of a new job's tasks, new blocks. Its
// Bloom filters say so without a look at the disk, also in the last level, where most keys are, and where pebble's own Get has no use for them.
type database struct {
	*pebbleds.Datastore
	disk *trouble
}

// Close writes out what is in memory, so that the next opening need not read the log for it. That is no more than a
// convenience: when the disk does not take it, it stays in the log, and Close does not wait until it does, as that of
// the datastore would.
func (d *database) Close() error {
	select {
	case <-d.disk.any: // of some time ago
	default:
	}
	flushed, err := d.DB.AsyncFlush()
	if err != nil {
		return errors.Join(err, d.DB.Close())
	}
	select {
	case <-flushed:
		return d.Datastore.Close()
	case <-d.disk.any:
		return d.DB.Close()
	}
}

// find shows f the value of a key, which is the database's, and reports whether there is one.
func (d *database) find(key datastore.Key, f func(value []byte)) (found bool, err error) {
	it, err := d.DB.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return false, fmt.Errorf("look up %s: %w", key, err)
	}
	if found = it.SeekPrefixGE(key.Bytes()); found { // whole keys are prefixes here, and equal ones alone have the same
		value, e := it.ValueAndErr()
		if err = e; err == nil {
			f(value)
		}
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil {
		return false, fmt.Errorf("look up %s: %w", key, err)
	}
	return found, nil
}

func (d *database) Get(_ context.Context, key datastore.Key) (value []byte, err error) {
	found, err := d.find(key, func(v []byte) { value = append([]byte{}, v...) })
	if err == nil && !found {
		err = datastore.ErrNotFound
	}
	return value, err
}

func (d *database) Has(_ context.Context, key datastore.Key) (bool, error) {
	return d.find(key, func([]byte) {})
}

func (d *database) GetSize(_ context.Context, key datastore.Key) (size int, err error) {
	found, err := d.find(key, func(v []byte) { size = len(v) })
	switch {
	case err != nil:
		return -1, err
	case !found:
		return -1, datastore.ErrNotFound
	}
	return size, nil
}

// drop deletes all keys below one, at the price of one deletion. Their room on disk is given back soon.
func (d *database) drop(_ context.Context, below datastore.Key) error {
	from, to := below.String()+"/", below.String()+"0" // the byte behind the slash
	if err := d.DB.DeleteRange([]byte(from), []byte(to), pebble.NoSync); err != nil {
		return err
	}
	_, err := d.DB.AsyncFlush() // what is deleted stays until the deletion itself has left the memory
	return err
}
