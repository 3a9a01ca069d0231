package guesttask

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

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

func (m memory) Size() uint32 { return uint32(len(m.b)) }

func (m memory) Read(at, n uint32) ([]byte, bool) {
	if uint64(at)+uint64(n) > uint64(len(m.b)) {
		return nil, false
	}
	return m.b[at : at+n : at+n], true
}

// tasks are children that end as they are told to, in order, once they are awaited.
type tasks struct {
	calls   []grid.Call
	endings []grid.Ending
	errs    []error
	refuse  error
	ended   bool
}

func (t *tasks) Spawn(_ context.Context, c grid.Call) (uint32, error) {
	if t.refuse != nil {
		return 0, t.refuse
	}
	t.calls = append(t.calls, c)
	return uint32(len(t.calls) - 1), nil
}

func (t *tasks) Ended(uint32) bool { return t.ended }

func (t *tasks) Await(_ context.Context, i uint32) (grid.Ending, error) {
	if int(i) >= len(t.endings) {
		return grid.Ending{}, grid.Errorf(grid.NotFound, "there is no task %d to await", i)
	}
	return t.endings[i], t.errs[i]
}

func (t *tasks) ends(e grid.Ending, err error) {
	t.endings, t.errs = append(t.endings, e), append(t.errs, err)
}

// guest calls the functions as a guest does.
type guest struct {
	t     *testing.T
	tasks tasks
	state State
	wasi  wasi.State
	mem   memory
	waits int
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t, mem: memory{b: make([]byte, 1<<16)}}
	g.wasi.Reset(wasi.Config{})
	g.state.Reset(Config{Context: t.Context(), Tasks: &g.tasks, Idle: func(size uint64, wait func() error) error {
		g.waits++
		if size != 1<<16 {
			t.Errorf("%d bytes", size)
		}
		return wait()
	}})
	return g
}

// call calls a function, and tells whether it ended the guest.
func (g *guest) call(f func(context.Context, *wasi.State, api.Memory, []uint64) wasi.Errno, p ...uint64) (errno wasi.Errno, ended bool) {
	g.t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if e, ok := r.(*sys.ExitError); !ok || e.ExitCode() != wasi.ExitHostFailure {
				g.t.Errorf("it panics with %v", r)
			}
			ended = true
		}
	}()
	return f(context.WithValue(g.t.Context(), Key{}, &g.state), &g.wasi, g.mem, p), false
}

func (g *guest) spawn(request string) (wasi.Errno, bool) {
	g.t.Helper()
	copy(g.mem.b[100:], request)
	return g.call(spawn, 100, uint64(len(request)), 8)
}

func (g *guest) message() string {
	g.t.Helper()
	return g.wasi.Message()
}

const plain = "\x01\x00\x00\x00f\x00\x00\x00\x00in"

func TestFunctions(t *testing.T) {
	g := newGuest(t)
	for i := range 3 {
		if errno, ended := g.spawn(plain); errno != 0 || ended || binary.LittleEndian.Uint32(g.mem.b[8:]) != uint32(i) {
			t.Fatalf("child %d: %v, number %d", i, errno, binary.LittleEndian.Uint32(g.mem.b[8:]))
		}
	}
	if want := (grid.Call{Func: "f", Stdin: []byte("in")}); !reflect.DeepEqual(g.tasks.calls[2], want) {
		t.Errorf("%+v, want %+v", g.tasks.calls[2], want)
	}
	g.tasks.ends(grid.Ending{Stdout: io.NopCloser(strings.NewReader("out"))}, nil)
	g.tasks.ends(grid.Ending{Exit: 7, Stdout: io.NopCloser(strings.NewReader("")), Stderr: []byte("oh\xff" + strings.Repeat("x", 2000))}, nil)
	g.tasks.ends(grid.Ending{Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable"}}, nil)
	for _, tt := range []struct {
		child   uint64
		errno   wasi.Errno
		exit    uint32
		message string
	}{
		{0, 0, 0, ""},
		{1, 0, 7, "oh" + strings.Repeat("x", abi.MaxMessage-len("oh?…")) + "…"},
		{2, 11, 7, "trap: unreachable"},
		{3, 12, 7, "there is no task 3 to await"},
		{1 << 31, 12, 7, "there is no task 2147483648 to await"},
	} {
		errno, ended := g.call(await, tt.child, 16, 20)
		if exit := binary.LittleEndian.Uint32(g.mem.b[20:]); errno != tt.errno || ended || exit != tt.exit {
			t.Errorf("child %d: %v, exit code %d", tt.child, errno, exit)
		}
		if got := g.message(); got != tt.message {
			t.Errorf("child %d: %q, want %q", tt.child, got, tt.message)
		}
	}
	if g.waits != 5 {
		t.Errorf("it waited %d times", g.waits)
	}
	g.tasks.ended = true
	if g.call(await, 3, 16, 20); g.waits != 5 {
		t.Error("it waited for what had ended")
	}

	// Pointers come from anybody.
	for _, p := range [][]uint64{{1 << 16, 1, 8}, {100, 1 << 31, 8}, {100, 10, 1<<16 - 3}, {1<<32 - 1, 1<<32 - 1, 0}} {
		if errno, _ := g.call(spawn, p...); errno != vfs.EFAULT {
			t.Errorf("spawn%d: %v", p, errno)
		}
	}
	for _, p := range [][]uint64{{0, 1<<16 - 3, 0}, {0, 0, 1 << 16}, {0, 1<<32 - 1, 1<<32 - 1}} {
		if errno, _ := g.call(await, p...); errno != vfs.EFAULT {
			t.Errorf("await%d: %v", p, errno)
		}
	}
	for _, request := range []string{"", "\x01", "\x01\x00\x00\x00", "\xff\xff\xff\xfff", "\x00\x00\x00\x00\x01\x00\x00\x00", "\x00\x00\x00\x00\xff\xff\xff\xff"} {
		if errno, ended := g.spawn(request); errno != vfs.EINVAL || ended || !strings.Contains(g.message(), "malformed") {
			t.Errorf("%q: %v, %q", request, errno, g.message())
		}
	}
	if g.state.Stopped() {
		t.Error("it was ended")
	}
}

// What a guest must not know ends it.
func TestStopped(t *testing.T) {
	broken := errors.New("broken")
	late := &grid.Fault{Code: grid.Deadline, Message: "ran for long", Fatal: true}
	for name, tt := range map[string]struct {
		refuse error
		end    grid.Ending
		err    error
		fault  string
		want   error
	}{
		"a bound":        {refuse: grid.Errorf(grid.Limit, "spawned too many"), fault: "spawned too many"},
		"no room":        {refuse: broken, want: broken},
		"a late child":   {end: grid.Ending{Fault: late}, fault: "ran for long"},
		"a host failure": {err: broken, want: broken},
	} {
		g := newGuest(t)
		g.tasks.refuse = tt.refuse
		g.tasks.ends(tt.end, tt.err)
		_, ended := g.spawn(plain)
		if tt.refuse == nil {
			_, ended = g.call(await, 0, 16, 20)
		}
		if !ended || !g.state.Stopped() || g.state.Err() != tt.want || (g.state.Fault() != nil) != (tt.fault != "") ||
			tt.fault != "" && g.state.Fault().Message != tt.fault {
			t.Errorf("%s: ended %t, fault %+v, error %v", name, ended, g.state.Fault(), g.state.Err())
		}
	}
}

// Without somebody who runs them there are no tasks.
func TestNone(t *testing.T) {
	g := newGuest(t)
	g.state.Reset(Config{})
	if errno, ended := g.spawn(plain); errno != vfs.ENOTSUP || ended {
		t.Error(errno)
	}
	if errno, ended := g.call(await, 0, 16, 20); errno != vfs.ENOTSUP || ended {
		t.Error(errno)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", plain, "\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00a\x00\x00\x00\x00rest", "\xff\xff\xff\x7f", "\x00\x00\x00\x00\xff\xff\x00\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			if grid.CodeOf(err) != grid.Invalid {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		word := func(s string) {
			again = append(binary.LittleEndian.AppendUint32(again, uint32(len(s))), s...)
		}
		word(c.Func)
		again = binary.LittleEndian.AppendUint32(again, uint32(len(c.Args)))
		for _, a := range c.Args {
			word(a)
		}
		if again = append(again, c.Stdin...); !bytes.Equal(again, b) {
			t.Fatalf("%q is read as %+v", b, c)
		}
	})
}
