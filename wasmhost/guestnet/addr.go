package guestnet

import "net/netip"

// class is how an address is treated.
type class int

const (
	public class = iota
	local        // reached only under Named, when a grant names it
	pinned       // the same, when a grant names it alone
	never
)

// block is a range of addresses that is not public.
type block struct {
	prefix netip.Prefix
	class  class
	what   string // with an article, for messages
}

// blocks are the IANA special-purpose address registries (RFC 6890; iana-ipv4-special-registry and
// iana-ipv6-special-registry, as they were in October 2024) without the entries that are globally reachable, but
// for those in a block for protocols, and what else is known to be wrong to reach. The first match counts. IPv6
// addresses outside of 2000::/3 are not public, listed or not.
var blocks = []block{
	// Cloud metadata services, which give out credentials, where a block below would let a range name
	// them or would not have them at all.
	{netip.MustParsePrefix("168.63.129.16/32"), pinned, "an address of a cloud's own services"}, // Azure
	{netip.MustParsePrefix("100.100.100.200/32"), pinned, metadata},                             // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), pinned, metadata},                                 // Oracle
	{netip.MustParsePrefix("fd00:ec2::/32"), pinned, metadata},                                  // Amazon
	{netip.MustParsePrefix("fd20:ce::/32"), pinned, metadata},                                   // Google

	{netip.MustParsePrefix("0.0.0.0/8"), never, "an unspecified address"},
	{netip.MustParsePrefix("10.0.0.0/8"), local, private},
	{netip.MustParsePrefix("100.64.0.0/10"), local, "an address behind a carrier's NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), local, loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), pinned, "a link-local address"},
	{netip.MustParsePrefix("172.16.0.0/12"), local, private},
	{netip.MustParsePrefix("192.0.0.0/24"), local, "an address for protocols"},
	{netip.MustParsePrefix("192.0.2.0/24"), local, documentation},
	{netip.MustParsePrefix("192.88.99.0/24"), never, "an address of 6to4 relays"},
	{netip.MustParsePrefix("192.168.0.0/16"), local, private},
	{netip.MustParsePrefix("198.18.0.0/15"), local, "an address for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), local, documentation},
	{netip.MustParsePrefix("203.0.113.0/24"), local, documentation},
	{netip.MustParsePrefix("224.0.0.0/4"), never, multicast},
	{netip.MustParsePrefix("255.255.255.255/32"), never, "the broadcast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), local, "a reserved address"},

	{netip.MustParsePrefix("::/128"), never, "an unspecified address"},
	{netip.MustParsePrefix("::1/128"), local, loopback},
	{netip.MustParsePrefix("::/96"), never, "an IPv4 address in IPv6"}, // deprecated, RFC 4291
	{netip.MustParsePrefix("64:ff9b:1::/48"), never, "an IPv4 address in IPv6"},
	{netip.MustParsePrefix("fc00::/7"), local, private},
	{netip.MustParsePrefix("fe80::/10"), pinned, "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), never, multicast},
	{netip.MustParsePrefix("2001::/32"), never, "a Teredo tunnel"},
	{netip.MustParsePrefix("2001::/23"), local, "an address for protocols"},
	{netip.MustParsePrefix("2001:db8::/32"), local, documentation},
	{netip.MustParsePrefix("2002::/16"), never, "a 6to4 tunnel"},
	{netip.MustParsePrefix("3fff::/20"), local, documentation},
}

const (
	private       = "a private address"
	loopback      = "a loopback address"
	multicast     = "a multicast address"
	documentation = "an address for documentation"
	metadata      = "the address of a cloud's metadata service"
)

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
)

// IsPublic reports whether an address belongs to the public Internet.
func IsPublic(a netip.Addr) bool {
	c, _ := classify(a)
	return c == public
}

// classify tells how an address is treated and what it is, "" for a public one.
func classify(a netip.Addr) (class, string) {
	if a = a.Unmap(); !a.IsValid() || a.Zone() != "" {
		return never, "no plain address"
	}
	if nat64.Contains(a) { // what DNS64 makes of public IPv4 addresses, in networks that have IPv6 only
		b := a.As16()
		if c, what := classify(netip.AddrFrom4([4]byte(b[12:]))); c != public {
			return never, what + " in IPv6"
		}
		return public, ""
	}
	for _, b := range blocks {
		if b.prefix.Contains(a) {
			return b.class, b.what
		}
	}
	if a.Is6() && !globalUnicast.Contains(a) {
		return local, "an address that is not global"
	}
	return public, ""
}
