package guestnet

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// canned is a connection to a server that has said all it has to say.
type canned struct {
	netConn
	io.Reader
	closed int
}

func (c *canned) Read(b []byte) (int, error)  { return c.Reader.Read(b) }
func (c *canned) Write(b []byte) (int, error) { return len(b), nil }
func (c *canned) Close() error                { c.closed++; return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }

// Whatever a server says, a guest gets an error or a head in the format of docs/abi.md, within the limits.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.0 404 Not\rFound\nA: b\n  c\nA:\n\nuntil the end",
		"HTTP/1.1 204 x\x01y\r\nSet-Cookie: a\r\nSet-Cookie: b\xff\r\n\r\nmore",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, reply []byte, head bool) {
		c := &canned{Reader: bytes.NewReader(reply)}
		n, err := New(Config{
			Policy: Public, Limits: Limits{Header: 1 << 10, Response: 1 << 10},
			Dial: func(context.Context, netip.AddrPort) (net.Conn, error) { return c, nil },
			Own:  func() ([]netip.Addr, error) { return nil, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		s := new(State)
		if err := s.Reset(n, []string{publicAddr}); err != nil {
			t.Fatal(err)
		}
		method := "GET"
		if head {
			method = "HEAD"
		}
		if _, err := do(t.Context(), s, method+" https://x/\n\n"); errnoOf(err) != enotcapable {
			t.Fatalf("a host that was not granted: %v", err)
		}
		s.Reset(n, []string{publicAddr + ":80"})
		got, err := do(t.Context(), s, method+" http://"+publicAddr+"/\n\n")
		if err != nil && errnoOf(err) != eio && errnoOf(err) != efbig {
			t.Fatal(err)
		}
		if s.Reset(nil, nil); c.closed != 1 {
			t.Fatalf("the connection was closed %d times", c.closed)
		}
		if got == "" && err != nil {
			return
		}
		lines, body, ok := strings.Cut(got, "\n\n")
		if !ok || len(body) > 1<<10 || head && body != "" {
			t.Fatalf("%q gives %q", reply, got)
		}
		for i, line := range strings.Split(lines, "\n") {
			name, _, ok := strings.Cut(line, ": ")
			if i == 0 {
				ok = len(line) >= 4 && strings.Trim(line[:3], "0123456789") == "" && line[0] >= '2' && line[3] == ' '
				name = ""
			}
			if !ok || name != strings.ToLower(name) || !validValue(line) {
				t.Fatalf("%q gives the line %q", reply, line)
			}
		}
	})
}
