package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

func (e *env) profileCommand() *cobra.Command {
	var seconds int
	var out string
	var text bool
	cmd := &cobra.Command{
		Use:   "profile " + strings.Join(api.Profiles, "|"),
		Short: "Tell where the node's time or memory goes",
		Long: `Profile the running node, as an admin of its realm, and write what comes of it to a file: for ` + "`go tool pprof`" + `, or of the
kind trace for ` + "`go tool trace`" + `. The program has the symbols that are needed.

cpu        where processors spend their time
block      where goroutines wait
mutex      what has others wait for locks
trace      what every goroutine does at every moment; at most 30 seconds
heap       what memory is in use, and allocs what was allocated since the node started
goroutine  what all goroutines are doing; with --text to be read
threadcreate  what has made threads

The first four are of a stretch of time, of which a node profiles one at a time. They cost it some percent; the others nothing. Where
the work of guests goes is told by ` + "`grid run --profile`" + `; here they are machine code without names.`,
		Example: `  grid node profile cpu --seconds 30
  grid node profile heap -o heap.pprof && go tool pprof -top heap.pprof
  grid node profile goroutine --text -o -`,
		Args:      wantArgs(1, 1, "the kind of profile"),
		ValidArgs: api.Profiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if !slices.Contains(api.Profiles, name) {
				return usageError(cmd, "there is no profile %q: want one of %s", name, strings.Join(api.Profiles, ", "))
			}
			if cmd.Flags().Changed("seconds") && (seconds < 1 || time.Duration(seconds)*time.Second > api.MaxProfile) {
				return usageError(cmd, "--seconds %d: want 1 to %d", seconds, int(api.MaxProfile.Seconds()))
			}
			if text && name != "goroutine" {
				return usageError(cmd, "--text is for the profile of goroutines")
			}
			switch {
			case out != "":
			case text:
				out = name + ".txt"
			case name == "trace":
				out = "trace.out"
			default:
				out = name + ".pprof"
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				return e.nodeProfile(cmd.Context(), s, name, time.Duration(seconds)*time.Second, text, out)
			})
		},
	}
	cmd.Flags().IntVar(&seconds, "seconds", 0, "profile for `N` seconds: cpu, block, mutex and trace (default 10)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write it to this `FILE`, - being the standard output (default one named for the kind)")
	cmd.Flags().BoolVar(&text, "text", false, "write the stacks of goroutines as text")
	return cmd
}

// nodeProfile writes a profile to a file, which is there only if all of it is.
func (e *env) nodeProfile(ctx context.Context, s *session, name string, took time.Duration, text bool, out string) error {
	body, err := s.Profile(ctx, name, took, text)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == "-" {
		_, err := io.Copy(e.out, body)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".profile-*")
	if err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", out, reason(err))
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, body)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = grid.Errorf(codeOfOS(cerr), "write %s: %w", out, reason(cerr))
	}
	if err == nil {
		if err = os.Rename(f.Name(), out); err != nil {
			err = grid.Errorf(codeOfOS(err), "write %s: %w", out, reason(err))
		}
	}
	if err != nil {
		return err
	}
	switch {
	case text:
	case name == "trace":
		e.note("look at it with `go tool trace %s`", out)
	default:
		e.note("look at it with `go tool pprof -http=: %s`", out)
	}
	return nil
}
