package grid_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// backup is that of a node with a ref and some keys, and the blocks of its data in place of a CAR.
func backup(t testing.TB, n *grid.Node, data bool) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := n.Backup(within(t), &out, plain{}, grid.BackupOptions{Data: data}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// plain is an archive that says what it was to hold, and takes anything.
type plain struct{ fail error }

func (p plain) Export(_ context.Context, w io.Writer, parts ...grid.Selection) error {
	for _, s := range parts {
		if _, err := io.WriteString(w, s.Root.String()+"\n"); err != nil {
			return err
		}
	}
	return p.fail
}

func (p plain) Import(_ context.Context, r io.Reader, _ bool) (in grid.Imported, err error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return in, err
	}
	for line := range strings.Lines(string(text)) {
		l, err := grid.ParseLink(strings.TrimSpace(line))
		if err != nil {
			return in, err
		}
		in.Roots = append(in.Roots, grid.ImportedRoot{CID: l, Whole: true})
	}
	return in, p.fail
}

func TestBackup(t *testing.T) {
	w, n, block := refNode(t)
	ctx := within(t)
	a := block("a")
	if _, err := n.SetRef(ctx, "x", a, grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	put := func(l grid.Ledger, key, value string) {
		t.Helper()
		if _, err := l.Commit(ctx, grid.Txn{ID: grid.NewRequestID(), Put: []grid.Entry{{Key: key, Value: []byte(value)}}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 { // several transactions, and several frames
		put(w.Ledger, grid.UserKeys+strings.Repeat("k", i+1), strings.Repeat("v", 1000))
	}
	for _, own := range []string{grid.TokenKeys, grid.SwarmKeys, grid.MemberKeys} {
		put(w.Ledger, own+"x", "not to be carried over")
	}
	file := backup(t, n, true)
	if bytes.Contains(file, []byte("not to be carried over")) || !bytes.Contains(file, []byte(a.String())) {
		t.Error("the backup holds what it should not, or lacks data")
	}

	w2, n2, block2 := refNode(t)
	block2("a") // as if by the archive
	if _, err := n2.Restore(ctx, bytes.NewReader(file), plain{errors.New("broken")}, false); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a broken archive: %v", err)
	}
	if _, err := n2.Ref(ctx, "x"); grid.CodeOf(err) != grid.NotFound {
		t.Errorf("after a restore that failed: %v", err)
	}
	done, err := n2.Restore(ctx, bytes.NewReader(file), plain{}, false)
	if err != nil || done.Put != done.Held.Entries || done.Pinned != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if r, err := n2.Ref(ctx, "x"); err != nil || r.CID != a {
		t.Errorf("%+v, %v", r, err)
	}
	if name := kept(t, w2, a); name != "ref x" {
		t.Errorf("the pin is %q", name)
	}
	_, err = n2.Restore(ctx, bytes.NewReader(file), plain{}, false)
	wantCode(t, err, grid.Conflict, "in use", "the key k")
	put(w2.Ledger, grid.UserKeys+"k", "other")
	_, err = n2.Restore(ctx, bytes.NewReader(file), plain{}, true)
	wantCode(t, err, grid.Conflict, "the key k")

	// What lies in the way is told, unless it may be left out.
	lost := grid.NewBlock(cid.Raw, []byte("lost"))
	if err := w.Blocks.Put(ctx, lost); err != nil {
		t.Fatal(err)
	}
	if _, err := n.SetRef(ctx, "y", grid.Link{Cid: lost.CID()}, grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Blocks.Delete(ctx, lost.CID()); err != nil {
		t.Fatal(err)
	}
	_, err = n.Backup(ctx, io.Discard, plain{}, grid.BackupOptions{Data: true})
	wantCode(t, err, grid.Unavailable, lost.CID().String())
	b, err := n.Backup(ctx, io.Discard, plain{}, grid.BackupOptions{Data: true, Partial: true})
	if err != nil || b.Lacks != 1 || b.Missing[0].Cid != lost.CID() {
		t.Errorf("%+v, %v", b, err)
	}
}

func FuzzBackup(f *testing.F) {
	for _, s := range []string{
		"", "grid backup 1\n", "grid backup 99\n", "grid backup 1\nh\xff\xff\xff\xff", "grid backup 1\nh\x00\x00\x00\x01\xa0e\x00\x00\x00\x01\x80",
		"grid backup 1\nh\x00\x00\x00\x01\xa0d\x00\x00\x00\x02xyd\x00\x00\x00\x00z\x00\x00\x00\x01\xa0",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, _, err := grid.ReadBackup(bytes.NewReader(data), func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
		if err != nil && grid.CodeOf(err) == grid.Unknown {
			t.Errorf("an error without a code: %v", err)
		}
		for _, e := range entries {
			if e.Key == "" || strings.HasPrefix(e.Key, grid.TokenKeys) {
				t.Errorf("the entry %q was taken", e.Key)
			}
		}
	})
}
