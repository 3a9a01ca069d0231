package crypt_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store"
	"github.com/wasmgrid/wasmgrid/store/crypt"
)

// opened is a store in which to keep things encrypted to a key.
type opened struct {
	grid.Files
	ids []age.Identity
	to  age.Recipient
}

func open(t testing.TB) *opened {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	text, err := crypt.NewKey(false, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	o := &opened{Files: s.Files()}
	if o.ids, err = crypt.ParseIdentities(text); err != nil {
		t.Fatal(err)
	}
	if o.to, err = crypt.RecipientOf(o.ids[0]); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *opened) add(t testing.TB, data []byte) grid.Link {
	t.Helper()
	c, _, err := o.Add(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return grid.Link{Cid: c}
}

// encrypt gives what write writes, encrypted.
func (o *opened) encrypt(t testing.TB, write func(io.Writer) error) []byte {
	t.Helper()
	s, err := crypt.NewSealer(o.to)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := s.Begin(&out)
	if err == nil {
		err = write(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func just(data string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, data); return err }
}

// A view shows what is encrypted as it was, by its CID and in a folder, and the rest as it is.
func TestView(t *testing.T) {
	ctx := t.Context()
	o := open(t)
	other := open(t)
	plain := o.add(t, []byte("plain"))
	file := o.add(t, o.encrypt(t, just("secret")))
	folder := o.add(t, o.encrypt(t, func(w io.Writer) error {
		p := crypt.NewPacker(w)
		in, err := p.Add(grid.FileInfo{Name: "a", Kind: grid.KindFile, Size: 5})
		if err == nil {
			err = just("in it")(in)
		}
		return errors.Join(err, p.Close())
	}))
	tree, _, err := o.AddTree(ctx, []grid.FileInfo{
		{Name: "plain", Kind: grid.KindFile, CID: plain, Size: 5},
		{Name: "sub/file", Kind: grid.KindFile, CID: file},
		{Name: "link", Kind: grid.KindSymlink, Target: "sub/file"},
	})
	if err != nil {
		t.Fatal(err)
	}
	v := crypt.View(o, o.ids, nil)
	for _, tt := range []struct {
		c    grid.Link
		want string
	}{{plain, "plain"}, {file, "secret"}} {
		r, err := v.Open(ctx, tt.c.Cid)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); string(got) != tt.want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, tt.want)
		}
		r.Close()
		for _, look := range []func() (grid.FileInfo, error){func() (grid.FileInfo, error) { return v.Look(ctx, tt.c.Cid) }, func() (grid.FileInfo, error) { return v.Stat(ctx, tt.c.Cid) }} {
			if e, err := look(); err != nil || e.Kind != grid.KindFile || e.Size != int64(len(tt.want)) {
				t.Errorf("%+v, %v, want the size of %q", e, err, tt.want)
			}
		}
	}
	if e, err := v.Look(ctx, folder.Cid); err != nil || e.Kind != grid.KindDir || e.Size != 5 {
		t.Errorf("the folder is %+v, %v", e, err)
	}
	if _, err := v.Open(ctx, folder.Cid); !errors.Is(err, grid.Invalid) {
		t.Errorf("the folder opens as a file: %v", err)
	}
	if _, err := v.List(ctx, folder.Cid); !errors.Is(err, grid.Invalid) {
		t.Errorf("the folder is listed: %v", err)
	}
	in, err := v.FS(ctx, folder.Cid)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fs.ReadFile(in, "a"); string(got) != "in it" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	all, err := v.FS(ctx, tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub/file", "link"} {
		if got, err := fs.ReadFile(all, name); string(got) != "secret" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if st, err := fs.Lstat(all, "link"); err != nil || st.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("a link is %v, %v", st, err)
	}
	if err := fstest.TestFS(all, "plain", "sub/file"); err != nil {
		t.Error(err)
	}
	var lost []error
	v = crypt.View(o, other.ids, func(err error) { lost = append(lost, err) })
	if _, err := v.Look(ctx, file.Cid); !errors.Is(err, grid.Denied) || len(lost) != 1 || !errors.Is(lost[0], grid.Denied) {
		t.Errorf("with another key: %v, lost %v", err, lost)
	}
	if e, err := v.Look(ctx, plain.Cid); err != nil || e.Size != 5 {
		t.Errorf("%+v, %v", e, err)
	}
}

// BenchmarkEncrypt encrypts, and BenchmarkDecrypt reads what was encrypted, in order and here and there, with bare ChaCha20-Poly1305
// and the storing of plain data beside it.
func BenchmarkEncrypt(b *testing.B) {
	o := open(b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	b.Run("bare", func(b *testing.B) {
		a, err := chacha20poly1305.New(make([]byte, 32))
		if err != nil {
			b.Fatal(err)
		}
		nonce, out := make([]byte, 12), make([]byte, 0, crypt.ChunkSize+16)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for at := 0; at < len(data); at += crypt.ChunkSize {
				a.Seal(out, nonce, data[at:][:crypt.ChunkSize], nil)
			}
		}
	})
	b.Run("sealer", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			seal(b, o.to, io.Discard, data)
		}
	})
	b.Run("add", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for i := 0; b.Loop(); i++ {
			data[0], data[1], data[2] = byte(i), byte(i>>8), byte(i>>16)
			if _, _, err := o.Add(b.Context(), bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sealer-add", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			pr, pw := io.Pipe()
			go func() { seal(b, o.to, pw, data); pw.Close() }()
			if _, _, err := o.Add(b.Context(), pr); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func seal(b *testing.B, to age.Recipient, out io.Writer, data []byte) {
	s, err := crypt.NewSealer(to)
	if err != nil {
		b.Error(err)
		return
	}
	w, err := s.Begin(out)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		b.Error(err)
	}
}

// BenchmarkDecrypt is described with BenchmarkEncrypt.
func BenchmarkDecrypt(b *testing.B) {
	o := open(b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	sealed := o.encrypt(b, just(string(data)))
	for _, where := range []struct {
		name string
		file grid.Link
		of   grid.Files
	}{{"plain", o.add(b, data), o}, {"decrypted", o.add(b, sealed), crypt.View(o, o.ids, nil)}} {
		r, err := where.of.Open(b.Context(), where.file.Cid)
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		b.Run("read/"+where.name, func(b *testing.B) {
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := r.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); n != int64(len(data)) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		b.Run("4KiB-random/"+where.name, func(b *testing.B) {
			buf := make([]byte, 4<<10)
			for i := 0; b.Loop(); i++ {
				if _, err := r.Seek(int64(i)*7919*512%int64(len(data)-len(buf)), io.SeekStart); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
