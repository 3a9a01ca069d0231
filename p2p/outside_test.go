package p2p_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

func TestOutside(t *testing.T) {
	open := func(listen ...string) (host.Host, error) { return p2p.OpenOutside(newKey(t), listen, 0, nil) }
	a, err := open(loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(b.Addrs()) == 0 {
		t.Error("a host without addresses of its own listens nowhere")
	}
	if err := b.Connect(t.Context(), peer.AddrInfo{ID: a.ID(), Addrs: a.Addrs()}); err != nil {
		t.Fatal(err)
	}
	ours := func(p protocol.ID) bool { return strings.HasPrefix(string(p), "/grid/") }
	if all, err := b.Peerstore().GetProtocols(a.ID()); err != nil || slices.ContainsFunc(all, ours) {
		t.Errorf("it speaks %v, %v", all, err)
	}
	if _, err := open("nowhere"); !errors.Is(err, grid.Invalid) {
		t.Errorf("listening nowhere gives %v", err)
	}
	if _, err := open(a.Addrs()[0].String()); !errors.Is(err, grid.Unavailable) {
		t.Errorf("listening where another does gives %v", err)
	}
	if _, err := open(slices.Repeat([]string{loopback}, 33)...); !errors.Is(err, grid.Limit) {
		t.Errorf("listening on too many addresses gives %v", err)
	}
}
