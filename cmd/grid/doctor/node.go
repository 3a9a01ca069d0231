package doctor

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	clockOff   = 2 * time.Second  // that is worth telling
	clockWrong = 60 * time.Second // at which things go wrong
	farBehind  = 1000             // log entries
	slowPeer   = time.Second
)

func checkNode(_ context.Context, w *World) []Finding {
	switch {
	case w.NodeErr != nil:
		return one(found(Failure, "a node seems to run, and does not answer: %v", w.NodeErr).fix("see its log; `grid down`, or a kill, then `grid up`, starts it again"))
	case w.Node == nil && w.InUse:
		return one(found(Warning, "no node answers, but some process uses the home").fix("wait for the command that does, or end it; what ties up the home for long is a node that starts or hangs"))
	case w.Node == nil:
		return one(found(Info, "no node is running; commands open one for themselves").fix("`grid up -d` starts one that others can join"))
	}
	out := one(found(OK, "node %s runs since %s", w.Node.ID, w.Node.Started.Local().Format(time.DateTime)))
	if why := w.Node.LogTrouble; why != "" {
		out = append(out, found(Warning, "the node's log cannot be written (%d records are missing): %s", w.Node.LogsLost, why).
			fix("make room where it goes, or see that what reads it goes on; `grid node logs` shows the last records meanwhile"))
	}
	if info, err := os.Stat(w.Socket); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		out = append(out, found(Failure, "others may use the API at %s (mode %04o)", w.Socket, info.Mode().Perm()).fix("chmod 600 %s", w.Socket))
	}
	return out
}

func checkVersion(_ context.Context, w *World) []Finding {
	out := one(found(OK, "grid %s, ABI %d, %s, %s/%s", grid.Version, grid.ABIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH))
	if w.Node != nil && w.Node.Version != grid.Version {
		out = append(out, found(Warning, "the running node has version %s, this command %s", w.Node.Version, grid.Version).fix("`grid down`, then `grid up`"))
	}
	for _, p := range w.peers() {
		if p.Error == "" && (p.Version != grid.Version || p.ABI != grid.ABIVersion) {
			out = append(out, found(Warning, "peer %s has version %s, ABI %d", p.ID, p.Version, p.ABI).fix("update the older one: what only one of them knows fails at the other"))
		}
	}
	return out
}

func (w *World) peers() []grid.PeerAbout {
	if w.Checkup == nil {
		return nil
	}
	return w.Checkup.Peers
}

func checkBlocks(_ context.Context, w *World) []Finding {
	switch {
	case w.Use == nil:
		return nil
	case len(w.Use.Damaged) > 0:
		return one(found(Failure, "%d blocks are damaged, the first of them %s", len(w.Use.Damaged), w.Use.Damaged[0]).
			fix("`grid store repair` gets them from other nodes; look after the disk"))
	case w.Use.Quota > 0 && w.Use.Pinned > w.Use.Quota/10*9:
		return one(found(Warning, "%s of blocks are needed, of %s that there may be", size(w.Use.Pinned), size(w.Use.Quota)).
			fix("raise `grid up --store-quota`, or give up pins and jobs: `grid pin ls`, `grid job rm`"))
	}
	return one(found(OK, "%d blocks, none known to be damaged", w.Use.Blocks))
}

func checkClock(_ context.Context, w *World) (out []Finding) {
	asked := 0
	for _, p := range w.peers() {
		if p.Error != "" {
			continue
		}
		asked++
		off, way := p.Ahead, "ahead"
		if off < 0 {
			off, way = -off, "behind"
		}
		if off-p.Trip/2 < clockOff {
			continue
		}
		level := Warning
		if off >= clockWrong {
			level = Failure
		}
		out = append(out, found(level, "the clock of peer %s is %v %s", p.ID, off.Round(100*time.Millisecond), way).
			fix("let both machines set their clocks by NTP (`timedatectl set-ntp true`)"))
	}
	switch {
	case asked == 0:
		return one(found(Info, "%s: there is no peer to compare with", time.Now().Format(time.RFC3339)))
	case len(out) == 0:
		return one(found(OK, "within %v of that of %s", clockOff, peerCount(asked)))
	}
	return out
}

func checkLedger(_ context.Context, w *World) (out []Finding) {
	l := w.Ledger
	if l == nil {
		return nil
	}
	voters, up := 0, 0
	for _, m := range l.Members {
		self := w.Node != nil && m.ID.String() == w.Node.ID
		if m.Role == grid.Voter || m.Role == grid.Leader {
			if voters++; m.Up || self {
				up++
			}
		}
		if m.Lag > farBehind {
			out = append(out, found(Warning, "node %s is %d log entries behind", m.ID, m.Lag).fix("see whether its disk or its network is slow"))
		}
	}
	switch {
	case voters > 0 && up <= voters/2:
		out = append(out, found(Failure, "of %d voters of the realm %s only %d can be reached: nothing can be written", voters, l.Realm, up).
			fix("start those that are down; if they are lost for good, `grid ledger recover`"))
	case l.Leader == "" && l.Role != grid.Leader:
		out = append(out, found(Failure, "the realm %s has no leader", l.Realm).fix("wait some seconds; `grid ledger status` shows who is up"))
	case up < voters:
		out = append(out, found(Warning, "%d of %d voters of the realm %s can be reached", up, voters, l.Realm).fix("start those that are down, before more are"))
	default:
		out = append(out, found(OK, "realm %s of %s, revision %d; this one is its %s", l.Realm, nodes(max(len(l.Members), 1)), l.Revision, l.Role))
	}
	if l.Note != "" {
		out = append(out, found(Warning, "%s", l.Note).fix("see `grid ledger status`"))
	}
	return out
}

func checkDiscovery(_ context.Context, w *World) (out []Finding) {
	var r *grid.Reach
	if w.Checkup != nil {
		r = w.Checkup.Reach
	}
	list, err := w.Mcast()
	switch {
	case err != nil:
		out = append(out, found(Warning, "local network: %v", err).fix("name nodes with `grid up --join`"))
	case len(list) == 0:
		out = append(out, found(Warning, "no network interface can do multicast, so that nodes on the local network are not found").fix("name one of them with `grid up --join`"))
	case r != nil && !r.MDNS:
		out = append(out, found(Info, "the node does not look for others on the local network (--no-mdns)"))
	default:
		out = append(out, found(OK, "multicast on %s", strings.Join(list, ", ")))
	}
	if r != nil && !r.Nearby {
		return append(out, found(Info, "the node does not look for others on this machine (--no-nearby)"))
	}
	info, err := os.Stat(w.Nearby)
	switch {
	case os.IsNotExist(err):
		out = append(out, found(Info, "no node of this machine has left its address in %s", w.Nearby))
	case err != nil:
		out = append(out, found(Warning, "nodes of this machine do not find each other: %v", err).fix("see who owns %s", w.Nearby))
	default:
		if mine, err := w.Owner(w.Nearby); err == nil && !mine || runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
			return append(out, found(Warning, "others may write to %s, where nodes of this machine find each other", w.Nearby).fix("remove the folder: the next node makes it anew"))
		}
		out = append(out, found(OK, "nodes of this machine find each other in %s", w.Nearby))
	}
	return out
}

func checkReach(_ context.Context, w *World) (out []Finding) {
	if w.Checkup == nil || w.Checkup.Reach == nil {
		return nil
	}
	r := w.Checkup.Reach
	const forward = "forward its port, TCP and UDP, and name the address with `grid up --announce`; or run one member where all can reach it"
	switch {
	case r.Reachability == "public":
		out = one(found(OK, "others reach the node from outside"))
	case r.Reachability == "private" && len(r.Relays) > 0:
		out = one(found(OK, "the node is behind a NAT or firewall, and others reach it by a relay: %s", natText(r.NAT)))
		if r.NAT == "symmetric" {
			out = one(found(Info, "the node is behind a NAT that gives it another port for each peer, so that holes cannot be punched: it mostly stays on relays").fix(forward))
		}
	case r.Reachability == "private":
		out = one(found(Warning, "the node is behind a NAT or firewall, and nodes outside cannot connect to it").fix(forward))
	default:
		out = one(found(Info, "whether nodes outside can reach it is not known: no peer outside has tried"))
	}
	for _, a := range r.Outside {
		if a.State == "unreachable" {
			f := found(Info, "nobody outside gets through to %s", a.Addr)
			if r.Reachability != "public" {
				f.Level = Warning
			}
			out = append(out, f.fix("let the firewall of this machine and the router pass it"))
		}
	}
	if r.Relayed > 0 {
		out = append(out, found(Info, "%d peers are reached by a relay, more slowly", r.Relayed).fix("let UDP pass on both sides, or "+forward))
	}
	if r.Relaying {
		out = append(out, found(OK, "the node relays for others, %d circuits now", r.Circuits))
	}
	return out
}

// natText says what can be done about a NAT.
func natText(nat string) string {
	switch nat {
	case "endpoint-independent":
		return "the NAT lets holes be punched"
	case "none":
		return "a firewall"
	}
	return "of which kind it is not known"
}

func checkPeers(_ context.Context, w *World) (out []Finding) {
	if w.Node == nil {
		return nil
	}
	if len(w.peers()) == 0 {
		f := found(Info, "no other node is connected").fix("start one with `grid up` on another machine of this network, or `grid up --join ADDRESS`")
		if w.Checkup != nil && w.Checkup.Reach != nil && w.Checkup.Reach.Fixed > 0 {
			f.Level = Warning
			f.Fix = "see whether the nodes that it is to join are up, have the same swarm, and may be reached from here"
		}
		return one(f)
	}
	by := map[string]int{}
	slowest := time.Duration(0)
	for _, p := range w.peers() {
		by[p.Transport]++
		switch {
		case p.Error != "":
			out = append(out, found(Warning, "peer %s does not tell about itself: %s", p.ID, p.Error).fix("it may have an older version, or be overloaded"))
		case p.Trip > slowPeer:
			out = append(out, found(Warning, "peer %s answers after %v", p.ID, p.Trip.Round(time.Millisecond)).fix("see whether it is overloaded, or its network is"))
		default:
			slowest = max(slowest, p.Trip)
		}
	}
	var ways []string
	for _, t := range []string{"tcp", "quic-v1", "relay", "memory"} {
		if by[t] > 0 {
			ways = append(ways, fmt.Sprintf("%d by %s", by[t], t))
			delete(by, t)
		}
	}
	for t, n := range by {
		ways = append(ways, fmt.Sprintf("%d by %s", n, t))
	}
	if len(out) < len(w.peers()) {
		out = append(out, found(OK, "%s (%s), round trips up to %v", peerCount(len(w.peers())), strings.Join(ways, ", "), slowest.Round(10*time.Microsecond)))
	}
	return out
}

// nodes counts nodes in words.
func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// peerCount writes how many peers there are.
func peerCount(n int) string {
	if n == 1 {
		return "1 peer"
	}
	return fmt.Sprintf("%d peers", n)
}
