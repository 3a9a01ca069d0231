package api_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// TestStopping: what a node that stops has cut short does not look whole to who reads it.
func TestStopping(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	running := make(chan struct{})
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		close(running)
		<-ctx.Done()
		return grid.Outcome{}, context.Cause(ctx)
	}
	node, err := grid.OpenNode(t.Context(), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dir, err := os.MkdirTemp("", "grid") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	base, stop := context.WithCancelCause(context.Background())
	server := &api.Server{Node: node, Logger: slog.New(slog.DiscardHandler)}
	srv := &http.Server{Handler: server.Handler(), BaseContext: func(net.Listener) context.Context { return base }}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()
	c := api.Dial(filepath.Join(dir, "s"))
	defer c.Close()

	id, err := c.Submit(within(t), grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: w.Module, Tasks: 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	<-running
	follows := make(chan error, 1)
	go func() { follows <- c.Tasks(within(t), id, true, func(grid.TaskEnd) error { return nil }) }()
	if _, err := c.KVPut(within(t), "a", nil, api.KVCond{}); err != nil {
		t.Fatal(err)
	}
	begin := uint64(0)
	err = c.KVWatch(within(t), "", &begin, func(api.KVChanges) error { // it is being answered
		stop(api.Stopping)
		return nil
	})
	wantCode(t, err, grid.Unavailable, "stopping")
	wantCode(t, <-follows, grid.Unavailable, "stopping")
}
