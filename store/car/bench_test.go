package car

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/block"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const benchSize = 256 << 20

// BenchmarkArchive reads and writes 256 MiB on the disk, beside what bounds it: hashing, and a copy.
func BenchmarkArchive(b *testing.B) {
	ctx := context.Background()
	data := make([]byte, benchSize)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	open := func(b *testing.B) grid.Blocks {
		s, err := block.Open(ctx, block.Config{Dir: filepath.Join(b.TempDir(), "blocks"), Index: datastore.NewMapDatastore()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return block.New(s)
	}
	from := open(b)
	root, _, err := dag.New(from).Add(ctx, bytes.NewReader(data))
	if err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "file.car")
	write := func(b *testing.B, to string, f func(io.Writer) error) {
		out, err := os.Create(to)
		if err != nil {
			b.Fatal(err)
		}
		defer out.Close()
		if err := f(out); err != nil {
			b.Fatal(err)
		}
		if err := out.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(benchSize)
		for b.Loop() {
			sha256.Sum256(data)
		}
	})
	b.Run("export", func(b *testing.B) {
		b.SetBytes(benchSize)
		for b.Loop() {
			write(b, name, func(w io.Writer) error { return New(from).Export(ctx, w, grid.Selection{Root: root}) })
		}
	})
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(benchSize)
		for b.Loop() {
			write(b, name+".copy", func(w io.Writer) error {
				in, err := os.Open(name)
				if err != nil {
					return err
				}
				defer in.Close()
				_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{in}, make([]byte, 1<<20))
				return err
			})
		}
	})
	b.Run("import", func(b *testing.B) {
		b.SetBytes(benchSize)
		for b.Loop() {
			b.StopTimer()
			to := open(b)
			in, err := os.Open(name)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			got, err := New(to).Import(ctx, in, false)
			in.Close()
			if err != nil || got.Roots[0].CID.Cid != root {
				b.Fatal(got, err)
			}
		}
	})
}
