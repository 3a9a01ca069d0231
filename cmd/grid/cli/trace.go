package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/trace"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// traceFlag has a command that makes a job say of which trace it is part.
func (e *env) traceFlag(cmd *cobra.Command) {
	var parent string
	cmd.Flags().StringVar(&parent, "traceparent", "", "link the job's trace to this `SPAN`, as W3C Trace Context writes it (default $TRACEPARENT)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("traceparent") {
			if _, err := grid.ParseTraceparent(parent); err != nil {
				return usageError(cmd, "--traceparent: %w", err)
			}
		} else if parent, _ = e.lookupEnv("TRACEPARENT"); parent == "" {
			return nil
		} else if _, err := grid.ParseTraceparent(parent); err != nil {
			e.note("TRACEPARENT is not heeded: %v", err)
			return nil
		}
		cmd.SetContext(api.WithTraceparent(cmd.Context(), parent))
		return nil
	}
}

// traces is where this command's own node sends its traces. What is wrong with that is no reason not to run.
func (e *env) traces() trace.Config {
	c, err := trace.Configure("", e.lookupEnv)
	if err != nil {
		e.note("nothing is traced: %v", err)
	}
	return c
}

// upTraces is where `grid up` sends its traces.
func (f *upFlags) upTraces() (trace.Config, error) { return trace.Configure(f.otlp, os.LookupEnv) }
