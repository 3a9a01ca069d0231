package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) nodeLsCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the nodes of the realm",
		Long: `List the nodes of the realm, this one with them: how many tasks they run and have waiting, the jobs that they own, memory and disk. The node that leads
the ledger has a *; one that does not answer is silent, and shown as it was known last. ` + "`grid top`" + ` shows the same as it changes, ` + "`grid peers`" + ` how
others are connected.`,
		Example: `  grid node ls
  grid node ls --watch
  grid node ls -o 'template={{.node}} {{.state}}'`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), daemonOnly, func(s *session) error {
				list, err := s.Nodes(cmd.Context())
				if err != nil {
					return err
				}
				return e.listNodes(list, &show, e.now())
			})
		},
	}
	show.watches(cmd)
	show.lists(e, cmd, "{{.node}}")
	return cmd
}

func (e *env) listNodes(list []grid.Pulse, show *output, now time.Time) error {
	if show.formatted() {
		return show.print(list)
	}
	named := slices.ContainsFunc(list, func(p grid.Pulse) bool { return p.Name != "" })
	zoned := slices.ContainsFunc(list, func(p grid.Pulse) bool { return p.Zone != "" })
	add := func(row []string, name, zone string) []string {
		if zoned {
			row = append(row, orDash(printable(zone)))
		}
		if named {
			row = slices.Insert(row, 1, orDash(printable(name)))
		}
		return row
	}
	rows := [][]string{add([]string{"NODE", "STATE", "VERSION", "UP", "SLOTS", "QUEUE", "JOBS", "MEMORY", "DISK"}, "NAME", "ZONE")}
	for i := range list {
		p := &list[i]
		name := p.Node
		if p.Leader {
			name += " *"
		}
		row := []string{printable(name), printable(p.State)}
		if p.State == grid.PulseSilent && p.Started.IsZero() { // it has never answered
			row = append(row, "-", "-", "-", "-", "-", "-", "-")
		} else {
			up := "-"
			if p.State != grid.PulseSilent {
				up = formatTime(now.Sub(p.Started).Round(time.Second))
			}
			row = append(row, printable(p.Version), up, fmt.Sprintf("%d/%d", p.Load.Running, p.Load.Slots), fmt.Sprint(p.Load.Queued), fmt.Sprint(p.Jobs),
				formatSize(p.Memory), formatSize(p.Disk))
		}
		rows = append(rows, add(row, p.Name, p.Zone))
	}
	return e.table(rows)
}
