package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	maxRedirects = 10
	maxErrorBody = 4 << 10
)

func userAgent() string { return "grid/" + grid.Version }

// newTransport makes connections that end when neither side makes progress.
func newTransport(cfg Config) *http.Transport {
	d := net.Dialer{Timeout: cfg.ConnectTimeout}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{conn, cfg.StallTimeout}, nil
		},
		TLSClientConfig:       cfg.TLS,
		TLSHandshakeTimeout:   cfg.ConnectTimeout,
		ResponseHeaderTimeout: cfg.StallTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       cfg.StallTimeout,
		MaxIdleConnsPerHost:   16,
		DisableCompression:    true, // bytes are wanted as they are, and resumed at offsets
	}
}

// stallConn fails when nothing moves on it for a while. Each byte in either direction gives it new time,
// since who sends a large file does not hear from the other side until its end.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// writePiece is how much is written under one deadline.
const writePiece = 64 << 10

func (c *stallConn) Write(p []byte) (n int, err error) {
	for first := true; first || len(p) > 0; first = false {
		if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(p[:min(len(p), writePiece)])
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}

// checkRedirect follows a redirect unless it leads out of TLS or on without end. Credentials stay with the
// host that they are for, and so does the URL that led on: it may hold a signature.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	switch {
	case len(via) > maxRedirects:
		return grid.Errorf(grid.Limit, "%s: more than %d redirects", first.URL.Host, maxRedirects)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return grid.Errorf(grid.Denied, "%s redirects to the scheme %s", last.URL.Host, req.URL.Scheme)
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return grid.Errorf(grid.Denied, "%s redirects from https to http, to %s", last.URL.Host, req.URL.Host).Hint("if that is what you want, give the http URL")
	case req.Method != first.Method:
		return grid.Errorf(grid.Unsupported, "%s redirects in a way that turns %s into %s", last.URL.Host, first.Method, req.Method)
	}
	req.Header.Del("Referer")
	for _, r := range append(via, req) {
		if r.URL.Scheme != first.URL.Scheme || r.URL.Host != first.URL.Host {
			req.Header.Del("Authorization")
		}
	}
	return nil
}

// request makes a request of a URL, whose user and password become a header.
func (c *Client) request(ctx context.Context, method string, u *url.URL, body io.Reader) (*http.Request, error) {
	plain := *u
	plain.User = nil
	req, err := http.NewRequestWithContext(ctx, method, plain.String(), body)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "%s: %w", Ref{web: u}, err)
	}
	req.Header.Set("User-Agent", userAgent())
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	return req, nil
}

// webSource is a file on an HTTP server.
type webSource struct {
	c   *Client
	url *url.URL
}

func (s webSource) ref() Ref { return Ref{web: s.url} }

func (s webSource) get(ctx context.Context, offset int64, version string) (*answer, error) {
	req, err := s.c.request(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 && version != "" { // without one, bytes of two versions might be joined
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		req.Header.Set("If-Range", version)
	}
	resp, err := s.c.web.Do(req)
	if err != nil {
		return nil, s.c.doError(ctx, s.ref(), "read", offset > 0, err)
	}
	a, err := s.answer(resp, offset)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return a, nil
}

// answer makes sense of a response to get.
func (s webSource) answer(resp *http.Response, offset int64) (*answer, error) {
	a := &answer{body: resp.Body, size: resp.ContentLength, version: versionOf(resp.Header)}
	switch {
	case resp.StatusCode == http.StatusPartialContent && resp.Request.Header.Get("Range") != "":
		from, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != offset {
			return nil, grid.Errorf(grid.Unavailable, "read %s: the server was asked for what follows byte %d, and sent %q", s.ref(), offset, resp.Header.Get("Content-Range"))
		}
		a.offset, a.size = from, size
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return nil, grid.Errorf(grid.Conflict, "%s changed while it was read: it has no byte %d any more", s.ref(), offset)
	case resp.StatusCode != http.StatusOK:
		return nil, statusError(s.ref(), "read", resp)
	}
	switch enc := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		// Servers often say that of a file which is itself an archive; then its bytes are what is wanted.
		a.gzip = !compressedName(s.url.Path)
	default:
		return nil, grid.Errorf(grid.Unsupported, "read %s: the server sends it in the encoding %q, though it was asked for it plain", s.ref(), enc)
	}
	return a, nil
}

func compressedName(p string) bool {
	p = strings.ToLower(p)
	return strings.HasSuffix(p, ".gz") || strings.HasSuffix(p, ".tgz")
}

// versionOf is what If-Range may be asked with: a strong ETag, else the date.
func versionOf(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes FROM-TO/SIZE", where the size may be *.
func contentRange(s string) (from, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, whole, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size = -1
	var err3 error
	if whole != "*" {
		size, err3 = strconv.ParseInt(whole, 10, 64)
	}
	ok = ok && ok2 && ok3 && errors.Join(err, err2, err3) == nil && from >= 0 && to >= from && (size == -1 || size > to)
	return from, size, ok
}

// doError explains why there was no response. resumed: some has come before, so the server is there.
func (c *Client) doError(ctx context.Context, r Ref, doing string, resumed bool, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ge *grid.Error
	if errors.As(err, &ge) { // of checkRedirect, or of what is sent
		e := grid.Errorf(ge.Code, "%s %s: %s", doing, r, ge.Message)
		e.Advice = ge.Advice
		return e
	}
	var ue *url.Error
	if errors.As(err, &ue) { // it quotes the URL
		err = ue.Err
	}
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &cert):
		return grid.Errorf(grid.Denied, "%s %s: the server does not prove who it is: %w", doing, r, err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return grid.Errorf(grid.NotFound, "%s %s: there is no such host: %w", doing, r, err)
	case errors.As(err, &op) && op.Op == "dial" && !resumed && !op.Timeout():
		return grid.Errorf(grid.Unavailable, "%s %s: %w", doing, r, err)
	}
	return &transient{error: grid.Errorf(grid.Unavailable, "%s %s: %w", doing, r, broken(err, c.cfg.StallTimeout))}
}

// broken says what ended a connection.
func broken(err error, stall time.Duration) error {
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		return grid.Errorf(grid.Unavailable, "nothing came for %v: %w", stall, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return grid.Errorf(grid.Unavailable, "the connection broke off: %w", err)
	}
	return err
}

// statusError explains a response that is no success.
func statusError(r Ref, doing string, resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	msg := fmt.Sprintf("%s %s: the server answered %d %s", doing, r, resp.StatusCode, http.StatusText(resp.StatusCode))
	if said := reasonIn(string(body), resp.Header.Get("Content-Type")); said != "" {
		msg += fmt.Sprintf(": %q", said)
	}
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized:
		return grid.Errorf(grid.Denied, "%s", msg).Hint("give a user and password as https://USER:PASSWORD@HOST/…, or a presigned URL")
	case s == http.StatusForbidden:
		return grid.Errorf(grid.Denied, "%s", msg).Hint("a presigned URL may have expired, or be for another method")
	case s == http.StatusNotFound, s == http.StatusGone:
		return grid.Errorf(grid.NotFound, "%s", msg)
	case s == http.StatusPreconditionFailed, s == http.StatusConflict:
		return grid.Errorf(grid.Conflict, "%s", msg)
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s == http.StatusInternalServerError,
		s == http.StatusBadGateway, s == http.StatusServiceUnavailable, s == http.StatusGatewayTimeout:
		return &transient{error: grid.Errorf(grid.Unavailable, "%s", msg), after: retryAfter(resp.Header)}
	case s >= 500:
		return grid.Errorf(grid.Unavailable, "%s", msg)
	}
	return grid.Errorf(grid.Invalid, "%s", msg)
}

// reasonIn finds what a server says for people: the message of an XML document, or a line of plain text.
func reasonIn(body, contentType string) string {
	if _, rest, ok := strings.Cut(body, "<Message>"); ok {
		body, _, _ = strings.Cut(rest, "</Message>")
	} else if !strings.HasPrefix(contentType, "text/plain") {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(body), "\n")
	const most = 200
	return strings.ToValidUTF8(strings.TrimSpace(line[:min(len(line), most)]), "")
}

// retryAfter is how many seconds a server asks to be left alone; of a date nothing is made.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// Content is something to be put outside.
type Content struct {
	Size int64   // bytes; -1 when not known, which an HTTP server may refuse
	CID  cid.Cid // of the file, or undefined; kept with an object as its metadata
	// Open begins to read it. It is called again when a try fails.
	Open func(context.Context) (io.ReadCloser, error)
}

// Put writes one file: an object, or what an HTTP server makes of PUT, as to a presigned URL. Without
// replace it is a Conflict if something is there; an HTTP server that ignores If-None-Match replaces it all
// the same. Nothing half-written is left.
func (c *Client) Put(ctx context.Context, r Ref, what Content, replace bool) error {
	switch {
	case r.Folder():
		return grid.Errorf(grid.Invalid, "write %s: it is a folder, not an object", r)
	case r.Pinned():
		return grid.Errorf(grid.Invalid, "write %s: a checksum is for what is read", r)
	case r.S3():
		s3, err := c.bucket()
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "write %s: %w", r, err)
		}
		return s3.put(ctx, r, what, replace)
	}
	for try := 1; ; try++ {
		err := c.putWeb(ctx, r, what, replace)
		var t *transient
		switch {
		case try > 1 && grid.CodeOf(err) == grid.Conflict:
			return grid.Errorf(grid.Conflict, "%w, perhaps from a try whose answer was lost", err)
		case !errors.As(err, &t):
			return err
		case try == maxTries:
			return grid.Errorf(grid.CodeOf(t.error), "gave up after %d tries: %w", try, t.error)
		}
		if err := c.wait(ctx, try, t.after); err != nil {
			return err
		}
	}
}

func (c *Client) putWeb(ctx context.Context, r Ref, what Content, replace bool) error {
	body, err := what.Open(ctx)
	if err != nil {
		return err
	}
	src := &sourceReader{ReadCloser: body} // closed by the transport
	req, err := c.request(ctx, http.MethodPut, r.web, src)
	if err != nil {
		body.Close()
		return err
	}
	req.ContentLength = what.Size
	if what.Size == 0 {
		body.Close()
		req.Body = http.NoBody
	} else {
		req.GetBody = func() (io.ReadCloser, error) { return what.Open(ctx) } // for redirects
		req.Header.Set("Expect", "100-continue")                              // so that a refusal comes before all is sent
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if !replace {
		req.Header.Set("If-None-Match", "*")
	}
	resp, err := c.web.Do(req)
	if err == nil {
		defer resp.Body.Close()
	}
	switch failure := src.err.Load(); {
	case failure != nil:
		return *failure
	case err != nil:
		return c.doError(ctx, r, "write", false, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
		return nil
	case http.StatusPreconditionFailed:
		return grid.Errorf(grid.Conflict, "write %s: something is there already", r).Hint("--force replaces it; -o gives another place")
	case http.StatusNotImplemented, http.StatusBadRequest:
		if !replace {
			return grid.Errorf(grid.Unsupported, "%w", statusError(r, "write", resp)).Hint("perhaps the server cannot tell whether something is there; --force does not ask it to")
		}
	}
	return statusError(r, "write", resp)
}

// sourceReader remembers the error of what is sent, to tell it from those of the connection. Another
// goroutine reads it.
type sourceReader struct {
	io.ReadCloser
	err atomic.Pointer[error]
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		s.err.Store(&err)
	}
	return n, err
}
