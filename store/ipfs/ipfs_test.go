package ipfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/message"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	bstore "github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	unixfsio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/block"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take before a test gives up on it.
const patience = time.Minute

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func addr(h host.Host) string { return h.Addrs()[0].String() + "/p2p/" + h.ID().String() }

// kubo is an IPFS node as others build it, of the libraries that Kubo is made of.
type kubo struct {
	host   host.Host
	dht    *dht.IpfsDHT
	blocks bstore.Blockstore
	swap   *bitswap.Bitswap
	dag    *merkledag.ComboService
}

type combo = merkledag.ComboService

func newKubo(t testing.TB) *kubo {
	t.Helper()
	k := &kubo{host: newHost(t), blocks: bstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))}
	var err error
	if k.dht, err = dht.New(k.host, dht.ProtocolPrefix("/ipfs"), dht.ProtocolExtension("/lan"), dht.Mode(dht.ModeServer)); err != nil {
		t.Fatal(err)
	}
	k.swap = bitswap.New(context.Background(), bsnet.NewFromIpfsHost(k.host), k.dht, k.blocks, bitswap.ProviderSearchDelay(20*time.Millisecond))
	service := merkledag.NewDAGService(blockservice.New(k.blocks, k.swap))
	k.dag = &combo{Read: service, Write: service}
	t.Cleanup(func() {
		k.swap.Close()
		k.dht.Close()
	})
	return k
}

// add stores a file as `ipfs add` does, and announces it.
func (k *kubo) add(t testing.TB, data []byte) cid.Cid {
	t.Helper()
	params := helpers.DagBuilderParams{
		Maxlinks: 11, RawLeaves: true, Dagserv: k.dag, // few links, for more levels
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256},
	}
	builder, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), 4<<10))
	if err != nil {
		t.Fatal(err)
	}
	node, err := balanced.Layout(builder)
	if err != nil {
		t.Fatal(err)
	}
	return node.Cid()
}

// cat reads a file as `ipfs cat` does.
func (k *kubo) cat(ctx context.Context, c cid.Cid) ([]byte, error) {
	session := merkledag.NewSession(ctx, k.dag)
	node, err := session.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	r, err := unixfsio.NewDagReader(ctx, node, merkledag.NewReadOnlyDagService(session))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// copying is a datastore that keeps no value that it is given, as those on disk do not.
type copying struct{ *dssync.MutexDatastore }

func (c copying) Put(ctx context.Context, k datastore.Key, value []byte) error {
	return c.MutexDatastore.Put(ctx, k, bytes.Clone(value))
}

func (c copying) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(c), nil
}

func newBlocks() grid.Blocks {
	return block.New(copying{dssync.MutexWrap(datastore.NewMapDatastore())})
}

// ours is a bridge and what it stands on.
type ours struct {
	*Bridge
	blocks grid.Blocks
	files  *dag.Files
}

func newOurs(t testing.TB, peers ...string) *ours {
	t.Helper()
	o := &ours{blocks: newBlocks()}
	o.files = dag.New(o.blocks)
	var err error
	if o.Bridge, err = Open(Config{Host: newHost(t), Blocks: o.blocks, Peers: peers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func (o *ours) add(t testing.TB, data []byte) cid.Cid {
	t.Helper()
	c, _, err := o.files.Add(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Announce(c); err != nil {
		t.Fatal(err)
	}
	return c
}

func (o *ours) read(t testing.TB, c cid.Cid) []byte {
	t.Helper()
	f, err := o.files.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// swarmOf is our swarm as a fetcher sees it.
type swarmOf func(context.Context, grid.Want) error

func (f swarmOf) Fetch(ctx context.Context, w grid.Want) error { return f(ctx, w) }

// empty is a swarm in which nobody has anything.
func empty(context.Context, grid.Want) error {
	return grid.Errorf(grid.NotFound, "the swarm does not have it")
}

func (o *ours) fetch(ctx context.Context, w grid.Want) error {
	return o.Fetcher(swarmOf(empty), func() bool { return false }).Fetch(ctx, w)
}

func content(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(data)
	return data
}

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %v: %s", patience, what)
		}
	}
}

// With nothing in the swarm, bridges are to one another what members of a swarm are.
func TestContract(t *testing.T) {
	gridtest.TestFetcher(t, func(t *testing.T, n int) (nodes []gridtest.FetchNode) {
		var all []*ours
		for range n {
			o := newOurs(t)
			o.stall, o.again = 6*time.Second, 300*time.Millisecond
			for _, other := range all {
				if err := o.host.Connect(limited(t), *host.InfoFromHost(other.host)); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, o)
			nodes = append(nodes, gridtest.FetchNode{
				ID: o.ID(), Blocks: o.blocks, Fetcher: o.Fetcher(swarmOf(empty), func() bool { return false }),
				Provide: func(_ context.Context, c cid.Cid) error { return o.Announce(c) },
			})
		}
		return nodes
	})
}

// An IPFS node that knows one other node, and not us, gets a DAG of ours by its CID alone: the announcement
// leads it here.
func TestGivesByCIDAlone(t *testing.T) {
	middle, far := newKubo(t), newKubo(t)
	o := newOurs(t, addr(middle.host))
	data := content(1, 5<<20)
	c := o.add(t, data)
	none := o.add(t, nil) // the empty file, too
	eventually(t, "the roots are announced", func() bool { return o.Stats().Announced == 2 })

	ctx := limited(t)
	if err := far.host.Connect(ctx, *host.InfoFromHost(middle.host)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the far node has somebody to ask", func() bool { return far.dht.RoutingTable().Size() > 0 })
	for c, want := range map[cid.Cid][]byte{c: data, none: {}} {
		got, err := far.cat(ctx, c)
		if err != nil {
			t.Fatalf("%s of %d bytes: %v", c, len(want), err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes came, not the %d that were added", c, len(got), len(want))
		}
	}
	if st := o.Stats(); st.BytesOut < uint64(len(data)) || st.BlocksOut < 6 || st.Peers == 0 {
		t.Errorf("stats: %+v", st)
	}
}

// The reverse: we know one node, and get from another what that one has announced.
func TestFetchesByCIDAlone(t *testing.T) {
	middle, far := newKubo(t), newKubo(t)
	data := content(2, 1<<20)
	c := far.add(t, data)
	ctx := limited(t)
	if err := far.host.Connect(ctx, *host.InfoFromHost(middle.host)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is announced", func() bool { return far.dht.Provide(ctx, c, true) == nil })

	o := newOurs(t, addr(middle.host))
	eventually(t, "there is somebody to ask", func() bool { return o.dht.RoutingTable().Size() > 0 })
	for range 2 { // the second time there is nothing to do
		if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{c, c}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := o.read(t, c); !bytes.Equal(got, data) {
		t.Errorf("%d bytes came, not the file of %d", len(got), len(data))
	}
	keys, err := far.blocks.AllKeysChan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for range keys {
		n++
	}
	if st := o.Stats(); st.BlocksIn != n || st.BytesIn < uint64(len(data)) {
		t.Errorf("stats: %+v for a file of %d blocks", st, n)
	}
}

// What is here is not fetched again, a damaged or missing block is.
func TestFetchesTheMissing(t *testing.T) {
	k := newKubo(t)
	o := newOurs(t, addr(k.host))
	ctx := limited(t)
	c := k.add(t, content(3, 300<<10))
	eventually(t, "we are connected", func() bool { return o.Stats().Peers > 0 })
	if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{c}, Shallow: true}); err != nil {
		t.Fatal(err)
	}
	if n := o.Stats().BlocksIn; n != 1 {
		t.Errorf("a shallow fetch brought %d blocks", n)
	}
	if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{c}}); err != nil {
		t.Fatal(err)
	}
	before := o.Stats().BlocksIn
	var leaf cid.Cid
	if err := dag.Walk(ctx, o.blocks, c, func(c cid.Cid, _ []byte) error { leaf = c; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := o.blocks.Delete(ctx, leaf); err != nil {
		t.Fatal(err)
	}
	if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{c}}); err != nil {
		t.Fatal(err)
	}
	if n := o.Stats().BlocksIn - before; n != 1 {
		t.Errorf("one missing block took %d", n)
	}
}

func TestLimits(t *testing.T) {
	k := newKubo(t)
	o := newOurs(t, addr(k.host))
	ctx := limited(t)
	c := k.add(t, content(4, 300<<10))
	eventually(t, "we are connected", func() bool { return o.Stats().Peers > 0 })
	const limit = 100 << 10
	err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{c}, Limit: limit})
	if !errors.Is(err, grid.Limit) {
		t.Errorf("a fetch over its limit gives %v", err)
	}
	if n := o.Stats().BytesIn; n > limit {
		t.Errorf("%d bytes were stored, %d are allowed", n, limit)
	}

	hashed, err := mh.Sum([]byte("x"), mh.SHA2_512, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{cid.NewCidV1(cid.Raw, hashed)}}); !errors.Is(err, grid.Unsupported) {
		t.Errorf("fetching a sha2-512 CID gives %v", err)
	}
	// A block that we could check but not look into.
	odd := grid.NewBlock(cid.DagJSON, []byte(`{}`))
	foreign, err := blocks.NewBlockWithCid(odd.Data(), odd.CID())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.blocks.Put(ctx, foreign); err != nil {
		t.Fatal(err)
	}
	if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{odd.CID()}}); !errors.Is(err, grid.Unsupported) {
		t.Errorf("fetching DAG-JSON gives %v", err)
	}
	if err := o.fetch(ctx, grid.Want{Roots: []cid.Cid{odd.CID()}, Shallow: true}); err != nil {
		t.Errorf("fetching one DAG-JSON block: %v", err)
	}
}

// liar speaks bitswap, says that it has everything, and gives what it likes.
type liar struct {
	net   bsnetwork.BitSwapNetwork
	give  func(cid.Cid) []blocks.Block // nil: nothing at all
	mu    sync.Mutex
	asked int
}

func newLiar(t *testing.T, give func(cid.Cid) []blocks.Block) (*liar, host.Host) {
	h := newHost(t)
	l := &liar{net: bsnet.NewFromIpfsHost(h), give: give}
	l.net.Start(l)
	t.Cleanup(l.net.Stop)
	return l, h
}

func (l *liar) ReceiveMessage(ctx context.Context, from peer.ID, in message.BitSwapMessage) {
	out := message.New(false)
	for _, e := range in.Wantlist() {
		if e.Cancel {
			continue
		}
		l.mu.Lock()
		l.asked++
		l.mu.Unlock()
		out.AddHave(e.Cid)
		for _, b := range l.give(e.Cid) {
			out.AddBlock(b)
		}
	}
	if !out.Empty() {
		go l.net.SendMessage(ctx, from, out)
	}
}

func (l *liar) ReceiveError(error)       {}
func (l *liar) PeerConnected(peer.ID)    {}
func (l *liar) PeerDisconnected(peer.ID) {}

// Peers that stall or send garbage cost time, and nothing of theirs is stored; from others it is had.
func TestLiars(t *testing.T) {
	for name, give := range map[string]func(cid.Cid) []blocks.Block{
		"stalls": func(cid.Cid) []blocks.Block { return nil },
		"sends garbage": func(c cid.Cid) []blocks.Block {
			wrong, _ := blocks.NewBlockWithCid([]byte("garbage"), c)
			return []blocks.Block{wrong, blocks.NewBlock([]byte("what nobody has asked for"))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, h := newLiar(t, give)
			o := newOurs(t, addr(h))
			o.again = 500 * time.Millisecond
			eventually(t, "we are connected", func() bool { return o.Stats().Peers > 0 })
			data := content(5, 100<<10)

			ctx, cancel := context.WithCancelCause(limited(t))
			defer cancel(nil)
			k := newKubo(t)
			c := k.add(t, data)
			done := make(chan error, 1)
			go func() { done <- o.fetch(ctx, grid.Want{Roots: []cid.Cid{c}}) }()
			eventually(t, "the liar is asked", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.asked > 0 })
			if st := o.Stats(); st.BlocksIn != 0 {
				t.Errorf("something was stored: %+v", st)
			}
			if err := k.host.Connect(ctx, *host.InfoFromHost(o.host)); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := o.read(t, c); !bytes.Equal(got, data) {
				t.Errorf("%d bytes came, not the file of %d", len(got), len(data))
			}
		})
	}
}

// Where only a stalling node could have it, the error says what became of both attempts.
func TestNobodyHasIt(t *testing.T) {
	_, h := newLiar(t, func(cid.Cid) []blocks.Block { return nil })
	o := newOurs(t, addr(h))
	o.first = 100 * time.Millisecond
	eventually(t, "we are connected", func() bool { return o.Stats().Peers > 0 })
	c := grid.NewBlock(cid.Raw, []byte("nowhere")).CID()
	err := o.fetch(limited(t), grid.Want{Roots: []cid.Cid{c}})
	if !errors.Is(err, grid.NotFound) {
		t.Errorf("the error is %v", err)
	}
	for _, said := range []string{"the swarm does not have it", c.String(), "IPFS"} {
		if !strings.Contains(fmt.Sprint(err), said) {
			t.Errorf("the error does not say %q: %v", said, err)
		}
	}
}

// A node that gives the beginning of a DAG and then nothing more: the error says so, and what has come stays.
func TestStalls(t *testing.T) {
	leaf := grid.NewBlock(cid.Raw, []byte("never sent"))
	root, err := grid.EncodeBlock([]grid.Link{{Cid: leaf.CID()}})
	if err != nil {
		t.Fatal(err)
	}
	_, h := newLiar(t, func(c cid.Cid) []blocks.Block {
		if c != root.CID() {
			return nil
		}
		b, _ := blocks.NewBlockWithCid(root.Data(), c)
		return []blocks.Block{b}
	})
	o := newOurs(t, addr(h))
	o.stall = 100 * time.Millisecond
	eventually(t, "we are connected", func() bool { return o.Stats().Peers > 0 })
	err = o.fetch(limited(t), grid.Want{Roots: []cid.Cid{root.CID()}})
	if !errors.Is(err, grid.NotFound) || !strings.Contains(fmt.Sprint(err), leaf.CID().String()+" did not come") {
		t.Errorf("the error is %v", err)
	}
	if has, err := o.blocks.Has(t.Context(), root.CID()); !has || err != nil {
		t.Errorf("what has come is gone: %v", err)
	}
}

// The swarm is asked first, and IPFS only for what the swarm may lack.
func TestOrder(t *testing.T) {
	o := newOurs(t) // nobody is connected
	c := grid.NewBlock(cid.Raw, []byte("x")).CID()
	w := grid.Want{Roots: []cid.Cid{c}, From: []peer.ID{"somebody"}}
	for _, tt := range []struct {
		name  string
		alone bool
		swarm error
		want  error
		calls int // of the swarm
	}{
		{"the swarm has it", false, nil, nil, 1},
		{"it is too large", false, grid.Errorf(grid.Limit, "too much"), grid.Limit, 1},
		{"nobody has it", false, grid.Errorf(grid.NotFound, "no"), grid.NotFound, 1},
		{"alone", true, grid.Errorf(grid.Unavailable, "nobody"), grid.Unavailable, 2},
	} {
		calls := 0
		swarm := swarmOf(func(_ context.Context, w grid.Want) error {
			calls++
			if tt.alone && calls == 1 && w.From != nil {
				t.Errorf("%s: peers are dialled before IPFS is asked", tt.name)
			}
			return tt.swarm
		})
		err := o.Fetcher(swarm, func() bool { return tt.alone }).Fetch(t.Context(), w)
		if tt.want == nil && err != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if calls != tt.calls {
			t.Errorf("%s: the swarm was asked %d times, want %d", tt.name, calls, tt.calls)
		}
		if swarmOnly := (grid.Want{Roots: w.Roots, Swarm: true}); tt.swarm != nil {
			err := o.Fetcher(swarmOf(func(context.Context, grid.Want) error { return tt.swarm }), func() bool { return tt.alone }).Fetch(t.Context(), swarmOnly)
			if err != tt.swarm {
				t.Errorf("%s: IPFS was asked for what only the swarm can have: %v", tt.name, err)
			}
		}
		if err != nil && grid.CodeOf(err) != grid.Limit && !strings.Contains(err.Error(), "no IPFS node is connected") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// Close frees those who wait, and a fetch ends with its context.
func TestClose(t *testing.T) {
	l, h := newLiar(t, func(cid.Cid) []blocks.Block { return nil })
	o := newOurs(t, addr(h))
	eventually(t, "we are connected", func() bool { return o.Stats().Peers > 0 })
	asked := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.asked }
	c := grid.NewBlock(cid.Raw, []byte("x")).CID()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.fetch(ctx, grid.Want{Roots: []cid.Cid{c}}) }()
	eventually(t, "the liar is asked", func() bool { return asked() > 0 })
	cancel()
	if err := <-done; !errors.Is(err, grid.Canceled) && !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled fetch gives %v", err)
	}

	before := asked()
	go func() { done <- o.fetch(t.Context(), grid.Want{Roots: []cid.Cid{c}}) }()
	eventually(t, "the liar is asked again", func() bool { return asked() > before })
	for range 2 {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; !errors.Is(err, grid.Canceled) {
		t.Errorf("a fetch from a closing bridge gives %v", err)
	}
	if err := o.fetch(t.Context(), grid.Want{Roots: []cid.Cid{c}}); !errors.Is(err, grid.Canceled) {
		t.Errorf("a fetch from a closed bridge gives %v", err)
	}
}

// Roots that were announced to nobody are, once somebody comes; and those that the node keeps, too.
func TestAnnouncesLater(t *testing.T) {
	blocks := newBlocks()
	kept := grid.NewBlock(cid.Raw, []byte("kept"))
	if err := blocks.Put(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	b, err := Open(Config{Host: newHost(t), Blocks: blocks, Roots: func(context.Context) ([]cid.Cid, error) {
		return []cid.Cid{kept.CID()}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	added := grid.NewBlock(cid.Raw, []byte("added"))
	if err := b.Announce(added.CID()); err != nil {
		t.Fatal(err)
	}
	if err := b.Announce(cid.Undef); !errors.Is(err, grid.Invalid) {
		t.Errorf("announcing nothing gives %v", err)
	}
	eventually(t, "both are to be announced", func() bool { return b.Stats().Roots == 2 })
	k := newKubo(t)
	ctx := limited(t)
	if err := k.host.Connect(ctx, *host.InfoFromHost(b.host)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are announced", func() bool { return b.Stats().Announced == 2 })
	got, err := k.swap.GetBlock(ctx, kept.CID())
	if err != nil || !bytes.Equal(got.RawData(), kept.Data()) {
		t.Errorf("GetBlock = %v, %v", got, err)
	}
}

func TestQueue(t *testing.T) {
	q := newQueue()
	root := func(i int) cid.Cid { return grid.NewBlock(cid.Raw, fmt.Append(nil, i)).CID() }
	for i := range maxRoots + 3 {
		q.add(root(i), root(i))
	}
	if _, n := q.count(); n != maxRoots {
		t.Errorf("%d roots are kept", n)
	}
	c, ok := q.next()
	if !ok || c != root(maxRoots+2) {
		t.Errorf("next is %v, want the newest", c)
	}
	q.done(c, false)
	if again, _ := q.next(); again != c {
		t.Errorf("next is %v, want the one that failed", again)
	}
	q.done(c, true)
	q.done(root(0), true) // long gone
	left := 0
	for c, ok := q.next(); ok; c, ok = q.next() {
		q.done(c, true)
		left++
	}
	if left != maxRoots-1 {
		t.Errorf("%d others were to announce, want %d", left, maxRoots-1)
	}
	if yes, n := q.count(); yes != n {
		t.Errorf("%d of %d are announced", yes, n)
	}
	q.add(q.again()...)
	if yes, n := q.count(); yes != 0 || n != maxRoots {
		t.Errorf("%d of %d are announced after they were added again", yes, n)
	}
}

func TestRecords(t *testing.T) {
	ctx := t.Context()
	r := newRecords("self")
	key := func(i int) datastore.Key { return datastore.NewKey(fmt.Sprintf("/providers/%d/OTHER", i)) }
	for i := range maxRecords + 10 {
		if err := r.Put(ctx, key(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	own := datastore.NewKey("/providers/KEY" + r.own)
	batch, err := r.Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = batch.Put(ctx, own, []byte("x"))
	_ = batch.Put(ctx, key(maxRecords+1), []byte("x"))
	_ = batch.Put(ctx, key(1), bytes.Repeat([]byte("x"), maxRecord+1))
	if err := batch.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[datastore.Key]bool{key(0): true, key(maxRecords): false, key(maxRecords + 1): false, own: true} {
		if has, err := r.Has(ctx, k); has != want || err != nil {
			t.Errorf("Has(%s) = %v, %v", k, has, err)
		}
	}
	if v, err := r.Get(ctx, key(1)); string(v) != "x" || err != nil {
		t.Errorf("a record was replaced by one too large: %d bytes, %v", len(v), err)
	}
	for range 2 {
		if err := errors.Join(r.Delete(ctx, key(0)), r.Delete(ctx, key(2))); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Put(ctx, key(maxRecords), nil); err != nil {
		t.Fatal(err)
	}
	if has, err := r.Has(ctx, key(maxRecords)); !has || err != nil {
		t.Errorf("there is no room for a record after one was deleted: %v", err)
	}
}

func TestBlockstore(t *testing.T) {
	ctx := t.Context()
	under := newBlocks()
	s := blockstore{under, nil}
	whole := grid.NewBlock(cid.Raw, []byte("whole"))
	good, _ := blocks.NewBlockWithCid(whole.Data(), whole.CID())
	bad, _ := blocks.NewBlockWithCid([]byte("other"), whole.CID())
	if err := s.Put(ctx, bad); !errors.Is(err, grid.Corrupt) {
		t.Errorf("putting a wrong block gives %v", err)
	}
	if has, err := s.Has(ctx, whole.CID()); has || err != nil {
		t.Errorf("it is here: %v", err)
	}
	if err := s.PutMany(ctx, []blocks.Block{good}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.GetSize(ctx, whole.CID()); n != 5 || err != nil {
		t.Errorf("GetSize = %d, %v", n, err)
	}
	if n, err := (blockstore{struct{ grid.Blocks }{under}, nil}).GetSize(ctx, whole.CID()); n != 5 || err != nil {
		t.Errorf("GetSize without Size = %d, %v", n, err)
	}
	if _, err := s.AllKeysChan(ctx); err == nil {
		t.Error("the store is listed")
	}
	if err := s.DeleteBlock(ctx, whole.CID()); err == nil {
		t.Error("a block is deleted")
	}
}

func TestParsePeer(t *testing.T) {
	const id = "12D3KooWJqTEpSnPjZu9tTqzSTHCkfLqV2tJzLT8gJDs2vKYjDbB"
	for _, tt := range []struct {
		addr string
		ok   bool
	}{
		{"", false}, {"/ip4/127.0.0.1/tcp/1", false}, {"/p2p/" + id, false}, {"x", false},
		{"/ip4/127.0.0.1/tcp/1/p2p/" + strings.Repeat("1", maxAddr), false},
	} {
		if _, err := ParsePeer(tt.addr); (err == nil) != tt.ok || err != nil && !errors.Is(err, grid.Invalid) {
			t.Errorf("ParsePeer(%.40q): %v", tt.addr, err)
		}
	}
	h := newHost(t)
	if info, err := ParsePeer(addr(h)); err != nil || info.ID != h.ID() {
		t.Errorf("ParsePeer(%q) = %v, %v", addr(h), info, err)
	}
	if _, err := Open(Config{Host: h, Blocks: newBlocks(), Peers: []string{"x"}}); !errors.Is(err, grid.Invalid) {
		t.Errorf("Open with a bad peer: %v", err)
	}
}
