package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/cmd/grid/tune"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) benchCommand() *cobra.Command {
	var quick bool
	var show output
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the node, beside what its machine can do",
		Long: `Measure the node: its disk and processor, how fast blocks are stored and read, how long a commit to the ledger and a
sandbox take, how many tasks run in a second, and the network to each node of the realm. Beside each is what the machine did of the
same in the same run without the grid, and how much of that was reached. It takes some twenty seconds of the node's time, with
--quick five, an interrupt ends it, and it leaves nothing behind that is kept; work that goes on meanwhile goes on, and makes the figures worse.

Without a running node one is opened for this command, without network. What plugins do is measured by ` + "`grid plugin bench`" + `.`,
		Example: `  grid bench --quick
  grid bench --json >bench.json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				var list []grid.Measured
				err := s.Bench(cmd.Context(), quick, func(m grid.Measured) error {
					if list = append(list, m); show.formatted() {
						return nil
					}
					_, err := fmt.Fprintln(e.out, measuredLine(&m))
					return err
				})
				if err == nil && show.formatted() {
					err = show.print(list)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "measure less of each, in some five seconds")
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

// measuredLine tells one measurement to people.
func measuredLine(m *grid.Measured) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s", printable(m.Name))
	if m.Error != "" {
		fmt.Fprintf(&b, " could not be measured: %s", printable(m.Error))
		return b.String()
	}
	fmt.Fprintf(&b, " %12s  ", amount(m.Value, m.Unit))
	if m.Limit > 0 {
		fmt.Fprintf(&b, "%3.0f%% of %s: %s", 100*m.Ratio, amount(m.Limit, m.Unit), printable(m.Against))
	} else {
		b.WriteString(printable(m.Does))
	}
	if m.Note != "" {
		fmt.Fprintf(&b, " (%s)", printable(m.Note))
	}
	if m.Peer != "" {
		fmt.Fprintf(&b, ", %s", printable(m.Peer))
	}
	return b.String()
}

// amount writes a value with its unit.
func amount(v float64, unit string) string {
	switch unit {
	case "bytes":
		return formatSize(uint64(max(v, 0)))
	case "bytes/s":
		return formatSize(uint64(max(v, 0))) + "/s"
	case "s":
		d := time.Duration(v * float64(time.Second))
		if d < 10*time.Microsecond {
			return d.Round(time.Nanosecond).String()
		}
		return formatTime(d)
	case "of all":
		return fmt.Sprintf("%.0f%%", 100*v)
	}
	return fmt.Sprintf("%.0f %s", v, printable(unit))
}

// maxBench is how large a file with what was measured may be.
const maxBench = 1 << 20

func (e *env) tuneCommand() *cobra.Command {
	var from string
	var apply, force bool
	var show output
	cmd := &cobra.Command{
		Use:   "tune",
		Short: "Say how the node should be set, and why",
		Long: `Measure the node as ` + "`grid bench --quick`" + ` does, and say of each setting how it is, how it should be, why, and what more of it
costs. The last line has the flags for ` + "`grid up`" + ` that make it so, if any. Nothing is changed, unless --apply writes these settings to
the config.yaml of the home, for the next start of the node; what somebody has set there, or for this user, it changes only with --force.
docs/tuning.md tells of all settings.`,
		Example: `  grid tune
  grid tune --apply
  grid bench --json >bench.json && grid tune --from bench.json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if force && !apply {
				return usageError(cmd, "--force is for --apply")
			}
			if apply { // before the work of measuring
				if err := e.homeOnly("grid tune --apply"); err != nil {
					return err
				}
			}
			list, err := e.measured(cmd.Context(), from)
			if err != nil {
				return err
			}
			knobs := tune.Suggest(list)
			if show.formatted() {
				err = show.print(knobs)
			} else {
				err = e.showKnobs(knobs)
			}
			if err != nil || !apply {
				return err
			}
			return e.applyKnobs(knobs, force)
		},
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "write what is suggested to the home's config.yaml")
	cmd.Flags().BoolVar(&force, "force", false, "with --apply, change also what somebody has set")
	cmd.Flags().StringVar(&from, "from", "", "take what was measured from this `FILE` of grid bench --json; - is your standard input")
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

// measured is what a file tells, or what is measured now.
func (e *env) measured(ctx context.Context, from string) (list []grid.Measured, err error) {
	if from == "" {
		e.note("measuring; it takes some seconds")
		err = e.with(ctx, anyNode, func(s *session) error {
			return s.Bench(ctx, true, func(m grid.Measured) error { list = append(list, m); return nil })
		})
		return list, err
	}
	in := e.stdin
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return nil, grid.Errorf(codeOfOS(err), "read %s: %w", from, reason(err))
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxBench+1))
	if err == nil && len(data) > maxBench {
		return nil, grid.Errorf(grid.Limit, "%s has more than %d bytes", from, maxBench)
	}
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		err = dec.Decode(&list)
	}
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "%s is not what was measured: %w", from, err).Hint("`grid bench --json` prints that")
	}
	return list, nil
}

func (e *env) showKnobs(knobs []tune.Knob) error {
	rows := [][]string{{"SETTING", "NOW", "SUGGESTED"}}
	var flags []string
	for i := range knobs {
		k := &knobs[i]
		suggested := k.Suggested
		if k.Suggested == k.Now {
			suggested = "the same"
		}
		rows = append(rows, []string{k.Name, printable(k.Now), printable(suggested)})
		if k.Flag != "" {
			flags = append(flags, k.Flag)
		}
	}
	if err := e.table(rows); err != nil {
		return err
	}
	for i := range knobs {
		k := &knobs[i]
		if _, err := fmt.Fprintf(e.out, "\n%s: %s\n  more costs: %s\n", printable(k.Name), printable(k.Why), printable(k.Cost)); err != nil {
			return err
		}
	}
	if len(flags) == 0 {
		e.note("it is set well")
		return nil
	}
	_, err := fmt.Fprintf(e.out, "\ngrid up %s\n", strings.Join(flags, " "))
	return err
}

// applyKnobs writes what is suggested to the home's file of settings: all of it, or nothing.
func (e *env) applyKnobs(knobs []tune.Knob, force bool) error {
	up := e.upCommand()
	home, err := e.homeDir()
	if err != nil {
		return err
	}
	from, err := e.configure(up, e.configFiles(home))
	if err != nil {
		return err
	}
	var said []string
	err = e.rewrite(false, func(text []byte, all []config.Setting) ([]byte, error) {
		var made []string // by somebody
		for i := range knobs {
			if knobs[i].Flag == "" {
				continue
			}
			s, err := config.Find(all, "up."+knobs[i].Name)
			if err != nil {
				return nil, err
			}
			fresh, is := e.upCommand().Flags(), knobs[i].Suggested
			if err := setFlag(fresh, s, []string{is}); err != nil {
				return nil, badSetting(origin{}, s, err)
			}
			now := up.Flag(s.Flag).Value.String()
			switch o := from[s.Flag]; {
			case now == fresh.Lookup(s.Flag).Value.String(): // however it is written
				continue
			case o.variable != "":
				return nil, grid.Errorf(grid.Conflict, "%s is %s by $%s, which goes before the file", s.Key(), now, o.variable).Hint("unset it, and try again")
			case o != (origin{}):
				made = append(made, fmt.Sprintf("%s is %s by %s", s.Key(), now, o))
				said = append(said, fmt.Sprintf("%s: %s, was %s", s.Key(), is, now))
			default:
				said = append(said, fmt.Sprintf("%s: %s", s.Key(), is))
			}
			if text, err = config.Set(text, s, []string{is}); err != nil {
				return nil, err
			}
		}
		if len(made) > 0 && !force {
			return nil, grid.Errorf(grid.Conflict, "somebody has set it so, and nothing was changed: %s", strings.Join(made, "; ")).Hint("--force changes it")
		}
		return text, nil
	})
	if err != nil {
		return err
	}
	if len(said) == 0 {
		e.note("the settings say so already; a node that is otherwise has to be started again")
		return nil
	}
	e.note("%s now has %s; the next start of the node uses it", e.configFiles(home)[0], strings.Join(said, ", "))
	return nil
}
