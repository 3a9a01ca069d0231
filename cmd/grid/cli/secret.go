package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Keep secrets for tasks",
		Long: `Keep secrets in the realm's ledger, such as passwords and keys, for the tasks that are granted them with
--allow-secret. They are encrypted to the nodes of the realm, which can read them all; nobody is told what they are.
A task finds a secret in the file /secrets/NAME.`,
		Example: `  grid secret set api-token token.txt
  grid run fetch.wasm --allow-secret api-token --allow-net example.org
  grid secret ls`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.secretSetCommand(), e.secretListCommand(), e.secretRemoveCommand())
	return cmd
}

func (e *env) secretSetCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "set NAME [FILE]",
		Short: "Set a secret",
		Long: `Set a secret to what is in FILE, or comes through standard input, byte for byte: at most 64 KiB. A terminal is asked for one
line, which it does not show. The version is printed. Tasks that begin from then on are given the new value.`,
		Example: "  grid secret set api-token token.txt\n  pass show token | grid secret set api-token",
		Args:    wantArgs(1, 2, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := grid.CheckSecretName(args[0]); err != nil {
				return err
			}
			var value []byte
			var err error
			if len(args) == 2 {
				// Who gave the value in place of a file is not to see it in an error.
				if _, serr := os.Stat(args[1]); serr != nil && args[1] != "-" {
					return grid.Errorf(codeOfOS(serr), "secret %s: the file that is to hold it: %w", args[0], reason(serr)).
						Hint("a value is no argument: it comes from a file, or through standard input")
				}
				value, err = e.takeAll(args[1], grid.MaxSecret)
			} else {
				value, err = e.takeSecret(args[0])
			}
			if err != nil {
				return err
			}
			if len(value) == 0 {
				return grid.Errorf(grid.Invalid, "the secret %s is empty", args[0]).Hint("`grid secret rm %s` removes it", args[0])
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				info, err := s.SetSecret(cmd.Context(), args[0], value)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(info)
				}
				_, err = fmt.Fprintln(e.out, info.Version)
				return err
			})
		},
	}
	show.prints(e, cmd, "{{.name}}")
	return cmd
}

// takeSecret reads standard input, or a line of a terminal without showing it.
func (e *env) takeSecret(name string) ([]byte, error) {
	f, ok := e.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return e.takeAll("-", grid.MaxSecret)
	}
	fmt.Fprintf(e.err, "secret %s: ", name)
	value, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(e.err)
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "read the secret: %w", reason(err))
	}
	return value, nil
}

func (e *env) secretListCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List secrets, without their values",
		Long: `List the secrets of the realm: name, version, when and by which node it was set, and how many nodes can read it. The version is
another one whenever a secret is set, and never comes back.`,
		Example: "  grid secret ls\n  grid secret ls --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := s.Secrets(cmd.Context())
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(list)
				}
				if len(list) == 0 {
					e.note("there are no secrets")
					return nil
				}
				rows := [][]string{{"NAME", "VERSION", "SET", "BY", "READABLE"}}
				for i := range list {
					x := &list[i]
					readable := "by " + plural(x.Readers, "node")
					if !x.Here {
						readable += ", not by this one"
					}
					rows = append(rows, []string{printable(x.Name), fmt.Sprint(x.Version), x.Set.Local().Format(time.DateTime), printable(shortNode(x.By)), readable})
				}
				return e.table(rows)
			})
		},
	}
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) secretRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Remove secrets",
		Long:    "Remove secrets. Tasks that need one fail from then on; those that have begun know it already.",
		Example: "  grid secret rm api-token",
		Args:    wantArgs(1, -1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := grid.CheckSecretName(name); err != nil {
					return err
				}
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, name := range args {
					if _, err := s.RemoveSecret(cmd.Context(), name); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
