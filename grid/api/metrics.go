package api

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
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
	// usersNamed is how many users the metrics tell apart.
	usersNamed = 10
)

// measured is what the server measures, and where it shows that and what others do.
type measured struct {
	registry *prometheus.Registry
	handler  http.Handler
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	parts    []Part
}

// measuring makes it, once for all of the server's handlers.
func (s *Server) measuring() *measured {
	s.measure.Do(func() {
		m := &s.measured
		if m.registry = s.Registry; m.registry == nil {
			m.registry = prometheus.NewRegistry()
		}
		m.parts = append([]Part{s.nodePart(), s.doingPart(), s.guestPart(), s.accessPart()}, s.Parts...)
		for _, p := range m.parts {
			m.registry.MustRegister(p)
		}
		m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: requestsMetric.Name, Help: requestsMetric.Help}, requestsMetric.Labels)
		m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: requestTimeMetric.Name, Help: requestTimeMetric.Help,
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 100},
		}, requestTimeMetric.Labels)
		m.registry.MustRegister(m.requests, m.took)
		m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
			MaxRequestsInFlight: metricsAtOnce, Timeout: metricsTimeout,
			ErrorLog:      slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
			ErrorHandling: promhttp.ContinueOnError, // what can be told is
		})
	})
	return &s.measured
}

var (
	requestsMetric = Family{Counter, metricPrefix + "api_requests_total",
		"Requests to the API by kind (questions, transfers, followers) and status; 499: nobody waited for the answer. What was refused before is in grid_refused_total.", []string{"class", "code"}}
	requestTimeMetric = Family{Histogram, metricPrefix + "api_request_seconds", "How long requests to the API took, with their bodies and answers.", []string{"class"}}
)

// Families tells of all metrics of the node that are its own: those of Go and of libraries come besides.
func (s *Server) Families() (all []Family) {
	for _, p := range s.measuring().parts {
		all = append(all, p.Families()...)
	}
	return append(all, requestsMetric, requestTimeMetric)
}

// answered counts a request.
func (m *measured) answered(class string, r *http.Request, status int, took time.Duration) {
	switch {
	case status == 0 && r.Context().Err() != nil:
		status = 499
	case status == 0:
		status = http.StatusOK
	}
	m.requests.WithLabelValues(class, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(class).Observe(took.Seconds())
}

// nodePart is what the node's status tells.
func (s *Server) nodePart() Part {
	type st = *grid.NodeStatus
	number := func(kind Kind, name, help string, of func(st) float64) Metric[st] {
		return Metric[st]{kind, name, help, nil, func(st st, to Emit) { to.Number(of(st)) }}
	}
	count := func(name, help string, of func(st) uint64) Metric[st] {
		return number(Counter, name, help, func(st st) float64 { return float64(of(st)) })
	}
	gauge := func(name, help string, of func(st) uint64) Metric[st] {
		return number(Gauge, name, help, func(st st) float64 { return float64(of(st)) })
	}
	lent := func(get func(*grid.ShareView) uint64) func(st) uint64 {
		return func(st st) uint64 {
			if st.Share == nil {
				return 0
			}
			return get(st.Share)
		}
	}
	return NewPart(func(ctx context.Context) (st, error) {
		st, err := s.Describe(ctx)
		return &st, err
	}, []Metric[st]{
		{Gauge, "build_info", "1, of the version, commit and Go of the program.", []string{"version", "revision", "goversion"}, func(_ st, to Emit) {
			to.Number(1, grid.Version, revision(), runtime.Version())
		}},
		number(Gauge, "start_time_seconds", "When the node was started, since 1970.", func(st st) float64 {
			if st.Started.IsZero() {
				return 0
			}
			return float64(st.Started.UnixMilli()) / 1000
		}),
		number(Gauge, "time_seconds", "What the node's clock shows, since 1970: to compare with whoever asks.", func(st) float64 { return float64(time.Now().UnixMicro()) / 1e6 }),
		gauge("peers", "Nodes that are connected.", func(st st) uint64 { return uint64(st.Peers) }),
		gauge("slots", "Worker slots.", func(st st) uint64 { return uint64(st.Load.Slots) }),
		gauge("tasks_running", "Worker slots that are busy.", func(st st) uint64 { return uint64(st.Load.Running) }),
		gauge("tasks_queued", "Tasks that wait for a slot of this node.", func(st st) uint64 { return st.Load.Queued }),
		gauge("tasks_parked", "Tasks that wait for others, without a slot.", func(st st) uint64 { return uint64(st.Load.Parked) }),
		gauge("jobs_running", "Jobs of which this node is the owner and that have not ended.", func(st st) uint64 { return uint64(st.Jobs) }),
		count("tasks_run_total", "Tasks that this node has run.", func(st st) uint64 { return st.Ran }),
		count("tasks_stolen_total", "Tasks that this node has run for other nodes.", func(st st) uint64 { return st.Stolen }),
		count("tasks_lent_total", "Tasks that this node has run for other realms.", lent(func(s *grid.ShareView) uint64 { return s.Ran })),
		count("tasks_lent_refused_total", "Tasks of other realms that this node was given and did not run, as what it lends does not allow it.", lent(func(s *grid.ShareView) uint64 { return s.Refused })),
		gauge("store_block_bytes", "Bytes of blocks on disk.", func(st st) uint64 { return st.Store.BlockBytes }),
		gauge("store_meta_bytes", "Bytes of index, ledger and receipts on disk.", func(st st) uint64 { return st.Store.MetaBytes }),
		count("store_received_blocks_total", "Blocks that came from other nodes.", func(st st) uint64 { return st.Store.BlocksIn }),
		count("store_received_bytes_total", "Bytes of blocks that came from other nodes.", func(st st) uint64 { return st.Store.BytesIn }),
		count("store_wasted_blocks_total", "Blocks that came although they were here.", func(st st) uint64 { return st.Store.Wasted }),
		count("store_sent_blocks_total", "Blocks that were given to other nodes.", func(st st) uint64 { return st.Store.BlocksOut }),
		count("store_sent_bytes_total", "Bytes of blocks that were given to other nodes.", func(st st) uint64 { return st.Store.BytesOut }),
		count("store_bad_peers_total", "Times that a node was dropped for sending what is wrong or was not asked for, or too slowly.", func(st st) uint64 { return st.Store.BadPeers }),
	})
}

// revision is the commit that the program was built of, "" when it was not told.
func revision() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// CodeLabel is a code as a label's value.
func CodeLabel(c grid.Code) string { return strings.ReplaceAll(c.Error(), " ", "_") }

// doingPart is what the node counts of its tasks and jobs.
func (s *Server) doingPart() Part {
	type m = *grid.Measures
	byCode := func(name, help string, of func(m) *grid.ByCode) Metric[m] {
		return Metric[m]{Counter, name, help, []string{"code"}, func(m m, to Emit) {
			of(m).Each(func(c grid.Code, n uint64) { to.Number(float64(n), CodeLabel(c)) })
		}}
	}
	count := func(name, help string, of func(m) uint64) Metric[m] {
		return Metric[m]{Counter, name, help, nil, func(m m, to Emit) { to.Number(float64(of(m))) }}
	}
	return NewPart(func(context.Context) (m, error) { return s.Node.Measures(), nil }, []Metric[m]{
		count("tasks_failed_total", "Tasks that this node has run and that did not end well.", func(m) uint64 { return s.Node.TasksFailed() }),
		count("task_exits_total", "Tasks that this node has run and whose guests exited with a code other than 0.", func(m m) uint64 { return m.Exits.Load() }),
		byCode("task_faults_total", "Tasks that this node has run and whose guests trapped or were stopped, by the reason.", func(m m) *grid.ByCode { return &m.Faults }),
		byCode("task_attempts_lost_total", "Attempts that came to no end, for reasons of this node: it tells its owner, who has the task run again.", func(m m) *grid.ByCode { return &m.Lost }),
		count("tasks_known_total", "Tasks of other nodes that were not run, as a receipt of an earlier run was here.", func(m m) uint64 { return m.Known.Load() }),
		count("task_fuel_total", "Fuel that guests have used.", func(m m) uint64 { return m.Fuel.Load() }),
		{Histogram, "task_seconds", "How long tasks took on this node, from bringing their inputs to keeping their outputs.", nil, func(m m, to Emit) { to.Timing(&m.Tasks) }},
		{Histogram, "task_phase_seconds", "How long each phase of a task took: fetch and queue are waits, parked is one in the middle of run.", []string{"phase"}, func(m m, to Emit) {
			for i, name := range grid.PhaseNames {
				to.Timing(&m.Phases[i], name)
			}
		}},
		{Counter, "steals_total", "Questions to other nodes for work, by the answer.", []string{"answer"}, func(m m, to Emit) {
			for i, name := range grid.StealNames {
				to.Number(float64(m.Steals[i].Load()), name)
			}
		}},
		count("tasks_taken_total", "Tasks that this node was given a lease on, when it asked.", func(m m) uint64 { return m.Taken.Load() }),
		count("tasks_given_total", "Tasks that other nodes were given a lease on by this one, when they asked.", func(m m) uint64 { return m.Given.Load() }),
		{Counter, "tasks_queued_seconds_total", "Time that tasks have waited in this node's queue, summed over the tasks: how fast it grows, by how fast tasks are run, is how long one waits.", nil, func(m m, to Emit) {
			to.Number(m.Waited())
		}},
		{Counter, "leases_total", "Leases by what became of them here: run in a slot, piece by piece; taken from another node; given to one; lost, as one given ran out.", []string{"what"}, func(m m, to Emit) {
			for i, name := range grid.LeaseNames {
				to.Number(float64(m.Leases[i].Load()), name)
			}
		}},
		{Counter, "jobs_ended_total", "Jobs that this node has brought to an end.", []string{"state"}, func(m m, to Emit) {
			m.EachEnd(func(s grid.State, n uint64) { to.Number(float64(n), string(s)) })
		}},
		{Histogram, "job_seconds", "How long the jobs that this node has ended took, from being submitted on.", nil, func(m m, to Emit) { to.Timing(&m.Jobs) }},
		count("audit_acts_total", "Acts of this node's users that were written to the audit log.", func(m) uint64 { return s.Node.Audited() }),
	})
}

// guestPart is what guests have counted themselves, and extensions.
func (s *Server) guestPart() Part {
	type picture struct {
		modules []grid.ModuleMetrics
		dropped uint64
	}
	each := func(kind grid.MetricKind, f func(m *grid.Metric, labels []string, to Emit)) func(picture, Emit) {
		return func(p picture, to Emit) {
			for i := range p.modules {
				of := &p.modules[i]
				for k := range of.Metrics {
					if m := &of.Metrics[k]; m.Kind == kind {
						f(m, []string{of.Plugin, of.Module.String(), m.Name}, to)
					}
				}
			}
		}
	}
	extension := func(name, help string, of func(*grid.ExtensionCounts) uint64) Metric[picture] {
		return Metric[picture]{Counter, name, help, []string{"extension"}, func(_ picture, to Emit) {
			for key, c := range s.Node.ExtensionCounts() {
				to.Number(float64(of(&c)), key)
			}
		}}
	}
	names := []string{"plugin", "module", "name"}
	return NewPart(func(context.Context) (p picture, err error) {
		p.modules, p.dropped = s.Node.GuestMetrics()
		return p, nil
	}, []Metric[picture]{
		{Counter, "guest_count_total", "What guests have counted on this node, by the name that they gave it.", names,
			each(grid.Counter, func(m *grid.Metric, labels []string, to Emit) { to.Number(float64(m.Count), labels...) })},
		{Histogram, "guest_value", "What guests have measured on this node, by the name that they gave it.", names,
			each(grid.Histogram, func(m *grid.Metric, labels []string, to Emit) {
				buckets := make(map[float64]uint64, len(m.Buckets))
				below := uint64(0)
				for _, b := range m.Buckets {
					if below += b.Count; b.Exp < grid.MaxMetricExp { // all that are greater are in the count
						buckets[math.Ldexp(1, b.Exp)] = below
					}
				}
				to.ch <- prometheus.MustNewConstHistogram(to.desc, m.Count, m.Sum, buckets, labels...)
			})},
		{Counter, "guest_dropped_total", "What guests counted and measured that was left out, as there are too many names.", nil, func(p picture, to Emit) { to.Number(float64(p.dropped)) }},
		extension("extension_runs_total", "How often a plugin that extends this node was run.", func(c *grid.ExtensionCounts) uint64 { return c.Runs }),
		extension("extension_broken_total", "How often a plugin that extends this node gave no proper answer.", func(c *grid.ExtensionCounts) uint64 { return c.Broken }),
		extension("extension_dropped_total", "Events that a notifier was not told of, or did not take.", func(c *grid.ExtensionCounts) uint64 { return c.Dropped }),
	})
}

// accessPart is who was refused what, and who has used how much.
func (s *Server) accessPart() Part {
	type users = []grid.Used
	used := func(name, help string, of func(*grid.Used) float64) Metric[users] {
		return Metric[users]{Counter, name, help, []string{"user"}, func(list users, to Emit) {
			for i := range list {
				to.Number(of(&list[i]), list[i].User)
			}
		}}
	}
	return NewPart(func(ctx context.Context) (users, error) {
		list, err := s.Node.TopUsers(ctx, usersNamed)
		if err != nil { // the ledger is away, of which other metrics tell
			return nil, nil
		}
		return list, nil
	}, []Metric[users]{
		{Counter, "refused_total", "What this node has refused peers, by the peer, or the address of one that is not known.", []string{"peer", "protocol", "reason"}, func(_ users, to Emit) {
			if s.Refusals == nil {
				return
			}
			for _, r := range s.Refusals() {
				to.Number(float64(r.Count), r.From, string(r.Protocol), r.Reason)
			}
		}},
		used("usage_cpu_seconds_total", "Time of worker slots that the realm's tasks have used, by the users who have used most, and under no name by all others.", func(u *grid.Used) float64 { return u.Spent().Seconds() }),
		used("usage_tasks_total", "Tasks that were run in the realm, by the users who have used most time.", func(u *grid.Used) float64 { return float64(u.Tasks) }),
		used("usage_bytes_total", "Bytes that the realm's tasks have read and written, by the users who have used most time.", func(u *grid.Used) float64 { return float64(u.Bytes()) }),
	})
}
