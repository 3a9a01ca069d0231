package store

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"
)

// TestTrouble: failures that go on cost next to nothing, and little of the log.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tr := trouble{log: slog.New(slog.NewTextHandler(&log, nil))}
		start := time.Now()
		tries := 0
		for ; time.Since(start) < 10*time.Minute; tries++ {
			tr.failed(errors.New("no space left"))
		}
		if lines := strings.Count(log.String(), "\n"); tries > 3000 || lines < 9 || lines > 11 {
			t.Errorf("%d tries and %d lines of log in ten minutes", tries, lines)
		}
		log.Reset()
		<-time.After(time.Minute)
		start = time.Now()
		tr.failed(errors.New("once"))
		if took := time.Since(start); took > 10*time.Millisecond || !strings.Contains(log.String(), "once") {
			t.Errorf("a failure much later took %v: %s", took, log.String())
		}
	})
}

// fullFS is a disk on which, once it is full, nothing new has room.
type fullFS struct {
	vfs.FS
	full atomic.Bool
}

func (f *fullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.full.Load() && filepath.Ext(name) == ".sst" {
		return nil, &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	return f.FS.Create(name, c)
}

// TestCloseFull: the database closes on a full disk, without waiting for room, and has everything when it is opened again.
func TestCloseFull(t *testing.T) {
	dir, disk, log := t.TempDir(), &fullFS{FS: vfs.Default}, slog.New(slog.DiscardHandler)
	d, err := openMeta(dir, disk, log)
	if err != nil {
		t.Fatal(err)
	}
	key := datastore.NewKey("/a")
	if err := d.Put(t.Context(), key, []byte("b")); err != nil {
		t.Fatal(err)
	}
	disk.full.Store(true)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	disk.full.Store(false)
	if d, err = openMeta(dir, disk, log); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Get(t.Context(), key); string(got) != "b" {
		t.Errorf("%q, %v", got, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestInUse: a store is in use while it is open.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	if InUse(dir) {
		t.Error("a folder without a store is in use")
	}
	s, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !InUse(dir) {
		t.Error("an open store is not in use")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if InUse(dir) {
		t.Error("a closed store is in use")
	}
}
