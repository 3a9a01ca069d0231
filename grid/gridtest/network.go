package gridtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestNetwork checks an implementation of grid.Network. open returns n networks that are connected, or
// connect soon, each to each other; it ends them when the test does. They must also be io.Closers.
func TestNetwork(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, open func(t *testing.T, n int) []grid.Network)
	}{
		{"Calls", networkCalls},
		{"Sizes", networkSizes},
		{"Errors", networkErrors},
		{"Panic", networkPanic},
		{"Concurrent", networkConcurrent},
		{"Busy", networkBusy},
		{"GiveUp", networkGiveUp},
		{"Unknown", networkUnknown},
		{"Self", networkSelf},
		{"Taken", networkTaken},
		{"Streams", networkStreams},
		{"Bulk", networkBulk},
		{"Reset", networkReset},
		{"Deadline", networkDeadline},
		{"Subscribe", networkSubscribe},
		{"Providers", networkProviders},
		{"Close", networkClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, open) })
	}
}

const netWait = 20 * time.Second // for what should take no time at all

func netCtx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), netWait)
	t.Cleanup(cancel)
	return ctx
}

// connectedNetworks opens n networks and waits until each sees all others.
func connectedNetworks(t *testing.T, open func(t *testing.T, n int) []grid.Network, n int) []grid.Network {
	t.Helper()
	nets := open(t, n)
	for _, a := range nets {
		seen := make(chan struct{})
		var once sync.Once
		up := make(map[peer.ID]bool)
		stop := a.Subscribe(func(ev grid.PeerEvent) {
			if up[ev.Peer] = ev.Up; len(up) >= n-1 {
				once.Do(func() { close(seen) })
			}
		})
		if n > 1 {
			awaitNet(t, seen, "the networks to connect")
		}
		stop()
	}
	return nets
}

func awaitNet[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	timer := time.NewTimer(netWait)
	defer timer.Stop()
	select {
	case v = <-c:
	case <-timer.C:
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

func wantNetCode(t *testing.T, err error, code grid.Code) {
	t.Helper()
	if got := grid.CodeOf(err); err == nil || got != code {
		t.Errorf("got error %v (%v), want %v", err, got, code)
	}
}

func netEcho(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil }

func networkCalls(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 3)
	for _, n := range nets {
		n.Serve("who/1", func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s to %s: %s", from, n.Self(), req), nil
		})
	}
	for _, a := range nets {
		for _, b := range nets {
			got, err := a.Call(netCtx(t), b.Self(), "who/1", []byte("hello"))
			if want := fmt.Sprintf("%s to %s: hello", a.Self(), b.Self()); err != nil || string(got) != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
		peers := a.Peers()
		if len(peers) != len(nets)-1 {
			t.Errorf("%d peers, want %d", len(peers), len(nets)-1)
		}
		if !slices.IsSortedFunc(peers, func(x, y grid.PeerInfo) int { return strings.Compare(string(x.ID), string(y.ID)) }) {
			t.Error("peers are not sorted")
		}
		for _, p := range peers {
			if p.ID == a.Self() || p.Transport == "" || len(p.Addrs) == 0 || p.Since.IsZero() {
				t.Errorf("incomplete or wrong peer %+v", p)
			}
		}
	}
}

func networkSizes(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	b.Serve("echo/1", netEcho)
	b.Serve("big/1", func(context.Context, peer.ID, []byte) ([]byte, error) { return make([]byte, grid.MaxMessage+1), nil })
	for _, to := range []grid.Network{a, b} {
		if to == a {
			a.Serve("echo/1", netEcho)
			a.Serve("big/1", func(context.Context, peer.ID, []byte) ([]byte, error) { return make([]byte, grid.MaxMessage+1), nil })
		}
		for _, size := range []int{0, 1, 127, 128, 255, 256, 257, 16 << 10, 16<<10 + 1, 1 << 20, grid.MaxMessage} {
			req := netPattern(size)
			got, err := a.Call(netCtx(t), to.Self(), "echo/1", req)
			if err != nil || !bytes.Equal(got, req) {
				t.Errorf("echo of %d bytes: got %d bytes, %v", size, len(got), err)
			}
		}
		_, err := a.Call(netCtx(t), to.Self(), "echo/1", make([]byte, grid.MaxMessage+1))
		wantNetCode(t, err, grid.Limit)
		_, err = a.Call(netCtx(t), to.Self(), "big/1", nil)
		wantNetCode(t, err, grid.Limit)
		if _, err := a.Call(netCtx(t), to.Self(), "echo/1", nil); err != nil {
			t.Errorf("after calls that were too long: %v", err)
		}
	}
}

func netPattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func networkErrors(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	cases := map[string]struct {
		err     error
		code    grid.Code
		message string
		hint    string
	}{
		"coded":    {grid.Errorf(grid.Conflict, "job j1 is done"), grid.Conflict, "job j1 is done", ""},
		"hint":     {grid.Errorf(grid.NotFound, "no job j1").Hint("look at `%s`", "grid ps"), grid.NotFound, "no job j1", "look at `grid ps`"},
		"wrapped":  {fmt.Errorf("read: %w", grid.Errorf(grid.NoSpace, "disk full")), grid.NoSpace, "read: disk full", ""},
		"bare":     {grid.Denied, grid.Denied, "denied", ""},
		"plain":    {errors.New("oh no"), grid.Unknown, "oh no", ""},
		"future":   {grid.Errorf(grid.Code(999), "from the future"), grid.Code(999), "from the future", ""},
		"no utf-8": {errors.New("bad \xff byte"), grid.Unknown, "bad \uFFFD byte", ""},
		"deadline": {context.DeadlineExceeded, grid.Deadline, context.DeadlineExceeded.Error(), ""},
	}
	fail := func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
		return []byte("ignored"), cases[string(req)].err
	}
	a.Serve("fail/1", fail)
	b.Serve("fail/1", fail)
	for name, c := range cases {
		for _, to := range nets {
			reply, err := a.Call(netCtx(t), to.Self(), "fail/1", []byte(name))
			if err == nil || reply != nil {
				t.Errorf("%s: got %q and error %v", name, reply, err)
				continue
			}
			if grid.CodeOf(err) != c.code || err.Error() != c.message || grid.AdviceOf(err) != c.hint {
				t.Errorf("%s: got %v, %q, hint %q; want %v, %q, hint %q",
					name, grid.CodeOf(err), err, grid.AdviceOf(err), c.code, c.message, c.hint)
			}
		}
	}
	_, err := a.Call(netCtx(t), b.Self(), "nobody/1", nil)
	wantNetCode(t, err, grid.Unsupported)
	_, err = a.Call(netCtx(t), a.Self(), "nobody/1", nil)
	wantNetCode(t, err, grid.Unsupported)
}

func networkPanic(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	for _, n := range nets {
		n.Serve("panic/1", func(context.Context, peer.ID, []byte) ([]byte, error) { panic("on purpose") })
		n.Serve("echo/1", netEcho)
		n.Handle("panics/1", func(context.Context, peer.ID, grid.Stream) { panic("on purpose") })
	}
	for _, to := range []grid.Network{a, b} {
		_, err := a.Call(netCtx(t), to.Self(), "panic/1", nil)
		wantNetCode(t, err, grid.Internal)
		// The handler may be quicker than the opening of its stream.
		if s, err := a.Open(netCtx(t), to.Self(), "panics/1"); err == nil {
			_ = s.SetDeadline(time.Now().Add(netWait))
			if _, err := io.ReadAll(s); err == nil {
				t.Error("a stream whose handler panicked ended in good order")
			}
			_ = s.Reset()
		}
		if _, err := a.Call(netCtx(t), to.Self(), "echo/1", nil); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	}
}

func networkConcurrent(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	for _, n := range nets {
		n.Serve("echo/1", netEcho)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			from, to := nets[i%2], nets[(i/2)%2]
			for k := range 20 {
				req := fmt.Appendf(nil, "%d %d", i, k)
				if got, err := from.Call(netCtx(t), to.Self(), "echo/1", req); err != nil || !bytes.Equal(got, req) {
					t.Errorf("got %q, %v; want %q", got, err, req)
				}
			}
		})
	}
	wg.Wait()
}

func networkBusy(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	release := make(chan struct{})
	b.Serve("slow/1", func(context.Context, peer.ID, []byte) ([]byte, error) { <-release; return nil, nil })
	const calls = 200
	busy := make(chan error, calls)
	var served atomic.Int32
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			_, err := a.Call(netCtx(t), b.Self(), "slow/1", make([]byte, (i%8)<<15)) // some large
			if err == nil {
				served.Add(1)
			} else {
				busy <- err
			}
		})
	}
	wantNetCode(t, awaitNet(t, busy, "a call over the bound"), grid.Busy)
	close(release)
	wg.Wait()
	close(busy)
	for err := range busy {
		wantNetCode(t, err, grid.Busy)
	}
	if served.Load() == 0 {
		t.Error("no call was served")
	}
	if _, err := a.Call(netCtx(t), b.Self(), "slow/1", nil); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

func networkGiveUp(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a := nets[0]
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	wait := func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}
	for _, to := range nets {
		to.Serve("wait/1", wait)
		ctx, cancel := context.WithCancel(netCtx(t))
		failed := make(chan error, 1)
		go func() {
			_, err := a.Call(ctx, to.Self(), "wait/1", nil)
			failed <- err
		}()
		awaitNet(t, began, "the handler to begin")
		cancel()
		wantNetCode(t, awaitNet(t, failed, "the call to end"), grid.Canceled)
		awaitNet(t, ended, "the handler to hear that the caller gave up")

		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := a.Call(ctx, to.Self(), "wait/1", nil)
		cancel()
		wantNetCode(t, err, grid.Deadline)
		awaitNet(t, began, "the handler to begin")
		awaitNet(t, ended, "the handler to hear that the caller gave up")
	}
}

// stranger is a well-formed peer ID that nobody has.
func stranger() peer.ID {
	id, err := peer.Decode("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	if err != nil {
		panic(err)
	}
	return id
}

func networkUnknown(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	a := connectedNetworks(t, open, 2)[0]
	start := time.Now()
	_, err := a.Call(netCtx(t), stranger(), "echo/1", nil)
	wantNetCode(t, err, grid.Unavailable)
	_, err = a.Open(netCtx(t), stranger(), "echo/1")
	wantNetCode(t, err, grid.Unavailable)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v to find out", d)
	}
}

func networkSelf(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	a := open(t, 1)[0]
	var kept []byte
	a.Serve("keep/1", func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
		if from != a.Self() {
			t.Errorf("a call from %s, want self", from)
		}
		kept = req
		return req, nil
	})
	req := []byte("mine")
	reply, err := a.Call(netCtx(t), a.Self(), "keep/1", req)
	if err != nil || string(reply) != "mine" {
		t.Fatalf("got %q, %v", reply, err)
	}
	if req[0], reply[1] = 'x', 'x'; string(kept) != "mine" {
		t.Errorf("caller and handler share memory: %q", kept)
	}
	if len(a.Peers()) != 0 {
		t.Errorf("a node alone has peers %v", a.Peers())
	}
	a.Handle("upper/1", netUpper)
	checkUpper(t, a, a)
}

func networkTaken(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	a := open(t, 1)[0]
	a.Serve("echo/1", netEcho)
	defer func() {
		if recover() == nil {
			t.Error("a second handler of one protocol was accepted")
		}
	}()
	a.Handle("echo/1", netUpper)
}

// upper reads to the end, then writes what it read in capitals.
func netUpper(_ context.Context, _ peer.ID, s grid.Stream) {
	_ = s.SetDeadline(time.Now().Add(netWait))
	data, err := io.ReadAll(s)
	if err != nil {
		_ = s.Reset()
		return
	}
	_, _ = s.Write(bytes.ToUpper(data))
}

func checkUpper(t *testing.T, a, b grid.Network) {
	t.Helper()
	s, err := a.Open(netCtx(t), b.Self(), "upper/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(netWait))
	if _, err := io.WriteString(s, "quiet "); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "please"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "QUIET PLEASE" {
		t.Errorf("got %q, %v", got, err)
	}
}

func networkStreams(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	b.Handle("upper/1", netUpper)
	checkUpper(t, a, b)
	// The handler speaks first.
	b.Handle("greet/1", func(_ context.Context, from peer.ID, s grid.Stream) { _, _ = io.WriteString(s, "hello "+from.String()) })
	s, err := a.Open(netCtx(t), b.Self(), "greet/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(netWait))
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello "+a.Self().String() {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = a.Open(netCtx(t), b.Self(), "nobody/1")
	wantNetCode(t, err, grid.Unsupported)
	_, err = a.Open(netCtx(t), a.Self(), "nobody/1")
	wantNetCode(t, err, grid.Unsupported)
}

func networkBulk(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	const size = 32 << 20
	b.Handle("sum/1", func(_ context.Context, _ peer.ID, s grid.Stream) {
		_ = s.SetDeadline(time.Now().Add(netWait))
		h := sha256.New()
		if n, err := io.Copy(h, s); err != nil || n != size {
			t.Errorf("got %d bytes, %v", n, err)
		}
		_, _ = s.Write(h.Sum(nil))
	})
	s, err := a.Open(netCtx(t), b.Self(), "sum/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(netWait))
	data := netPattern(1 << 20)
	h := sha256.New()
	for range size / len(data) {
		h.Write(data)
		if _, err := s.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, h.Sum(nil)) {
		t.Errorf("got sum %x, %v", got, err)
	}
}

func networkReset(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a := nets[0]
	got := make(chan error, 1)
	for _, to := range nets {
		to.Handle("read/1", func(_ context.Context, _ peer.ID, s grid.Stream) {
			_, _ = s.Write([]byte{0})
			_, err := io.ReadAll(s)
			got <- err
		})
		to.Handle("reset/1", func(_ context.Context, _ peer.ID, s grid.Stream) { _ = s.Reset() })
		s, err := a.Open(netCtx(t), to.Self(), "read/1")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(netWait))
		if _, err := s.Read(make([]byte, 1)); err != nil { // the handler is there
			t.Fatal(err)
		}
		_ = s.Reset()
		if err := awaitNet(t, got, "the handler to see the reset"); err == nil {
			t.Error("a reset looked like a good end")
		}
		if s, err = a.Open(netCtx(t), to.Self(), "reset/1"); err != nil {
			continue // the reset may come as early as that
		}
		_ = s.SetDeadline(time.Now().Add(netWait))
		_, err = io.ReadAll(s)
		wantNetCode(t, err, grid.Unavailable)
		_ = s.Reset()
	}
}

func networkDeadline(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a := nets[0]
	for _, to := range nets {
		to.Handle("silent/1", func(ctx context.Context, _ peer.ID, s grid.Stream) { _, _ = s.Read(make([]byte, 1)) })
		s, err := a.Open(netCtx(t), to.Self(), "silent/1")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(20 * time.Millisecond))
		_, err = s.Read(make([]byte, 1))
		wantNetCode(t, err, grid.Deadline)
		_ = s.Reset()
	}
}

func networkSubscribe(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 3)
	a := nets[0]
	events := make(chan grid.PeerEvent, 16)
	var running atomic.Int32
	stop := a.Subscribe(func(ev grid.PeerEvent) {
		if running.Add(1) != 1 {
			t.Error("two calls at a time")
		}
		events <- ev
		running.Add(-1)
	})
	defer stop()
	want := []peer.ID{nets[1].Self(), nets[2].Self()}
	slices.Sort(want)
	for _, id := range want {
		if ev := awaitNet(t, events, "an Up"); ev != (grid.PeerEvent{Peer: id, Up: true}) {
			t.Errorf("got %+v, want %s up", ev, id)
		}
	}
	for i, n := range nets[1:] {
		if err := n.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
		if ev := awaitNet(t, events, "a Down"); ev != (grid.PeerEvent{Peer: n.Self()}) {
			t.Errorf("got %+v, want %s down", ev, n.Self())
		}
		if got := len(a.Peers()); got != 1-i {
			t.Errorf("%d peers left, want %d", got, 1-i)
		}
	}
	_, err := a.Call(netCtx(t), nets[1].Self(), "echo/1", nil)
	wantNetCode(t, err, grid.Unavailable)
}

func networkProviders(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 3)
	a, b, c := nets[0], nets[1], nets[2]
	root := grid.NewBlock(cid.Raw, []byte("root of all")).CID()
	if got, err := a.Providers(netCtx(t), root, 10); err != nil || len(got) != 0 {
		t.Errorf("providers of what nobody has: %v, %v", got, err)
	}
	for _, n := range []grid.Network{b, c, c} { // twice is as good as once
		if err := n.Provide(netCtx(t), root); err != nil {
			t.Fatal(err)
		}
	}
	want := []peer.ID{b.Self(), c.Self()}
	slices.Sort(want)
	got := untilProviders(t, a, root, 10, 2)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("providers %v, want %v", got, want)
	}
	if got := untilProviders(t, a, root, 1, 1); len(got) != 1 || !slices.Contains(want, got[0]) {
		t.Errorf("one provider of %v: %v", want, got)
	}
	if got := untilProviders(t, b, root, 10, 1); len(got) != 1 || got[0] != c.Self() {
		t.Errorf("providers other than itself: %v, want %v", got, c.Self())
	}
	wantNetCode(t, a.Provide(netCtx(t), cid.Undef), grid.Invalid)
	_, err := a.Providers(netCtx(t), cid.Undef, 1)
	wantNetCode(t, err, grid.Invalid)
}

// untilProviders asks until there are enough: announcements may take their time.
func untilProviders(t *testing.T, n grid.Network, root cid.Cid, most, enough int) []peer.ID {
	t.Helper()
	ctx := netCtx(t)
	for {
		got, err := n.Providers(ctx, root, most)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) >= enough {
			return got
		}
		select {
		case <-ctx.Done():
			return got
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func networkClose(t *testing.T, open func(t *testing.T, n int) []grid.Network) {
	nets := connectedNetworks(t, open, 2)
	a, b := nets[0], nets[1]
	began := make(chan struct{}, 3)
	var ended atomic.Int32
	wait := func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended.Add(1)
		return nil, ctx.Err()
	}
	b.Serve("wait/1", wait)
	b.Handle("waits/1", func(ctx context.Context, _ peer.ID, s grid.Stream) {
		began <- struct{}{}
		_, _ = io.ReadAll(s) // a handler that looks at its stream only
		ended.Add(1)
	})
	failed := make(chan error, 2)
	for _, from := range nets {
		go func() {
			_, err := from.Call(netCtx(t), b.Self(), "wait/1", nil)
			failed <- err
		}()
		awaitNet(t, began, "the handler to begin")
	}
	s, err := a.Open(netCtx(t), b.Self(), "waits/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	_, _ = s.Write([]byte{1})
	awaitNet(t, began, "the handler to begin")
	for range 2 {
		if err := b.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
		if got := ended.Load(); got != 3 {
			t.Errorf("closed with %d of 3 handlers ended", got)
		}
	}
	for range nets {
		if awaitNet(t, failed, "the call to fail") == nil {
			t.Error("a call to a closed network succeeded")
		}
	}
	_, err = b.Call(netCtx(t), a.Self(), "wait/1", nil)
	wantNetCode(t, err, grid.Unavailable)
	_, err = b.Call(netCtx(t), b.Self(), "wait/1", nil)
	wantNetCode(t, err, grid.Unavailable)
}
