package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) swarmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "swarm",
		Short: "Make a private swarm, and invite to it",
		Long: `Make a private swarm, whose nodes speak only with one another. Others join it with a token. Without one, a node is in an
open swarm, with whoever has the same --swarm name.`,
		Example: `  grid swarm init --name lab && grid up -d
  grid swarm invite
  grid up --join grid-join-1-...               # on the other machine`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.swarmInitCommand(), e.swarmInviteCommand(), e.swarmShowCommand(), e.swarmRotateKeyCommand(), e.swarmLeaveCommand())
	return cmd
}

func (e *env) swarmInitCommand() *cobra.Command {
	var name string
	var psk bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a private swarm, with this home's node as its first",
		Long: `Make a private swarm, with this home's node as its first member and admin. The node must not be running. Two keys are made in
the home. That in the file swarm-key is the authority's: who has it can invite, and change roles. The other, in
swarm-recovery-key, only replaces it when it is lost or stolen: move that file to a safe place that is not on this
machine. The swarm's ID is printed.

With --psk the swarm has a pre-shared key, too, in the file swarm-psk and in all tokens: who has not got it cannot even begin to speak
with a node. Members are told apart by their own keys without it, so few need it: connections take half of the throughput with it, and
there is no QUIC.`,
		Example: "  grid swarm init --name lab",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.homeOnly("`grid swarm init`"); err != nil {
				return err
			}
			home, err := e.homeDir()
			if err != nil {
				return err
			}
			if err := e.checkNotUp(cmd.Context(), home); err != nil {
				return err
			}
			id, err := daemon.InitSwarm(cmd.Context(), home, name, hostName(), psk)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(e.out, id); err != nil {
				return err
			}
			e.hint("move %s to a safe place off this machine: it replaces the authority's key when that is lost or stolen", filepath.Join(home, "swarm-recovery-key"))
			e.hint("start the node with `grid up -d`, then `grid swarm invite` makes a token for another machine")
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the `NAME` by which people call the swarm")
	cmd.Flags().BoolVar(&psk, "psk", false, "make a pre-shared key for all connections, at a price in throughput")
	return cmd
}

// hostName is what a node is called in a swarm, unless told otherwise; "" when the machine's name is none.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || grid.CheckMemberName(name) != nil {
		return ""
	}
	return name
}

func (e *env) swarmInviteCommand() *cobra.Command {
	var qr bool
	var show output
	var role string
	req := grid.InviteRequest{}
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a token with which another node joins",
		Long: `Make a token with which other nodes join the private swarm of this node, which has to be up and to have the authority's key.
Whoever has the token can join, until it is used up or expires: pass it on like a password. Roles:

  worker     runs tasks, and keeps and serves data
  submitter  and submits jobs
  voter      and keeps the ledger, and counts for its majority
  admin      and revokes and approves members

On a terminal with room for it the token is shown as a QR code, too.`,
		Example: `  grid swarm invite
  grid swarm invite --role worker --uses 20 --expires 1h
  grid up --join "$(ssh founder grid swarm invite)"`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Role = grid.MemberRole(role); req.Role.Check() != nil {
				return usageError(cmd, "--role %q: want worker, submitter, voter or admin", role)
			}
			switch {
			case req.Expires < time.Second:
				return usageError(cmd, "--expires %v: want a second at least, such as 24h", req.Expires)
			case req.Uses == 0:
				return usageError(cmd, "--uses 0: nobody could join")
			case req.Lasts < 0:
				return usageError(cmd, "--for %v: want a time, such as 720h, or nothing", req.Lasts)
			}
			if qr && (show.formatted() || !e.terminal) {
				return usageError(cmd, "--qr shows the token on a terminal, and there is none, or --json is given")
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				inv, err := s.Invite(cmd.Context(), req)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(inv)
				}
				if _, err = fmt.Fprintln(e.out, printable(inv.Token)); err != nil {
					return err
				}
				if e.terminal {
					e.hint("on the other machine: `grid up -d --join TOKEN`, until %s; the role there is %s", inv.Expires.Local().Format(time.DateTime), role)
				}
				return e.showQR(inv.Token, qr)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&role, "role", string(grid.RoleVoter), "what who joins may do, a `ROLE`: worker, submitter, voter or admin")
	completeFlag(cmd, "role", roleWords...)
	fl.DurationVar(&req.Expires, "expires", 24*time.Hour, "how much `TIME` the token can be used for")
	fl.Uint32Var(&req.Uses, "uses", 1, "let `N` nodes join with it")
	fl.DurationVar(&req.Lasts, "for", 0, "for how much `TIME` each of them is a member (default until it is revoked)")
	fl.BoolVar(&req.Approve, "approve", false, "have each of them wait until an admin approves of it")
	show.prints(e, cmd, "")
	fl.BoolVar(&qr, "qr", false, "show the token as a QR code, too, however small the terminal is")
	return cmd
}

func (e *env) swarmShowCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show to which private swarm the node belongs",
		Long:    "Show to which private swarm the node belongs, in which role, and how many members it has.",
		Example: "  grid swarm show --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				info, err := s.Swarm(cmd.Context())
				switch {
				case err != nil:
					return err
				case show.formatted():
					return show.print(info)
				}
				authority := "elsewhere"
				if info.Authority {
					authority = "in this home"
				}
				key := orDash(printable(info.Key))
				if len(info.Disputed) > 0 {
					key, authority = "IN DISPUTE: "+printable(strings.Join(info.Disputed, ", ")), "one of them was stolen; nothing new that either signs is believed"
				}
				psk := "no"
				if info.PSK {
					psk = "yes"
				}
				rows := [][]string{
					{"swarm", printable(info.ID)}, {"name", orDash(printable(info.Name))}, {"this node", standsAs(&info)},
					{"authority's key", key}, {"that key is", authority}, {"members", fmt.Sprint(info.Members)}, {"pre-shared key", psk},
				}
				if !info.Expires.IsZero() {
					rows = append(rows, []string{"member until", info.Expires.Local().Format(time.DateTime)})
				}
				for _, a := range info.Twin {
					rows = append(rows, []string{"ANOTHER NODE WITH THIS KEY", printable(a)})
				}
				if err := e.table(rows); err != nil {
					return err
				}
				e.adviseMember(&info)
				return nil
			})
		},
	}
	show.prints(e, cmd, "")
	return cmd
}

func (e *env) swarmLeaveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Leave the private swarm",
		Long: `Leave the private swarm: the node hands over its vote for the ledger and leaves the realm, tells the others that it is a member
no more, ends, and its home forgets the swarm. Its data stays in the home, and so does the key of the authority, if it is
there. The node does not leave while the ledger has no majority, or while this node keeps the only copy of it, unless
with --force.

A node that cannot start any more, as it was revoked, leaves with --force, too: then its home alone forgets the swarm.`,
		Example: "  grid node drain && grid swarm leave",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.homeOnly("`grid swarm leave`"); err != nil {
				return err
			}
			home, err := e.homeDir()
			if err != nil {
				return err
			}
			if client, err := dial(cmd.Context(), home); err != nil {
				return err
			} else if client == nil {
				return e.forgetSwarm(home, force)
			} else {
				client.Close()
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				if err := e.leaveSwarm(cmd.Context(), s, force); err != nil {
					return err
				}
				if err := daemon.LeaveSwarm(home); err != nil {
					return err
				}
				e.note("the node has left its swarm and has ended; `grid up` starts it in an open one")
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "leave the swarm even when the realm cannot be left in good order")
	return cmd
}

// forgetSwarm has a home forget its swarm while its node does not run.
func (e *env) forgetSwarm(home string, force bool) error {
	swarm, err := daemon.SwarmOf(home)
	switch {
	case err != nil:
		return err
	case swarm == "":
		return grid.Errorf(grid.NotFound, "the home %s is of no private swarm", home).Hint("`grid swarm show` tells of a node's swarm; --home names another home")
	case !force:
		return &exitError{exitNoNode, grid.Errorf(grid.Unavailable, "no node is running in %s, and to leave in good order takes one", home).
			Hint("start it with `grid up -d`; if it cannot start any more, --force has its home forget the swarm %s", swarm)}
	}
	if err := daemon.LeaveSwarm(home); err != nil {
		return err
	}
	e.note("the home has forgotten the swarm %s; `grid up` starts its node in an open one", swarm)
	e.hint("its part of the realm's ledger is still there: `grid ledger recover` makes a realm of its own of it")
	return nil
}

// leaveSwarm has the node leave, and end.
func (e *env) leaveSwarm(ctx context.Context, s *session, force bool) error {
	st, err := s.Node(ctx)
	if err != nil {
		return err
	}
	if err := s.LeaveSwarm(ctx, force); err != nil {
		return err
	}
	if err := s.Shutdown(ctx); err != nil {
		return err
	}
	return e.waitGone(ctx, s, &st)
}

func (e *env) memberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "member",
		Short:   "Look after the members of the private swarm",
		Long:    "Look after the members of the private swarm: list them, approve of those who wait, change roles, renew, and revoke; and give\nthis node another key.",
		Example: "  grid member ls\n  grid member revoke 12D3KooW...",
		Args:    noSubcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.memberListCommand(), e.memberShowCommand(), e.memberRevokeCommand(), e.memberRoleCommand(), e.memberApproveCommand(), e.memberRenewCommand(), e.memberRotateKeyCommand())
	return cmd
}

func (e *env) memberListCommand() *cobra.Command {
	var all bool
	var show output
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the members",
		Long:    "List the members, and who waits to become one; with --all, those who were, too.",
		Example: "  grid member ls\n  grid member ls --all --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), daemonOnly, func(s *session) error {
				list, err := s.Members(cmd.Context())
				if err != nil {
					return err
				}
				shown := []grid.SwarmMember{}
				for _, m := range list {
					if all || m.State == "member" || m.State == "waiting" {
						shown = append(shown, m)
					}
				}
				if show.formatted() {
					return show.print(shown)
				}
				rows := [][]string{{"NODE", "ROLE", "NAME", "STATE", "UP", "SINCE", "UNTIL"}}
				for _, m := range shown {
					up := "no"
					if m.Up {
						up = "yes"
					}
					rows = append(rows, []string{printable(m.ID), string(m.Role), orDash(printable(m.Name)), m.State, up, m.Issued.Local().Format(time.DateTime), until(m.Expires)})
				}
				return e.table(rows)
			})
		},
	}
	show.watches(cmd)
	show.lists(e, cmd, "{{.id}}")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list those, too, who are members no more")
	return cmd
}

func (e *env) memberShowCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:     "show NODE",
		Short:   "Show one member",
		Long:    "Show one member: its role, since when it is one and until when, and who let it in.",
		Example: "  grid member show 12D3KooW...",
		Args:    wantArgs(1, 1, "NODE"),

		ValidArgsFunction: e.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0], "member ls")
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				list, err := s.Members(cmd.Context())
				if err != nil {
					return err
				}
				for _, m := range list {
					switch {
					case m.ID != id.String():
					case show.formatted():
						return show.print(m)
					default:
						return e.table([][]string{
							{"node", printable(m.ID)}, {"name", orDash(printable(m.Name))}, {"state", m.State}, {"role", string(m.Role)},
							{"since", m.Issued.Local().Format(time.DateTime)}, {"until", until(m.Expires)}, {"let in by", orDash(printable(m.By))}, {"serial", fmt.Sprint(m.Serial)},
						})
					}
				}
				return grid.Errorf(grid.NotFound, "%s is not, and was not, a member", id).Hint("`grid member ls --all` lists them")
			})
		},
	}
	show.prints(e, cmd, "{{.id}}")
	return cmd
}

// standsAs says what a node is in its swarm.
func standsAs(info *grid.SwarmInfo) string {
	if info.Ended != "" {
		return "NO MEMBER: " + printable(info.Ended)
	}
	return string(info.Role)
}

// roleWords are the roles of members, with what they may, as the shell offers them.
var roleWords = []string{
	string(grid.RoleWorker) + "\truns tasks, keeps and serves data", string(grid.RoleSubmitter) + "\tand submits jobs",
	string(grid.RoleVoter) + "\tand keeps the ledger", string(grid.RoleAdmin) + "\tand revokes and approves members",
}

// completeMembers offers members, and roles behind one.
func (e *env) completeMembers(cmd *cobra.Command, args []string, prefix string) (out []string, _ cobra.ShellCompDirective) {
	switch {
	case len(args) == 1 && cmd.Name() == "set-role":
		return roleWords, cobra.ShellCompDirectiveNoFileComp
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		list, err := s.Members(ctx)
		for _, m := range list {
			if (m.State == "waiting") == (cmd.Name() == "approve") {
				out = append(out, fmt.Sprintf("%s\t%s %s, %s", m.ID, m.Role, m.Name, m.State))
			}
		}
		return out, err
	})
}

// until says when a membership ends.
func until(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}

// onMember makes a command that does something to one member.
func (e *env) onMember(use, short, long, example string, args int, what string, f func(cmd *cobra.Command, s *session, id peer.ID, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: wantArgs(args, args, what), ValidArgsFunction: e.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0], "member ls")
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error { return f(cmd, s, id, args) })
		},
	}
}

func (e *env) memberRevokeCommand() *cobra.Command {
	return e.onMember("revoke NODE", "Have a node be a member no more",
		`Have a node be a member no more. All members that are up are told, and hang up on it within seconds; the others learn it
from the ledger, or from the first that they meet. Secrets that it could read should be set anew. Admins may revoke.`,
		"  grid member revoke 12D3KooW...", 1, "NODE",
		func(cmd *cobra.Command, s *session, id peer.ID, _ []string) error { return s.Revoke(cmd.Context(), id) })
}

func (e *env) memberRoleCommand() *cobra.Command {
	return e.onMember("set-role NODE ROLE", "Give a member another role",
		"Give a member another role: worker, submitter, voter or admin. It needs the authority's key.",
		"  grid member set-role 12D3KooW... worker", 2, "NODE ROLE",
		func(cmd *cobra.Command, s *session, id peer.ID, args []string) error {
			role := grid.MemberRole(args[1])
			if err := role.Check(); err != nil {
				return err
			}
			return s.SetMemberRole(cmd.Context(), id, role)
		})
}

func (e *env) memberApproveCommand() *cobra.Command {
	return e.onMember("approve NODE", "Let a node in that waits",
		"Let a node in that waits, since its token was made with --approve. Admins may approve.",
		"  grid member approve 12D3KooW...", 1, "NODE",
		func(cmd *cobra.Command, s *session, id peer.ID, _ []string) error {
			return s.Approve(cmd.Context(), id)
		})
}
