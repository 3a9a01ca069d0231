package p2p_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// childEnv makes the test binary a node in a process of its own, which joins the node it names.
const childEnv = "GRID_P2P_TEST_JOIN"

func TestMain(m *testing.M) {
	if addr := os.Getenv(childEnv); addr != "" {
		child(addr)
		return
	}
	goleak.VerifyTestMain(m,
		// Started by package initialisation in libraries, for good.
		goleak.IgnoreAnyFunction("github.com/ipfs/go-log/v2/writer.(*MirrorWriter).logRoutine"),
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

const loopback = "/ip4/127.0.0.1/tcp/0"

// open starts a node on the loopback only.
func open(t testing.TB, change ...func(*p2p.Config)) *p2p.Host {
	t.Helper()
	cfg := p2p.Config{Identity: newKey(t), Swarm: "test", Listen: []string{loopback}}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, f := range change {
		f(&cfg)
	}
	h, err := p2p.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func connect(t testing.TB, a, b *p2p.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), b.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
}

// until waits until a peer is present at a node, or is not.
func until(t testing.TB, h *p2p.Host, id peer.ID, up bool, within time.Duration) {
	t.Helper()
	news := make(chan struct{}, 1)
	stop := h.Subscribe(func(grid.PeerEvent) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	defer stop()
	timeout := time.After(within)
	for slices.ContainsFunc(h.Peers(), func(p grid.PeerInfo) bool { return p.ID == id }) != up {
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("%s: up is not %v after %v", id, up, within)
		}
	}
}

func wantCode(t *testing.T, err error, code grid.Code) {
	t.Helper()
	if err == nil || grid.CodeOf(err) != code {
		t.Errorf("got %v (%v), want %v", err, grid.CodeOf(err), code)
	}
}

func TestContract(t *testing.T) {
	for _, transport := range []string{loopback, "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(strings.Split(transport, "/")[3], func(t *testing.T) {
			gridtest.TestNetwork(t, func(t *testing.T, n int) []grid.Network {
				var nets []grid.Network
				var hosts []*p2p.Host
				for range n {
					h := open(t, func(c *p2p.Config) { c.Listen = []string{transport} })
					for _, other := range hosts {
						connect(t, h, other)
					}
					hosts = append(hosts, h)
					nets = append(nets, h)
				}
				return nets
			})
		})
	}
}

func TestConfig(t *testing.T) {
	addr := "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	for _, c := range []struct {
		name   string
		change func(*p2p.Config)
		want   string
	}{
		{"no identity", func(c *p2p.Config) { c.Identity = nil }, "no identity"},
		{"swarm with a slash", func(c *p2p.Config) { c.Swarm = "a/b" }, `swarm name "a/b"`},
		{"swarm with capitals", func(c *p2p.Config) { c.Swarm = "Lab" }, `swarm name "Lab"`},
		{"long swarm", func(c *p2p.Config) { c.Swarm = strings.Repeat("a", 33) }, "swarm name"},
		{"bad listen", func(c *p2p.Config) { c.Listen = []string{"127.0.0.1:80"} }, `listen address "127.0.0.1:80"`},
		{"bootstrap without ID", func(c *p2p.Config) { c.Bootstrap = []string{addr, "/ip4/127.0.0.1/tcp/1"} }, `"/ip4/127.0.0.1/tcp/1"`},
		{"bootstrap without place", func(c *p2p.Config) { c.Bootstrap = []string{addr[strings.Index(addr, "/p2p"):]} }, "not where it is"},
		{"bootstrap nonsense", func(c *p2p.Config) { c.Bootstrap = []string{"host:4747"} }, `"host:4747"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := p2p.Config{Identity: newKey(t), Listen: []string{loopback}}
			c.change(&cfg)
			h, err := p2p.Open(t.Context(), cfg)
			if err == nil {
				_ = h.Close()
				t.Fatal("it opened")
			}
			wantCode(t, err, grid.Invalid)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not mention %q", err, c.want)
			}
		})
	}
}

func TestListenTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	_, err = p2p.Open(t.Context(), p2p.Config{Identity: newKey(t), Listen: []string{taken}})
	wantCode(t, err, grid.Unavailable)

	// Two nodes do not come to share a port either.
	a := open(t)
	port := strings.Split(a.Addrs()[0], "/p2p/")[0]
	_, err = p2p.Open(t.Context(), p2p.Config{Identity: newKey(t), Listen: []string{port}})
	wantCode(t, err, grid.Unavailable)
}

func TestConnect(t *testing.T) {
	a, b := open(t), open(t)
	if err := a.Connect(t.Context(), "nonsense"); grid.CodeOf(err) != grid.Invalid || grid.AdviceOf(err) == "" {
		t.Errorf("got %v", err)
	}
	wantCode(t, a.Connect(t.Context(), a.Addrs()[0]), grid.Invalid)
	stranger := strings.Split(b.Addrs()[0], "/p2p/")[0] + "/p2p/" + a.Self().String()
	c := open(t)
	wantCode(t, c.Connect(t.Context(), stranger), grid.Unavailable) // it is not who it should be

	connect(t, a, b)
	if peers := a.Peers(); len(peers) != 1 || peers[0].ID != b.Self() || peers[0].Transport != "tcp" {
		t.Errorf("peers %+v", peers)
	}
	until(t, b, a.Self(), true, 5*time.Second)
}

func TestSwarmsAreApart(t *testing.T) {
	a, b := open(t), open(t, func(c *p2p.Config) { c.Swarm = "other" })
	wantCode(t, a.Connect(t.Context(), b.Addrs()[0]), grid.Invalid)
	if n := len(a.Peers()) + len(b.Peers()); n != 0 {
		t.Errorf("%d peers across swarms", n)
	}
}

func TestPrefersTCP(t *testing.T) {
	a := open(t)
	b := open(t, func(c *p2p.Config) { c.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1", loopback} })
	c := open(t, func(c *p2p.Config) { c.Bootstrap = b.Addrs() })
	until(t, c, b.Self(), true, 5*time.Second)
	_ = a
	if got := c.Peers()[0].Transport; got != "tcp" {
		t.Errorf("connected by %s", got)
	}
}

// poll waits for what no event tells.
func poll(t testing.TB, patience time.Duration, otherwise string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

func TestRTT(t *testing.T) {
	a, b := open(t), open(t)
	connect(t, a, b)
	poll(t, 5*time.Second, "no RTT was measured", func() bool { return a.Peers()[0].RTT != 0 })
}

// Nodes that joined through one and the same node find each other in the table.
func TestMeet(t *testing.T) {
	a := open(t)
	join := func(c *p2p.Config) { c.Bootstrap = a.Addrs() }
	b, c := open(t, join), open(t, join)
	until(t, b, c.Self(), true, 15*time.Second)
	until(t, c, b.Self(), true, 15*time.Second)
}

// What is announced by a node that is alone becomes known when it has met others.
func TestProvideAlone(t *testing.T) {
	a, b := open(t), open(t)
	root := grid.NewBlock(cid.Raw, []byte("alone")).CID()
	if err := a.Provide(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	connect(t, a, b)
	c := open(t, func(c *p2p.Config) { c.Bootstrap = b.Addrs() })
	until(t, c, b.Self(), true, 5*time.Second)
	poll(t, 10*time.Second, "the provider was not found", func() bool {
		got, err := c.Providers(t.Context(), root, 3)
		if err != nil {
			t.Fatal(err)
		}
		return len(got) == 1 && got[0] == a.Self()
	})
	// One that is found can be called, connected or not.
	a.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	if _, err := c.Call(t.Context(), a.Self(), "echo/1", nil); err != nil {
		t.Error(err)
	}
}

func TestNearby(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "nearby")
	near := func(c *p2p.Config) { c.Nearby = folder }
	a := open(t, near)
	b := open(t, near)
	other := open(t, near, func(c *p2p.Config) { c.Swarm = "other" })
	until(t, a, b.Self(), true, 10*time.Second)
	until(t, b, a.Self(), true, 10*time.Second)
	if n := len(other.Peers()); n != 0 {
		t.Errorf("the node of another swarm has %d peers", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, a.Self().String())); !os.IsNotExist(err) {
		t.Errorf("the file of a closed node: %v", err)
	}
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", info.Mode(), err)
	}
}

func TestNearbyFolder(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{open, file, "/usr"} {
		if os.Geteuid() == 0 && folder == "/usr" {
			continue
		}
		_, err := p2p.Open(t.Context(), p2p.Config{Identity: newKey(t), Listen: []string{loopback}, Nearby: folder})
		wantCode(t, err, grid.Denied)
	}
}

// A node that comes back finds its peers in the file, and a peer that comes back is dialled again.
func TestRemember(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	key := newKey(t)
	me := func(c *p2p.Config) { c.PeerFile, c.Identity = file, key }
	a, b := open(t, me), open(t)
	connect(t, a, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, b, a.Self(), false, 5*time.Second)
	a = open(t, me)
	until(t, a, b.Self(), true, 10*time.Second)

	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = open(t, me, func(c *p2p.Config) { c.Listen = []string{"/ip6/::1/tcp/0"} }) // a corrupt file is not fatal
}

func TestRedial(t *testing.T) {
	key := newKey(t)
	b := open(t, func(c *p2p.Config) { c.Identity = key })
	place := strings.Split(b.Addrs()[0], "/p2p/")[0]
	a := open(t, func(c *p2p.Config) { c.Bootstrap = b.Addrs() })
	until(t, a, b.Self(), true, 5*time.Second)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, a, b.Self(), false, 5*time.Second)
	_ = open(t, func(c *p2p.Config) { c.Identity, c.Listen = key, []string{place} })
	until(t, a, b.Self(), true, 10*time.Second)
}

// child is the other process: a node that joins, says so, and waits to be killed.
func child(addr string) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		panic(err)
	}
	h, err := p2p.Open(context.Background(), p2p.Config{Identity: key, Swarm: "test", Listen: []string{loopback}})
	if err != nil {
		panic(err)
	}
	if err := h.Connect(context.Background(), addr); err != nil {
		panic(err)
	}
	fmt.Println(h.Self())
	_, _ = io.Copy(io.Discard, os.Stdin) // should the test die first
}

func startChild(t *testing.T, a *p2p.Host) (*exec.Cmd, peer.ID) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+a.Addrs()[0])
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.Decode(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id
}

func TestKill(t *testing.T) {
	a := open(t)
	cmd, id := startChild(t, a)
	until(t, a, id, true, 5*time.Second)
	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, a, id, false, 5*time.Second)
	t.Logf("noticed after %v", time.Since(start))
}

func TestOffline(t *testing.T) {
	gone := open(t)
	id := open(t).Self()
	n := p2p.Offline(id)
	n.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	if got, err := n.Call(t.Context(), id, "echo/1", []byte("x")); err != nil || string(got) != "x" {
		t.Errorf("self call: %q, %v", got, err)
	}
	_, err := n.Call(t.Context(), gone.Self(), "echo/1", nil)
	wantCode(t, err, grid.Unavailable)
	if !strings.Contains(grid.AdviceOf(err), "`grid up`") {
		t.Errorf("hint %q", grid.AdviceOf(err))
	}
	_, err = n.Open(t.Context(), gone.Self(), "echo/1")
	wantCode(t, err, grid.Unavailable)
	root := grid.NewBlock(cid.Raw, nil).CID()
	if err := n.Provide(t.Context(), root); err != nil {
		t.Error(err)
	}
	if got, err := n.Providers(t.Context(), root, 5); err != nil || len(got) != 0 {
		t.Errorf("providers %v, %v", got, err)
	}
}
