//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterrupted: what was measured before an interrupt is kept, and what a benchmark has started ends with it.
func TestInterrupted(t *testing.T) {
	started := filepath.Join(t.TempDir(), "pid")
	t.Setenv("GRID_BENCH_SELF", started)
	steady, hangs := &bench{"e2e/bench", "Steady", "1x", "1x"}, &bench{"e2e/bench", "Hangs", "1x", "1x"}
	lines := []*line{
		{name: "steady", shows: "s", value: series{steady, "", "steps", 0}},
		{name: "hangs", shows: "h", value: series{hangs, "", "ns/op", 0}},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	child := 0
	go func() { // ends with ctx
		for ctx.Err() == nil {
			if data, err := os.ReadFile(started); err == nil && strings.HasSuffix(string(data), "\n") {
				child, _ = strconv.Atoi(strings.TrimSpace(string(data)))
				cancel()
			}
			<-time.After(10 * time.Millisecond)
		}
	}()
	r, err := measure(ctx, lines, nil, 1, true, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Lines[0].Values; !slices.Equal(got, []float64{42}) {
		t.Errorf("steady: %v", got)
	}
	if got := r.Lines[1]; got.Error != "interrupted" {
		t.Errorf("hangs: %+v", got)
	}
	if child == 0 {
		t.Fatal("it was not started within two minutes")
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if syscall.Kill(child, 0) != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d, which the benchmark has started, goes on", child)
		}
	}
}

// BenchmarkHangs starts a process and waits for it.
func BenchmarkHangs(b *testing.B) {
	forRunner(b)
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("GRID_BENCH_SELF"), fmt.Appendln(nil, cmd.Process.Pid), 0o600); err != nil {
		b.Fatal(err)
	}
	_ = cmd.Wait()
}
