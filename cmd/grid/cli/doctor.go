package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/doctor"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) doctorCommand() *cobra.Command {
	var show output
	list := &strings.Builder{}
	for _, c := range doctor.Checks() {
		fmt.Fprintf(list, "  %-10s %s\n", c[0], c[1])
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong, and how to fix it",
		Long: `Look whether this machine is fit for a node, and whether the node of the home is well, if one runs. Each check tells what it
found, and how to fix what is wrong. Nothing is changed. The exit code is 0 unless a check has failed; warnings do not count.

` + list.String(),
		Example: "  grid doctor\n  grid doctor --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.homeOnly("`grid doctor`"); err != nil {
				return err
			}
			home, err := e.homeDir()
			if err != nil {
				return err
			}
			client, err := dial(cmd.Context(), home)
			if client != nil {
				defer client.Close()
			}
			r := doctor.Run(cmd.Context(), doctor.Look(cmd.Context(), home, client, err))
			if show.formatted() {
				err = show.print(r)
			} else {
				err = e.showDoctor(&r)
			}
			if err == nil && r.Failures > 0 {
				err = &exitError{exitFailure, nil}
			}
			return err
		},
	}
	show.prints(e, cmd, "")
	return cmd
}

func (e *env) showDoctor(r *doctor.Report) error {
	last := ""
	for _, f := range r.Findings {
		name, mark := f.Check, string(f.Level)
		if name == last {
			name = ""
		}
		last = f.Check
		fmt.Fprintf(e.out, "%-10s %-8s %s\n", name, mark, printable(f.Found))
		if f.Fix != "" {
			fmt.Fprintf(e.out, "%-10s %-8s %s\n", "", "", "→ "+printable(f.Fix))
		}
	}
	verdict := "all is well"
	if r.Failures+r.Warnings > 0 {
		verdict = plural(uint64(r.Failures), "failure") + ", " + plural(uint64(r.Warnings), "warning")
	}
	_, err := fmt.Fprintf(e.out, "\n%s (grid %s)\n", verdict, grid.Version)
	return err
}
