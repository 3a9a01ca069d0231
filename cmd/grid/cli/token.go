package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Let others use the nodes' API over the network",
		Long: `Make and remove tokens, with which others use the API of this realm's nodes over the network, those that are started with
` + "`grid up --api ADDRESS`" + `. A token has a role: a viewer reads; a submitter runs jobs, too, and changes data, keys and refs; an admin
does everything. What is done with a token is done for the user that it is named for.`,
		Example: `  grid up -d --api 0.0.0.0:4748
  grid token create --role submitter --name ann --expires 720h
  grid --api grid-api-1-... run hello.wasm     on any other machine
  grid token rm ann`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.tokenCreateCommand(), e.tokenListCommand(), e.tokenRemoveCommand())
	return cmd
}

func (e *env) tokenCreateCommand() *cobra.Command {
	var req grid.TokenRequest
	var role string
	var at []string
	var show output
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token",
		Long: `Make a token, and print it: once, as nobody can tell it again. It has in it where this node is and how to know it, so that
` + "`grid --api TOKEN`" + ` needs nothing else; all nodes of the realm that serve their API take it. Keep it as a password. Who gets a
submitter's token can read all data of the realm, and, through jobs, its secrets.`,
		Example: `  grid token create
  grid token create --role submitter --name ann --expires 720h
  grid token create --role admin --at https://192.0.2.8:4748#47DEQpj8HBSa...`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Role = grid.TokenRole(role); req.Role.Check() != nil {
				return usageError(cmd, "--role %q: want viewer, submitter or admin", role)
			}
			if req.Expires != 0 && req.Expires < time.Second {
				return usageError(cmd, "--expires %v: want a second at least, or 0 for never", req.Expires)
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				t, err := s.CreateToken(cmd.Context(), req, at...)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(t)
				}
				if _, err := fmt.Fprintln(e.out, printable(t.Text)); err != nil {
					return err
				}
				e.hint("whoever has it: `grid --api TOKEN status`, or GRID_API=TOKEN in the environment; `grid token rm %s` ends it", t.ID)
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&role, "role", string(grid.TokenViewer), "what its holder may do, a `ROLE`: viewer, submitter or admin")
	completeFlag(cmd, "role", "viewer\treads", "submitter\tand runs jobs, changes data, keys and refs", "admin\tand everything else")
	fl.StringVar(&req.Name, "name", "", "the `USER` for whom everything is done with it (default made from its ID)")
	fl.DurationVar(&req.Expires, "expires", 90*24*time.Hour, "for how much `TIME` it is good; 0: until it is removed")
	fl.StringArrayVar(&at, "at", nil, "name another node of the realm in it, too, by the `URL` that `grid status` tells there; may be repeated")
	show.prints(e, cmd, "{{.id}}")
	return cmd
}

func (e *env) tokenListCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the tokens, without their secrets",
		Long: `List the tokens of the realm, also those that have expired within a week: name, role, until when they are good, and when they
were used last on this node, within a minute, since it is up.`,
		Example: "  grid token ls\n  grid token ls --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := s.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(list)
				}
				if len(list) == 0 {
					e.note("there are no tokens")
					return nil
				}
				rows := [][]string{{"TOKEN", "NAME", "ROLE", "MADE", "EXPIRES", "USED HERE"}}
				for _, t := range list {
					expires, used := "never", "-"
					if !t.Expires.IsZero() {
						expires = t.Expires.Local().Format(time.DateTime)
					}
					if !t.Used.IsZero() {
						used = t.Used.Local().Format("2006-01-02 15:04")
					}
					rows = append(rows, []string{printable(t.ID), printable(t.Name), string(t.Role), t.Created.Local().Format(time.DateTime), expires, used})
				}
				return e.table(rows)
			})
		},
	}
	show.lists(e, cmd, "{{.id}}")
	return cmd
}

func (e *env) tokenRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm TOKEN...",
		Short: "Remove tokens, by ID or name",
		Long: `Remove tokens, by ID, or by name if there is only one of that name. All nodes of the realm stop to take them within a second, and
cut off what goes on with them. A node that cannot reach the realm stops within a minute to take any token.`,
		Example: "  grid token rm ann",
		Args:    wantArgs(1, -1, "TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, which := range args {
					if _, err := s.RemoveToken(cmd.Context(), which); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
