package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (s *Server) watchingRoutes(route func(string, func(http.ResponseWriter, *http.Request) error)) {
	route("GET /nodes", s.nodes)
	route("GET /stretches", s.stretches)
	route("GET /events", s.realmEvents)
}

// nodes tells of all nodes of the realm: in one list, or in list after list to who follows.
func (s *Server) nodes(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	every, err := numberIn(q, "every", uint64(grid.MaxFollow/time.Second))
	if err != nil {
		return err
	}
	if q.Get("follow") == "" {
		list, err := s.Node.Nodes(r.Context())
		if err != nil {
			return err
		}
		out := newStream(w, r)
		return out.end(out.send(list))
	}
	out := newStream(w, r)
	return out.end(s.Node.FollowNodes(r.Context(), time.Duration(max(every, 1))*time.Second, func(list []grid.Pulse) error { return out.sendNow(list) }))
}

func (s *Server) stretches(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := grid.StretchQuery{Job: grid.JobID(v.Get("job")), Follow: v.Get("follow") != ""}
	var err error
	if q.Since, err = timeIn(v, "since"); err != nil {
		return err
	}
	if q.Until, err = timeIn(v, "until"); err != nil {
		return err
	}
	if text := v.Get("node"); text != "" {
		if q.Node, err = grid.ParseNodeID(text); err != nil {
			return err
		}
	}
	ms, err := numberIn(v, "resolution", uint64(24*time.Hour/time.Millisecond))
	if err != nil {
		return err
	}
	limit, err := numberIn(v, "limit", grid.MaxStretches)
	if err != nil {
		return err
	}
	q.Resolution, q.Limit = time.Duration(ms)*time.Millisecond, int(limit)
	if q.Job != "" {
		if q.Job, err = s.Node.FindJob(r.Context(), q.Job); err != nil {
			return err
		}
	}
	if err := q.Check(); err != nil {
		return err
	}
	out := newStream(w, r)
	send := out.sender(q.Follow)
	return out.end(s.Node.Stretches(r.Context(), q, func(st grid.Stretch) error { return send(st) }))
}

// realmEvents tells of the realm, or of one job. The id of an event is its time, with which a reader goes on.
func (s *Server) realmEvents(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := grid.EventQuery{Job: grid.JobID(v.Get("job")), Room: v.Get("room"), Follow: v.Get("follow") != ""}
	var err error
	if q.Since, err = timeIn(v, "since"); err != nil {
		return err
	}
	if text := lastEvent(r); text != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return grid.Errorf(grid.Invalid, "%s: %.40q is not that of an event", headerLastEvent, text)
		}
	}
	if q.Job != "" {
		if q.Job, err = s.Node.FindJob(r.Context(), q.Job); err != nil {
			return err
		}
	}
	if err := q.Check(); err != nil {
		return err
	}
	out := newStream(w, r)
	send := out.sender(q.Follow)
	return out.end(s.Node.RealmEvents(r.Context(), q, func(ev grid.RealmEvent) error {
		return send(ev, ev.At.UTC().Format(time.RFC3339Nano))
	}))
}

// timeIn reads a time of RFC 3339; zero: there is none.
func timeIn(q url.Values, name string) (time.Time, error) {
	text := q.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, grid.Errorf(grid.Invalid, "%s=%.40q is not a time", name, text).Hint("write it as RFC 3339 has it, such as 2006-01-02T15:04:05Z")
	}
	return t, nil
}

// numberIn reads a number; 0: there is none.
func numberIn(q url.Values, name string, most uint64) (uint64, error) {
	if q.Get(name) == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 64)
	if err != nil || n > most {
		return 0, grid.Errorf(grid.Invalid, "%s=%.40q: want a number up to %d", name, q.Get(name), most)
	}
	return n, nil
}

// Nodes tells how each node of the realm is, as it says itself; of one that does not answer, what was known last.
func (c *Client) Nodes(ctx context.Context) ([]grid.Pulse, error) {
	return get[[]grid.Pulse](ctx, c, "/nodes")
}

// FollowNodes calls f with all nodes of the realm, and then, every so often, in whole seconds, with those of which something was heard
// since. It ends with ctx, the node, or an error of f.
func (c *Client) FollowNodes(ctx context.Context, every time.Duration, f func([]grid.Pulse) error) error {
	every = min(max(every, time.Second), grid.MaxFollow)
	return streamOf(ctx, c, "/nodes", url.Values{"follow": {"1"}, "every": {strconv.Itoa(int(every / time.Second))}}, f)
}

// Stretches calls f for what worker slots ran, by time; with Follow it goes on with what ends. An error of f ends it.
func (c *Client) Stretches(ctx context.Context, q grid.StretchQuery, f func(grid.Stretch) error) error {
	v := url.Values{}
	set := func(name, value string, is bool) {
		if is {
			v.Set(name, value)
		}
	}
	set("since", q.Since.UTC().Format(time.RFC3339Nano), !q.Since.IsZero())
	set("until", q.Until.UTC().Format(time.RFC3339Nano), !q.Until.IsZero())
	set("node", q.Node.String(), q.Node != "")
	set("job", string(q.Job), q.Job != "")
	set("resolution", strconv.FormatInt(q.Resolution.Milliseconds(), 10), q.Resolution > 0)
	set("limit", strconv.Itoa(q.Limit), q.Limit > 0)
	set("follow", "1", q.Follow)
	return streamOf(ctx, c, "/stretches", v, f)
}

// RealmEvents calls f for each event of the realm, or of a job, that is kept, the oldest first; with Follow also for those to come, and
// it goes on where it was when the connection is lost. An error of f ends it.
func (c *Client) RealmEvents(ctx context.Context, q grid.EventQuery, f func(grid.RealmEvent) error) error {
	v := url.Values{}
	for name, value := range map[string]string{"job": string(q.Job), "room": q.Room} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	return followed(ctx, c, "/events", v, q.Follow, f)
}

// followed calls f for each value of a stream whose events have ids: resumed, if it is for one who follows.
func followed[T any](ctx context.Context, c *Client, path string, q url.Values, follow bool, f func(T) error) error {
	if follow {
		return resumed(ctx, c, path, q, f)
	}
	return streamOf(ctx, c, path, q, f)
}

// streamOf calls f for each line of an answer.
func streamOf[T any](ctx context.Context, c *Client, path string, q url.Values, f func(T) error) error {
	resp, err := c.do(ctx, http.MethodGet, path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return lines(resp, f)
}
