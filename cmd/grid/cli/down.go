package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

// stopTimeout is how long a node may take to end its tasks and close its stores.
const stopTimeout = time.Minute

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
				if err := waitGone(cmd.Context(), s, &st); err != nil {
					return err
				}
				e.note("the node of %s has ended", st.Home)
				return nil
			})
		},
	}
}

// waitGone waits until the node no longer answers, and has let go of its home.
func waitGone(ctx context.Context, s *session, st *grid.NodeStatus) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, grid.Errorf(grid.Deadline, "the node, process %d, did not end within %v", st.PID, stopTimeout).
		Hint("its log may tell why; `kill -9 %d` ends it, and harms no data", st.PID))
	defer cancel()
	for {
		_, err := s.Node(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && (s.remote || !daemon.InUse(st.Home)):
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(startPoll):
		}
	}
}
