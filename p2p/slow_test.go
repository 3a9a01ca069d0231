package p2p

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestSlow: a call between slow nodes takes its round trip at least, and they have TCP only.
func TestSlow(t *testing.T) {
	slow := Slow{Latency: 30 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01}
	a := openWith(t, func(c *Config) { c.Slow = slow })
	b := openWith(t, func(c *Config) { c.Slow, c.Listen = slow, nil })
	for _, at := range b.Addrs() {
		if strings.Contains(at, "quic") {
			t.Errorf("it listens at %s", at)
		}
	}
	at := slices.IndexFunc(b.Addrs(), func(at string) bool { return strings.HasPrefix(at, "/ip4/127.0.0.1/tcp/") })
	if err := a.Connect(t.Context(), b.Addrs()[at]); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]*Host{{a, b}, {b, a}} { // whoever has dialled
		began := time.Now()
		req := bytes.Repeat([]byte("x"), 100_000)
		reply, err := way[0].Call(t.Context(), way[1].Self(), "echo/1", req)
		if took := time.Since(began); err != nil || !bytes.Equal(reply, req) || took < 2*(slow.Latency-slow.Jitter) {
			t.Errorf("%d bytes, %v, after %v", len(reply), err, took)
		}
	}
}

func TestSlowConfig(t *testing.T) {
	for _, s := range []Slow{{Latency: -1}, {Latency: time.Minute}, {Jitter: 1}, {Latency: 1, Loss: 1}, {Loss: -1}} {
		h, err := Open(context.Background(), Config{Identity: gateKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Slow: s})
		if err == nil {
			_ = h.Close()
		}
		if grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%+v: %v", s, err)
		}
	}
	quic := Config{Identity: gateKey(t), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Slow: Slow{Latency: 1}}
	if _, err := quic.check(); grid.CodeOf(err) != grid.Invalid {
		t.Errorf("QUIC: %v", err)
	}
}

// TestSlowBytes: whatever happens to them on their way, all bytes arrive, in order, and so does the end.
func TestSlowBytes(t *testing.T) {
	l, err := manet.Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make([]byte, 1<<20)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(sent)
	got := make(chan []byte, 1)
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		data, _ := io.ReadAll(c)
		got <- data
	}()
	far, err := manet.Dial(l.Multiaddr())
	if err != nil {
		t.Fatal(err)
	}
	c := (&Slow{Latency: 2 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.001}).conn(far)
	if c.RemoteMultiaddr().String() != l.Multiaddr().String() || c.LocalAddr().Network() != "tcp" {
		t.Errorf("it is at %s and %s", c.RemoteMultiaddr(), c.LocalAddr())
	}
	for rest := sent; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(40_000))
		if _, err := c.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if data := <-got; !bytes.Equal(data, sent) {
		t.Errorf("%d bytes arrived of %d", len(data), len(sent))
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it can be read after its end")
	}
	var _ net.Conn = c
}
