package daemon

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/store"
	"github.com/wasmgrid/wasmgrid/store/exchange"
)

// mover is a node that does nothing but move blocks, over TLS on loopback.
type mover struct {
	host   *p2p.Host
	blocks grid.Blocks
	x      *exchange.Exchange
}

func openMover(b testing.TB) *mover {
	b.Helper()
	key, err := p2p.LoadIdentity(filepath.Join(b.TempDir(), "identity"))
	if err != nil {
		b.Fatal(err)
	}
	h, err := p2p.Open(b.Context(), p2p.Config{Identity: key, Swarm: "transfer", Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = h.Close() })
	return &mover{host: h}
}

// store gives the mover an empty store and an exchange over it.
func (m *mover) store(b testing.TB) (done func()) {
	b.Helper()
	s, err := store.Open(b.Context(), store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	m.blocks = s.Blocks()
	return func() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTransfer holds the exchange to its contract over real connections and disks.
func TestTransfer(t *testing.T) {
	gridtest.TestFetcher(t, func(t *testing.T, n int) (nodes []gridtest.FetchNode) {
		var movers []*mover
		for range n {
			m := openMover(t)
			closeStore := m.store(t)
			m.x = exchange.New(exchange.Config{Blocks: m.blocks, Network: m.host})
			t.Cleanup(func() {
				_ = m.host.Close()
				_ = m.x.Close()
				closeStore()
			})
			for _, other := range movers {
				if err := m.host.Connect(t.Context(), other.host.Addrs()[0]); err != nil {
					t.Fatal(err)
				}
			}
			movers = append(movers, m)
			nodes = append(nodes, gridtest.FetchNode{
				ID: m.host.Self(), Blocks: m.blocks, Fetcher: m.x, Provide: m.host.Provide, Vanish: func() { _ = m.host.Close() },
			})
		}
		return nodes
	})
}

// inMemory is blocks without a disk: what is put is there, but for its bytes if it is to keep none.
type inMemory struct {
	mu   sync.Mutex
	data map[cid.Cid][]byte
	void bool
}

func (m *inMemory) Put(_ context.Context, bs ...grid.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range bs {
		m.data[b.CID()] = nil
		if !m.void {
			m.data[b.CID()] = bytes.Clone(b.Data())
		}
	}
	return nil
}

func (m *inMemory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data, ok := m.data[c]; ok {
		return data, nil
	}
	return nil, grid.NotFound
}

func (m *inMemory) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := m.Get(ctx, c)
	return err == nil, nil
}

func (m *inMemory) Delete(context.Context, cid.Cid) error { return nil }
func (m *inMemory) Sync(context.Context) error            { return nil }

// TestTransferCut cuts the link to one of three nodes in the middle of a fetch, which nobody notices for a
// minute: the others go on.
func TestTransferCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := memnet.New(memnet.Config{
			Silence: time.Minute,
			Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration { return time.Duration(1+r.IntN(5)) * time.Millisecond },
		})
		names := []peer.ID{"dst", "a", "b", "c"}
		var all []*exchange.Exchange
		var stores []*inMemory
		var nodes []*memnet.Node
		for _, name := range names {
			nodes = append(nodes, world.Join(name))
			stores = append(stores, &inMemory{data: map[cid.Cid][]byte{}})
		}
		var dag []grid.Block
		var links []grid.Link
		for i := range 400 {
			b := grid.NewBlock(cid.Raw, fmt.Append(make([]byte, 50_000), i))
			dag, links = append(dag, b), append(links, grid.Link{Cid: b.CID()})
		}
		root, err := grid.EncodeBlock(links)
		if err != nil {
			t.Fatal(err)
		}
		for i := range names {
			blocks := grid.Blocks(stores[i])
			if i > 0 {
				if err := blocks.Put(t.Context(), append(dag, root)...); err != nil {
					t.Fatal(err)
				}
			} else { // the link is cut when the first blocks have come
				blocks = &trigger{Blocks: blocks, do: sync.OnceFunc(func() { world.Cut("dst", "a") })}
			}
			all = append(all, exchange.New(exchange.Config{Blocks: blocks, Network: nodes[i]}))
		}
		start := time.Now()
		if err := all[0].Fetch(t.Context(), grid.Want{Roots: []cid.Cid{root.CID()}, From: names[1:]}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		if n := len(stores[0].data); n != len(dag)+1 {
			t.Errorf("%d blocks are here, want %d", n, len(dag)+1)
		}
		for i := range names {
			_ = all[i].Close()
			_ = nodes[i].Close()
		}
	})
}

// trigger does something with each Put.
type trigger struct {
	grid.Blocks
	do func()
}

func (t *trigger) Put(ctx context.Context, bs ...grid.Block) error {
	t.do()
	return t.Blocks.Put(ctx, bs...)
}
