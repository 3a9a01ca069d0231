package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// How long the node's own certificate is good, how long before its end it is renewed, and how often files that were given are
// looked at, when somebody connects.
const (
	certLasts = 365 * 24 * time.Hour
	certRenew = certLasts / 3
	certLook  = 2 * time.Second
	maxPEM    = 1 << 20
)

// certificate is what the API over the network is served with: one of the node's own, which it renews, with the same key; or one
// from files, which is read again when they change. Nothing goes on between connections.
type certificate struct {
	log   *slog.Logger
	names []string // that the node's own is for, besides localhost
	now   func() time.Time

	certFile, keyFile string
	given             bool // by the user, in these files; else they are the node's own

	mu     sync.Mutex
	cert   *tls.Certificate
	looked time.Time
	was    [2]fileMark // of the files that were read last, well or not
}

// fileMark tells one content of a file from another, most of the time.
type fileMark struct {
	size int64
	mod  time.Time
}

func markOf(name string) fileMark {
	info, err := os.Stat(name)
	if err != nil {
		return fileMark{}
	}
	return fileMark{info.Size(), info.ModTime()}
}

// ownCertificate is a certificate of the node's own, kept in its home.
func ownCertificate(home string, names []string, log *slog.Logger) (*certificate, error) {
	c := &certificate{
		log: log, names: names, now: time.Now,
		certFile: filepath.Join(home, apiCertFile), keyFile: filepath.Join(home, apiKeyFile),
	}
	_, err := c.current()
	return c, err
}

// givenCertificate is one that others look after.
func givenCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{log: log, now: time.Now, certFile: certFile, keyFile: keyFile, given: true}
	_, err := c.current()
	return c, err
}

// get is for tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current() }

// current is the certificate to show now.
func (c *certificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	switch {
	case c.given:
		err = c.reread()
	case c.cert == nil || !c.now().Before(c.cert.Leaf.NotAfter.Add(-certRenew)):
		err = c.renew()
	}
	return c.cert, err
}

// reread reads the files if they have changed. The error is nil if there is a certificate, be it the one before.
func (c *certificate) reread() error {
	now := c.now()
	if c.cert != nil && now.Sub(c.looked) < certLook {
		return nil
	}
	c.looked = now
	is := [2]fileMark{markOf(c.certFile), markOf(c.keyFile)}
	if c.cert != nil && is == c.was {
		return nil
	}
	c.was = is
	cert, err := readPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		if c.cert != nil {
			c.log.Info("the API's certificate was read again", "file", c.certFile, "until", cert.Leaf.NotAfter)
		}
		c.cert = cert
	case c.cert != nil: // perhaps only one of the two was written so far
		c.log.Warn("the API goes on with the certificate from before", "err", err)
		err = nil
	}
	return err
}

// renew reads the node's own certificate, or makes one if there is none, or none that will do.
func (c *certificate) renew() error {
	cert, err := readPair(c.certFile, c.keyFile)
	if err == nil && c.now().Before(cert.Leaf.NotAfter.Add(-certRenew)) && c.fits(cert.Leaf) {
		c.cert = cert
		return nil
	}
	key, err := c.ownKey()
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return grid.Errorf(grid.Internal, "API certificate: %w", err)
	}
	t := x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "grid node"},
		NotBefore: c.now().Add(-24 * time.Hour), NotAfter: c.now().Add(certLasts), // clocks differ
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, name := range c.names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, &key.PublicKey, key)
	if err != nil {
		return grid.Errorf(grid.Internal, "API certificate: %w", err)
	}
	if err := writePEM(c.certFile, "CERTIFICATE", der); err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return grid.Errorf(grid.Internal, "API certificate: %w", err)
	}
	c.cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	c.log.Info("made a certificate for the API", "file", c.certFile, "until", leaf.NotAfter)
	return nil
}

// fits reports whether a certificate is for all names that it should be for.
func (c *certificate) fits(leaf *x509.Certificate) bool {
	return !slices.ContainsFunc(c.names, func(name string) bool { return leaf.VerifyHostname(name) != nil })
}

// ownKey reads the key of the node's own certificate, or makes it if there is none. Clients know the node by it.
func (c *certificate) ownKey() (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(c.keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "API key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "API key: %w", err)
		}
		return key, writePEM(c.keyFile, "PRIVATE KEY", der)
	}
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "API key: %w", err)
	}
	if b, _ := pem.Decode(data); b != nil {
		if key, err := x509.ParsePKCS8PrivateKey(b.Bytes); err == nil {
			if key, ok := key.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, grid.Errorf(grid.Corrupt, "API key: %s holds no key", c.keyFile).
		Hint("move it away, and a new one is made; tokens that were made before then lead to a node that is not the one that they name")
}

// writePEM puts a block into a file that its owner alone may read, as a whole or not at all.
func writePEM(name, kind string, der []byte) error {
	if err := p2p.ReplaceFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})); err != nil {
		return grid.Errorf(grid.Invalid, "API certificate: %w", err)
	}
	return nil
}

func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	for _, name := range []string{certFile, keyFile} {
		if info, err := os.Stat(name); err == nil && info.Size() > maxPEM {
			return nil, grid.Errorf(grid.Limit, "API certificate: %s has more than %d bytes", name, maxPEM)
		}
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "API certificate: %w", err).Hint("--api-cert takes a file with the certificate and those that lead to its issuer, --api-key one with its key, both in PEM")
	}
	return &cert, nil
}

// trusted reports whether machines trust a certificate by themselves.
func trusted(cert *tls.Certificate) bool {
	rest := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			rest.AddCert(c)
		}
	}
	_, err := cert.Leaf.Verify(x509.VerifyOptions{Intermediates: rest})
	return err == nil
}
