package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// parallel calls f b.N times by some clients, and reports the rate and the median.
func parallel(b *testing.B, clients int, f func(client, i int) error) {
	var next atomic.Int64
	times := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for c := range clients {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				t := time.Now()
				if err := f(c, i); err != nil {
					b.Error(err)
					return
				}
				times[c] = append(times[c], time.Since(t))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	b.StopTimer()
	all := slices.Concat(times...)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(len(all))/took.Seconds(), "ops/s")
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
	}
}

// onFiles makes a world whose replicas are on disk.
func onFiles(b *testing.B, batch int) func(*Config) {
	dir := b.TempDir()
	n := 0
	return func(c *Config) {
		patient(c)
		c.OpenDisk = nil
		c.Dir = filepath.Join(dir, fmt.Sprint(n))
		c.batch = batch
		n++
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, disk := range []string{"files", "memory"} {
		for _, voters := range []int{1, 3, 5} {
			for _, clients := range []int{1, 64} {
				for _, batch := range []int{batchCommands, 1} {
					if batch == 1 && clients == 1 {
						continue
					}
					b.Run(fmt.Sprintf("%s/voters=%d/clients=%d/batch=%d", disk, voters, clients, batch), func(b *testing.B) {
						cfg := func(c *Config) { patient(c); c.batch = batch }
						if disk == "files" {
							cfg = onFiles(b, batch)
						}
						w := newWorld(b, memnet.Config{}, cfg)
						nodes := w.cluster(voters, 0)
						if batch == 1 { // as raft does it by itself
							nodes[0].replica().batch.atOnce = clients
						}
						value := make([]byte, 100)
						parallel(b, clients, func(client, i int) error {
							_, err := nodes[0].Commit(w.ctx, grid.Txn{Put: []grid.Entry{{Key: fmt.Sprintf("k%06d", i%100000), Value: value}}})
							return err
						})
					})
				}
			}
		}
	}
}

// BenchmarkFsync is the bar for BenchmarkCommit: 512 bytes appended to a file and synced.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	parallel(b, 1, func(int, int) error {
		if _, err := f.Write(make([]byte, 512)); err != nil {
			return err
		}
		return f.Sync()
	})
}

func BenchmarkGet(b *testing.B) {
	for _, at := range []string{"leader", "follower", "client"} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/clients=%d", at, clients), func(b *testing.B) {
				w := newWorld(b, memnet.Config{}, patient)
				nodes := w.cluster(3, 1)
				_, err := nodes[0].Commit(w.ctx, put("a", "1"))
				w.must(err)
				n := map[string]*node{"leader": nodes[0], "follower": nodes[1], "client": nodes[3]}[at]
				parallel(b, clients, func(int, int) error {
					_, err := n.Get(w.ctx, "a")
					return err
				})
			})
		}
	}
}

// BenchmarkFailover is the time from a leader's death to the first commit after it.
func BenchmarkFailover(b *testing.B) {
	w := newWorld(b, memnet.Config{}, nil)
	nodes := w.cluster(3, 1)
	var all []time.Duration
	for b.Loop() {
		old := w.leader(nodes[:3]...)
		i := slices.Index(nodes, old)
		w.net.Kill(old.id)
		began := time.Now()
		if _, err := nodes[3].Commit(context.Background(), put("a", "1")); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(began))
		b.StopTimer()
		w.crash(old)
		nodes[i] = w.start(i)
		w.must(nodes[i].replicate(w.ctx, testRealm))
		w.until("it has caught up", func() bool { return nodes[i].lastIndex() >= w.leader(nodes[:3]...).lastIndex() })
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(all[len(all)-1].Milliseconds()), "max-ms")
}

// BenchmarkRestart opens a replica of a log with 300,000 entries of one transaction each.
func BenchmarkRestart(b *testing.B) {
	if testing.Short() {
		b.Skip("it writes 300,000 entries first")
	}
	w := newWorld(b, memnet.Config{}, nil)
	dir := b.TempDir()
	w.cfg = func(c *Config) { c.OpenDisk, c.Dir = nil, dir }
	n := w.cluster(1, 0)[0]
	var wg sync.WaitGroup
	var next atomic.Int64
	n.replica().batch.most = 1
	n.replica().batch.atOnce = 64
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= 300_000; i = next.Add(1) {
				if _, err := n.Commit(w.ctx, put(fmt.Sprintf("k%06d", i), "0123456789012345678901234567890123456789")); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for b.Loop() {
		b.StopTimer()
		w.crash(n)
		n = w.start(0)
		b.StartTimer()
		w.must(n.replicate(w.ctx, testRealm))
		if _, err := n.Get(w.ctx, "k300000"); err != nil {
			b.Fatal(err)
		}
	}
}
