//go:build unix

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/bench/work"
	"github.com/wasmgrid/wasmgrid/grid"
)

// nap is a command module that sleeps, by the real clock, as many milliseconds as the digits say that its last
// argument ends in.
var nap = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x12\x03\x60\x02\x7f\x7f\x01\x7f\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x00\x00" + // types
	"\x02\x70\x03" +
	"\x16wasi_snapshot_preview1\x0eargs_sizes_get\x00\x00" +
	"\x16wasi_snapshot_preview1\x08args_get\x00\x00" +
	"\x16wasi_snapshot_preview1\x0bpoll_oneoff\x00\x01" +
	"\x03\x02\x01\x02" + // function 3 is of type 2
	"\x05\x03\x01\x00\x01" + // one page of memory
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x03" +
	"\x0a\x7a\x01\x78\x03\x01\x7f\x02\x7e\x01\x7f" + // locals: p i32, n and unit i64, c i32
	"\x41\x00\x41\x04\x10\x00\x1a" + // args_sizes_get(0, 4)
	"\x41\x80\x02\x41\x80\x20\x10\x01\x1a" + // args_get(256, 4096)
	"\x41\xfe\x1f\x41\x04\x28\x02\x00\x6a\x21\x00" + // p = 4094 + the bytes of all arguments
	"\x42\xc0\x84\x3d\x21\x02" + // unit = 1,000,000
	"\x02\x40\x03\x40" + // for
	"\x20\x00\x2d\x00\x00\x41\x30\x6b\x21\x03" + // c = *p - '0'
	"\x20\x03\x41\x09\x4b\x0d\x01" + // c <= 9
	"\x20\x01\x20\x02\x20\x03\xad\x7e\x7c\x21\x01" + // n += unit * c
	"\x20\x02\x42\x0a\x7e\x21\x02" + // unit *= 10
	"\x20\x00\x41\x01\x6b\x21\x00\x0c\x00\x0b\x0b" + // p--
	"\x41\xd0\x00\x41\x01\x36\x02\x00" + // of the monotonic clock
	"\x41\xd8\x00\x20\x01\x37\x03\x00" + // n nanoseconds
	"\x41\xc0\x00\x41\x80\x01\x41\x01\x41\x08\x10\x02\x1a\x0b") // poll_oneoff(64, 128, 1, 8)

// naps is a job whose task i sleeps so many milliseconds.
func naps(module grid.Link, ms ...int) grid.Request {
	axis := grid.Axis{Names: []string{"ms"}}
	for _, n := range ms {
		axis.Values = append(axis.Values, []string{strconv.Itoa(n)})
	}
	return grid.Request{NoCache: true, Spec: grid.Spec{Stages: []grid.Stage{{
		Module: module, Args: []string{"{ms}"}, Sweep: []grid.Axis{axis}, Impure: true}}}}
}

// spread is n times ms.
func spread(n, ms int) []int { return slices.Repeat([]int{ms}, n) }

// cluster starts so many nodes of one slot, which know one another and have the module ready.
func cluster(b *testing.B, n int, code []byte, warm func(module grid.Link) grid.Request) (nodes []*Node, module grid.Link) {
	b.Helper()
	w := NewWorld(b)
	for i := range n {
		nodes = append(nodes, w.Up("n"+strconv.Itoa(i), "--workers", "1"))
	}
	w.Meet(nodes...)
	module = addFile(b, nodes[0], code)
	for _, n := range nodes {
		Eventually(b, n.Home+" has run the module", func(ctx context.Context) error {
			runJob(b, nodes[0], warm(module))
			st, err := n.Node(ctx)
			if err == nil && st.Ran == 0 {
				err = errors.New("it has not")
			}
			return err
		})
	}
	return nodes, module
}

// BenchmarkSkewed is the time from submission to the end of 400 tasks of 10 ms and 10 of 1 s, on one node of four of
// one slot, as a ratio to what it takes when no slot is ever idle, and nothing costs anything but the tasks; and to
// what it takes when whichever slot is idle takes the next task of one queue at no cost, which is as well as can be
// done, as a rule, without knowing how long tasks take.
func BenchmarkSkewed(b *testing.B) {
	longLast := work.LongLast()
	short, long := longLast[:400], longLast[400:]
	for _, load := range []struct {
		name string
		jobs [][]int
	}{
		{"mixed", [][]int{work.Mixed()}},
		{"long-first", [][]int{slices.Concat(long, short)}},
		{"long-last", [][]int{longLast}},
		{"two-jobs", [][]int{short, long}},
	} {
		jobs := load.jobs
		b.Run(load.name, func(b *testing.B) {
			nodes, module := cluster(b, 4, nap, func(m grid.Link) grid.Request { return naps(m, spread(40, 20)...) })
			ideal := 0.0
			for _, ms := range slices.Concat(jobs...) {
				ideal += float64(ms) / 1000 / float64(len(nodes))
			}
			b.ResetTimer()
			for b.Loop() {
				var all sync.WaitGroup
				for _, ms := range jobs {
					all.Go(func() { runJob(b, nodes[0], naps(module, ms...)) })
				}
				all.Wait()
			}
			took := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(took/ideal, "of-ideal")
			b.ReportMetric(took/queued(len(nodes), slices.Concat(jobs...)), "of-one-queue")
		})
	}
}

// queued is how many seconds slots take that are given tasks of so many milliseconds in this order.
func queued(slots int, ms []int) float64 {
	idle := make([]int, slots) // when each is
	for _, n := range ms {
		slices.Sort(idle)
		idle[0] += n
	}
	return float64(slices.Max(idle)) / 1000
}

// BenchmarkFirstSteal is how long an idle node takes to begin a task of a job that is submitted to another node: from
// the call of the API, and from its answer, to when the node takes the task up, and to the guest's first instruction.
// All are medians.
func BenchmarkFirstSteal(b *testing.B) {
	nodes, module := cluster(b, 2, nap, func(m grid.Link) grid.Request { return naps(m, spread(40, 20)...) })
	var called, answered, ran []float64
	for b.Loop() {
		b.StopTimer()
		// Until the thief's sleep, after it has asked in vain, has become long.
		<-time.After(200 * time.Millisecond)
		b.StartTimer()
		before := time.Now()
		id, err := nodes[0].Submit(b.Context(), naps(module, spread(8, 30)...))
		if err != nil {
			b.Fatal(err)
		}
		after := time.Now()
		var first, guest time.Time
		if err := nodes[0].Tasks(b.Context(), id, true, func(e grid.TaskEnd) error {
			if e.Node == nodes[1].ID && (first.IsZero() || e.Started.Before(first)) {
				p := &e.Phases
				first, guest = e.Started, e.Started.Add(p.Fetch+p.Compile+p.Queue+p.Start)
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		if first.IsZero() {
			b.Fatal("the other node ran nothing")
		}
		called = append(called, first.Sub(before).Seconds()*1000)
		answered = append(answered, first.Sub(after).Seconds()*1000)
		ran = append(ran, guest.Sub(before).Seconds()*1000)
	}
	b.ReportMetric(median(called), "ms-from-call")
	b.ReportMetric(median(answered), "ms-from-answer")
	b.ReportMetric(median(ran), "ms-to-guest")
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkTasks is what tasks cost that do nothing: how many a second one node does that has all processors, and two and
// four of one slot each on the same processors, and what one and four spend on each.
func BenchmarkTasks(b *testing.B) {
	const tasks = 20_000
	one := NewWorld(b).Up("one")
	warm := func(m grid.Link) grid.Request { return noopJob(m, 2000) }
	module := addFile(b, one, noop)
	runJob(b, one, warm(module))
	two, _ := cluster(b, 2, noop, warm)
	four, _ := cluster(b, 4, noop, warm)
	var took, spent [3]time.Duration
	for b.Loop() {
		for i, nodes := range [][]*Node{{one}, two, four} {
			before, began := used(b, nodes...), time.Now()
			runJob(b, nodes[0], noopJob(module, tasks))
			took[i] += time.Since(began)
			spent[i] += used(b, nodes...) - before
		}
	}
	all := float64(tasks * b.N)
	b.ReportMetric(all/took[0].Seconds(), "one-tasks/s")
	b.ReportMetric(all/took[1].Seconds(), "two-tasks/s")
	b.ReportMetric(all/took[2].Seconds(), "four-tasks/s")
	b.ReportMetric(took[0].Seconds()/took[2].Seconds(), "four-of-one")
	b.ReportMetric(float64(spent[0].Microseconds())/all, "one-cpu-us/task")
	b.ReportMetric(float64(spent[2].Microseconds())/all, "four-cpu-us/task")
}

// used is the time that nodes' processes have had of processors, in steps of some milliseconds.
func used(b *testing.B, nodes ...*Node) (sum time.Duration) {
	b.Helper()
	for _, n := range nodes {
		spent, err := work.Processor(n.cmd.Process.Pid)
		if err != nil {
			b.Skip("this needs /proc:", err)
		}
		sum += spent
	}
	return sum
}

// BenchmarkWordCount is the first job of the README over 1,000 files of 512 MB together, on a home that is new but for
// the compiled module, beside the same done by a plain Go program on all processors: with what a task is given by
// default, and with more. That leaves less for the one task at the end, and more to do again when a file changes.
func BenchmarkWordCount(b *testing.B) {
	if testing.Short() {
		b.Skip("takes a minute and 2 GB of disk")
	}
	const files, size = 1000, 512 << 20
	dir := b.TempDir()
	if err := work.Text(dir, files, size/files); err != nil {
		b.Fatal(err)
	}
	for _, group := range []string{"1MiB", "8MiB"} {
		b.Run(group, func(b *testing.B) {
			b.SetBytes(size)
			countText(b, dir, group)
		})
	}
}

func countText(b *testing.B, dir, group string) {
	plugin := filepath.Join(repo(b), "plugins", "wordcount")
	var running, adding, plain, runningCPU, plainCPU time.Duration
	for b.Loop() {
		b.StopTimer()
		w := NewWorld(b)
		small := filepath.Join(w.dir, "small.txt")
		if err := os.WriteFile(small, []byte("one two"), 0o644); err != nil {
			b.Fatal(err)
		}
		w.Must("run", plugin, "--each", small, "--reduce") // compiles
		start, before := time.Now(), cpu(b)
		want, err := work.Count(dir)
		if err != nil {
			b.Fatal(err)
		}
		plain += time.Since(start)
		plainCPU += cpu(b) - before

		home, out := filepath.Join(w.dir, "adding"), filepath.Join(w.dir, "out")
		w.Must("add", "-q", "--home", home, small) // makes the home
		start = time.Now()
		w.Must("add", "-q", "--home", home, dir)
		adding += time.Since(start)

		start, before = time.Now(), childCPU(b)
		b.StartTimer()
		w.Must("run", plugin, "--each", filepath.Join(dir, "*.txt"), "--group", group, "--reduce", "-o", out)
		b.StopTimer()
		running += time.Since(start)
		runningCPU += childCPU(b) - before
		var file string
		if err := filepath.WalkDir(out, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "counts.tsv" {
				file = path
			}
			return err
		}); err != nil {
			b.Fatal(err)
		}
		if got, err := work.Tabled(file); err != nil || !slices.Equal(got, work.Table(want)) {
			b.Fatalf("%d words, want %d, or other counts: %v", len(got), len(want), err)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	n := float64(b.N)
	b.ReportMetric(running.Seconds()/n, "run-s")
	b.ReportMetric(adding.Seconds()/n, "add-s")
	b.ReportMetric(plain.Seconds()/n, "plain-s")
	b.ReportMetric(running.Seconds()/plain.Seconds(), "of-plain")
	b.ReportMetric(runningCPU.Seconds()/plainCPU.Seconds(), "cpu-of-plain")
}
