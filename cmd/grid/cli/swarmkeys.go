package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) swarmRotateKeyCommand() *cobra.Command {
	var recover bool
	var show output
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Replace the key of the swarm's authority",
		Long: `Replace the key of the swarm's authority, on the node whose home has it: a new one is made and put into the file swarm-key. The
swarm keeps its ID and its members, whose memberships are signed anew. Tokens that were not used are void, for whoever had
the old key could have made them. Copies of the old key on other nodes are of no use any more. If the command is
interrupted, give it again.

If the key was stolen or is lost, put the file swarm-recovery-key that 'grid swarm init' has made into the home of an admin's
node, and use --recover: what it signs is believed whatever the thief has done with the key. Then look at
'grid member ls', and revoke those who do not belong there.`,
		Example: "  grid swarm rotate-key\n  grid swarm rotate-key --recover",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				out, err := s.RotateKey(cmd.Context(), recover)
				switch {
				case err != nil:
					return err
				case show.formatted():
					return show.print(out)
				}
				if _, err := fmt.Fprintln(e.out, out.Key); err != nil {
					return err
				}
				e.note("the authority has a new key; %s signed anew with it; tokens that were not used are void", plural(uint64(out.Members), "membership"))
				e.hint("keep a copy of the file swarm-key of this home in a safe place")
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&recover, "recover", false, "sign with the recovery key, which has to be in the home")
	show.prints(e, cmd, "")
	return cmd
}

func (e *env) memberRenewCommand() *cobra.Command {
	var lasts time.Duration
	var forever bool
	cmd := e.onMember("renew NODE", "Have a membership that ends last longer",
		`Have a membership that ends, since its token was made with --for, last longer: from now on as long as it did before, or as --for
says. One that has expired is valid again. It needs the authority's key.`,
		"  grid member renew 12D3KooW...\n  grid member renew 12D3KooW... --for 720h", 1, "NODE",
		func(cmd *cobra.Command, s *session, id peer.ID, _ []string) error {
			switch {
			case lasts < 0 || cmd.Flags().Changed("for") && lasts == 0:
				return usageError(cmd, "--for %v: want a time", lasts)
			case forever && lasts != 0:
				return usageError(cmd, "--for and --forever exclude each other")
			case forever:
				lasts = -1
			}
			return s.Renew(cmd.Context(), id, lasts)
		})
	cmd.Flags().DurationVar(&lasts, "for", 0, "for how much `TIME` from now on (default as long as before)")
	cmd.Flags().BoolVar(&forever, "forever", false, "until it is revoked")
	return cmd
}

func (e *env) memberRotateKeyCommand() *cobra.Command {
	var token string
	var force bool
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Give this node another key, and so another ID",
		Long: `Give this node another key, as when the old one was copied. The node's ID is that of its key: it becomes another member. The node,
which must be up, joins the swarm with a new key by a token, which it makes itself if its home has the authority's
key; hands on what it keeps and its vote; leaves; and ends. Then the new key and its membership take the place of the old ones. Its data stays; the old
key and its part of the ledger are kept in the folder "former" of the home. If the command is interrupted, give
it again. Secrets that the old key could read should be set anew.`,
		Example: "  grid member rotate-key && grid up -d\n  grid member rotate-key --join grid-join-1-...",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			home, err := e.homeDir()
			if err != nil {
				return err
			}
			client, err := dial(ctx, home)
			if err != nil {
				return err
			}
			if client != nil {
				client.Close()
				if err := e.with(ctx, daemonOnly, func(s *session) error { return e.moveOut(ctx, s, home, token, force) }); err != nil {
					return err
				}
			} else if !daemon.Rekeying(home) {
				return noNode(home)
			}
			if err := daemon.Rekey(ctx, home); err != nil {
				return err
			}
			id, err := daemon.Identity(home)
			if err != nil {
				return err
			}
			self, err := peer.IDFromPrivateKey(id)
			if err != nil {
				return grid.Errorf(grid.Internal, "identity: %w", err)
			}
			if _, err := fmt.Fprintln(e.out, self); err != nil {
				return err
			}
			e.hint("start the node with its new key: `grid up -d`")
			return nil
		},
	}
	cmd.Flags().StringVar(&token, "join", "", "a `TOKEN` of this swarm, for a home that has not the authority's key")
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for copies to be handed on, nor for the ledger")
	return cmd
}

// moveOut joins the swarm with another key, and has the node that is up leave.
func (e *env) moveOut(ctx context.Context, s *session, home, token string, force bool) error {
	st, err := s.Node(ctx)
	if err != nil {
		return err
	}
	info, err := s.Swarm(ctx)
	if err != nil {
		return err
	}
	switch {
	case st.Jobs > 0 && !force:
		return grid.Errorf(grid.Busy, "the node runs %s that it owns, which would not go on", plural(uint64(st.Jobs), "job")).
			Hint("wait for them or cancel them (`grid ps`), or use --force")
	case st.Ledger == nil || len(st.Ledger.Members) < 2:
		return grid.Errorf(grid.Conflict, "the node is the only one of its realm: with another key it could not read its ledger").
			Hint("have another node join first: `grid swarm invite`")
	}
	if token == "" && !daemon.Rekeying(home) {
		if !info.Authority {
			return grid.Errorf(grid.Invalid, "this home has not the authority's key, so it takes a token for the node to join again").
				Hint("`grid swarm invite --role %s` on the node that has it makes one: give it with --join", info.Role)
		}
		inv, err := s.Invite(ctx, grid.InviteRequest{Role: info.Role, Expires: time.Hour, Uses: 1})
		if err != nil {
			return err
		}
		token = inv.Token
	}
	id, err := daemon.JoinAnew(ctx, home, hostName(), token)
	if err != nil {
		return err
	}
	e.note("joined the swarm as %s", id)
	if !force {
		if err := s.Drain(ctx, true); err != nil {
			return err
		}
		left, err := s.Draining(ctx)
		if err == nil {
			left, err = e.awaitDrained(ctx, s, left)
		}
		if err == nil && left.Left > 0 {
			err = grid.Errorf(grid.Unavailable, "%s left that no other node has: %s", plural(uint64(left.Left), "pin"), printable(left.Note)).Hint("have other nodes with room be up, or use --force")
		}
		if e := s.Drain(ctx, false); err == nil { // what is said in the home would go on for the new key
			err = e
		}
		if err != nil {
			return err
		}
		e.note("nothing is kept here that others do not have")
	}
	if err := e.leaveSwarm(ctx, s, force); err != nil {
		return err
	}
	e.note("left as %s", printable(st.ID))
	return nil
}

// describeEnd says when a membership ends, and what to do about it when that is soon.
func describeEnd(p *grid.SwarmInfo, node string, now time.Time) string {
	at := p.Expires.Local().Format(time.DateTime)
	switch left := p.Expires.Sub(now); {
	case left < 0:
		return "ended at " + at + "; renew it: grid member renew " + node
	case p.Ending:
		return "ends at " + at + ", in " + formatTime(left.Round(time.Second)) + "; renew it: grid member renew " + node
	}
	return "until " + at
}

// adviseMember tells what is wrong with this node's membership, or with the swarm.
func (e *env) adviseMember(info *grid.SwarmInfo) {
	if len(info.Disputed) > 0 {
		e.hint("who has the recovery key ends the dispute: `grid swarm rotate-key --recover`, then `grid member ls` and revoke those who do not belong")
	}
	if info.Ended != "" {
		e.hint("%s", printable(info.Advice))
	} else if info.Ending {
		e.hint("the membership of this node ends soon, or has ended; who has the authority's key makes it last longer: `grid member renew NODE`")
	}
	if len(info.Twin) > 0 {
		e.hint("this home was copied, and two nodes run with one key: end one of the two, or give it a key of its own: `grid member rotate-key`")
	}
}

// quietZone is the margin of a QR code, in modules.
const quietZone = 2

// showQR shows a QR code of a token on the terminal, if it fits; else it says why not, if it is wanted.
func (e *env) showQR(token string, wanted bool) error {
	width, height := e.screen()
	if width == 0 {
		return nil
	}
	text, columns, lines, err := drawQR(token)
	if err == nil && (columns > width || lines > height) && !wanted {
		e.note("the terminal is too small for a QR code of the token: it takes %d columns and %d lines", columns, lines)
		return nil
	}
	if err == nil {
		_, err = e.out.Write(text)
	}
	if err != nil && !wanted {
		return nil
	}
	return err
}

// drawQR draws a QR code in half blocks, two modules in each character, dark on light whatever the colours of the terminal.
func drawQR(token string) (text []byte, columns, lines int, err error) {
	code, err := qr.Encode(token, qr.L)
	if err != nil {
		return nil, 0, 0, grid.Errorf(grid.Limit, "the token, of %d characters, is too long for a QR code: %w", len(token), err).
			Hint("pass it on as text")
	}
	var b bytes.Buffer
	size := code.Size + 2*quietZone
	for y := 0; y < size; y += 2 {
		b.WriteString("\x1b[40;97m") // white on black: a light module is a full block
		for x := range size {
			up, down := !code.Black(x-quietZone, y-quietZone), y+1 < size && !code.Black(x-quietZone, y+1-quietZone)
			switch {
			case up && down:
				b.WriteString("█")
			case up:
				b.WriteString("▀")
			case down:
				b.WriteString("▄")
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
		lines++
	}
	return b.Bytes(), size, lines, nil
}
