package daemon

import (
	"context"
	"net"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// rates bound what one peer may begin with this node. Honest peers at full speed stay well below; what is far above is a
// flood. docs/limits.md says what comes of it. Every protocol of the node is here, or a test fails.
var rates = map[grid.Protocol]grid.Rate{
	// Work. A thief asks again when it has had an answer, of one victim at a time; the owner of a job of tiny tasks
	// hears of each grain from each holder.
	"steal/1":  {PerSecond: 2000, Burst: 4000},
	"wake/1":   {PerSecond: 500, Burst: 2000},
	"claim/1":  {PerSecond: 2000, Burst: 8000},
	"report/1": {PerSecond: 2000, Burst: 8000},
	"drop/1":   {PerSecond: 2000, Burst: 8000},
	"recall/1": {PerSecond: 500, Burst: 2000},
	"rows/1":   {PerSecond: 2000, Burst: 8000},
	"revoke/1": {PerSecond: 500, Burst: 2000},
	// Questions about jobs.
	"job/1":        {PerSecond: 500, Burst: 2000},
	"job-cancel/1": {PerSecond: 200, Burst: 2000},
	"job-why/1":    {PerSecond: 200, Burst: 1000},
	"load/1":       {PerSecond: 200, Burst: 1000},
	"job-watch/1":  {PerSecond: 100, Burst: 500},
	"job-tasks/1":  {PerSecond: 100, Burst: 500},
	"job-events/1": {PerSecond: 100, Burst: 500},
	"task-log/1":   {PerSecond: 100, Burst: 500},
	"about/1":      {PerSecond: 50, Burst: 200},
	// How a node is, and what it ran and tells, for those who look on from another: asked about once a second by each node.
	"pulse/1":        {PerSecond: 20, Burst: 100},
	"stretches/1":    {PerSecond: 20, Burst: 100},
	"realm-events/1": {PerSecond: 20, Burst: 100},
	// Who measures how fast a node sends: 1 MiB each.
	"speed/1": {PerSecond: 1000, Burst: 2000},
	// Who takes part in a private swarm.
	"join/1": {PerSecond: 50, Burst: 200},
	// Of which realm a node of a public swarm is.
	"kin/1": {PerSecond: 20, Burst: 100},
	// Data: each fetch of a small DAG is a stream.
	"blocks/2": {PerSecond: 4000, Burst: 16000},
	"pins/1":   {PerSecond: 500, Burst: 2000},
	// The ledger: a client node passes on what all its users do.
	"ledger/1":       {PerSecond: 20000, Burst: 40000},
	"ledger-watch/1": {PerSecond: 50, Burst: 500, AtOnce: 64},
	"realm/1":        {PerSecond: 500, Burst: 2000}, // who joins brings its entries in pieces
	"raft/1":         {PerSecond: 50, Burst: 200, AtOnce: 32},
}

// guardEvery is how often it is looked which connections are worth keeping.
const guardEvery = 5 * time.Second

// protector keeps connections from being trimmed.
type protector interface {
	Protect(id peer.ID, tag string)
	Unprotect(id peer.ID, tag string)
}

// guard keeps the connections to peers that matter from being trimmed when there are too many, until ctx ends. worth
// lists them.
func guard(ctx context.Context, p protector, worth func() []peer.ID) {
	const tag = "grid"
	kept := make(map[peer.ID]bool)
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		now := make(map[peer.ID]bool)
		for _, id := range worth() {
			if now[id] = true; !kept[id] {
				p.Protect(id, tag)
			}
		}
		for id := range kept {
			if !now[id] {
				p.Unprotect(id, tag)
			}
		}
		kept = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// worth lists the replicas of the ledger, those that use it through this node, and the peers with leases in common.
func (d *Daemon) worth() []peer.ID {
	ids := d.node.Tied()
	if d.realm != nil {
		ids = slices.Concat(ids, d.realm.Replicas(), d.realm.Clients())
	}
	return ids
}

// startGuard keeps connections until the node closes.
func (d *Daemon) startGuard() {
	if d.host == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		guard(ctx, d.host, d.worth)
	}()
	d.opened(closerFunc(func() error {
		cancel()
		<-done
		return nil
	}))
}

// refusals is what peers were refused.
func (d *Daemon) refusals() []grid.Refusal {
	if d.host == nil {
		return nil
	}
	list := d.host.Refusals()
	if r := d.remote.Load(); r != nil {
		list = append(list, r.Refusals()...)
	}
	return list
}

// gatewayHosts are the names by which the gateway may be called.
func (d *Daemon) gatewayHosts() []string {
	hosts := slices.Clone(d.cfg.GatewayHosts)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	if name, _, err := net.SplitHostPort(d.cfg.Gateway); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	return hosts
}
