package p2p

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"

	"github.com/wasmgrid/wasmgrid/grid"
)

// directory is what we ask of a distributed hash table. Its methods give up when ctx ends.
type directory interface {
	Provide(ctx context.Context, key cid.Cid) error
	Providers(ctx context.Context, key cid.Cid, n int) ([]peer.AddrInfo, error)
	// Find looks for the addresses of one peer.
	Find(ctx context.Context, id peer.ID) (peer.AddrInfo, error)
	// Neighbours are the peers in the routing table. While there are none, nothing else works.
	Neighbours() []peer.ID
	Close() error
}

// kad is a Kademlia table of the swarm's own, spoken by no other network.
type kad struct{ *dht.IpfsDHT }

// bucketSize is Kademlia's K: on how many nodes a record is kept, and how many neighbours we want at
// each distance. Our swarms are small and stable next to the public network, which uses 20.
const bucketSize = 10

// kadProtocol is the table's protocol, behind the swarm's prefix.
const kadProtocol = "kad/1.0.0"

// openKad joins the table. prefix is "/grid/SWARM"; the protocol is then "/grid/SWARM/kad/1.0.0". Every
// node serves the table: left to decide by itself, a node that no stranger can reach never would.
func openKad(h host.Host, prefix string, bootstrap func() []peer.AddrInfo) (*kad, error) {
	d, err := dht.New(h,
		dht.ProtocolPrefix(protocol.ID(prefix)),
		dht.Mode(dht.ModeServer),
		dht.BucketSize(bucketSize),
		dht.BootstrapPeersFunc(bootstrap),
		dht.DisableValues(),
		dht.ProviderDatastore(newRecords()),
	)
	if err != nil {
		return nil, err
	}
	if err := d.Bootstrap(context.Background()); err != nil { // starts the refreshing, which Close ends
		_ = d.Close()
		return nil, err
	}
	return &kad{d}, nil
}

func (k *kad) Neighbours() []peer.ID { return k.RoutingTable().ListPeers() }
func (k *kad) Provide(ctx context.Context, key cid.Cid) error {
	return k.IpfsDHT.Provide(ctx, key, true)
}

func (k *kad) Find(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	return k.FindPeer(ctx, id)
}

func (k *kad) Providers(ctx context.Context, key cid.Cid, n int) ([]peer.AddrInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the search when n are found
	var infos []peer.AddrInfo
	for info := range k.FindProvidersAsync(ctx, key, n) {
		if infos = append(infos, info); len(infos) == n {
			break
		}
	}
	return infos, nil
}

// Times of discovery.
const (
	provideTimeout = 15 * time.Second
	lookupTimeout  = 5 * time.Second
	findTimeout    = 2 * time.Second
	roundFirst     = time.Second // between the first rounds of looking for others, then twice as long…
	roundLast      = time.Minute // …up to this
	announceFull   = time.Hour   // between two announcements of a node with enough peers: the few that keep the records hear all nodes
	provideAgain   = 12 * time.Hour
	maxProvided    = 1024 // roots that are announced again; records last 48 hours
)

// rendezvous is the key under which the nodes of a swarm announce themselves.
func rendezvous(swarm string) cid.Cid {
	return grid.NewBlock(cid.Raw, []byte("grid rendezvous 1 "+swarm)).CID()
}

// seek makes rounds until ctx ends: it announces this node at the rendezvous, and offers the others
// that did, and the neighbours in the table, to the keeper. So nodes that joined through different
// peers get to know one another.
func seek(ctx context.Context, d directory, swarm string, members func() int, offer func(peer.AddrInfo), addrs func(peer.ID) peer.AddrInfo, log *slog.Logger) {
	key := rendezvous(swarm)
	wait := roundFirst
	var announced time.Time
	for pause(ctx, jitter(wait)) {
		neighbours := d.Neighbours()
		if len(neighbours) == 0 {
			wait = roundFirst // nobody to ask: looking is cheap
			continue
		}
		wait = min(2*wait, roundLast)
		full := members() >= targetPeers
		if !full || time.Since(announced) >= announceFull {
			if err := bounded(ctx, provideTimeout, func(ctx context.Context) error { return d.Provide(ctx, key) }); err != nil {
				log.Debug("cannot announce this node", "err", err)
			} else {
				announced = time.Now()
			}
		}
		if full {
			continue
		}
		for _, id := range neighbours {
			offer(addrs(id))
		}
		_ = bounded(ctx, lookupTimeout, func(ctx context.Context) error {
			infos, err := d.Providers(ctx, key, targetPeers)
			for _, info := range infos {
				offer(info)
			}
			return err
		})
	}
}

func bounded(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// pause waits for d and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// announcer announces roots that could not be announced at once, and all of them again before their
// records lapse. It knows the newest maxProvided roots. It is safe for concurrent use.
type announcer struct {
	d    directory
	news chan struct{} // holds one token

	mu      sync.Mutex
	roots   []cid.Cid // oldest first
	pending map[cid.Cid]bool
}

func newAnnouncer(d directory) *announcer {
	return &announcer{d: d, news: make(chan struct{}, 1), pending: make(map[cid.Cid]bool)}
}

// add notes a root, as announced already or still to announce.
func (a *announcer) add(root cid.Cid, announced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.Index(a.roots, root); i >= 0 {
		a.roots = slices.Delete(a.roots, i, i+1)
	}
	if len(a.roots) == maxProvided {
		delete(a.pending, a.roots[0])
		a.roots = slices.Delete(a.roots, 0, 1)
	}
	a.roots = append(a.roots, root)
	if announced {
		delete(a.pending, root)
		return
	}
	a.pending[root] = true
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// next is a root to announce: the newest first, as somebody may be waiting for that.
func (a *announcer) next() (cid.Cid, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, root := range slices.Backward(a.roots) {
		if a.pending[root] {
			return root, true
		}
	}
	return cid.Undef, false
}

func (a *announcer) done(root cid.Cid) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pending, root)
}

func (a *announcer) again() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, root := range a.roots {
		a.pending[root] = true
	}
}

// run announces until ctx ends.
func (a *announcer) run(ctx context.Context) {
	tick := time.NewTicker(provideAgain)
	defer tick.Stop()
	for {
		delay := redialMin
		for root, ok := a.next(); ok; root, ok = a.next() {
			err := bounded(ctx, provideTimeout, func(ctx context.Context) error {
				if len(a.d.Neighbours()) == 0 {
					return grid.Errorf(grid.Unavailable, "p2p: nobody to announce to")
				}
				return a.d.Provide(ctx, root)
			})
			if err == nil {
				a.done(root)
				delay = redialMin
				continue
			}
			if !pause(ctx, jitter(delay)) {
				return
			}
			delay = min(2*delay, redialMax/4)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.news:
		case <-tick.C:
			a.again()
		}
	}
}

// multicast finds nodes on the local network.
type multicast struct {
	service mdns.Service
	offer   func(peer.AddrInfo)
}

// startMDNS never fails a node: a network without multicast is a network like any other.
func startMDNS(h host.Host, swarm string, offer func(peer.AddrInfo), log *slog.Logger) *multicast {
	m := &multicast{offer: offer}
	m.service = mdns.NewMdnsService(h, "_grid-"+swarm+"._udp", m)
	if err := m.service.Start(); err != nil {
		log.Debug("no multicast discovery", "err", err)
	}
	return m
}

// HandlePeerFound is called by libp2p, on goroutines that it does not wait for.
func (m *multicast) HandlePeerFound(info peer.AddrInfo) { m.offer(info) }

func (m *multicast) close() { _ = m.service.Close() }
