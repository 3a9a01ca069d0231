package api

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Server answers the API for one node. All fields but Store, Swarm, Refusals, and those from ArchiveOver on
// are required.
type Server struct {
	Node     *grid.Node
	Archive  grid.Archive
	Surveyor grid.Surveyor
	Describe func(context.Context) (grid.NodeStatus, error)
	Shutdown func()                // begins an orderly stop and returns at once
	Store    Store                 // nil: there are no routes for it
	Swarm    Swarm                 // nil: the node is in an open one
	Refusals func() []grid.Refusal // what peers were refused; nil: nobody counts
	Logger   *slog.Logger

	// ArchiveOver is an Archive of other blocks, so that the gateway fetches only those that it gives out. nil:
	// whole DAGs are fetched.
	ArchiveOver func(grid.Blocks) grid.Archive
	Reach       func() grid.Reach // nil: the node has no network

	Tokens    *grid.TokenBook   // for [Server.Remote]; nil: the API is not served over the network
	Endpoints func() []Endpoint // where it is; nil: nowhere

	Log NodeLog // nil: there are no routes for it

	Registry *prometheus.Registry // of what is measured of the node; nil: one of the server's own
	Parts    []Part               // of the node that are measured, besides what the server does

	// Bench measures the node; nil: there is no route for it.
	Bench func(ctx context.Context, quick bool, each func(grid.Measured) error) error

	Tracer trace.Tracer // of requests that are part of a trace; nil: they are not traced

	watches  atomic.Int64 // of the user's keys that are open
	benching sync.Mutex   // held while the node is measured
	firsts   firsts
	measure  sync.Once
	measured measured
}

// Handler routes requests. Whoever can reach it may do everything: guard the transport.
func (s *Server) Handler() http.Handler {
	rooms := newClasses()
	return s.routes(&rooms, func(_ string, h http.Handler) http.Handler { return h })
}

// routes routes requests, each route of the table wrapped by guard, which is told its pattern.
func (s *Server) routes(rooms *classes, guard func(pattern string, h http.Handler) http.Handler) http.Handler {
	mux, m := http.NewServeMux(), s.measuring()
	answers := s.answers()
	for i := range table {
		pattern := table[i].pattern
		h := answers[pattern]
		if h == nil {
			continue // not on this server
		}
		delete(answers, pattern)
		if table[i].once {
			h = s.once(pattern, h)
		}
		at := pattern
		if !outside[pattern] {
			method, p, _ := strings.Cut(pattern, " ")
			at, h = method+" "+prefix+p, s.inRoom(rooms.of(pattern), m, h)
		}
		if s.Tracer != nil {
			h = s.traced(at, h)
		}
		mux.Handle(at, guard(pattern, h))
	}
	for pattern := range answers {
		panic("api: the table of routes does not know " + pattern)
	}
	return mux
}

// inRoom has requests wait for room, and measures them.
func (s *Server) inRoom(room *class, m *measured, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw, began := &statusWriter{ResponseWriter: w}, time.Now()
		defer func() { m.answered(room.what, r, sw.status, time.Since(began)) }()
		leave, err := room.enter(r.Context())
		if err != nil {
			s.fail(sw, r, err)
			return
		}
		defer leave()
		h.ServeHTTP(sw, r)
	})
}

// answers are who answers the routes that this server has, by their patterns.
func (s *Server) answers() map[string]http.Handler {
	all := make(map[string]http.Handler, len(table))
	route := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		all[pattern] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sw := &statusWriter{ResponseWriter: w}
			if err := f(sw, r); err != nil {
				s.fail(sw, r, err)
			}
		})
	}
	route("GET /openapi.json", s.openapi)
	route("GET /access", access)
	route("GET /node", func(w http.ResponseWriter, r *http.Request) error {
		st, err := s.Describe(r.Context())
		return reply(w, st, err)
	})
	route("POST /shutdown", func(w http.ResponseWriter, r *http.Request) error {
		s.Shutdown()
		return reply(w, struct{}{}, nil)
	})
	route("GET /peers", func(w http.ResponseWriter, r *http.Request) error {
		return reply(w, orEmpty(s.Node.Peers()), nil)
	})
	route("GET /debug/pprof/{name}", s.profile)
	if s.Bench != nil {
		route("POST /bench", s.bench)
	}
	route("POST /add", s.add)
	route("POST /have", s.have)
	route("GET /stat/{cid}/{path...}", s.stat)
	route("GET /ls/{cid}/{path...}", s.list)
	route("GET /cat/{cid}/{path...}", s.cat)
	route("GET /tar/{cid}/{path...}", s.tar)
	route("GET /car/{cid}/{path...}", s.exportCAR)
	route("POST /car", s.importCAR)
	route("GET /survey/{cid}/{path...}", s.survey)
	route("GET /diff", s.diff)
	route("GET /modules/{cid}", func(w http.ResponseWriter, r *http.Request) error {
		c, err := parseRoot(r.PathValue("cid"))
		if err != nil {
			return err
		}
		m, err := s.Node.Inspect(r.Context(), c, r.URL.Query().Get("early") == "")
		return reply(w, m, err)
	})
	s.pinRoutes(route)
	s.ledgerRoutes(route)
	s.pluginRoutes(route)
	s.extensionRoutes(route)
	s.secretRoutes(route)
	s.usageRoutes(route)
	s.storeRoutes(route)
	s.swarmRoutes(route)
	s.auditRoutes(route)
	s.checkupRoutes(route)
	s.logRoutes(route)
	s.tokenRoutes(route)
	s.backupRoutes(route)
	s.watchingRoutes(route)
	route("POST /jobs", s.submit)
	route("GET /jobs", s.jobs)
	route("GET /jobs/{id}/request", s.request)
	route("GET /jobs/{id}", func(w http.ResponseWriter, r *http.Request) error {
		st, err := s.Node.Job(r.Context(), jobID(r))
		return reply(w, st, err)
	})
	route("POST /jobs/{id}/cancel", func(w http.ResponseWriter, r *http.Request) error {
		return reply(w, struct{}{}, s.Node.Cancel(r.Context(), jobID(r)))
	})
	route("DELETE /jobs/{id}", func(w http.ResponseWriter, r *http.Request) error {
		id, err := s.Node.RemoveJob(r.Context(), jobID(r))
		return reply(w, submitted{id}, err)
	})
	route("GET /jobs/{id}/why", func(w http.ResponseWriter, r *http.Request) error {
		e, err := s.Node.Why(r.Context(), jobID(r))
		return reply(w, e, err)
	})
	route("POST /jobs/{id}/verify", s.recheck)
	route("GET /jobs/{id}/watch", s.watch)
	route("GET /jobs/{id}/tasks", s.tasks)
	all["GET "+metricsPath] = s.measuring().handler
	gateway := &Gateway{Blocks: s.Node.Blocks, Archive: s.Archive, Fetcher: s.Node.Fetcher, Logger: s.Logger}
	if s.ArchiveOver != nil {
		gateway.Reading = func(root cid.Cid) grid.Archive { return s.ArchiveOver(s.Node.ReadingBlocks(root)) }
	}
	all[gatewayPrefix+"/"] = gateway.Handler()
	route("/", func(_ http.ResponseWriter, r *http.Request) error {
		return grid.Errorf(grid.NotFound, "no route %s %.200s", r.Method, r.URL.Path).Hint("the API lives under %s; GET %s/openapi.json tells of it", prefix, prefix)
	})
	return all
}

// statusWriter remembers whether the status line was sent, and what it said.
type statusWriter struct {
	http.ResponseWriter
	status int // 0: it was not sent
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status = status; status < http.StatusOK { // more follows
		w.status = 0
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Stopping is the cause by which the context of all requests is to end when a node does. Those who listen are told so: what they have
// had may not be all.
var Stopping error = grid.Errorf(grid.Unavailable, "the node is stopping").
	Hint("its jobs go on with the other nodes of its realm, or once `grid up` has started it again")

// fail sends an error: as a problem document, or in the trailer of an answer that has begun.
func (s *Server) fail(w *statusWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		if context.Cause(r.Context()) != Stopping {
			return // nobody listens any more
		}
		err = Stopping
	}
	writeProblem(w, r, problemOf(err), s.Logger, err)
}

func writeProblem(w *statusWriter, r *http.Request, p problem, log *slog.Logger, err error) {
	if p.Status == http.StatusInternalServerError {
		log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	data, _ := json.Marshal(p)
	if w.status != 0 {
		if w.Header().Get("Content-Type") == eventsType { // a browser does not see the trailer
			_ = writeEvent(w, "error", p)
		}
		w.Header().Set(http.TrailerPrefix+trailerError, string(data))
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(data)
}

func reply(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// orEmpty keeps an empty list from becoming null.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func jobID(r *http.Request) grid.JobID { return grid.JobID(r.PathValue("id")) }

// dag finds what a request names, and files to read it with: what is not here comes from the swarm when it is
// read.
func (s *Server) dag(r *http.Request) (grid.Files, cid.Cid, error) {
	root, err := parseRoot(r.PathValue("cid"))
	if err != nil {
		return nil, cid.Undef, err
	}
	context.AfterFunc(r.Context(), s.Node.Hold(root)) // as long as it is read
	files, err := s.Node.Reading(r.Context(), root)
	if err != nil {
		return nil, cid.Undef, err
	}
	p := strings.Trim(r.PathValue("path"), "/")
	if p == "" {
		return files, root, nil
	}
	c, err := files.Resolve(r.Context(), root, p)
	return files, c, err
}

// look finds what a request names and tells what it is.
func (s *Server) look(r *http.Request) (grid.Files, grid.FileInfo, error) {
	files, c, err := s.dag(r)
	if err != nil {
		return nil, grid.FileInfo{}, err
	}
	info, err := files.Look(r.Context(), c)
	return files, info, err
}

func (s *Server) stat(w http.ResponseWriter, r *http.Request) error {
	files, c, err := s.dag(r)
	if err != nil {
		return err
	}
	info, err := files.Stat(r.Context(), c)
	return reply(w, info, err)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	files, c, err := s.dag(r)
	if err != nil {
		return err
	}
	entries, err := files.List(r.Context(), c)
	return paged(w, r, entries, func(e *grid.FileInfo) string { return e.Name }, err)
}

func (s *Server) cat(w http.ResponseWriter, r *http.Request) error {
	files, info, err := s.look(r)
	if err != nil {
		return err
	}
	c := info.CID.Cid
	switch info.Kind {
	case grid.KindFile:
	case grid.KindSymlink:
		return grid.Errorf(grid.Invalid, "%s is a symlink to %q, not a file", c, info.Target).Hint("name what it leads to, or get the folder that holds both")
	default:
		return grid.Errorf(grid.Invalid, "%s is a folder, not a file", c).Hint("`grid ls` lists a folder, `grid get` copies it")
	}
	f, err := files.Open(r.Context(), c)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("ETag", `"`+c.String()+`"`)
	checked := &errReader{ReadSeekCloser: f}
	http.ServeContent(w, r, "", time.Time{}, checked)
	return checked.err
}

// errReader remembers the error that a copy by ServeContent swallows.
type errReader struct {
	io.ReadSeekCloser
	err error
}

func (r *errReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// tar sends a folder's entries by their paths below it, or a file under its own name.
func (s *Server) tar(w http.ResponseWriter, r *http.Request) error {
	_, info, err := s.look(r)
	if err != nil {
		return err
	}
	c := info.CID.Cid
	if err := s.Node.Ensure(r.Context(), []cid.Cid{c}); err != nil { // all of it is going to be read
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	out := bufio.NewWriterSize(w, chunkSize) // gathers what is small
	tw := tar.NewWriter(out)
	finish := func() error {
		if err := tw.Close(); err != nil {
			return err
		}
		return out.Flush()
	}
	if info.Kind != grid.KindDir {
		if info.Name = path.Base("/" + r.PathValue("path")); info.Name == "/" {
			info.Name = c.String()
		}
		if err := s.tarEntry(r.Context(), tw, info); err != nil {
			return err
		}
		return finish()
	}
	if err := s.tarTree(r.Context(), tw, c, "", 0); err != nil {
		return err
	}
	return finish()
}

const maxDepth = 1000 // of folders in folders; a DAG has no cycles, but may be made absurd

func (s *Server) tarTree(ctx context.Context, tw *tar.Writer, c cid.Cid, base string, depth int) error {
	if depth > maxDepth {
		return grid.Errorf(grid.Limit, "folders are nested more than %d deep", maxDepth)
	}
	entries, err := s.Node.Files.List(ctx, c)
	if err != nil {
		return err
	}
	for _, e := range entries {
		sub := e
		sub.Name = path.Join(base, e.Name)
		if err := s.tarEntry(ctx, tw, sub); err != nil {
			return err
		}
		if e.Kind == grid.KindDir {
			if err := s.tarTree(ctx, tw, e.CID.Cid, sub.Name, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) tarEntry(ctx context.Context, tw *tar.Writer, e grid.FileInfo) error {
	h := &tar.Header{Name: e.Name, Mode: 0o644, Typeflag: tar.TypeReg, Size: e.Size}
	switch {
	case e.Exec:
		h.Mode = 0o755
	case e.Kind == grid.KindDir:
		h.Name, h.Mode, h.Typeflag, h.Size = e.Name+"/", 0o755, tar.TypeDir, 0
	case e.Kind == grid.KindSymlink:
		h.Mode, h.Typeflag, h.Size, h.Linkname = 0o777, tar.TypeSymlink, 0, e.Target
	}
	if err := tw.WriteHeader(h); err != nil {
		return grid.Errorf(grid.CodeOf(err), "archive %s: %w", e.Name, err)
	}
	if e.Kind != grid.KindFile {
		return nil
	}
	f, err := s.Node.Files.Open(ctx, e.CID.Cid)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(tw, f); err != nil {
		return grid.Errorf(grid.CodeOf(err), "archive %s: %w", e.Name, err)
	}
	return nil
}

func (s *Server) submit(w http.ResponseWriter, r *http.Request) error {
	var req grid.Request
	if err := readBody(w, r, "the job request", maxRequestJSON, &req); err != nil {
		return err
	}
	if err := asUser(r, &req); err != nil {
		return err
	}
	req.Traceparent = callerOf(r)
	id, err := s.Node.Submit(r.Context(), req)
	if err == nil {
		trace.SpanFromContext(r.Context()).AddLink(trace.Link{SpanContext: grid.JobSpan(id)})
	}
	return reply(w, submitted{id}, err)
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request) error {
	var out *stream
	err := s.Node.Watch(r.Context(), jobID(r), func(st grid.JobStatus) error {
		if out == nil {
			out = newStream(w, r)
		}
		return out.sendNow(st)
	})
	if out == nil {
		return err
	}
	return out.end(err)
}

func (s *Server) tasks(w http.ResponseWriter, r *http.Request) error {
	id, err := s.Node.FindJob(r.Context(), jobID(r))
	if err != nil {
		return err
	}
	follow := r.URL.Query().Get("follow") != ""
	out := newStream(w, r)
	send := out.sender(follow)
	return out.end(s.Node.Tasks(r.Context(), id, follow, func(t grid.TaskEnd) error { return send(t) }))
}

// recheck runs tasks of a job again.
func (s *Server) recheck(w http.ResponseWriter, r *http.Request) error {
	id, err := s.Node.FindJob(r.Context(), jobID(r))
	if err != nil {
		return err
	}
	q := r.URL.Query()
	var what grid.Recheck
	number := func(name string, most uint64) (uint64, error) {
		n, err := strconv.ParseUint(q.Get(name), 10, 32)
		if err != nil || n > most {
			return 0, grid.Errorf(grid.Invalid, "%s=%.40q: want a number up to %d", name, q.Get(name), most)
		}
		return n, nil
	}
	for _, f := range []struct {
		name string
		most uint64
		to   **uint32
	}{{"stage", grid.MaxStages - 1, &what.Stage}, {"task", grid.MaxTasks - 1, &what.Task}} {
		if q.Has(f.name) {
			n, err := number(f.name, f.most)
			if err != nil {
				return err
			}
			*f.to = new(uint32(n))
		}
	}
	if q.Has("sample") {
		n, err := number("sample", grid.MaxTasks*grid.MaxStages)
		if err != nil {
			return err
		}
		what.Sample = int(n)
	}
	out := newStream(w, r)
	return out.end(s.Node.Recheck(r.Context(), id, what, func(c grid.Rechecked) error { return out.sendNow(c) }))
}
