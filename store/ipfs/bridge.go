package ipfs

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Config wires a Bridge. Host and Blocks are required.
type Config struct {
	// Host is the bridge's place among IPFS nodes, for it alone. It stays the caller's to close, after
	// the bridge.
	Host   host.Host
	Blocks grid.Blocks
	// Peers are multiaddrs with /p2p/ID of IPFS nodes to stay connected to. The others are found through
	// them; nodes that know us may connect by themselves.
	Peers []string
	// Roots lists what is to be announced besides what Announce is told. It is called now and then; nil
	// lists nothing.
	Roots  func(context.Context) ([]cid.Cid, error)
	Logger *slog.Logger // nil: none
}

// How bitswap is set. Its defaults are made for peers all over the world.
const (
	// searchDelay is how long a session waits for the peers that are connected before it looks for others.
	// With 0 sessions were seen that never found anybody.
	searchDelay = 10 * time.Millisecond
	searchAgain = 5 * time.Second        // then it looks again this often
	leastAnswer = 200 * time.Millisecond // a peer that has not answered is not passed over sooner
	// outstanding is how many bytes may be on their way to one peer. With less the rate is that by the round trip.
	outstanding = 16 << 20
	messageSize = 1 << 20 // bytes that are sent at a time; a block more may be in it
	diskReaders = 16      // goroutines that read blocks to send
)

// Bounds on what is asked of a bridge.
const (
	maxPeers = 256
	maxAddr  = 1 << 10
)

// Bridge is a running node of IPFS over a block store. It is safe for concurrent use.
type Bridge struct {
	host    host.Host
	blocks  grid.Blocks
	log     *slog.Logger
	roots   func(context.Context) ([]cid.Cid, error)
	peers   []peer.AddrInfo
	dht     *dht.IpfsDHT
	bitswap *bitswap.Bitswap
	queue   *queue
	walks   chan struct{} // a token for each fetch that runs

	first, stall, again time.Duration // firstTime, stallTime and againTime; tests have less

	ctx    context.Context // of everything in the background; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	close  func() error

	mu       sync.Mutex
	closed   bool
	requests map[cid.Cid]*request // to bitswap, and what came of them until it is stored

	fetched, fetchedBytes atomic.Uint64
}

// Open starts the bridge on a host that listens already. It connects to the peers in the background.
func Open(cfg Config) (*Bridge, error) {
	b := &Bridge{
		host: cfg.Host, blocks: cfg.Blocks, log: cfg.Logger, roots: cfg.Roots,
		queue: newQueue(), walks: make(chan struct{}, maxWalks), requests: map[cid.Cid]*request{},
		first: firstTime, stall: stallTime, again: againTime,
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Peers) > maxPeers {
		return nil, grid.Errorf(grid.Limit, "ipfs: %d peers, at most %d are allowed", len(cfg.Peers), maxPeers)
	}
	for _, s := range cfg.Peers {
		info, err := ParsePeer(s)
		if err != nil {
			return nil, err
		}
		if info.ID != b.host.ID() {
			b.peers = append(b.peers, info)
		}
	}
	var err error
	b.dht, err = dht.New(b.host,
		dht.ProtocolPrefix("/ipfs"), dht.ProtocolExtension("/lan"),
		dht.Mode(dht.ModeServer), // left to decide by itself, a node on a local network never serves
		dht.Datastore(newRecords(b.host.ID())),
		dht.BootstrapPeersFunc(func() []peer.AddrInfo { return b.peers }),
	)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "ipfs: start the Kademlia table: %w", err)
	}
	if err := b.dht.Bootstrap(context.Background()); err != nil { // starts the refreshing, which Close ends
		_ = b.dht.Close()
		return nil, grid.Errorf(grid.Internal, "ipfs: start the Kademlia table: %w", err)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.close = sync.OnceValue(b.shutdown)
	timeouts := client.DefaultDontHaveTimeoutConfig()
	timeouts.MinTimeout = leastAnswer
	b.bitswap = bitswap.New(b.ctx, bsnet.NewFromIpfsHost(b.host), b.dht, blockstore{b.blocks, b.log},
		bitswap.ProviderSearchDelay(searchDelay),
		bitswap.RebroadcastDelay(searchAgain),
		bitswap.WithClientOption(client.WithDontHaveTimeoutConfig(timeouts)),
		bitswap.WithoutDuplicatedBlockStats(),
		bitswap.MaxOutstandingBytesPerPeer(outstanding),
		bitswap.WithTargetMessageSize(messageSize),
		bitswap.EngineBlockstoreWorkerCount(diskReaders),
		bitswap.WithPeerBlockRequestFilter(func(_ peer.ID, c cid.Cid) bool { return grid.CheckCID(c) == nil }),
	)
	for _, info := range b.peers {
		b.host.ConnManager().Protect(info.ID, "ipfs-peer")
		b.wg.Go(func() { b.keep(info) })
	}
	b.wg.Go(b.announce)
	return b, nil
}

// ParsePeer reads a multiaddr that says where an IPFS node is and, by /p2p/ID at its end, who it is.
func ParsePeer(s string) (peer.AddrInfo, error) {
	bad := func(err error) (peer.AddrInfo, error) {
		return peer.AddrInfo{}, grid.Errorf(grid.Invalid, "ipfs: peer address %s: %w", strconv.Quote(s[:min(len(s), 200)]), err).
			Hint("write it like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo...; `ipfs id` on that node prints it")
	}
	if len(s) > maxAddr {
		return bad(grid.Errorf(grid.Limit, "longer than %d bytes", maxAddr))
	}
	info, err := peer.AddrInfoFromString(s)
	if err != nil {
		return bad(err)
	}
	if len(info.Addrs) == 0 {
		return bad(grid.Errorf(grid.Invalid, "it names a peer but not where it is"))
	}
	return *info, nil
}

const (
	dialTime  = 10 * time.Second
	dialMin   = time.Second     // between two tries to connect, then twice as long…
	dialMax   = time.Minute     // …up to this
	lookAgain = 5 * time.Second // whether a peer is still connected
)

// keep stays connected to a peer until the bridge closes.
func (b *Bridge) keep(info peer.AddrInfo) {
	wait := dialMin
	for {
		next := lookAgain
		if !b.connected(info.ID) {
			if err := b.dial(b.ctx, info); err == nil {
				wait = dialMin
			} else {
				if wait == dialMin && b.ctx.Err() == nil {
					b.log.Warn("cannot connect to an IPFS node, trying again", "peer", info.ID, "err", err)
				}
				next, wait = wait, min(2*wait, dialMax)
			}
		}
		if !pause(b.ctx, next) {
			return
		}
	}
}

func (b *Bridge) dial(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return b.host.Connect(ctx, info)
}

func (b *Bridge) connected(id peer.ID) bool {
	return b.host.Network().Connectedness(id) == network.Connected
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

// ID is who the bridge is among IPFS nodes.
func (b *Bridge) ID() peer.ID { return b.host.ID() }

// Addrs are the multiaddrs where it listens, with /p2p/ID, as IPFS nodes take them.
func (b *Bridge) Addrs() []string {
	addrs := []string{}
	for _, a := range b.host.Addrs() {
		addrs = append(addrs, a.String()+"/p2p/"+b.host.ID().String())
	}
	return addrs
}

// Stats counts since Open.
type Stats struct {
	Peers     int    // connected now
	Announced int    // roots that the table has been told of, of
	Roots     int    // those that are to be announced
	BlocksIn  uint64 // fetched from IPFS, verified and stored
	BytesIn   uint64
	BlocksOut uint64 // given to IPFS nodes
	BytesOut  uint64
}

// Stats tells what the bridge does.
func (b *Bridge) Stats() Stats {
	st := Stats{Peers: len(b.host.Network().Peers()), BlocksIn: b.fetched.Load(), BytesIn: b.fetchedBytes.Load()}
	st.Announced, st.Roots = b.queue.count()
	if sent, err := b.bitswap.Server.Stat(); err == nil {
		st.BlocksOut, st.BytesOut = sent.BlocksSent, sent.DataSent
	}
	return st
}

// Close ends all fetches, whose callers get Canceled, and stops serving. It may be called twice; all wait
// for the end.
func (b *Bridge) Close() error { return b.close() }

// shutdown waits for our own goroutines first, as they use the rest.
func (b *Bridge) shutdown() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
	err := b.bitswap.Close()
	if derr := b.dht.Close(); err == nil {
		err = derr
	}
	if err != nil {
		return grid.Errorf(grid.Internal, "ipfs: close: %w", err)
	}
	return nil
}
