package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) nodeLogsCommand() *cobra.Command {
	var q grid.RecordQuery
	var since string
	var show output
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show what the node logs",
		Long: `Show the last records of the node's own log, which it keeps in memory wherever else they go: with --level those of a level and
above, with --room those of one part of the node. With -f new ones are shown as they come. What tasks print is shown by ` + "`grid logs JOB`" + `.`,
		Example: `  grid node logs
  grid node logs -f --level warn
  grid node logs --room p2p --since 10m --grep refused`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.Since, err = parseSince(since, e.now()); err != nil {
				return usageError(cmd, "--since %q: %v", since, err)
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				return s.NodeLog(cmd.Context(), q, func(r grid.LogRecord) error {
					if show.formatted() {
						return show.line(r)
					}
					return e.printRecord(r)
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "stay, and show what comes")
	cmd.Flags().StringVar(&q.Level, "level", "", "only of this `LEVEL` and above: debug, info, warn or error")
	cmd.Flags().StringVar(&q.Room, "room", "", "only of this `ROOM`, a part of the node")
	cmd.Flags().StringVar(&since, "since", "", "only what came after a `TIME`: 10m ago, or a date such as 2006-01-02T15:04:05Z")
	cmd.Flags().StringVar(&q.Grep, "grep", "", "only records with this `PATTERN`, in RE2's syntax, in the text or in a KEY=VALUE")
	cmd.Flags().IntVar(&q.Limit, "limit", 0, "only the last `N`")
	show.prints(e, cmd, "")
	completeFlag(cmd, "level", "debug", "info", "warn", "error")
	completeFlag(cmd, "room", nodelog.Rooms...)
	return cmd
}

// printRecord writes a record in a line. It may have words of other nodes in it.
func (e *env) printRecord(r grid.LogRecord) error {
	level := fmt.Sprintf("%-5s", r.Level)
	if r.Level == "warn" || r.Level == "error" {
		level = e.paint(red, level)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %-8s %s", stamp(r.At, e.now()), level, printable(r.Room), printable(r.Text))
	for _, k := range slices.Sorted(maps.Keys(r.Attrs)) {
		v := printable(r.Attrs[k])
		if v == "" || strings.ContainsAny(v, " =") {
			v = `"` + v + `"`
		}
		fmt.Fprintf(&b, " %s=%s", e.paint(dim, printable(k)), v)
	}
	_, err := fmt.Fprintln(e.out, b.String())
	return err
}

func (e *env) nodeLogLevelCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "log-level [LEVEL] [ROOM=LEVEL...]",
		Short: "Show or change how much the node logs",
		Long: `Show from which level on the node logs, or change that until it ends (` + "`grid up --log-level`" + ` says how it begins). A LEVEL alone is that of
all rooms, the parts of a node, that have none of their own; ROOM= has one go with the others again. The levels are
debug, info, warn and error.`,
		Example: `  grid node log-level
  grid node log-level p2p=debug raft=debug
  grid node log-level warn p2p=`,
		ValidArgsFunction: func(*cobra.Command, []string, string) (out []string, _ cobra.ShellCompDirective) {
			for _, room := range nodelog.Rooms {
				out = append(out, room+"=")
			}
			return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var to grid.LogLevels
			if len(args) > 0 {
				var err error
				if to, err = nodelog.ParseLevels(strings.Join(args, ",")); err != nil {
					return err
				}
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				now, err := s.LogLevels(cmd.Context())
				if len(args) > 0 && err == nil {
					now, err = s.SetLogLevels(cmd.Context(), to)
				}
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(now)
				}
				rows := [][]string{{"ROOM", "LEVEL"}, {"all others", now.Default}}
				for _, room := range slices.Sorted(maps.Keys(now.Rooms)) {
					rows = append(rows, []string{printable(room), now.Rooms[room]})
				}
				if now.Trouble != "" {
					e.note("%s could not be written to the log: %s", plural(now.Lost, "record"), printable(now.Trouble))
				}
				return e.table(rows)
			})
		},
	}
	show.prints(e, cmd, "")
	return cmd
}
