package grid_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// follow keeps a book of a node's tokens until the test ends, or stop is called.
func follow(t *testing.T, n *grid.Node, now func() time.Time) (b *grid.TokenBook, stop func()) {
	t.Helper()
	b = grid.NewTokenBook(now)
	grid.RefreshTokens(b, 200*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.FollowTokens(ctx, b) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	waitFor(t, "the book is up to date", func() bool { return checkToken(b, "nobody", nil) == grid.Denied })
	return b, stop
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx := within(t)
	for !f() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

func checkToken(b *grid.TokenBook, id string, secret []byte) grid.Code {
	if _, _, err := b.Check(id, secret); err != nil {
		return grid.CodeOf(err)
	}
	return grid.Unknown
}

// TestTokens: a token is good on all nodes of the realm until it is removed or too old, and on none that cannot tell.
func TestTokens(t *testing.T) {
	hub := new(fake.Hub)
	wa, wb := fake.NewWorld(hub, "a"), fake.NewWorld(hub, "b")
	wb.Ledger = wa.Ledger
	a, b := open(t, wa.Config()), open(t, wb.Config())
	var off atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	there, stop := follow(t, b, clock)
	ctx := within(t)
	tok, secret, err := a.CreateToken(grid.WithUser(ctx, "root"), nil, grid.TokenRequest{Name: "ann", Role: grid.TokenSubmitter, Expires: time.Hour})
	if err != nil || len(secret) != grid.TokenSecretSize {
		t.Fatalf("%+v, %v", tok, err)
	}
	waitFor(t, "the other node knows it", func() bool { return checkToken(there, tok.ID, secret) == grid.Unknown })
	got, held, err := there.Check(tok.ID, secret)
	if err != nil || got.Name != "ann" || got.Role != grid.TokenSubmitter || held.Err() != nil || there.Used(tok.ID).IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	wrong := append([]byte{secret[0] + 1}, secret[1:]...)
	if _, _, err := there.Check(tok.ID, wrong); grid.CodeOf(err) != grid.Denied || !errors.Is(err, grid.ErrNoToken) {
		t.Errorf("another secret: %v", err)
	}
	later, _ := follow(t, a, func() time.Time { return time.Now().Add(time.Hour) })
	if _, _, err := later.Check(tok.ID, secret); grid.CodeOf(err) != grid.Denied || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after an hour: %v", err)
	}

	// What is not right is not made, and changes nothing.
	for _, bad := range []grid.TokenRequest{
		{Role: "king"}, {Expires: time.Millisecond}, {Expires: -time.Hour}, {Expires: 2 * grid.MaxTokenExpiry}, {Name: " x"}, {Name: "a\nb"}, {Name: strings.Repeat("x", 65)},
	} {
		if _, _, err := a.CreateToken(ctx, nil, bad); grid.CodeOf(err) != grid.Invalid || grid.AdviceOf(err) == "" && bad.Expires == 0 {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, _, err := a.CreateToken(ctx, nil, grid.TokenRequest{Name: "ann"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.RemoveToken(ctx, nil, "ann"); grid.CodeOf(err) != grid.Invalid {
		t.Errorf("one of two of a name: %v", err)
	}
	if _, err := a.RemoveToken(ctx, nil, "nobody"); grid.CodeOf(err) != grid.NotFound {
		t.Errorf("one that is not: %v", err)
	}
	// An entry that makes no sense lets nobody in, is listed, and can be removed.
	if _, err := a.Ledger.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: grid.TokenKeys + "odd", Value: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	list, err := b.Tokens(ctx)
	if err != nil || len(list) != 3 || checkToken(there, "odd", nil) != grid.Denied {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := a.RemoveToken(ctx, nil, "odd"); err != nil {
		t.Error(err)
	}
	if _, err := a.RemoveToken(grid.WithUser(ctx, "root"), nil, tok.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-held.Done():
		if cause := context.Cause(held); grid.CodeOf(cause) != grid.Denied {
			t.Errorf("its holder is told %v", cause)
		}
	case <-ctx.Done():
		t.Fatal("the other node goes on with it")
	}
	if c := checkToken(there, tok.ID, secret); c != grid.Denied {
		t.Errorf("a token that was removed: %v", c)
	}

	// A node that is cut off believes nobody after a while.
	last, secret, err := a.CreateToken(ctx, nil, grid.TokenRequest{})
	if err != nil || last.Name != "token-"+last.ID || last.Role != grid.TokenViewer || !last.Expires.IsZero() {
		t.Fatalf("%+v, %v", last, err)
	}
	waitFor(t, "the other node knows it", func() bool { return checkToken(there, last.ID, secret) == grid.Unknown })
	wa.Ledger.Fail(grid.Errorf(grid.Unavailable, "cut off"))
	off.Store(int64(2 * time.Minute))
	waitFor(t, "the other node cannot tell", func() bool { return checkToken(there, last.ID, secret) == grid.Unavailable })
	wa.Ledger.Fail(nil)
	waitFor(t, "it can again", func() bool { return checkToken(there, last.ID, secret) == grid.Unknown })
	stop()
	if c := checkToken(there, last.ID, secret); c != grid.Unavailable {
		t.Errorf("when nobody follows: %v", c)
	}
	acts, _ := sound(t, a)
	if n := strings.Count(strings.Join(acts, "\n"), "token."); n != 5 {
		t.Errorf("the audit log tells of %d acts: %v", n, acts)
	}
	if log := string(export(t, a)); strings.Count(log, `"user":"root"`) != 2 {
		t.Errorf("the audit log does not tell who made and removed it: %s", log)
	}
}
