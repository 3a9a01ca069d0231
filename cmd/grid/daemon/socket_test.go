package daemon

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid/api"
)

// endless is a body that does not end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestSocketAbuse: whatever a program of this user sends to the socket, the node hangs up on it or tells what is wrong, and serves the others.
func TestSocketAbuse(t *testing.T) {
	home := filepath.Join(t.TempDir(), "h")
	d, err := Open(t.Context(), Config{Home: home, Swarm: "abuse", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, NoNearby: true, NoUPnP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const host = "Host: localhost\r\n"
	for _, c := range []struct {
		what string
		send io.Reader
		want []string // what the answer may begin with; "" is hanging up
	}{
		{"not HTTP", strings.NewReader("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), []string{"HTTP/1.1 400"}},
		{"an endless line", io.MultiReader(strings.NewReader("GET /"), endless{}), []string{"HTTP/1.1 431", "HTTP/1.1 400", ""}},
		{"huge headers", strings.NewReader("GET /v1/node HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), []string{"HTTP/1.1 431", ""}},
		{"a body that is too long", strings.NewReader("POST /v1/drain HTTP/1.1\r\n" + host + "Content-Length: 200000\r\n\r\n" + strings.Repeat(" ", 200_000)), []string{"HTTP/1.1 400", "HTTP/1.1 413", "HTTP/1.1 422"}},
		{"an unknown field", strings.NewReader("POST /v1/drain HTTP/1.1\r\n" + host + "Content-Length: 12\r\n\r\n" + `{"onn":true }`), []string{"HTTP/1.1 400"}},
	} {
		conn, err := net.Dial("unix", Socket(home))
		if err != nil {
			t.Fatal(c.what, err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		go func() { _, _ = io.Copy(conn, c.send) }() // ends with the connection
		line, err := bufio.NewReader(conn).ReadString('\n')
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%s: the node has not hung up", c.what)
		}
		ok := false
		for _, want := range c.want {
			ok = ok || want == "" && line == "" || want != "" && strings.HasPrefix(line, want)
		}
		if !ok {
			t.Errorf("%s: it says %.100q, %v", c.what, line, err)
		}
		conn.Close()
	}
	// A document without end, of which a client would go on to send.
	conn, err := net.Dial("unix", Socket(home))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/v1/jobs", endless{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = req.Write(conn) }()
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatalf("a document without end: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode < 400 || resp.StatusCode >= 500 {
		t.Errorf("a document without end: status %d", resp.StatusCode)
	}
	client := api.Dial(Socket(home))
	defer client.Close()
	if _, err := client.Node(t.Context()); err != nil {
		t.Errorf("who comes as one should: %v", err)
	}
}
