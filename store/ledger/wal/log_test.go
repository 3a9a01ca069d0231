package wal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

var (
	_ raft.CommitTrackingLogStore = (*Log)(nil)
	_ raft.MonotonicLogStore      = (*Log)(nil)
	_ raft.StableStore            = (*Log)(nil)
)

func open(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir, "realm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func store(t *testing.T, l *Log, lo, hi uint64, data string) {
	t.Helper()
	for i := lo; i <= hi; i++ {
		if err := l.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeletedSuffixStaysGone(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	store(t, l, 1, 10, "old")
	l.StageCommitIndex(4)
	if err := errors.Join(l.DeleteRange(6, 10), l.DeleteRange(1, 2), l.SetUint64([]byte("term"), 7)); err != nil {
		t.Fatal(err)
	}
	store(t, l, 6, 7, "new")
	l.Close()
	l = open(t, dir)
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	commit, _ := l.GetCommitIndex()
	term, _ := l.GetUint64([]byte("term"))
	if first != 3 || last != 7 || commit != 4 || term != 7 {
		t.Fatal(first, last, commit, term)
	}
	l.tail = nil // read from disk
	var e raft.Log
	if err := l.GetLog(6, &e); err != nil || string(e.Data) != "new" {
		t.Fatal(err, e)
	}
	if err := l.GetLog(8, &e); err != raft.ErrLogNotFound {
		t.Fatal(err)
	}
	if _, err := Open(dir, "other"); grid.CodeOf(err) != grid.Corrupt {
		t.Fatal(err)
	}
}

// The log does what a plain slice does, over many small segments and openings.
func TestAgainstModel(t *testing.T) {
	defer func(n int64) { segmentSize = n }(segmentSize)
	segmentSize = 300
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		l := open(t, dir)
		var model []raft.Log
		next := uint64(1)
		for step := range 150 {
			switch k := r.IntN(10); {
			case k < 5 || len(model) == 0:
				if len(model) == 0 {
					next += r.Uint64N(20)
				}
				var batch []*raft.Log
				for range 1 + r.IntN(4) {
					e := raft.Log{Index: next, Term: uint64(step), Data: []byte{byte(step)}}
					model, batch, next = append(model, e), append(batch, &e), next+1
				}
				if err := l.StoreLogs(batch); err != nil {
					t.Fatal(seed, step, err)
				}
			case k < 8:
				n := r.IntN(len(model) + 1)
				lo, hi := model[0].Index, model[0].Index+uint64(n)-1
				if k == 7 {
					lo, hi = model[0].Index+uint64(n), model[len(model)-1].Index
				}
				if err := l.DeleteRange(lo, hi); err != nil {
					t.Fatal(seed, step, err)
				}
				if k == 7 {
					model, next = model[:n], lo
				} else {
					model = model[n:]
				}
				if len(model) == 0 {
					next = max(next, hi+1)
				}
			default:
				l.Close()
				l = open(t, dir)
			}
			l.tail = l.tail[len(l.tail)/2:]
			var first, last uint64
			if len(model) > 0 {
				first, last = model[0].Index, model[len(model)-1].Index
			}
			f, _ := l.FirstIndex()
			g, _ := l.LastIndex()
			if f != first || g != last {
				t.Fatalf("seed %d step %d: %d to %d, want %d to %d", seed, step, f, g, first, last)
			}
			for _, want := range model {
				var e raft.Log
				if err := l.GetLog(want.Index, &e); err != nil || e.Term != want.Term || !bytes.Equal(e.Data, want.Data) {
					t.Fatal(seed, step, want.Index, e, err)
				}
			}
		}
	}
}

// Every flipped bit is named, or is in the last frame, which may be torn.
func TestEveryBitFlipAndCut(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	store(t, l, 1, 3, "x")
	lastFrame := int(l.segments[0].size) - frameHeader - entryHead - 1
	l.Close()
	name := filepath.Join(dir, "0000000000000001.wal")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	try := func(b []byte) (uint64, error) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, "realm")
		if err != nil {
			return 0, err
		}
		defer l.Close()
		return l.LastIndex()
	}
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		last, err := try(b)
		if bit/8 < lastFrame && err == nil || bit/8 >= lastFrame && (err != nil || last != 2) {
			t.Fatalf("bit %d: last %d, %v", bit, last, err)
		}
	}
	for n := lastFrame; n < len(whole); n++ {
		if last, err := try(whole[:n]); err != nil || last != 2 {
			t.Fatalf("cut at %d: last %d, %v", n, last, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(appendEntry(nil, &raft.Log{Index: 1, Data: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeFrame(b)
		if e, n, err := decodeEntry(b); err == nil && len(appendEntry(nil, &e)) != n {
			t.Fatal("an entry of another length")
		}
	})
}
