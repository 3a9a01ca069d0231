package daemon

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// The node's own certificate lasts, is renewed before its end, and keeps its key, by which clients know the node.
func TestOwnCertificate(t *testing.T) {
	home := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	open := func(names ...string) *tls.Certificate {
		t.Helper()
		c, err := ownCertificate(home, names, log)
		if err != nil {
			t.Fatal(err)
		}
		return c.cert
	}
	first := open("grid.lab", "192.0.2.1")
	for _, name := range []string{"grid.lab", "192.0.2.1", "localhost", "::1"} {
		if err := first.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{apiKeyFile, apiCertFile} {
		if info, err := os.Stat(filepath.Join(home, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if again := open("grid.lab"); !bytes.Equal(again.Certificate[0], first.Certificate[0]) {
		t.Error("another certificate for less")
	}
	other := open("other.lab")
	if bytes.Equal(other.Certificate[0], first.Certificate[0]) || !bytes.Equal(api.Pin(other.Leaf), api.Pin(first.Leaf)) || other.Leaf.VerifyHostname("other.lab") != nil {
		t.Error("for another name: want another certificate with the same key")
	}
	// Time passes while the node is up.
	c, err := ownCertificate(home, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	for range 5 {
		now = now.Add(certLasts / 2)
		cert, err := c.get(nil)
		if err != nil || cert.Leaf.NotAfter.Sub(now) < certRenew || !bytes.Equal(api.Pin(cert.Leaf), api.Pin(first.Leaf)) {
			t.Errorf("later: good until %v, %v", cert.Leaf.NotAfter, err)
		}
	}
	if err := os.WriteFile(filepath.Join(home, apiCertFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := open(); !bytes.Equal(api.Pin(again.Leaf), api.Pin(first.Leaf)) {
		t.Error("a certificate that cannot be read: want a new one with the same key")
	}
	if err := os.WriteFile(filepath.Join(home, apiKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ownCertificate(home, nil, log); grid.CodeOf(err) != grid.Corrupt || grid.AdviceOf(err) == "" {
		t.Errorf("a key that cannot be read: %v", err)
	}
}

// A certificate that others look after is read again when it changes, and one that makes no sense does no harm.
func TestGivenCertificate(t *testing.T) {
	a, b, dir := t.TempDir(), t.TempDir(), t.TempDir()
	log := slog.New(slog.DiscardHandler)
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	changed := time.Now().Add(-time.Hour)
	put := func(from, kind, to string) {
		t.Helper()
		data := []byte("nonsense")
		if from != "" {
			var err error
			if data, err = os.ReadFile(filepath.Join(from, kind)); err != nil {
				t.Fatal(err)
			}
		}
		changed = changed.Add(time.Minute)
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(to, changed, changed); err != nil {
			t.Fatal(err)
		}
	}
	pins := make(map[string][]byte)
	for _, home := range []string{a, b} {
		c, err := ownCertificate(home, nil, log)
		if err != nil {
			t.Fatal(err)
		}
		pins[home] = api.Pin(c.cert.Leaf)
	}
	if _, err := givenCertificate(certFile, keyFile, log); grid.CodeOf(err) != grid.Invalid || grid.AdviceOf(err) == "" {
		t.Errorf("files that are not there: %v", err)
	}
	put(a, apiCertFile, certFile)
	put(a, apiKeyFile, keyFile)
	c, err := givenCertificate(certFile, keyFile, log)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	want := func(what, home string) {
		t.Helper()
		cert, err := c.get(nil)
		if err != nil || !bytes.Equal(api.Pin(cert.Leaf), pins[home]) {
			t.Errorf("%s: %v", what, err)
		}
		now = now.Add(2 * certLook)
	}
	want("at first", a)
	put(b, apiCertFile, certFile)
	want("with one of two new files", a)
	put(b, apiKeyFile, keyFile)
	want("with both", b)
	put("", "", certFile)
	want("with nonsense", b)
	if trusted(c.cert) {
		t.Error("this machine trusts a certificate that a test has made")
	}
}
