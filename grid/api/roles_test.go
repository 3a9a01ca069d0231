package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// fullServer has every route that there is.
func fullServer(t *testing.T) *Server {
	t.Helper()
	w := fake.NewWorld(new(fake.Hub), "a")
	node, err := grid.OpenNode(context.Background(), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return &Server{
		Node: node, Logger: slog.New(slog.DiscardHandler), Store: struct{ Store }{}, Swarm: struct{ Swarm }{}, Log: new(toldLog), Tokens: grid.NewTokenBook(nil),
		Describe: func(context.Context) (grid.NodeStatus, error) { return grid.NodeStatus{}, nil },
		Bench:    func(context.Context, bool, func(grid.Measured) error) error { return nil },
	}
}

// TestRoles: every route says which role it needs, nothing else does, and each role gets just what it may.
func TestRoles(t *testing.T) {
	s := fullServer(t)
	patterns := make(map[string]bool)
	stub := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s.Bench = func(context.Context, bool, func(grid.Measured) error) error { return nil }
	m := s.Remote(func() []string { return nil })
	m.h = s.routes(&m.rooms, func(pattern string, _ http.Handler) http.Handler {
		patterns[pattern] = true
		return m.permitted(pattern, stub)
	})
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() { defer close(followed); s.Node.FollowTokens(ctx, s.Tokens) }()
	defer func() { cancel(); <-followed }()
	for {
		if _, _, err := s.Tokens.Check("nobody", nil); grid.CodeOf(err) == grid.Denied {
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no tokens")
		}
	}
	for pattern := range patterns {
		if routeOf[pattern].role.Check() != nil {
			t.Errorf("%s: which role it needs is not told in the table, so nobody may use it over the network", pattern)
		}
	}
	for pattern := range routeOf {
		if !patterns[pattern] {
			t.Errorf("%s: the table tells of a route that nobody answers", pattern)
		}
	}
	variable := regexp.MustCompile(`\{[^}]*\}`)
	for _, role := range []grid.TokenRole{"", grid.TokenViewer, grid.TokenSubmitter, grid.TokenAdmin} {
		token := ""
		if role != "" {
			tok, secret, err := s.Node.CreateToken(t.Context(), s.Tokens, grid.TokenRequest{Role: role})
			if err != nil {
				t.Fatal(err)
			}
			token = Key{ID: tok.ID, Secret: secret}.String()
		}
		for pattern := range patterns {
			method, path, ok := strings.Cut(pattern, " ")
			if !ok {
				method, path = "GET", pattern
			}
			path = variable.ReplaceAllString(path, "x")
			if !strings.HasPrefix(path, "/ipfs") && path != "/metrics" && path != "/" {
				path = prefix + path
			}
			r := httptest.NewRequest(method, path, nil)
			r.Host, r.RemoteAddr = "localhost", "192.0.2.1:1234"
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			want := http.StatusNoContent
			switch {
			case role == "":
				want = http.StatusUnauthorized
			case !role.Includes(routeOf[pattern].role):
				want = http.StatusForbidden
			case routeOf[pattern].own && role != grid.TokenAdmin:
				want = http.StatusBadRequest // x is no job
			}
			if w.Code != want {
				t.Errorf("%q, %s: status %d, want %d: %s", role, pattern, w.Code, want, w.Body)
			}
			if want == http.StatusForbidden && !strings.Contains(w.Body.String(), "needs the role "+string(routeOf[pattern].role)) {
				t.Errorf("%q, %s: %s", role, pattern, w.Body)
			}
		}
	}
	// A route that nobody has thought of.
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/v1/new", nil)
	m.permitted("GET /new", stub).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, &visit{grid.Token{Role: grid.TokenAdmin}, m, ""})))
	if w.Code != http.StatusForbidden {
		t.Errorf("a route without a role: status %d", w.Code)
	}
}

// One token does not take all the room, nor all the memory.
func TestTokenShare(t *testing.T) {
	m := fullServer(t).Remote(func() []string { return nil })
	n := 0
	for m.enter("a", m.rooms.bulk) {
		n++
	}
	if n != bulkAtOnce/tokenShare || !m.enter("b", m.rooms.bulk) || !m.enter("a", m.rooms.quick) {
		t.Errorf("one token made %d requests at once", n)
	}
	m.leave("a", m.rooms.bulk)
	if !m.enter("a", m.rooms.bulk) || m.enter("a", m.rooms.bulk) {
		t.Error("a place that is free again is not one")
	}
	for range n {
		m.leave("a", m.rooms.bulk)
	}
	m.leave("b", m.rooms.bulk)
	m.leave("a", m.rooms.quick)
	if len(m.going) != 0 {
		t.Errorf("left: %v", m.going)
	}
	m.memory.Store(remoteMemory - 5)
	b := &heldBody{ReadCloser: http.NoBody, all: &m.memory}
	b.ReadCloser = struct {
		*strings.Reader
		closer
	}{strings.NewReader("0123456789"), closer{}}
	if _, err := b.Read(make([]byte, 10)); grid.CodeOf(err) != grid.Busy {
		t.Errorf("too much for memory: %v", err)
	}
	if b.free(); m.memory.Load() != remoteMemory-5 {
		t.Errorf("%d bytes are held", m.memory.Load())
	}
}

type closer struct{}

func (closer) Close() error { return nil }

// One address may do so much, and there is no end of memory for addresses.
func TestVisitors(t *testing.T) {
	now := time.Now()
	v := newVisitors(func() time.Time { return now })
	count := func(addr string, b budget) (n int) {
		_, who := v.of(addr)
		for v.allow(who, b) {
			n++
		}
		return n
	}
	if n := count("192.0.2.1:1", failures); n != int(failures.burst) {
		t.Errorf("%d failures at once", n)
	}
	if n := count("[::ffff:192.0.2.1]:9", failures); n != 0 {
		t.Errorf("%d more from the same address in other words", n)
	}
	if n := count("192.0.2.2:1", failures); n != int(failures.burst) {
		t.Errorf("%d failures from another address", n)
	}
	count("[2001:db8:1:2::1]:1", arrivals)
	if n := count("[2001:db8:1:3::9%eth0]:1", arrivals); n != 0 {
		t.Errorf("%d more from the same network", n)
	}
	now = now.Add(3 * failures.every())
	if n := count("192.0.2.1:1", failures); n != 3 {
		t.Errorf("%d failures after a while", n)
	}
	_, who := v.of("192.0.2.1:1")
	var conns []*visitorConn
	connect := func(who *visitor) (c, out *visitorConn, ok bool) {
		near, _ := net.Pipe()
		c = &visitorConn{Conn: near, all: v, who: who}
		out, ok = v.connect(c)
		conns = append(conns, c)
		return c, out, ok
	}
	for i := range addressConns {
		if _, out, ok := connect(who); !ok || out != nil {
			t.Fatalf("connection %d", i)
		}
	}
	if _, _, ok := connect(who); ok {
		t.Error("one connection too many")
	}
	conns[0].Close()
	conns[0].Close()
	if _, _, ok := connect(who); !ok {
		t.Error("none when one is gone")
	}
	for i := range remoteConns - addressConns { // from ever more addresses
		if _, out, ok := connect(v.find(netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32))); !ok || out != nil {
			t.Fatalf("connection %d", i)
		}
	}
	conns[1].trust()
	if _, out, ok := connect(v.find(netip.MustParsePrefix("192.0.2.9/32"))); !ok || out != conns[2] || v.conns != remoteConns || len(who.conns) != addressConns-1 {
		t.Errorf("who comes when there are as many as may be: %v, %d connections, %d of who had most", ok, v.conns, len(who.conns))
	}
	for _, c := range conns {
		c.trust()
	}
	if _, out, ok := connect(v.find(netip.MustParsePrefix("192.0.2.10/32"))); ok || out != nil {
		t.Error("who has a good token has to go for who comes")
	}
	for _, c := range conns {
		if c.who != who {
			c.Close()
		}
	}
	for i := range 3 * maxVisitors {
		v.of(string(rune('a'+i%3)) + "nonsense")
		v.of(fmt.Sprintf("10.%d.%d.1:1", i>>8, i&0xff))
	}
	if len(v.all) > maxVisitors+1 {
		t.Errorf("%d addresses are known", len(v.all))
	}
	if _, again := v.of("192.0.2.1:7"); again != who {
		t.Error("one with connections is forgotten")
	}
	now = now.Add(time.Hour)
	v.of("203.0.113.1:1")
	if len(v.all) > 2 {
		t.Errorf("%d addresses are known after an hour", len(v.all))
	}
}

// The clocks are spoken of when they may be the reason.
func TestClockSkew(t *testing.T) {
	err := grid.Errorf(grid.Denied, "expired")
	for _, tt := range []struct {
		status int
		off    time.Duration
		tell   bool
	}{{401, time.Hour, true}, {401, -time.Hour, true}, {401, time.Second, false}, {403, time.Hour, false}} {
		resp := &http.Response{StatusCode: tt.status, Header: http.Header{"Date": {time.Now().Add(tt.off).UTC().Format(http.TimeFormat)}}}
		if got := withClock(resp, err); strings.Contains(got.Error(), "clock") != tt.tell || grid.CodeOf(got) != grid.Denied {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestParseKey(t *testing.T) {
	k := Key{ID: "abcdefghijkl2", Secret: make([]byte, grid.TokenSecretSize), At: []Endpoint{{Addr: "127.0.0.1:4748", Pin: make([]byte, pinSize)}, {Addr: "grid.lab:1"}}}
	text := k.String()
	got, err := ParseKey(" " + text + "\n")
	if err != nil || got.String() != text || got.At[1].Addr != "grid.lab:1" {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range len(text) {
		if _, err := ParseKey(text[:n]); err == nil || grid.AdviceOf(err) == "" {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	for text, say := range map[string]string{
		"grid-join-1-abc": "invitation", "grid-api-2-abc": "version", "hello": "begin", KeyPrefix + strings.Repeat("a", maxKey): "too long",
		Key{ID: "no", Secret: k.Secret}.String(): "no secret", Key{ID: k.ID}.String(): "no secret",
		Key{ID: k.ID, Secret: k.Secret, At: []Endpoint{{Addr: "a"}}}.String():                   "address",
		Key{ID: k.ID, Secret: k.Secret, At: []Endpoint{{Addr: "a/b:1"}}}.String():               "address",
		Key{ID: k.ID, Secret: k.Secret, At: []Endpoint{{Addr: "a:1", Pin: []byte{1}}}}.String(): "address",
	} {
		if _, err := ParseKey(text); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%.40s: %v, want %q", text, err, say)
		}
	}
	for text, want := range map[string]string{
		"https://h": "https://h:" + DefaultPort, "https://[::1]:1/": "https://[::1]:1", k.At[0].String(): k.At[0].String(),
		"http://h": "", "h:1": "", "https://": "", "https://u@h": "", "https://h/v1": "", "https://h?x": "", "https://h#abc": "", "https://h:0": "", "": "", "https://a b": "",
	} {
		p, err := ParseEndpoint(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want || err != nil && grid.AdviceOf(err) == "" {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(Key{ID: "abcdefghijkl2", Secret: make([]byte, grid.TokenSecretSize), At: []Endpoint{{Addr: "127.0.0.1:4748", Pin: make([]byte, pinSize)}}}.String())
	f.Add(KeyPrefix)
	f.Add("https://127.0.0.1:4748#47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKey(text); err == nil {
			again, err := ParseKey(k.String())
			if err != nil || again.String() != k.String() || len(k.At) > maxEndpoints {
				t.Errorf("%q: %+v, %v", text, again, err)
			}
		}
		if p, err := ParseEndpoint(text); err == nil {
			if again, err := ParseEndpoint(p.String()); err != nil || again.String() != p.String() {
				t.Errorf("%q: %+v, %v", text, again, err)
			}
		}
	})
}

// FuzzAuthorization: no header, however odd, lets anybody in or breaks the server.
func FuzzAuthorization(f *testing.F) {
	m := &Remote{s: &Server{Tokens: grid.NewTokenBook(nil)}}
	f.Add("Bearer " + Key{ID: "abcdefghijkl2", Secret: make([]byte, grid.TokenSecretSize)}.String())
	f.Add("Basic x")
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if tok, _, err := m.whose(r); err == nil {
			t.Errorf("%q is the token of %+v", header, tok)
		}
	})
}
