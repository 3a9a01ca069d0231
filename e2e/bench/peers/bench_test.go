package peers

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/bench/work"
)

// each runs a benchmark of each peer that is installed.
func each(b *testing.B, bench func(b *testing.B, f *Found)) {
	for _, p := range All {
		b.Run(p.Name, func(b *testing.B) {
			f, err := p.Find(b.Context())
			if err != nil {
				b.Skip(err)
			}
			bench(b, f)
		})
	}
}

// seconds has a peer do a job again and again, and is how long that took it in the mean.
func seconds(b *testing.B, f *Found, j job) float64 {
	b.Helper()
	sum := 0.0
	for b.Loop() {
		took, err := f.drive(b.Context(), b.TempDir(), j, nil)
		if err != nil {
			b.Fatal(err)
		}
		sum += took
	}
	b.ReportMetric(0, "ns/op") // that is of the driver with all it starts
	return sum / float64(b.N)
}

// BenchmarkTasks is how many tasks a second one, two and four workers do that do nothing.
func BenchmarkTasks(b *testing.B) {
	each(b, func(b *testing.B, f *Found) {
		for _, workers := range []int{1, 2, 4} {
			b.Run(fmt.Sprint(workers), func(b *testing.B) {
				b.ReportMetric(float64(f.few)/seconds(b, f, job{Do: "tasks", Workers: workers, Tasks: f.few}), "tasks/s")
			})
		}
	})
}

// BenchmarkLatency is how long one such task takes, from its submission to its result.
func BenchmarkLatency(b *testing.B) {
	each(b, func(b *testing.B, f *Found) {
		few := max(10, f.few/20)
		b.ReportMetric(seconds(b, f, job{Do: "latency", Workers: 1, Tasks: few})/float64(few), "s")
	})
}

// BenchmarkSkewed is how long four workers take for tasks of unlike length.
func BenchmarkSkewed(b *testing.B) {
	each(b, func(b *testing.B, f *Found) {
		for name, ms := range map[string][]int{"mixed": work.Mixed(), "long-last": work.LongLast()} {
			b.Run(name, func(b *testing.B) { b.ReportMetric(seconds(b, f, job{Do: "sleep", Workers: 4, MS: ms}), "s") })
		}
	})
}

// BenchmarkWords is how long as many workers as there are processors take to count the words of 1,000 files of 512 MB together, by tasks of about 8 MiB.
func BenchmarkWords(b *testing.B) {
	const files, size = 1000, 512 << 20
	dir := b.TempDir()
	if err := work.Text(dir, files, size/files); err != nil {
		b.Fatal(err)
	}
	counts, err := work.Count(dir)
	if err != nil {
		b.Fatal(err)
	}
	want := work.Table(counts)
	each(b, func(b *testing.B, f *Found) {
		out := filepath.Join(b.TempDir(), "counts.tsv")
		b.ReportMetric(seconds(b, f, job{Do: "words", Workers: runtime.GOMAXPROCS(0), Files: dir, Group: 16, Out: out}), "s")
		if got, err := work.Tabled(out); err != nil || !slices.Equal(got, want) {
			b.Fatalf("%d words, want %d, or other counts: %v", len(got), len(want), err)
		}
	})
}

// BenchmarkIdle is what all takes that has to be up for one worker, when there is nothing to do.
func BenchmarkIdle(b *testing.B) {
	each(b, func(b *testing.B, f *Found) {
		if !f.idles {
			b.Skip("nothing of it stays up")
		}
		var spent, took time.Duration
		var memory int64
		for b.Loop() {
			_, err := f.drive(b.Context(), b.TempDir(), job{Do: "idle", Workers: 1}, func(pids []int) error {
				<-time.After(2 * time.Second) // what begins with them has ended
				before, _, err := takes(pids)
				if err != nil {
					return err
				}
				began := time.Now()
				<-time.After(20 * time.Second)
				after, bytes, err := takes(pids)
				spent, took, memory = spent+after-before, took+time.Since(began), memory+bytes
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(memory)/float64(b.N), "bytes")
		b.ReportMetric(100*spent.Seconds()/took.Seconds(), "%core")
	})
}

// takes is what processes have had of processors, and have of memory.
func takes(pids []int) (spent time.Duration, memory int64, err error) {
	for _, pid := range pids {
		t, err := work.Processor(pid)
		if err != nil {
			return 0, 0, err
		}
		m, err := work.Memory(pid)
		if err != nil {
			return 0, 0, err
		}
		spent, memory = spent+t, memory+m
	}
	return spent, memory, nil
}
