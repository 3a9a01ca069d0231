package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Look after the blocks on this node's disk",
		Long: `Look after the blocks on this node's disk. What jobs and pins need stays; the rest is a cache, which makes room when
the quota of the store (` + "`grid up --store-quota`" + `) is nearly reached, least recently used first.`,
		Example: `  grid store stat
  grid store gc
  grid store verify --repair`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.storeStatCommand(), e.storeGCCommand(), e.storeVerifyCommand(), e.storeRepairCommand())
	return cmd
}

func (e *env) storeStatCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "stat",
		Short: "Tell how full the store is",
		Long: `Tell how full the store is, and of what: pinned blocks are those that jobs, pins and whatever is under way need; cached
ones may go. What is on disk and neither is of deleted blocks, and comes back when it is needed.`,
		Example: `  grid store stat
  grid store stat --json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				u, err := s.StoreUse(cmd.Context())
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(u)
				}
				rows := [][]string{
					{"on disk", fmt.Sprintf("%s of %s (%d%%)", formatSize(u.Disk), formatSize(u.Quota), u.Disk*100/max(u.Quota, 1))},
					{"live", fmt.Sprintf("%s in %s", formatSize(u.Live), plural(u.Blocks, "block"))},
					{"pinned", fmt.Sprintf("%s in %s", formatSize(u.Pinned), plural(u.PinnedBlocks, "block"))},
					{"cached", fmt.Sprintf("%s in %s", formatSize(u.Cached), plural(u.Blocks-u.PinnedBlocks, "block"))},
				}
				for _, c := range u.Damaged {
					rows = append(rows, []string{"damaged", c.String()})
				}
				return e.table(rows)
			})
		},
	}
	show.watches(cmd)
	show.prints(e, cmd, "")
	return cmd
}

func (e *env) storeGCCommand() *cobra.Command {
	var dryRun bool
	var show output
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Delete the blocks that nothing needs",
		Long: `Delete the blocks that no job and no pin needs, and give their space back to the disk. What is being used stays, and
what was added to a running node within the last minutes. Other commands and jobs go on meanwhile.`,
		Example: `  grid store gc --dry-run
  grid store gc`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				c, err := s.Collect(cmd.Context(), dryRun)
				if err != nil {
					return err
				}
				for _, l := range c.Lost {
					e.note("block %s was damaged, and no other node has it: it is lost", l)
				}
				if show.formatted() {
					return show.print(c)
				}
				if dryRun {
					_, err = fmt.Fprintf(e.out, "%s, %s, would be deleted; %s, %s, stay\n",
						plural(c.Deleted, "block"), formatSize(c.DeletedBytes), plural(c.Kept, "block"), formatSize(c.KeptBytes))
					return err
				}
				_, err = fmt.Fprintf(e.out, "%s, %s, deleted; %s, %s, stay; the disk got %s back in %s\n",
					plural(c.Deleted, "block"), formatSize(c.DeletedBytes), plural(c.Kept, "block"), formatSize(c.KeptBytes),
					formatSize(max(c.Reclaimed, 0)), formatTime(c.Took))
				return err
			})
		},
	}
	show.prints(e, cmd, "")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell what would be deleted")
	return cmd
}

func (e *env) storeVerifyCommand() *cobra.Command {
	var repair bool
	var show output
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read all blocks, and name the damaged ones",
		Long: `Read all blocks and check each against its CID. The damaged ones are listed, a line each, and the exit code is 1 when
there are any left. With --repair each is fetched again from other nodes; one that nobody has stays damaged, until it
is added again or its node is reached. A running node does this by itself, slowly.`,
		Example: `  grid store verify
  grid store verify --repair`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return e.verify(cmd.Context(), repair, &show) },
	}
	show.prints(e, cmd, "")
	cmd.Flags().BoolVar(&repair, "repair", false, "fetch damaged blocks again from other nodes")
	return cmd
}

func (e *env) storeRepairCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:     "repair",
		Short:   "Fetch damaged blocks again from other nodes",
		Long:    "Read all blocks, and fetch those that are damaged again from other nodes: `grid store verify --repair`.",
		Example: `  grid store repair`,
		Args:    wantArgs(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return e.verify(cmd.Context(), true, &show) },
	}
	show.prints(e, cmd, "")
	return cmd
}

// verify reads everything, and fails when damage is left.
func (e *env) verify(ctx context.Context, repair bool, show *output) error {
	return e.with(ctx, anyNode, func(s *session) error {
		v, err := s.Verify(ctx, repair)
		if err != nil {
			return err
		}
		left := uint64(0)
		rows := [][]string{}
		for _, d := range v.Damaged {
			what := "damaged"
			switch {
			case d.Repaired:
				what = "repaired"
			case repair:
				what = "lost"
			}
			if !d.Repaired {
				left++
			}
			rows = append(rows, []string{what, d.CID.String(), printable(d.Error)})
		}
		if show.formatted() {
			err = show.print(v)
		} else if err = e.table(rows); err == nil {
			e.note("%s, %s, read in %s", plural(v.Blocks, "block"), formatSize(v.Bytes), formatTime(v.Took.Round(time.Microsecond)))
		}
		if err != nil || left == 0 {
			return err
		}
		fail := grid.Errorf(grid.Corrupt, "%s damaged: they do not match their CIDs", plural(left, "block"))
		if repair {
			fail.Hint("connect to a node that has them, or add the data again")
		} else {
			fail.Hint("`grid store verify --repair` fetches them again from other nodes")
		}
		return &exitError{exitFailure, fail}
	})
}
