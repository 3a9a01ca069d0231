package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) pluginAttachCommand() *cobra.Command {
	var x grid.Extension
	var memory sizeFlag
	var fallback string
	var show output
	cmd := &cobra.Command{
		Use:   "attach ROLE NAME[.FUNCTION][@VERSION]",
		Short: "Have a plugin extend the nodes of the realm",
		Long: `Have a function of a plugin extend all nodes of the realm. ROLE is one of

  admission      says of each job whether it is accepted, and whether it has to be verified
  scorer         says how well nodes suit the tasks of a stage
  notifier       is told of what happens to jobs, and tells others: notifier/NAME gives it another name than the plugin's

The function must be of that kind. It runs in the sandbox like any other, within the limits that are given here. What the
reference means is found out now: a newer version has to be attached anew, and takes the place of the one before.

An admission policy that does not answer as it should refuses the job, unless --fallback says accept. Notifiers are told of
the events that --events names: submitted, taken (by another node), stage, trouble, done, failed, cancelled; ended is the last
three. docs/extending.md tells more.`,
		Example: `  grid plugin attach admission guard.admit
  grid plugin attach admission guard@2 --timeout 1s --fallback accept
  grid plugin attach notifier/chat webhook.post --allow-net chat.example.org --events done,failed`,
		Args: wantArgs(2, 2, "ROLE and NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if x.Role, x.Name, err = grid.ParseRole(args[0]); err != nil {
				return err
			}
			if x.Timeout < 0 {
				return usageError(cmd, "--timeout %v is negative", x.Timeout)
			}
			x.Memory, x.Fallback = uint64(memory), grid.Fallback(fallback)
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				got, err := s.Attach(cmd.Context(), args[1], x)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(got)
				}
				_, err = fmt.Fprintf(e.out, "%s %s %s\n", printable(got.Key()), printable(got.String()), got.Module)
				return err
			})
		},
	}
	fl := cmd.Flags()
	fl.DurationVar(&x.Timeout, "timeout", 0, "how much `TIME` it may take each time (default 5s, of a notifier 30s)")
	fl.Var(&memory, "memory", "how much memory it may use (default 64MiB)")
	fl.Uint64Var(&x.Fuel, "fuel", 0, "how much work it may do each time, `N` units (default 10000000000)")
	fl.StringVar(&fallback, "fallback", "", "`WHAT` becomes of jobs when an admission policy does not answer: refuse or accept (default refuse)")
	fl.StringSliceVar(&x.Events, "events", nil, "which `EVENTS` a notifier is told of (default ended)")
	fl.Uint32Var(&x.Tries, "tries", 0, "tell a notifier `N` times of an event until it takes it (default 4)")
	fl.StringArrayVar(&x.Net, "allow-net", nil, "let a notifier send HTTP requests to `HOST:PORT`; may be repeated")
	fl.StringArrayVar(&x.KV, "allow-kv", nil, "let a notifier use keys of the realm's map that begin with `PREFIX`; may be repeated")
	fl.StringArrayVar(&x.Secrets, "allow-secret", nil, "let a notifier read the secret `NAME`; may be repeated")
	show.prints(e, cmd, "{{.role}}{{with .name}}/{{.}}{{end}}")
	return cmd
}

func (e *env) pluginDetachCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "detach ROLE...",
		Short:   "Have a plugin extend the nodes no longer",
		Long:    `Have what is attached as ROLE, or notifier/NAME, extend the nodes of the realm no longer.`,
		Example: "  grid plugin detach admission\n  grid plugin detach notifier/chat",
		Args:    wantArgs(1, -1, "ROLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, key := range args {
					if err := s.Detach(cmd.Context(), key); err != nil {
						return err
					}
					e.note("detached %s", key)
				}
				return nil
			})
		},
	}
}

func (e *env) pluginAttachedCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "attached",
		Short: "List the plugins that extend the nodes",
		Long: `List the plugins that extend the nodes of the realm, and how they have fared on this node since it was started: how often they
ran, and how often they gave no proper answer.`,
		Example: "  grid plugin attached\n  grid plugin attached --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				all, err := s.Extensions(cmd.Context())
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(all)
				}
				if len(all) == 0 {
					e.note("no plugin extends this realm's nodes")
					return nil
				}
				rows := [][]string{{"ROLE", "FUNCTION", "SETTINGS", "RAN", "BROKEN", "LAST ERROR"}}
				for i := range all {
					x := &all[i]
					last := ""
					if x.Counts.Last != "" {
						last = firstLine(x.Counts.Last)
					}
					rows = append(rows, []string{printable(x.Key()), printable(x.String()), printable(extensionSettings(x)),
						fmt.Sprint(x.Counts.Runs), fmt.Sprint(x.Counts.Broken), last})
				}
				return e.table(rows)
			})
		},
	}
	show.watches(cmd)
	show.lists(e, cmd, "{{.role}}{{with .name}}/{{.}}{{end}}")
	return cmd
}

// extensionSettings says what matters most of how an extension was attached, and what it did.
func extensionSettings(x *grid.ExtensionStatus) string {
	out := []string{"timeout " + x.Timeout.Round(time.Millisecond).String()}
	switch x.Role {
	case grid.RoleAdmission:
		out = append(out, "else "+string(x.Fallback))
		if n := x.Counts.Refused; n > 0 {
			out = append(out, fmt.Sprintf("refused %s", plural(n, "job")))
		}
	case grid.RoleNotifier:
		out = append(out, strings.Join(x.Events, ","))
		if flags := x.Flags(); flags != "" {
			out = append(out, flags)
		}
		if n := x.Counts.Dropped; n > 0 {
			out = append(out, fmt.Sprintf("dropped %s", plural(n, "event")))
		}
	}
	return strings.Join(out, "; ")
}
