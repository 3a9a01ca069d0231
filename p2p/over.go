package p2p

import (
	"context"
	"log/slog"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

// Over makes a node of a libp2p host that somebody else has started, such as one in a simulated network. It finds
// nobody by itself: peers are those that it is told to Connect to, and those that connect to it. swarm is as in Config.
// Closing the result closes the host, which is closed as well when there is an error.
func Over(on host.Host, swarm string, log *slog.Logger) (*Host, error) {
	if swarm == "" {
		swarm = DefaultSwarm
	}
	if err := checkSwarm(swarm); err != nil {
		_ = on.Close()
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := &Host{id: on.ID(), prefix: "/grid/" + swarm + "/", log: log, keeper: newKeeper(), host: on, directory: nowhere{}}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.table = serve.New(h.log, h.id, withOwnRates(nil))
	h.close = sync.OnceValue(h.shutdown)
	if err := h.gather(); err != nil {
		_ = h.Close()
		return nil, err
	}
	h.announcer = newAnnouncer(h.directory)
	h.wg.Go(func() { h.keeper.run(h.ctx) })
	h.wg.Go(func() { h.announcer.run(h.ctx) })
	return h, nil
}

// nowhere is the directory of a node without one.
type nowhere struct{}

var errNowhere = grid.Errorf(grid.Unsupported, "this node takes part in no table")

func (nowhere) Provide(context.Context, cid.Cid) error { return errNowhere }
func (nowhere) Providers(context.Context, cid.Cid, int) ([]peer.AddrInfo, error) {
	return nil, errNowhere
}
func (nowhere) Find(context.Context, peer.ID) (peer.AddrInfo, error) {
	return peer.AddrInfo{}, errNowhere
}
func (nowhere) Neighbours() []peer.ID { return nil }
func (nowhere) Close() error          { return nil }
