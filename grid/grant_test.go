package grid_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestParseNetGrant(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"example.org:443":                     "example.org:443",
		"example.org":                         "example.org:443",
		"EXAMPLE.Org:80":                      "example.org:80",
		"a_b.xn--bcher-kva.example:65535":     "a_b.xn--bcher-kva.example:65535",
		"localhost:8080":                      "localhost:8080",
		"Localhost":                           "localhost:443",
		"*:80":                                "*:80",
		"*":                                   "*:443",
		"*.Example.org":                       "*.example.org:443",
		"*.org:1":                             "*.org:1",
		"192.0.2.1":                           "192.0.2.1:443",
		"169.254.169.254:80":                  "169.254.169.254:80",
		"[2001:DB8:0::1]:80":                  "[2001:db8::1]:80",
		"[::1]":                               "[::1]:443",
		"[::ffff:127.0.0.1]:80":               "127.0.0.1:80",
		"10.0.0.0/8:80":                       "10.0.0.0/8:80",
		"10.0.0.1/32:80":                      "10.0.0.1:80",
		"[fd00::/8]":                          "[fd00::/8]:443",
		long + "." + long + "." + long + ".x": long + "." + long + "." + long + ".x:443",
	} {
		g, err := grid.ParseNetGrant(in)
		if string(g) != want || err != nil {
			t.Errorf("%q gives %q, want %q; %v", in, g, want, err)
		}
	}
	for in, want := range map[string]string{
		"":                                     "bytes",
		strings.Repeat("a", 300):               "bytes",
		":443":                                 "host name of 0 bytes",
		"example.org:":                         "port",
		"example.org:0":                        "port",
		"example.org:65536":                    "port",
		"example.org:080":                      "port",
		"example.org:+80":                      "port",
		"example.org:http":                     "port",
		"example.org:*":                        "port",
		"https://example.org":                  "URL",
		"example.org/path:443":                 "range of addresses",
		"example.org.:443":                     "ends in a dot",
		"example..org":                         `the part ""`,
		"-a.example.org":                       "the part",
		long + "a.example.org":                 "the part",
		"bücher.example":                       "not ASCII",
		"exa mple.org":                         "' '",
		"user@example.org":                     "'@'",
		"a.*.org":                              "'*'",
		"**":                                   "'*'",
		"*.":                                   "host name of 0 bytes",
		"*example.org":                         "'*'",
		"intranet:80":                          "no full host name",
		"*.localhost":                          "nothing is below",
		"a\x00.org":                            `'\x00'`,
		"a\n.org":                              `'\n'`,
		"127.1:80":                             "not an address",
		"2130706433":                           "not an address",
		"0x7f000001:80":                        "not an address",
		"0x7f.1":                               "not an address",
		"127.0.0.01":                           "not an address",
		"1.2.3.4.5":                            "not an address",
		"example.123":                          "not an address",
		"*.10":                                 "not an address",
		"::1":                                  "several colons",
		"2001:db8::1:443":                      "several colons",
		"[::1":                                 "not closed",
		"[::1]443":                             "follows",
		"[::1]:":                               "port",
		"[fe80::1%eth0]:80":                    "not an address",
		"[127.0.0.1]:80":                       "not an address",
		"[example.org]:80":                     "not an address",
		"10.0.0.1/8:80":                        "did you mean 10.0.0.0/8:80?",
		"0.0.0.0/0:80":                         "more addresses than a /8",
		"[::/0]:80":                            "more addresses than a /8",
		"[fc00::/7]":                           "more addresses than a /8",
		"10.0.0.0/33:80":                       "not a range",
		"[10.0.0.0/8]:80":                      "not a range",
		"fd00::/8":                             "several colons",
		"[::ffff:10.0.0.0/104]":                "written as IPv6",
		"[fe80::%eth0/64]:80":                  "not a range",
		"10.0.0.0/8:80/8":                      "port",
		"*." + strings.Repeat("a.", 126) + "a": "no name below",
		"example.org:443:example":              "several colons",
	} {
		g, err := grid.ParseNetGrant(in)
		if grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error()+grid.AdviceOf(err), want) {
			t.Errorf("%q gives %q, %v (%s); want an error about %q", in, g, err, grid.AdviceOf(err), want)
		} else if grid.AdviceOf(err) == "" && len(in) > 0 {
			t.Errorf("%q: %v: without a hint", in, err)
		}
	}
}

func TestNormalizeNetGrants(t *testing.T) {
	got, err := grid.NormalizeNetGrants([]string{"b.org:80", "A.org", "a.org:443", "b.org:80"})
	if want := []string{"a.org:443", "b.org:80"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if got, err := grid.NormalizeNetGrants(nil); got != nil || err != nil {
		t.Errorf("nothing gives %q, %v", got, err)
	}
	if _, err := grid.NormalizeNetGrants([]string{"a.org", "a.org:x"}); grid.CodeOf(err) != grid.Invalid {
		t.Error(err)
	}
	if _, err := grid.NormalizeNetGrants(make([]string, grid.MaxNetGrants+1)); grid.CodeOf(err) != grid.Limit {
		t.Error(err)
	}
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		grant string
		name  string
		addr  string
		port  uint16
		want  bool
	}{
		{"example.org", "example.org", "", 443, true},
		{"example.org", "example.org", "", 80, false},
		{"example.org", "www.example.org", "", 443, false},
		{"example.org", "example.org.evil.example", "", 443, false},
		{"*.example.org", "www.example.org", "", 443, true},
		{"*.example.org", "a.b.example.org", "", 443, true},
		{"*.example.org", "example.org", "", 443, false},
		{"*.example.org", "badexample.org", "", 443, false},
		{"*", "example.org", "", 443, true},
		{"*", "example.org", "", 80, false},
		{"*", "localhost", "", 443, false},
		{"*", "", "", 443, false},
		{"*", "", "192.0.2.1", 443, false},
		{"localhost", "localhost", "", 443, true},
		{"localhost", "", "127.0.0.1", 443, false},
		{"192.0.2.1", "", "192.0.2.1", 443, true},
		{"192.0.2.1", "", "::ffff:192.0.2.1", 443, true},
		{"192.0.2.1", "", "192.0.2.2", 443, false},
		{"192.0.2.1", "", "192.0.2.1", 80, false},
		{"192.0.2.1", "example.org", "", 443, false},
		{"10.1.0.0/16", "", "10.1.255.255", 443, true},
		{"10.1.0.0/16", "", "10.2.0.0", 443, false},
		{"[fd00::/8]", "", "fdff::1", 443, true},
		{"[fd00::/8]", "", "fc00::1", 443, false},
	} {
		g, err := grid.ParseNetGrant(tt.grant)
		if err != nil {
			t.Fatal(err)
		}
		target, err := g.Target()
		if err != nil {
			t.Fatal(err)
		}
		got := target.AllowsName(tt.name, tt.port)
		if tt.addr != "" {
			got = target.AllowsAddr(netip.MustParseAddr(tt.addr), tt.port)
		}
		if got != tt.want {
			t.Errorf("%s allows %s%s with port %d: %v, want %v", tt.grant, tt.name, tt.addr, tt.port, got, tt.want)
		}
	}
	if (grid.Target{}).AllowsAddr(netip.Addr{}, 0) || (grid.Target{}).AllowsName("", 0) {
		t.Error("nothing allows something")
	}
}

func TestHostName(t *testing.T) {
	for in, want := range map[string]string{
		"A.example": "a.example", "localhost": "localhost", "a": "a",
		"127.0.0.1": "", "127.1": "", "a.0x1": "", "a.1": "", "::1": "", "": "", "a.": "", "a b": "", "a%00": "", "a/b": "",
	} {
		got, err := grid.HostName(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q gives %q, %v, want %q", in, got, err, want)
		}
	}
}

func FuzzNetGrant(f *testing.F) {
	for _, s := range []string{"example.org:443", "*.a.b", "*", "127.0.0.1:80", "[::1]:1", "10.0.0.0/8:80", "[fd00::/8]:80", "[::ffff:1.2.3.4]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := grid.ParseNetGrant(s)
		if err != nil {
			return
		}
		again, err := grid.ParseNetGrant(string(g))
		if again != g || err != nil {
			t.Fatalf("%q gives %q, and that %q, %v", s, g, again, err)
		}
		target, err := g.Target()
		if err != nil || target.String() != string(g) || target.Port == 0 || (target.Name == "") != target.Addrs.IsValid() {
			t.Fatalf("%q means %+v, %v", g, target, err)
		}
		if target.Addrs.IsValid() {
			if !target.AllowsAddr(target.Addrs.Addr(), target.Port) || target.AllowsName("example.org", target.Port) {
				t.Fatalf("%q means %+v", g, target)
			}
			return
		}
		if name, err := grid.HostName(strings.Replace(target.Name, "*", "a", 1)); err != nil || name != "localhost" && !target.AllowsName(name, target.Port) {
			t.Fatalf("%q does not allow %q, %v", g, name, err)
		}
	})
}
