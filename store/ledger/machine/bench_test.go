package machine

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// BenchmarkApply applies batches of small transactions to a map of 65,536 entries: a condition and a put of 100
// bytes each.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := New(Config{})
			cmds := make([]Command, n)
			var batch []byte
			next, took := 0, time.Duration(0)
			for b.Loop() {
				for i := range cmds {
					cmds[i] = Command{Base: m.Revision(), Txn: &grid.Txn{
						ID:  grid.NewRequestID(),
						If:  []grid.Cond{{Key: "absent/key"}},
						Put: []grid.Entry{{Key: fmt.Sprintf("kv/%08d", next*7919%(1<<16)), Value: make([]byte, 100)}},
					}}
					next++
				}
				var err error
				if batch, err = AppendBatch(nil, cmds); err != nil {
					b.Fatal(err)
				}
				begin := time.Now()
				results, err := m.Apply(m.Applied()+1, batch)
				took += time.Since(begin)
				if err != nil || results[n-1].Code != 0 {
					b.Fatal(results, err)
				}
			}
			b.ReportMetric(float64(next)/took.Seconds(), "txns/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	cmds := make([]Command, 256)
	for i := range cmds {
		cmds[i] = identified(put(fmt.Sprintf("kv/%08d", i), string(make([]byte, 100))), 0)
	}
	batch, err := AppendBatch(nil, cmds)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeBatch(batch); err != nil {
			b.Fatal(err)
		}
	}
}

const benchEntries = 300_000

// filled is a machine with 300,000 entries of 100 bytes.
func filled(b *testing.B) *Machine {
	m := New(Config{})
	for i := 0; i < benchEntries; i += 1000 {
		c := put()
		for j := range 1000 {
			c.Txn.Put = append(c.Txn.Put, grid.Entry{Key: fmt.Sprintf("kv/%08d", i+j), Value: make([]byte, 100)})
		}
		one(b, m, 0, c)
	}
	return m
}

func BenchmarkRange(b *testing.B) {
	m := filled(b)
	first := m.Revision()
	for i := range 10_000 {
		one(b, m, 0, put(fmt.Sprintf("kv/%08d", i), "changed"))
	}
	for name, q := range map[string]grid.Query{
		"page":    {},
		"10":      {After: "kv/00123456", Limit: 10},
		"past":    {At: first},
		"past 10": {After: "kv/00123456", Limit: 10, At: first},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Range(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	m := filled(b)
	var buf bytes.Buffer
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			m.Snapshot()
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			buf.Reset()
			if _, err := m.Snapshot().WriteTo(&buf); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(buf.Len()))
	})
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			if err := New(Config{}).Restore(bytes.NewReader(buf.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWatch delivers changes to a watcher.
func BenchmarkWatch(b *testing.B) {
	m := New(Config{})
	for range 10_000 {
		one(b, m, 0, put("k", "v"))
	}
	for b.Loop() {
		w, err := m.Watch("k", 0)
		if err != nil {
			b.Fatal(err)
		}
		for range 10_000 {
			if _, err := w.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		w.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/change")
}

// BenchmarkWatched is a commit of one key while many watch others, and wait for changes there.
func BenchmarkWatched(b *testing.B) {
	for _, watchers := range []int{0, 100, 1000, 8000} {
		b.Run(fmt.Sprint(watchers), func(b *testing.B) {
			m := New(Config{})
			var wg sync.WaitGroup
			for i := range watchers {
				w, err := m.Watch(fmt.Sprintf("prefix %d/", i%8), 0)
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					defer w.Close()
					_, _ = w.Next(b.Context())
				})
			}
			for b.Loop() {
				one(b, m, 0, put("k", "v"))
			}
			for i := range 8 {
				one(b, m, 0, put(fmt.Sprintf("prefix %d/end", i), "v"))
			}
			wg.Wait()
		})
	}
}
