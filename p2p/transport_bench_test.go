package p2p_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// BenchmarkTransport is one way through a stream, and one call of 64 bytes and its reply, over each transport: by a node of ours and by
// a bare libp2p host, to the same bare libp2p host.
func BenchmarkTransport(b *testing.B) {
	key := p2p.NewPSK()
	for _, on := range []struct {
		name   string
		listen string
		psk    pnet.PSK
		with   []libp2p.Option
	}{
		{"tcp+tls", "/ip4/127.0.0.1/tcp/0", nil, []libp2p.Option{libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New)}},
		{"tcp+noise", "/ip4/127.0.0.1/tcp/0", nil, []libp2p.Option{libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New)}},
		{"quic", "/ip4/127.0.0.1/udp/0/quic-v1", nil, []libp2p.Option{libp2p.Transport(quic.NewTransport)}},
		{"tcp+tls+psk", "/ip4/127.0.0.1/tcp/0", key, []libp2p.Option{
			libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.PrivateNetwork(key),
		}},
	} {
		bare := func(b *testing.B, listen ...string) host.Host {
			h, err := libp2p.New(append([]libp2p.Option{libp2p.ListenAddrStrings(listen...), libp2p.DisableMetrics(), libp2p.DisableRelay()}, on.with...)...)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = h.Close() })
			return h
		}
		// serve is the other end: it takes all it gets, or answers with as much.
		serve := func(b *testing.B) host.Host {
			h := bare(b, on.listen)
			h.SetStreamHandler("/grid/bench/sink/1", func(s network.Stream) {
				_, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{s}, make([]byte, 256<<10))
			})
			h.SetStreamHandler("/grid/bench/echo/1", func(s network.Stream) {
				defer s.Close()
				buf := make([]byte, 1+64) // a length, and as many bytes; the reply has a status before it
				if _, err := io.ReadFull(s, buf); err == nil {
					_, _ = s.Write(append([]byte{0}, buf...))
				}
			})
			return h
		}
		ours := func(b *testing.B, to host.Host) *p2p.Host {
			h, err := p2p.Open(b.Context(), p2p.Config{Identity: newKey(b), Swarm: "bench", PSK: on.psk, Listen: []string{on.listen}})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = h.Close() })
			to.SetStreamHandler("/grid/bench/ping/1", func(s network.Stream) { _, _ = io.Copy(s, s) })
			if err := h.Connect(b.Context(), to.Addrs()[0].String()+"/p2p/"+to.ID().String()); err != nil {
				b.Fatal(err)
			}
			return h
		}
		theirs := func(b *testing.B, to host.Host) host.Host {
			h := bare(b)
			meet(b, h, to)
			return h
		}
		b.Run(on.name+"/bulk/grid", func(b *testing.B) {
			to := serve(b)
			s, err := ours(b, to).Open(b.Context(), to.ID(), "sink/1")
			if err != nil {
				b.Fatal(err)
			}
			pour(b, s)
			_ = s.Reset()
		})
		b.Run(on.name+"/bulk/libp2p", func(b *testing.B) {
			to := serve(b)
			s, err := theirs(b, to).NewStream(b.Context(), to.ID(), "/grid/bench/sink/1")
			if err != nil {
				b.Fatal(err)
			}
			pour(b, s)
			_ = s.Reset()
		})
		req := make([]byte, 64)
		b.Run(on.name+"/call/grid", func(b *testing.B) {
			to := serve(b)
			h := ours(b, to)
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			for b.Loop() {
				if _, err := h.Call(ctx, to.ID(), "echo/1", req); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(on.name+"/call/libp2p", func(b *testing.B) {
			to := serve(b)
			h := theirs(b, to)
			framed := append([]byte{64}, req...)
			for b.Loop() {
				s, err := h.NewStream(b.Context(), to.ID(), "/grid/bench/echo/1")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.Write(framed); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(s, make([]byte, 1+len(framed))); err != nil {
					b.Fatal(err)
				}
				_ = s.Close()
			}
		})
	}
}

// everybody is a gate that knows all, which shows what the gate itself costs.
type everybody struct{}

func (everybody) Admits(peer.ID) bool                 { return true }
func (everybody) Allows(peer.ID, grid.Protocol) error { return nil }
func (everybody) Greet(ctx context.Context, _ peer.ID, call func(context.Context, []byte) ([]byte, error)) error {
	_, err := call(ctx, []byte("hello"))
	return err
}

// BenchmarkConnect is a connection with the first call over it: in an open swarm, in one with a gate that admits everybody after one
// round trip, and between bare libp2p hosts. What members show each other costs besides: see package member.
func BenchmarkConnect(b *testing.B) {
	for _, gate := range []p2p.Gate{nil, everybody{}} {
		b.Run(map[bool]string{true: "open", false: "gate"}[gate == nil], func(b *testing.B) {
			make := func() *p2p.Host {
				h, err := p2p.Open(b.Context(), p2p.Config{Identity: newKey(b), Swarm: "bench", Listen: []string{loopback}, Gate: gate})
				if err != nil {
					b.Fatal(err)
				}
				h.Serve(p2p.JoinProtocol, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
				h.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
				return h
			}
			y := make()
			defer y.Close()
			for b.Loop() {
				b.StopTimer()
				x := make()
				b.StartTimer()
				if err := x.Connect(b.Context(), y.Addrs()[0]); err != nil {
					b.Fatal(err)
				}
				if _, err := x.Call(b.Context(), y.Self(), "echo/1", nil); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_ = x.Close()
				b.StartTimer()
			}
		})
	}
	b.Run("libp2p", func(b *testing.B) {
		y := bare(b)
		y.SetStreamHandler("/echo", func(s network.Stream) { _, _ = io.Copy(s, s) })
		for b.Loop() {
			b.StopTimer()
			x := bare(b)
			b.StartTimer()
			meet(b, x, y)
			s, err := x.NewStream(b.Context(), y.ID(), "/echo")
			if err != nil {
				b.Fatal(err)
			}
			roundTrip(b, s, []byte("hi"))
			b.StopTimer()
			_ = x.Close()
			b.StartTimer()
		}
	})
}
