//go:build unix

package e2e

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/stand"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/sched"
)

// cpu is the time that this process has had of processors.
func cpu(b *testing.B) time.Duration { return cpuOf(b, syscall.RUSAGE_SELF) }

// childCPU is the time that commands which have ended had.
func childCPU(b *testing.B) time.Duration { return cpuOf(b, syscall.RUSAGE_CHILDREN) }

func cpuOf(b *testing.B, who int) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		b.Skip(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBareTasks is what a task costs that does nothing, on one node: scheduling it, making its invocation and
// its signed receipt, and recording it. The engine and what is stored are stand-ins.
func BenchmarkBareTasks(b *testing.B) {
	const tasks = 50_000
	p := stand.New("node")[0]
	p.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) { return grid.Outcome{}, nil }
	cfg := stand.Config(p, p2p.Offline(p.ID), sched.New(sched.Config{Self: p.ID, Slots: 2}), 2)
	cfg.Bound = true
	n, err := grid.OpenNode(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	before := cpu(b)
	for b.Loop() {
		r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: p.Module, Tasks: tasks}}}, NoCache: true}
		id, err := n.Submit(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		var last grid.JobStatus
		if err := n.Watch(b.Context(), id, func(st grid.JobStatus) error { last = st; return nil }); err != nil || last.State != grid.Done {
			b.Fatal(err, last.State)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/tasks, "cpu-ns/task")
}
