// Package daemon opens the rooms of one node and joins them: the only place that knows them all. What
// a node does is in package grid; how its rooms do their part is in theirs.
package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	gridtrace "github.com/wasmgrid/wasmgrid/cmd/grid/trace"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
	"github.com/wasmgrid/wasmgrid/sched"
	"github.com/wasmgrid/wasmgrid/store"
	"github.com/wasmgrid/wasmgrid/store/cache"
	"github.com/wasmgrid/wasmgrid/store/car"
	"github.com/wasmgrid/wasmgrid/store/dag"
	"github.com/wasmgrid/wasmgrid/store/exchange"
	"github.com/wasmgrid/wasmgrid/store/ipfs"
	"github.com/wasmgrid/wasmgrid/store/ledger"
	"github.com/wasmgrid/wasmgrid/store/ledger/local"
	"github.com/wasmgrid/wasmgrid/store/replica"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// Config says what node to open.
type Config struct {
	Home     string   // data folder; made when absent. One process at a time may hold it
	Embedded bool     // a node for one command: alone, without network or socket
	Swarm    string   // "" is p2p.DefaultSwarm
	Realm    string   // with whose nodes it shares a ledger; "": that of the home, or ledger.DefaultRealm
	Listen   []string // multiaddrs; none: the defaults of package p2p
	Join     []string // multiaddrs, ending in /p2p/ID, of nodes to join; or the token of a private swarm
	Member   string   // what the node is to be called in a private swarm that it joins
	NoMDNS   bool     // do not look for nodes on the local network
	NoNearby bool     // do not look for nodes on this machine
	Announce []string // multiaddrs at which others reach it, though it does not listen there itself
	NoUPnP   bool     // do not ask the router to forward a port
	Relay    p2p.Relaying
	Slow     p2p.Slow // to try out a worse network
	// Gateway is a TCP address, such as 127.0.0.1:8080, on which IPFS clients may read whatever blocks they
	// can name; "": none. GatewayFetch has it bring them from other nodes, too.
	Gateway      string
	GatewayFetch bool
	GatewayHosts []string // names by which they may call it, besides localhost, this machine's own name and IP addresses
	// API is a TCP address, such as 0.0.0.0:4748, on which the API is served by TLS to those who have a token; "": none.
	// APICert and APIKey are files with its certificate and key, which are read again when they change; "": the node makes one.
	API             string
	APICert, APIKey string
	APIHosts        []string // names by which it may be called, besides localhost, this machine's own name and IP addresses
	// TaskNet is what tasks that were granted it may reach over the network. nil: addresses that are named,
	// of whatever kind, for an embedded node, whose jobs are its user's; else public ones.
	TaskNet *guestnet.Policy
	// IPFS opens the bridge to IPFS, through which whoever reaches it can read any block by its CID.
	IPFS       bool
	IPFSListen []string // multiaddrs; none: all interfaces
	IPFSPeers  []string // multiaddrs, ending in /p2p/ID, of IPFS nodes to stay connected to

	Workers int           // tasks run at once; 0: as many as there are cores
	Grain   time.Duration // running time that a worker is given at once; 0: the scheduler's default
	Cache   int64         // bytes of small blocks kept in memory; 0: the default
	Quota   int64         // bytes that blocks may take on disk; 0: 80% of what they take and what is free
	Scrub   int64         // bytes read in a second at most when blocks are checked in the background; 0: 8 MiB
	Memory  uint64        // bytes that all tasks together may grow to; 0: three quarters of the machine's
	Labels  grid.Labels   // of the node, besides those that it gives itself
	Scratch uint64        // bytes that tasks may reserve together on disk; 0: not bounded
	Zone    string        // what nodes that may fail together have in common
	// Replicas is how many nodes keep a pin that does not say; 0: this one alone.
	Replicas    int
	RepairGrace time.Duration // how long a node may be away before its copies are made anew; 0: the default
	RepairRate  int64         // bytes/s at which they are; 0: as fast as they come
	SendRate    int64         // bytes/s of blocks that one peer is sent at most, 16 MiB at least; 0: as fast as they go
	Logger      *slog.Logger
	// Log is where Logger's records are kept, for those who ask; nil: nowhere.
	Log   *nodelog.Log
	Trust grid.Trust   // in receipts of other realms
	Share grid.Portion // that is lent to other realms
	// ShareAllow and ShareDeny are told at grid.Share.
	ShareAllow, ShareDeny []peer.ID
	Public                bool               // the swarm is a public one, of realms that do not trust one another
	Retention             grid.Retention     // of jobs that have ended
	Users                 grid.Quota         // what each user may have here
	Weights               map[string]float64 // shares of users; 1 of one that is not named
	Traces                gridtrace.Config   // where traces of jobs are sent
}

// What is where in a home.
const (
	identityFile = "identity"      // the node's private key
	ipfsKeyFile  = "ipfs-identity" // and that of its bridge to IPFS
	storeDir     = "store"         // blocks, ledger, receipts; holds the lock of the home
	ledgerDir    = "ledger"        // in it, the node's part of its realm's ledger
	compiledDir  = "compiled"      // native code of modules, private
	peersFile    = "peers"         // addresses to try after a restart
	apiKeyFile   = "api-key.pem"   // of the API over the network
	apiCertFile  = "api-cert.pem"
	socketFile   = "api.sock"
	maxSocket    = 100 // bytes of a unix socket's path that every platform allows
)

// Socket is where the node of a home serves its API: in the home, or, when that path is too long for a
// socket, under a name made from it in the user's runtime folder.
func Socket(home string) string {
	if p := filepath.Join(home, socketFile); len(p) <= maxSocket {
		return p
	}
	sum := sha256.Sum256([]byte(home))
	return filepath.Join(runtimeDir(), hex.EncodeToString(sum[:8])+".sock")
}

// runtimeDir is a folder of this user's on this machine, for what does not outlive a boot. In a folder for everybody's temporary files
// somebody else may have made the one that has our name: whoever owns it could answer in our node's place, and have us write where
// his links lead. Then it is one that is longer, below the user's own folders.
func runtimeDir() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "grid")
	}
	dir := filepath.Join(os.TempDir(), "grid-"+strconv.Itoa(os.Getuid()))
	if cache, err := os.UserCacheDir(); !ownFolder(dir) && err == nil {
		return filepath.Join(cache, "grid", "run")
	}
	return dir
}

// Nearby is the folder in which the nodes of a swarm on this machine find each other.
func Nearby(swarm string) string { return filepath.Join(runtimeDir(), "nearby", swarm) }

// Daemon is one open node.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	store    *store.Store
	engine   *wasmhost.Host
	host     *p2p.Host // nil when embedded
	exchange *exchange.Exchange
	pins     *replica.Manager
	swarm    *member.Service // nil in an open swarm, and when embedded
	public   *public         // nil but in a public swarm
	realm    *ledger.Realm   // nil for a command in a home that has none, or not all of it
	ipfs     *ipfs.Bridge    // nil without
	node     *grid.Node
	working  atomic.Pointer[grid.Node] // node, for those who do not wait for it
	handler  http.Handler
	gateway  string // the URL of the gateway; "" when there is none
	server   *api.Server
	metrics  *prometheus.Registry
	traces   *gridtrace.Exporter       // nil: nothing is traced
	remote   atomic.Pointer[remoteAPI] // nil: the API is not served over the network

	closers []io.Closer // in the order of opening
	done    chan struct{}
	ask     sync.Once // closes done
	close   sync.Once
	err     error
}

// room is the logger for one of the node's parts.
func (c *Config) room(name string) *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger.With(nodelog.RoomKey, name)
}

// Open opens a node, rooms in the order of their needs. The error is Busy when another process holds
// the home. ctx bounds only the opening.
func Open(ctx context.Context, c Config) (d *Daemon, err error) {
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Memory == 0 {
		c.Memory = taskMemory()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Home, err = filepath.Abs(c.Home); err != nil {
		return nil, grid.Errorf(grid.Invalid, "home: %w", err)
	}
	if err := os.MkdirAll(c.Home, 0o700); err != nil {
		return nil, unwritable(c.Home, grid.Errorf(grid.Invalid, "home: %w", err).Hint("name another with --home or GRID_HOME"))
	}
	d = &Daemon{cfg: c, log: c.room("node"), started: time.Now(), done: make(chan struct{}), metrics: newRegistry()}
	err = d.openRooms(ctx)
	if err == nil && !c.Embedded {
		err = d.listen()
	}
	if err == nil && c.Gateway != "" {
		err = d.listenGateway()
	}
	if err == nil && c.API != "" {
		err = d.listenRemote(d.server)
	}
	if err != nil {
		d.Close() // of what is open by then; err says more than its error could
		return nil, unwritable(c.Home, err)
	}
	return d, nil
}

// unwritable says what is to be done about an error of opening a node that is the disk's.
func unwritable(home string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return grid.Errorf(grid.Denied, "the home %s is on a file system that is read-only: %w", home, err).Hint("mount it for writing, or name another with --home or GRID_HOME")
	case errors.Is(err, fs.ErrPermission) && grid.AdviceOf(err) == "":
		return grid.Errorf(grid.Denied, "the home %s: %w", home, err).Hint("is all in it yours? If not, change its owner, or name another with --home or GRID_HOME")
	case errors.Is(err, syscall.ENOSPC) && grid.AdviceOf(err) == "":
		return grid.Errorf(grid.NoSpace, "the home %s: %w", home, err).Hint("free some space on its disk, or move it to a larger one")
	}
	return err
}

func (d *Daemon) openRooms(ctx context.Context) (err error) {
	c, home := d.cfg, d.cfg.Home
	before, err := checkFormat(home)
	if err != nil {
		return err
	}
	// The store first: its lock is the home's.
	hot := cmp.Or(c.Cache, cache.DefaultSize)
	if c.Embedded {
		hot = 8 << 20 // one command reads little twice
	}
	sc := store.Config{Dir: filepath.Join(home, storeDir), Quota: c.Quota, Cache: hot, Logger: c.room("store")}
	if c.Embedded {
		sc.Under = func(ctx context.Context) (local.Reader, error) { return lastKnown(ctx, home) }
	}
	if d.store, err = openStore(ctx, sc); err != nil {
		if grid.CodeOf(err) == grid.Busy {
			return grid.Errorf(grid.Busy, "another grid process is using %s", home).
				Hint("use a different folder with --home, or end that process (`grid down` if it is a node)")
		}
		return err
	}
	d.opened(d.store)
	if n := removeLeftovers(home, time.Now()); n > 0 {
		d.log.Info("removed files that killed processes had left half written", "files", n)
	}
	if err := noteFormat(home, before); err != nil {
		if homeFormat > max(before.Format, 1) {
			return err
		}
		d.log.Warn("the home does not say which version wrote it last", "err", err)
	}
	key, err := p2p.LoadIdentity(filepath.Join(home, identityFile))
	if err != nil {
		return err
	}
	if err := d.openTraces(key); err != nil {
		return err
	}
	if err := d.enterSwarm(ctx, key); err != nil {
		return err
	}
	network, err := d.openNetwork(ctx, key)
	if err != nil {
		return err
	}
	network, all := d.public.networks(network)
	policy := guestnet.Public
	switch {
	case c.TaskNet != nil:
		policy = *c.TaskNet
	case c.Embedded:
		policy = guestnet.Named
	}
	net, err := guestnet.New(guestnet.Config{Policy: policy})
	if err != nil {
		return err
	}
	finish := time.Duration(0)
	if c.Embedded {
		finish = 5 * time.Second
	}
	d.engine, err = wasmhost.Open(wasmhost.Config{
		Finish:      finish,
		Load:        d.loadModule,
		CacheDir:    filepath.Join(home, compiledDir),
		MemoryTotal: c.Memory,
		Net:         net,
		Logger:      c.room("wasmhost"),
	})
	if err != nil {
		return err
	}
	d.opened(d.engine)
	var pins atomic.Pointer[replica.Manager] // which is opened after what it needs
	d.exchange = exchange.New(exchange.Config{
		Blocks: d.store.Blocks(), May: d.public.mayRead(&d.working), Network: network, Logger: c.room("data"), PerPeer: c.SendRate,
		Holders: func(_ context.Context, root cid.Cid) []peer.ID {
			if m := pins.Load(); m != nil {
				return m.Holders(root)
			}
			return nil
		},
	})
	d.opened(d.exchange)
	fetcher := grid.Fetcher(d.exchange)
	if c.IPFS && !c.Embedded {
		if network, fetcher, err = d.openIPFS(network); err != nil {
			return err
		}
		all = network // there is no bridge in a public swarm, so they are the same
	}
	d.pins, err = replica.Open(ctx, replica.Config{
		Network: network,
		Blocks:  d.store.Blocks(),
		Fetcher: fetcher,
		State:   d.store.Meta(),
		Forget:  d.exchange.Forget,
		Keeper:  d.store.Keeper(),
		Free:    d.store.Keeper().Room,
		Zone:    c.Zone,
		Default: c.Replicas,
		Grace:   c.RepairGrace,
		Rate:    c.RepairRate,
		Logger:  c.room("data"),
	})
	if err != nil {
		return err
	}
	d.opened(d.pins)
	pins.Store(d.pins)
	realmLedger, err := d.openLedger(ctx, network, key)
	if err != nil {
		return err
	}
	share, err := c.share()
	if err != nil {
		return err
	}
	var past []grid.RealmEvent
	var told func(grid.RealmEvent)
	if !c.Embedded {
		book, events, err := d.openDiary()
		if err != nil {
			return err
		}
		past, told = events, book.Note
	}
	capacity := grid.Capacity{Labels: c.Labels.With(network.Self()), Slots: c.Workers, Memory: c.Memory, Scratch: c.Scratch}
	d.node, err = grid.OpenNode(ctx, grid.NodeConfig{
		Key:     key,
		Network: all,
		Blocks:  d.store.Blocks(),
		Keeper:  d.store.Keeper(),
		Files:   d.store.Files(),
		Fetcher: d.pins,
		Ledger:  realmLedger,
		Cache:   d.store.Cache(),
		Engine:  d.engine,
		Scheduler: sched.New(sched.Config{
			Self:     network.Self(),
			Slots:    c.Workers,
			Capacity: capacity,
			Weights:  c.Weights,
			Grain:    c.Grain,
			Share:    share,
			Rand:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		}),
		Pins:     d.pins,
		Slots:    c.Workers,
		Capacity: capacity,
		Bound:    c.Embedded,
		Logger:   c.room("node"),

		Retention: c.Retention,
		Quota:     c.Users,
		Trust:     c.Trust,
		May:       d.mayWork(),
		Share:     share,
		RealmOf:   d.public.realmOf(),
		Tracer:    d.traces.Tracer(),
		Puller:    d.exchange,
		Links:     dag.Links,
		FilesOver: func(b grid.Blocks) grid.Files { return dag.New(b) },
		Unlock:    unlock,
		Vitals:    d.vitals,
		Past:      past,
		Told:      told,
	})
	if err != nil {
		return err
	}
	d.opened(d.node)
	d.working.Store(d.node)
	d.membersChanged() // meanwhile, perhaps
	d.opened(d.startKeeper())
	if !c.Embedded {
		d.opened(d.startObserver())
	}
	d.startGuard()
	var reach func() grid.Reach
	if d.host != nil {
		reach = d.reach
	}
	server := &api.Server{
		Node:     d.node,
		Archive:  d.store.Archive(),
		Surveyor: d.store.Surveyor(),
		Describe: d.describe,
		Shutdown: d.askDone,
		Store:    blockStore{d.store.Keeper()},
		Refusals: d.refusals,
		Logger:   c.room("api"),

		ArchiveOver: func(b grid.Blocks) grid.Archive { return car.New(b) },
		Reach:       reach,
		Endpoints:   d.endpoints,
		Registry:    d.metrics,
		Bench:       d.bench,
		Tracer:      d.traces.Tracer(),
		Parts:       d.parts(),
	}
	if c.Log != nil {
		server.Log = c.Log
	}
	if c.API != "" {
		server.Tokens = grid.NewTokenBook(nil)
	}
	if d.swarm != nil {
		server.Swarm = swarmAPI{d.swarm, d.realm, d.cfg.room("swarm"), d.node.Happened}
	}
	d.server, d.handler = server, server.Handler()
	return nil
}

// A node that was told to stop, or a command that ends, takes a moment to let go of its home.
const (
	homePatience = 3 * time.Second
	homePoll     = 20 * time.Millisecond
)

// openStore opens the store, once whoever has it lets go of it.
func openStore(ctx context.Context, c store.Config) (*store.Store, error) {
	patience := time.NewTimer(homePatience)
	defer patience.Stop()
	for {
		s, err := store.Open(ctx, c)
		if grid.CodeOf(err) != grid.Busy {
			return s, err
		}
		select {
		case <-time.After(homePoll):
		case <-patience.C:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (d *Daemon) opened(c io.Closer) { d.closers = append(d.closers, c) }

func (d *Daemon) openNetwork(ctx context.Context, key crypto.PrivKey) (grid.Network, error) {
	c := d.cfg
	if c.Embedded {
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "identity: %w", err)
		}
		return p2p.Offline(id), nil
	}
	nearby, gate, psk := "", p2p.Gate(nil), pnet.PSK(nil)
	if d.swarm != nil && !c.Public {
		gate, psk = d.swarm, d.swarm.PSK()
	}
	if !c.NoNearby && !c.Public {
		nearby = Nearby(c.Swarm)
	}
	host, err := p2p.Open(ctx, p2p.Config{
		Identity:  key,
		Swarm:     c.Swarm,
		Listen:    c.Listen,
		Bootstrap: c.Join,
		MDNS:      !c.NoMDNS && !c.Public,
		Announce:  c.Announce,
		PortMap:   !c.NoUPnP,
		Relay:     c.Relay,
		Slow:      c.Slow,
		Nearby:    nearby,
		PeerFile:  filepath.Join(c.Home, peersFile),
		Gate:      gate,
		PSK:       psk,
		Guard:     d.public.guard(),
		JoinAs:    d.public.joinAs(),
		Rates:     rates,
		Metrics:   d.metrics,
		Logger:    c.room("p2p"),
	})
	if err != nil {
		return nil, err
	}
	d.host = host
	d.opened(host)
	if d.public != nil {
		d.public.start(d, host)
	}
	d.guardSwarm(host)
	return host, nil
}

// openLedger opens the realm's ledger for a node, and for a command if the home has all of it. Else a command has a ledger of the
// home alone, which moves to the realm when its node is up.
func (d *Daemon) openLedger(ctx context.Context, network grid.Network, key crypto.PrivKey) (grid.Ledger, error) {
	c := d.cfg
	if c.Embedded {
		alone, err := ledger.Alone(filepath.Join(c.Home, storeDir, ledgerDir), network.Self())
		if err != nil {
			return nil, err
		}
		if !alone {
			return d.store.Ledger(), nil
		}
	}
	realm, err := ledger.OpenRealm(ctx, ledger.RealmConfig{
		Network: network,
		Dir:     filepath.Join(c.Home, storeDir, ledgerDir),
		Name:    c.Realm,
		Zone:    c.Zone,
		Local:   d.store.Ledger(),
		Keeps:   d.mayKeepLedger(),
		Prefers: d.leadsRealm(),
		May:     d.mayWrite(),
		Audit:   func(f grid.AuditFact) (grid.Entry, error) { return grid.AuditEntry(key, f) },
		Logger:  c.room("ledger"),
	})
	if err != nil {
		return nil, err
	}
	d.realm = realm
	d.opened(realm)
	d.followLedger(realm)
	return realm, nil
}

// loadModule reads the bytes of a module that is in the local store.
func (d *Daemon) loadModule(ctx context.Context, c cid.Cid) ([]byte, error) {
	f, err := d.store.Files().Open(ctx, c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, module.MaxSize+1))
	if err == nil && len(data) > module.MaxSize {
		err = grid.Errorf(grid.Limit, "module %s has more than %d bytes", c, module.MaxSize)
	}
	return data, err
}

// listen serves the API on the home's socket.
func (d *Daemon) listen() error {
	path := Socket(d.cfg.Home)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return grid.Errorf(grid.Invalid, "API socket: %w", err)
	}
	// The home's lock is ours, so a socket that is there was left behind by a process that was killed.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return grid.Errorf(grid.Invalid, "API socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return grid.Errorf(grid.Invalid, "API socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return grid.Errorf(grid.Invalid, "API socket: %w", err)
	}
	d.serve("API", &http.Server{
		Handler:           d.handler,
		ReadHeaderTimeout: 10 * time.Second, // bodies are as slow as what the user pipes in
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}, netutil.LimitListener(l, apiConnections))
	return nil
}

// Bounds on those who read from the gateway: nobody knows who they are.
const (
	apiConnections     = 2048 // of this user's own processes
	gatewayRequests    = 64
	gatewayConnections = 256
)

// listenGateway serves IPFS clients on a TCP port.
func (d *Daemon) listenGateway() error {
	l, err := net.Listen("tcp", d.cfg.Gateway)
	if err != nil {
		return grid.Errorf(grid.Unavailable, "gateway: %w", err).Hint("--gateway takes an address of this machine with a port that is free, such as 127.0.0.1:8080")
	}
	d.gateway = "http://" + l.Addr().String()
	g := &api.Gateway{Blocks: d.store.Blocks(), Archive: d.store.Archive(), Limit: gatewayRequests, Logger: d.cfg.room("api")}
	if d.cfg.GatewayFetch {
		g.Fetcher = d.exchange
	}
	d.serve("gateway", &http.Server{
		Handler:        api.GuardBrowsers(g.Handler(), d.cfg.room("api"), d.gatewayHosts()...),
		ReadTimeout:    10 * time.Second, // of a request, which has no body
		IdleTimeout:    time.Minute,
		MaxHeaderBytes: 16 << 10,
	}, netutil.LimitListener(l, gatewayConnections))
	return nil
}

// serve runs an HTTP server until the node closes.
func (d *Daemon) serve(name string, s *http.Server, l net.Listener) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	if s.ErrorLog == nil {
		s.ErrorLog = slog.NewLogLogger(d.cfg.room("api").Handler(), slog.LevelWarn)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(l); err != http.ErrServerClosed {
			d.cfg.room("api").Error(name+" ended", "err", err)
		}
	}()
	d.opened(closerFunc(func() error {
		cancel(api.Stopping) // ends those who watch
		ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		err := s.Shutdown(ctx)
		if err != nil {
			err = s.Close()
		}
		<-served
		return err
	}))
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// Client speaks to the node without a socket.
func (d *Daemon) Client() *api.Client { return api.Local(d.handler) }

// Status describes the node.
func (d *Daemon) Status() grid.NodeStatus {
	st, _ := d.describe(context.Background())
	return st
}

func (d *Daemon) describe(ctx context.Context) (grid.NodeStatus, error) {
	st := grid.NodeStatus{
		ID:       d.node.Network.Self().String(),
		Version:  grid.Version,
		Home:     d.cfg.Home,
		Embedded: d.cfg.Embedded,
		Addrs:    []string{},
		PID:      os.Getpid(),
		Started:  d.started,
		Peers:    len(d.node.Network.Peers()),
		Load:     d.node.Load(),
		Capacity: d.node.Capacity,
		Jobs:     d.node.JobsRunning(),
	}
	st.Ran, st.Stolen = d.node.TasksRan()
	st.Gateway, st.Public, st.Share = d.gateway, d.public != nil, d.node.ShareView()
	for _, at := range d.endpoints() {
		st.Remote = append(st.Remote, at.String())
	}
	if d.host != nil {
		st.Swarm, st.Addrs, st.API = d.cfg.Swarm, d.host.Addrs(), Socket(d.cfg.Home)
		reach := d.reach()
		st.Reach = &reach
	}
	if d.cfg.Log != nil {
		st.LogsLost, st.LogTrouble = d.cfg.Log.Lost()
	}
	if d.swarm != nil {
		info := d.swarm.Info()
		st.Private = &info
	}
	if d.realm != nil {
		realm, err := d.realm.Status(ctx)
		if err != nil {
			return st, err
		}
		st.Ledger = &realm
	}
	st.IPFS = d.describeIPFS()
	held, err := d.store.Stat(ctx)
	if err != nil {
		return st, err
	}
	moved := d.exchange.Stats()
	st.Store = grid.StoreStats{
		BlockBytes: held.BlockBytes, MetaBytes: held.MetaBytes,
		BlocksIn: moved.BlocksIn, BytesIn: moved.BytesIn, Wasted: moved.Wasted,
		BlocksOut: moved.BlocksOut, BytesOut: moved.BytesOut, BadPeers: moved.BadPeers,
	}
	for _, s := range moved.Speeds {
		st.Store.Speeds = append(st.Store.Speeds, grid.PeerSpeed{Peer: s.Peer.String(), Rate: s.Rate, Last: s.Last})
	}
	return st, nil
}

// reach tells how others can reach the node.
func (d *Daemon) reach() grid.Reach {
	r := d.host.Reach()
	r.Nearby, r.Fixed = !d.cfg.NoNearby, len(d.cfg.Join)
	return r
}

// Done is closed when somebody asked the node to stop (grid down). Close it then.
func (d *Daemon) Done() <-chan struct{} { return d.done }

func (d *Daemon) askDone() { d.ask.Do(func() { close(d.done) }) }

// InUse reports whether some node, or a command that brings its own, has a home open.
func InUse(home string) bool { return store.InUse(filepath.Join(home, storeDir)) }

// Hurry has Close not make use of the end of a command to leave the next one the machine code of modules.
func (d *Daemon) Hurry() { d.engine.Hurry() }

// Close stops serving, ends running tasks, and closes the rooms in reverse order. It may be called
// twice, and returns the first error.
func (d *Daemon) Close() error {
	d.close.Do(func() {
		for i := len(d.closers) - 1; i >= 0; i-- {
			if err := d.closers[i].Close(); err != nil && d.err == nil {
				d.err = err
			}
		}
	})
	return d.err
}
