package p2p_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// BenchmarkCall is one request of 64 bytes and its reply, beside the same over a bare libp2p stream, one
// for each, and over a TCP connection that stays open.
func BenchmarkCall(b *testing.B) {
	req := make([]byte, 64)
	for name, more := range map[string]func(*p2p.Config){
		"grid":     func(*p2p.Config) {},
		"measured": func(c *p2p.Config) { c.Metrics = prometheus.NewRegistry() },
	} {
		b.Run(name, func(b *testing.B) {
			x, y := open(b, more), open(b, more)
			y.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
			connect(b, x, y)
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Call(ctx, y.Self(), "echo/1", req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("relayed", func(b *testing.B) {
		x, y := relayed(b)
		y.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := x.Call(ctx, y.Self(), "echo/1", req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("libp2p", func(b *testing.B) {
		x, y := bare(b), bare(b)
		y.SetStreamHandler("/echo", func(s network.Stream) {
			_, _ = io.Copy(s, s)
			_ = s.Close()
		})
		meet(b, x, y)
		b.ReportAllocs()
		for b.Loop() {
			s, err := x.NewStream(b.Context(), y.ID(), "/echo")
			if err != nil {
				b.Fatal(err)
			}
			roundTrip(b, s, req)
			_ = s.Close()
		}
	})
	b.Run("tcp", func(b *testing.B) {
		c := tcpPair(b, func(c net.Conn) { _, _ = io.Copy(c, c) })
		b.ReportAllocs()
		for b.Loop() {
			roundTrip(b, c, req)
		}
	})
}

// relayed are two nodes that reach each other through a third.
func relayed(b *testing.B) (x, y *p2p.Host) {
	relay := open(b, func(c *p2p.Config) { c.Relay = p2p.RelayOn })
	x, y = open(b), open(b)
	for _, h := range []*p2p.Host{x, y} {
		h.Hide()
		connect(b, h, relay)
	}
	poll(b, 20*time.Second, "no place at the relay", func() bool { return len(y.Reach().Relays) > 0 })
	if err := x.Connect(b.Context(), y.Reach().Relays[0]); err != nil {
		b.Fatal(err)
	}
	return x, y
}

func roundTrip(b *testing.B, s io.ReadWriter, req []byte) {
	if _, err := s.Write(req); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, len(req))); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBulk is one way through a stream, in pieces of 1 MiB.
func BenchmarkBulk(b *testing.B) {
	sink := func(s io.Reader) {
		buf := make([]byte, 256<<10)
		for err := error(nil); err == nil; {
			_, err = s.Read(buf)
		}
	}
	b.Run("grid", func(b *testing.B) {
		x, y := open(b), open(b)
		y.Handle("sink/1", func(_ context.Context, _ peer.ID, s grid.Stream) { sink(s) })
		connect(b, x, y)
		s, err := x.Open(b.Context(), y.Self(), "sink/1")
		if err != nil {
			b.Fatal(err)
		}
		pour(b, s)
		_ = s.Reset()
	})
	b.Run("relayed", func(b *testing.B) { // as fast as a relay lets strangers to it be
		x, y := relayed(b)
		y.Handle("sink/1", func(_ context.Context, _ peer.ID, s grid.Stream) { sink(s) })
		s, err := x.Open(b.Context(), y.Self(), "sink/1")
		if err != nil {
			b.Fatal(err)
		}
		pour(b, s)
		_ = s.Reset()
	})
	b.Run("libp2p", func(b *testing.B) {
		x, y := bare(b), bare(b)
		y.SetStreamHandler("/sink", func(s network.Stream) { sink(s) })
		meet(b, x, y)
		s, err := x.NewStream(b.Context(), y.ID(), "/sink")
		if err != nil {
			b.Fatal(err)
		}
		pour(b, s)
		_ = s.Reset()
	})
	b.Run("tcp", func(b *testing.B) {
		pour(b, tcpPair(b, func(c net.Conn) { sink(c) }))
	})
}

func pour(b *testing.B, s io.Writer) {
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := s.Write(data); err != nil {
			b.Fatal(err)
		}
	}
}

// bare is a libp2p host as near to ours as its options go, without anything of ours.
func bare(b *testing.B) host.Host {
	h, err := libp2p.New(
		libp2p.ListenAddrStrings(loopback),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.DisableMetrics(), libp2p.DisableRelay(),
	)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = h.Close() })
	return h
}

func meet(b *testing.B, x, y host.Host) {
	if err := x.Connect(b.Context(), peer.AddrInfo{ID: y.ID(), Addrs: y.Addrs()}); err != nil {
		b.Fatal(err)
	}
}

func tcpPair(b *testing.B, serve func(net.Conn)) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Close()
		_ = l.Close()
		<-done
	})
	return c
}
