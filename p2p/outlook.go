package p2p

import (
	"cmp"
	"context"
	"crypto/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/wasmgrid/wasmgrid/grid"
)

// How a node finds out how others reach it, and helps them to.
const (
	lookEvery    = 2 * time.Second
	wantRelays   = 2
	relayAddrs   = 4                // announced of one relay
	relayAgain   = 15 * time.Second // until a relay that gave no place is asked again
	reserveIn    = 10 * time.Second
	probeIn      = 20 * time.Second
	probeAgain   = 10 * time.Minute // until an address that was judged is tried again
	maxProbed    = 16               // addresses
	maxSightings = 64
	punchIn      = 5 * time.Second  // for each of three tries
	punchFirst   = 10 * time.Second // between tries to get off a relay; then twice as long…
	punchLast    = 10 * time.Minute // …up to this
	punchAtOnce  = 4
	overlap      = 10 * time.Second // that a relayed connection outlives the direct one beside it
	renewBefore  = reservationTTL / 2
)

// outlook is what a node knows of how it is seen from outside: whether it can be reached there, and at which addresses. From that
// follows what it announces, whether it relays for others, and whether it needs a relay itself.
type outlook struct {
	h        *Host
	mode     Relaying
	mapped   bool // it asks the router for ports
	announce []ma.Multiaddr
	relay    *relayService
	autonat  *autonatv2.AutoNAT
	punch    *holepunch.Service
	sub      event.Subscription
	news     event.Emitter
	wake     chan struct{} // holds one token

	mu       sync.Mutex
	seen     map[string]sighting // by the IP address of who saw
	outside  bool                // somebody has connected from outside
	verdicts map[string]*verdict // by address
	relays   map[peer.ID]time.Time
	refused  map[peer.ID]time.Time // relays that gave no place, and when
	punches  map[peer.ID]*punching
}

// sighting is from where a peer outside sees this node's packets come, or where it has sent its own.
type sighting struct {
	by   peer.ID
	addr ma.Multiaddr
	conn network.Conn // by which; what it says is true while it lasts
	out  bool         // this node has dialled
}

func (s *sighting) holds() bool { return s.conn == nil || !s.conn.IsClosed() }

// verdict is how tries of others to connect to an address went: the last three, oldest first.
type verdict struct {
	tries []bool
	at    time.Time
}

// punching is when to try again to get a direct connection to a peer.
type punching struct {
	delay time.Duration
	due   time.Time
	busy  bool
}

func newOutlook(h *Host, cfg *Config, announce []ma.Multiaddr) *outlook {
	return &outlook{
		h: h, mode: cfg.Relay, mapped: cfg.PortMap, announce: announce, relay: newRelayService(h), wake: make(chan struct{}, 1),
		seen: make(map[string]sighting), verdicts: make(map[string]*verdict), relays: make(map[peer.ID]time.Time),
		refused: make(map[peer.ID]time.Time), punches: make(map[peer.ID]*punching),
	}
}

// start begins to look around, once there is a host; on is the same host, for conversations with members.
func (o *outlook) start(on host.Host) (err error) {
	if o.news, err = o.h.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful); err != nil {
		return err
	}
	if o.sub, err = o.h.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerConnectednessChanged), new(event.EvtPeerProtocolsUpdated),
	}, eventbus.BufSize(256), eventbus.Name("grid/outlook")); err != nil {
		return err
	}
	dialer, err := newDialer(o.h.psk)
	if err != nil {
		return err
	}
	if o.autonat, err = autonatv2.New(dialer, o.h.metrics.reachability()...); err != nil {
		_ = dialer.Close()
		return err
	}
	if err := o.autonat.Start(on); err != nil {
		return err
	}
	ids, ok := o.h.host.(interface{ IDService() identify.IDService })
	if !ok {
		return grid.Errorf(grid.Internal, "a host that does not identify peers")
	}
	if o.punch, err = holepunch.NewService(on, ids.IDService(), o.punchAddrs,
		append(o.h.metrics.punching(), holepunch.DirectDialTimeout(punchIn), holepunch.WithAddrFilter(punchFilter{}))...); err != nil {
		return err
	}
	if o.mode == RelayOn {
		if err := o.relay.set(true); err != nil {
			return err
		}
	}
	o.h.wg.Go(func() { o.follow() })
	o.h.wg.Go(func() { o.run(on) })
	return nil
}

// newDialer is a host with another key than the node's, from which addresses of others are tried.
func newDialer(psk pnet.PSK) (host.Host, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(append(transports(psk, Slow{}), libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.ForceReachabilityPublic(), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.SwarmOpts(swarm.WithUDPBlackHoleSuccessCounter(nil), swarm.WithIPv6BlackHoleSuccessCounter(nil)))...)
	if err != nil {
		return nil, err
	}
	return bare{h}, nil
}

// close ends what start began, but for the goroutines, which the host waits for.
func (o *outlook) close() {
	if o.punch != nil {
		_ = o.punch.Close()
	}
	if o.autonat != nil {
		o.autonat.Close()
	}
	if o.sub != nil {
		_ = o.sub.Close()
	}
	if o.news != nil {
		_ = o.news.Close()
	}
	_ = o.relay.close()
}

// follow takes note of what peers say of this node, until the subscription is closed.
func (o *outlook) follow() {
	for ev := range o.sub.Out() {
		if e, ok := ev.(event.EvtPeerIdentificationCompleted); ok {
			o.identified(e)
		}
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// trusts reports whether it counts what a peer says of this node.
func (o *outlook) trusts(id peer.ID) bool {
	return o.h.gatekeeper == nil || o.h.gatekeeper.gate.Admits(id)
}

func (o *outlook) identified(e event.EvtPeerIdentificationCompleted) {
	from := e.Conn.RemoteMultiaddr()
	if isCircuit(from) || !manet.IsPublicAddr(from) {
		return
	}
	ip, err := manet.ToIP(from)
	if err != nil {
		return
	}
	own := o.interfaces()
	o.mu.Lock()
	defer o.mu.Unlock()
	out := e.Conn.Stat().Direction == network.DirOutbound
	if a := e.ObservedAddr; a != nil && isQUIC(a) == isQUIC(from) && manet.IsPublicAddr(a) && !isCircuit(a) {
		for by, s := range o.seen {
			if !s.holds() || len(o.seen) >= maxSightings {
				delete(o.seen, by)
			}
		}
		o.seen[ip.String()] = sighting{e.Peer, a, e.Conn, out}
	}
	// Who has come by a hole that was punched has come through a relay before.
	if !out && o.trusts(e.Peer) && slices.ContainsFunc(own, publicIP) &&
		!slices.ContainsFunc(o.h.host.Network().ConnsToPeer(e.Peer), func(c network.Conn) bool { return isCircuit(c.RemoteMultiaddr()) }) {
		o.outside = true
	}
}

func isQUIC(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}

func publicIP(ip net.IP) bool {
	a, err := manet.FromIP(ip)
	return err == nil && manet.IsPublicAddr(a)
}

// interfaces are the IP addresses of this machine.
func (o *outlook) interfaces() (ips []net.IP) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ips = append(ips, n.IP)
		}
	}
	return ips
}

// sightings are how peers outside see this node.
func (o *outlook) sightings() (all []sighting) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.seen {
		if s.holds() && o.trusts(s.by) {
			all = append(all, s)
		}
	}
	return all
}

// ports are the addresses from which QUIC packets of this node come, as each peer outside that it has dialled sees them; all, and
// where others have sent theirs.
func ports(seen []sighting, all bool) (addrs []ma.Multiaddr) {
	for _, s := range seen {
		if isQUIC(s.addr) && (all || s.out) {
			addrs = append(addrs, s.addr)
		}
	}
	return addrs
}

// nat says what is between this node and the outside: "none", "endpoint-independent" (the same port for everybody, so that holes can be
// punched), "symmetric" (another for each), "some" when too few have seen this node to tell, or "" when none has.
func (o *outlook) nat() string {
	seen := o.sightings()
	if len(seen) == 0 {
		return ""
	}
	own := o.interfaces()
	behind := slices.ContainsFunc(seen, func(s sighting) bool {
		ip, err := manet.ToIP(s.addr)
		return err == nil && !slices.ContainsFunc(own, ip.Equal)
	})
	mine := ports(seen, false)
	switch {
	case !behind:
		return "none"
	case len(mine) < 2:
		return "some"
	case len(ma.Unique(mine)) == 1:
		return "endpoint-independent"
	}
	return "symmetric"
}

// publicAddrs are those of the node's own addresses, mapped ones included, that somebody outside could reach.
func (o *outlook) publicAddrs() []ma.Multiaddr {
	all := o.announce
	if h, ok := o.h.host.(interface{ AllAddrs() []ma.Multiaddr }); ok {
		all = append(slices.Clone(all), h.AllAddrs()...)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) || isCircuit(a) })
	all = ma.Unique(all)
	return all[:min(len(all), maxProbed)]
}

// punchAddrs is where a peer is told to send packets, so that they meet ours.
func (o *outlook) punchAddrs() []ma.Multiaddr {
	all := ma.Unique(append(ports(o.sightings(), true), o.publicAddrs()...))
	return onlyQUIC(all)
}

func onlyQUIC(addrs []ma.Multiaddr) (out []ma.Multiaddr) {
	for _, a := range addrs {
		if isQUIC(a) && manet.IsPublicAddr(a) && !isCircuit(a) && len(out) < maxProbed {
			out = append(out, a)
		}
	}
	return out
}

// punchFilter bounds to where a peer may have this node send packets.
type punchFilter struct{}

// FilterLocal is told at holepunch.AddrFilter.
func (punchFilter) FilterLocal(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr { return addrs }

// FilterRemote is told at holepunch.AddrFilter: nowhere within its own network.
func (punchFilter) FilterRemote(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	return onlyQUIC(addrs)
}

// add notes how a try of somebody went.
func (v *verdict) add(reached bool, now time.Time) {
	if v.tries = append(v.tries, reached); len(v.tries) > 3 {
		v.tries = v.tries[1:]
	}
	v.at = now
}

// state is "reachable" if one of three got through, "unreachable" if two did not, else "unknown".
func (v *verdict) state() string {
	switch {
	case v == nil:
	case slices.Contains(v.tries, true):
		return "reachable"
	case len(v.tries) >= 2:
		return "unreachable"
	}
	return "unknown"
}

// reachability is "public", "private" or "unknown".
func (o *outlook) reachability() string {
	addrs := o.publicAddrs()
	o.mu.Lock()
	judged, outside := 0, o.outside
	for _, a := range addrs {
		switch o.verdicts[string(a.Bytes())].state() {
		case "reachable":
			o.mu.Unlock()
			return "public"
		case "unreachable":
			judged++
		}
	}
	o.mu.Unlock()
	nat := o.nat()
	switch {
	case len(addrs) > 0 && judged == len(addrs):
		return "private"
	case outside && slices.ContainsFunc(o.interfaces(), publicIP):
		return "public"
	case len(addrs) == 0 && nat != "" && nat != "none":
		return "private"
	}
	return "unknown"
}

// addrs is what the node tells others, made of the addresses that it has: not those that were tried in vain, but what it was told
// to announce, and relays.
func (o *outlook) addrs(own []ma.Multiaddr) []ma.Multiaddr {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(own), func(a ma.Multiaddr) bool {
		return isCircuit(a) || manet.IsPublicAddr(a) && o.verdicts[string(a.Bytes())].state() == "unreachable"
	})
	out = append(out, o.announce...)
	for id := range o.relays {
		out = append(out, o.circuitsBy(id)...)
	}
	return ma.Unique(out)
}

// circuitsBy is this node's addresses by a relay.
func (o *outlook) circuitsBy(id peer.ID) (out []ma.Multiaddr) {
	by, err := ma.NewMultiaddr("/p2p/" + id.String() + "/p2p-circuit")
	if err != nil {
		return nil
	}
	addrs := direct(o.h.host.Peerstore().Addrs(id))
	for _, fit := range []func(ma.Multiaddr) bool{manet.IsPublicAddr, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) }, func(ma.Multiaddr) bool { return true }} {
		for _, a := range addrs {
			if fit(a) && len(out) < relayAddrs {
				out = append(out, a.Encapsulate(by))
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

// run looks around until the host closes.
func (o *outlook) run(on host.Host) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for probes := make(chan struct{}, 1); ; {
		o.lookForRelays(on)
		o.punchHoles()
		o.dropRelayed()
		select {
		case probes <- struct{}{}:
			o.h.background(func() {
				defer func() { <-probes }()
				o.probe()
			})
		default: // the last is still under way
		}
		if err := o.relay.set(o.mode == RelayOn || o.mode == RelayAuto && o.reachability() == "public"); err != nil {
			o.h.log.Warn("cannot relay for others", "err", err)
		}
		select {
		case <-o.h.ctx.Done():
			return
		case <-tick.C:
		case <-o.wake:
			if !pause(o.h.ctx, lookEvery/20) { // events come in groups
				return
			}
		}
	}
}

// probe has members try to connect to the addresses of which it is not known yet whether that is possible, or not any more.
func (o *outlook) probe() {
	now := time.Now()
	for _, a := range o.publicAddrs() {
		key := string(a.Bytes())
		o.mu.Lock()
		v := o.verdicts[key]
		done := v.state() != "unknown" && now.Sub(v.at) < probeAgain
		o.mu.Unlock()
		if done {
			continue
		}
		ctx, cancel := context.WithTimeout(o.h.ctx, probeIn)
		res, err := o.autonat.GetReachability(ctx, []autonatv2.Request{{Addr: a, SendDialData: true}})
		cancel()
		if err != nil || res.Reachability == network.ReachabilityUnknown || res.AllAddrsRefused {
			if err == autonatv2.ErrNoPeers {
				return
			}
			continue
		}
		o.mu.Lock()
		if v = o.verdicts[key]; v == nil {
			if len(o.verdicts) >= 4*maxProbed {
				clear(o.verdicts)
			}
			v = &verdict{}
			o.verdicts[key] = v
		}
		before := v.state()
		v.add(res.Reachability == network.ReachabilityPublic, time.Now())
		after := v.state()
		o.mu.Unlock()
		if before != after {
			o.h.log.Info("learnt whether nodes outside reach an address", "addr", a, "state", after)
			o.tell()
		}
	}
}

// tell has libp2p look at the addresses anew, and tell them to peers.
func (o *outlook) tell() {
	o.mu.Lock()
	var all []ma.Multiaddr
	for id := range o.relays {
		all = append(all, o.circuitsBy(id)...)
	}
	o.mu.Unlock()
	_ = o.news.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: all})
}

// directly reports whether a peer is connected otherwise than by a relay.
func (h *Host) directly(id peer.ID) bool {
	return slices.ContainsFunc(h.host.Network().ConnsToPeer(id), func(c network.Conn) bool { return !isCircuit(c.RemoteMultiaddr()) })
}

// lookForRelays sees to it that a node that cannot be reached has places at two relays, and one that can has none.
func (o *outlook) lookForRelays(on host.Host) {
	need := o.reachability() != "public"
	now := time.Now()
	var ask []peer.ID
	changed := false
	o.mu.Lock()
	for id, until := range o.relays {
		switch {
		case !need || !o.h.directly(id) || !now.Before(until):
			delete(o.relays, id)
			o.h.host.ConnManager().Unprotect(id, "relay")
			changed = true
		case until.Sub(now) < renewBefore && now.Sub(o.refused[id]) > relayAgain:
			ask = append(ask, id)
		}
	}
	for id, at := range o.refused {
		if now.Sub(at) > relayAgain {
			delete(o.refused, id)
		}
	}
	if missing := wantRelays - len(o.relays); need && missing > 0 {
		ask = append(ask, o.candidates(missing)...)
	}
	o.mu.Unlock()
	for _, id := range ask {
		ctx, cancel := context.WithTimeout(o.h.ctx, reserveIn)
		r, err := circuit.Reserve(ctx, on, peer.AddrInfo{ID: id})
		cancel()
		if o.h.ctx.Err() != nil {
			return
		}
		o.mu.Lock()
		if err != nil {
			o.refused[id] = now
			o.h.log.Debug("a relay gives no place", "relay", id, "err", err)
		} else {
			if _, ok := o.relays[id]; !ok {
				o.h.log.Info("others reach this node through a relay", "relay", id)
				changed = true
			}
			o.relays[id] = r.Expiration
			o.h.host.ConnManager().Protect(id, "relay")
		}
		o.mu.Unlock()
	}
	if changed {
		o.tell()
	}
}

// candidates are up to n more relays, the nearest first. It is called with the lock held.
func (o *outlook) candidates(n int) (ids []peer.ID) {
	store := o.h.host.Peerstore()
	for _, e := range o.h.roster.List() {
		if _, ok := o.relays[e.ID]; ok || !o.refused[e.ID].IsZero() || !o.h.directly(e.ID) {
			continue
		}
		if offers, err := store.SupportsProtocols(e.ID, hopProtocol); err == nil && len(offers) > 0 {
			ids = append(ids, e.ID)
		}
	}
	slices.SortStableFunc(ids, func(a, b peer.ID) int { return cmp.Compare(store.LatencyEWMA(a), store.LatencyEWMA(b)) })
	return ids[:min(len(ids), n)]
}

// punchHoles tries again now and then to connect directly to those who have come through a relay; the first try is libp2p's.
func (o *outlook) punchHoles() {
	if !slices.Contains(o.h.host.Mux().Protocols(), holepunch.Protocol) {
		return // it has no address to punch from yet
	}
	now := time.Now()
	relayed := make(map[peer.ID]bool)
	for _, c := range o.h.host.Network().Conns() {
		if isCircuit(c.RemoteMultiaddr()) && c.Stat().Direction == network.DirInbound && !o.h.directly(c.RemotePeer()) && o.trusts(c.RemotePeer()) {
			relayed[c.RemotePeer()] = true
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	busy := 0
	for id, p := range o.punches {
		if p.busy {
			busy++
		} else if !relayed[id] {
			delete(o.punches, id)
		}
	}
	for id := range relayed {
		p := o.punches[id]
		if p == nil {
			p = &punching{delay: punchFirst, due: now.Add(punchFirst)}
			o.punches[id] = p
		}
		if p.busy || now.Before(p.due) || busy >= punchAtOnce {
			continue
		}
		busy++
		p.busy = true
		o.h.background(func() {
			err := o.punch.DirectConnect(id)
			o.mu.Lock()
			defer o.mu.Unlock()
			p.busy = false
			p.delay = min(2*p.delay, punchLast)
			p.due = time.Now().Add(jitter(p.delay))
			o.h.log.Debug("tried to get off a relay", "peer", id, "err", err)
		})
	}
}

// dropRelayed ends relayed connections beside which there is a direct one.
func (o *outlook) dropRelayed() {
	now := time.Now()
	for _, c := range o.h.host.Network().Conns() {
		if !isCircuit(c.RemoteMultiaddr()) {
			continue
		}
		for _, d := range o.h.host.Network().ConnsToPeer(c.RemotePeer()) {
			if !isCircuit(d.RemoteMultiaddr()) && now.Sub(d.Stat().Opened) > overlap && now.Sub(c.Stat().Opened) > overlap {
				_ = c.Close()
				break
			}
		}
	}
}

// reach fills in what is known.
func (o *outlook) reach(r *grid.Reach) {
	r.Reachability, r.NAT, r.PortMap = o.reachability(), o.nat(), o.mapped
	r.Relaying, r.Circuits = o.relay.on()
	for _, a := range o.publicAddrs() {
		o.mu.Lock()
		r.Outside = append(r.Outside, grid.AddrReach{Addr: a.String(), State: o.verdicts[string(a.Bytes())].state()})
		o.mu.Unlock()
	}
	for _, a := range ma.Unique(ports(o.sightings(), true)) {
		r.Seen = append(r.Seen, a.String())
	}
	for _, p := range o.h.host.Network().Peers() { // with one there may be two connections, if both began one at once
		if !o.h.directly(p) {
			r.Relayed++
		}
	}
	slices.SortFunc(r.Seen, strings.Compare)
}
