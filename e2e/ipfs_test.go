package e2e

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer"
	unixfsio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/wasmgrid/wasmgrid/grid"
)

// ipfsNode is an IPFS node of the libraries that others build theirs from.
type ipfsNode struct {
	host host.Host
	dht  *dht.IpfsDHT
	dag  ipld.DAGService
}

func newIPFSNode(t *testing.T) *ipfsNode {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	d, err := dht.New(h, dht.ProtocolPrefix("/ipfs"), dht.ProtocolExtension("/lan"), dht.Mode(dht.ModeServer))
	if err != nil {
		t.Fatal(err)
	}
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	swap := bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h), d, store)
	t.Cleanup(func() { swap.Close(); d.Close(); h.Close() })
	return &ipfsNode{h, d, merkledag.NewDAGService(blockservice.New(store, swap))}
}

func (n *ipfsNode) addr() string { return n.host.Addrs()[0].String() + "/p2p/" + n.host.ID().String() }

func (n *ipfsNode) add(t *testing.T, data []byte) cid.Cid {
	t.Helper()
	node, err := importer.BuildDagFromReader(n.dag, chunk.NewSizeSplitter(bytes.NewReader(data), 256<<10))
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the IPFS node announces its file", func(ctx context.Context) error { return n.dht.Provide(ctx, node.Cid(), true) })
	return node.Cid()
}

func (n *ipfsNode) cat(t *testing.T, c cid.Cid) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	node, err := n.dag.Get(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := unixfsio.NewDagReader(ctx, node, n.dag)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestIPFS: an IPFS node gets a file of ours by its CID alone, and we one of its. They know one another
// only through a third node, where both have announced.
func TestIPFS(t *testing.T) {
	t.Parallel()
	middle, far := newIPFSNode(t), newIPFSNode(t)
	if err := far.host.Connect(t.Context(), *host.InfoFromHost(middle.host)); err != nil {
		t.Fatal(err)
	}
	w := NewWorld(t)
	a := w.Up("a", "--ipfs", "--ipfs-listen", "/ip4/127.0.0.1/tcp/0", "--ipfs-peer", middle.addr())
	b := w.Up("b")
	w.Meet(a, b)

	ours, theirs := make([]byte, 3<<20), make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(ours)
	r.Read(theirs)
	file := filepath.Join(w.dir, "ours")
	if err := os.WriteFile(file, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := cid.Decode(strings.TrimSpace(a.Must("add", "-q", file)))
	if err != nil {
		t.Fatal(err)
	}
	bridge := func(ctx context.Context) (grid.IPFSStatus, error) {
		st, err := a.Node(ctx)
		if err == nil && st.IPFS == nil {
			t.Fatalf("the node has no bridge: %+v", st)
		}
		if err != nil {
			return grid.IPFSStatus{}, err
		}
		return *st.IPFS, nil
	}
	Eventually(t, "the file is announced to IPFS", func(ctx context.Context) error {
		st, err := bridge(ctx)
		if err == nil && (st.Announced < 2 || st.Announced < st.Roots) { // the file, and the folder that it was sent in
			err = grid.Errorf(grid.Unavailable, "%d of %d are", st.Announced, st.Roots)
		}
		return err
	})
	if got := far.cat(t, c); !bytes.Equal(got, ours) {
		t.Errorf("IPFS got %d bytes that are not our file of %d", len(got), len(ours))
	}

	c = far.add(t, theirs)
	if got := a.Must("cat", c.String()); got != string(theirs) {
		t.Errorf("grid cat printed %d bytes that are not the file of %d", len(got), len(theirs))
	}
	if got := b.Must("cat", c.String()); got != string(theirs) { // from a, like anything that a has
		t.Errorf("grid cat on another node printed %d bytes that are not the file of %d", len(got), len(theirs))
	}
	st, err := bridge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Peers == 0 || st.BytesOut < uint64(len(ours)) || st.BytesIn < uint64(len(theirs)) || st.ID == a.ID {
		t.Errorf("status of the bridge: %+v", st)
	}
	if text := a.Must("status"); !strings.Contains(text, st.ID) || !strings.Contains(text, st.Addrs[0]) {
		t.Errorf("grid status does not tell of the bridge:\n%s", text)
	}
	if text := b.Must("status"); strings.Contains(text, "ipfs") {
		t.Errorf("grid status tells of a bridge that is not there:\n%s", text)
	}

	// Among the swarm nobody speaks IPFS, nor the swarm's protocols on the bridge.
	speaks := func(addr string) (all []protocol.ID) {
		info, err := peer.AddrInfoFromString(addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := far.host.Connect(t.Context(), *info); err != nil {
			t.Fatal(err)
		}
		all, err = far.host.Peerstore().GetProtocols(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, n := range []*Node{a, b} {
		st, err := n.Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all := speaks(st.Addrs[0])
		if i := slices.IndexFunc(all, func(p protocol.ID) bool {
			return strings.Contains(string(p), "bitswap") || strings.Contains(string(p), "/lan/")
		}); i >= 0 || len(all) == 0 {
			t.Errorf("the node speaks %v in the swarm", all)
		}
	}
	if all := speaks(st.Addrs[0]); !slices.Contains(all, "/ipfs/bitswap/1.2.0") || !slices.Contains(all, "/ipfs/lan/kad/1.0.0") ||
		slices.IndexFunc(all, func(p protocol.ID) bool { return strings.HasPrefix(string(p), "/grid/") }) >= 0 {
		t.Errorf("the bridge speaks %v", all)
	}
}

// The bridge is opened only by its own flag, with addresses that make sense.
func TestIPFSFlags(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"up", "--ipfs-peer", "/ip4/127.0.0.1/tcp/1/p2p/x"}, "need --ipfs"},
		{[]string{"up", "--ipfs-listen", "/ip4/127.0.0.1/tcp/0"}, "need --ipfs"},
		{[]string{"up", "--no-mdns", "--ipfs", "--ipfs-listen", "/ip4/127.0.0.1/tcp/0", "--ipfs-peer", "/ip4/127.0.0.1/tcp/1"}, "ipfs id"},
		{[]string{"up", "--no-mdns", "--ipfs", "--ipfs-listen", "nowhere"}, "listen address"},
	} {
		start := time.Now()
		if r := w.Grid(tt.args...); r.Exit == 0 || !strings.Contains(r.Stderr, tt.says) {
			t.Errorf("grid %s: exit code %d after %v, %q", strings.Join(tt.args, " "), r.Exit, time.Since(start), r.Stderr)
		}
	}
}

// The flags reach a node in the background, too.
func TestIPFSDetached(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	home := filepath.Join(w.dir, "detached")
	far := newIPFSNode(t)
	out := w.Must("up", "-d", "--home", home, "--swarm", w.swarm, "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0",
		"--ipfs", "--ipfs-listen", "/ip4/127.0.0.1/tcp/0", "--ipfs-peer", far.addr())
	defer w.Must("down", "--home", home)
	if !strings.Contains(out, "\nipfs    /ip4/127.0.0.1/tcp/") {
		t.Errorf("grid up printed\n%s", out)
	}
	Eventually(t, "the IPFS node is connected", func(context.Context) error {
		if len(far.host.Network().Peers()) == 0 {
			return grid.Errorf(grid.Unavailable, "no peers")
		}
		return nil
	})
}

// BenchmarkIPFS fetches a file of 256 MiB by bitswap, and the same file by the swarm's own exchange; then the
// first byte of small files.
func BenchmarkIPFS(b *testing.B) {
	w := NewWorld(b)
	source := w.Up("source", "--ipfs", "--ipfs-listen", "/ip4/127.0.0.1/tcp/0")
	st, err := source.Node(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	near := w.Up("near")
	far := w.Up("far", "--swarm", w.swarm+"-far", "--ipfs", "--ipfs-listen", "/ip4/127.0.0.1/tcp/0", "--ipfs-peer", st.IPFS.Addrs[0])
	w.Meet(source, near)
	Eventually(b, "the bridges meet", func(ctx context.Context) error {
		st, err := far.Node(ctx)
		if err == nil && st.IPFS.Peers == 0 {
			err = grid.Errorf(grid.Unavailable, "no IPFS peers")
		}
		return err
	})
	const size, small = 256 << 20, 10
	fetch := func(n *Node, c grid.Link) time.Duration {
		start := time.Now()
		if _, err := n.Stat(b.Context(), c.Cid, ""); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{})
	var bitswap, own, bitswapFirst, ownFirst time.Duration
	for b.Loop() {
		r.Read(data)
		c := addFile(b, source, data)
		bitswap += fetch(far, c)
		own += fetch(near, c)
		for i := range small {
			c := addFile(b, source, data[i<<12:][:1<<12])
			bitswapFirst += fetch(far, c)
			ownFirst += fetch(near, c)
		}
	}
	rate := func(d time.Duration) float64 { return float64(size) * float64(b.N) / (1 << 20) / d.Seconds() }
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(small*b.N) }
	b.ReportMetric(rate(bitswap), "bitswap-MiB/s")
	b.ReportMetric(rate(own), "own-MiB/s")
	b.ReportMetric(each(bitswapFirst), "bitswap-4KiB-ms")
	b.ReportMetric(each(ownFirst), "own-4KiB-ms")
}
