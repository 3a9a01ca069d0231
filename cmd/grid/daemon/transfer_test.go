package daemon

import (
	"path/filepath"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/p2p"
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
