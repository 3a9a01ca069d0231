package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// NodeLog is a node's own log.
type NodeLog interface {
	// Levels tells from which level on what is logged.
	Levels() grid.LogLevels
	// SetLevels changes levels: that of all others, if it is not "", and those of the rooms that are named. "" has a room go with the others.
	SetLevels(grid.LogLevels) error
	// Records calls f for records that are kept, the oldest first, and with Follow for those to come. An error of f ends it.
	Records(ctx context.Context, q grid.RecordQuery, f func(grid.LogRecord) error) error
}

func (s *Server) logRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	route("GET /jobs/{id}/logs", s.jobLogs)
	if s.Log == nil {
		return
	}
	route("GET /node/log", s.nodeLog)
	route("GET /node/log-levels", func(w http.ResponseWriter, r *http.Request) error {
		return reply(w, s.Log.Levels(), nil)
	})
	route("PUT /node/log-levels", func(w http.ResponseWriter, r *http.Request) error {
		var levels grid.LogLevels
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLevelsJSON))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&levels); err != nil {
			return grid.Errorf(grid.Invalid, "log levels: %w", err).Hint(`such as {"default":"info","rooms":{"p2p":"debug"}}`)
		}
		err := s.Log.SetLevels(levels)
		return reply(w, s.Log.Levels(), err)
	})
}

const maxLevelsJSON = 64 << 10

func (s *Server) jobLogs(w http.ResponseWriter, r *http.Request) error {
	id, err := s.Node.FindJob(r.Context(), jobID(r))
	if err != nil {
		return err
	}
	v := r.URL.Query()
	q := grid.LogQuery{Node: v.Get("node"), Stream: v.Get("stream"), Grep: v.Get("grep"), Follow: v.Get("follow") != ""}
	if q.Stage, err = numberOf(v, "stage"); err != nil {
		return err
	}
	if q.Task, err = numberOf(v, "task"); err != nil {
		return err
	}
	if q.Since, q.Limit, err = sinceAndLimit(v); err != nil {
		return err
	}
	q.After, q.Places = lastEvent(r), wantsEvents(r)
	if err := q.Check(id); err != nil { // before the answer begins
		return err
	}
	out := gathering{stream: newStream(w, r)}
	defer out.stop()
	return out.end(s.Node.Logs(r.Context(), id, q, func(l grid.LogLine) error {
		if l.Place == "" {
			return out.send(l)
		}
		return out.send(l, l.Place)
	}))
}

// gathering is a stream whose values wait a moment for others, so that there may be many of them a second.
type gathering struct {
	mu     sync.Mutex
	stream *stream
	timer  *time.Timer // flushes; nil: nothing waits
}

const gatherFor = 50 * time.Millisecond

func (g *gathering) send(v any, id ...string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil {
		g.timer = time.AfterFunc(gatherFor, g.flush)
	}
	return g.stream.send(v, id...)
}

func (g *gathering) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		flush(g.stream.w)
		g.timer = nil
	}
}

// end is [stream.end].
func (g *gathering) end(err error) error {
	g.stop()
	return g.stream.end(err)
}

// stop has nothing be flushed any more. It must be called before the answer ends, also by a panic.
func (g *gathering) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil // one that runs by now does nothing
	}
}

func (s *Server) nodeLog(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := grid.RecordQuery{Level: v.Get("level"), Room: v.Get("room"), Grep: v.Get("grep"), Follow: v.Get("follow") != ""}
	var err error
	if q.Since, q.Limit, err = sinceAndLimit(v); err != nil {
		return err
	}
	if last := lastEvent(r); last != "" {
		if q.After, err = strconv.ParseUint(last, 10, 64); err != nil {
			return grid.Errorf(grid.Invalid, "%s: %.40q is not that of a record", headerLastEvent, last)
		}
	}
	if err := q.Check(); err != nil { // before the answer begins
		return err
	}
	out := gathering{stream: newStream(w, r)}
	defer out.stop()
	return out.end(s.Log.Records(r.Context(), q, func(rec grid.LogRecord) error {
		return out.send(rec, strconv.FormatUint(rec.ID, 10))
	}))
}

// numberOf reads a number that may be left out.
func numberOf(v url.Values, name string) (*uint32, error) {
	if !v.Has(name) {
		return nil, nil
	}
	n, err := strconv.ParseUint(v.Get(name), 10, 32)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "%s=%.40q: want a number", name, v.Get(name))
	}
	return new(uint32(n)), nil
}

func sinceAndLimit(v url.Values) (since time.Time, limit int, err error) {
	if text := v.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return since, 0, grid.Errorf(grid.Invalid, "since=%.40q is no time", text).Hint("such as 2006-01-02T15:04:05Z")
		}
	}
	n, err := numberOf(v, "limit")
	if n != nil {
		limit = int(*n)
	}
	return since, limit, err
}

func setText(v url.Values, name, text string) {
	if text != "" {
		v.Set(name, text)
	}
}

// sharedQuery is what both kinds of logs are asked with.
func sharedQuery(grep string, since time.Time, follow bool, limit int) url.Values {
	v := url.Values{}
	setText(v, "grep", grep)
	if !since.IsZero() {
		v.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	if follow {
		v.Set("follow", "1")
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return v
}

// Logs calls f for lines that a job's tasks printed, as [grid.Node.Logs] does. With Follow it goes on where it was when the connection is
// lost. An error of f ends it.
func (c *Client) Logs(ctx context.Context, id grid.JobID, q grid.LogQuery, f func(grid.LogLine) error) error {
	v := sharedQuery(q.Grep, q.Since, q.Follow, q.Limit)
	if q.Stage != nil {
		v.Set("stage", strconv.FormatUint(uint64(*q.Stage), 10))
	}
	if q.Task != nil {
		v.Set("task", strconv.FormatUint(uint64(*q.Task), 10))
	}
	setText(v, "node", q.Node)
	setText(v, "stream", q.Stream)
	return followed(ctx, c, "/jobs/"+string(id)+"/logs", v, q.Follow, f)
}

// NodeLog calls f for records of the node's own log, the oldest first; with Follow, also for those to come, and it goes on where it was when
// the connection is lost. An error of f ends it.
func (c *Client) NodeLog(ctx context.Context, q grid.RecordQuery, f func(grid.LogRecord) error) error {
	v := sharedQuery(q.Grep, q.Since, q.Follow, q.Limit)
	setText(v, "level", q.Level)
	setText(v, "room", q.Room)
	return followed(ctx, c, "/node/log", v, q.Follow, f)
}

// LogLevels tells from which level on the node logs.
func (c *Client) LogLevels(ctx context.Context) (grid.LogLevels, error) {
	return get[grid.LogLevels](ctx, c, "/node/log-levels")
}

// SetLogLevels changes that, until the node ends: the default if there is one, and the rooms that are named. It returns what they are then.
func (c *Client) SetLogLevels(ctx context.Context, levels grid.LogLevels) (now grid.LogLevels, err error) {
	return now, c.put(ctx, "/node/log-levels", levels, &now)
}
