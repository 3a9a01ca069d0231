package p2p

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Connections that strangers may have. Those behind one address share a small part of them. When all are taken, the newcomer gets the
// place of one that has had its time to ask: of the oldest at the address that has most. So a flood finds its own end, and who
// knocks meanwhile gets in.
const (
	maxStrangers        = 256
	strangersPerAddress = 32
	strangerGrace       = 2 * time.Second // enough to join in
)

// stranger is a connection of one who is not known as a member.
type stranger struct {
	at    netip.Prefix
	since time.Time
	timer *time.Timer // hangs up; nil in tests
}

// strangers are those who have dialled. It is not safe for concurrent use.
type strangers struct {
	conns map[network.Conn]stranger
	at    map[netip.Prefix]int
}

func newStrangers() strangers {
	return strangers{conns: make(map[network.Conn]stranger), at: make(map[netip.Prefix]int)}
}

// room reports whether there is room for one more at an address.
func (s *strangers) room(at netip.Prefix) bool { return s.at[at] < strangersPerAddress }

// place makes room for one more. evict is who has to go for it, if anybody; without ok there is none.
func (s *strangers) place(at netip.Prefix, now time.Time) (evict network.Conn, ok bool) {
	if !s.room(at) {
		return nil, false
	}
	if len(s.conns) < maxStrangers {
		return nil, true
	}
	var worst stranger
	for c, x := range s.conns {
		if now.Sub(x.since) < strangerGrace {
			continue
		}
		if n, most := s.at[x.at], s.at[worst.at]; evict == nil || n > most || n == most && x.since.Before(worst.since) {
			evict, worst = c, x
		}
	}
	return evict, evict != nil
}

func (s *strangers) add(c network.Conn, x stranger) {
	s.conns[c] = x
	s.at[x.at]++
}

// drop forgets a connection, if it is one of a stranger.
func (s *strangers) drop(c network.Conn) {
	x, ok := s.conns[c]
	if !ok {
		return
	}
	if x.timer != nil {
		x.timer.Stop()
	}
	delete(s.conns, c)
	if s.at[x.at]--; s.at[x.at] == 0 {
		delete(s.at, x.at)
	}
}

// neighbourhood is what one who dials can choose his address from, as far as we know: an IPv4 address, an IPv6 /56. All that have no IP
// address share one.
func neighbourhood(at ma.Multiaddr) netip.Prefix {
	ip, err := manet.ToIP(at)
	if err != nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	bits := 56
	if addr.Is4() {
		bits = 32
	}
	p, _ := addr.Prefix(bits)
	return p
}
