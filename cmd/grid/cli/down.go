package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

// stopTimeout is how long a node may take to end its tasks and close its stores, and stopPatience after what time the
// user is told of it.
const (
	stopTimeout  = time.Minute
	stopPatience = 3 * time.Second
)

func (e *env) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "End the running node",
		Long:    "End the node that runs in this home, and wait until it no longer answers. Another node of the realm takes over its jobs that have not ended; if there is none, they go on when it is up again.",
		Example: `  grid down`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				st, err := s.Node(cmd.Context())
				if err != nil {
					return err
				}
				if err := s.Shutdown(cmd.Context()); err != nil {
					return err
				}
				if err := e.waitGone(cmd.Context(), s, &st); err != nil {
					return err
				}
				e.note("the node of %s has ended", st.Home)
				return nil
			})
		},
	}
}

// waitGone waits until the node no longer answers, and has let go of its home.
func (e *env) waitGone(ctx context.Context, s *session, st *grid.NodeStatus) error {
	return e.awaitEnd(ctx, st, func(ctx context.Context) bool {
		_, err := s.Node(ctx)
		return err != nil && ctx.Err() == nil && (s.remote || !daemon.InUse(st.Home))
	})
}

// awaitEnd asks whether the node is gone until it is, and says what it waits for when that takes long.
func (e *env) awaitEnd(ctx context.Context, st *grid.NodeStatus, gone func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, grid.Errorf(grid.Deadline, "the node, process %d, did not end within %v", st.PID, stopTimeout).
		Hint("its log may tell why; `kill -9 %d` ends it, and harms no data", st.PID))
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	patience := time.After(stopPatience)
	for !gone(ctx) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience:
			e.note("waiting for the node, process %d, to end its tasks and to close its stores in %s, for %v at most; its log tells what it is at", st.PID, st.Home, stopTimeout)
		case <-tick.C:
		}
	}
	return nil
}
