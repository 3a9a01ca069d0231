package member

import (
	"crypto/ed25519"
	"crypto/sha256"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TokenPrefix begins every token of this version; TokenFamily those of all versions.
const (
	TokenFamily = "grid-join-"
	TokenPrefix = TokenFamily + "1-"
)

var tokenPaste = grid.Paste{Family: TokenFamily, Version: "1", Domain: "wasmgrid token 1", Max: len(TokenPrefix) + maxToken, From: "grid swarm invite"}

const (
	maxToken      = 8 << 10 // bytes behind the prefix
	maxTokenAddrs = 16
	maxAddr       = 512
	pskSize       = 32
)

// Token is what a node needs to join a swarm. Whoever has it may join: it is a secret until it is used up.
type Token struct {
	Invitation Invitation
	Addrs      []ma.Multiaddr // of members, with /p2p/ID
	PSK        pnet.PSK       // the swarm's pre-shared key; nil: it has none

	sealed []byte
	key    crypto.PrivKey // of the invitation
}

// tokenBody is what a token is in bytes.
type tokenBody struct {
	Invite []byte   `cbor:"invite"`
	Seed   []byte   `cbor:"seed"` // of the invitation's Ed25519 key
	Addrs  [][]byte `cbor:"addrs,omitempty"`
	PSK    []byte   `cbor:"psk,omitempty"` // the swarm's pre-shared key
}

// NewToken makes an invitation to a swarm, signed by its authority's key.
func NewToken(swarm peer.ID, authority crypto.PrivKey, req grid.InviteRequest, addrs []ma.Multiaddr, now time.Time) (*Token, error) {
	if err := req.Role.Check(); err != nil {
		return nil, err
	}
	if req.Expires < time.Second || req.Expires > MaxExpiry || req.Uses == 0 || req.Uses > maxUses || req.Lasts < 0 || req.Lasts > 0 && req.Lasts < time.Second {
		return nil, grid.Errorf(grid.Invalid, "an invitation that expires in %v, for %d uses and memberships of %v: out of bounds", req.Expires, req.Uses, req.Lasts).
			Hint("it may be used for up to 366 days, by up to %d nodes", maxUses)
	}
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "swarm: make a key: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "swarm: make a key: %w", err)
	}
	t := &Token{key: key, Addrs: addrs[:min(len(addrs), maxTokenAddrs)], Invitation: Invitation{
		Swarm: swarm, Key: id, Role: req.Role, Issued: now.Unix(), Expires: now.Add(req.Expires).Unix(),
		Uses: req.Uses, Lasts: int64(req.Lasts / time.Second), Approve: req.Approve,
	}}
	t.sealed, err = seal(&t.Invitation, authority)
	return t, err
}

// String is the token in one line.
func (t *Token) String() string {
	raw, err := t.key.Raw()
	if err != nil {
		return ""
	}
	body := tokenBody{Invite: t.sealed, Seed: raw[:ed25519.SeedSize], PSK: t.PSK}
	for _, a := range t.Addrs {
		body.Addrs = append(body.Addrs, a.Bytes())
	}
	data, err := grid.Marshal(body)
	if err != nil {
		return ""
	}
	return tokenPaste.Text(data)
}

// IsToken reports whether a text means to be a token of any version.
func IsToken(text string) bool { return tokenPaste.Is(text) }

// ParseToken reads a token. Whether it has expired is asked when it is used.
func ParseToken(text string) (*Token, error) {
	data, err := tokenPaste.Read(text)
	if err != nil {
		return nil, err
	}
	bad := func(code grid.Code, why string) (*Token, error) { return nil, tokenPaste.Bad(code, why) }
	var body tokenBody
	if err := grid.UnmarshalMessage(data, &body); err != nil || len(body.Seed) != ed25519.SeedSize || len(body.Addrs) > maxTokenAddrs {
		return bad(grid.Invalid, "holds no invitation")
	}
	if n := len(body.PSK); n != 0 && n != pskSize {
		return bad(grid.Invalid, "holds a pre-shared key that is none")
	}
	t := &Token{sealed: body.Invite}
	if len(body.PSK) > 0 {
		t.PSK = body.PSK
	}
	if _, err := unseal(body.Invite, &t.Invitation); err != nil {
		return bad(grid.Invalid, "holds no invitation: "+err.Error())
	}
	if _, _, err := openInvitation(body.Invite, t.Invitation.Swarm); err != nil {
		return bad(grid.Invalid, "holds no invitation: "+err.Error())
	}
	if t.key, err = crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(body.Seed)); err != nil {
		return bad(grid.Invalid, "holds no key")
	}
	if id, err := peer.IDFromPrivateKey(t.key); err != nil || id != t.Invitation.Key {
		return bad(grid.Invalid, "holds a key that is not its invitation's")
	}
	for _, b := range body.Addrs {
		if len(b) > maxAddr {
			return bad(grid.Limit, "holds an address that is too long")
		}
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return bad(grid.Invalid, "holds what is no address")
		}
		t.Addrs = append(t.Addrs, a)
	}
	return t, nil
}

// prove signs for a peer that joins by the token.
func (t *Token) prove(joiner peer.ID) ([]byte, error) {
	return t.key.Sign(proofOf(t.Invitation.Swarm, joiner))
}

// NetworkName is what nodes of a swarm call it on the network: in the names of protocols, and where they look for one another.
func NetworkName(swarm peer.ID) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	sum := sha256.Sum256([]byte("wasmgrid swarm 1\x00" + string(swarm)))
	name := []byte("p-")
	for _, b := range sum[:20] {
		name = append(name, letters[b%32])
	}
	return string(name)
}
