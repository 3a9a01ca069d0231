package api_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// TestDashboard: the page's files are for everybody, and nothing else is; each is told what he may.
func TestDashboard(t *testing.T) {
	n := serveNetwork(t)
	c := n.raw()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if a := n.ask(c, "GET", "/dash/"); a.status != 200 || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the page: %+v", a)
	}
	if a := n.ask(c, "GET", "/", "Accept", "text/html"); a.status != 302 || a.header.Get("Location") != "/dash/" {
		t.Errorf("who typed the address: %+v", a)
	}
	for path, status := range map[string]int{"/": 401, "/dashboard": 401, "/v1/node": 401, "/v1/access": 401} {
		if a := n.ask(c, "GET", path); a.status != status {
			t.Errorf("%s: %d, not %d", path, a.status, status)
		}
	}
	if a := n.ask(c, "GET", "/dash/", "Host", "evil.example"); a.status != 421 {
		t.Errorf("by another name: %d", a.status)
	}
	if may, err := n.client(grid.TokenSubmitter, "ann").Access(t.Context()); err != nil || may.Role != grid.TokenSubmitter || may.Name != "ann" || may.Token == "" {
		t.Errorf("%+v, %v", may, err)
	}
	s := &api.Server{Node: n.node, Archive: &scripted{}, Surveyor: surveyor{}, Shutdown: func() {}, Logger: slog.New(slog.DiscardHandler)}
	if may, err := api.Local(s.Handler()).Access(t.Context()); err != nil || may.Role != grid.TokenAdmin || may.Token != "" {
		t.Errorf("on the socket: %+v, %v", may, err)
	}
}

// TestForward: what is passed on has the client's token and no other, and that the node is gone is told.
func TestForward(t *testing.T) {
	n := serveNetwork(t)
	srv := httptest.NewServer(n.client(grid.TokenViewer, "vic").Forward(slog.New(slog.DiscardHandler)))
	defer srv.Close()
	get := func(url string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer of-ours")
		req.Header.Set("Origin", url)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(data)
	}
	if status, text := get(srv.URL + "/v1/access"); status != 200 || !strings.Contains(text, `"vic"`) {
		t.Errorf("%d %s", status, text)
	}
	lost := api.DialRemote(n.token(grid.TokenViewer, "bob"), api.Endpoint{Addr: "127.0.0.1:1", Pin: n.at.Pin})
	gone := httptest.NewServer(lost.Forward(slog.New(slog.DiscardHandler)))
	defer gone.Close()
	if status, text := get(gone.URL + "/v1/access"); status != http.StatusBadGateway || !strings.Contains(text, `"unavailable"`) {
		t.Errorf("%d %s", status, text)
	}
}

// TestHostileNode: a node that means harm does not fill the memory of who asks it, or set anything for a browser that is served through it.
func TestHostileNode(t *testing.T) {
	defer api.SetMaxAnswer(1 << 20)()
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" { // an answer that nobody wants
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
			return
		}
		for name, value := range map[string]string{"Set-Cookie": "a=b", "Clear-Site-Data": `"*"`, "Access-Control-Allow-Origin": "*", "Refresh": "0; url=//evil.example", "Content-Type": "text/html"} {
			w.Header().Set(name, value)
		}
		if r.URL.Path == "/v1/node" {
			return
		}
		for text := []byte(`["`); r.Context().Err() == nil; text = []byte(strings.Repeat("x", 64<<10)) {
			if _, err := w.Write(text); err != nil {
				return
			}
		}
	}))
	folder, err := os.MkdirTemp("", "grid") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	node.Listener.Close()
	if node.Listener, err = net.Listen("unix", filepath.Join(folder, "s")); err != nil {
		t.Fatal(err)
	}
	node.Start()
	defer node.Close()
	c := api.Dial(filepath.Join(folder, "s"))
	defer c.Close()
	if _, err := c.Peers(t.Context()); grid.CodeOf(err) != grid.Limit {
		t.Errorf("an answer without end: %v", err)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Errorf("an answer without end that is not wanted: %v", err)
	}
	w := httptest.NewRecorder()
	c.Forward(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/v1/node", nil))
	for name := range w.Result().Header {
		if name != "Content-Type" && name != "X-Content-Type-Options" && name != "Content-Length" && name != "Date" {
			t.Errorf("%s is passed on", name)
		}
	}
}
