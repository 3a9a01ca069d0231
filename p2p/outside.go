package p2p

import (
	"errors"
	"log/slog"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Limits of a host that strangers use: a fraction of what the swarm's has, so that they cannot take the
// machine from it.
const (
	outsideLow     = 48
	outsideHigh    = 96
	outsideConns   = 192
	outsideStreams = 4096
	outsideMemory  = 512 << 20
	maxOutside     = 32 // addresses to listen on
)

// OpenOutside starts a host of another network than the swarm's, such as IPFS: with its own identity,
// connections and limits, but none of our protocols. It listens on the multiaddrs, or, when there are none, on
// all interfaces at the port or, if that is taken, at any. Whoever opens the host closes it.
func OpenOutside(key crypto.PrivKey, listenOn []string, port int, log *slog.Logger) (host.Host, error) {
	if len(listenOn) > maxOutside {
		return nil, grid.Errorf(grid.Limit, "p2p: %d listen addresses, at most %d are allowed", len(listenOn), maxOutside)
	}
	addrs, err := parseListen(listenOn)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	fail := func(err error) (host.Host, error) {
		return nil, grid.Errorf(grid.Internal, "p2p: start libp2p: %w", err)
	}
	limits := rcmgr.PartialLimitConfig{System: rcmgr.ResourceLimits{
		Conns: outsideConns, ConnsInbound: outsideConns / 2, ConnsOutbound: outsideConns / 2,
		Streams: outsideStreams, StreamsInbound: outsideStreams / 2, StreamsOutbound: outsideStreams / 2,
		Memory: outsideMemory,
	}}
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Build(rcmgr.DefaultLimits.AutoScale())), rcmgr.WithMetricsDisabled())
	if err != nil {
		return fail(err)
	}
	conns, err := connmgr.NewConnManager(outsideLow, outsideHigh, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return fail(errors.Join(err, manager.Close()))
	}
	h, err := buildLibp2p(key, nil, Slow{}, manager, conns, libp2p.DisableMetrics())
	if err != nil {
		return fail(err)
	}
	if err := listen(h.Network(), addrs, port, true, log); err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}
