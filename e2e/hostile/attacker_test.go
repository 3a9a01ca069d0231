// Package hostile attacks whole nodes over real sockets, with everything that a stranger can say: it is a test suite
// and nothing else. A protocol that the node serves and that no attack is listed for fails it.
package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	swarm  = "hostile"
	prefix = "/grid/" + swarm + "/"
	// patience bounds each step of an attack; nothing is asserted about how long one takes.
	patience = 5 * time.Second
)

// attacker is a libp2p host without manners.
type attacker struct {
	host.Host
	victim peer.ID
}

// newHost makes a host that knows where a node is. key nil is a stranger's.
func newHost(addr string, key crypto.PrivKey) (*attacker, error) {
	id := libp2p.RandomIdentity
	if key != nil {
		id = libp2p.Identity(key)
	}
	h, err := libp2p.New(id, libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics(), libp2p.DisableRelay())
	if err != nil {
		return nil, err
	}
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	info, err := peer.AddrInfoFromP2pAddr(m)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	return &attacker{h, info.ID}, nil
}

// connect makes a host that is connected to a node.
func connect(addr string, key crypto.PrivKey) (*attacker, error) {
	a, err := newHost(addr, key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	if err := a.Connect(ctx, peer.AddrInfo{ID: a.victim}); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// newAttacker is connect for a test.
func newAttacker(t *testing.T, addr string, key crypto.PrivKey) *attacker {
	t.Helper()
	a, err := connect(addr, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// protocols lists what the victim says it speaks.
func (a *attacker) protocols(t *testing.T) (all []string) {
	t.Helper()
	eventually(t, "the victim says what it speaks", func() bool {
		list, err := a.Peerstore().GetProtocols(a.victim)
		all = nil
		for _, p := range list {
			all = append(all, string(p))
		}
		return err == nil && slices.Contains(all, prefix+"steal/1") && slices.Contains(all, prefix+"realm/1")
	})
	slices.Sort(all)
	return all
}

// open begins a stream of a protocol given by its whole name, or by ours.
func (a *attacker) open(p string) (network.Stream, error) {
	if !strings.HasPrefix(p, "/") {
		p = prefix + p
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := a.NewStream(ctx, a.victim, protocol.ID(p))
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(patience))
	return s, nil
}

// throw sends bytes, takes what comes back, up to 1 MiB of it, and hangs up.
func (a *attacker) throw(p string, data []byte) (answer []byte, err error) {
	s, err := a.open(p)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write(data); err != nil {
		return nil, err
	}
	_ = s.CloseWrite()
	return io.ReadAll(io.LimitReader(s, 1<<20))
}

// call is a proper call of one of our protocols. code is that of the error that it was answered with; 0 for none.
func (a *attacker) call(p string, body []byte) (reply []byte, code grid.Code, err error) {
	s, err := a.open(p)
	if err != nil {
		return nil, 0, err
	}
	defer s.Reset()
	if _, err := s.Write(framed(body)); err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(s, grid.MaxMessage+16))
	if err != nil {
		return nil, 0, err
	}
	return parseReply(data)
}

// parseReply takes a reply apart.
func parseReply(data []byte) (reply []byte, code grid.Code, err error) {
	if len(data) < 2 {
		return nil, 0, io.ErrUnexpectedEOF
	}
	size, n := binary.Uvarint(data[1:])
	if n <= 0 || uint64(len(data)-1-n) != size {
		return nil, 0, errors.New("the reply is cut short")
	}
	body := data[1+n:]
	if data[0] == 0 {
		return body, 0, nil
	}
	var fault struct {
		Code    grid.Code `cbor:"code"`
		Message string    `cbor:"message"`
		Hint    string    `cbor:"hint"`
	}
	err = grid.Unmarshal(body, &fault)
	return []byte(fault.Message), fault.Code, err
}

// framed is a body behind its length.
func framed(body []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

// small is a body behind its length in two bytes, as the ledger's streams begin.
func small(body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
