package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) peersCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the nodes that this one is connected to",
		Long:  `List the nodes of the swarm that this one is connected to, directly or by a relay. A node must be running: see ` + "`grid up`" + `.`,
		Example: `  grid peers
  grid peers --json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), daemonOnly, func(s *session) error {
				peers, err := s.Peers(cmd.Context())
				if err != nil {
					return err
				}
				return e.listPeers(peers, &show, time.Now())
			})
		},
	}
	show.watches(cmd)
	show.lists(e, cmd, "{{.id}}")
	return cmd
}

func (e *env) listPeers(peers []grid.PeerInfo, show *output, now time.Time) error {
	switch {
	case show.formatted():
		return show.print(peers)
	case len(peers) == 0:
		e.note("no other node is connected")
		e.hint("start one elsewhere with `grid up --join ADDRESS`; `grid status` shows this node's addresses")
		return nil
	}
	rows := [][]string{{"PEER", "REALM", "TRANSPORT", "PATH", "RTT", "SINCE", "ADDRESS"}}
	stands := slices.ContainsFunc(peers, func(p grid.PeerInfo) bool { return p.Standing != nil })
	if stands {
		rows[0] = slices.Insert(rows[0], 6, "RESULTS")
	}
	for _, p := range peers {
		rtt := "-"
		if p.RTT > 0 {
			rtt = formatTime(p.RTT)
		}
		realm := cmp.Or(p.Realm, "other")
		if realm == p.ID.String() {
			realm = "its own"
		}
		row := []string{p.ID.String(), realm, p.Transport, pathText(&p), rtt, formatTime(now.Sub(p.Since).Round(time.Second)), strings.Join(slices.Compact(slices.Sorted(slices.Values(p.Addrs))), " ")}
		if stands {
			row = slices.Insert(row, 6, standingText(p.Standing))
		}
		rows = append(rows, row)
	}
	return e.table(rows)
}

// pathText says whether a peer is reached directly, or by which relay.
func pathText(p *grid.PeerInfo) string {
	if p.Relay == "" {
		return "direct"
	}
	return "by " + p.Relay
}

// standingText says how a node's results have done.
func standingText(s *grid.Standing) string {
	switch {
	case s == nil:
		return "-"
	case s.Bad > 0:
		return fmt.Sprintf("%d refuted, %d confirmed since", s.Bad, s.Good)
	case s.Trusted():
		return fmt.Sprintf("%d confirmed, trusted", s.Good)
	}
	return fmt.Sprintf("%d confirmed", s.Good)
}
