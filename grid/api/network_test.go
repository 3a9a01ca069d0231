package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// network is a node's API over the network.
type network struct {
	t      testing.TB
	node   *grid.Node
	book   *grid.TokenBook
	remote *api.Remote
	at     api.Endpoint
}

// selfSigned makes a certificate.
var selfSigned = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

// overNetwork serves a node's API by TLS on loopback until the test ends. tune changes the server before it begins.
func overNetwork(t testing.TB, node *grid.Node, s *api.Server, tune ...func(*http.Server, *api.Remote)) *network {
	t.Helper()
	n := &network{t: t, node: node, book: grid.NewTokenBook(nil)}
	s.Tokens = n.book
	n.remote = s.Remote(func() []string { return []string{"grid.lab"} })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, tl := n.remote.Serving(l, &tls.Config{Certificates: []tls.Certificate{selfSigned()}})
	for _, f := range tune {
		f(srv, n.remote)
	}
	n.at = api.Endpoint{Addr: l.Addr().String(), Pin: api.Pin(selfSigned().Leaf)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(tl) })
	wg.Go(func() { node.FollowTokens(ctx, n.book) })
	t.Cleanup(func() { cancel(); srv.Close(); wg.Wait() })
	eventually(t, "the node knows its tokens", func() bool {
		_, _, err := n.book.Check("nobody", nil)
		return grid.CodeOf(err) == grid.Denied
	})
	return n
}

// token makes a token, and gives it.
func (n *network) token(role grid.TokenRole, name string, expires ...time.Duration) api.Key {
	n.t.Helper()
	req := grid.TokenRequest{Role: role, Name: name}
	if len(expires) > 0 {
		req.Expires = expires[0]
	}
	tok, secret, err := n.node.CreateToken(context.Background(), n.book, req)
	if err != nil {
		n.t.Fatal(err)
	}
	return api.Key{ID: tok.ID, Secret: secret, At: []api.Endpoint{n.at}}
}

// client is one with a new token.
func (n *network) client(role grid.TokenRole, name string) *api.Client {
	n.t.Helper()
	c := api.DialRemote(n.token(role, name), n.at)
	n.t.Cleanup(c.Close)
	return c
}

// eventually tries f until it is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}
