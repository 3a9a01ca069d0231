package api_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// serveNetwork opens a node of its own, and serves its API over the network.
func serveNetwork(t *testing.T, tune ...func(*http.Server, *api.Remote)) *network {
	t.Helper()
	w := fake.NewWorld(new(fake.Hub), "a")
	node, err := grid.OpenNode(context.Background(), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return overNetwork(t, node, &api.Server{
		Node: node, Archive: &scripted{}, Surveyor: surveyor{}, Shutdown: func() {}, Logger: slog.New(slog.DiscardHandler),
		Describe: func(context.Context) (grid.NodeStatus, error) { return grid.NodeStatus{ID: w.ID.String()}, nil },
	}, tune...)
}

// raw makes HTTPS requests as anybody could.
func (n *network) raw() *http.Client {
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	n.t.Cleanup(c.CloseIdleConnections)
	return c
}

// answer is what came of a request.
type answer struct {
	status int
	header http.Header
	problem
}

type problem struct{ Detail, Hint string }

func (n *network) ask(c *http.Client, method, path string, header ...string) answer {
	n.t.Helper()
	req, err := http.NewRequest(method, "https://"+n.at.Addr+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := answer{status: resp.StatusCode, header: resp.Header}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode >= 400 {
		if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" || json.Unmarshal(data, &out.problem) != nil {
			n.t.Errorf("%s %s: status %d, %s: %.200s", method, path, resp.StatusCode, ct, data)
		}
	}
	return out
}

func (n *network) refused(reason string) (count uint64) {
	for _, r := range n.remote.Refusals() {
		if r.Reason == reason && r.Protocol == "api" && r.From == "127.0.0.1" {
			count += r.Count
		}
	}
	return count
}

// Who has no good token gets nothing, is told why, and is counted.
func TestNoToken(t *testing.T) {
	n := serveNetwork(t)
	c := n.raw()
	good := n.token(grid.TokenViewer, "ann")
	wrong := good
	wrong.Secret = bytes.Repeat([]byte{7}, grid.TokenSecretSize)
	unknown := wrong
	unknown.ID = "aaaaaaaaaaaaa"
	brief := n.token(grid.TokenViewer, "brief", time.Second)
	removed := n.token(grid.TokenViewer, "removed")
	if _, err := n.node.RemoveToken(t.Context(), n.book, "removed"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the brief token expires", func() bool { _, _, err := n.book.Check(brief.ID, brief.Secret); return err != nil })
	const auth = "Authorization"
	for _, tt := range []struct {
		what   string
		header []string
		say    string
	}{
		{"nothing", nil, "no token"},
		{"an empty one", []string{auth, "Bearer "}, "does not begin"},
		{"another scheme", []string{auth, "Basic YW5uOnNlY3JldA=="}, "no one Bearer token"},
		{"two tokens", []string{auth, "Bearer " + good.String(), auth, "Bearer " + good.String()}, "no one Bearer token"},
		{"one that is cut", []string{auth, "Bearer " + good.String()[:80]}, "cut"},
		{"a wrong secret", []string{auth, "Bearer " + wrong.String()}, "not, or no more, one of this realm"},
		{"an unknown one", []string{auth, "Bearer " + unknown.String()}, "not, or no more, one of this realm"},
		{"one that was removed", []string{auth, "Bearer " + removed.String()}, "not, or no more, one of this realm"},
		{"one that has expired", []string{auth, "Bearer " + brief.String()}, "has expired"},
		{"a cookie", []string{"Cookie", "token=" + good.String()}, "no token"},
	} {
		for _, path := range []string{"/v1/node", "/metrics", "/ipfs/bafkqaaa", "/nowhere"} {
			a := n.ask(c, "GET", path, tt.header...)
			switch {
			case a.status == http.StatusTooManyRequests && tt.header != nil: // that is for another test
			case a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") || !strings.Contains(a.Detail, tt.say):
				t.Errorf("%s, %s: %+v", tt.what, path, a)
			case a.Hint == "" || a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Set-Cookie") != "":
				t.Errorf("%s, %s: %+v", tt.what, path, a)
			}
			if path == "/v1/node" && tt.header != nil {
				break // not to fail too often
			}
		}
	}
	if n.refused("token") < 10 {
		t.Errorf("counted: %+v", n.remote.Refusals())
	}
	if a := n.ask(c, "GET", "/v1/node", auth, "bearer "+good.String()); a.status != 200 {
		t.Errorf("a good one: %+v", a)
	}
	if a := n.ask(c, "GET", "/v1/nowhere", auth, "Bearer "+good.String()); a.status != 404 {
		t.Errorf("a route that is not: %+v", a)
	}
}

// Who tries many tokens has to wait; who has a good one does not, even from the same address.
func TestBruteForce(t *testing.T) {
	n := serveNetwork(t)
	c := n.raw()
	good := n.token(grid.TokenViewer, "ann")
	guess := good
	slowed := 0
	for i := range 50 {
		guess.Secret = bytes.Repeat([]byte{byte(i)}, grid.TokenSecretSize)
		a := n.ask(c, "GET", "/v1/node", "Authorization", "Bearer "+guess.String())
		switch {
		case a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") != "":
			slowed++
		case a.status != http.StatusUnauthorized || i > 15:
			t.Fatalf("guess %d: %+v", i, a)
		}
	}
	if slowed < 30 {
		t.Errorf("%d of 50 were told to wait", slowed)
	}
	if a := n.ask(c, "GET", "/v1/node", "Authorization", "Bearer "+good.String()); a.status != 200 {
		t.Errorf("a good one: %+v", a)
	}
	if n.refused("rate") == 0 {
		t.Errorf("counted: %+v", n.remote.Refusals())
	}
}

// What a page of another site may have made is refused, be the token good or not.
func TestOtherSites(t *testing.T) {
	n := serveNetwork(t)
	c := n.raw()
	token := "Bearer " + n.token(grid.TokenAdmin, "ann").String()
	for _, tt := range []struct {
		method, path string
		header       []string
		want         int
	}{
		{"GET", "/v1/node", []string{"Host", "evil.example"}, 421},
		{"GET", "/v1/node", []string{"Host", "127.0.0.1.evil.example:4748"}, 421},
		{"GET", "/v1/node", []string{"Host", "GRID.lab:4748"}, 200},
		{"GET", "/v1/node", []string{"Host", "localhost"}, 200},
		{"GET", "/v1/node", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, 403},
		{"POST", "/v1/shutdown", []string{"Origin", "https://evil.example"}, 403},
		{"POST", "/v1/shutdown", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"POST", "/v1/shutdown", []string{"Origin", "null"}, 403},
		{"DELETE", "/v1/tokens/x", []string{"Origin", "http://127.0.0.1"}, 403}, // another scheme and port
		{"POST", "/v1/shutdown", nil, 200},
		{"OPTIONS", "/v1/node", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}, 404},
	} {
		a := n.ask(c, tt.method, tt.path, append(tt.header, "Authorization", token)...)
		if a.status != tt.want {
			t.Errorf("%+v: %+v", tt, a)
		}
		for name := range a.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%+v: %s", tt, name)
			}
		}
	}
	if a := n.ask(c, "OPTIONS", "/v1/node", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); a.status != 401 {
		t.Errorf("a preflight: %+v", a)
	}
	if n.refused("browser") == 0 {
		t.Errorf("counted: %+v", n.remote.Refusals())
	}
}

// Only TLS 1.3 is spoken, and who is slow, or sends too much, is given up.
func TestHostileConnections(t *testing.T) {
	n := serveNetwork(t, func(s *http.Server, m *api.Remote) {
		s.ReadHeaderTimeout, s.IdleTimeout = 2*time.Second, 2*time.Second
		api.SetPatience(m, time.Second)
	})
	token := "Bearer " + n.token(grid.TokenAdmin, "ann").String()
	get := "GET /v1/node HTTP/1.1\r\nHost: localhost\r\n"
	tests := []struct {
		what, protocol, send, want string // protocol "": no TLS
	}{
		{"plain HTTP", "", get + "\r\n", "HTTP/1.0 400"},
		{"no handshake", "", "", ""},
		{"headers that do not end", "http/1.1", get + "X: ", ""},
		{"silence behind the preface", "h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", ""},
		{"huge headers", "http/1.1", get + "Authorization: " + token + "\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		{"a body that nobody wants", "http/1.1", get + "Content-Length: 10\r\n\r\n", "HTTP/1.1 401"},
		{"one with a token", "http/1.1", get + "Authorization: " + token + "\r\nContent-Length: 10\r\n\r\n", "HTTP/1.1 200"},
		{"a body that does not come", "http/1.1", "POST /v1/kv/txn HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + token + "\r\nContent-Length: 100000\r\n\r\n{", "HTTP/1.1 408"},
	}
	t.Run("all", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.what, func(t *testing.T) {
				t.Parallel()
				c, err := net.Dial("tcp", n.at.Addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if tt.protocol != "" {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tt.protocol}})
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.WriteString(c, tt.send) // the node may have hung up
				data, err := io.ReadAll(c)        // until it does
				if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
					t.Error("the node has not hung up")
				}
				if !strings.HasPrefix(string(data), tt.want) {
					t.Errorf("it says %.100q", data)
				}
			})
		}
	})
	if c, err := tls.Dial("tcp", n.at.Addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 is spoken")
	}
	if n.refused("slow") == 0 {
		t.Errorf("counted: %+v", n.remote.Refusals())
	}
	if _, err := n.client(grid.TokenViewer, "eve").Node(within(t)); err != nil {
		t.Errorf("who comes as one should: %v", err)
	}
}

// A stream that says nothing for longer than a piece may take goes on: nobody is slow.
func TestQuietFollower(t *testing.T) {
	for _, h2 := range []bool{true, false} {
		n := serveNetwork(t, func(_ *http.Server, m *api.Remote) { api.SetPatience(m, 100*time.Millisecond) })
		c := n.client(grid.TokenSubmitter, "ann")
		raw := n.raw()
		if !h2 {
			raw.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		}
		req, _ := http.NewRequest("GET", "https://"+n.at.Addr+"/v1/kv/watch?prefix=a", nil)
		req.Header.Set("Authorization", "Bearer "+n.token(grid.TokenViewer, "eve").String())
		resp, err := raw.Do(req)
		if err != nil || resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
			t.Fatal(resp, err)
		}
		select { // it is about time that passes
		case <-time.After(400 * time.Millisecond):
		case <-t.Context().Done():
		}
		if _, err := c.KVPut(within(t), "a", []byte("1"), api.KVCond{}); err != nil {
			t.Fatal(err)
		}
		lines, got := bufio.NewReader(resp.Body), ""
		for err == nil && !strings.Contains(got, `"a"`) {
			got, err = lines.ReadString('\n')
		}
		if err != nil {
			t.Errorf("HTTP/2 %v: %q, %v", h2, got, err)
		}
		resp.Body.Close()
		raw.CloseIdleConnections()
	}
}

// Who loses his token loses what goes on with it.
func TestCutOff(t *testing.T) {
	n := serveNetwork(t)
	for _, why := range []string{"removed", "expired"} {
		key := n.token(grid.TokenViewer, why)
		if why == "expired" {
			key = n.token(grid.TokenViewer, why, time.Second)
		}
		c := api.DialRemote(key, n.at)
		defer c.Close()
		ended := make(chan error, 1)
		begun := make(chan struct{}, 1)
		go func() {
			ended <- c.KVWatch(within(t), "cut", nil, func(api.KVChanges) error {
				select {
				case begun <- struct{}{}:
				default:
				}
				return nil
			})
		}()
		admin := n.client(grid.TokenAdmin, "admin")
		for following := false; !following; {
			if _, err := admin.KVPut(within(t), "cut", []byte("x"), api.KVCond{}); err != nil {
				t.Fatal(err)
			}
			select {
			case <-begun:
				following = true
			case err := <-ended:
				t.Fatalf("%s: ended before: %v", why, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
		if why == "removed" {
			if _, err := admin.RemoveToken(within(t), key.ID); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-ended; err == nil || grid.CodeOf(err) == grid.Deadline {
			t.Errorf("%s: what went on ended with %v", why, err)
		}
		_, err := c.Node(within(t))
		wantCode(t, err, grid.Denied)
	}
}

// Everything that is done with a token is done for the user that it is named for.
func TestTokenUser(t *testing.T) {
	n := serveNetwork(t)
	ann, bob, admin := n.client(grid.TokenSubmitter, "ann"), n.client(grid.TokenSubmitter, "bob"), n.client(grid.TokenAdmin, "root")
	ctx := within(t)
	module, err := ann.Add(ctx, bytes.NewReader(archive(t, &tar.Header{Name: "m.wasm", Mode: 0o644, Uname: "\x00asm"})), nil)
	if err != nil {
		t.Fatal(err)
	}
	link, err := ann.Stat(ctx, module.CID.Cid, "m.wasm")
	if err != nil {
		t.Fatal(err)
	}
	req := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: link.CID, Tasks: 1}}}}
	req.User = "bob"
	_, err = ann.Submit(ctx, req)
	wantCode(t, err, grid.Denied, "bob", "ann")
	_, err = admin.Call(ctx, api.Call{Request: req})
	wantCode(t, err, grid.Denied, "bob", "root")
	req.User = ""
	id, err := ann.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	st, err := bob.Watch(ctx, id, func(grid.JobStatus) error { return nil })
	if err != nil || st.User != "ann" {
		t.Errorf("it runs for %q, %v", st.User, err)
	}
	wantCode(t, bob.Cancel(ctx, id), grid.Denied, "ann", "bob")
	_, err = bob.RemoveJob(ctx, id)
	wantCode(t, err, grid.Denied, "ann", "bob")
	wantCode(t, ann.Cancel(ctx, id), grid.Conflict) // it has ended
	if _, err := admin.RemoveJob(ctx, id); err != nil {
		t.Error(err)
	}
	if _, err := ann.SetRef(ctx, "here", link.CID, grid.RefCond{}); err != nil {
		t.Error(err)
	}
	if _, err := admin.SetSecret(ctx, "s", []byte("x")); err != nil {
		t.Error(err)
	}
	made, err := admin.CreateToken(ctx, grid.TokenRequest{Name: "new"}, n.at.String())
	if err != nil || made.Role != grid.TokenViewer {
		t.Errorf("%+v, %v", made, err)
	}
	if key, err := api.ParseKey(made.Text); err != nil || key.ID != made.ID || len(key.At) != 1 || key.At[0].Addr != n.at.Addr {
		t.Errorf("%+v, %v", key, err)
	}
	if _, err := admin.RemoveToken(ctx, "new"); err != nil {
		t.Error(err)
	}
	log, err := admin.Audit(ctx, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	who := make(map[grid.AuditAct]string)
	for s := bufio.NewScanner(log); s.Scan(); {
		var l grid.AuditLine
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(s.Text(), made.Text) {
			t.Error("the log has the token in it")
		}
		if l.Fact != nil {
			who[l.Fact.Act] = l.Fact.User
		}
	}
	for act, user := range map[grid.AuditAct]string{
		grid.ActSubmit: "ann", grid.ActSetRef: "ann", grid.ActRemoveJob: "root", grid.ActSetSecret: "root", grid.ActCreateToken: "root", grid.ActRemoveToken: "root",
	} {
		if who[act] != user {
			t.Errorf("%s was done for %q, want %q", act, who[act], user)
		}
	}
	list, err := admin.Tokens(ctx)
	if err != nil || len(list) != 3 || list[0].Name != "ann" || list[0].Used.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	if data, err := n.client(grid.TokenViewer, "prometheus").Metrics(ctx); err != nil || !strings.Contains(string(data), "grid_") {
		t.Errorf("metrics: %v", err)
	}
}

// A client says what is wrong when it does not come to the node that it means.
func TestWrongNode(t *testing.T) {
	n := serveNetwork(t)
	key := n.token(grid.TokenViewer, "ann")
	ctx := within(t)
	ask := func(at api.Endpoint) error {
		c := api.DialRemote(key, at)
		defer c.Close()
		_, err := c.Node(ctx)
		return err
	}
	wantCode(t, ask(api.Endpoint{Addr: n.at.Addr, Pin: bytes.Repeat([]byte{1}, 32)}), grid.Denied, "is not the node")
	if err := ask(api.Endpoint{Addr: n.at.Addr}); err != nil {
		t.Errorf("known by the token's fingerprint: %v", err)
	}
	key.At = nil
	wantCode(t, ask(api.Endpoint{Addr: n.at.Addr}), grid.Denied, "does not trust the certificate")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	wantCode(t, ask(api.Endpoint{Addr: plain.Listener.Addr().String()}), grid.Unavailable, "does not speak TLS")
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	away := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	away.StartTLS()
	defer away.Close()
	if err := ask(api.Endpoint{Addr: away.Listener.Addr().String(), Pin: api.Pin(away.Certificate())}); err == nil || reached {
		t.Errorf("sent on: %v, %v", reached, err)
	}
	// Of several nodes the first that answers is used, whatever is wrong with the others.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := api.Endpoint{Addr: l.Addr().String(), Pin: n.at.Pin}
	l.Close()
	wrong := api.Endpoint{Addr: n.at.Addr, Pin: bytes.Repeat([]byte{1}, 32)}
	key.At = []api.Endpoint{dead, wrong, n.at}
	c, st, err := api.Reach(ctx, key)
	if err != nil || st.ID == "" {
		t.Fatalf("the third: %+v, %v", st, err)
	}
	c.Close()
	_, _, err = api.Reach(ctx, key, dead, wrong)
	wantCode(t, err, grid.Denied, "is not the node")
	_, _, err = api.Reach(ctx, key, dead)
	wantCode(t, err, grid.Unavailable, dead.Addr)
	key.Secret = bytes.Repeat([]byte{9}, 32)
	_, _, err = api.Reach(ctx, key)
	wantCode(t, err, grid.Denied, "one of this realm")
}

// One address does not take all connections, and what it had is free again when it goes.
func TestFloodOfConnections(t *testing.T) {
	n := serveNetwork(t)
	c := n.client(grid.TokenViewer, "ann")
	if _, err := c.Node(within(t)); err != nil {
		t.Fatal(err)
	}
	open := 0
	var all []net.Conn
	for range 80 {
		conn, err := net.Dial("tcp", n.at.Addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, conn)
	}
	eventually(t, "those that are too many are refused", func() bool { return n.refused("connection") >= 80-63 })
	for _, conn := range all {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		}
	}
	if open == 0 || open > 63 {
		t.Errorf("%d connections are open beside one", open)
	}
	if _, err := c.Node(within(t)); err != nil {
		t.Errorf("who was there before: %v", err)
	}
	for _, conn := range all {
		conn.Close()
	}
	eventually(t, "others come in again", func() bool {
		again := api.DialRemote(n.token(grid.TokenViewer, ""), n.at)
		defer again.Close()
		_, err := again.Node(within(t))
		return err == nil
	})
}

// A crowd does not keep out who comes with a token, nor end what he has.
func TestCrowd(t *testing.T) {
	n := serveNetwork(t)
	c := n.client(grid.TokenViewer, "ann")
	if _, err := c.Node(within(t)); err != nil {
		t.Fatal(err)
	}
	for i := range 700 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, byte(i>>8), byte(i))}}
		conn, err := d.DialContext(within(t), "tcp", n.at.Addr)
		if err != nil && i == 0 {
			t.Skipf("this machine has one address for itself: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	eventually(t, "some of them are refused", func() bool {
		all := uint64(0)
		for _, r := range n.remote.Refusals() {
			if r.Reason == grid.RefusedConn {
				all += r.Count
			}
		}
		return all >= 700-511
	})
	again := api.DialRemote(n.token(grid.TokenViewer, ""), n.at)
	defer again.Close()
	for _, c := range []*api.Client{c, again} {
		if _, err := c.Node(within(t)); err != nil {
			t.Error(err)
		}
	}
	if n.refused("connection") > 0 {
		t.Error("who has a token had to go")
	}
}

// BenchmarkQuestion is one small request, over the unix socket's handler alone and over TLS with a token.
func BenchmarkQuestion(b *testing.B) {
	w := fake.NewWorld(new(fake.Hub), "a")
	node, err := grid.OpenNode(context.Background(), w.Config())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { node.Close() })
	s := &api.Server{
		Node: node, Archive: &scripted{}, Surveyor: surveyor{}, Shutdown: func() {}, Logger: slog.New(slog.DiscardHandler),
		Describe: func(context.Context) (grid.NodeStatus, error) { return grid.NodeStatus{}, nil },
	}
	n := overNetwork(b, node, s)
	key := n.token(grid.TokenViewer, "bench")
	for name, c := range map[string]*api.Client{"local": api.Local(s.Handler()), "network": api.DialRemote(key, n.at)} {
		b.Run(name, func(b *testing.B) {
			defer c.Close()
			for b.Loop() {
				if _, err := c.Node(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
