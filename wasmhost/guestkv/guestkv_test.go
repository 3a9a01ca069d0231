package guestkv

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a guest's, of as many bytes as it has.
type memory struct {
	api.Memory
	b []byte
}

func (m memory) Read(at, n uint32) ([]byte, bool) {
	if uint64(at)+uint64(n) > uint64(len(m.b)) {
		return nil, false
	}
	return m.b[at : at+n : at+n], true
}

// one is a map that answers every get in one way.
type one struct {
	grid.KV
	get  func(context.Context) (grid.Entry, error)
	list []grid.Entry
}

func (o one) Get(ctx context.Context, _ string) (grid.Entry, error) { return o.get(ctx) }

func (o one) List(context.Context, string, string, int) ([]grid.Entry, bool, error) {
	return o.list, false, nil
}

// call makes a request, and tells whether it ended the guest.
func call(ctx context.Context, t *testing.T, w *wasi.State, s *State, r Request) (errno wasi.Errno, ended bool) {
	t.Helper()
	mem := memory{b: make([]byte, 1<<16)}
	n := copy(mem.b[100:], encode(r))
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(*sys.ExitError); !ok {
				t.Errorf("it panics with %v", r)
			}
			ended = true
		}
	}()
	return kv(context.WithValue(ctx, Key{}, s), w, mem, []uint64{100, uint64(n), 8}), false
}

var getA = Request{Op: abi.KVGet, Key: "a"}

// Which errors are the guest's, and which end it.
func TestErrors(t *testing.T) {
	for code := grid.Unknown; code <= grid.OutOfDate; code++ {
		want, ofGuest := map[grid.Code]wasi.Errno{
			grid.NotFound: vfs.ENOENT, grid.Conflict: vfs.EAGAIN, grid.Denied: vfs.ENOTCAPABLE, grid.Invalid: vfs.EINVAL, grid.Limit: vfs.ENOSPC,
		}[code]
		var w wasi.State
		w.Reset(wasi.Config{})
		var s State
		s.Reset(one{get: func(context.Context) (grid.Entry, error) { return grid.Entry{}, grid.Errorf(code, "the reason") }})
		errno, ended := call(t.Context(), t, &w, &s, getA)
		switch {
		case ended == ofGuest || errno != want || (w.Err() == nil) != ofGuest:
			t.Errorf("%v: %v, ended %t, the host's failure %v", code, errno, ended, w.Err())
		case ofGuest && w.Message() != "the reason":
			t.Errorf("%v: message %q", code, w.Message())
		case !ofGuest && (grid.CodeOf(w.Err()) != code || !strings.Contains(w.Err().Error(), "realm's map: the reason")):
			t.Errorf("%v: %v", code, w.Err())
		}
		if denied := s.Denied() != ""; denied != (code == grid.Denied) {
			t.Errorf("%v: denied %q", code, s.Denied())
		}
	}
}

// A guest whose time is over while it waits is ended for that, whoever noticed it first.
func TestTime(t *testing.T) {
	for name, get := range map[string]func(context.Context) (grid.Entry, error){
		"it waits": func(ctx context.Context) (grid.Entry, error) { <-ctx.Done(); return grid.Entry{}, ctx.Err() },
		"the map is quicker": func(ctx context.Context) (grid.Entry, error) {
			end, _ := ctx.Deadline()
			<-time.After(time.Until(end))
			return grid.Entry{}, grid.Errorf(grid.Deadline, "too slow")
		},
		"it is too late": func(ctx context.Context) (grid.Entry, error) { <-ctx.Done(); return grid.Entry{}, nil },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		var w wasi.State
		w.Reset(wasi.Config{})
		var s State
		s.Reset(one{get: get})
		if _, ended := call(ctx, t, &w, &s, getA); !ended || !w.Stopped() || w.Err() != nil {
			t.Errorf("%s: ended %t, stopped %t, %v", name, ended, w.Stopped(), w.Err())
		}
		cancel()
		w.Release()
	}
}

// What a guest holds of the host's memory is bounded, however few responses it is in.
func TestHeld(t *testing.T) {
	var w wasi.State
	w.Reset(wasi.Config{})
	var s State
	large := grid.Entry{Key: "a", Value: make([]byte, grid.MaxLedgerValue)}
	s.Reset(one{list: []grid.Entry{large, large, large, large}})
	list := Request{Op: abi.KVList, Limit: 4}
	for i := range 3 {
		if errno, ended := call(t.Context(), t, &w, &s, list); ended || (errno == 0) != (i < 2) {
			t.Errorf("response %d: %v, ended %t", i, errno, ended)
		}
	}
	w.Release()
	if s.open != 0 || s.held != 0 {
		t.Errorf("%d responses, %d bytes are held", s.open, s.held)
	}
}

// A map that does not keep to its contract is the host's failure.
func TestTooMany(t *testing.T) {
	var w wasi.State
	w.Reset(wasi.Config{})
	var s State
	s.Reset(one{list: make([]grid.Entry, 2)})
	if _, ended := call(t.Context(), t, &w, &s, Request{Op: abi.KVList, Limit: 1}); !ended || !errors.Is(w.Err(), grid.Internal) {
		t.Errorf("ended %t, %v", ended, w.Err())
	}
}
