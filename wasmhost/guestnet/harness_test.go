package guestnet

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type netConn = net.Conn

// world is a network of names and servers for one guest.
type world struct {
	t testing.TB
	// answers are those to look-ups of a name, one after the other; the last one stays.
	answers map[string][]string
	// serve has a connection to an address. It runs in a goroutine of its own and closes the connection.
	serve   func(to netip.AddrPort, c net.Conn)
	refused map[string]bool // addresses that take no connections

	mu      sync.Mutex
	lookups []string
	dials   []string
	mine    []netip.Addr
	done    sync.WaitGroup
	once    sync.Once
}

func (w *world) Resolve(_ context.Context, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups = append(w.lookups, host)
	list, ok := w.answers[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.2:53", IsNotFound: true}
	}
	if len(list) > 1 {
		w.answers[host] = list[1:]
	}
	var out []netip.Addr
	for _, s := range strings.Fields(list[0]) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

func (w *world) Dial(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials = append(w.dials, to.String())
	if w.refused[to.Addr().String()] {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 9, 9, 9)}, Err: errors.New("connection refused")}
	}
	here, there := net.Pipe()
	serve := w.serve
	w.done.Go(func() { serve(to, there) })
	return here, nil
}

func (w *world) own() ([]netip.Addr, error) { return w.mine, nil }

// guest gives the state of a guest in the world. At the test's end all its connections must be closed.
func (w *world) guest(cfg Config, grants ...string) *State {
	w.t.Helper()
	cfg.Resolve, cfg.Dial, cfg.Own = w.Resolve, w.Dial, w.own
	n, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	s := new(State)
	if err := s.Reset(n, grants); err != nil {
		w.t.Fatal(err)
	}
	w.once.Do(func() { w.t.Cleanup(w.done.Wait) }) // after all guests are gone
	w.t.Cleanup(func() { s.Reset(nil, nil) })
	return s
}

// answering serves each request of a connection with what f gives, as it is; "" closes the connection.
func answering(f func(to netip.AddrPort, r *http.Request) string) func(netip.AddrPort, net.Conn) {
	return func(to netip.AddrPort, c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			text := f(to, r)
			if _, err := io.WriteString(c, text); err != nil || text == "" {
				return
			}
		}
	}
}

// hello answers every request in the same way.
var hello = answering(func(netip.AddrPort, *http.Request) string {
	return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Server: test\r\n\r\nhello"
})

const helloRead = "200 OK\ncontent-length: 5\nx-server: test\n\nhello"

// get makes a request and reads its response to the end.
func get(ctx context.Context, s *State, url string) (string, error) {
	return do(ctx, s, "GET "+url+"\n\n")
}

func do(ctx context.Context, s *State, request string) (string, error) {
	r, err := s.fetch(ctx, []byte(request))
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}
