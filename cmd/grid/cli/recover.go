package cli

import (
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
)

// recoverCommand is `grid ledger recover`.
func (e *env) recoverCommand() *cobra.Command {
	var yes bool
	var show output
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Begin a realm of one with this home's copy of a ledger whose majority is lost",
		Long: `Begin a realm of one with the copy of the ledger that is in this home, for when most of a realm's voters are lost
for good. Do not use it when they are only down, or out of sight: start them instead.

What was acknowledged and had not reached this copy is lost. The realm gets a new ID: should the others come back after all,
they are another realm. The home's node must not run; start it afterwards. On each of the other nodes, move the folder
store/ledger of its home away, and start it: it joins with an empty ledger.`,
		Example: `  grid ledger recover --yes`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usageError(cmd, "what this copy does not have is lost: say --yes if that is meant")
			}
			if err := e.homeOnly("`grid ledger recover`"); err != nil {
				return err
			}
			home, err := e.homeDir()
			if err != nil {
				return err
			}
			if err := e.checkNotUp(cmd.Context(), home); err != nil {
				return err
			}
			r, err := daemon.Recover(cmd.Context(), home)
			if err != nil {
				return err
			}
			if show.formatted() {
				return show.print(r)
			}
			e.note("the realm %q, which had %s, is now one of this node alone, with %s", r.Realm, plural(r.Voters, "voter"), plural(r.Entries, "key"))
			e.hint("`grid up` starts it; on the other nodes, move store/ledger of their homes away first")
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "lose what this copy does not have")
	show.prints(e, cmd, "")
	return cmd
}
