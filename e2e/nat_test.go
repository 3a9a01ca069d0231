package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// internet is some network namespaces of this machine: one where a bridge joins those that stand for public addresses, and behind some of
// these NATs with one node each. 192.0.0.64/26 is public to libp2p, and nobody's.
type internet struct {
	t    *testing.T
	name string // of the namespace with the bridge; others' begin with it
}

// newInternet makes one that is named after its purpose, a few letters. The error says why there cannot be one here.
func newInternet(t *testing.T, purpose string) (*internet, error) {
	t.Helper()
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("there is no %s (Debian: iproute2, nftables)", tool)
		}
	}
	n := &internet{t: t, name: fmt.Sprintf("g%s%d", purpose, os.Getpid())}
	if os.Getuid() != 0 {
		return nil, errors.New("making network namespaces needs root")
	}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("no network namespaces here: %w: %s", err, out)
	}
	t.Cleanup(func() { n.remove(n.name) })
	probe := "add table ip x; add chain ip x y { type nat hook postrouting priority srcnat; }; add rule ip x y masquerade; delete table ip x"
	if out, err := exec.Command("ip", "netns", "exec", n.name, "nft", probe).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("nftables do not work here: %w: %s", err, out)
	}
	n.in(n.name, "ip link add br0 type bridge", "ip link set br0 up", "ip link set lo up")
	return n, nil
}

func (n *internet) add(ns string) {
	n.t.Helper()
	if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		n.t.Fatalf("ip netns add %s: %v: %s", ns, err, out)
	}
	n.t.Cleanup(func() { n.remove(ns) })
}

func (n *internet) remove(ns string) { _ = exec.Command("ip", "netns", "del", ns).Run() }

// in runs commands in a namespace, words split at blanks.
func (n *internet) in(ns string, lines ...string) {
	n.t.Helper()
	for _, line := range lines {
		args := append([]string{"netns", "exec", ns}, strings.Fields(line)...)
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			n.t.Fatalf("%s: %s: %v: %s", ns, line, err, out)
		}
	}
}

// host makes a namespace with an interface e0 at the bridge.
func (n *internet) host(name, addr string) (ns string) {
	n.t.Helper()
	ns = n.name + name
	n.add(ns)
	n.in(n.name, "ip link add "+name+" type veth peer name e0 netns "+ns, "ip link set "+name+" master br0 up")
	n.in(ns, "ip link set lo up", "ip addr add "+addr+"/26 dev e0", "ip link set e0 up")
	return ns
}

// Kinds of NATs: what leaves has the same port for all, or another for each peer; or port 4747 is forwarded besides.
const (
	preserving = "masquerade"
	symmetric  = "masquerade random,fully-random"
	forwarding = "masquerade; }; chain forwarded { type nat hook prerouting priority dstnat; iifname \"e0\" meta l4proto { tcp, udp } th dport 4747 dnat to INSIDE"
)

// nat makes a NAT at the bridge and a host behind it, whose namespace it returns.
func (n *internet) nat(name, addr, inside, kind string) (ns string) {
	n.t.Helper()
	router := n.host("r"+name, addr)
	ns = n.name + name
	n.add(ns)
	n.in(router, "ip link add i0 type veth peer name e0 netns "+ns, "ip addr add "+inside+".1/24 dev i0", "ip link set i0 up", "sysctl -qw net.ipv4.ip_forward=1")
	n.in(ns, "ip link set lo up", "ip addr add "+inside+".2/24 dev e0", "ip link set e0 up", "ip route add default via "+inside+".1")
	// What comes uninvited is dropped before it can take the place of what goes out.
	rules := `table ip gw {
	chain outwards { type nat hook postrouting priority srcnat; oifname "e0" ` + strings.ReplaceAll(kind, "INSIDE", inside+".2") + `; }
	chain inwards { type filter hook input priority filter; iifname "e0" drop; }
	chain through { type filter hook forward priority filter; iifname "e0" ct status dnat accept; iifname "e0" ct state != { established, related } drop; }
}`
	cmd := exec.Command("ip", "netns", "exec", router, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("nft: %v: %s", err, out)
	}
	return ns
}

// route is how a node reaches another: by which transport, and which relay.
func route(n, to *Node) (grid.PeerInfo, error) {
	var peers []grid.PeerInfo
	r := n.Grid("peers", "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &peers); err != nil {
		return grid.PeerInfo{}, fmt.Errorf("%+v: %w", r, err)
	}
	i := slices.IndexFunc(peers, func(p grid.PeerInfo) bool { return p.ID.String() == to.ID })
	if i < 0 {
		return grid.PeerInfo{}, fmt.Errorf("%s is no peer of %s", to.ID, n.Home)
	}
	return peers[i], nil
}

// TestNATs: behind two NATs, and with one member that all reach, nodes join a private swarm, one of them through one that is behind a NAT
// itself; they find each other by a relay, punch a hole, and share a job. With symmetric NATs they stay on the relay, and share it, too.
func TestNATs(t *testing.T) {
	t.Parallel()
	net, err := newInternet(t, "nat")
	if err != nil {
		t.Skip("NATs are not tested: ", err)
	}
	w := NewWorld(t)
	w.swarm, w.far = "", true
	w.within = map[string]string{"p": net.host("p", "192.0.0.66"), "a": net.nat("a", "192.0.0.71", "10.71.0", preserving), "b": net.nat("b", "192.0.0.72", "10.72.0", preserving)}
	began := time.Now()
	w.Must("swarm", "init", "--name", "lab", "--home", filepath.Join(w.dir, "p"))
	p := w.Up("p", "--workers", "1")
	a := w.Up("a", "--workers", "1", "--join", strings.TrimSpace(p.Must("swarm", "invite")))
	t.Logf("%v: a has joined", time.Since(began))
	var relays []string
	Eventually(t, "a is reached by a relay", func(ctx context.Context) error {
		st, err := a.Node(ctx)
		if err == nil {
			relays = st.Reach.Relays
		}
		if err != nil || len(relays) == 0 {
			return fmt.Errorf("%v, %v", st.Reach, err)
		}
		return nil
	})
	t.Logf("%v: a has a relay: %v", time.Since(began), relays)
	p.Must("kv", "put", "k", "v")
	Eventually(t, "a shares the ledger, so that it can let others in", func(context.Context) error {
		if r := a.Grid("kv", "get", "k"); r.Exit != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	token, err := member.ParseToken(p.Must("swarm", "invite"))
	if err != nil {
		t.Fatal(err)
	}
	token.Addrs = nil
	for _, r := range relays {
		token.Addrs = append(token.Addrs, ma.StringCast(r))
	}
	b := w.Up("b", "--workers", "1", "--join", token.String())
	t.Logf("%v: b has joined through a", time.Since(began))
	w.Meet(p, a, b)
	Eventually(t, "they punch a hole", func(context.Context) error {
		for _, x := range [][2]*Node{{a, b}, {b, a}} {
			if how, err := route(x[0], x[1]); err != nil || how.Relay != "" {
				return fmt.Errorf("%+v, %v", how, err)
			}
		}
		return nil
	})
	how, err := route(a, b)
	t.Logf("%v: a hole was punched: %+v, %v", time.Since(began), how, err)
	if how.Transport != "quic-v1" {
		t.Errorf("a reaches b by %+v", how)
	}
	spins := int32(20_000_000)
	shared := func() bool {
		t.Helper()
		const tasks = 60
		spins++ // or the results would be known
		module := filepath.Join(w.dir, "spin.wasm")
		if err := os.WriteFile(module, wasmbytes.Spin(spins), 0o600); err != nil {
			t.Fatal(err)
		}
		job := strings.TrimSpace(b.Must("run", module, "--count", strconv.Itoa(tasks), "--detach"))
		b.Must("wait", job)
		st := b.Status(job)
		if st.State != grid.Done || st.Stages[0].Done != tasks {
			t.Errorf("%+v", st)
		}
		t.Logf("%v: the job is done: %v", time.Since(began), st.Stages[0].Nodes)
		return st.Stages[0].Nodes[a.ID] > 0
	}
	share := func() { // a node that has just come is not thought of at once
		t.Helper()
		for tries := 0; !shared(); tries++ {
			if tries == 5 {
				t.Fatal("a has run none of it")
			}
		}
	}
	share()
	if out := p.Must("status"); !strings.Contains(out, "nodes outside reach it") {
		t.Errorf("grid status of p: %s", out)
	}
	if out := p.Grid("doctor").Stdout; !strings.Contains(out, "relays for others") {
		t.Errorf("grid doctor of p: %s", out)
	}

	w.within["e"] = net.nat("e", "192.0.0.75", "10.75.0", forwarding)
	e := w.Up("e", "--workers", "1", "--join", strings.TrimSpace(p.Must("swarm", "invite", "--role", "worker")), "--announce", "/ip4/192.0.0.75/udp/4747/quic-v1")
	Eventually(t, "others reach e by the port that is forwarded", func(ctx context.Context) error {
		st, err := e.Node(ctx)
		if err != nil || st.Reach.Reachability != "public" || !st.Reach.Relaying || len(st.Reach.Relays) > 0 {
			return fmt.Errorf("%v, %v", st.Reach, err)
		}
		return nil
	})
	t.Logf("%v: e is reached", time.Since(began))
	e.Kill()

	var downs sync.WaitGroup
	for _, n := range []*Node{a, b} {
		downs.Go(func() { n.Grid("down") })
	}
	downs.Wait()
	t.Logf("%v: a and b are down", time.Since(began))
	w.within["a"], w.within["b"] = net.nat("c", "192.0.0.73", "10.73.0", symmetric), net.nat("d", "192.0.0.74", "10.74.0", symmetric) // they have moved
	a, b = w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1")
	t.Logf("%v: a and b are up again", time.Since(began))
	w.Meet(p, a, b)
	t.Logf("%v: they have met again", time.Since(began))
	share()
	for _, x := range [][2]*Node{{a, b}, {b, a}} {
		if how, err := route(x[0], x[1]); err != nil || how.Transport != "relay" || how.Relay != p.ID {
			t.Errorf("%+v, %v", how, err)
		}
	}
	if out := a.Must("peers"); !strings.Contains(out, "by "+p.ID) || !strings.Contains(out, "direct") {
		t.Errorf("grid peers of a: %s", out)
	}
	if out := a.Grid("doctor").Stdout; !strings.Contains(out, "reached by a relay") {
		t.Errorf("grid doctor of a: %s", out)
	}
	for _, n := range []*Node{a, b, p} { // in good order they would look for each other in vain
		n.Kill()
	}
}
