package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/dash"
)

// Remote serves the API to those who come over the network, by TLS alone, and the dashboard. Each request but those for
// the files of that page has to come with a token, which decides what it may do, and as whose user. What whoever comes can do without one, and how slow he may be, is bounded.
type Remote struct {
	s     *Server
	hosts func() []string
	cross *http.CrossOriginProtection
	rooms classes // its own: who comes over the network does not take the room of the socket's owner
	h     http.Handler
	page  http.Handler // the dashboard

	visitors *visitors
	refused  *grid.Refusals
	patience time.Duration // with who sends or takes a piece
	memory   atomic.Int64  // bytes of requests that are held in memory

	mu    sync.Mutex
	going map[going]int // requests
}

// going is requests of one kind that are made with one token.
type going struct {
	token string
	class *class
}

// Bounds of the API over the network. Those of one address are in visitors.go.
const (
	remoteConns   = 512 // connections
	remoteHeaders = 32 << 10
	remoteMemory  = 512 << 20 // of requests that are held in memory, all together
	remoteStreams = 128       // requests on one connection at once
	tokenShare    = 4         // one token has no more than this part of the room for a kind of requests
)

// Remote makes the server for the network; s.Tokens must be set. hosts are names by which it may be called, besides localhost
// and IP addresses.
func (s *Server) Remote(hosts func() []string) *Remote {
	m := &Remote{
		s: s, hosts: hosts, cross: http.NewCrossOriginProtection(), rooms: newClasses(), page: dash.Handler(),
		visitors: newVisitors(time.Now), patience: readerTime, refused: grid.NewRefusals(s.Logger, "refused a request to the API"), going: make(map[going]int),
	}
	m.h = s.routes(&m.rooms, m.permitted)
	return m
}

// Serving makes an HTTP server and a listener for it, which speak TLS with the certificates of config over connections of l.
func (m *Remote) Serving(l net.Listener, config *tls.Config) (*http.Server, net.Listener) {
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{"h2", "http/1.1"}
	return &http.Server{
		Handler:           m,
		ConnContext:       withConn,
		TLSConfig:         config,
		ReadHeaderTimeout: 10 * time.Second, // and of a handshake; bodies have a pace
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    remoteHeaders,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          remoteStreams,
			MaxReceiveBufferPerStream:     4 << 20,
			MaxReceiveBufferPerConnection: 16 << 20,
			SendPingTimeout:               30 * time.Second, // followers may be silent for long
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              readerTime,
		},
		ErrorLog: slog.NewLogLogger(m.s.Logger.Handler(), slog.LevelDebug), // strangers decide what it says
	}, tls.NewListener(&visitorListener{l, m}, config)
}

// Refusals lists what was refused, the most frequent first.
func (m *Remote) Refusals() []grid.Refusal { return m.refused.List() }

// visit is a request that came with a good token.
type visit struct {
	grid.Token
	m    *Remote
	from string
}

type visitKey struct{}

// holder is who made a request with a token.
func holder(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// refuse counts a refusal.
func refuse(r *http.Request, reason string) {
	if v := holder(r.Context()); v != nil {
		v.m.refused.Add(v.from, apiProtocol, reason, time.Now())
	}
}

// Why requests over the network are refused, besides what is told at [grid.Refusal].
const (
	refusedToken = "token"   // none that is good
	refusedSite  = "browser" // another site's page may have made it
)

// apiProtocol is what refusals are counted under.
const apiProtocol grid.Protocol = "api"

// ServeHTTP finds out who asks, and answers as far as he may.
func (m *Remote) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, visitor := m.visitors.of(r.RemoteAddr)
	pw := &remoteWriter{statusWriter: statusWriter{ResponseWriter: w}, control: http.NewResponseController(w), p: patience{piece: m.patience}}
	pw.begin()
	defer pw.end()
	fail := func(reason string, err error) {
		m.refused.Add(from, apiProtocol, reason, time.Now())
		m.s.fail(&pw.statusWriter, r, err)
	}
	if err := checkBrowser(r, m.cross, m.hosts()); err != nil {
		fail(refusedSite, err)
		return
	}
	if !m.visitors.allow(visitor, requests) {
		w.Header().Set("Retry-After", "1")
		fail(grid.RefusedRate, tooMany("requests come from this address"))
		return
	}
	if dash.Serves(r.URL.Path) {
		m.page.ServeHTTP(w, r) // to anybody: what it asks for comes with a token
		return
	}
	if wantsPage(r) {
		http.Redirect(w, r, dash.Prefix, http.StatusFound)
		return
	}
	token, held, err := m.whose(r)
	if err != nil {
		p := problemOf(err)
		if p.Status != http.StatusUnauthorized { // it is not known whether the token is good
			m.s.fail(&pw.statusWriter, r, err)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="grid"`)
		if r.Header.Get("Authorization") != "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="grid", error="invalid_token"`)
			// Nobody guesses 32 random bytes. But each try costs us, so who fails often is hung up on and has to wait. A good
			// token from the same address is taken all the same: many may share it.
			if !m.visitors.allow(visitor, failures) {
				w.Header().Set("Retry-After", fmt.Sprint(int(failures.every()/time.Second)))
				w.Header().Set("Connection", "close")
				fail(grid.RefusedRate, tooMany("tokens that are not good come from this address"))
				return
			}
		}
		fail(refusedToken, err)
		return
	}
	if c, ok := r.Context().Value(visitorConnKey{}).(*visitorConn); ok {
		c.trust()
	}
	ctx := grid.WithUser(context.WithValue(r.Context(), visitKey{}, &visit{token, m, from}), token.Name)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !token.Expires.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, token.Expires, grid.Errorf(grid.Denied, "the token %s has expired", token.ID))
		defer stop()
	}
	defer context.AfterFunc(held, func() { cancel(context.Cause(held)) })()
	in := r.WithContext(ctx)
	body := &remoteBody{body: r.Body, control: pw.control, ctx: ctx, p: patience{piece: m.patience}}
	if r.Body != nil && r.Body != http.NoBody {
		in.Body = body
		defer body.end()
		defer context.AfterFunc(ctx, body.giveUp)() // who waits for it does not look at ctx
	}
	m.h.ServeHTTP(pw, in)
	slow := body.slow.Load()
	if slow || pw.slow {
		m.refused.Add(from, apiProtocol, grid.RefusedSlow, time.Now())
	}
	if !slow && (ctx.Err() == nil || r.Context().Err() != nil) {
		return
	}
	if pw.status != 0 { // what was cut short must not look whole
		panic(http.ErrAbortHandler)
	}
	if slow { // its context has ended, so that the handler has said nothing
		writeProblem(&pw.statusWriter, r, problemOf(&statusError{http.StatusRequestTimeout, body.tooSlow()}), m.s.Logger, nil)
		return
	}
	m.refused.Add(from, apiProtocol, refusedToken, time.Now())
	w.Header().Set("WWW-Authenticate", `Bearer realm="grid", error="invalid_token"`)
	m.s.fail(&pw.statusWriter, r, unauthorized(context.Cause(ctx)))
}

// wantsPage reports whether somebody has typed the node's address into a browser.
func wantsPage(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Authorization") == "" && strings.Contains(r.Header.Get("Accept"), "text/html")
}

func tooMany(what string) error {
	return &statusError{http.StatusTooManyRequests, grid.Errorf(grid.Busy, "too many %s", what).Hint("try again later")}
}

func unauthorized(err error) error { return &statusError{http.StatusUnauthorized, err} }

// whose finds out whose token a request has.
func (m *Remote) whose(r *http.Request) (t grid.Token, held context.Context, err error) {
	all := r.Header.Values("Authorization")
	if len(all) == 0 {
		return t, nil, unauthorized(grid.Errorf(grid.Denied, "the request has no token").
			Hint("send a header Authorization: Bearer TOKEN, with a token that `grid token create` has made; `grid --api TOKEN` does"))
	}
	scheme, text, ok := strings.Cut(all[0], " ")
	if len(all) != 1 || !ok || !strings.EqualFold(scheme, "Bearer") {
		return t, nil, unauthorized(grid.Errorf(grid.Denied, "the request has no one Bearer token in its header Authorization").Hint("send Authorization: Bearer TOKEN"))
	}
	key, err := ParseKey(text)
	if err != nil {
		return t, nil, unauthorized(err)
	}
	t, held, err = m.s.Tokens.Check(key.ID, key.Secret)
	if grid.CodeOf(err) == grid.Denied {
		err = unauthorized(err)
	}
	return t, held, err
}

// permitted wraps a route for those who come with a token.
func (m *Remote) permitted(pattern string, h http.Handler) http.Handler {
	need, own := grid.TokenRole(""), false
	if known := routeOf[pattern]; known != nil {
		need, own = known.role, known.own
	}
	room := m.rooms.of(pattern)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := holder(r.Context())
		fail := func(reason string, err error) {
			refuse(r, reason)
			m.s.fail(&statusWriter{ResponseWriter: w}, r, err)
		}
		switch {
		case who == nil || need == "":
			fail(grid.Denied.Error(), grid.Errorf(grid.Denied, "%s %.200s is not for those who come over the network", r.Method, r.URL.Path).Hint("use the node's socket, on its own machine"))
			return
		case !who.Role.Includes(need):
			fail(grid.Denied.Error(), grid.Errorf(grid.Denied, "%s %.200s needs the role %s; the token %q has the role %s", r.Method, r.URL.Path, need, who.Name, who.Role).
				Hint("`grid token create --role %s` on a node of the realm makes one that may", need))
			return
		case !m.enter(who.ID, room):
			fail(grid.RefusedAtOnce, tooMany(room.what+" are made with this token at once"))
			return
		}
		defer m.leave(who.ID, room)
		if own && !who.Role.Includes(grid.TokenAdmin) {
			if err := m.owns(r, who); err != nil {
				m.s.fail(&statusWriter{ResponseWriter: w}, r, err)
				return
			}
		}
		if room != m.rooms.bulk && r.Body != nil {
			held := &heldBody{ReadCloser: r.Body, all: &m.memory}
			defer held.free()
			r.Body = held
		}
		h.ServeHTTP(w, r)
	})
}

// owns tells whether the job that a request is about runs for who made it.
func (m *Remote) owns(r *http.Request, who *visit) error {
	st, err := m.s.Node.Job(r.Context(), jobID(r))
	if err == nil && st.User != who.Name {
		refuse(r, grid.Denied.Error())
		err = grid.Errorf(grid.Denied, "job %s runs for %q; the token %q may end and remove only its own", st.ID, st.User, who.Name).
			Hint("a token with the role %s may those of all", grid.TokenAdmin)
	}
	return err
}

// enter makes room for one more request of a kind with a token, if there is some; leave must follow.
func (m *Remote) enter(token string, room *class) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := going{token, room}
	if m.going[k] >= cap(room.slots)/tokenShare {
		return false
	}
	m.going[k]++
	return true
}

func (m *Remote) leave(token string, room *class) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := going{token, room}
	if m.going[k]--; m.going[k] == 0 {
		delete(m.going, k)
	}
}
