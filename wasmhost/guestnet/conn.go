package guestnet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// conn is a connection of one guest's, for one exchange after another. It counts the bytes of HTTP and
// holds them to the guest's limits.
type conn struct {
	net.Conn
	key  string // of State.idle: what it is connected to
	s    *State
	in   *bufio.Reader
	head int64 // how many bytes of a response's head may still be read; negative without a bound
	used bool  // something was read in this exchange

	refused error // why a Write was not done, for the guest's limit
}

func newConn(s *State, nc net.Conn, key string) *conn {
	c := &conn{Conn: nc, key: key, s: s}
	c.in = bufio.NewReader(c)
	return c
}

// Read implements io.Reader for in.
func (c *conn) Read(b []byte) (int, error) {
	l := &c.s.net.cfg.Limits
	if c.head == 0 {
		return 0, failf(efbig, "the headers of the response have more than %d bytes", l.Header)
	}
	left := l.Total - c.s.used.total()
	if left <= 0 {
		return 0, c.s.spent()
	}
	if left = min(left, int64(len(b))); c.head > 0 {
		left = min(left, c.head)
	}
	n, err := c.Conn.Read(b[:left])
	c.s.used.Received += int64(n)
	if c.head > 0 {
		c.head -= int64(n)
	}
	c.used = c.used || n > 0
	return n, err
}

// Write implements io.Writer for requests.
func (c *conn) Write(b []byte) (int, error) {
	if int64(len(b)) > c.s.net.cfg.Limits.Total-c.s.used.total() {
		c.refused = c.s.spent()
		return 0, c.refused
	}
	n, err := c.Conn.Write(b)
	c.s.used.Sent += int64(n)
	return n, err
}

// drop closes the connection without a farewell, for which TLS could have to wait.
func (c *conn) drop() {
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.Conn.Close()
}

// watch makes reads and writes fail once ctx is over. stop ends that, and tells whether they still work.
func (c *conn) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

// exchange sends a request and reads the head of the response.
func (c *conn) exchange(r *request) (*http.Response, error) {
	c.used, c.head = false, int64(c.s.net.cfg.Limits.Header)
	q := &http.Request{Method: r.method, URL: r.url, Host: r.url.Host, Header: r.header, ContentLength: int64(len(r.body))}
	if len(r.body) > 0 { // without one, net/http says Content-Length: 0 where that is called for
		q.Body = io.NopCloser(bytes.NewReader(r.body))
	}
	w := bufio.NewWriter(c)
	werr := q.Write(w)
	if werr == nil {
		werr = w.Flush()
	}
	if c.refused != nil { // which net/http may have wrapped beyond recognition
		return nil, c.refused
	}
	// A server may answer before it has read the body, and close.
	resp, err := c.response(q)
	if err != nil && werr != nil {
		err = werr
	}
	if werr != nil && err == nil {
		resp.Close = true
	}
	return resp, err
}

// response reads the head of a response, past those that only say that there is more to come.
func (c *conn) response(q *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(c.in, q)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode < 100:
			return nil, failf(eio, "%s answered with status %d, which was not asked for", c.key, resp.StatusCode)
		case resp.StatusCode >= 200:
			c.head = -1
			return resp, nil
		}
	}
}

// response is what a guest reads: the head in the format of docs/abi.md, then the body.
type response struct {
	s      *State
	conn   *conn // nil when it is not needed any more
	ctx    context.Context
	cancel context.CancelFunc
	stop   func() bool
	again  bool // the connection may serve another exchange
	status int
	header http.Header
	head   []byte // both, as guests read them
	body   io.Reader
	left   int64 // bytes that the body may still have
	end    error // what reads give from now on
}

// Read implements io.Reader.
func (r *response) Read(b []byte) (int, error) {
	switch {
	case r.end != nil:
		return 0, r.s.note(r.end)
	case len(r.head) > 0:
		n := copy(b, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	n := 0
	var err error
	if r.left > 0 {
		n, err = r.body.Read(b[:min(int64(len(b)), r.left)])
		r.left -= int64(n)
	} else if n, err = r.body.Read(make([]byte, 1)); n > 0 { // is that all?
		n, err = 0, r.s.tooLong()
	}
	if err == nil {
		return n, nil
	}
	if r.end = io.EOF; err != io.EOF {
		r.end = r.s.explain(r.ctx, "the response was cut short", err)
	}
	r.release(err == io.EOF)
	if n > 0 {
		return n, nil
	}
	return 0, r.s.note(r.end)
}

// release lets go of the connection, which can be used again only if all of the response was read.
func (r *response) release(whole bool) {
	if r.conn == nil {
		return
	}
	alive := r.stop()
	r.cancel()
	if whole && alive && r.again && r.conn.in.Buffered() == 0 {
		r.s.keep(r.conn)
	} else {
		r.conn.drop()
	}
	r.conn = nil
}

// Close implements io.Closer. It may be called twice.
func (r *response) Close() error {
	r.release(false)
	r.end = errClosed
	delete(r.s.open, r)
	return nil
}

var errClosed = errors.New("guestnet: the response is closed")

// encodeHead writes a response's status and headers as guests read them: names in lower case and in
// order, values on one line.
func encodeHead(resp *http.Response) []byte {
	_, reason, _ := strings.Cut(resp.Status, " ")
	b := append([]byte(nil), resp.Status[:3]...)
	b = append(b, ' ')
	b = append(appendLine(b, reason), '\n')
	names := make([]string, 0, len(resp.Header))
	for name := range resp.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range resp.Header[name] {
			b = append(b, strings.ToLower(name)...)
			b = append(b, ": "...)
			b = append(appendLine(b, value), '\n')
		}
	}
	return append(b, '\n')
}

// appendLine appends s with a space for each control character, so that it stays on its line.
func appendLine(b []byte, s string) []byte {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			c = ' '
		}
		b = append(b, c)
	}
	return b
}
