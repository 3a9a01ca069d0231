package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// budget is how often something may be done from one address: so often at once after a pause, and then by rate.
type budget struct {
	index int
	burst float64
	rate  float64 // a second
}

// What one address may do.
var (
	arrivals = budget{0, 100, 20}    // new connections
	requests = budget{1, 2000, 1000} // of any kind
	failures = budget{2, 10, 0.1}    // requests with a token that is not good
)

const (
	addressConns = 64 // connections at once
	maxVisitors  = 4096
)

func (b budget) every() time.Duration { return time.Duration(float64(time.Second) / b.rate) }

// visitor is an address: of IPv4 one, of IPv6 a /56, which one customer of a provider has.
type visitor struct {
	conns []*visitorConn // the oldest first
	left  [3]float64     // of each budget
	at    time.Time      // when that was so
}

// visitors are the addresses that have come lately. Of too many at once the newest are taken for one.
type visitors struct {
	now func() time.Time

	mu    sync.Mutex
	all   map[netip.Prefix]*visitor
	conns int // of all of them
	swept time.Time
}

func newVisitors(now func() time.Time) *visitors {
	return &visitors{now: now, all: make(map[netip.Prefix]*visitor)}
}

// crowd stands for all who are too many.
var crowd = netip.Prefix{}

func prefixOf(addr string) (from string, p netip.Prefix) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "", crowd
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 56
	}
	p, _ = ip.Prefix(bits)
	return ip.String(), p
}

// of finds the visitor with an address, as net.Conn tells it.
func (v *visitors) of(addr string) (from string, who *visitor) {
	from, p := prefixOf(addr)
	v.mu.Lock()
	defer v.mu.Unlock()
	return from, v.find(p)
}

func (v *visitors) find(p netip.Prefix) *visitor {
	if who := v.all[p]; who != nil {
		return who
	}
	now := v.now()
	if len(v.all) >= maxVisitors && now.Sub(v.swept) > time.Second {
		v.swept = now
		for p, who := range v.all { // of those who have been away for a while nothing need be known
			if len(who.conns) == 0 && now.Sub(who.at) > failures.every()*time.Duration(failures.burst) {
				delete(v.all, p)
			}
		}
	}
	if len(v.all) >= maxVisitors && p != crowd {
		return v.find(crowd)
	}
	who := &visitor{at: now, left: [3]float64{arrivals.burst, requests.burst, failures.burst}}
	v.all[p] = who
	return who
}

// allow takes one of a budget, if there is one left.
func (v *visitors) allow(who *visitor, b budget) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	passed := max(0, now.Sub(who.at).Seconds())
	for _, b := range []budget{arrivals, requests, failures} {
		who.left[b.index] = min(b.burst, who.left[b.index]+passed*b.rate)
	}
	who.at = now
	if who.left[b.index] < 1 {
		return false
	}
	who.left[b.index]--
	return true
}

// connect counts a connection in, if it may be. When there are as many as may be in all, one has to go for it: the oldest that no good
// token has come by, of the address that has most of those.
func (v *visitors) connect(c *visitorConn) (out *visitorConn, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(c.who.conns) >= addressConns {
		return nil, false
	}
	if v.conns >= remoteConns {
		if out = v.idlest(); out == nil {
			return nil, false
		}
		v.remove(out)
	}
	c.who.conns = append(c.who.conns, c)
	v.conns++
	return out, true
}

// idlest is the connection that is missed least; nil: none. v.mu is held.
func (v *visitors) idlest() (out *visitorConn) {
	most := 0
	for _, who := range v.all {
		var first *visitorConn
		n := 0
		for _, c := range who.conns {
			if !c.good {
				if n++; first == nil {
					first = c
				}
			}
		}
		if n > most {
			most, out = n, first
		}
	}
	return out
}

// remove counts a connection out. v.mu is held.
func (v *visitors) remove(c *visitorConn) {
	if i := slices.Index(c.who.conns, c); i >= 0 {
		c.who.conns = slices.Delete(c.who.conns, i, i+1)
		v.conns--
	}
}

// visitorListener hands out connections from addresses that do not have too many.
type visitorListener struct {
	net.Listener
	m *Remote
}

// Accept closes at once what is too much.
func (l *visitorListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, who := l.m.visitors.of(raw.RemoteAddr().String())
		c := &visitorConn{Conn: raw, all: l.m.visitors, who: who}
		if l.m.visitors.allow(who, arrivals) {
			out, ok := l.m.visitors.connect(c)
			if out != nil {
				gone, _ := prefixOf(out.RemoteAddr().String())
				l.m.refused.Add(gone, apiProtocol, grid.RefusedConn, time.Now())
				out.Conn.Close()
			}
			if ok {
				return c, nil
			}
		}
		l.m.refused.Add(from, apiProtocol, grid.RefusedConn, time.Now())
		raw.Close()
	}
}

// visitorConn is a connection of a visitor.
type visitorConn struct {
	net.Conn
	all  *visitors
	who  *visitor
	good bool // a good token has come by it; all.mu guards it
}

func (c *visitorConn) Close() error {
	c.all.mu.Lock()
	c.all.remove(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// trust notes that a good token has come by the connection.
func (c *visitorConn) trust() {
	c.all.mu.Lock()
	c.good = true
	c.all.mu.Unlock()
}

type visitorConnKey struct{}

// withConn has the context of a connection's requests tell which it is.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, visitorConnKey{}, c)
}
