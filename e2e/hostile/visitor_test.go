package hostile

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// visitor is one connection of somebody to a node of a private swarm, and nothing more, so that there can be thousands.
type visitor struct {
	transport.CapableConn
	key    crypto.PrivKey
	id     peer.ID
	prefix string
}

func newKey() crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// keyOf makes a key of its seed.
func keyOf(seed []byte) crypto.PrivKey {
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		panic(err)
	}
	return key
}

func idOf(key crypto.PrivKey) peer.ID {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		panic(err)
	}
	return id
}

// visit connects from an address of this machine to a node at a multiaddr with /p2p/ID.
func visit(addr, prefix, from string, key crypto.PrivKey) (*visitor, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	u, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	t, err := tcp.NewTCPTransport(u, &network.NullResourceManager{}, nil, tcp.DisableReuseport(),
		tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) { return dialer, nil }))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	c, err := t.Dial(ctx, info.Addrs[0], info.ID)
	if err != nil {
		return nil, err
	}
	return &visitor{c, key, idOf(key), prefix}, nil
}

// begin opens a stream of a protocol, given by its whole name or by ours.
func (v *visitor) begin(p string) (network.MuxedStream, error) {
	if !strings.HasPrefix(p, "/") {
		p = v.prefix + p
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := v.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(3 * patience))
	if err := multistream.SelectProtoOrFail(p, s); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

// ask is a call of join/1, or of another protocol.
func (v *visitor) ask(p string, body []byte) (reply []byte, code grid.Code, err error) {
	s, err := v.begin(p)
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

// secret is what whoever has a token has.
type secret struct {
	Invite []byte   `cbor:"invite"`
	Seed   []byte   `cbor:"seed"`
	Addrs  [][]byte `cbor:"addrs"`
	token  *member.Token
	key    crypto.PrivKey
}

// steal reads a token by what docs/swarm.md says of it.
func steal(t *testing.T, text string) (s secret) {
	t.Helper()
	var err error
	if s.token, err = member.ParseToken(text); err != nil {
		t.Fatal(err)
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(text), member.TokenPrefix))
	if err == nil {
		err = grid.Unmarshal(data[:len(data)-4], &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.key = keyOf(s.Seed)
	return s
}

// proof is what the invitation's key signs for a peer.
func (s *secret) proof(joiner peer.ID) []byte {
	sig, err := s.key.Sign([]byte("wasmgrid swarm proof 1\x00" + string(s.token.Invitation.Swarm) + string(joiner)))
	if err != nil {
		panic(err)
	}
	return sig
}

// join is a request to be let in.
func (s *secret) join(joiner peer.ID) []byte {
	return marshal(m{"do": "join", "swarm": s.token.Invitation.Swarm, "invite": s.Invite, "proof": s.proof(joiner), "name": "visitor"})
}

// membership is what a sponsor may sign by a token.
func (s *secret) membership(joiner peer.ID) *member.Membership {
	i := s.token.Invitation
	return &member.Membership{Swarm: i.Swarm, Peer: joiner, Role: i.Role, Issued: i.Issued, Serial: 1, Invite: s.Invite, Proof: s.proof(joiner)}
}

func sealed(r record.Record, by crypto.PrivKey) []byte {
	e, err := record.Seal(r, by)
	if err != nil {
		panic(err)
	}
	data, err := e.Marshal()
	if err != nil {
		panic(err)
	}
	return data
}

// admitted is what a node that lets somebody in answers.
type admitted struct {
	Chain [][]byte `cbor:"chain"`
	Addrs []string `cbor:"addrs"`
}

// letIn joins with a token, and fails the test unless it is let in.
func (v *visitor) letIn(t *testing.T, s secret) (a admitted) {
	t.Helper()
	reply, code, err := v.ask("join/1", s.join(v.id))
	if err == nil && code != 0 {
		err = errors.New(string(reply))
	}
	if err == nil {
		err = grid.Unmarshal(reply, &a)
	}
	if err != nil || len(a.Chain) == 0 {
		t.Fatalf("not let in: %v, %v", a, err)
	}
	return a
}
