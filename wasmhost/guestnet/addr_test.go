package guestnet

import (
	"net/netip"
	"testing"
)

func TestClassify(t *testing.T) {
	for in, want := range map[string]class{
		"8.8.8.8": public, "1.1.1.1": public, "93.184.216.34": public, "223.255.255.255": public, "::ffff:8.8.8.8": public,
		"9.255.255.255": public, "11.0.0.0": public, "100.63.255.255": public, "100.128.0.0": public, "128.0.0.1": public,
		"126.255.255.255": public, "169.253.255.255": public, "169.255.0.0": public, "172.15.255.255": public, "172.32.0.0": public,
		"192.0.1.0": public, "192.167.255.255": public, "192.169.0.0": public, "198.17.255.255": public, "198.20.0.0": public,
		"192.31.196.1": public, "192.52.193.1": public, "192.175.48.1": public, // registered, and reachable
		"2606:4700:4700::1111": public, "2001:4860:4860::8888": public, "2620:4f:8000::1": public, "2001:200::1": public, "3ffe::1": public,

		"0.0.0.0": never, "0.1.2.3": never, "255.255.255.255": never, "224.0.0.1": never, "239.255.255.255": never, "192.88.99.1": never,
		"10.0.0.1": local, "10.255.255.255": local, "100.64.0.1": local, "100.127.255.255": local, "127.0.0.1": local, "127.255.255.254": local,
		"172.16.0.1": local, "172.31.255.255": local, "192.0.0.8": local, "192.0.2.1": local, "192.168.0.1": local, "198.18.0.1": local,
		"198.19.255.255": local, "198.51.100.1": local, "203.0.113.1": local, "240.0.0.1": local, "255.255.255.254": local,
		"169.254.0.1": pinned, "169.254.169.254": pinned, "169.254.170.2": pinned, "100.100.100.200": pinned, "192.0.0.192": pinned, "168.63.129.16": pinned,

		"::ffff:127.0.0.1": local, "::ffff:10.0.0.1": local, "::ffff:169.254.169.254": pinned, "::ffff:0.0.0.0": never,
		"::": never, "::1": local, "::127.0.0.1": never, "::8.8.8.8": never, "::2": never, "fc00::1": local, "fdff::1": local, "fe80::1": pinned,
		"febf::1": pinned, "fec0::1": local, "ff02::1": never, "fd00:ec2::254": pinned, "fd20:ce::254": pinned,
		"64:ff9b::8.8.8.8": public, "64:ff9b::127.0.0.1": never, "64:ff9b::10.0.0.1": never, "64:ff9b::169.254.169.254": never, "64:ff9b::0.0.0.0": never,
		"64:ff9b:1::8.8.8.8": never, "100::1": local, "5f00::1": local, "4000::1": local, "::ffff:0:8.8.8.8": local,
		"2001::1": never, "2001:0:4136:e378:8000:63bf:3fff:fdd2": never, "2001:2::1": local, "2001:10::1": local, "2001:20::1": local, "2001:1ff::1": local,
		"2001:db8::1": local, "2002:7f00:1::": never, "2002:808:808::": never, "3fff::1": local, "3fff:fff::1": local, "3fff:1000::1": public,
		"fe80::1%eth0": never, "2606:4700:4700::1111%1": never,
	} {
		got, what := classify(netip.MustParseAddr(in))
		if got != want || (what == "") != (want == public) {
			t.Errorf("%s is %v, %q, want %v", in, got, what, want)
		}
	}
	if IsPublic(netip.Addr{}) || IsPublic(netip.MustParseAddr("10.0.0.1")) || !IsPublic(netip.MustParseAddr("8.8.8.8")) {
		t.Error("IsPublic")
	}
}

// An IPv4 address must not get better by being written as IPv6, in any of the ways there are.
func TestEmbedded(t *testing.T) {
	for _, b := range blocks {
		for _, a := range []netip.Addr{b.prefix.Addr(), last(b.prefix)} {
			if IsPublic(a) {
				t.Errorf("%s of %s is public", a, b.prefix)
			}
			if !a.Is4() {
				continue
			}
			four := a.As4()
			mapped := netip.AddrFrom16(a.As16())
			for _, six := range []netip.Addr{mapped, with("64:ff9b::", 12, four), with("64:ff9b:1::", 12, four), with("::", 12, four), with("2002::", 2, four), with("2001::", 12, four)} {
				if IsPublic(six) {
					t.Errorf("%s, which is %s, is public", six, a)
				}
			}
		}
	}
}

// last is the last address of a range.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// with is an IPv6 address with an IPv4 address at a byte.
func with(six string, at int, four [4]byte) netip.Addr {
	b := netip.MustParseAddr(six).As16()
	copy(b[at:], four[:])
	return netip.AddrFrom16(b)
}
