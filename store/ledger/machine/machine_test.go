package machine

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// apply applies commands as the next log entry.
func apply(t testing.TB, m *Machine, cmds ...Command) []Result {
	t.Helper()
	b, err := AppendBatch(nil, cmds)
	if err != nil {
		t.Fatal(err)
	}
	results, err := m.Apply(m.Applied()+1, b)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func put(key, value string) Command {
	return Command{Txn: &grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte(value)}}}}
}

func TestBasics(t *testing.T) {
	m := New(Config{})
	for i, r := range apply(t, m, put("a", "1"), put("b", "2"), put("a", "3")) {
		if r.Code != 0 || r.Revision != uint64(i+1) {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if e, ok := m.Get("a"); !ok || string(e.Value) != "3" || e.Version != 3 {
		t.Errorf("Get = %+v, %v", e, ok)
	}
	p, err := m.Range(grid.Query{At: 1})
	if err != nil || len(p.Entries) != 1 || string(p.Entries[0].Value) != "1" {
		t.Errorf("Range at 1: %+v, %v", p, err)
	}
	var b bytes.Buffer
	if n, err := m.Snapshot().WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatal(n, err)
	}
	m2 := New(Config{})
	if err := m2.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if e, ok := m2.Get("a"); !ok || string(e.Value) != "3" || e.Version != 3 {
		t.Errorf("Get = %+v, %v", e, ok)
	}
	w, err := m2.Watch("a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := w.Next(t.Context()); err != nil || c.Revision != 3 || len(c.Put) != 1 {
		t.Errorf("Next = %+v, %v", c, err)
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := New(Config{})
			var batches [][]byte
			for i := 0; i < 1<<16; i += n {
				var cmds []Command
				for j := range n {
					cmds = append(cmds, Command{Txn: &grid.Txn{
						ID:  grid.NewRequestID(),
						If:  []grid.Cond{{Key: fmt.Sprintf("absent/%d", j)}},
						Put: []grid.Entry{{Key: fmt.Sprintf("kv/%08d", (i+j)*7919%(1<<16)), Value: make([]byte, 100)}},
					}, Base: 1 << 60})
				}
				batch, err := AppendBatch(nil, cmds)
				if err != nil {
					b.Fatal(err)
				}
				batches = append(batches, batch)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				for _, c := range batches[i%len(batches)] {
					_ = c
				}
				if _, err := m.Apply(uint64(i+1), batches[i%len(batches)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.ReportMetric(float64(n)*float64(i)/b.Elapsed().Seconds(), "txns/s")
		})
	}
}
