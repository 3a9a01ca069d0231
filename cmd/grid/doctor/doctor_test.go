package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// well is a world in which all is well.
func well(t *testing.T) *World {
	home := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return &World{
		Home: home, Socket: filepath.Join(home, "api.sock"), Nearby: filepath.Join(home, "nearby"),
		Node:   &grid.NodeStatus{ID: "me", Version: grid.Version, Addrs: []string{"/ip4/192.0.2.1/tcp/4747"}},
		Ledger: &grid.LedgerStatus{Realm: "default", Role: grid.Leader, Leader: "me"},
		Use:    &grid.StoreUse{},
		Checkup: &grid.Checkup{
			Reach: &grid.Reach{Reachability: "public", MDNS: true, Nearby: true},
			Peers: []grid.PeerAbout{{
				PeerInfo: grid.PeerInfo{ID: "other", Transport: "tcp"}, Version: grid.Version, ABI: grid.ABIVersion, Trip: time.Millisecond,
			}},
		},
		Disk: func(string) (Disk, error) {
			return Disk{Free: 10 << 30, Total: 20 << 30, FreeInodes: 90, AllInodes: 100}, nil
		},
		Owner:   func(string) (bool, error) { return true, nil },
		Listen:  func(string, string) error { return nil },
		Mcast:   func() ([]string, error) { return []string{"eth0"}, nil },
		Files:   func() (uint64, error) { return 1 << 20, nil },
		Memory:  func() (uint64, uint64) { return 32 << 30, 0 },
		Engine:  func(context.Context) (string, time.Duration, error) { return "reused", time.Millisecond, nil },
		Fast:    func() (string, error) { return "scan", nil },
		Version: func(_ context.Context, tool string, _ ...string) (string, error) { return tool + " 1.2\nmore", nil },
	}
}

// TestChecks: what is wrong is found, as bad as it is, with a way to fix it; and nothing else is.
func TestChecks(t *testing.T) {
	member := func(role grid.Role, up bool) grid.LedgerMember {
		return grid.LedgerMember{ID: peer.ID(role), Role: role, Up: up}
	}
	about := func(change func(*grid.PeerAbout)) func(*World) {
		return func(w *World) { change(&w.Checkup.Peers[0]) }
	}
	alone := func(change func(*World)) func(*World) {
		return func(w *World) {
			w.Node, w.Ledger, w.Use, w.Checkup = nil, nil, nil, nil
			change(w)
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(*World)
		check string
		level Level // "" : nothing is wrong
		says  string
	}{
		{"well", func(*World) {}, "", "", ""},
		{"well, without a node", alone(func(*World) {}), "", "", ""},
		{"no home", alone(func(w *World) { w.Home += "/none" }), "home", Info, "not there yet"},
		{"home open", func(w *World) { os.Chmod(w.Home, 0o755) }, "home", Warning, "0755"},
		{"home of another", func(w *World) { w.Owner = func(string) (bool, error) { return false, nil } }, "home", Failure, "another user"},
		{"key open", func(w *World) { os.WriteFile(w.Home+"/identity", nil, 0o644) }, "home", Failure, "private key"},
		{"home a file", func(w *World) { w.Home += "/f"; os.WriteFile(w.Home, nil, 0o600) }, "home", Failure, "no folder"},
		{"little disk", func(w *World) { w.Disk = func(string) (Disk, error) { return Disk{Free: 500 << 20}, nil } }, "disk", Warning, "500 MiB free"},
		{"no disk", func(w *World) { w.Disk = func(string) (Disk, error) { return Disk{}, nil } }, "disk", Failure, "0 B free"},
		{"few inodes", func(w *World) {
			w.Disk = func(string) (Disk, error) { return Disk{Free: 1 << 40, FreeInodes: 1, AllInodes: 100}, nil }
		}, "disk", Warning, "1 of 100 inodes"},
		{"hangs", func(w *World) { w.NodeErr = errors.New("no answer") }, "node", Failure, "no answer"},
		{"in use", alone(func(w *World) { w.InUse = true }), "node", Warning, "uses the home"},
		{"API open", func(w *World) { os.WriteFile(w.Socket, nil, 0o666) }, "node", Failure, "others may use the API"},
		{"old node", func(w *World) { w.Node.Version = "0.0.1" }, "version", Warning, "0.0.1"},
		{"old peer", about(func(p *grid.PeerAbout) { p.ABI = 1 }), "version", Warning, "ABI 1"},
		{"damage", func(w *World) { w.Use.Damaged = make([]grid.Link, 2) }, "blocks", Failure, "2 blocks are damaged"},
		{"full", func(w *World) { w.Use.Pinned, w.Use.Quota = 95, 100 }, "blocks", Warning, "95 B of blocks are needed"},
		{"port taken", alone(func(w *World) { w.Listen = func(string, string) error { return syscall.EADDRINUSE } }), "port", Warning, "tcp port 4747 is taken"},
		{"no sockets", alone(func(w *World) { w.Listen = func(string, string) error { return syscall.EPERM } }), "port", Failure, "udp port 4747"},
		{"deaf", func(w *World) { w.Node.Addrs = nil }, "port", Failure, "nowhere"},
		{"clock ahead", about(func(p *grid.PeerAbout) { p.Ahead = 5 * time.Second }), "clock", Warning, "5s ahead"},
		{"clock hours behind", about(func(p *grid.PeerAbout) { p.Ahead = -2 * time.Hour }), "clock", Failure, "2h0m0s behind"},
		{"clock not known", about(func(p *grid.PeerAbout) { p.Ahead, p.Trip = 2*time.Second, 900*time.Millisecond }), "", "", ""},
		{"no majority", func(w *World) {
			w.Ledger.Members = []grid.LedgerMember{member(grid.Leader, true), member(grid.Voter, false), member(grid.Voter, false)}
		}, "ledger", Failure, "only 1 can be reached"},
		{"voter down", func(w *World) {
			w.Ledger.Members = []grid.LedgerMember{member(grid.Leader, true), member(grid.Voter, true), member(grid.Voter, false)}
		}, "ledger", Warning, "2 of 3 voters"},
		{"no leader", func(w *World) { w.Ledger.Role, w.Ledger.Leader = grid.Client, "" }, "ledger", Failure, "no leader"},
		{"lag", func(w *World) { w.Ledger.Members = []grid.LedgerMember{{ID: "slow", Role: grid.Learner, Lag: 9999}} }, "ledger", Warning, "9999 log entries"},
		{"note", func(w *World) { w.Ledger.Note = "two realms" }, "ledger", Warning, "two realms"},
		{"no multicast", func(w *World) { w.Mcast = func() ([]string, error) { return nil, nil } }, "discovery", Warning, "multicast"},
		{"behind a NAT", func(w *World) { w.Checkup.Reach.Reachability = "private" }, "reach", Warning, "NAT"},
		{"closed port", func(w *World) {
			w.Checkup.Reach.Reachability, w.Checkup.Reach.Outside = "private", []grid.AddrReach{{Addr: "/ip4/192.0.0.70/tcp/4747", State: "unreachable"}}
		}, "reach", Warning, "nobody outside gets through to /ip4/192.0.0.70/tcp/4747"},
		{"symmetric NAT", func(w *World) {
			w.Checkup.Reach.Reachability, w.Checkup.Reach.Relays, w.Checkup.Reach.NAT = "private", []string{"r"}, "symmetric"
		}, "reach", Info, "holes cannot be punched"},
		{"by a relay", func(w *World) { w.Checkup.Reach.Relayed = 2 }, "reach", Info, "2 peers are reached by a relay"},
		{"relayed", func(w *World) { w.Checkup.Reach.Reachability, w.Checkup.Reach.Relays = "private", []string{"r"} }, "", "", ""},
		{"nobody to join", func(w *World) { w.Checkup.Peers, w.Checkup.Reach.Fixed = nil, 1 }, "peers", Warning, "no other node"},
		{"mute peer", about(func(p *grid.PeerAbout) { p.Error = "timeout" }), "peers", Warning, "timeout"},
		{"slow peer", about(func(p *grid.PeerAbout) { p.Trip = 3 * time.Second }), "peers", Warning, "after 3s"},
		{"few files", func(w *World) { w.Files = func() (uint64, error) { return 256, nil } }, "limits", Warning, "256 files"},
		{"container", func(w *World) { w.Memory = func() (uint64, uint64) { return 32 << 30, 64 << 20 } }, "limits", Warning, "64 MiB of memory, of the container"},
		{"engine", func(w *World) {
			w.Engine = func(context.Context) (string, time.Duration, error) { return "", 0, errors.New("no mmap") }
		}, "engine", Failure, "no mmap"},
		{"no memfd", func(w *World) { w.Fast = func() (string, error) { return "", errors.New("no memfd") } }, "engine", Warning, "no memfd"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(test.name, "open") {
				t.Skip("files have no modes here")
			}
			w := well(t)
			test.spoil(w)
			r := Run(t.Context(), w)
			seen := false
			for _, f := range r.Findings {
				switch {
				case f.Check == "" || f.Found == "":
					t.Errorf("an empty finding: %+v", f)
				case f.Check == test.check && f.Level == test.level && strings.Contains(f.Found, test.says):
					seen = true
					if f.Fix == "" {
						t.Errorf("no way to fix %q", f.Found)
					}
				case (f.Level == Warning || f.Level == Failure) && f.Check != test.check:
					t.Errorf("%s: %s", f.Check, f.Found)
				}
			}
			if !seen && test.check != "" {
				out, _ := json.MarshalIndent(r, "", " ")
				t.Errorf("%s %q is not found: %s", test.level, test.says, out)
			}
			if test.level == "" && r.Warnings+r.Failures > 0 || test.level == Warning && r.Warnings == 0 || test.level == Failure && r.Failures == 0 {
				t.Errorf("%d warnings, %d failures", r.Warnings, r.Failures)
			}
		})
	}
}

// TestLook: a real machine can be looked at, without a node.
func TestLook(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), Look(t.Context(), home, nil, nil))
	for _, f := range r.Findings {
		if f.Level == Failure {
			t.Errorf("%s: %s", f.Check, f.Found)
		}
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("%v was left behind, %v", left, err)
	}
}

func TestSwarm(t *testing.T) {
	node := func(p grid.SwarmInfo) *World {
		return &World{Home: t.TempDir(), Node: &grid.NodeStatus{ID: "me", Private: &p}}
	}
	past, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		w    *World
		want Level
		say  string
	}{
		"well":       {node(grid.SwarmInfo{ID: "lab", Role: grid.RoleVoter}), OK, "lab"},
		"in dispute": {node(grid.SwarmInfo{Disputed: []string{"x", "y"}}), Failure, "--recover"},
		"a twin":     {node(grid.SwarmInfo{Twin: []string{"/ip4/192.0.2.1/tcp/1"}}), Failure, "192.0.2.1"},
		"ends soon":  {node(grid.SwarmInfo{Expires: soon, Ending: true}), Warning, "grid member renew me"},
		"revoked":    {node(grid.SwarmInfo{Role: grid.RoleAdmin, Ended: "revoked at noon"}), Failure, "revoked at noon"},
		"has ended":  {node(grid.SwarmInfo{Expires: past, Ending: true}), Failure, "grid member renew me"},
	} {
		got := checkSwarm(t.Context(), tt.w)
		if len(got) != 1 || got[0].Level != tt.want || !strings.Contains(got[0].Found+got[0].Fix, tt.say) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := checkSwarm(t.Context(), &World{Node: &grid.NodeStatus{}}); got != nil {
		t.Errorf("an open swarm: %+v", got)
	}
	w := node(grid.SwarmInfo{})
	if err := os.WriteFile(filepath.Join(w.Home, recoveryFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := checkSwarm(t.Context(), w); len(got) != 1 || got[0].Level != Warning {
		t.Errorf("the recovery key is there: %+v", got)
	}
}
