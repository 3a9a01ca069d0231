package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestDamagedIndex: whichever file of the index was changed or is gone, the store opens with all that it had, or says that the disk has changed
// it and what to do.
func TestDamagedIndex(t *testing.T) {
	ctx := t.Context()
	key, value := datastore.NewKey("a"), []byte("b")
	fresh := func() string {
		dir := t.TempDir()
		for range 2 { // so that there is a table
			s, err := Open(ctx, Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Meta().Put(ctx, key, value); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	damages := map[string]func(name string) error{
		"gone":  os.Remove,
		"empty": func(name string) error { return os.Truncate(name, 0) },
		"changed": func(name string) error {
			return os.WriteFile(name, bytes.Repeat([]byte("garbage"), 40), 0o600)
		},
	}
	corrupt := 0
	for _, pattern := range []string{"MANIFEST-*", "marker.*", "OPTIONS-*", "*.sst"} {
		for how, damage := range damages {
			dir := fresh()
			names, err := filepath.Glob(filepath.Join(dir, metaDir, pattern))
			if err != nil || len(names) == 0 {
				t.Fatalf("%s: %v, %v", pattern, names, err)
			}
			for _, name := range names {
				if err := damage(name); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(ctx, Config{Dir: dir})
			if err != nil {
				corrupt++
				if grid.CodeOf(err) != grid.Corrupt || grid.AdviceOf(err) == "" {
					t.Errorf("%s %s: %v: %v, hint %q", pattern, how, grid.CodeOf(err), err, grid.AdviceOf(err))
				}
				continue
			}
			if got, err := s.Meta().Get(ctx, key); !bytes.Equal(got, value) {
				t.Errorf("%s %s: %q, %v", pattern, how, got, err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("%s %s: %v", pattern, how, err)
			}
		}
	}
	if corrupt < 4 {
		t.Errorf("only %d damages were noticed", corrupt)
	}
}
