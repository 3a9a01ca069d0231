package block

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A deletion that failed for want of space must not be carried out by the next start.
func TestFailedDelete(t *testing.T) {
	dir, index, disk := t.TempDir(), memory(), &fullDisk{space: 1 << 20}
	cfg := Config{Dir: dir, Index: index, open: func(name string) (file, error) {
		f, err := openDisk(name)
		return brokenFile{f, disk}, err
	}}
	s := openTest(t, cfg)
	b := New(s)
	put(t, b, numbered(0, 40)...)
	var all []Entry
	if err := s.Scan(t.Context(), func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	disk.space = 500 // of the tombstones some ten get to the file
	if _, err := s.DeleteAt(t.Context(), all); !errors.Is(s.explain(err), grid.NoSpace) {
		t.Fatalf("DeleteAt = %v", err)
	}
	disk.space = 1 << 20
	// It failed, so they are here; somebody pins them now, which writes no block.
	check(t, b, true, numbered(0, 40)...)
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, b, true, numbered(0, 40)...)
	if err := s.Close(); err != nil { // not even a crash is needed
		t.Fatal(err)
	}
	s = openTest(t, Config{Dir: dir, Index: index})
	check(t, New(s), true, numbered(0, 40)...)
}

// badSector cannot read a range.
type badSector struct {
	file
	from, to int64
}

func (f badSector) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, &os.PathError{Op: "read", Path: "segment", Err: syscall.EIO}
	}
	return f.file.ReadAt(p, off)
}

// One block that cannot be read must not keep all other segments from being compacted.
func TestCompactBadSector(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory(), size: 700, open: func(name string) (file, error) {
		f, err := openDisk(name)
		if filepath.Base(name) == "00000001.seg" {
			return badSector{f, 8, 60}, err
		}
		return f, err
	}})
	b := New(s)
	put(t, b, numbered(0, 80)...)
	if err := s.Sync(t.Context(), datastore.NewKey("/")); err != nil {
		t.Fatal(err)
	}
	var dead []Entry
	if err := s.Scan(t.Context(), func(e Entry) error {
		if e.At.Segment > 1 && e.At.Offset > 150 || e.At.Segment == 1 && e.At.Offset > 80 {
			dead = append(dead, e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteAt(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(t.Context(), []uint32{1, 2, 3, 4, 5}, nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("Compact = %v", err)
	}
	for n := uint32(2); n <= 5; n++ {
		if _, err := os.Stat(s.path(n)); err == nil {
			t.Errorf("segment %d is still there", n)
		}
	}
}
