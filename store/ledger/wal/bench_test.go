package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// Commits beside the same bytes written and synced plainly.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("raw-%d", n), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			p := make([]byte, n*(256+entryHead)+frameHeader)
			for b.Loop() {
				if _, err := f.Write(p); err != nil {
					b.Fatal(err)
				}
				if err := datasync(f); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("log-%d", n), func(b *testing.B) {
			l, err := Open(b.TempDir(), "realm")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			data, next := make([]byte, 256), uint64(1)
			for b.Loop() {
				batch := make([]*raft.Log, n)
				for i := range batch {
					batch[i] = &raft.Log{Index: next, Data: data}
					next++
				}
				if err := l.StoreLogs(batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen300k(b *testing.B) {
	dir := b.TempDir()
	l, err := Open(dir, "realm")
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 100)
	for next := uint64(1); next <= 300_000; {
		batch := make([]*raft.Log, 1000)
		for i := range batch {
			batch[i] = &raft.Log{Index: next, Data: data}
			next++
		}
		if err := l.StoreLogs(batch); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	for b.Loop() {
		l, err := Open(dir, "realm")
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}
