package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Pin is what identifies a node by its certificate: the hash of the public key in it, which stays when the certificate is renewed.
func Pin(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

const dialTimeout = 10 * time.Second

// DialRemote makes a client of the node at an endpoint, which it knows by the endpoint's fingerprint; if that has none, by one of
// those in the key, or because the machine trusts its certificate. Nothing is sent yet.
func DialRemote(key Key, at Endpoint) *Client {
	pins, strict := [][]byte{at.Pin}, true
	if len(at.Pin) == 0 {
		pins = nil
		for _, p := range key.At {
			if len(p.Pin) > 0 {
				pins = append(pins, p.Pin)
			}
		}
		strict = false
	}
	host, _, _ := net.SplitHostPort(at.Addr)
	d := net.Dialer{Timeout: dialTimeout}
	return &Client{base: "https://" + at.Addr, token: key.String(), http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a token is for this node alone
		Transport: &http.Transport{
			DialContext:         d.DialContext,
			DisableCompression:  true,
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: dialTimeout,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS13,
				ServerName:         host,
				InsecureSkipVerify: true, // VerifyConnection does it
				VerifyConnection:   func(cs tls.ConnectionState) error { return verifyNode(cs, at.Addr, host, pins, strict) },
			},
		},
	}}
}

// errWrongNode is the cause of an error about a node that is not the one that was meant.
var errWrongNode = errors.New("another node")

// verifyNode makes sure that a node is the one that is meant.
func verifyNode(cs tls.ConnectionState, addr, host string, pins [][]byte, strict bool) error {
	if len(cs.PeerCertificates) == 0 {
		return grid.Errorf(grid.Denied, "%s shows no certificate", addr)
	}
	leaf := cs.PeerCertificates[0]
	pin := Pin(leaf)
	for _, p := range pins {
		if bytes.Equal(p, pin) { // who has the key is the node, whatever its certificate and our clocks say
			return nil
		}
	}
	wrong := func(e *grid.Error) error {
		e.Err = errWrongNode
		return e
	}
	if strict {
		return wrong(grid.Errorf(grid.Denied, "%s is not the node that the token or the URL names: the fingerprint of its certificate is %s, not %s", addr,
			base64.RawURLEncoding.EncodeToString(pin), base64.RawURLEncoding.EncodeToString(pins[0])).
			Hint("another machine may answer in its place; if the node has a new certificate, make a new token on it"))
	}
	rest := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		rest.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Intermediates: rest})
	if err == nil {
		return nil
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return grid.Errorf(grid.Denied, "the certificate of %s is good from %s to %s only, and this machine's clock says %s", addr,
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339)).Hint("set the clock, or have the node's certificate renewed")
	}
	return wrong(grid.Errorf(grid.Denied, "this machine does not trust the certificate of %s: %v", addr, err).
		Hint("give the URL with its fingerprint, as `grid up --api` prints it there: https://%s#FINGERPRINT", addr))
}

// tlsError explains why no TLS connection came about; nil: it is about something else.
func tlsError(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) || errors.Is(err, http.ErrSchemeMismatch) {
		return grid.Errorf(grid.Unavailable, "what answers there does not speak TLS, as the API of a node does").Hint("is it the right port? `grid status` on the node tells it")
	}
	var alert tls.AlertError
	if errors.As(err, &alert) {
		return grid.Errorf(grid.Unavailable, "the node and this program find no common way to speak TLS: %w", err).Hint("the API needs TLS 1.3")
	}
	return nil
}

// clockSkew is by how much clocks may differ without anybody being told.
const clockSkew = 2 * time.Minute

// withClock adds to an error about a token that the clocks differ, if they do.
func withClock(resp *http.Response, err error) error {
	there, perr := http.ParseTime(resp.Header.Get("Date"))
	if resp.StatusCode != http.StatusUnauthorized || perr != nil {
		return err
	}
	if d := time.Since(there); d.Abs() > clockSkew {
		return grid.Errorf(grid.CodeOf(err), "%w (the clock of the node is %v off from this machine's)", err, d.Abs().Round(time.Minute)).Hint("set the clocks right; a token expires by the node's clock")
	}
	return err
}

// nextTry is how long one address has before the next one is tried, too.
const nextTry = 300 * time.Millisecond

// Reach makes a client of the first node that answers, of those at some endpoints; none: those that the key names.
func Reach(ctx context.Context, key Key, at ...Endpoint) (*Client, grid.NodeStatus, error) {
	if len(at) == 0 {
		at = key.At
	}
	if len(at) == 0 {
		return nil, grid.NodeStatus{}, grid.Errorf(grid.Invalid, "the token names no node").Hint("name one with --api https://HOST:PORT#FINGERPRINT, and have the token in GRID_TOKEN")
	}
	type answer struct {
		c   *Client
		st  grid.NodeStatus
		err error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*dialTimeout, grid.Errorf(grid.Unavailable, "the node does not answer within %v", 2*dialTimeout))
	defer cancel()
	answers := make(chan answer, len(at))
	try := func(p Endpoint) {
		c := DialRemote(key, p)
		st, err := c.Node(ctx)
		if err != nil {
			c.Close()
		}
		answers <- answer{c, st, err}
	}
	var worst error
	begun, open := 0, 0
	next := time.NewTimer(0)
	defer next.Stop()
	defer func() { // whoever answers later is not needed
		for range open {
			go func() {
				if a := <-answers; a.err == nil {
					a.c.Close()
				}
			}()
		}
	}()
	for begun < len(at) || open > 0 {
		select {
		case <-next.C:
			if begun < len(at) {
				go try(at[begun])
				begun, open = begun+1, open+1
				next.Reset(nextTry)
			}
		case a := <-answers:
			open--
			code := grid.CodeOf(a.err)
			elsewhere := errors.Is(a.err, errWrongNode) || code == grid.Unavailable || code == grid.Deadline || code == grid.Canceled
			if a.err == nil || !elsewhere {
				return a.c, a.st, a.err
			}
			if worst == nil || errors.Is(a.err, errWrongNode) {
				worst = grid.Errorf(code, "%s: %w", a.c.base, a.err)
			}
			next.Reset(0)
		}
	}
	return nil, grid.NodeStatus{}, worst
}
