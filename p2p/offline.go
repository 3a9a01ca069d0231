package p2p

import (
	"context"
	"log/slog"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/pipe"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

// Offline is the network of a node that is alone, such as one embedded in a command: it opens no
// socket, has no peers, and reaches only itself.
func Offline(id peer.ID) grid.Network {
	return &offline{id: id, table: serve.New(slog.New(slog.DiscardHandler), id, nil)}
}

type offline struct {
	id    peer.ID
	table *serve.Table
}

func (o *offline) Self() peer.ID                                { return o.id }
func (o *offline) Peers() []grid.PeerInfo                       { return nil }
func (o *offline) Subscribe(func(grid.PeerEvent)) (stop func()) { return func() {} }

func (o *offline) Serve(p grid.Protocol, f func(context.Context, peer.ID, []byte) ([]byte, error)) {
	o.table.Serve(p, f)
}

func (o *offline) Handle(p grid.Protocol, f func(context.Context, peer.ID, grid.Stream)) {
	o.table.Handle(p, f)
}

func (o *offline) Call(ctx context.Context, to peer.ID, p grid.Protocol, req []byte) ([]byte, error) {
	if to != o.id {
		return nil, o.alone("call "+string(p)+" of", to)
	}
	return o.table.Local(ctx, o.id, p, req)
}

func (o *offline) Open(_ context.Context, to peer.ID, p grid.Protocol) (grid.Stream, error) {
	if to != o.id {
		return nil, o.alone("open "+string(p)+" to", to)
	}
	return openSelf(o.table, o.id, p)
}

func (o *offline) Provide(context.Context, cid.Cid) error { return nil }

func (o *offline) Providers(context.Context, cid.Cid, int) ([]peer.ID, error) { return nil, nil }

func (o *offline) alone(what string, to peer.ID) error {
	return grid.Errorf(grid.Unavailable, "p2p: %s %s: this node is offline", what, to).
		Hint("start a node that finds others with `grid up`")
}

// openSelf starts a stream to the node itself.
func openSelf(t *serve.Table, self peer.ID, p grid.Protocol) (grid.Stream, error) {
	if !t.Streams(p) {
		return nil, serve.Unsupported(p)
	}
	near, far := pipe.New(nil, nil)
	go func() {
		stop := context.AfterFunc(t.Context(), func() { _ = far.Reset() })
		defer stop()
		t.Stream(self, p, far)
	}()
	return near, nil
}
