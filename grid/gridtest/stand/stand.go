// Package stand makes nodes whose parts are stand-ins in memory, for tests outside of package grid that bring
// some of the parts themselves, such as the network and the scheduler. The engine runs a Go function in place of
// every guest.
package stand

import (
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// Node is the lasting parts of one node. Its Engine.Guest is what tasks run, its Key and ID who it is, its Module
// something to name as a stage's.
type Node = fake.World

// New makes the parts of some nodes, each a realm of its own. They reach one another's blocks without the network.
func New(names ...string) []*Node {
	hub := new(fake.Hub)
	nodes := make([]*Node, len(names))
	for i, name := range names {
		nodes[i] = fake.NewWorld(hub, name)
	}
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.Fetcher.From = append(a.Fetcher.From, b.Blocks)
			}
		}
	}
	return nodes
}

// Config is the configuration of a node with another network and scheduler.
func Config(n *Node, net grid.Network, s grid.Scheduler, slots int) grid.NodeConfig {
	c := n.Config()
	c.Network, c.Scheduler, c.Slots = net, s, slots
	return c
}
