package p2p

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestLoadIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home", "identity.pem")
	keys := make([]crypto.PrivKey, 8)
	var wg sync.WaitGroup
	for i := range keys { // all at once: one key wins
		wg.Go(func() {
			key, err := LoadIdentity(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, k := range keys[1:] {
		if k == nil || !k.Equals(keys[0]) {
			t.Fatal("two keys for one file")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestBadIdentity(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	if _, err := LoadIdentity(good); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		mode os.FileMode
		want grid.Code
	}{
		{"empty", nil, 0o600, grid.Corrupt},
		{"text", []byte("hello"), 0o600, grid.Corrupt},
		{"torn", data[:len(data)/2], 0o600, grid.Corrupt},
		{"other type", bytes.ReplaceAll(data, []byte("PRIVATE"), []byte("PUBLIC")), 0o600, grid.Corrupt},
		{"huge", bytes.Repeat([]byte("x"), maxKeyFile+1), 0o600, grid.Corrupt},
		{"readable by others", data, 0o644, grid.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, c.data, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadIdentity(path)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) || grid.AdviceOf(err) == "" {
				t.Errorf("got %v (%v, hint %q), want %v", err, grid.CodeOf(err), grid.AdviceOf(err), c.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, c.data) {
				t.Error("the file was changed")
			}
		})
	}
	_, err = LoadIdentity(filepath.Join(good, "below", "a", "file"))
	if err == nil || grid.AdviceOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func addrsOf(t testing.TB, texts ...string) []ma.Multiaddr {
	var addrs []ma.Multiaddr
	for _, s := range texts {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, a)
	}
	return addrs
}

func peerOf(t testing.TB) peer.ID {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err == nil {
		var id peer.ID
		if id, err = peer.IDFromPrivateKey(key); err == nil {
			return id
		}
	}
	t.Fatal(err)
	return ""
}

func TestPeerFile(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var peers []remembered
	for i := range maxRemembered + 10 {
		peers = append(peers, remembered{
			peer.AddrInfo{ID: peer.ID(fmt.Sprintf("\x00\x24\x08\x01\x12\x20%032d", i)), Addrs: addrsOf(t, "/ip4/127.0.0.1/tcp/1")},
			now.Add(time.Duration(i) * time.Second),
		})
	}
	data, err := formatPeerFile(slices.Clone(peers))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parsePeerFile(data)
	if err != nil || len(got) != maxRemembered {
		t.Fatalf("%d peers, %v", len(got), err)
	}
	if last := peers[len(peers)-1]; got[0].ID != last.ID || !got[0].seen.Equal(last.seen) || !got[0].Addrs[0].Equal(last.Addrs[0]) {
		t.Errorf("the newest is %v, want %v", got[0], last)
	}
	for name, bad := range map[string]string{
		"nonsense": "{", "version": `{"version":2}`, "huge": strings.Repeat(" ", maxPeerFile+1),
	} {
		if got, err := parsePeerFile([]byte(bad)); err == nil || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	odd := `{"version":1,"peers":[{"id":"nobody","addrs":["/ip4/127.0.0.1/tcp/1"]},{"id":"12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA","addrs":["nowhere"]}]}`
	if got, err := parsePeerFile([]byte(odd)); err != nil || len(got) != 0 {
		t.Errorf("odd entries: %v, %v", got, err)
	}
}

func FuzzParsePeerFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"peers":[{"id":"12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA","addrs":["/ip4/127.0.0.1/tcp/1"],"seen":"2026-01-02T03:04:05Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		peers, err := parsePeerFile(data)
		if err != nil {
			return
		}
		if len(peers) > maxRemembered {
			t.Errorf("%d peers", len(peers))
		}
		for _, p := range peers {
			if len(p.Addrs) == 0 || len(p.Addrs) > maxPeerAddrs {
				t.Errorf("%d addresses", len(p.Addrs))
			}
		}
		again, err := formatPeerFile(peers)
		if err != nil {
			return // a year beyond 9999 has no JSON form
		}
		if back, err := parsePeerFile(again); err != nil || len(back) != len(peers) {
			t.Errorf("%d peers became %d, %v", len(peers), len(back), err)
		}
	})
}

func FuzzParseNearby(f *testing.F) {
	f.Add([]byte("grid nearby 1 default\n/ip4/127.0.0.1/tcp/4747\n/ip4/127.0.0.1/udp/4747/quic-v1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		swarm, addrs, err := parseNearby(data)
		if err != nil {
			return
		}
		if checkSwarm(swarm) != nil || len(addrs) > maxNearbyAddr {
			t.Errorf("swarm %q, %d addresses", swarm, len(addrs))
		}
		if s, again, err := parseNearby(formatNearby(swarm, addrs)); err != nil || s != swarm || len(again) != len(addrs) {
			t.Errorf("%q with %d addresses became %q with %d, %v", swarm, len(addrs), s, len(again), err)
		}
	})
}

func TestParseNearby(t *testing.T) {
	addrs := addrsOf(t, "/ip4/127.0.0.1/tcp/4747", "/ip6/::1/udp/4747/quic-v1")
	swarm, got, err := parseNearby(formatNearby("lab", addrs))
	if err != nil || swarm != "lab" || !slices.EqualFunc(got, addrs, func(a, b ma.Multiaddr) bool { return a.Equal(b) }) {
		t.Errorf("got %q, %v, %v", swarm, got, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "other": "hello\n", "swarm": "grid nearby 1 A B\n", "huge": nearbyMagic + "lab\n" + strings.Repeat("x", maxNearbyFile),
	} {
		if _, _, err := parseNearby([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What strangers may leave in the folder is skipped; what the dead left is removed.
func TestNearbyLook(t *testing.T) {
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := openNearby(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var found []peer.AddrInfo
	n := &nearby{
		self: peerOf(t), swarm: "lab", root: root, folder: folder, log: discard(),
		addrs: func() []ma.Multiaddr { return addrsOf(t, "/ip4/127.0.0.1/tcp/1") },
		known: func(peer.ID) bool { return false },
		found: func(i peer.AddrInfo) { found = append(found, i) },
	}
	now := time.Now()
	if err := n.show(now); err != nil {
		t.Fatal(err)
	}
	live, dead, huge, pipe, link := peerOf(t), peerOf(t), peerOf(t), peerOf(t), peerOf(t)
	good := string(formatNearby("lab", addrsOf(t, "/ip4/127.0.0.1/tcp/2")))
	for name, content := range map[string]string{
		live.String(): good, dead.String(): good, "README": "hello", huge.String(): good + strings.Repeat("\n", maxNearbyFile),
		tempPrefix + dead.String(): "half",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, pipe.String()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(folder, link.String())); err != nil {
		t.Fatal(err)
	}
	old := now.Add(-2 * nearbyDead)
	for _, name := range []string{dead.String(), tempPrefix + dead.String(), "README"} {
		if err := os.Chtimes(filepath.Join(folder, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.look(now); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].ID != live || len(found[0].Addrs) != 1 {
		t.Errorf("found %v, want %v", found, live)
	}
	for name, want := range map[string]bool{dead.String(): false, tempPrefix + dead.String(): false, "README": true, n.self.String(): true} {
		if _, err := os.Stat(filepath.Join(folder, name)); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", name, err == nil, want)
		}
	}
	// A file that somebody removed is written again at the next touch.
	if err := os.Remove(filepath.Join(folder, n.self.String())); err != nil {
		t.Fatal(err)
	}
	if err := n.show(now.Add(nearbyRefresh)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, n.self.String())); err != nil {
		t.Error(err)
	}
}

func TestRankDials(t *testing.T) {
	addrs := addrsOf(t,
		"/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1",
		"/ip6/::1/tcp/1")
	var order []string
	var last time.Duration
	for _, d := range rankDials(addrs) {
		if d.Delay < last {
			t.Errorf("%v before %v", d.Delay, last)
		}
		last = d.Delay
		order = append(order, d.Addr.String())
	}
	want := []string{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/udp/1/quic-v1"}
	if !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
