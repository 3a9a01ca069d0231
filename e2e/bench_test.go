package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// noop is the smallest command module: a memory, and a _start that returns.
var noop = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type 0: func()
	"\x03\x02\x01\x00" + // function 0 is of type 0
	"\x05\x03\x01\x00\x01" + // one page of memory
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" +
	"\x0a\x04\x01\x02\x00\x0b")

// addFile stores one file in a node and returns its CID.
func addFile(tb testing.TB, n *Node, data []byte) grid.Link {
	tb.Helper()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := tw.WriteHeader(&tar.Header{Name: "file", Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		tb.Fatal(err)
	}
	if _, err := tw.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		tb.Fatal(err)
	}
	var link grid.Link
	if _, err := n.Add(tb.Context(), &archive, func(e grid.FileInfo) { link = e.CID }); err != nil {
		tb.Fatal(err)
	}
	return link
}

// runJob submits a job and waits for its end.
func runJob(tb testing.TB, n *Node, r grid.Request) grid.JobStatus {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	id, err := n.Submit(ctx, r)
	if err != nil {
		tb.Fatal(err)
	}
	st, err := n.Watch(ctx, id, func(grid.JobStatus) error { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	if st.State != grid.Done {
		tb.Fatalf("job ended as %s: %s", st.State, st.Error)
	}
	return st
}

func noopJob(module grid.Link, tasks uint32) grid.Request {
	return grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: module, Tasks: tasks}}}, NoCache: true}
}

// BenchmarkNoopTasks is the whole path of a task, from submission over the API to the recorded result,
// for tasks that do nothing, on one node.
func BenchmarkNoopTasks(b *testing.B) {
	n := NewWorld(b).Up("bench")
	module := addFile(b, n, noop)
	runJob(b, n, noopJob(module, 1000)) // warm
	const tasks = 20_000
	b.ResetTimer()
	for b.Loop() {
		runJob(b, n, noopJob(module, tasks))
	}
	b.ReportMetric(float64(tasks*b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkTinyJob is the time from submission to the result of a job of one tiny task, on a warm node.
func BenchmarkTinyJob(b *testing.B) {
	n := NewWorld(b).Up("bench")
	module := addFile(b, n, noop)
	runJob(b, n, noopJob(module, 1))
	b.ResetTimer()
	for b.Loop() {
		runJob(b, n, noopJob(module, 1))
	}
}

// BenchmarkEmbeddedCommand is `grid run` from the start of its process to its end, without a node, for
// a module that was compiled before.
func BenchmarkEmbeddedCommand(b *testing.B) {
	w := NewWorld(b)
	path := filepath.Join(w.dir, "noop.wasm")
	if err := os.WriteFile(path, noop, 0o644); err != nil {
		b.Fatal(err)
	}
	w.Must("run", path)
	b.ResetTimer()
	for b.Loop() {
		w.Must("run", "--no-cache", path)
	}
}

// BenchmarkAdd is `grid add` of one big file to a running node, beside hashing the same bytes and beside
// writing them to the same disk.
func BenchmarkAdd(b *testing.B) {
	const size = 256 << 20
	benchmarkAdd(b, size, func(path string, data []byte) {
		save(b, path, data)
	})
}

// BenchmarkAddSmallFiles is the same of a folder of 10,000 files of 10 KB.
func BenchmarkAddSmallFiles(b *testing.B) {
	benchmarkAdd(b, smallFiles*smallSize, func(path string, data []byte) { saveSmall(b, path, data) })
	b.ReportMetric(smallFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

const smallFiles, smallSize = 10_000, 10_000

// saveSmall writes a folder of small files.
func saveSmall(tb testing.TB, path string, data []byte) {
	tb.Helper()
	for i := range smallFiles {
		dir := filepath.Join(path, strconv.Itoa(i/1000))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data[i*smallSize:][:smallSize], 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// benchmarkAdd adds what lay makes of random bytes.
func benchmarkAdd(b *testing.B, size int64, lay func(path string, data []byte)) {
	w := NewWorld(b)
	n := w.Up("bench")
	b.SetBytes(size)
	var adding, hashing, writing time.Duration
	data := make([]byte, size)
	for b.Loop() {
		b.StopTimer()
		_, _ = rand.Read(data)
		path := filepath.Join(w.dir, "data")
		if err := os.RemoveAll(path); err != nil {
			b.Fatal(err)
		}
		lay(path, data)
		start := time.Now()
		sha256.Sum256(data)
		hashing += time.Since(start)
		start = time.Now()
		raw := filepath.Join(w.dir, "raw")
		save(b, raw, data)
		writing += time.Since(start)
		if err := os.Remove(raw); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		start = time.Now()
		n.Must("add", "-q", path)
		adding += time.Since(start)
	}
	b.ReportMetric(hashing.Seconds()/adding.Seconds(), "of-sha256")
	b.ReportMetric(writing.Seconds()/adding.Seconds(), "of-disk")
}

// BenchmarkGet is `grid get` of one big file from a running node, beside writing the same bytes to the same disk.
func BenchmarkGet(b *testing.B) {
	const size = 256 << 20
	benchmarkGet(b, size, func(path string, data []byte) { save(b, path, data) })
}

// BenchmarkGetSmallFiles is the same of a folder of 10,000 files of 10 KB.
func BenchmarkGetSmallFiles(b *testing.B) {
	benchmarkGet(b, smallFiles*smallSize, func(path string, data []byte) { saveSmall(b, path, data) })
	b.ReportMetric(smallFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

// benchmarkGet gets what lay makes of random bytes.
func benchmarkGet(b *testing.B, size int64, lay func(path string, data []byte)) {
	w := NewWorld(b)
	n := w.Up("bench")
	b.SetBytes(size)
	data := make([]byte, size)
	_, _ = rand.Read(data)
	path, raw, out := filepath.Join(w.dir, "data"), filepath.Join(w.dir, "raw"), filepath.Join(w.dir, "out")
	lay(path, data)
	root := strings.TrimSpace(n.Must("add", "-q", path))
	var getting, writing time.Duration
	for b.Loop() {
		b.StopTimer()
		if err := errors.Join(os.RemoveAll(out), os.RemoveAll(raw)); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		lay(raw, data)
		writing += time.Since(start)
		b.StartTimer()
		start = time.Now()
		n.Must("get", "-q", root, "-o", out)
		getting += time.Since(start)
	}
	b.ReportMetric(writing.Seconds()/getting.Seconds(), "of-disk")
}

// BenchmarkAddAgain is `grid add` of a folder that has not changed since: the source of Go.
func BenchmarkAddAgain(b *testing.B) {
	n := NewWorld(b).Up("bench")
	src := filepath.Join(goEnv("GOROOT"), "src")
	start := time.Now()
	n.Must("add", "-q", "--no-index", src)
	first := time.Since(start)
	for b.Loop() {
		n.Must("add", "-q", src)
	}
	b.ReportMetric(first.Seconds()*float64(b.N)/b.Elapsed().Seconds(), "times-first")
}

// save writes a file so that none of it is left for the disk to write later.
func save(tb testing.TB, path string, data []byte) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		tb.Fatal(err)
	}
}
