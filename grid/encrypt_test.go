package grid

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// identity draws a node's key, of some type.
func identity(t testing.TB, kind int) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateKeyPairWithReader(kind, 2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func TestEncrypt(t *testing.T) {
	a, idA := identity(t, crypto.Ed25519)
	b, idB := identity(t, crypto.Ed25519)
	c, _ := identity(t, crypto.Ed25519)
	other, idOther := identity(t, crypto.ECDSA)
	for _, text := range [][]byte{nil, []byte("value"), bytes.Repeat([]byte("x"), MaxSecret)} {
		data, err := encrypt(text, idA, idB)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 0 && bytes.Contains(data, text[:min(len(text), 16)]) {
			t.Error("it is not encrypted")
		}
		for _, key := range []crypto.PrivKey{a, b} {
			if got, err := decrypt(data, key, MaxSecret); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d bytes: got %d, %v", len(text), len(got), err)
			}
		}
		if _, err := decrypt(data, c, MaxSecret); CodeOf(err) != Denied {
			t.Errorf("by whom it is not for: %v", err)
		}
		if len(text) > 1 {
			if _, err := decrypt(data, a, len(text)-1); CodeOf(err) != Limit {
				t.Errorf("more than is wanted: %v", err)
			}
		}
		for i := 0; i < len(data); i += 1 + len(data)/64 {
			bad := bytes.Clone(data)
			bad[i] ^= 1
			if got, err := decrypt(bad, a, MaxSecret); err == nil && !bytes.Equal(got, text) {
				t.Fatalf("damage at %d was not found", i)
			}
			if got, err := decrypt(data[:i], a, MaxSecret); err == nil {
				t.Fatalf("cut at %d it is %q", i, got)
			}
		}
	}
	if _, err := encrypt([]byte("x"), idOther); CodeOf(err) != Unsupported || canEncryptTo(idOther) || canEncryptTo("nobody") || !canEncryptTo(idA) {
		t.Errorf("to another kind of key: %v", err)
	}
	if _, err := decrypt([]byte("x"), other, 1); CodeOf(err) != Unsupported {
		t.Errorf("by another kind of key: %v", err)
	}
	if _, err := encrypt([]byte("x")); err == nil {
		t.Error("encrypted to nobody")
	}
}

// FuzzSecret: whatever is in the ledger in place of a secret, it is refused.
func FuzzSecret(f *testing.F) {
	key, id := identity(f, crypto.Ed25519)
	n := &Node{self: id}
	n.Key = key
	s := sealedSecret{By: id, To: []peer.ID{id}}
	if err := s.seal("token", []byte("value")); err != nil {
		f.Fatal(err)
	}
	e, err := s.entry("token")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Value)
	f.Add([]byte{})
	f.Add([]byte{0xa4})
	f.Fuzz(func(t *testing.T, data []byte) {
		name, s, err := decodeSecret(&Entry{Key: SecretKeys + "token", Value: data, Version: 1})
		if err != nil {
			return
		}
		if value, err := n.unseal(name, &s); err == nil && string(value) != "value" {
			t.Errorf("a secret was made up: %q", value)
		}
		n.secretInfo(name, &s)
	})
}

func BenchmarkEncrypt(b *testing.B) {
	key, id := identity(b, crypto.Ed25519)
	for _, to := range []int{1, 100} {
		readers := []peer.ID{id}
		for len(readers) < to {
			_, other := identity(b, crypto.Ed25519)
			readers = append(readers, other)
		}
		data, err := encrypt(make([]byte, 64), readers...)
		if err != nil {
			b.Fatal(err)
		}
		name := "one"
		if to > 1 {
			name = "hundred"
		}
		b.Run("encrypt/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := encrypt(make([]byte, 64), readers...); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("decrypt/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := decrypt(data, key, MaxSecret); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(data)), "bytes")
		})
	}
}

// BenchmarkGrantNothing is what every attempt pays.
func BenchmarkGrantNothing(b *testing.B) {
	n := &Node{}
	t := &Task{}
	for b.Loop() {
		run, end := n.attempts.begin(t, time.Time{}, false)
		g := Guest{Progress: run.progress}
		data, err := n.grant(b.Context(), t, &g, nil, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		data.close()
		end()
	}
}
