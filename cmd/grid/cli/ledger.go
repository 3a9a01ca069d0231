package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) ledgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Look after what the nodes of the realm agree on",
		Long: `Look after the realm's ledger: its jobs, refs and values, of which up to five nodes, the voters, keep copies that
always agree. It goes on as long as most of them are up.`,
		Example: "  grid ledger status",
		Args:    noSubcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.ledgerStatusCommand(), e.ledgerRemoveCommand(), e.recoverCommand())
	return cmd
}

func (e *env) ledgerStatusCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who keeps the ledger, and how far they are",
		Long: `Show who keeps the ledger: the nodes of the realm with their roles, whether they are up, how many log entries they
are behind the leader, and when they were last heard of. It is what the node knows, with or without a majority.`,
		Example: "  grid ledger status --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				st, err := s.LedgerStatus(cmd.Context())
				switch {
				case err != nil:
					return err
				case show.formatted():
					return show.print(st)
				}
				return e.showLedger(&st)
			})
		},
	}
	show.watches(cmd)
	show.prints(e, cmd, "{{range .members}}{{line .id}}{{end}}")
	return cmd
}

func (e *env) showLedger(st *grid.LedgerStatus) error {
	realm := printable(st.Realm)
	if st.RealmID != "" {
		realm += " (" + st.RealmID + ")"
	}
	leader := st.Leader
	if leader == "" && st.Role != grid.Leader {
		leader = "none known"
	}
	rows := [][]string{
		{"realm", realm},
		{"this node", string(st.Role)},
		{"leader", orDash(leader)},
		{"term", fmt.Sprint(st.Term)},
		{"revision", fmt.Sprint(st.Revision)},
		{"holds", fmt.Sprintf("%s, %s", plural(st.Entries, "key"), formatSize(st.Bytes))},
		{"sessions", fmt.Sprint(st.Sessions)},
	}
	if st.Note != "" {
		rows = append(rows, []string{"note", printable(st.Note)})
	}
	if err := e.table(rows); err != nil || len(st.Members) == 0 {
		return err
	}
	fmt.Fprintln(e.out)
	rows = [][]string{{"NODE", "ROLE", "UP", "BEHIND", "HEARD"}}
	for _, m := range st.Members {
		up, behind, heard := "no", "-", "-"
		if m.Up {
			up = "yes"
		}
		if m.Applied > 0 {
			behind = fmt.Sprint(m.Lag)
		}
		if m.Heard > 0 {
			heard = formatTime(m.Heard.Round(time.Millisecond)) + " ago"
		}
		rows = append(rows, []string{m.ID.String(), string(m.Role), up, behind, heard})
	}
	return e.table(rows)
}

func (e *env) ledgerRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NODE",
		Short: "Have a node that is lost for good belong to the realm no longer",
		Long: `Have a node belong to the realm no longer. It is not needed for one that is only down: that comes back by itself, and a
voter that stays away is replaced. A node that was removed and comes back does not take part; started with an
empty home, it joins anew.`,
		Example: "  grid ledger remove 12D3KooW...",
		Args:    wantArgs(1, 1, "NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0], "ledger status")
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error { return s.RemoveMember(cmd.Context(), id) })
		},
	}
}
