package api_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// TestBackup moves a backup over each transport. What goes wrong amid it is an error at the reader's end, too.
func TestBackup(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		if _, err := s.KVPut(ctx, "a", []byte(strings.Repeat("x", 1<<19)), api.KVCond{}); err != nil {
			t.Fatal(err)
		}
		r, err := s.Backup(ctx, grid.BackupOptions{})
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.HasPrefix(data, []byte("grid backup 1\n")) {
			t.Fatalf("%.20q, %v", data, err)
		}
		if _, err := s.Restore(ctx, bytes.NewReader(data), false); grid.CodeOf(err) != grid.Conflict {
			t.Errorf("into a realm in use: %v", err)
		}
		if _, err := s.Restore(ctx, bytes.NewReader(data[:len(data)-1]), true); grid.CodeOf(err) != grid.Corrupt {
			t.Errorf("cut short: %v", err)
		}
		if _, err := s.KVDelete(ctx, "a", api.KVCond{}); err != nil {
			t.Fatal(err)
		}
		done, err := s.Restore(ctx, bytes.NewReader(data), false)
		if err != nil || done.Put < 1 || done.Held.Entries != done.Put+done.Same+done.Kept {
			t.Errorf("%+v, %v", done, err)
		}
		if v, err := s.KVGet(ctx, "a", false); err != nil || len(v.Value) != 1<<19 {
			t.Errorf("%d bytes, %v", len(v.Value), err)
		}

		lost := grid.NewBlock(0x55, []byte("lost"))
		if err := s.w.Blocks.Put(ctx, lost); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SetRef(ctx, "x", grid.Link{Cid: lost.CID()}, grid.RefCond{}); err != nil {
			t.Fatal(err)
		}
		if err := s.w.Blocks.Delete(ctx, lost.CID()); err != nil {
			t.Fatal(err)
		}
		r, err = s.Backup(ctx, grid.BackupOptions{Data: true})
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), lost.CID().String()) {
			t.Errorf("data that is not to be had: %v", err)
		}
	})
}
