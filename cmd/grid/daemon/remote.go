package daemon

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// remoteAPI is the API over the network of a node that serves it.
type remoteAPI struct {
	*api.Remote
	cert   *certificate
	names  []string // by which it is called, of the user's choice
	listen net.Addr
}

// maxAPIAddrs bounds where clients are told to look for a node.
const maxAPIAddrs = 6

// listenRemote serves the API by TLS on a TCP port.
func (d *Daemon) listenRemote(server *api.Server) error {
	c := d.cfg
	host, _, err := net.SplitHostPort(c.API)
	if err != nil {
		return grid.Errorf(grid.Invalid, "API: %w", err).Hint("--api takes an address of this machine with a port, such as 0.0.0.0:%s or [::1]:%s", api.DefaultPort, api.DefaultPort)
	}
	r := &remoteAPI{names: slices.Clone(c.APIHosts)}
	if c.APICert != "" {
		r.cert, err = givenCertificate(c.APICert, c.APIKey, d.cfg.room("api"))
	} else {
		names := slices.Clone(r.names)
		if host != "" && (net.ParseIP(host) == nil || !net.ParseIP(host).IsUnspecified()) {
			names = append(names, host)
		}
		r.cert, err = ownCertificate(c.Home, names, d.cfg.room("api"))
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.API)
	if err != nil {
		return grid.Errorf(grid.Unavailable, "API: %w", err).Hint("--api takes an address of this machine with a port that is free, such as 0.0.0.0:%s", api.DefaultPort)
	}
	r.listen = l.Addr()
	r.Remote = server.Remote(r.hosts)
	d.followTokens(server.Tokens)
	srv, tl := r.Serving(l, &tls.Config{GetCertificate: r.cert.get})
	d.remote.Store(r)
	d.serve("API over the network", srv, tl)
	return nil
}

// followTokens keeps the realm's tokens at hand until the node closes.
func (d *Daemon) followTokens(book *grid.TokenBook) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.node.FollowTokens(ctx, book)
	}()
	d.opened(closerFunc(func() error {
		cancel()
		<-done
		return nil
	}))
}

// hosts are the names by which browsers may call it.
func (r *remoteAPI) hosts() []string {
	hosts := slices.Clone(r.names)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	if cert, err := r.cert.current(); err == nil && r.cert.given {
		hosts = append(hosts, cert.Leaf.DNSNames...)
	}
	return hosts
}

// endpoints is where the API is served over the network, and how clients know that it is this node's; none: nowhere.
func (d *Daemon) endpoints() (list []api.Endpoint) {
	r := d.remote.Load()
	if r == nil {
		return nil
	}
	cert, err := r.cert.current()
	if err != nil {
		return nil
	}
	_, port, err := net.SplitHostPort(r.listen.String())
	if err != nil {
		return nil
	}
	hosts, pin := slices.Clone(r.names), api.Pin(cert.Leaf)
	if r.cert.given && trusted(cert) { // by its names, whatever its key is after its next renewal
		pin = nil
		for _, name := range cert.Leaf.DNSNames {
			if !strings.Contains(name, "*") {
				hosts = append(hosts, name)
			}
		}
		for _, ip := range cert.Leaf.IPAddresses {
			hosts = append(hosts, ip.String())
		}
	} else {
		hosts = append(hosts, addresses(r.listen)...)
	}
	for _, h := range hosts {
		at := api.Endpoint{Addr: net.JoinHostPort(h, port), Pin: pin}
		if len(list) < maxAPIAddrs && !slices.ContainsFunc(list, func(p api.Endpoint) bool { return p.Addr == at.Addr }) {
			list = append(list, at)
		}
	}
	return list
}

// addresses are the IP addresses at which a listener may be reached; those of loopback only if there is no other.
func addresses(l net.Addr) (list []string) {
	at, ok := l.(*net.TCPAddr)
	if !ok {
		return nil
	}
	if !at.IP.IsUnspecified() {
		return []string{at.IP.String()}
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		ip, ok := a.(*net.IPNet)
		if ok && ip.IP.IsGlobalUnicast() && (ip.IP.To4() != nil || at.IP.To4() == nil) {
			list = append(list, ip.IP.String())
		}
	}
	slices.SortStableFunc(list, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") }) // IPv4 first
	if len(list) == 0 {
		list = []string{"127.0.0.1"}
	}
	return list
}
