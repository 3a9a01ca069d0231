package cli

import (
	"io"

	"github.com/spf13/cobra"
)

func (e *env) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "cat CID[/PATH]...",
		Short:   "Print files in the grid",
		Long:    "Print the content of files in the grid, one after the other.",
		Example: `  grid cat bafy.../data.csv | head`,
		Args:    wantArgs(1, -1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, ref := range args {
					root, p, err := parseRef(ref)
					if err != nil {
						return err
					}
					r, err := s.Cat(cmd.Context(), root.Cid, p)
					if err != nil {
						return err
					}
					_, err = io.Copy(e.out, r)
					r.Close()
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
