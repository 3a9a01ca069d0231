package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// counting answers with a number that grows, once what it is sent has come; "bad" is refused, "wait" waits for room.
type counting struct {
	s    *Server
	n    int
	room chan struct{}
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	sw := &statusWriter{ResponseWriter: w}
	switch {
	case err != nil:
		err = grid.Errorf(grid.Invalid, "cut: %w", err)
	case string(data) == "bad":
		err = grid.Errorf(grid.Conflict, "bad")
	case string(data) == "wait":
		select {
		case <-c.room:
		case <-r.Context().Done():
			err = context.Cause(r.Context())
		}
	}
	if c.n++; err != nil {
		c.s.fail(sw, r, err)
		return
	}
	_ = reply(sw, c.n, nil)
}

// asking makes requests of a route whose answers are counted.
func asking(s *Server, c *counting) func(ctx context.Context, key, body string, header ...string) *httptest.ResponseRecorder {
	h := s.once("POST /jobs", c)
	return func(ctx context.Context, key, body string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(ctx, "POST", "/v1/jobs", strings.NewReader(body))
		r.Header.Set(headerKey, key)
		if key == "" {
			r.Header.Del(headerKey)
		}
		for _, h := range header {
			r.Header.Set(h, "1")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		c := &counting{s: s}
		ask := asking(s, c)
		ctx := t.Context()
		for i, tt := range []struct {
			key, body, want string
			status          int
			header          string
		}{
			{"a", "x", "1\n", 200, ""},
			{"a", "x", "1\n", 200, ""},
			{"a", "x", "1\n", 200, headerRetry},
			{"", "x", "2\n", 200, ""},
			{"", "x", "3\n", 200, ""},
			{"b", "x", "4\n", 200, ""},
			{"a", "y", "another request", 422, ""},
			{"c", "bad", "bad", 409, ""}, // what has failed may be tried again, in another way, too
			{"c", "x", "6\n", 200, headerRetry},
			{"c", "x", "6\n", 200, ""},
			{"new", "x", "not known", 503, headerRetry},
			{"new", "x", "7\n", 200, ""},
			{"sp ace", "x", "no one", 400, ""},
			{strings.Repeat("k", maxOnceKey+1), "x", "no one", 400, ""},
		} {
			var header []string
			if tt.header != "" {
				header = append(header, tt.header)
			}
			w := ask(ctx, tt.key, tt.body, header...)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d: %+v: status %d, %s", i, tt, w.Code, w.Body)
			}
		}
		time.Sleep(firstLasts) // by now whatever was sent before is known, or forgotten
		if w := ask(ctx, "new2", "x", headerRetry); w.Body.String() != "8\n" {
			t.Errorf("status %d, %s", w.Code, w.Body)
		}
		if w := ask(ctx, "a", "y"); w.Body.String() != "9\n" || len(s.firsts.all) != 2 {
			t.Errorf("status %d, %s; %d are known", w.Code, w.Body, len(s.firsts.all))
		}
	})
}

// Who asks while the first is being answered waits for that, and the first goes on when its sender is gone.
func TestOnceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		c := &counting{s: s, room: make(chan struct{})}
		ask := asking(s, c)
		first, hangUp := context.WithCancel(t.Context())
		answers := make(chan string, 3)
		go func() { ask(first, "k", "wait"); answers <- "" }()
		synctest.Wait()
		for range 2 {
			go func() { answers <- ask(t.Context(), "k", "wait", headerRetry).Body.String() }()
		}
		synctest.Wait()
		hangUp()
		synctest.Wait()
		close(c.room)
		for range 3 {
			if got := <-answers; got != "" && got != "1\n" {
				t.Errorf("answer %q", got)
			}
		}
		// But not for ever; then nothing was done, and whoever has waited does it.
		c.room = make(chan struct{})
		first, hangUp = context.WithCancel(t.Context())
		go func() { ask(first, "l", "wait"); answers <- "" }()
		synctest.Wait()
		go func() { answers <- ask(t.Context(), "l", "wait").Body.String() }()
		hangUp()
		if got := <-answers; got != "" {
			t.Errorf("answer %q", got)
		}
		synctest.Wait()
		close(c.room)
		if got := <-answers; got != "3\n" {
			t.Errorf("answer %q", got)
		}
		// Nor when his token is taken away.
		c.room = make(chan struct{})
		held, take := context.WithCancelCause(t.Context())
		go func() { ask(held, "m", "wait"); answers <- "" }()
		synctest.Wait()
		take(grid.Errorf(grid.Denied, "the token was removed"))
		<-answers
	})
}

// There is no end of keys, and one of memory.
func TestOnceBounds(t *testing.T) {
	var all firsts
	all.begin()
	for i := range maxFirsts {
		f, mine, err := all.take(onceKey{key: fmt.Sprint(i)}, false)
		if err != nil || !mine {
			t.Fatal(i, mine, err)
		}
		f.body = make([]byte, 100)
		all.end(f, true)
	}
	sum := 0
	for _, f := range all.old {
		sum += f.size()
	}
	if len(all.all) != len(all.old) || all.bytes != sum || sum > maxFirstBytes || len(all.old) < 1000 {
		t.Errorf("%d known, %d in order, %d bytes, said to be %d", len(all.all), len(all.old), sum, all.bytes)
	}
	if _, _, err := all.take(onceKey{key: "0"}, true); grid.CodeOf(err) != grid.Unavailable {
		t.Errorf("what was forgotten is known: %v", err)
	}
}

// TestRetry: when the connection is lost the client asks again, and gets the answer to its first request.
func TestRetry(t *testing.T) {
	s := fullServer(t)
	var calls atomic.Int32
	inner := s.Handler()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := calls.Add(1); {
		case n == 1: // it is done, and nobody learns of it
			inner.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case n == 2: // the answer is cut off
			rec := httptest.NewRecorder()
			inner.ServeHTTP(rec, r)
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(rec.Body.Bytes()[:5])
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	c := Dial(l.Addr().String())
	t.Cleanup(c.Close)
	m := grid.NewBlock(0x55, []byte("\x00asm\x01\x00\x00\x00"))
	id, err := c.Submit(t.Context(), grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: grid.Link{Cid: m.CID()}, Tasks: 1}}}})
	if err != nil || calls.Load() != 3 {
		t.Fatalf("job %s after %d calls, %v", id, calls.Load(), err)
	}
	if jobs, err := c.Jobs(t.Context()); err != nil || len(jobs) != 1 || jobs[0].ID != id {
		t.Errorf("jobs %+v, %v", jobs, err)
	}
	calls.Store(0)
	if _, err := c.Jobs(t.Context()); grid.CodeOf(err) != grid.Unavailable || !strings.Contains(err.Error(), "was lost") {
		t.Errorf("a list is %v", err)
	}
}

// BenchmarkOnce is what a key costs a request, beside one without.
func BenchmarkOnce(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprint("key=", keyed), func(b *testing.B) {
			s := &Server{}
			ask := asking(s, &counting{s: s})
			for i := range b.N {
				key := ""
				if keyed {
					key = fmt.Sprint(i)
				}
				ask(b.Context(), key, "x")
			}
		})
	}
}

// FuzzOnceKey: no key breaks the server or is taken for another.
func FuzzOnceKey(f *testing.F) {
	f.Add("a", "b")
	f.Add(" ", "\x00")
	f.Fuzz(func(t *testing.T, a, b string) {
		s := &Server{}
		ask := asking(s, &counting{s: s})
		x, y := ask(t.Context(), a, "x"), ask(t.Context(), b, "x")
		if x.Code == 200 && y.Code == 200 && a != "" && b != "" && bytes.Equal(x.Body.Bytes(), y.Body.Bytes()) != (a == b) {
			t.Errorf("%q: %s, %q: %s", a, x.Body, b, y.Body)
		}
	})
}
