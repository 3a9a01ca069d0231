package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/store/keep"
	"github.com/wasmgrid/wasmgrid/store/ledger"
	"github.com/wasmgrid/wasmgrid/store/replica"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// newRegistry makes what this node's metrics are gathered by. No other node of the process has part in it, but for those of
// libp2p, which counts for the whole process.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// parts is what is measured of the rooms.
func (d *Daemon) parts() []api.Part {
	list := []api.Part{d.storePart(), d.pinsPart(), d.sandboxPart()}
	if d.host != nil {
		list = append(list, d.networkPart())
	}
	if d.realm != nil {
		list = append(list, d.ledgerPart())
	}
	if d.swarm != nil {
		list = append(list, d.swarmPart())
	}
	if d.traces != nil {
		list = append(list, d.tracesPart())
	}
	if d.cfg.Log != nil {
		list = append(list, d.logPart())
	}
	if d.cfg.API != "" {
		list = append(list, d.certificatePart())
	}
	return list
}

// number makes a metric without labels.
func number[T any](kind api.Kind, name, help string, of func(T) float64) api.Metric[T] {
	return api.Metric[T]{Kind: kind, Name: name, Help: help, Of: func(now T, to api.Emit) { to.Number(of(now)) }}
}

// now is a picture that cannot fail to be taken.
func now[T any](of func() T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return of(), nil }
}

func (d *Daemon) logPart() api.Part {
	lost := func() uint64 { n, _ := d.cfg.Log.Lost(); return n }
	return api.NewPart(now(lost), []api.Metric[uint64]{
		number(api.Counter, "log_records_lost_total", "Records of the node's own log that could not be written, mostly as the disk is full.", func(n uint64) float64 { return float64(n) }),
	})
}

func (d *Daemon) storePart() api.Part {
	type st = keep.Stats
	const counter, gauge = api.Counter, api.Gauge
	return api.NewPart(func(context.Context) (st, error) { return d.store.Keeper().Stats() }, []api.Metric[st]{
		number(gauge, "store_quota_bytes", "Most that blocks may take on disk.", func(s st) float64 { return float64(s.Quota) }),
		number(gauge, "store_pinned_bytes", "Bytes of blocks that the last collection found to be needed; 0 before the first one.", func(s st) float64 { return float64(s.Pinned) }),
		number(gauge, "store_free_bytes", "Bytes that may still be written to the disk of the blocks, whoever else writes there.", func(s st) float64 { return float64(s.Free) }),
		number(gauge, "store_damaged_blocks", "Blocks that are known not to match their CID any more.", func(s st) float64 { return float64(s.Damaged) }),
		number(counter, "store_cache_hits_total", "Reads of small blocks that were in memory.", func(s st) float64 { return float64(s.Hits) }),
		number(counter, "store_cache_misses_total", "Reads of blocks that were not in memory.", func(s st) float64 { return float64(s.Misses) }),
		number(counter, "store_fetches_total", "Fetches of DAGs or blocks from other nodes; those that share one count once.", func(st) float64 { return float64(d.exchange.Stats().Transfers) }),
		number(counter, "store_requests_total", "Streams that were opened to other nodes to fetch blocks.", func(st) float64 { return float64(d.exchange.Stats().Requests) }),
	})
}

func (d *Daemon) networkPart() api.Part {
	type st = p2p.Stats
	const gauge = api.Gauge
	ways := func(name, help string, of func(st) (in, out int)) api.Metric[st] {
		return api.Metric[st]{Kind: gauge, Name: name, Help: help, Labels: []string{"direction"}, Of: func(s st, to api.Emit) {
			in, out := of(s)
			to.Number(float64(in), "inbound")
			to.Number(float64(out), "outbound")
		}}
	}
	return api.NewPart(now(d.host.Stats), []api.Metric[st]{
		ways("network_connections", "Connections to other nodes, also those that are being made.", func(s st) (int, int) { return s.ConnsIn, s.ConnsOut }),
		ways("network_streams", "Streams in connections to other nodes: one for each conversation.", func(s st) (int, int) { return s.StreamsIn, s.StreamsOut }),
		number(gauge, "network_reserved_bytes", "Memory that connections and streams have reserved.", func(s st) float64 { return float64(s.Memory) }),
	})
}

func (d *Daemon) pinsPart() api.Part {
	type st = replica.Stats
	const counter, gauge = api.Counter, api.Gauge
	return api.NewPart(now(d.pins.Stats), []api.Metric[st]{
		number(gauge, "pins", "Pins of which this node is to keep a part.", func(s st) float64 { return float64(s.Pins) }),
		number(gauge, "pins_under_replicated", "Pins of which this node is to keep a part with fewer holders that are up than were promised, or of which not all is here yet.", func(s st) float64 { return float64(s.Short) }),
		number(gauge, "pins_bytes", "Sizes of the DAGs of which this node is to keep a part.", func(s st) float64 { return float64(s.Bytes) }),
		number(counter, "pin_copies_made_total", "Parts of pins that were fetched or calculated for this node to keep, to repair others or anew.", func(s st) float64 { return float64(s.Made) }),
		number(counter, "pin_copies_failed_total", "Tries to bring a part of a pin here that failed, and are made again.", func(s st) float64 { return float64(s.Failed) }),
	})
}

func (d *Daemon) sandboxPart() api.Part {
	type st = wasmhost.Stats
	const counter, gauge = api.Counter, api.Gauge
	return api.NewPart(now(d.engine.Stats), []api.Metric[st]{
		number(gauge, "sandbox_guests_running", "Guests that run.", func(s st) float64 { return float64(s.Running) }),
		number(gauge, "sandbox_idle_instances", "Instances that wait for the next guest of their module.", func(s st) float64 { return float64(s.Pool.Count) }),
		number(gauge, "sandbox_idle_bytes", "Memory of instances that wait for the next guest.", func(s st) float64 { return float64(s.Pool.Bytes) }),
		number(counter, "sandbox_reused_total", "Guests that ran in an instance that waited.", func(s st) float64 { return float64(s.Pool.Hits) }),
		number(counter, "sandbox_instances_total", "Guests for which an instance of a module that has a start-up image was made.", func(s st) float64 { return float64(s.Pool.Misses) }),
		{Kind: api.Histogram, Name: "sandbox_compile_seconds", Help: "How long it took to make machine code of a module, or to read it from the disk's cache.", Of: func(s st, to api.Emit) { to.Timing(s.Compiled) }},
		number(counter, "sandbox_compile_failed_total", "Modules of which no machine code could be made.", func(s st) float64 { return float64(s.Unfit) }),
	})
}

// ledgerNow is how the ledger looks from this node.
type ledgerNow struct {
	grid.LedgerStatus
	own     grid.Role
	up      int    // members
	lag     uint64 // the greatest of the replicas that are up, as the leader knows it
	commits *ledger.Commits
}

func (d *Daemon) ledgerNow(ctx context.Context) (ledgerNow, error) {
	st, err := d.realm.Status(ctx)
	l := ledgerNow{LedgerStatus: st, own: st.Role, commits: d.realm.Commits()}
	self := d.node.Network.Self()
	for i := range st.Members {
		m := &st.Members[i]
		if m.Up || m.ID == self {
			l.up++
			l.lag = max(l.lag, m.Lag)
		}
		if m.ID == self {
			l.own = m.Role
		}
	}
	return l, err
}

func (d *Daemon) ledgerPart() api.Part {
	type st = ledgerNow
	const counter, gauge = api.Counter, api.Gauge
	return api.NewPart(d.ledgerNow, []api.Metric[st]{
		{Kind: gauge, Name: "ledger_role", Help: "1 for what this node is to the ledger, 0 for the other roles.", Labels: []string{"role"}, Of: func(s st, to api.Emit) {
			for _, r := range []grid.Role{grid.Leader, grid.Voter, grid.Learner, grid.Client} {
				to.Number(boolean(r == s.own), string(r))
			}
		}},
		number(gauge, "ledger_has_leader", "1 if this node knows who leads the ledger.", func(s st) float64 { return boolean(s.Leader != "") }),
		number(gauge, "ledger_term", "The term of the ledger's leader, which grows with each election.", func(s st) float64 { return float64(s.Term) }),
		number(gauge, "ledger_revision", "The ledger's revision that was applied here last: less than that of others by what this node lags.", func(s st) float64 { return float64(s.Revision) }),
		number(gauge, "ledger_lag_entries", "Log entries that the slowest replica that is up is behind the leader; 0 on nodes that do not lead.", func(s st) float64 { return float64(s.lag) }),
		number(gauge, "ledger_entries", "Keys in the ledger.", func(s st) float64 { return float64(s.Entries) }),
		number(gauge, "ledger_bytes", "Bytes of keys and values in the ledger.", func(s st) float64 { return float64(s.Bytes) }),
		number(gauge, "ledger_sessions", "Sessions in the ledger, of nodes that are alive.", func(s st) float64 { return float64(s.Sessions) }),
		number(gauge, "ledger_members", "Nodes of the realm.", func(s st) float64 { return float64(len(s.Members)) }),
		number(gauge, "ledger_members_up", "Nodes of the realm that are connected to this one, and this one.", func(s st) float64 { return float64(s.up) }),
		{Kind: api.Histogram, Name: "ledger_commit_seconds", Help: "How long transactions of this node took until they were durable in the ledger.", Of: func(s st, to api.Emit) { to.Timing(&s.commits.Took) }},
		{Kind: counter, Name: "ledger_commits_failed_total", Help: "Transactions of this node that the ledger did not take, by the reason; most of those with conflict are tried again.", Labels: []string{"code"}, Of: func(s st, to api.Emit) {
			s.commits.Failed.Each(func(c grid.Code, n uint64) { to.Number(float64(n), api.CodeLabel(c)) })
		}},
	})
}

func boolean(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus has it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (d *Daemon) swarmPart() api.Part {
	type st = grid.SwarmInfo
	const gauge = api.Gauge
	return api.NewPart(now(d.swarm.Info), []api.Metric[st]{
		number(gauge, "swarm_members", "Members of the private swarm.", func(s st) float64 { return float64(s.Members) }),
		{Kind: gauge, Name: "swarm_membership_end_timestamp_seconds", Help: "When this node's membership ends, since 1970; absent if it does not.", Of: func(s st, to api.Emit) {
			if !s.Expires.IsZero() {
				to.Number(seconds(s.Expires))
			}
		}},
		number(gauge, "swarm_keys_disputed", "Keys that claim with equal right to be the authority's: more than 0 says that one was stolen.", func(s st) float64 { return float64(len(s.Disputed)) }),
		number(gauge, "swarm_twins", "Addresses of other nodes that run with this one's key.", func(s st) float64 { return float64(len(s.Twin)) }),
	})
}

func (d *Daemon) certificatePart() api.Part {
	return api.NewPart(now(d.remote.Load), []api.Metric[*remoteAPI]{
		{Kind: api.Gauge, Name: "api_certificate_end_timestamp_seconds", Help: "When the certificate of the API over the network ends, since 1970.", Of: func(r *remoteAPI, to api.Emit) {
			if r == nil {
				return
			}
			if cert, err := r.cert.current(); err == nil {
				to.Number(seconds(cert.Leaf.NotAfter))
			}
		}},
	})
}
