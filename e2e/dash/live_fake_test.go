package dash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/dash"
)

// fake is a grid that is made up: as many nodes and tasks as one likes, behind the routes that the live views use.
type fake struct {
	nodes   int
	slots   int
	tasks   int // of the last 15 minutes, all nodes together
	zones   []string
	jobs    []grid.JobStatus
	name    string // of the first node
	began   time.Time
	history time.Duration
	asked   atomic.Int64 // requests to the API
	open    atomic.Int64 // of these, that are being answered
}

func newFake(nodes, slots, tasks int, zones ...string) *fake {
	f := &fake{nodes: nodes, slots: slots, tasks: tasks, zones: zones, began: time.Now(), history: 15 * time.Minute}
	for i, name := range []string{"word count of the encyclopaedia", "render", "fold 7KZ1", "nightly index"} {
		f.jobs = append(f.jobs, grid.JobStatus{ID: grid.JobID([]string{"k3vq0aa2b7xq4z2m6k3", "p9rm1fw8s7c0d2yj5t6", "c5ge7hx4q0n8u3kz9b1", "w2tb6jd9e5m1s7fa0p4"}[i]), Name: name, State: grid.Running, Stages: []grid.StageStatus{{Name: "map"}, {Name: "reduce"}}})
	}
	return f
}

// serve serves it and the dashboard.
func (f *fake) serve(t testing.TB) string {
	mux := http.NewServeMux()
	mux.Handle(dash.Prefix, dash.Handler())
	one := func(path string, v func() any) {
		mux.HandleFunc("GET /v1"+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v())
		})
	}
	one("/access", func() any { return api.Access{Role: grid.TokenViewer, Name: "tester"} })
	one("/node", func() any { return grid.NodeStatus{ID: f.id(0)} })
	one("/jobs", func() any { return f.jobs })
	mux.HandleFunc("GET /parts.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/parts.js") })
	mux.HandleFunc("GET /v1/nodes", f.serveNodes)
	mux.HandleFunc("GET /v1/stretches", f.serveStretches)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			f.asked.Add(1)
			f.open.Add(1)
			defer f.open.Add(-1)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// show opens the dashboard of it, signed in.
func (f *fake) show(t testing.TB) *Page {
	url := f.serve(t)
	p := NewPage(t) // is closed first
	p.Go(url + dash.Prefix)
	p.Heading("Sign in")
	p.Eval(`sessionStorage.setItem("grid-token", "made-up")`)
	p.Go(url + dash.Prefix + "?#/map")
	p.Heading("Swarm map")
	return p
}

func (f *fake) id(i int) string { return fmt.Sprintf("12D3KooW%036x%08x", i, uint32(i)*2654435761) }

// speed is how busy a node is, so that the picture is not dull.
func (f *fake) speed(i int) float64 { return 0.35 + 0.65*rand.New(rand.NewPCG(uint64(i), 1)).Float64() }

func (f *fake) pulse(i int, now time.Time) grid.Pulse {
	ran := float64(f.tasks) / float64(f.nodes) * (now.Sub(f.began).Seconds() + f.history.Seconds()) / f.history.Seconds() * f.speed(i)
	rng := rand.New(rand.NewPCG(uint64(i), uint64(now.Unix()/2)))
	p := grid.Pulse{
		Node: f.id(i), Version: "1.0.0", At: now, Started: f.began.Add(-time.Hour - time.Duration(i)*time.Minute), State: "up", Leader: i == 1,
		Load: grid.Load{Queued: uint64(rng.IntN(40)), Running: min(f.slots, int(f.speed(i)*float64(f.slots+1)*(0.8+0.4*rng.Float64()))), Slots: f.slots}, Jobs: 1,
		Ran: uint64(ran), Failed: uint64(ran / 90), Stolen: uint64(ran / 4), P50: time.Duration(20+rng.IntN(9)) * time.Millisecond, P99: time.Duration(200+rng.IntN(90)) * time.Millisecond,
		BytesIn: uint64(ran * 1e5), BytesOut: uint64(ran * 7e4), Disk: 5 << 30, Quota: 50 << 30, Memory: uint64(300+rng.IntN(40)) << 20, Goroutines: 90,
	}
	if i%3 == 0 {
		p.Name = fmt.Sprintf("machine-%02d", i)
	}
	if i == 0 && f.name != "" {
		p.Name = f.name
	}
	if len(f.zones) > 0 {
		p.Zone = f.zones[i%len(f.zones)]
	}
	switch {
	case i%17 == 5:
		p.State = "draining"
	case i%29 == 7:
		p.State, p.Error = "silent", "it does not answer"
	}
	for k := range min(f.nodes-1, 6) {
		other := (i + 1 + k*k) % f.nodes
		kind, rtt := "tcp", time.Duration(200+700*k*k)*time.Microsecond
		if len(f.zones) > 1 && other%len(f.zones) != i%len(f.zones) {
			rtt = time.Duration(12+8*k) * time.Millisecond
			if k == 3 {
				kind = "relay"
			}
		}
		p.Links = append(p.Links, grid.PulseLink{Node: f.id(other), RTT: rtt, Transport: kind})
		if k < 2 {
			p.Steals = append(p.Steals, grid.Flow{From: f.id(other), Tasks: p.Stolen / 2})
		}
	}
	return p
}

func (f *fake) serveNodes(w http.ResponseWriter, r *http.Request) {
	e := events{w}
	some := f.nodes // of each round; with many nodes, each is asked less often
	for from := 0; ; from = (from + some) % f.nodes {
		var list []grid.Pulse
		now := time.Now()
		for i := range some {
			list = append(list, f.pulse((from+i)%f.nodes, now))
		}
		e.send(list)
		some = min(some, 200)
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// serveStretches tells what ran, no finer than was asked for.
func (f *fake) serveStretches(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	since, err := time.Parse(time.RFC3339, q.Get("since"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	until := time.Now()
	if u, err := time.Parse(time.RFC3339, q.Get("until")); err == nil && u.Before(until) {
		until = u
	}
	limit, _ := strconv.Atoi(q.Get("limit"))
	fine, _ := strconv.Atoi(q.Get("resolution"))
	e := events{w}
	send := func(since, until time.Time) {
		for gap := max(time.Duration(fine)*time.Millisecond, time.Millisecond); ; gap *= 4 {
			all := f.stretches(q.Get("node"), grid.JobID(q.Get("job")), since, until, gap)
			if len(all) > limit && gap < f.history {
				continue
			}
			all = all[max(0, len(all)-limit):]
			for _, s := range all {
				e.write(s)
			}
			e.flush()
			return
		}
	}
	send(since, until)
	if q.Get("follow") == "" {
		fmt.Fprint(w, "event: end\ndata: {}\n\n")
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
		now := time.Now()
		send(until, now)
		until = now
	}
}

// stretches makes up what ran.
func (f *fake) stretches(node string, job grid.JobID, since, until time.Time, gap time.Duration) []grid.Stretch {
	var out []grid.Stretch
	each := f.history * time.Duration(f.nodes*f.slots) / time.Duration(f.tasks) // from one task of a slot to the next
	for i := range f.nodes {
		if node != "" && node != f.id(i) {
			continue
		}
		speed := f.speed(i)
		for slot := range f.slots {
			offset := time.Duration((i*7919+slot*104729)%1000) * each / 1000
			start := f.began.Add(-f.history + offset)
			first := max(0, int64(since.Sub(start)/each))
			var s *grid.Stretch
			for n := first; ; n++ {
				x := uint64(n*2654435761 + int64(i*97+slot*31))
				from := start.Add(time.Duration(n) * each)
				to := from.Add(time.Duration((0.3 + 0.65*float64(x>>7%97)/97*speed) * float64(each)))
				if to.After(until) {
					break
				}
				if to.Before(since) || (n/9)%7 == int64(i%7) { // now and then there is nothing to do
					continue
				}
				k := int(n/23+int64(i/5)) % len(f.jobs)
				id, stage := f.jobs[k].ID, uint32(n/11%2)
				if job != "" && job != id {
					continue
				}
				long := to.Sub(from)
				failed, ph := uint32(0), grid.Phases{Fetch: long / 8, Compile: long / 20, Queue: long / 30, Start: long / 40, Run: long * 6 / 10, Store: long / 12}
				if x>>3%83 == 0 {
					failed = 1
				}
				if s != nil && s.Job == id && s.Stage == stage && from.Sub(s.To) < gap {
					s.To, s.Hi = to, uint32(n+1)
					s.Tasks++
					s.Failed += failed
					s.Phases.Fetch += ph.Fetch
					s.Phases.Run += ph.Run
					continue
				}
				out = append(out, grid.Stretch{Node: f.id(i), Slot: slot, Job: id, Stage: stage, Lo: uint32(n), Hi: uint32(n + 1), Tasks: 1, Failed: failed, From: from, To: to, Phases: ph, Stolen: x>>5%5 == 0})
				s = &out[len(out)-1]
			}
		}
	}
	return out
}

// events writes server-sent events.
type events struct{ w http.ResponseWriter }

func (e events) write(v any) {
	e.w.Header().Set("Content-Type", "text/event-stream")
	data, _ := json.Marshal(v)
	fmt.Fprintf(e.w, "data: %s\n\n", data)
}

func (e events) flush() { e.w.(http.Flusher).Flush() }

func (e events) send(v any) {
	e.write(v)
	e.flush()
}
