package p2p

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestPSKFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "psk")
	if key, err := LoadPSK(name); err != nil || key != nil {
		t.Errorf("none: %v, %v", key, err)
	}
	made := NewPSK()
	if err := SavePSK(name, made); err != nil {
		t.Fatal(err)
	}
	if key, err := LoadPSK(name); err != nil || !bytes.Equal(key, made) {
		t.Errorf("%v, %v", key, err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPSK(name); runtime.GOOS != "windows" && !errors.Is(err, grid.Denied) {
		t.Errorf("open to others: %v", err)
	}
	for _, bad := range []string{"", "hello", pskHeader, pskHeader + "00", strings.Repeat("x", maxPSK+1)} {
		if err := ReplaceFile(name, []byte(bad)); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPSK(name); !errors.Is(err, grid.Corrupt) || grid.AdviceOf(err) == "" {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

// Nodes with one key meet over TCP; who has another, or none, is told what may be the matter.
func TestPSK(t *testing.T) {
	key := NewPSK()
	open := func(psk pnet.PSK, listen ...string) *Host {
		h, err := Open(t.Context(), Config{Identity: gateKey(t), Swarm: "psk", Listen: listen, PSK: psk})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		h.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
		return h
	}
	at := "/ip4/127.0.0.1/tcp/0"
	a, b := open(key, at), open(key, at)
	if err := b.Connect(t.Context(), a.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Call(t.Context(), a.id, "echo/1", []byte("hi")); err != nil || string(got) != "hi" {
		t.Errorf("%q, %v", got, err)
	}
	var wg sync.WaitGroup
	for what, x := range map[string]*Host{"another key": open(NewPSK(), at), "no key": open(nil, at)} {
		for _, d := range [][2]*Host{{x, a}, {a, x}} {
			wg.Go(func() {
				if err := d[0].Connect(t.Context(), d[1].Addrs()[0]); !errors.Is(err, grid.Unavailable) || !strings.Contains(grid.AdviceOf(err), "pre-shared key") {
					t.Errorf("%s: %v; %s", what, err, grid.AdviceOf(err))
				}
			})
		}
		stranger := gateKey(t)
		wg.Go(func() {
			if _, err := Ask(t.Context(), stranger, x.psk, "psk", a.Addrs()[0], "echo/1", nil); !strings.Contains(grid.AdviceOf(err), "pre-shared key") {
				t.Errorf("%s: %v; %s", what, err, grid.AdviceOf(err))
			}
		})
	}
	wg.Wait()
	for _, addr := range open(key).Addrs() {
		if strings.Contains(addr, "quic") {
			t.Errorf("it listens on %s", addr)
		}
	}
	for _, bad := range []Config{{PSK: key, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}}, {PSK: key[:9]}} {
		bad.Identity = gateKey(t)
		if h, err := Open(t.Context(), bad); !errors.Is(err, grid.Invalid) {
			t.Errorf("%v, %v", h, err)
		}
	}
}
