package grid

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// MaxNetGrants bounds the grants of one stage.
const MaxNetGrants = 64

// NetGrant is one place that a guest may send HTTP requests to. It is one of these, and in its canonical
// form always has its port:
//
//	example.org:443       one host name
//	*.example.org:443     every name below it, not the name itself
//	*:443                 every host name but localhost
//	localhost:8080        the loopback addresses of the node itself
//	192.0.2.1:80          one address
//	[2001:db8::1]:80
//	10.1.0.0/16:80        every address of a range, /8 or narrower
//	[fd00::/8]:80
//
// Without a port it means 443, that of HTTPS. Names are matched with names and addresses with addresses,
// as the URL has them: a grant of a name says nothing about URLs with an address.
type NetGrant string

// defaultPort is that of grants without one; minBits how wide a range may be.
const (
	defaultPort = 443
	minBits     = 8
)

// ParseNetGrant checks a grant that a person wrote and gives its canonical form. Errors are Invalid.
func ParseNetGrant(s string) (NetGrant, error) {
	t, err := parseGrant(s)
	if err != nil {
		return "", err
	}
	return NetGrant(t.String()), nil
}

// NormalizeNetGrants gives grants in canonical form and order, each once, so that two lists that allow
// the same are the same. Errors are Invalid, and Limit for more than MaxNetGrants.
func NormalizeNetGrants(list []string) ([]string, error) {
	if len(list) > MaxNetGrants {
		return nil, Errorf(Limit, "%d network grants, at most %d are allowed", len(list), MaxNetGrants).
			Hint("grant every name below a domain with one *.DOMAIN:PORT, or addresses by their range")
	}
	var out []string
	for _, s := range list {
		g, err := ParseNetGrant(s)
		if err != nil {
			return nil, err
		}
		out = append(out, string(g))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Target is what a grant says. It has a Name or Addrs, never both.
type Target struct {
	Name  string // "example.org", "*.example.org" or "*"; in lower case
	Addrs netip.Prefix
	Port  uint16
}

// Target takes a grant apart. Errors are Invalid.
func (g NetGrant) Target() (Target, error) { return parseGrant(string(g)) }

// AllowsName reports whether a URL with that host name, from [HostName], and port is meant.
func (t Target) AllowsName(name string, port uint16) bool {
	switch below, wild := strings.CutPrefix(t.Name, "*"); {
	case t.Port != port || name == "":
		return false
	case !wild:
		return name == t.Name
	case below == "":
		return name != localhost
	default:
		return strings.HasSuffix(name, below)
	}
}

// AllowsAddr reports whether an address is meant, with that port.
func (t Target) AllowsAddr(a netip.Addr, port uint16) bool {
	return t.Port == port && t.Addrs.IsValid() && t.Addrs.Contains(a.Unmap())
}

// String is the canonical form of the grant.
func (t Target) String() string {
	port := ":" + strconv.Itoa(int(t.Port))
	if !t.Addrs.IsValid() {
		return t.Name + port
	}
	host := t.Addrs.String()
	if t.Addrs.IsSingleIP() {
		host = t.Addrs.Addr().String()
	}
	if t.Addrs.Addr().Is6() {
		host = "[" + host + "]"
	}
	return host + port
}

// maxName and maxLabel bound host names, by RFC 1035, section 2.3.4; maxGrant what is looked at at all.
const (
	maxName   = 253
	maxLabel  = 63
	maxGrant  = maxName + len("*.:65535")
	localhost = "localhost"
)

func parseGrant(s string) (t Target, err error) {
	bad := func(format string, args ...any) *Error {
		shown := s
		if len(shown) > maxGrant {
			shown = shown[:maxGrant] + "…"
		}
		return Errorf(Invalid, "network grant %q: "+format, append([]any{shown}, args...)...)
	}
	const forms = "write HOST:PORT, as in example.org:443, *.example.org:443, 192.0.2.1:80 or [2001:db8::1]:80"
	if len(s) == 0 || len(s) > maxGrant {
		return t, bad("it has %d bytes, want 1 to %d", len(s), maxGrant).Hint(forms)
	}
	if strings.Contains(s, "://") {
		return t, bad("it is a URL").Hint("write only its host and port, as in example.org:443")
	}
	host, port, six := s, "", false
	if rest, ok := strings.CutPrefix(s, "["); ok {
		six = true
		if host, port, ok = strings.Cut(rest, "]"); !ok {
			return t, bad("the bracket is not closed").Hint(forms)
		}
		if ok = port == "" || port[0] == ':'; !ok {
			return t, bad("%q follows the address", port).Hint(forms)
		}
	} else if at := strings.IndexByte(s, ':'); at >= 0 {
		if strings.Count(s, ":") > 1 {
			return t, bad("it has several colons").Hint("write IPv6 addresses in brackets, as in [2001:db8::1]:443")
		}
		host, port = s[:at], s[at:]
	}
	t.Port = defaultPort
	if port != "" {
		if t.Port, err = parsePort(port[1:]); err != nil {
			return Target{}, bad("%w", err).Hint(forms)
		}
	}
	switch {
	case strings.Contains(host, "/"):
		p, err := netip.ParsePrefix(host)
		switch {
		case err != nil || p.Addr().Is6() != six:
			return Target{}, bad("%q is not a range of addresses", host).Hint("write 10.1.0.0/16:80 or [fd00::/8]:80; paths are not part of a grant")
		case p.Addr().Is4In6():
			return Target{}, bad("it is a range of IPv4 addresses written as IPv6").Hint("write it as IPv4, as in 10.1.0.0/16:80")
		case p != p.Masked():
			return Target{}, bad("the range has bits set behind its first %d", p.Bits()).Hint("did you mean %s?", Target{Addrs: p.Masked(), Port: t.Port})
		case p.Bits() < minBits:
			return Target{}, bad("a range of more addresses than a /%d", minBits).Hint("grant narrower ranges, or names")
		}
		t.Addrs = p
	case six || looksNumeric(host):
		a, err := netip.ParseAddr(host)
		if err != nil || a.Is6() != six || a.Zone() != "" {
			return Target{}, bad("%q is not an address", host).Hint("write 192.0.2.1:80, or [2001:db8::1]:80 without a zone")
		}
		a = a.Unmap()
		t.Addrs = netip.PrefixFrom(a, a.BitLen())
	default:
		name, prefix := host, ""
		if host == "*" {
			t.Name = host
			return t, nil
		}
		if rest, ok := strings.CutPrefix(host, "*."); ok {
			name, prefix = rest, "*."
		}
		if name, err = hostName(name); err != nil {
			return Target{}, bad("%w", err).Hint("%s", adviceOr(err, forms))
		}
		if prefix == "" && name != localhost && !strings.Contains(name, ".") {
			return Target{}, bad("%q is no full host name", host).
				Hint("write it in full, as in %s.example.org; for a machine of your own network, its address", name)
		}
		if len(host) > maxName {
			return Target{}, bad("no name below it has at most %d bytes", maxName).Hint("grant a shorter domain")
		}
		if prefix != "" && name == localhost {
			return Target{}, bad("nothing is below %s", localhost).Hint("write %s:PORT", localhost)
		}
		t.Name = prefix + name
	}
	return t, nil
}

func adviceOr(err error, otherwise string) string {
	if advice := AdviceOf(err); advice != "" {
		return advice
	}
	return otherwise
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' {
		return 0, Errorf(Invalid, "port %q, want 1 to 65535", s)
	}
	return uint16(n), nil
}

// HostName checks a host name and gives it in lower case. Names are ASCII, of letters, digits, hyphens
// and underscores; one that programs might take for an address is refused. Errors are Invalid.
func HostName(s string) (string, error) {
	if looksNumeric(s) {
		return "", Errorf(Invalid, "host name %q: its last part is a number, as in an address", clean(s, maxName))
	}
	return hostName(s)
}

// looksNumeric tells whether some program might read s as an IPv4 address, say as 127.1 or 0x7f000001:
// whether its last part is a number (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func looksNumeric(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if rest, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func hostName(s string) (string, error) {
	if s == "" || len(s) > maxName {
		return "", Errorf(Invalid, "a host name of %d bytes, want 1 to %d", len(s), maxName)
	}
	if strings.HasSuffix(s, ".") {
		return "", Errorf(Invalid, "host name %q ends in a dot", clean(s, maxName)).Hint("leave the dot out: names are always full names")
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return "", Errorf(Invalid, "host name %q has the part %q", clean(s, maxName), clean(label, maxLabel))
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			case c >= 0x80:
				return "", Errorf(Invalid, "host name %q is not ASCII", clean(s, maxName)).Hint("write it in its ASCII form, which begins with xn--")
			default:
				return "", Errorf(Invalid, "host name %q has %q in it", clean(s, maxName), c)
			}
		}
	}
	return strings.ToLower(s), nil
}
