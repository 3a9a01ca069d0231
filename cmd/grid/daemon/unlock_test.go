package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/store/crypt"
)

// dataKey makes a key, and whom to encrypt to for it.
func dataKey(t *testing.T) (key []byte, to age.Recipient) {
	t.Helper()
	key, err := crypt.NewKey(false, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := crypt.ParseIdentities(key)
	if err != nil {
		t.Fatal(err)
	}
	if to, err = crypt.RecipientOf(ids[0]); err != nil {
		t.Fatal(err)
	}
	return key, to
}

// encryptedFile encrypts data; encryptedFolder a folder that has it as the file big, beside another.
func encryptedFile(t *testing.T, to age.Recipient, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	s, err := crypt.NewSealer(to)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Begin(&out)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func encryptedFolder(t *testing.T, to age.Recipient, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	p := crypt.NewPacker(&out)
	for _, f := range []grid.FileInfo{{Name: "a", Kind: grid.KindFile}, {Name: "sub/big", Kind: grid.KindFile, Size: int64(len(data))}} {
		w, err := p.Add(f)
		if err == nil && f.Size > 0 {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return encryptedFile(t, to, out.Bytes())
}

// TestUnlock: a task that was granted the key reads what it asks for of encrypted files that lie elsewhere, of which no more is
// moved, and which are on its node as they were added. Without the key it reads that.
func TestUnlock(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	key, to := dataKey(t)
	data := noise(midFile)
	sealed := encryptedFile(t, to, data)
	file, folder := a.add(t, sealed), a.add(t, encryptedFolder(t, to, data))
	if _, err := b.node.SetSecret(t.Context(), "key", key); err != nil {
		t.Fatal(err)
	}
	granted := grid.Grants{Decrypt: []string{"key"}}
	const off, size = 5<<20 + 17, 1 << 20
	want := fmt.Sprintf("%x", sha256.Sum256(data[off:][:size]))
	mounts := []grid.Mount{{Path: "/data/big", CID: file}, {Path: "/folder", CID: folder}}
	for dir, name := range map[string]string{"/data": "big", "/folder": "sub/big"} {
		before := b.x.Stats().BytesIn
		st, out := b.run(t, grid.Stage{Mounts: mounts, Grants: granted}, sumOf(dir, name, off, size))
		if st.State != grid.Done || out != want {
			t.Fatalf("%s/%s: %s %s, printed %s, want %s", dir, name, st.State, st.Error, out, want)
		}
		if moved := b.x.Stats().BytesIn - before; moved > 12<<20 {
			t.Errorf("%s/%s: %d bytes were moved to read %d", dir, name, moved, size)
		}
	}
	// As standard input, as an input, and by its CID; all of it.
	table := grid.NewTable[grid.Row](b.Blocks())
	if err := table.Add(t.Context(), grid.Row{{Name: "big", CID: file, Size: midFile}}); err != nil {
		t.Fatal(err)
	}
	inputs, err := table.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	granted.Data = []string{file.String()}
	whole := fmt.Sprintf("%x", sha256.Sum256(data))
	st, out := b.run(t, grid.Stage{Inputs: inputs, Stdin: file, Grants: granted}, func(ctx context.Context, g *grid.Guest) error {
		h := sha256.New()
		if n, err := io.Copy(h, g.Stdin); n != midFile || err != nil {
			return fmt.Errorf("standard input: %d bytes, %w", n, err)
		}
		fmt.Fprintf(g.Stdout, "%x ", h.Sum(nil))
		if err := sumOf(grid.GuestIn, "big", 0, midFile)(ctx, g); err != nil {
			return err
		}
		return sumOf(grid.GuestData, file.String(), 0, midFile)(ctx, g)
	})
	if st.State != grid.Done || out != whole+" "+whole+whole {
		t.Errorf("%s %s, printed %s", st.State, st.Error, out)
	}
	// Without the grant it is what was added.
	st, out = b.run(t, grid.Stage{Mounts: mounts}, sumOf("/data", "big", 0, int64(len(sealed))))
	if want := fmt.Sprintf("%x", sha256.Sum256(sealed)); st.State != grid.Done || out != want {
		t.Errorf("%s %s, printed %s, want %s", st.State, st.Error, out, want)
	}
}

// TestUnlockFails: what no key fits, and what is damaged, ends the attempt, whatever the guest makes of it, and the job says why.
func TestUnlockFails(t *testing.T) {
	w := memnet.New(memnet.Config{})
	b := newRig(t, w, 2)
	key, to := dataKey(t)
	_, toOther := dataKey(t)
	data := noise(1 << 20)
	damaged := encryptedFile(t, to, data)
	damaged[500_000] ^= 1
	for name, value := range map[string][]byte{"key": key, "none": []byte("no key")} {
		if _, err := b.node.SetSecret(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		data   []byte
		secret string
		why    string
	}{
		{encryptedFile(t, toOther, data), "key", "no key fits"},
		{damaged, "key", "chunk 7 of 0 to 15"},
		{damaged[:300_000], "key", "cut off"},
		{damaged, "none", "no file of keys"},
		{damaged, "missing", "there is none of that name"},
	} {
		link := b.add(t, tt.data)
		st, out := b.run(t, grid.Stage{Mounts: []grid.Mount{{Path: "/data/big", CID: link}}, Grants: grid.Grants{Decrypt: []string{tt.secret}}},
			func(_ context.Context, g *grid.Guest) error {
				if f, err := g.Mounts["/data"].Open("big"); err == nil {
					defer f.Close()
					_, _ = io.Copy(io.Discard, f)
				}
				return nil
			})
		if st.State != grid.Failed || !strings.Contains(st.Error+out, tt.why) && !strings.Contains(fmt.Sprint(st), tt.why) {
			t.Errorf("%s: %s %q, printed %q", tt.why, st.State, st.Error, out)
		}
	}
}
