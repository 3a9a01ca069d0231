package guestnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// State is one guest's part of the network. Like a wasi.State it is for one call into a guest at a time,
// and is reused by Reset. The zero State has no network.
type State struct {
	net    *Net // nil: no network
	grants []grid.Target
	used   Usage
	denied string
	open   map[*response]struct{}
	idle   []*conn // the longest idle first
}

// Usage is what a guest has used. Bytes are those of HTTP/1.1, inside of TLS.
type Usage struct {
	Requests       int // also those that were refused
	Sent, Received int64
}

func (u Usage) total() int64 { return u.Sent + u.Received }

// maxIdle bounds the connections that a guest keeps.
const maxIdle = 4

// Reset makes the state that of a new guest with these grants. What the one before had open is closed.
// Without a Net, or without grants, the guest has no network. Errors are Invalid, for a grant that
// [grid.ParseNetGrant] would not give; the state is then that of a guest without network.
func (s *State) Reset(n *Net, grants []string) error {
	for r := range s.open {
		r.Close()
	}
	for _, c := range s.idle {
		c.drop()
	}
	*s = State{}
	if len(grants) > grid.MaxNetGrants {
		return grid.Errorf(grid.Limit, "guestnet: %d network grants, at most %d are allowed", len(grants), grid.MaxNetGrants)
	}
	targets := make([]grid.Target, len(grants))
	for i, g := range grants {
		t, err := grid.NetGrant(g).Target()
		if err != nil {
			return err
		}
		targets[i] = t
	}
	s.net, s.grants = n, targets
	return nil
}

// Used tells what the guest has used so far.
func (s *State) Used() Usage { return s.used }

// Denied is the first message about a request that was refused for want of a grant or by the node's
// policy, or "": what to tell a person whose guest has failed.
func (s *State) Denied() string { return s.denied }

// Key finds a guest's *State in the context of a call.
type Key struct{}

// Response is what came of a request.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser // to be closed
}

// Fetch makes a request for another host function. Head is a line "METHOD URL" and a line "NAME: VALUE" for each header,
// without a newline at the end; the body is not kept. The error's text is for people; [State.Denied] tells whether it
// is for want of a grant.
func (s *State) Fetch(ctx context.Context, head string, body []byte) (*Response, error) {
	r, err := s.perform(ctx, func(l Limits) (*request, error) {
		if len(head) > l.Header {
			return nil, tooLongHead(l)
		}
		return compose(head, body, l)
	})
	if err != nil {
		return nil, err
	}
	r.head = nil
	return &Response{r.status, r.header, r}, nil
}

// fetch makes a request that is in a guest's memory, head and body. Its errors are failures.
func (s *State) fetch(ctx context.Context, in []byte) (io.ReadCloser, error) {
	return s.perform(ctx, func(l Limits) (*request, error) { return decode(in, l) })
}

// perform makes a request. Its errors are failures.
func (s *State) perform(ctx context.Context, decode func(Limits) (*request, error)) (*response, error) {
	if s.net == nil {
		s.net = nowhere
	}
	l := &s.net.cfg.Limits
	if s.used.Requests >= l.Requests {
		return nil, s.note(failf(edquot, "the task has made %d requests, its limit", s.used.Requests))
	}
	s.used.Requests++
	r, err := decode(*l)
	if err != nil {
		return nil, s.note(err)
	}
	if len(s.open) >= l.Open {
		return nil, s.note(failf(emfile, "%d responses are open, the limit: close one", len(s.open)))
	}
	if s.used.total() >= l.Total {
		return nil, s.note(s.spent())
	}
	if r.header.Get("User-Agent") == "" {
		r.header.Set("User-Agent", "wasmgrid")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.Timeout, errTimeout)
	resp, err := s.send(ctx, r)
	if err != nil {
		cancel()
		return nil, s.note(s.explain(ctx, "the exchange with "+r.grant()+" failed", err))
	}
	resp.cancel = cancel
	if s.open == nil {
		s.open = map[*response]struct{}{}
	}
	s.open[resp] = struct{}{}
	return resp, nil
}

var (
	errTimeout = errors.New("guestnet: the request takes too long")
	nowhere    = &Net{Config{Policy: None, Limits: DefaultLimits}}
)

// send finds or makes a connection and has the exchange on it. The grants are looked at in any case; the
// addresses were, when the connection was made.
func (s *State) send(ctx context.Context, r *request) (*response, error) {
	key := r.url.Scheme + "://" + r.grant()
	if c := s.take(key, r); c != nil {
		resp, err := s.converse(ctx, c, r)
		if err == nil || c.used || ctx.Err() != nil || errors.As(err, new(*failure)) {
			return resp, err
		}
		// The server had closed it, most likely, before it saw the request.
	}
	addrs, err := s.net.destinations(ctx, r, s.grants)
	if err != nil {
		return nil, err
	}
	nc, err := s.net.dial(ctx, r, addrs)
	if err != nil {
		return nil, err
	}
	return s.converse(ctx, newConn(s, nc, key), r)
}

// converse has one exchange on a connection, which it owns.
func (s *State) converse(ctx context.Context, c *conn, r *request) (*response, error) {
	stop := c.watch(ctx)
	resp, err := c.exchange(r)
	if err == nil && r.method != http.MethodHead && resp.ContentLength > s.net.cfg.Limits.Response {
		err = s.tooLong()
	}
	if err != nil {
		stop()
		c.drop()
		return nil, err
	}
	return &response{
		s: s, conn: c, ctx: ctx, stop: stop, again: !resp.Close,
		status: resp.StatusCode, header: resp.Header, head: encodeHead(resp), body: resp.Body, left: s.net.cfg.Limits.Response,
	}, nil
}

// take finds an idle connection. A request that must not be sent twice gets a new one: that the server
// has closed an idle one shows only when it is used.
func (s *State) take(key string, r *request) *conn {
	i := slices.IndexFunc(s.idle, func(c *conn) bool { return c.key == key })
	if i < 0 || !slices.Contains(idempotent, r.method) {
		return nil
	}
	c := s.idle[i]
	s.idle = slices.Delete(s.idle, i, i+1)
	return c
}

// keep puts a connection by for the guest's next request.
func (s *State) keep(c *conn) {
	if len(s.idle) == maxIdle {
		s.idle[0].drop()
		s.idle = slices.Delete(s.idle, 0, 1)
	}
	s.idle = append(s.idle, c)
}

func (s *State) spent() error {
	return failf(edquot, "the task has sent %d and received %d bytes, its limit is %d together", s.used.Sent, s.used.Received, s.net.cfg.Limits.Total)
}

func (s *State) tooLong() error {
	return failf(efbig, "the response has more than %d bytes, the limit", s.net.cfg.Limits.Response)
}

// explain makes a failure of an error.
func (s *State) explain(ctx context.Context, what string, err error) error {
	var f *failure
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		return failf(etimedout, "%s: it took longer than %v, the limit", what, s.net.cfg.Limits.Timeout)
	case errors.As(err, &f):
		return f
	}
	return failf(eio, "%s: %s", what, plain(err))
}

// note remembers what was denied, and gives the failure back.
func (s *State) note(err error) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	if f.denied && s.denied == "" {
		s.denied = wasi.Clip(f.message)
	}
	return f
}

// String tells what was used, for logs.
func (u Usage) String() string {
	return fmt.Sprintf("%d requests, %d bytes sent, %d received", u.Requests, u.Sent, u.Received)
}
