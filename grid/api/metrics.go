package api

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	metricsPath = "/metrics"
	// metricsTimeout bounds one reading of the metrics, metricsAtOnce how many may go on.
	metricsTimeout = 10 * time.Second
	metricsAtOnce  = 4
	maxMetrics     = 16 << 20 // bytes that a client reads
)

// metrics serves what is known of the node in the text format of Prometheus.
func (s *Server) metrics() http.Handler {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newGauges(s))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: metricsAtOnce, Timeout: metricsTimeout})
}

// gauges reads the node anew whenever it is asked. It implements prometheus.Collector.
type gauges struct {
	s    *Server
	node []nodeMetric

	counter, histogram, dropped *prometheus.Desc // of guests
	runs, broken, untaken       *prometheus.Desc // of extensions
	refused                     *prometheus.Desc
	usedCPU, usedTasks, usedIO  *prometheus.Desc // by users, of which those who have used most have a name
}

// nodeMetric is one number about the node.
type nodeMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*grid.NodeStatus) float64
}

func newGauges(s *Server) *gauges {
	g := &gauges{s: s}
	name := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("grid_"+name, help, labels, nil)
	}
	add := func(kind prometheus.ValueType, title, help string, of func(*grid.NodeStatus) float64) {
		g.node = append(g.node, nodeMetric{name(title, help), kind, of})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	add(counter, "tasks_run_total", "Tasks that this node has run.", func(st *grid.NodeStatus) float64 { return float64(st.Ran) })
	add(counter, "tasks_failed_total", "Tasks that this node has run and that did not end well.", func(*grid.NodeStatus) float64 { return float64(s.Node.TasksFailed()) })
	lent := func(get func(*grid.ShareView) uint64) func(*grid.NodeStatus) float64 {
		return func(st *grid.NodeStatus) float64 {
			if st.Share == nil {
				return 0
			}
			return float64(get(st.Share))
		}
	}
	add(counter, "tasks_lent_total", "Tasks that this node has run for other realms.", lent(func(s *grid.ShareView) uint64 { return s.Ran }))
	add(counter, "tasks_lent_refused_total", "Tasks of other realms that this node was given and did not run, as what it lends does not allow it.", lent(func(s *grid.ShareView) uint64 { return s.Refused }))
	add(counter, "tasks_stolen_total", "Tasks that this node has run for other nodes.", func(st *grid.NodeStatus) float64 { return float64(st.Stolen) })
	add(gauge, "tasks_running", "Worker slots that are busy.", func(st *grid.NodeStatus) float64 { return float64(st.Load.Running) })
	add(gauge, "tasks_queued", "Tasks that wait for a slot of this node.", func(st *grid.NodeStatus) float64 { return float64(st.Load.Queued) })
	add(gauge, "slots", "Worker slots.", func(st *grid.NodeStatus) float64 { return float64(st.Load.Slots) })
	add(gauge, "jobs_running", "Jobs of which this node is the owner and that have not ended.", func(st *grid.NodeStatus) float64 { return float64(st.Jobs) })
	add(gauge, "peers", "Nodes that are connected.", func(st *grid.NodeStatus) float64 { return float64(st.Peers) })
	add(gauge, "store_block_bytes", "Bytes of blocks on disk.", func(st *grid.NodeStatus) float64 { return float64(st.Store.BlockBytes) })
	add(gauge, "store_meta_bytes", "Bytes of index, ledger and receipts on disk.", func(st *grid.NodeStatus) float64 { return float64(st.Store.MetaBytes) })
	add(counter, "store_received_bytes_total", "Bytes of blocks that came from other nodes.", func(st *grid.NodeStatus) float64 { return float64(st.Store.BytesIn) })
	add(counter, "store_sent_bytes_total", "Bytes of blocks that were given to other nodes.", func(st *grid.NodeStatus) float64 { return float64(st.Store.BytesOut) })
	add(gauge, "start_time_seconds", "When the node was started, since 1970.", func(st *grid.NodeStatus) float64 {
		if st.Started.IsZero() {
			return 0
		}
		return float64(st.Started.UnixMilli()) / 1000
	})
	g.counter = name("guest_count_total", "What guests have counted on this node, by the name that they gave it.", "plugin", "module", "name")
	g.histogram = name("guest_value", "What guests have measured on this node, by the name that they gave it.", "plugin", "module", "name")
	g.dropped = name("guest_dropped_total", "What guests counted and measured that was left out, as there are too many names.")
	g.runs = name("extension_runs_total", "How often a plugin that extends this node was run.", "extension")
	g.broken = name("extension_broken_total", "How often it gave no proper answer.", "extension")
	g.untaken = name("extension_dropped_total", "Events that a notifier was not told of, or did not take.", "extension")
	g.refused = name("refused_total", "What this node has refused peers, by the peer, or the address of one that is not known.", "peer", "protocol", "reason")
	g.usedCPU = name("usage_cpu_seconds_total", "Time of worker slots that the realm's tasks have used, by the users who have used most, and under no name by all others.", "user")
	g.usedTasks = name("usage_tasks_total", "Tasks that were run in the realm, by the same users.", "user")
	g.usedIO = name("usage_bytes_total", "Bytes that the realm's tasks have read and written, by the same users.", "user")
	return g
}

// usersNamed is how many users the metrics tell apart.
const usersNamed = 10

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range g.node {
		ch <- m.desc
	}
	ch <- g.counter
	ch <- g.histogram
	ch <- g.dropped
	ch <- g.runs
	ch <- g.broken
	ch <- g.untaken
	ch <- g.refused
	ch <- g.usedCPU
	ch <- g.usedTasks
	ch <- g.usedIO
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsTimeout)
	defer cancel()
	st, err := g.s.Describe(ctx)
	for _, m := range g.node {
		if err != nil {
			ch <- prometheus.NewInvalidMetric(m.desc, err)
			continue
		}
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(&st))
	}
	modules, dropped := g.s.Node.GuestMetrics()
	for i := range modules {
		m := &modules[i]
		for k := range m.Metrics {
			ch <- g.guest(m, &m.Metrics[k])
		}
	}
	ch <- prometheus.MustNewConstMetric(g.dropped, prometheus.CounterValue, float64(dropped))
	for key, c := range g.s.Node.ExtensionCounts() {
		ch <- prometheus.MustNewConstMetric(g.runs, prometheus.CounterValue, float64(c.Runs), key)
		ch <- prometheus.MustNewConstMetric(g.broken, prometheus.CounterValue, float64(c.Broken), key)
		ch <- prometheus.MustNewConstMetric(g.untaken, prometheus.CounterValue, float64(c.Dropped), key)
	}
	if users, err := g.s.Node.TopUsers(ctx, usersNamed); err == nil { // else the ledger is away, of which other metrics tell
		for i := range users {
			u := &users[i]
			ch <- prometheus.MustNewConstMetric(g.usedCPU, prometheus.CounterValue, u.Spent().Seconds(), u.User)
			ch <- prometheus.MustNewConstMetric(g.usedTasks, prometheus.CounterValue, float64(u.Tasks), u.User)
			ch <- prometheus.MustNewConstMetric(g.usedIO, prometheus.CounterValue, float64(u.Bytes()), u.User)
		}
	}
	if g.s.Refusals != nil {
		for _, r := range g.s.Refusals() {
			ch <- prometheus.MustNewConstMetric(g.refused, prometheus.CounterValue, float64(r.Count), r.From, string(r.Protocol), r.Reason)
		}
	}
}

// guest is what guests of a module have counted, or measured, under one name.
func (g *gauges) guest(of *grid.ModuleMetrics, m *grid.Metric) prometheus.Metric {
	labels := []string{of.Plugin, of.Module.String(), m.Name}
	if m.Kind == grid.Counter {
		return prometheus.MustNewConstMetric(g.counter, prometheus.CounterValue, float64(m.Count), labels...)
	}
	buckets := make(map[float64]uint64, len(m.Buckets))
	below := uint64(0)
	for _, b := range m.Buckets {
		if below += b.Count; b.Exp < grid.MaxMetricExp { // all that are greater are in the count
			buckets[math.Ldexp(1, b.Exp)] = below
		}
	}
	return prometheus.MustNewConstHistogram(g.histogram, m.Count, m.Sum, buckets, labels...)
}
