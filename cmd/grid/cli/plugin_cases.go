package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/cmd/grid/plugin"
	"github.com/wasmgrid/wasmgrid/grid"
)

// tried is a plugin that was built to be tried out.
type tried struct {
	*plugin.Runner
	built  plugin.Built
	binary []byte
	cases  []*plugin.Case
}

// try builds a plugin, reads its cases, and does something with both.
func (e *env) try(ctx context.Context, dir string, cases []string, do func(*tried) error) error {
	if !plugin.Is(dir) {
		_, err := plugin.Open(dir)
		return err
	}
	w := e.workbench()
	defer w.close()
	t := &tried{}
	var err error
	if t.cases, err = plugin.ReadCases(dir, cases...); err != nil {
		return err
	}
	if t.built, err = w.build(ctx, dir); err != nil {
		return err
	}
	if t.binary, err = os.ReadFile(t.built.Path); err != nil {
		return grid.Errorf(codeOfOS(err), "module: %w", reason(err))
	}
	box, err := w.sandbox()
	if err != nil {
		return err
	}
	id, err := box.Add(t.binary)
	if err != nil {
		return err
	}
	t.Runner = &plugin.Runner{Sandbox: box, Module: id, Manifest: t.built.Manifest}
	return do(t)
}

// testResult is what plugin test --json prints.
type testResult struct {
	Plugin string           `json:"plugin"`
	Cases  []*plugin.Report `json:"cases"`
	Failed int              `json:"failed"`
	// Interpreted says that machine code took too long to make, so times are those of the interpreter.
	Interpreted bool `json:"interpreted"`
}

// completeCases offers the cases of the plugin's folder.
func completeCases(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	cases, err := plugin.ReadCases(folderArg(args))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, c := range cases {
		names = append(names, c.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// warmPatience is how long the tests of a plugin wait for its machine code, so that the times they tell are true.
const warmPatience = 5 * time.Second

func (e *env) pluginTestCommand() *cobra.Command {
	var update bool
	var show output
	var only []string
	cmd := &cobra.Command{
		Use:   "test [DIR]",
		Short: "Run a plugin's golden cases",
		Long: `Build the plugin in folder DIR, or in the current one, and run its golden cases in the real sandbox. No node is needed.

A case is a folder cases/NAME, of the function that it is named for, with more behind a dot if there are several. Its
input is the file stdin, or the files below in. Arguments, grants, limits, keys and secrets are in case.yaml, if any are
needed. What must come out is in the files stdout, out/..., error and kv.json; --update writes them. Each case is run twice,
to show that it gives the same again, unless it is impure.

What it prints of a case that is ok are fuel, memory and time of one call. Tests of the language's own, such as those of
go test, are not run.`,
		Example: `  grid plugin test
  grid plugin test ./word-count --case count --case map.empty
  grid plugin test --update`,
		Args: wantArgs(0, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.try(ctx, folderArg(args), only, func(t *tried) error {
				warm, err := t.Warm(ctx, warmPatience)
				if err != nil {
					return err
				}
				res := testResult{Plugin: t.Manifest.String(), Cases: []*plugin.Report{}, Interpreted: !warm}
				width := 0
				for _, c := range t.cases {
					width = max(width, len(c.Name))
				}
				for _, c := range t.cases {
					r, err := t.Run(ctx, c, update)
					if err != nil {
						return err
					}
					if res.Cases = append(res.Cases, r); !r.OK {
						res.Failed++
					}
					if !show.formatted() {
						fmt.Fprint(e.out, caseText(r, width))
					}
				}
				if show.formatted() {
					if err := show.print(res); err != nil {
						return err
					}
				}
				switch {
				case res.Failed > 0 && show.formatted():
					return &exitError{exit: exitFailure}
				case res.Failed > 0:
					return &exitError{exitFailure, grid.Errorf(grid.Exit, "%d of %s failed", res.Failed, plural(len(res.Cases), "case")).
						Hint("if that is what should come out, `grid plugin test --update` writes it into the cases")}
				}
				e.note("%s of %s ok", plural(len(res.Cases), "case"), res.Plugin)
				if res.Interpreted {
					e.note("times are those of an interpreter: machine code took longer than %v to make", warmPatience)
				}
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&only, "case", nil, "run only the case `NAME`; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("case", completeCases)
	fl.BoolVar(&update, "update", false, "write what comes out as what must come out from now on")
	show.prints(e, cmd, "")
	return cmd
}

// caseText tells people what became of a case.
func caseText(r *plugin.Report, width int) string {
	var b strings.Builder
	word := "ok"
	switch {
	case !r.OK:
		word = "FAIL"
	case r.Updated:
		word = "new"
	}
	impure := ""
	if r.Impure {
		impure = "  impure, run once"
	}
	fmt.Fprintf(&b, "%-4s  %-*s  %12s fuel  %10s  %8s%s\n", word, width, printable(r.Case), grouped(r.Fuel), formatSize(r.Memory), formatTime(r.Time), impure)
	for _, p := range r.Problems {
		if again, ok := strings.CutPrefix(p.What, "again"); ok {
			fmt.Fprintf(&b, "  another run gave something else:%s\n", printable(again))
		} else {
			fmt.Fprintf(&b, "  %s\n", printable(p.What))
		}
		b.WriteString(quoted(p.Diff))
	}
	if !r.OK && r.Log != "" {
		b.WriteString("  its log\n" + quoted(r.Log))
	}
	return b.String()
}

// quoted sets off lines of a guest's.
func quoted(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + strings.ReplaceAll(printable(strings.TrimSuffix(line, "\n")), `\t`, "\t") + "\n")
	}
	return b.String()
}

// grouped writes a large number so that it can be read.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (e *env) pluginBenchCommand() *cobra.Command {
	var show output
	var only []string
	var span time.Duration
	cmd := &cobra.Command{
		Use:   "bench [DIR]",
		Short: "Measure a plugin's golden cases",
		Long: `Build the plugin in folder DIR, or in the current one, and measure its golden cases in the sandbox: the time of a call
by the median of many, which are warm; how many calls a second all cores make; and the first call of a node that has not
seen the module. A function that does nothing, of a module of 40 bytes, is measured in the same run, and the ratio to it
is given. Nothing is checked: that is what grid plugin test does.`,
		Example: `  grid plugin bench
  grid plugin bench ./word-count --case count --time 10s`,
		Args: wantArgs(0, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if span <= 0 {
				return usageError(cmd, "--time %v: want a time above 0", span)
			}
			ctx := cmd.Context()
			return e.try(ctx, folderArg(args), only, func(t *tried) error {
				m := e.startMeter(progress{what: "measuring", unit: ""})
				b, err := t.Bench(ctx, t.cases, span, func() (plugin.Sandbox, error) { return daemon.OpenSandbox("", nil) }, t.binary)
				m.stop()
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(struct {
						Plugin string `json:"plugin"`
						*plugin.Bench
					}{t.Manifest.String(), b})
				}
				return e.table(benchRows(b))
			})
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&only, "case", nil, "measure only the case `NAME`; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("case", completeCases)
	fl.DurationVar(&span, "time", 2*time.Second, "how much `TIME` to measure each case for")
	show.prints(e, cmd, "")
	return cmd
}

func benchRows(b *plugin.Bench) [][]string {
	rows := [][]string{{"CASE", "MEDIAN", "99%", "RATIO", fmt.Sprintf("CALLS/S ON %d", b.Cores), "FUEL", "COLD"}}
	for _, m := range append([]plugin.Measure{b.Empty}, b.Cases...) {
		name := m.Case
		if len(rows) == 1 {
			name = "(nothing)"
		}
		rows = append(rows, []string{printable(name), formatTime(m.Median), formatTime(m.Slow), fmt.Sprintf("x%.1f", m.Ratio), grouped(uint64(m.PerSecond)), grouped(m.Fuel), formatTime(m.Cold)})
	}
	return rows
}
