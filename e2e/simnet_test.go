package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/stand"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/sched"
)

// simulated is a swarm of nodes with real libp2p hosts, networks and schedulers, in a network and a time that are
// not real. What tasks run, and where blocks are kept, are stand-ins.
type simulated struct {
	net   *simnet.Simnet
	parts []*stand.Node
	hosts []host.Host
	nets  []*p2p.Host
	nodes []*grid.Node
}

// swarmOf starts n nodes, each connected to a few others, and knowing where all are, as the table would tell it. Must run in a bubble.
func swarmOf(t *testing.T, n, slots int, delay time.Duration, guest func(context.Context, *grid.Guest) (grid.Outcome, error)) *simulated {
	t.Helper()
	s := &simulated{net: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(delay)}}
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("node", i)
	}
	s.parts = stand.New(names...)
	fast := simnet.LinkSettings{BitsPerSecond: 1000 * simlibp2p.OneMbps}
	for i, p := range s.parts {
		p.Engine.Guest = guest
		h, err := libp2p.New(
			libp2p.Identity(p.Key),
			libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))),
			simlibp2p.QUICSimnet(s.net, simnet.NodeBiDiLinkSettings{Downlink: fast, Uplink: fast}),
			libp2p.DisableIdentifyAddressDiscovery(),
			libp2p.ResourceManager(&network.NullResourceManager{}),
			libp2p.DisableMetrics(),
		)
		if err != nil {
			t.Fatal(err)
		}
		s.hosts = append(s.hosts, h)
	}
	s.net.Start()
	for _, h := range s.hosts {
		for _, o := range s.hosts {
			h.Peerstore().AddAddrs(o.ID(), o.Addrs(), peerstore.PermanentAddrTTL)
		}
	}
	known, err := grid.Marshal(grid.NodeInfo{Slots: slots})
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range s.hosts {
		over, err := p2p.Over(h, "simulated", nil)
		if err != nil {
			t.Fatal(err)
		}
		s.nets = append(s.nets, over)
		cfg := stand.Config(s.parts[i], over, sched.New(sched.Config{Self: h.ID(), Slots: slots}), slots)
		for _, o := range s.hosts { // they are one realm
			if _, err := cfg.Ledger.Commit(t.Context(), grid.Txn{Put: []grid.Entry{{Key: grid.NodeKeys + o.ID().String(), Value: known}}}); err != nil {
				t.Fatal(err)
			}
		}
		node, err := grid.OpenNode(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.nodes = append(s.nodes, node)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i, net := range s.nets {
		for _, k := range []int{(i + 1) % n, r.IntN(n), r.IntN(n), r.IntN(n)} {
			if k != i {
				if err := net.Connect(t.Context(), s.nets[k].Addrs()[0]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return s
}

// kill ends a node as if its machine had gone: the network first.
func (s *simulated) kill(i int) {
	_ = s.nets[i].Close()
	_ = s.nodes[i].Close()
}

func (s *simulated) close() {
	for i := range s.nodes {
		s.kill(i)
	}
	s.net.Close()
}

// TestSimulatedSwarm: a job that is handed to one of fifty nodes runs on all of them, and ends well though some
// die on the way. The bubble makes sure that no goroutine is left.
func TestSimulatedSwarm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes tens of seconds")
	}
	const (
		nodes = 50
		slots = 2
		tasks = 5000
		dead  = 5
		took  = 50 * time.Millisecond
	)
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		var ran atomic.Int32
		third := make(chan struct{})
		s := swarmOf(t, nodes, slots, 2*time.Millisecond, func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
			select {
			case <-time.After(took):
			case <-ctx.Done():
				return grid.Outcome{}, ctx.Err()
			}
			if ran.Add(1) == tasks/3 {
				close(third)
			}
			_, err := fmt.Fprint(g.Stdout, strings.Join(g.Env, " "))
			return grid.Outcome{Run: took}, err
		})
		defer s.close()
		start := time.Now()
		id, err := s.nodes[0].Submit(t.Context(), grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: s.parts[0].Module, Tasks: tasks}}}})
		if err != nil {
			t.Fatal(err)
		}
		<-third
		for i := range dead {
			s.kill(nodes - 1 - 7*i)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // of virtual time
		defer cancel()
		var last grid.JobStatus
		if err := s.nodes[0].Watch(ctx, id, func(st grid.JobStatus) error { last = st; return nil }); err != nil || last.State != grid.Done {
			t.Fatalf("%v, %s: %+v", err, last.State, last)
		}
		makespan := time.Since(start)
		by := map[string]int{}
		next := uint32(0)
		err = s.nodes[0].Tasks(ctx, id, false, func(e grid.TaskEnd) error {
			want := fmt.Sprintf("GRID_ABI=%d GRID_TASK=%d", grid.ABIVersion, e.Index)
			if e.Index != next || !e.OK() || string(e.Stdout.Data) != want {
				return fmt.Errorf("task %d, the %d-th: %q, want %q", e.Index, next, e.Stdout.Data, want)
			}
			next++
			by[e.Node]++
			return nil
		})
		if err != nil || next != tasks {
			t.Errorf("%d tasks have ended: %v", next, err)
		}
		if len(by) < nodes-dead {
			t.Errorf("only %d of %d nodes ran tasks", len(by), nodes)
		}
		ideal := tasks * took / (nodes * slots)
		t.Logf("%d tasks on %d nodes, %d of which died: %v of virtual time, at least %v; %d tries",
			tasks, len(by), dead, makespan.Round(time.Millisecond), ideal, ran.Load())
	})
	t.Logf("took %v", time.Since(began).Round(time.Millisecond))
}
