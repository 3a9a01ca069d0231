package api

import (
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/wasmgrid/wasmgrid/grid"
)

// handlerTransport carries requests to a handler in the same process, bodies streaming both ways.
type handlerTransport struct{ h http.Handler }

// RoundTrip returns when the handler has begun to answer. The handler runs until it is done; its context
// ends with the request's, or when the response's body is closed.
func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	r, w := io.Pipe()
	lw := &localWriter{
		header:  make(http.Header),
		pipe:    w,
		started: make(chan struct{}),
		resp: &http.Response{
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: -1,
			Body: localBody{r, cancel},
		},
	}
	in := req.Clone(ctx)
	in.RequestURI = in.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	// A handler that waits for a body or for its reader does not look at its context.
	unwatch := context.AfterFunc(ctx, func() {
		in.Body.Close()
		r.CloseWithError(context.Cause(ctx))
	})
	go func() {
		var failure error
		defer func() {
			if p := recover(); p != nil {
				failure = grid.Errorf(grid.Internal, "the node broke while answering %s: %v", in.URL.Path, p)
			} else {
				failure = context.Cause(ctx) // what was cut short must not look whole
			}
			in.Body.Close()
			lw.WriteHeader(http.StatusOK)
			lw.resp.Trailer = lw.trailers()
			w.CloseWithError(failure) // nil: io.EOF
			unwatch()
			cancel()
		}()
		t.h.ServeHTTP(lw, in)
	}()
	select {
	case <-lw.started:
		if err := context.Cause(req.Context()); err != nil {
			cancel()
			return nil, err
		}
		return lw.resp, nil
	case <-req.Context().Done():
		cancel()
		return nil, context.Cause(req.Context())
	}
}

// localBody is the client's side of a local response. Closing it before its end ends the handler.
type localBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b localBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// localWriter is the handler's side of a local response.
type localWriter struct {
	header  http.Header
	pipe    *io.PipeWriter
	resp    *http.Response
	once    sync.Once
	started chan struct{}
}

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.resp.StatusCode = status
		w.resp.Status = http.StatusText(status)
		w.resp.Header = w.header.Clone()
		close(w.started)
	})
}

func (w *localWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

// Flush has nothing to do: the pipe does not buffer.
func (w *localWriter) Flush() { w.WriteHeader(http.StatusOK) }

// trailers collects what the handler set under http.TrailerPrefix.
func (w *localWriter) trailers() http.Header {
	t := make(http.Header)
	for k, v := range w.header {
		if name, ok := cutPrefixFold(k, http.TrailerPrefix); ok {
			t[http.CanonicalHeaderKey(name)] = v
		}
	}
	return t
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) > len(prefix) && http.CanonicalHeaderKey(s[:len(prefix)]) == http.CanonicalHeaderKey(prefix) {
		return s[len(prefix):], true
	}
	return "", false
}
