package guestnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Policy is how far a node lets its guests go at most, whatever they were granted.
type Policy string

// The policies. The zero Policy is None.
const (
	None   Policy = "none"   // nowhere
	Public Policy = "public" // to public addresses
	Named  Policy = "named"  // also to other addresses that a grant names
)

// ParsePolicy checks the name of a policy. "" is None.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case "":
		return None, nil
	case None, Public, Named:
		return p, nil
	}
	return "", grid.Errorf(grid.Invalid, "network policy %q, want %s, %s or %s", s, None, Public, Named)
}

// Limits bound what one guest may do. A zero is the default's.
type Limits struct {
	Requests int           // that it may make, those that are refused among them
	Open     int           // responses that it has not closed yet
	Header   int           // bytes of one request's URL and headers, and of one response's headers
	Request  int64         // bytes of one request's body
	Response int64         // bytes of one response's body
	Total    int64         // bytes of all requests and responses together, as HTTP/1.1
	Connect  time.Duration // to one address, and for TLS
	Timeout  time.Duration // from a request to the last byte that the guest reads of the response
}

// DefaultLimits fit a task that fetches pages or files, or calls an API.
var DefaultLimits = Limits{
	Requests: 10_000, Open: 64, Header: 64 << 10, Request: 16 << 20, Response: 256 << 20, Total: 1 << 30,
	Connect: 10 * time.Second, Timeout: 2 * time.Minute,
}

// Config says what a node lets its guests do. The zero Config lets them do nothing.
type Config struct {
	Policy Policy
	Limits Limits
	// Roots are the authorities whose certificates count; nil are the system's.
	Roots *x509.CertPool
	// Resolve gives a host's addresses; nil asks the system. The name is a full one: no search list
	// applies to it. Dial connects to an address by TCP; nil does so directly. Own gives the node's own
	// addresses; nil asks the system. All three may be called from several goroutines, and the first two
	// must end when ctx does.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	Own     func() ([]netip.Addr, error)
}

// Net is a node's network, as its guests may use it. It is safe for concurrent use and holds nothing
// that would have to be closed; a guest's own part is its [State].
type Net struct{ cfg Config }

// New makes a Net. Errors are Invalid.
func New(cfg Config) (*Net, error) {
	var err error
	if cfg.Policy, err = ParsePolicy(string(cfg.Policy)); err != nil {
		return nil, err
	}
	l, d := &cfg.Limits, DefaultLimits
	if l.Requests < 0 || l.Open < 0 || l.Header < 0 || l.Request < 0 || l.Response < 0 || l.Total < 0 || l.Connect < 0 || l.Timeout < 0 {
		return nil, grid.Errorf(grid.Invalid, "guestnet: a negative limit in %+v", *l)
	}
	l.Requests, l.Open, l.Header = orDefault(l.Requests, d.Requests), orDefault(l.Open, d.Open), orDefault(l.Header, d.Header)
	l.Request, l.Response, l.Total = orDefault(l.Request, d.Request), orDefault(l.Response, d.Response), orDefault(l.Total, d.Total)
	l.Connect, l.Timeout = orDefault(l.Connect, d.Connect), orDefault(l.Timeout, d.Timeout)
	if cfg.Resolve == nil {
		cfg.Resolve = resolve
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		}
	}
	if cfg.Own == nil {
		cfg.Own = own
	}
	return &Net{cfg}, nil
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// resolve asks for the name as it is: with a dot at its end nobody looks for it below the node's own
// domains.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host+".")
}

// own lists the addresses of the node's interfaces.
func own() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap().WithZone(""))
		}
	}
	return out, nil
}

// maxAddrs bounds what is looked at of a name's addresses, and maxDials how many are tried.
const (
	maxAddrs = 64
	maxDials = 4
)

// destinations gives the addresses that a request may go to, at least one, or says why there is none.
func (n *Net) destinations(ctx context.Context, r *request, grants []grid.Target) ([]netip.Addr, error) {
	// What a guest without grants is told depends on no node.
	if n != nowhere && !granted(r, grants) {
		return nil, deniedf(enotcapable, "not allowed to reach %s: run the job with --allow-net %s", r.grant(), r.grant())
	}
	if n.cfg.Policy == None {
		return nil, deniedf(eacces, "not allowed to reach %s: this node gives guests no network", r.grant())
	}
	mine, err := n.cfg.Own()
	if err != nil {
		return nil, deniedf(eacces, "not allowed to reach %s: this node cannot tell its own addresses", r.grant())
	}
	list, err := n.addresses(ctx, r)
	if err != nil {
		return nil, err
	}
	for i, a := range list {
		a = a.Unmap()
		list[i] = a
		c, what := classify(a)
		for _, m := range mine {
			if c == public && a == m {
				c, what = local, "an address of the node itself"
			}
		}
		if c == public || n.cfg.Policy == Named && opens(r, a, c, grants) {
			continue
		}
		subject := a.String() + " is " + what
		if r.name != "" {
			subject = r.name + " resolves to " + a.String() + ", " + what
		}
		switch {
		case n.cfg.Policy != Named:
			return nil, deniedf(eacces, "not allowed to reach %s: %s; this node lets guests reach public addresses only, unless it is started with --task-net named", r.grant(), subject)
		case c == never:
			return nil, deniedf(eacces, "not allowed to reach %s: %s, which guests never reach", r.grant(), subject)
		}
		return nil, deniedf(enotcapable, "not allowed to reach %s: %s; run the job with --allow-net %s, too",
			r.grant(), subject, grid.Target{Addrs: netip.PrefixFrom(a, a.BitLen()), Port: r.port})
	}
	return list, nil
}

// granted tells whether a grant names the URL's host and port.
func granted(r *request, grants []grid.Target) bool {
	for _, t := range grants {
		if r.name != "" && t.AllowsName(r.name, r.port) || r.name == "" && t.AllowsAddr(r.addr, r.port) {
			return true
		}
	}
	return false
}

// opens tells whether a grant names an address that is not public.
func opens(r *request, a netip.Addr, c class, grants []grid.Target) bool {
	if r.name == "localhost" && a.IsLoopback() {
		return true
	}
	for _, t := range grants {
		if c != never && t.AllowsAddr(a, r.port) && (c != pinned || t.Addrs.IsSingleIP()) {
			return true
		}
	}
	return false
}

// addresses gives those of the URL's host. localhost is not asked for: it is what it is (RFC 6761, 6.3).
func (n *Net) addresses(ctx context.Context, r *request) ([]netip.Addr, error) {
	switch r.name {
	case "":
		return []netip.Addr{r.addr}, nil
	case "localhost":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	list, err := n.cfg.Resolve(ctx, r.name)
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &dns) && dns.IsNotFound, err == nil && len(list) == 0:
		return nil, failf(ehostunreach, "cannot reach %s: there is no such host", r.grant())
	case err != nil: // whose text would tell the node's name servers
		return nil, failf(ehostunreach, "cannot reach %s: its name could not be resolved", r.grant())
	}
	return list[:min(len(list), maxAddrs)], nil
}

// dial connects to the first address that answers.
func (n *Net) dial(ctx context.Context, r *request, addrs []netip.Addr) (net.Conn, error) {
	var first error
	for _, a := range addrs[:min(len(addrs), maxDials)] {
		conn, err := n.connect(ctx, r, a)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if first == nil {
			first = failf(econnrefused, "cannot reach %s at %s: %s", r.grant(), a, plain(err))
		}
	}
	return nil, first
}

// connect connects to one address. With https the other side has proved to be the URL's host then.
func (n *Net) connect(ctx context.Context, r *request, a netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.Connect)
	defer cancel()
	raw, err := n.cfg.Dial(ctx, netip.AddrPortFrom(a, r.port))
	if err != nil || r.url.Scheme != "https" {
		return raw, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: r.host(), RootCAs: n.cfg.Roots, NextProtos: []string{"http/1.1"}})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// plain is an error's text without the addresses of the node.
func plain(err error) string {
	var op *net.OpError
	for errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "it does not answer"
	}
	return strings.ToValidUTF8(err.Error(), "?")
}
