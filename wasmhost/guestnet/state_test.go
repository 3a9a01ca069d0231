package guestnet

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

const (
	publicAddr  = "93.184.216.34"
	publicAddr2 = "2606:2800:21f:cb07::1"
)

func TestPolicy(t *testing.T) {
	answers := map[string][]string{
		"public.example":  {publicAddr},
		"both.example":    {publicAddr2 + " " + publicAddr},
		"private.example": {"10.1.2.3"},
		"mixed.example":   {publicAddr + " 10.1.2.3"},
		"mixed2.example":  {"10.1.2.3 " + publicAddr},
		"mapped.example":  {"::ffff:10.1.2.3"},
		"loop.example":    {"127.0.0.1"},
		"meta.example":    {"169.254.169.254"},
		"zero.example":    {"0.0.0.0"},
		"own.example":     {"198.41.0.4"},
		"empty.example":   {""},
	}
	for _, tt := range []struct {
		policy Policy
		grants string
		url    string
		dialed string // or
		errno  wasi.Errno
		want   string // in the message
	}{
		{Public, "public.example:80", "http://public.example/", publicAddr + ":80", 0, ""},
		{Public, "public.example:80", "http://PUBLIC.example:80/", publicAddr + ":80", 0, ""},
		{Public, "*.example:80", "http://public.example/", publicAddr + ":80", 0, ""},
		{Public, "*:80", "http://public.example/", publicAddr + ":80", 0, ""},
		{Public, "both.example:80", "http://both.example/", "[" + publicAddr2 + "]:80", 0, ""},
		{Public, publicAddr + ":80", "http://" + publicAddr + "/", publicAddr + ":80", 0, ""},
		{Public, "93.184.0.0/16:80", "http://" + publicAddr + "/", publicAddr + ":80", 0, ""},
		{Named, "public.example:80", "http://public.example/", publicAddr + ":80", 0, ""},

		{None, "public.example:80", "http://public.example/", "", eacces, "no network"},
		{"", "public.example:80", "http://public.example/", "", eacces, "no network"},
		{Public, "", "http://public.example/", "", enotcapable, "run the job with --allow-net public.example:80"},
		{Public, "public.example:443", "http://public.example/", "", enotcapable, "--allow-net public.example:80"},
		{Public, "public.example:80", "http://public.example:8080/", "", enotcapable, "--allow-net public.example:8080"},
		{Public, "public.example:80", "https://public.example/", "", enotcapable, "--allow-net public.example:443"},
		{Public, "public.example:80", "http://other.example/", "", enotcapable, "--allow-net other.example:80"},
		{Public, "public.example:80", "http://" + publicAddr + "/", "", enotcapable, "--allow-net " + publicAddr + ":80"},
		{Public, publicAddr + ":80", "http://public.example/", "", enotcapable, "--allow-net public.example:80"},
		{Public, "*:80", "http://" + publicAddr + "/", "", enotcapable, "--allow-net"},
		{Public, "missing.example:80", "http://missing.example/", "", ehostunreach, "there is no such host"},
		{Public, "empty.example:80", "http://empty.example/", "", ehostunreach, "there is no such host"},

		// Addresses that are not public, by name.
		{Public, "private.example:80", "http://private.example/", "", eacces, "private.example resolves to 10.1.2.3, a private address; this node lets guests reach public addresses only, unless it is started with --task-net named"},
		{Public, "mapped.example:80", "http://mapped.example/", "", eacces, "10.1.2.3, a private address"},
		{Public, "mixed.example:80", "http://mixed.example/", "", eacces, "10.1.2.3"},
		{Public, "mixed2.example:80", "http://mixed2.example/", "", eacces, "10.1.2.3"},
		{Public, "loop.example:80", "http://loop.example/", "", eacces, "a loopback address"},
		{Public, "own.example:80", "http://own.example/", "", eacces, "an address of the node itself"},
		{Named, "private.example:80", "http://private.example/", "", enotcapable, "run the job with --allow-net 10.1.2.3:80, too"},
		{Named, "mixed.example:80", "http://mixed.example/", "", enotcapable, "10.1.2.3"},
		{Named, "loop.example:80", "http://loop.example/", "", enotcapable, "127.0.0.1:80"},
		{Named, "localhost:80 loop.example:80", "http://loop.example/", "", enotcapable, "127.0.0.1:80"},
		{Named, "*:80", "http://localhost/", "", enotcapable, "--allow-net localhost:80"},
		{Named, "own.example:80", "http://own.example/", "", enotcapable, "198.41.0.4:80"},
		{Named, "private.example:80 10.1.2.3:80", "http://private.example/", "10.1.2.3:80", 0, ""},
		{Named, "private.example:80 10.1.2.3:81", "http://private.example/", "", enotcapable, "10.1.2.3:80"},
		{Named, "private.example:80 10.0.0.0/8:80", "http://private.example/", "10.1.2.3:80", 0, ""},
		{Named, "10.0.0.0/8:80", "http://private.example/", "", enotcapable, "--allow-net private.example:80"},
		{Named, "mixed.example:80 10.1.2.3:80", "http://mixed.example/", publicAddr + ":80", 0, ""},
		{Named, "own.example:80 198.41.0.4:80", "http://own.example/", "198.41.0.4:80", 0, ""},

		// And by address.
		{Public, "10.1.2.3:80", "http://10.1.2.3/", "", eacces, "10.1.2.3 is a private address"},
		{Public, "127.0.0.1:80", "http://127.0.0.1/", "", eacces, "a loopback address"},
		{Public, "[::1]:80", "http://[::1]/", "", eacces, "a loopback address"},
		{Public, "[::1]:80", "http://[::ffff:127.0.0.1]/", "", enotcapable, "127.0.0.1:80"},
		{Public, "localhost:80", "http://localhost/", "", eacces, "a loopback address"},
		{Public, "169.254.169.254:80", "http://169.254.169.254/", "", eacces, "a link-local address"},
		{Public, "198.41.0.4:80", "http://198.41.0.4/", "", eacces, "an address of the node itself"},
		{Named, "10.1.2.3:80", "http://10.1.2.3/", "10.1.2.3:80", 0, ""},
		{Named, "10.0.0.0/8:80", "http://10.1.2.3/", "10.1.2.3:80", 0, ""},
		{Named, "10.1.2.3:80", "http://[::ffff:10.1.2.3]/", "10.1.2.3:80", 0, ""},
		{Named, "localhost:80", "http://localhost/", "127.0.0.1:80", 0, ""},
		{Named, "localhost:80", "http://127.0.0.1/", "", enotcapable, "--allow-net 127.0.0.1:80"},
		{Named, "[::1]:80", "http://[::1]/", "[::1]:80", 0, ""},
		{Named, "169.254.169.254:80", "http://169.254.169.254/", "169.254.169.254:80", 0, ""},
		{Named, "169.254.0.0/16:80", "http://169.254.169.254/", "", enotcapable, "--allow-net 169.254.169.254:80, too"},
		{Named, "meta.example:80", "http://meta.example/", "", enotcapable, "169.254.169.254"},
		{Named, "0.0.0.0:80", "http://0.0.0.0/", "", eacces, "an unspecified address, which guests never reach"},
		{Named, "[::]:80", "http://[::]/", "", eacces, "never"},
		{Named, "zero.example:80 0.0.0.0:80", "http://zero.example/", "", eacces, "never"},
		{Named, "[2002::/16]:80", "http://[2002:a01:203::1]/", "", eacces, "never"},
	} {
		w := &world{t: t, answers: map[string][]string{}, serve: hello, mine: []netip.Addr{netip.MustParseAddr("198.41.0.4")}}
		for name, list := range answers {
			w.answers[name] = list
		}
		s := w.guest(Config{Policy: tt.policy}, strings.Fields(tt.grants)...)
		got, err := get(t.Context(), s, tt.url)
		label := fmt.Sprintf("%s, %s, %s", tt.policy, tt.grants, tt.url)
		if tt.dialed != "" {
			if err != nil || got != helloRead || !slices.Equal(w.dials, []string{tt.dialed}) || s.Denied() != "" {
				t.Errorf("%s: %q, %v, connected to %v", label, got, err, w.dials)
			}
			continue
		}
		if errnoOf(err) != tt.errno || !strings.Contains(err.Error(), tt.want) || len(w.dials) > 0 {
			t.Errorf("%s: %v (%v), want %v about %q; connected to %v", label, err, errnoOf(err), tt.errno, tt.want, w.dials)
		}
		if denied := tt.errno != ehostunreach; denied != (s.Denied() == err.Error()) {
			t.Errorf("%s: denied %q", label, s.Denied())
		}
		if tt.want == "no network" || strings.Contains(tt.want, "run the job with --allow-net public") {
			if len(w.lookups) > 0 {
				t.Errorf("%s: looked up %v without a grant", label, w.lookups)
			}
		}
	}
}

// A name that resolves to something else the next time gains nothing.
func TestRebinding(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"evil.example": {publicAddr, "127.0.0.1"}}, serve: answering(func(to netip.AddrPort, _ *http.Request) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(to.String()), to)
	})}
	s := w.guest(Config{Policy: Public}, "evil.example:80")
	if got, err := get(t.Context(), s, "http://evil.example/"); err != nil || !strings.HasSuffix(got, publicAddr+":80") {
		t.Errorf("%q, %v", got, err)
	}
	if want := []string{"evil.example"}; !slices.Equal(w.lookups, want) {
		t.Errorf("looked up %v, want %v", w.lookups, want)
	}
	if got, err := get(t.Context(), s, "http://evil.example/"); errnoOf(err) != eacces {
		t.Errorf("%q, %v", got, err)
	}
	if want := []string{publicAddr + ":80"}; !slices.Equal(w.dials, want) {
		t.Errorf("connected to %v, want %v", w.dials, want)
	}
}

// A redirect is the guest's to follow, under the same checks.
func TestRedirect(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: answering(func(netip.AddrPort, *http.Request) string {
		return "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n"
	})}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	got, err := get(t.Context(), s, "http://a.example/")
	if want := "302 Found\ncontent-length: 0\nlocation: http://169.254.169.254/latest/meta-data/\n\n"; got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if len(w.dials) != 1 {
		t.Errorf("connected to %v", w.dials)
	}
}

func TestFallback(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr2 + " " + publicAddr}}, serve: hello, refused: map[string]bool{publicAddr2: true}}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	if got, err := get(t.Context(), s, "http://a.example/"); got != helloRead || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	w.refused[publicAddr] = true
	s.Reset(s.net, []string{"a.example:80"})
	_, err := get(t.Context(), s, "http://a.example/")
	if errnoOf(err) != econnrefused || !strings.Contains(err.Error(), publicAddr2+": connection refused") || strings.Contains(err.Error(), "10.9.9.9") {
		t.Errorf("%v", err)
	}
	if len(w.dials) != 4 || s.Denied() != "" {
		t.Errorf("connected to %v, denied %q", w.dials, s.Denied())
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+" "+r.Proto)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	w := &world{t: t, answers: map[string][]string{"example.com": {publicAddr}, "other.example": {publicAddr}}}
	guest := func(roots *x509.CertPool) *State {
		s := w.guest(Config{Policy: Public, Roots: roots}, "example.com:443", "other.example:443")
		s.net.cfg.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.String() != publicAddr+":443" {
				t.Errorf("connects to %v", to)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
		}
		return s
	}
	s := guest(roots)
	for range 2 { // the second time on the same connection
		if got, err := get(t.Context(), s, "https://example.com/"); !strings.HasSuffix(got, "example.com HTTP/1.1") || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := get(t.Context(), s, "https://other.example/"); errnoOf(err) != econnrefused || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another host's certificate: %q, %v", got, err)
	}
	if got, err := get(t.Context(), guest(nil), "https://example.com/"); errnoOf(err) != econnrefused || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority of its own: %q, %v", got, err)
	}
}

func TestRequestAndResponse(t *testing.T) {
	var seen []string
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: answering(func(_ netip.AddrPort, r *http.Request) string {
		seen = append(seen, fmt.Sprintf("%s %s %s %d %q", r.Method, r.RequestURI, r.Host, r.ContentLength, r.Header))
		return "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 207 Multi\x01\rStatus\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\n" +
			"X-B: folded\r\n  on\r\nset-cookie: b\r\nX-A: 1\t2\xff\r\n\r\n3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
	})}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	got, err := do(t.Context(), s, "PATCH http://a.example/p?q\nx-mine: 1\nx-Mine:2\n\nsome body")
	if want := "207 Multi  Status\nset-cookie: a\nset-cookie: b\nx-a: 1\t2\xff\nx-b: folded on\n\nabcdefg"; got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := do(t.Context(), s, "POST http://a.example/\nuser-agent: me\n\n"); err != nil {
		t.Error(err)
	}
	want := []string{
		`PATCH /p?q a.example 9 map["Content-Length":["9"] "User-Agent":["wasmgrid"] "X-Mine":["1" "2"]]`,
		`POST / a.example 0 map["Content-Length":["0"] "User-Agent":["me"]]`,
	}
	if !slices.Equal(seen, want) {
		t.Errorf("the server saw\n%q, want\n%q", seen, want)
	}
	if u := s.Used(); u.Requests != 2 || u.Sent < 150 || u.Received < 350 {
		t.Errorf("used %v", u)
	}
}

// Connections serve one guest's requests to one place, one after the other.
func TestReuse(t *testing.T) {
	count := 0
	answer := func(to netip.AddrPort, r *http.Request) string {
		count++
		switch r.URL.Path {
		case "/close":
			return "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		case "/old":
			return "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"
		case "/more":
			return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
		}
		if r.Method == "HEAD" {
			return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	}
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}, "b.example": {publicAddr}}, serve: answering(answer)}
	s := w.guest(Config{Policy: Public}, "*.example:80")
	steps := []struct {
		request string
		dials   int
	}{
		{"GET http://a.example/", 1},
		{"GET http://a.example/x", 1},
		{"GET http://b.example/", 2},  // the same address, but another host
		{"POST http://a.example/", 3}, // must not be sent twice
		{"HEAD http://a.example/", 3},
		{"GET http://a.example/close", 3}, {"GET http://a.example/", 3}, // there were two
		{"GET http://a.example/close", 3}, {"GET http://a.example/", 4},
		{"GET http://a.example/old", 4}, {"GET http://a.example/", 5},
		{"GET http://a.example/more", 5}, {"GET http://a.example/", 6},
	}
	for i, step := range steps {
		got, err := do(t.Context(), s, step.request+"\n\n")
		if err != nil || strings.Contains(got, "evil") {
			t.Fatalf("%s: %q, %v", step.request, got, err)
		}
		if len(w.dials) != step.dials || count != i+1 {
			t.Errorf("%s: %d connections and %d requests, want %d and %d", step.request, len(w.dials), count, step.dials, i+1)
		}
	}
	// A response that was not read to its end takes its connection along.
	r, err := s.fetch(t.Context(), []byte("GET http://a.example/\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != errClosed {
		t.Errorf("%d, %v", n, err)
	}
	if r.Close(); len(s.idle) != 1 || len(s.open) != 0 {
		t.Errorf("%d idle, %d open", len(s.idle), len(s.open))
	}
	// Another guest gets none of this one's.
	before := len(w.dials)
	s.Reset(s.net, []string{"a.example:80"})
	if _, err := get(t.Context(), s, "http://a.example/"); err != nil || len(w.dials) != before+1 {
		t.Errorf("%v, %d connections", err, len(w.dials)-before)
	}
}

// A server may close a connection while it is idle.
func TestStale(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}}
	w.serve = func(to netip.AddrPort, c net.Conn) {
		answers := 1
		answering(func(netip.AddrPort, *http.Request) string {
			if answers--; answers < 0 {
				return ""
			}
			return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
		})(to, c)
	}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	for range 3 {
		if got, err := get(t.Context(), s, "http://a.example/"); !strings.HasSuffix(got, "hello") || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if len(w.dials) != 3 {
		t.Errorf("connected to %v", w.dials)
	}
}

func TestIdleBound(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{}, serve: hello}
	for i := range 10 {
		w.answers[fmt.Sprintf("h%d.example", i)] = []string{publicAddr}
	}
	s := w.guest(Config{Policy: Public}, "*.example:80")
	for i := range 10 {
		if _, err := get(t.Context(), s, fmt.Sprintf("http://h%d.example/", i)); err != nil {
			t.Error(err)
		}
	}
	if len(s.idle) != maxIdle || s.idle[0].key != "http://h6.example:80" {
		t.Errorf("%d idle, first %s", len(s.idle), s.idle[0].key)
	}
}

func TestBounds(t *testing.T) {
	size := 0
	chunked := false
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: answering(func(netip.AddrPort, *http.Request) string {
		body := strings.Repeat("x", size)
		if chunked {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, body)
		}
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body)
	})}
	guest := func(l Limits) *State { return w.guest(Config{Policy: Public, Limits: l}, "a.example:80") }

	for _, size = range []int{1, 99, 100, 101, 5000} {
		for _, chunked = range []bool{false, true} {
			s := guest(Limits{Response: 100})
			got, err := get(t.Context(), s, "http://a.example/")
			if _, body, _ := strings.Cut(got, "\n\n"); size <= 100 && (err != nil || len(body) != size) {
				t.Errorf("%d bytes: %q, %v", size, got, err)
			} else if size > 100 && (errnoOf(err) != efbig || !strings.Contains(err.Error(), "more than 100 bytes") || chunked && len(body) != 100) {
				t.Errorf("%d bytes: %q, %v", size, got, err)
			}
		}
	}
	size, chunked = 5000, true
	s := guest(Limits{Response: 100})
	r, err := s.fetch(t.Context(), []byte("GET http://a.example/\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(r)
	for range 2 { // again and again
		if n, err := r.Read(make([]byte, 10)); n != 0 || errnoOf(err) != efbig {
			t.Errorf("after the limit: %d, %v", n, err)
		}
	}
	r.Close()

	size, chunked = 10, false
	s = guest(Limits{Requests: 3})
	for i := range 5 {
		if _, err := get(t.Context(), s, "http://a.example/"); i < 3 && err != nil || i >= 3 && errnoOf(err) != edquot {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if s.Used().Requests != 3 {
		t.Errorf("used %v", s.Used())
	}

	size = 1000
	s = guest(Limits{Total: 5000})
	n := 0
	for ; ; n++ {
		if _, err = get(t.Context(), s, "http://a.example/"); err != nil {
			break
		}
	}
	if errnoOf(err) != edquot || n != 4 || s.Used().total() > 5000 {
		t.Errorf("after %d: %v, used %v", n, err, s.Used())
	}
	s = guest(Limits{Total: 500})
	if _, err := do(t.Context(), s, "POST http://a.example/\n\n"+strings.Repeat("x", 10_000)); errnoOf(err) != edquot || s.Used().total() > 500 {
		t.Errorf("a large request: %v, used %v", err, s.Used())
	}

	s = guest(Limits{Header: 100})
	w.serve = answering(func(netip.AddrPort, *http.Request) string {
		return "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 5000) + "\r\nContent-Length: 0\r\n\r\n"
	})
	if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != efbig || !strings.Contains(err.Error(), "headers of the response") {
		t.Error(err)
	}
	w.serve = answering(func(netip.AddrPort, *http.Request) string { return strings.Repeat("HTTP/1.1 103 More\r\n\r\n", 10) })
	if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != efbig {
		t.Error(err)
	}
}

// A guest that closes nothing has a bounded number of responses; and all of them end with it.
func TestOpenBound(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: hello}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	var all []io.ReadCloser
	for range 1000 {
		r, err := s.fetch(t.Context(), []byte("GET http://a.example/\n\n"))
		if err == nil {
			all = append(all, r)
		} else if errnoOf(err) != emfile || !strings.Contains(err.Error(), "64 responses are open") {
			t.Fatal(err)
		}
	}
	if len(all) != 64 || len(w.dials) != 64 {
		t.Errorf("%d open, %d connections", len(all), len(w.dials))
	}
	all[0].Close()
	if _, err := s.fetch(t.Context(), []byte("GET http://a.example/\n\n")); err != nil {
		t.Error(err)
	}
	s.Reset(nil, nil)
	w.done.Wait() // for the servers to see their connections closed
	if n, err := all[1].Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("after Reset: %d, %v", n, err)
	}
	all[1].Close()
}

func TestBadServers(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "EOF",
		"HTTP/1.1 200":                        "EOF",
		"HTTP/1.1 200 OK\r\nX: y":             "EOF",
		"SSH-2.0-OpenSSH_9.6\r\n":             "malformed",
		"HTTP/1.1 OK\r\n\r\n":                 "malformed",
		"HTTP/1.1 099 x\r\n\r\n":              "status 99",
		"HTTP/1.1 -99 x\r\n\r\n":              "malformed",
		"HTTP/1.1 +20 x\r\n\r\n":              "status 20",
		"HTTP/1.1 200 OK\r\nX y\r\n\r\n":      "malformed",
		"HTTP/1.1 200 OK\r\nX: y\x00\r\n\r\n": "malformed",
		"HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n":  "malformed",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n": "status 101",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef":       "Content-Length",
		"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcdef":                           "Content-Length",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcdef":                      "transfer encoding",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc":                               "cut short",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n":                  "cut short",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n":             "cut short",
	} {
		w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: func(_ netip.AddrPort, c net.Conn) {
			defer c.Close()
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, text)
			}
		}}
		s := w.guest(Config{Policy: Public}, "a.example:80")
		got, err := get(t.Context(), s, "http://a.example/")
		if errnoOf(err) != eio || !strings.Contains(err.Error(), want) || len(s.idle) > 0 {
			t.Errorf("%q gives %q, %v, want an error about %q", text, got, err, want)
		}
	}
}

// A server may refuse a request before it has read all of it.
func TestEarlyAnswer(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: func(_ netip.AddrPort, c net.Conn) {
		http.ReadRequest(bufio.NewReader(io.LimitReader(c, 300)))
		early := c.(interface{ CloseRead() error })
		early.CloseRead()
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		c.Close()
	}}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	s.net.cfg.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) {
		here, there := net.Pipe()
		back, forth := net.Pipe()
		w.done.Go(func() { w.serve(netip.AddrPort{}, &split{Conn: there, out: forth}) })
		return &split{Conn: here, in: back}, nil
	}
	got, err := do(t.Context(), s, "PUT http://a.example/\n\n"+strings.Repeat("x", 100_000))
	if want := "413 Too Large\ncontent-length: 0\n\n"; got != want || err != nil || len(s.idle) > 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// split is a connection whose halves can be closed apart.
type split struct {
	net.Conn
	in, out net.Conn
}

func (s *split) Read(b []byte) (int, error) {
	if s.in != nil {
		return s.in.Read(b)
	}
	return s.Conn.Read(b)
}

func (s *split) Write(b []byte) (int, error) {
	if s.out != nil {
		return s.out.Write(b)
	}
	return s.Conn.Write(b)
}

func (s *split) CloseRead() error { return s.Conn.Close() }

func (s *split) Close() error {
	for _, c := range []net.Conn{s.Conn, s.in, s.out} {
		if c != nil {
			c.Close()
		}
	}
	return nil
}

// Whatever a server is slow at, the time limit cuts it, and so does the end of the guest's context.
func TestSlowServers(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"never reads":       func(c net.Conn) {},
		"never answers":     func(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) },
		"a header a second": func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\n", "X: y\r\n") },
		"a byte a second":   func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "x") },
		"a chunk a second":  func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n") },
		"stops": func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
		},
	} {
		for _, guests := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: func(_ netip.AddrPort, c net.Conn) {
					serve(c)
					<-ended
					c.Close()
				}}
				s := w.guest(Config{Policy: Public, Limits: Limits{Timeout: 10 * time.Second}}, "a.example:80")
				defer close(ended)
				ctx, want := t.Context(), 10*time.Second
				if guests {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
					defer cancel()
					want = 3 * time.Second
				}
				began := time.Now()
				_, err := get(ctx, s, "http://a.example/")
				if took := time.Since(began); took != want {
					t.Errorf("%s: took %v, want %v", name, took, want)
				}
				if guests && (err == nil || ctx.Err() == nil) || !guests && errnoOf(err) != etimedout {
					t.Errorf("%s: %v", name, err)
				}
				if !guests && !strings.Contains(err.Error(), "longer than 10s, the limit") {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
}

// drip sends a piece a second, until nobody reads any more.
func drip(c net.Conn, first, piece string) {
	http.ReadRequest(bufio.NewReader(c))
	_, err := io.WriteString(c, first)
	for err == nil {
		time.Sleep(time.Second)
		_, err = io.WriteString(c, piece)
	}
}

// Slow look-ups and connections end in time, too, and one that hangs does not keep the next address waiting for ever.
func TestSlowConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr2 + " " + publicAddr}}, serve: hello}
		s := w.guest(Config{Policy: Public, Limits: Limits{Timeout: 15 * time.Second, Connect: 10 * time.Second}}, "*.example:80")
		hang := publicAddr2
		s.net.cfg.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if strings.Contains(hang, to.Addr().String()) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return w.Dial(ctx, to)
		}
		began := time.Now()
		if got, err := get(t.Context(), s, "http://a.example/"); got != helloRead || err != nil || time.Since(began) != 10*time.Second {
			t.Errorf("%q, %v after %v", got, err, time.Since(began))
		}
		hang += publicAddr
		s.Reset(s.net, []string{"*.example:80"})
		began = time.Now()
		if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != etimedout || time.Since(began) != 15*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		s.net.cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, &net.DNSError{Err: "lookup on 10.0.0.2:53: timeout", Name: host, Server: "10.0.0.2:53", IsTimeout: true}
		}
		if _, err := get(t.Context(), s, "http://b.example/"); errnoOf(err) != etimedout || strings.Contains(err.Error(), "10.0.0.2") {
			t.Error(err)
		}
	})
}

// What a node knows of its own network is not told.
func TestResolverErrors(t *testing.T) {
	w := &world{t: t}
	s := w.guest(Config{Policy: Public}, "*.example:80")
	s.net.cfg.Resolve = func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "server misbehaving", Name: "a.example", Server: "10.0.0.2:53"}
	}
	if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != ehostunreach || strings.Contains(err.Error(), "10.0.0.2") {
		t.Error(err)
	}
	s.net.cfg.Own = func() ([]netip.Addr, error) { return nil, errors.New("broken") }
	if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != eacces {
		t.Error(err)
	}
	got := plain(&net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 5}, Err: errors.New("reset")})
	if got != "reset" {
		t.Errorf("%q", got)
	}
}

func TestReset(t *testing.T) {
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: hello}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	n := s.net
	if err := s.Reset(n, []string{"a.example:80", "https://x"}); grid.CodeOf(err) != grid.Invalid {
		t.Error(err)
	}
	if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != eacces {
		t.Errorf("after a failed Reset: %v", err)
	}
	if err := s.Reset(n, make([]string, grid.MaxNetGrants+1)); grid.CodeOf(err) != grid.Limit {
		t.Error(err)
	}
	if err := s.Reset(n, nil); err != nil || s.Denied() != "" || s.Used() != (Usage{}) {
		t.Errorf("%v, %+v", err, s)
	}
	if _, err := get(t.Context(), s, "http://a.example/"); errnoOf(err) != enotcapable {
		t.Error(err)
	}
	for _, cfg := range []Config{{Policy: "all"}, {Limits: Limits{Open: -1}}, {Limits: Limits{Timeout: -1}}} {
		if _, err := New(cfg); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if p, err := ParsePolicy(""); p != None || err != nil {
		t.Errorf("%v, %v", p, err)
	}
}

func TestNote(t *testing.T) {
	s := new(State)
	s.note(deniedf(eacces, "%s", strings.Repeat("é", 2000)))
	s.note(deniedf(eacces, "another"))
	if m := s.Denied(); len(m) > abi.MaxMessage || len(m) < abi.MaxMessage-4 || !strings.HasSuffix(m, "é…") {
		t.Errorf("%d bytes: %.20q", len(m), m)
	}
}

// The system's own look-ups and dials, as far as they can be tested without leaving the machine.
func TestSystem(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }))
	defer srv.Close()
	n, err := New(Config{Policy: Named})
	if err != nil {
		t.Fatal(err)
	}
	s := new(State)
	defer s.Reset(nil, nil)
	addr := srv.Listener.Addr().String()
	if err := s.Reset(n, []string{addr}); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t.Context(), s, "http://"+addr+"/"); !strings.HasSuffix(got, "\n\nhere") || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	mine, err := own()
	if err != nil || !slices.Contains(mine, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("own addresses %v, %v", mine, err)
	}
}
