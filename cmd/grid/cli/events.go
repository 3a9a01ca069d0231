package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) eventsCommand() *cobra.Command {
	var follow bool
	var show output
	var room, since string
	cmd := &cobra.Command{
		Use:   "events [JOB]",
		Short: "Tell what happened in the realm, or to a job",
		Long: fmt.Sprintf(`Tell what happened in the realm, the oldest first: to jobs, nodes, data, the ledger and the list of nodes. Each node keeps the
last few thousand events of its own for as long as it runs; a node that does not answer is left out.

With JOB tell what happened to it, also after it has ended, and from any node: who accepted it or took it over, stages that
began or ended, tasks that failed on a node and were tried again, leases that were lost, nodes that are left alone for
what they did, and how it ended. The last %d events of a job are kept. A node that takes a job over begins anew.

With -f events are shown as they come; of a job, until it has ended.`, grid.MaxJobEvents),
		Example: `  grid events --since 10m
  grid events -f --room node
  grid events jk3q
  grid events jk3q --json > events.jsonl`,
		Args:              wantArgs(0, 1, "JOB"),
		ValidArgsFunction: first(e.completeJobs),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := grid.EventQuery{Room: room, Follow: follow}
			var err error
			if q.Since, err = parseSince(since, e.now()); err != nil {
				return usageError(cmd, "--since %q: %v", since, err)
			}
			if len(args) == 0 {
				return e.with(cmd.Context(), daemonOnly, func(s *session) error {
					return s.RealmEvents(cmd.Context(), q, func(ev grid.RealmEvent) error {
						if show.formatted() {
							return show.line(ev)
						}
						_, err := fmt.Fprintln(e.out, realmEventLine(&ev))
						return err
					})
				})
			}
			return e.withJob(cmd.Context(), args[0], func(s *session, id grid.JobID) error {
				j, err := s.Job(cmd.Context(), id)
				if err != nil {
					return err
				}
				q.Job = id
				return s.RealmEvents(cmd.Context(), q, func(ev grid.RealmEvent) error {
					if show.formatted() {
						return show.line(ev)
					}
					_, err := fmt.Fprintln(e.out, eventText(&j, &ev))
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with events as they come")
	cmd.Flags().StringVar(&since, "since", "", "leave out what is older than this `TIME`: 10m, 2h30m, 2006-01-02 or 2006-01-02T15:04:05Z")
	cmd.Flags().StringVar(&room, "room", "", "only events of this `ROOM`: "+strings.Join(grid.EventRooms, ", "))
	show.prints(e, cmd, "")
	_ = cmd.RegisterFlagCompletionFunc("room", cobra.FixedCompletions(grid.EventRooms, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

const eventTime = "2006-01-02 15:04:05.000"

// eventLine is an event of a job for people.
func eventLine(j *grid.JobStatus, ev *grid.JobEvent) string {
	return eventText(j, &grid.RealmEvent{At: ev.At, Kind: string(ev.Kind), Node: ev.Node.String(), Stage: &ev.Stage, Tasks: ev.Tasks, Text: ev.Text})
}

// eventText is an event of the one job that is asked about.
func eventText(j *grid.JobStatus, ev *grid.RealmEvent) string {
	stage := ""
	if ev.Stage != nil && int(*ev.Stage) < len(j.Stages) {
		stage = j.Stages[*ev.Stage].Name
	}
	return fmt.Sprintf("%s  %-9s  %s", ev.At.Local().Format(eventTime), printable(ev.Kind), eventWords(ev, stage))
}

// realmEventLine is an event of the realm for people: those of jobs say which.
func realmEventLine(ev *grid.RealmEvent) string {
	words := eventWords(ev, "")
	if ev.Job != "" {
		words = printable(string(ev.Job)) + " " + words
		if ev.Name != "" {
			words = printable(ev.Name) + " " + words
		}
	}
	return fmt.Sprintf("%s  %-6s  %-9s  %s", ev.At.Local().Format(eventTime), printable(ev.Room), printable(ev.Kind), words)
}

// eventWords is what an event says, with the tasks and the node that it is about.
func eventWords(ev *grid.RealmEvent, stage string) string {
	var b strings.Builder
	if ev.Tasks.Hi > ev.Tasks.Lo {
		if b.WriteString("task "); ev.Tasks.Len() == 1 {
			fmt.Fprintf(&b, "%d", ev.Tasks.Lo)
		} else {
			fmt.Fprintf(&b, "%d-%d", ev.Tasks.Lo, ev.Tasks.Hi-1)
		}
		if stage == "" && ev.Stage != nil {
			stage = fmt.Sprintf("stage %d", *ev.Stage)
		}
		fmt.Fprintf(&b, " of %s: ", cmp.Or(printable(stage), "a stage"))
	}
	b.WriteString(printable(ev.Text))
	if ev.Node != "" {
		fmt.Fprintf(&b, " (node %s)", printable(shortNode(ev.Node)))
	}
	return b.String()
}
