package api

import (
	"io"
	"net/http"
	"sync"

	"github.com/wasmgrid/wasmgrid/grid"
)

// handlerTransport carries requests to a handler in the same process, bodies streaming both ways.
type handlerTransport struct{ h http.Handler }

// RoundTrip returns when the handler has begun to answer. The handler runs until it is done or the
// request's context ends; closing the response's body breaks its writes.
func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r, w := io.Pipe()
	lw := &localWriter{
		header:  make(http.Header),
		pipe:    w,
		started: make(chan struct{}),
		resp:    &http.Response{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: r, Request: req, ContentLength: -1},
	}
	in := req.Clone(req.Context())
	in.RequestURI = in.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		var failure error
		defer func() {
			if p := recover(); p != nil {
				failure = grid.Errorf(grid.Internal, "the node broke while answering %s: %v", in.URL.Path, p)
			}
			in.Body.Close()
			lw.WriteHeader(http.StatusOK)
			lw.resp.Trailer = lw.trailers()
			w.CloseWithError(failure) // nil: io.EOF
		}()
		t.h.ServeHTTP(lw, in)
	}()
	select {
	case <-lw.started:
		return lw.resp, nil
	case <-req.Context().Done():
		r.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
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
