package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) statusCommand() *cobra.Command {
	var asJSON, metrics bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Describe the node",
		Long:  "Describe the node: who it is, where it listens, what it does and what it stores. It says so when none is running.",
		Example: `  grid status
  grid status --json
  grid status --metrics`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && metrics {
				return usageError(cmd, "--json and --metrics exclude each other")
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				if metrics {
					data, err := s.Metrics(cmd.Context())
					if err == nil {
						_, err = e.out.Write(data)
					}
					return err
				}
				st, err := s.Node(cmd.Context())
				if err != nil {
					return err
				}
				if s.embedded || st.Embedded {
					e.note("no node is running in %s; commands open one for themselves", st.Home)
					e.hint("`grid up -d` starts one that stays, and that other machines can join")
				}
				if asJSON {
					return e.printJSON(st)
				}
				if err := e.describeNode(&st, time.Now()); err != nil || st.Private == nil {
					return err
				}
				e.adviseMember(st.Private)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	cmd.Flags().BoolVar(&metrics, "metrics", false, "print the node's metrics, and what guests counted on it, in the format of Prometheus")
	return cmd
}

func (e *env) describeNode(st *grid.NodeStatus, now time.Time) error {
	rows := [][]string{{"peer", st.ID}, {"home", st.Home}}
	if !st.Embedded {
		swarm := st.Swarm
		if st.Private != nil && st.Private.Name != "" {
			swarm = printable(st.Private.Name) + " (" + st.Swarm + ")"
		}
		if st.Public && swarm != "public" {
			swarm += ", public"
		}
		rows = append(rows, []string{"swarm", swarm})
		if p := st.Private; p != nil && p.Ended != "" {
			rows = append(rows, []string{"membership", standsAs(p)})
		} else if p != nil && !p.Expires.IsZero() {
			rows = append(rows, []string{"membership", describeEnd(p, st.ID, now)})
		}
		if l := st.Ledger; l != nil {
			rows = append(rows, []string{"realm", fmt.Sprintf("%s, of %s; this one is %s", l.Realm, plural(len(l.Members), "node"), article(l.Role))})
		}
		for _, a := range joinable(st) {
			rows = append(rows, []string{"address", a})
		}
		if st.Reach != nil {
			rows = append(rows, reachRows(st.Reach)...)
		}
		rows = append(rows,
			[]string{"api", st.API})
		for _, at := range st.Remote {
			rows = append(rows, []string{"remote api", at})
		}
		if st.Gateway != "" {
			rows = append(rows, []string{"gateway", st.Gateway})
		}
		rows = append(rows,
			[]string{"pid", fmt.Sprint(st.PID)},
			[]string{"up", formatTime(now.Sub(st.Started).Round(time.Second))},
			[]string{"peers", fmt.Sprint(st.Peers)},
			[]string{"lends", lends(st.Share)},
			[]string{"tasks ran", fmt.Sprintf("%d, %d of them stolen", st.Ran, st.Stolen)},
			[]string{"blocks in", fmt.Sprintf("%d, %s", st.Store.BlocksIn, formatSize(st.Store.BytesIn))},
			[]string{"blocks out", fmt.Sprintf("%d, %s", st.Store.BlocksOut, formatSize(st.Store.BytesOut))},
		)
		if st.LogTrouble != "" {
			rows = append(rows, []string{"log", fmt.Sprintf("%s not written: %s", plural(st.LogsLost, "record"), printable(st.LogTrouble))})
		}
		if b := st.IPFS; b != nil {
			rows = append(rows, []string{"ipfs peer", b.ID})
			for _, a := range b.Addrs {
				rows = append(rows, []string{"ipfs address", a})
			}
			rows = append(rows,
				[]string{"ipfs peers", fmt.Sprint(b.Peers)},
				[]string{"ipfs roots", fmt.Sprintf("%d, %d of them announced", b.Roots, b.Announced)},
				[]string{"ipfs in", fmt.Sprintf("%s, %s", plural(b.BlocksIn, "block"), formatSize(b.BytesIn))},
				[]string{"ipfs out", fmt.Sprintf("%s, %s", plural(b.BlocksOut, "block"), formatSize(b.BytesOut))},
			)
		}
	}
	return e.table(append(rows,
		[]string{"version", st.Version},
		[]string{"workers", fmt.Sprintf("%d of %d busy, %s queued", st.Load.Running, st.Load.Slots, plural(st.Load.Queued, "task"))},
		[]string{"labels", st.Capacity.Labels.String()},
		[]string{"jobs", fmt.Sprintf("%d running", st.Jobs)},
		[]string{"stored", fmt.Sprintf("%s of blocks, %s of index and ledger", formatSize(st.Store.BlockBytes), formatSize(st.Store.MetaBytes))},
	))
}

// reachRows say how others reach the node.
func reachRows(r *grid.Reach) [][]string {
	words := map[string]string{"public": "nodes outside reach it", "private": "nodes outside do not reach it directly"}
	how := cmp.Or(words[r.Reachability], "not known yet")
	switch r.NAT {
	case "":
	case "none":
		how += "; no NAT"
	case "some":
		how += "; behind a NAT"
	default:
		how += "; behind a NAT, " + r.NAT
	}
	rows := [][]string{{"reach", how}}
	if r.Relaying {
		rows = append(rows, []string{"relay", "for others, " + plural(r.Circuits, "circuit")})
	}
	if r.Relayed > 0 {
		rows = append(rows, []string{"relayed", plural(r.Relayed, "peer")})
	}
	return rows
}

// article names what a node does for its realm.
func article(r grid.Role) string {
	if r == grid.Leader {
		return "the leader"
	}
	return "a " + string(r)
}
