package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Headers of requests that are done once, however often they are sent.
const (
	headerKey      = "Idempotency-Key"     // names the request; whoever sends it makes it up
	headerRetry    = "Grid-Retry"          // it was sent before, and what came of that is not known
	headerReplayed = "Idempotent-Replayed" // this answer was given before
)

// Bounds on what is remembered of such requests.
const (
	maxOnceKey    = 128              // bytes of a key
	maxFirsts     = 64 << 10         // requests
	maxFirstBytes = 16 << 20         // of their answers
	maxFirst      = 256 << 10        // of one answer: a larger one is not remembered
	firstLasts    = 10 * time.Minute // how long an answer is
	afterGone     = time.Minute      // how long a request goes on when nobody waits for it any more
)

// firsts are requests with a key that are being answered, or were lately. The zero value is ready.
type firsts struct {
	mu    sync.Mutex
	all   map[onceKey]*first
	old   []*first // those that are answered, the oldest first
	bytes int
	since time.Time // whatever was answered after this is known
}

// onceKey tells requests apart: by who makes them, for what, and by the key.
type onceKey struct{ token, route, key string }

// first is a request that came first with its key.
type first struct {
	onceKey
	done  chan struct{} // closed once it is answered, with what is below
	ended bool
	good  bool // whoever comes next gets the same answer; else he is the first
	cut   bool // its body did not come whole
	at    time.Time
	sum   []byte // of its body; nil: it is not known

	status int
	header http.Header
	body   []byte
}

// size is how much memory it takes, about.
func (f *first) size() int { return 512 + len(f.key) + len(f.route) + len(f.body) }

// begin says when there was nothing yet.
func (t *firsts) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all, t.since = make(map[onceKey]*first), time.Now()
	}
}

// take finds the request that came first; mine is true if it is this one, which end must follow. Of one that was sent before
// it has to be known whether it was answered.
func (t *firsts) take(k onceKey, again bool) (f *first, mine bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for len(t.old) > 0 && now.Sub(t.old[0].at) >= firstLasts {
		t.forget()
	}
	f = t.all[k]
	if f != nil && (f.good || !f.ended) {
		return f, false, nil
	}
	if again && f == nil && now.Sub(t.since) < firstLasts {
		return nil, false, grid.Errorf(grid.Unavailable, "it is not known what came of this request when it was sent before: the node was started anew since, or had too much to remember").
			Hint("look whether it was done, then send it with another %s", headerKey)
	}
	f = &first{onceKey: k, done: make(chan struct{})}
	t.all[k] = f
	return f, true, nil
}

// forget drops the oldest.
func (t *firsts) forget() {
	f := t.old[0]
	t.old[0], t.old = nil, t.old[1:]
	t.bytes -= f.size()
	if t.all[f.onceKey] == f {
		delete(t.all, f.onceKey)
	}
}

// end has the answer of a request remembered if it is a good one, and else that there was none.
func (t *firsts) end(f *first, good bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(f.done)
	f.ended, f.good, f.at = true, good, time.Now()
	t.old = append(t.old, f)
	t.bytes += f.size()
	for len(t.old) > maxFirsts || t.bytes > maxFirstBytes {
		t.since = t.old[0].at
		t.forget()
	}
}

// once has requests with a key done once, and the answer to the first one given to all that follow.
func (s *Server) once(pattern string, h http.Handler) http.Handler {
	s.firsts.begin()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys := r.Header.Values(headerKey)
		if len(keys) == 0 {
			h.ServeHTTP(w, r)
			return
		}
		if err := s.answerOnce(w, r, pattern, keys, h); err != nil {
			s.fail(&statusWriter{ResponseWriter: w}, r, err)
		}
	})
}

func (s *Server) answerOnce(w http.ResponseWriter, r *http.Request, pattern string, keys []string, h http.Handler) error {
	k := onceKey{route: pattern + " " + r.URL.RawQuery, key: keys[0]}
	if bad := slices.ContainsFunc([]byte(k.key), func(c byte) bool { return c <= ' ' || c > '~' }); bad || len(keys) != 1 || k.key == "" || len(k.key) > maxOnceKey {
		return grid.Errorf(grid.Invalid, "the request has no one %s of 1 to %d letters, digits and signs", headerKey, maxOnceKey)
	}
	if v := holder(r.Context()); v != nil {
		k.token = v.ID
	}
	var data []byte
	for again := r.Header.Get(headerRetry) != ""; ; again = false {
		f, mine, err := s.firsts.take(k, again)
		if err != nil {
			return err
		}
		if mine {
			s.answerFirst(w, r, f, h)
			return nil
		}
		if data == nil {
			if data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestJSON)); err != nil {
				return grid.Errorf(grid.Invalid, "the request cannot be read: %w", err)
			}
			r.Body = io.NopCloser(bytes.NewReader(data))
		}
		select {
		case <-f.done:
		case <-r.Context().Done():
			return context.Cause(r.Context())
		}
		if f.cut {
			continue // nothing was done
		}
		if sum := sha256.Sum256(data); f.sum != nil && !bytes.Equal(f.sum, sum[:]) {
			return &statusError{http.StatusUnprocessableEntity, grid.Errorf(grid.Conflict, "another request has come with this %s", headerKey).Hint("make up a new key for each request")}
		}
		for name, values := range f.header {
			w.Header()[name] = values
		}
		w.Header().Set(headerReplayed, "true")
		w.WriteHeader(f.status)
		_, _ = w.Write(f.body)
		return nil
	}
}

// answerFirst answers a request that goes on for a while when its sender is gone, so that he can ask again what came of it.
func (s *Server) answerFirst(w http.ResponseWriter, r *http.Request, f *first, h http.Handler) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer cancel(nil)
	var patience *time.Timer
	var mu sync.Mutex
	stop := context.AfterFunc(r.Context(), func() {
		cause := context.Cause(r.Context())
		if grid.CodeOf(cause) == grid.Denied { // his token is good no longer
			cancel(cause)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		patience = time.AfterFunc(afterGone, func() { cancel(cause) })
	})
	defer func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if patience != nil {
			patience.Stop()
		}
	}()
	body := &summed{ReadCloser: r.Body, sum: sha256.New()}
	in := r.WithContext(ctx)
	in.Body = body
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	good := false
	f.cut = true // if h panics
	defer func() { s.firsts.end(f, good) }()
	h.ServeHTTP(rec, in)
	f.status, f.header, f.body = rec.status, w.Header().Clone(), rec.body
	_, err := io.CopyN(io.Discard, body, maxSmallJSON) // what is behind the JSON
	if err == io.EOF {
		f.sum = body.sum.Sum(nil)
	}
	good = rec.status == http.StatusOK && len(rec.body) > 0 && len(rec.body) <= maxFirst
	f.cut = !good && (body.broken || len(rec.body) == 0)
}

// summed is a body whose bytes are hashed as they are read.
type summed struct {
	io.ReadCloser
	sum    hash.Hash
	broken bool // it did not come whole
}

func (b *summed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum.Write(p[:n])
	b.broken = b.broken || err != nil && err != io.EOF
	return n, err
}

// recorder remembers an answer, up to a bound, while it is sent. That nobody takes it does not matter.
type recorder struct {
	http.ResponseWriter
	status int
	body   []byte
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if len(w.body) <= maxFirst {
		w.body = append(w.body, p...)
	}
	_, _ = w.ResponseWriter.Write(p)
	return len(p), nil
}

// retries are how long the client waits before it sends a request again whose connection was lost.
var retries = []time.Duration{100 * time.Millisecond, time.Second, 3 * time.Second}

// create is post for what makes something new, which it does once: when the connection is lost, the request is sent again, with
// the same key.
func (c *Client) create(ctx context.Context, path string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return grid.Errorf(grid.Internal, "encode %T: %w", in, err)
	}
	key := rand.Text()
	for i := 0; ; i++ {
		header := []string{headerKey, key}
		if i > 0 {
			header = append(header, headerRetry, "1")
		}
		err := c.createOnce(ctx, path, data, out, header)
		if i == len(retries) || !errors.Is(err, errLost) {
			return err
		}
		wait := time.NewTimer(retries[i])
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

func (c *Client) createOnce(ctx context.Context, path string, data []byte, out any, header []string) error {
	resp, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(data), header...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err != nil {
		return dialError(ctx, err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return grid.Errorf(grid.Internal, "the node's answer cannot be read: %w", err)
	}
	return nil
}

// errLost is in errors about a connection that was there, and was lost.
var errLost = errors.New("the connection was lost")

// lost reports whether an error is about such a one.
func lost(err error) bool {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return false // there was none
	}
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
