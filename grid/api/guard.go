package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// class is what requests have in common that wait for the same room.
type class struct {
	what  string
	slots chan struct{}
}

// roomPatience is how long a request waits for room before it is refused.
const roomPatience = 10 * time.Second

// Requests that are answered at the same time.
const (
	quickAtOnce  = 512 // those that ask or say one thing
	bulkAtOnce   = 64  // those that move or go through data
	followAtOnce = 512 // those that stay until something ends
)

// classes are those of a server.
type classes struct{ quick, bulk, follow *class }

func newClasses() classes {
	of := func(what string, n int) *class { return &class{what, make(chan struct{}, n)} }
	return classes{of("questions", quickAtOnce), of("transfers", bulkAtOnce), of("followers", followAtOnce)}
}

// of is the class of a route.
func (c *classes) of(pattern string) *class {
	if r := routeOf[pattern]; r != nil {
		switch r.room {
		case bulk:
			return c.bulk
		case follow:
			return c.follow
		}
	}
	return c.quick
}

// enter waits for room for one more; leave must follow.
func (c *class) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-c.slots }
	select {
	case c.slots <- struct{}{}:
		return leave, nil
	default:
	}
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	select {
	case c.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-patience.C:
		return nil, &statusError{http.StatusTooManyRequests,
			grid.Errorf(grid.Busy, "%d %s are being answered, as many as there may be", cap(c.slots), c.what).Hint("end some, or try again later")}
	}
}

// GuardBrowsers keeps pages of other sites from using a handler on a TCP port through the browsers of those who can
// reach it. A request must name the host by an IP address, as localhost, or by one of hosts: a name that somebody else
// has let point here is refused (DNS rebinding). So is whatever a browser says comes from another site, unless
// somebody followed a link, and what would change something and has no proof that it does not.
func GuardBrowsers(h http.Handler, log *slog.Logger, hosts ...string) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := checkBrowser(r, cross, hosts)
		if err == nil {
			h.ServeHTTP(w, r)
			return
		}
		log.Warn("refused what a browser may have been led to", "host", r.Host, "origin", r.Header.Get("Origin"), "remote", r.RemoteAddr, "err", err)
		writeProblem(&statusWriter{ResponseWriter: w}, r, problemOf(err), log, err)
	})
}

// checkBrowser refuses what a browser may have been led to.
func checkBrowser(r *http.Request, cross *http.CrossOriginProtection, hosts []string) error {
	switch {
	case !knownHost(r.Host, hosts):
		return &statusError{http.StatusMisdirectedRequest,
			grid.Errorf(grid.Denied, "this node is not known as %.100q", r.Host).Hint("use its IP address, or have its owner name the host when the node is started")}
	case r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate":
		return grid.Errorf(grid.Denied, "the request was made by a page of another site")
	}
	if err := cross.Check(r); err != nil {
		return grid.Errorf(grid.Denied, "the request comes from another origin: %w", err)
	}
	return nil
}

// knownHost reports whether a Host header may be meant for this node.
func knownHost(host string, hosts []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if ip := strings.Trim(name, "[]"); net.ParseIP(ip) != nil {
		return true
	}
	return name == "localhost" || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, name) })
}
