package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/fx"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/roster"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

const (
	saveEvery = time.Minute      // the peer file
	provideIn = 10 * time.Second // what Provide takes at most
	addrTTL   = 10 * time.Minute // of addresses that somebody else told us
)

// Host is a node's place in the swarm. It is a grid.Network and safe for concurrent use.
type Host struct {
	id     peer.ID
	prefix string // of our protocols: "/grid/SWARM/"
	joinAs protocol.ID
	log    *slog.Logger

	host       host.Host
	table      *serve.Table
	roster     roster.Roster
	members    *members
	keeper     *keeper
	directory  directory
	announcer  *announcer
	multicast  *multicast // nil without MDNS
	peerFile   string
	psk        pnet.PSK // nil: none
	metrics    measured
	gatekeeper *gatekeeper   // nil in an open swarm
	outlook    *outlook      // nil over a host that somebody else has started
	requestBy  time.Duration // for a request to arrive, once its stream is there; 0: requestTimeout

	mu    sync.Mutex      // from closing's beginning on, nothing is added to wg
	ctx   context.Context // of the background work below; ends when closing begins
	stop  context.CancelFunc
	wg    sync.WaitGroup
	close func() error
}

var _ grid.Network = (*Host)(nil)

// Open starts a node: it listens, and goes on to look for others in the background. ctx bounds only
// Open itself. The host must be closed.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	set, err := cfg.check()
	if err != nil {
		return nil, err
	}
	h := &Host{
		id:       set.id,
		prefix:   "/grid/" + set.swarm + "/",
		log:      cfg.Logger,
		keeper:   newKeeper(),
		metrics:  measured{cfg.Metrics},
		peerFile: cfg.PeerFile,
		joinAs:   protocol.ID("/grid/" + cmp.Or(cfg.JoinAs, set.swarm) + "/" + string(JoinProtocol)),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.table = serve.New(h.log, h.id, withOwnRates(cfg.Rates))
	h.close = sync.OnceValue(h.shutdown)
	if cfg.Gate != nil {
		h.gatekeeper = newGatekeeper(cfg.Gate, h)
		h.table.Guard(cfg.Gate.Allows)
	} else if cfg.Guard != nil {
		h.table.Guard(cfg.Guard)
	}
	h.outlook = newOutlook(h, &cfg, set.announce)
	if err := h.start(&cfg, set); err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

// start makes the parts, each of which shutdown ends if it is there.
func (h *Host) start(cfg *Config, set settings) (err error) {
	options := []libp2p.Option{
		libp2p.AddrsFactory(h.outlook.addrs),
		// The first version of AutoNAT would ask whoever says that it speaks it; see outlook for what is asked, and of whom.
		libp2p.ForceReachabilityPublic(),
		circuits(func(h2 host.Host) host.Host { return gated{h2, h.gatekeeper} }),
	}
	if h.gatekeeper != nil {
		options = append(options, libp2p.ConnectionGater(h.gatekeeper))
	}
	if cfg.PortMap && !onlyLoopback(set.listen) {
		options = append(options, libp2p.NATPortMap())
	}
	if h.host, err = h.newLibp2p(cfg, options...); err != nil {
		return grid.Errorf(grid.Internal, "p2p: start libp2p: %w", err)
	}
	on := gated{h.host, h.gatekeeper}
	if h.gatekeeper != nil {
		h.gatekeeper.guard(h.host)
	}
	if err := h.gather(); err != nil {
		return err
	}
	if err := listen(h.host.Network(), set.listen, DefaultPort, cfg.PSK == nil && !cfg.Slow.on(), h.log); err != nil {
		return err
	}
	if err := h.outlook.start(on); err != nil {
		return grid.Errorf(grid.Internal, "p2p: start libp2p: %w", err)
	}
	for _, info := range set.bootstrap {
		h.keeper.fix(info)
	}
	if h.peerFile != "" {
		peers, err := loadPeerFile(h.peerFile)
		if err != nil {
			h.log.Warn("starting without remembered peers", "err", err)
		}
		h.keeper.restore(slices.DeleteFunc(peers, func(p remembered) bool { return p.ID == h.id }))
	}
	if h.directory, err = openKad(on, strings.TrimSuffix(h.prefix, "/"), h.keeper.infos); err != nil {
		return grid.Errorf(grid.Internal, "p2p: start the Kademlia table: %w", err)
	}
	h.announcer = newAnnouncer(h.directory)
	return h.discover(cfg, set.swarm)
}

// gather begins to follow who of those connected is a member.
func (h *Host) gather() (err error) {
	h.keeper.dial = h.dial
	h.keeper.connected, h.keeper.directly = h.connected, h.directly
	h.keeper.members = h.roster.Len
	h.keeper.refused = func(id peer.ID, err error) {
		if h.ctx.Err() == nil {
			h.log.Warn("cannot join through a node, trying again", "peer", id, "err", err, "hint", grid.AdviceOf(err))
		}
	}
	if h.members, err = newMembers(h); err != nil {
		return grid.Errorf(grid.Internal, "p2p: start libp2p: %w", err)
	}
	h.wg.Go(h.members.run)
	h.Handle(pingProtocol, pong)
	return nil
}

// discover starts looking for others.
func (h *Host) discover(cfg *Config, swarm string) error {
	if cfg.Nearby != "" {
		root, err := openNearby(cfg.Nearby)
		if err != nil {
			return err
		}
		n := &nearby{
			self: h.id, swarm: swarm, root: root, folder: cfg.Nearby, log: h.log,
			addrs: func() []ma.Multiaddr { return direct(h.host.Addrs()) }, known: h.directly, found: h.keeper.offer,
		}
		h.wg.Go(func() { n.run(h.ctx) })
	}
	if cfg.MDNS {
		h.multicast = startMDNS(h.host, swarm, h.keeper.offer, h.log)
	}
	h.wg.Go(func() { h.keeper.run(h.ctx) })
	h.wg.Go(func() { h.announcer.run(h.ctx) })
	h.wg.Go(func() { seek(h.ctx, h.directory, swarm, h.roster.Len, h.keeper.offer, h.addrInfo, h.log) })
	if h.peerFile != "" {
		h.wg.Go(func() {
			for pause(h.ctx, saveEvery) {
				h.save()
			}
		})
	}
	return nil
}

func (h *Host) newLibp2p(cfg *Config, more ...libp2p.Option) (host.Host, error) {
	limits, err := newResourceManager(protocol.ID(h.prefix + kadProtocol))
	if err != nil {
		return nil, err
	}
	conns, err := newConnManager()
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	if h.psk = cfg.PSK; h.psk != nil {
		h.log.Info("a pre-shared key is used: TCP only, no QUIC")
	}
	return buildLibp2p(cfg.Identity, cfg.PSK, cfg.Slow, counting{limits, h.table, h.gatekeeper}, conns, append(more, h.metrics.host())...)
}

// transports are what carries connections, and what secures them. QUIC knows no pre-shared key, and cannot be slowed down.
func transports(psk pnet.PSK, slow Slow) []libp2p.Option {
	list := []libp2p.Option{
		slow.tcp(),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), // before Noise: it is half as fast again
		libp2p.Security(noise.ID, noise.New),
	}
	switch {
	case psk != nil:
		return append(list, libp2p.PrivateNetwork(psk))
	case slow.on():
		return list
	}
	return append(list, libp2p.Transport(quic.NewTransport))
}

// circuits lets a host connect, and be connected to, through relays, with which it speaks by another form of itself.
func circuits(by func(host.Host) host.Host) libp2p.Option {
	return libp2p.WithFxOption(fx.Invoke(func(h host.Host, u transport.Upgrader) error { return circuit.AddTransport(by(h), u) }))
}

// buildLibp2p makes a host that does not listen yet, and closes the limits and the manager if it cannot.
func buildLibp2p(key crypto.PrivKey, psk pnet.PSK, slow Slow, limits network.ResourceManager, conns *connmgr.BasicConnMgr, more ...libp2p.Option) (host.Host, error) {
	h, err := libp2p.New(slices.Concat(transports(psk, slow), []libp2p.Option{
		libp2p.Identity(key),
		libp2p.UserAgent("grid"),
		libp2p.NoListenAddrs,
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials)),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.DisableRelay(), // libp2p's own way of adding it: see circuits
	}, more)...)
	if err != nil {
		return nil, errors.Join(err, conns.Close(), limits.Close())
	}
	return h, nil
}

// listen listens on all the addresses, or, when there are none, at a port of all interfaces, else at any.
func listen(net network.Network, addrs []ma.Multiaddr, port int, udp bool, log *slog.Logger) error {
	if len(addrs) > 0 {
		for _, a := range addrs {
			if err := net.Listen(a); err != nil {
				return grid.Errorf(grid.Unavailable, "p2p: listen on %s: %w", a, err).
					Hint("choose another port, or 0 for any; perhaps another node is running there")
			}
		}
		return nil
	}
	if err := listenAll(net, port, udp); err == nil {
		return nil
	}
	log.Info("the default port is taken, listening on any", "port", port)
	if err := listenAll(net, 0, udp); err != nil {
		return grid.Errorf(grid.Unavailable, "p2p: listen: %w", err).Hint("does this machine allow opening sockets?")
	}
	return nil
}

// dial connects to a peer. What has delays of its own between tries dials again without libp2p's.
func (h *Host) dial(ctx context.Context, info peer.AddrInfo, again bool) error {
	if info.ID == h.id {
		return nil
	}
	if s, ok := h.host.Network().(*swarm.Swarm); ok && again {
		s.Backoff().Clear(info.ID)
	}
	if h.gatekeeper != nil {
		if err := h.gatekeeper.recent(info.ID); err != nil {
			return grid.Errorf(grid.CodeOf(err), "p2p: connect to %s: %w", info.ID, err)
		}
	}
	if h.connected(info.ID) && !h.directly(info.ID) { // by a relay, which is not what it is dialled for
		if info.Addrs = direct(info.Addrs); len(info.Addrs) == 0 {
			return nil
		}
		ctx = network.WithForceDirectDial(ctx, "instead of the relay")
	}
	if err := h.host.Connect(allowRelayed(ctx), info); err != nil {
		return grid.Errorf(grid.Unavailable, "p2p: connect to %s: %w", info.ID, err).Hint("%s", unreached(err, h.psk))
	}
	if h.gatekeeper != nil {
		if err := h.gatekeeper.await(ctx, info.ID); err != nil {
			_ = h.host.Network().ClosePeer(info.ID)
			return grid.Errorf(grid.CodeOf(err), "p2p: connect to %s: %w", info.ID, err)
		}
	}
	if h.roster.Has(info.ID) {
		return nil
	}
	// What a peer says of itself can be older than its newest protocol, so ask for ours.
	s, err := h.openConnected(ctx, info.ID, pingProtocol, pingTimeout)
	if grid.CodeOf(err) == grid.Unsupported {
		_ = h.host.Network().ClosePeer(info.ID)
		return grid.Errorf(grid.Invalid, "p2p: connect to %s: it is not in the swarm %q", info.ID, h.swarm()).
			Hint("start both nodes with the same swarm name")
	}
	if err != nil {
		return err
	}
	if _, err := ping(s); err != nil {
		_ = s.Reset()
		return err
	}
	_ = s.Close()
	h.members.identified(info.ID, []protocol.ID{h.protocolID(pingProtocol)})
	return nil
}

// Connect joins the swarm through the node at a multiaddr with /p2p/ID, and dials it again whenever it
// is lost. The error is Invalid for an address that makes no sense or a node of another swarm, and
// Unavailable when nobody answers; then the address is forgotten.
func (h *Host) Connect(ctx context.Context, addr string) error {
	info, err := parsePeerAddr(addr)
	if err != nil {
		return err
	}
	if info.ID == h.id {
		return grid.Errorf(grid.Invalid, "p2p: %s is this node itself", addr)
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := h.dial(ctx, info, true); err != nil {
		return err
	}
	h.keeper.fix(info)
	return nil
}

// Addrs are the multiaddrs where this node is reached, with /p2p/ID, as Connect takes them; those through relays last.
func (h *Host) Addrs() []string {
	var addrs []string
	all := h.host.Addrs()
	slices.SortStableFunc(all, func(a, b ma.Multiaddr) int { return strings.Compare(string(through(a)), string(through(b))) })
	for _, a := range all {
		addrs = append(addrs, a.String()+"/p2p/"+h.id.String())
	}
	return addrs
}

// Protect keeps the connections to a peer from being trimmed when there are too many, until Unprotect
// with the same tag.
func (h *Host) Protect(id peer.ID, tag string) { h.host.ConnManager().Protect(id, tag) }

// Unprotect ends Protect.
func (h *Host) Unprotect(id peer.ID, tag string) { h.host.ConnManager().Unprotect(id, tag) }

// Refusals lists what this node has refused its peers, the most frequent first. Of more than 512 peers, protocols and
// reasons those that were refused longest ago are counted together.
func (h *Host) Refusals() []grid.Refusal { return h.table.Refusals() }

// Protocols lists what Serve and Handle were called for, sorted.
func (h *Host) Protocols() []grid.Protocol { return h.table.Protocols() }

// Self is told at grid.Network.
func (h *Host) Self() peer.ID { return h.id }

// Peers is told at grid.Network.
func (h *Host) Peers() []grid.PeerInfo {
	list := h.roster.List()
	infos := make([]grid.PeerInfo, 0, len(list))
	for _, e := range list {
		info := grid.PeerInfo{ID: e.ID, RTT: h.host.Peerstore().LatencyEWMA(e.ID), Since: e.Since}
		for _, c := range h.host.Network().ConnsToPeer(e.ID) {
			at := c.RemoteMultiaddr()
			info.Addrs = append(info.Addrs, at.String())
			switch by := through(at); {
			case by != "" && info.Transport == "":
				info.Transport, info.Relay = "relay", by.String()
			case by == "" && (info.Transport == "" || info.Relay != ""):
				info.Transport, info.Relay = c.ConnState().Transport, ""
			}
		}
		infos = append(infos, info)
	}
	return infos
}

// Subscribe is told at grid.Network.
func (h *Host) Subscribe(f func(grid.PeerEvent)) (stop func()) { return h.roster.Subscribe(f) }

// Provide is told at grid.Network. An announcement that cannot be made now, such as by a node that is
// alone, is made later, and each is repeated while the node runs; of both the newest 1,024. So the
// error is Invalid or Unsupported, for a root that cannot be announced at all.
func (h *Host) Provide(ctx context.Context, root cid.Cid) error {
	if err := grid.CheckCID(root); err != nil {
		return err
	}
	announced := len(h.directory.Neighbours()) > 0 &&
		bounded(ctx, provideIn, func(ctx context.Context) error { return h.directory.Provide(ctx, root) }) == nil
	h.announcer.add(root, announced)
	return nil
}

// Providers is told at grid.Network. It never names this node. It takes at most 5 s; what was found by
// then is the result.
func (h *Host) Providers(ctx context.Context, root cid.Cid, n int) ([]peer.ID, error) {
	if err := grid.CheckCID(root); err != nil {
		return nil, err
	}
	if n <= 0 || len(h.directory.Neighbours()) == 0 {
		return nil, nil
	}
	var infos []peer.AddrInfo
	err := bounded(ctx, lookupTimeout, func(ctx context.Context) (err error) {
		infos, err = h.directory.Providers(ctx, root, n+1) // one of them may be us
		return err
	})
	if err != nil {
		return nil, grid.Errorf(grid.Unavailable, "p2p: providers of %s: %w", root, err)
	}
	var ids []peer.ID
	for _, info := range infos {
		if info.ID != h.id {
			h.host.Peerstore().AddAddrs(info.ID, info.Addrs, addrTTL)
			ids = append(ids, info.ID)
		}
	}
	slices.SortStableFunc(ids, func(a, b peer.ID) int { return cmp.Compare(h.distance(a), h.distance(b)) })
	return ids[:min(len(ids), n)], nil
}

// distance is small for a peer that is near: connected, and quick to answer.
func (h *Host) distance(id peer.ID) time.Duration {
	if !h.roster.Has(id) {
		return time.Hour
	}
	if rtt := h.host.Peerstore().LatencyEWMA(id); rtt > 0 {
		return rtt
	}
	return time.Minute
}

// Close leaves the swarm. It may be called twice, from several goroutines; all wait for the end.
func (h *Host) Close() error { return h.close() }

// shutdown goes from the outside in. First nothing new begins: no discovery, no dials, no handlers; our
// file nearby is removed and the peers are remembered while they are still connected. Then the
// connections go, which frees the handlers that wait on their streams. Then the handlers are waited
// for, and last the subscribers.
func (h *Host) shutdown() error {
	h.mu.Lock()
	h.stop()
	h.mu.Unlock()
	h.table.Stop()
	if h.multicast != nil {
		h.multicast.close()
	}
	if h.peerFile != "" && h.members != nil {
		h.save()
	}
	if h.members != nil {
		h.members.close()
	}
	if h.outlook != nil {
		h.outlook.close()
	}
	var errs []error
	if h.directory != nil {
		errs = append(errs, h.directory.Close())
	}
	if h.host != nil {
		errs = append(errs, h.host.Close())
	}
	h.wg.Wait()
	h.table.Wait()
	h.roster.Close()
	if err := errors.Join(errs...); err != nil {
		return grid.Errorf(grid.Internal, "p2p: close: %w", err)
	}
	return nil
}

// save writes the peer file.
func (h *Host) save() {
	now := time.Now()
	for _, e := range h.roster.List() {
		h.keeper.remember(h.addrInfo(e.ID), now)
	}
	data, err := formatPeerFile(h.keeper.list())
	if err == nil {
		err = replaceFile(h.peerFile, data, false)
	}
	if err != nil {
		h.log.Warn("cannot remember peers", "file", h.peerFile, "err", err)
	}
}

func (h *Host) swarm() string { return strings.TrimSuffix(strings.TrimPrefix(h.prefix, "/grid/"), "/") }

func (h *Host) protocolID(p grid.Protocol) protocol.ID {
	if p == JoinProtocol {
		return h.joinAs
	}
	return protocol.ID(h.prefix + string(p))
}

// HangUp ends the connections to a peer.
func (h *Host) HangUp(id peer.ID) { _ = h.host.Network().ClosePeer(id) }

// connected reports whether there is a connection, be it through a relay.
func (h *Host) connected(id peer.ID) bool {
	return h.host.Network().Connectedness(id) != network.NotConnected
}

func (h *Host) addrInfo(id peer.ID) peer.AddrInfo { return h.host.Peerstore().PeerInfo(id) }

// listenAll listens on all interfaces, with TCP and, with udp, QUIC. Where there is no IPv6, IPv4 is enough.
func listenAll(net network.Network, port int, udp bool) error {
	var opened []ma.Multiaddr
	for _, form := range []string{"/ip4/0.0.0.0/tcp/%d", "/ip4/0.0.0.0/udp/%d/quic-v1", "/ip6/::/tcp/%d", "/ip6/::/udp/%d/quic-v1"} {
		if !udp && strings.Contains(form, "/udp/") {
			continue
		}
		a, err := ma.NewMultiaddr(fmt.Sprintf(form, port))
		if err != nil {
			return err
		}
		if err := net.Listen(a); err == nil {
			opened = append(opened, a)
		} else if strings.HasPrefix(form, "/ip4") || errors.Is(err, syscall.EADDRINUSE) {
			if s, ok := net.(*swarm.Swarm); ok {
				s.ListenClose(opened...)
			}
			return err
		}
	}
	return nil
}

// onlyLoopback reports whether nobody else than this machine can reach what listens at the addresses; none are the default ones.
func onlyLoopback(addrs []ma.Multiaddr) bool {
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
}
