package guestnet

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// request is a guest's request, checked.
type request struct {
	method string
	url    *url.URL    // without user and fragment; its host is authority
	name   string      // of the host, or "" when the URL has an address
	addr   netip.Addr  // the URL's
	port   uint16      // the URL's or its scheme's
	header http.Header // with canonical keys
	body   []byte      // the guest's memory
}

const (
	maxURL     = 8 << 10
	maxHeaders = 128
)

// Methods are those that guests may use. The idempotent ones may be sent twice (RFC 9110, section 9.2.2).
var (
	methods    = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	idempotent = []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}
)

// reserved are the headers that are not the guest's to say: they frame the message or belong to the
// connection (RFC 9110, section 7.6.1), or name its end.
var reserved = []string{
	"Connection", "Content-Length", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// decode reads a request in the format of docs/abi.md: a line "METHOD URL", a line "name: value" for
// each header, an empty line, and the body. Every line ends in one LF. Errors are failures with EINVAL, or
// with EFBIG for one that is too large.
func decode(in []byte, l Limits) (*request, error) {
	window := in[:min(len(in), l.Header+2)]
	end := bytes.Index(window, []byte("\n\n"))
	switch {
	case end < 0 && len(in) > l.Header:
		return nil, tooLongHead(l)
	case end < 0:
		return nil, failf(einval, "the request has no empty line, which ends its headers")
	}
	return compose(string(in[:end]), in[end+2:], l)
}

func tooLongHead(l Limits) error {
	return failf(efbig, "the request's URL and headers have more than %d bytes", l.Header)
}

// compose is decode for a head, without the newline at its end, and a body.
func compose(head string, body []byte, l Limits) (*request, error) {
	if int64(len(body)) > l.Request {
		return nil, failf(efbig, "the request's body has %d bytes, at most %d are allowed", len(body), l.Request)
	}
	first, rest, _ := strings.Cut(head, "\n")
	method, text, ok := strings.Cut(first, " ")
	if !ok {
		return nil, failf(einval, "the request's first line is %q, want METHOD URL", clip(first))
	}
	if !slices.Contains(methods, method) {
		return nil, failf(einval, "method %q, want one of %s", clip(method), strings.Join(methods, ", "))
	}
	r := &request{method: method, header: http.Header{}, body: body}
	if err := r.setURL(text); err != nil {
		return nil, err
	}
	if rest == "" {
		return r, nil
	}
	count := 0
	for line := range strings.SplitSeq(rest, "\n") {
		if count++; count > maxHeaders {
			return nil, failf(efbig, "the request has more than %d headers", maxHeaders)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !validName(name) {
			return nil, failf(einval, "header line %q, want NAME: VALUE", clip(line))
		}
		value = strings.Trim(value, " \t")
		if !validValue(value) {
			return nil, failf(einval, "header %s has a control character in its value %q", clip(name), clip(value))
		}
		key := http.CanonicalHeaderKey(name)
		if slices.Contains(reserved, key) || strings.HasPrefix(key, "Proxy-") {
			return nil, failf(einval, "header %s is not the guest's to set", clip(name))
		}
		r.header[key] = append(r.header[key], value)
	}
	return r, nil
}

// setURL checks the URL and takes it apart.
func (r *request) setURL(text string) error {
	if len(text) > maxURL {
		return failf(efbig, "the URL has %d bytes, at most %d are allowed", len(text), maxURL)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return failf(einval, "URL %q has %q in it: percent-encode it", clip(text), c)
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return failf(einval, "URL %q: %w", clip(text), err)
	}
	switch u.Scheme {
	case "https":
		r.port = 443
	case "http":
		r.port = 80
	default:
		return failf(einval, "URL %q: only http and https are spoken here", clip(text))
	}
	switch {
	case u.Opaque != "" || u.Host == "":
		return failf(einval, "URL %q has no host", clip(text))
	case u.User != nil:
		return failf(einval, "URL %q names a user: send an Authorization header", clip(text))
	case strings.HasSuffix(u.Host, ":"):
		return failf(einval, "URL %q has no port behind its colon", clip(text))
	}
	host := u.Hostname()
	standard := strconv.Itoa(int(r.port))
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return failf(einval, "URL %q: port %q, want 1 to 65535", clip(text), clip(port))
		}
		r.port = uint16(n)
	}
	bracketed := u.Host[0] == '['
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" || a.Is6() != bracketed {
			return failf(einval, "URL %q: %q is no address that can be reached", clip(text), clip(host))
		}
		r.addr = a.Unmap()
		host = r.addr.String()
	} else if bracketed {
		return failf(einval, "URL %q: %q is no address", clip(text), clip(host))
	} else if r.name, err = grid.HostName(host); err != nil {
		return failf(einval, "URL %q: %w", clip(text), err)
	} else {
		host = r.name
	}
	// What is sent is made of what was checked.
	authority := net.JoinHostPort(host, strconv.Itoa(int(r.port)))
	if port := ":" + standard; strings.HasSuffix(authority, port) {
		authority = strings.TrimSuffix(authority, port)
	}
	r.url = &url.URL{Scheme: u.Scheme, Host: authority, Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery, ForceQuery: u.ForceQuery}
	return nil
}

// host is the URL's, as TLS and people name it.
func (r *request) host() string {
	if r.name != "" {
		return r.name
	}
	return r.addr.String()
}

// grant is what would allow the request.
func (r *request) grant() string {
	t := grid.Target{Name: r.name, Port: r.port}
	if r.name == "" {
		t.Addrs = netip.PrefixFrom(r.addr, r.addr.BitLen())
	}
	return t.String()
}

// validName tells whether s is a token (RFC 9110, section 5.6.2).
func validName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// validValue tells whether s is without control characters, but for tabs.
func validValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// clip shortens what a guest said for a message.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// failure is what a guest is told: an errno, and a sentence for people.
type failure struct {
	errno   wasi.Errno
	message string
	cause   error
	denied  bool // for want of a grant, or by the node's policy
}

func (f *failure) Error() string { return f.message }

// Unwrap gives the errno, which is what fd_read looks for.
func (f *failure) Unwrap() []error { return []error{f.errno, f.cause} }

func failf(errno wasi.Errno, format string, args ...any) *failure {
	err := fmt.Errorf(format, args...)
	return &failure{errno: errno, message: err.Error(), cause: errors.Unwrap(err)}
}

// The error numbers that guests get, by WASI's numbers.
const (
	eacces       wasi.Errno = 2  // the node does not let guests there
	econnrefused wasi.Errno = 14 // no connection
	edquot       wasi.Errno = 19 // a limit of the guest's
	efault       wasi.Errno = 21
	efbig        wasi.Errno = 22 // a limit of one request or response
	ehostunreach wasi.Errno = 23 // the name does not resolve
	einval       wasi.Errno = 28
	eio          wasi.Errno = 29 // the exchange failed
	emfile       wasi.Errno = 33
	etimedout    wasi.Errno = 73
	enotcapable  wasi.Errno = 76 // no grant
)

func deniedf(errno wasi.Errno, format string, args ...any) *failure {
	f := failf(errno, format, args...)
	f.denied = true
	return f
}
