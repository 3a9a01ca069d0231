package api

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"

	"github.com/wasmgrid/wasmgrid/grid"
)

// passed are the headers of an answer that go on to a browser. A node that is not to be trusted has no others set for the page that asks, such as cookies, which are
// those of all ports of this machine, or orders to forget what is stored.
var passed = []string{"Accept-Ranges", "Allow", "Cache-Control", "Content-Disposition", "Content-Length", "Content-Range", "Content-Type", "Date", "Etag",
	headerNext, headerReplayed, "Retry-After", "Trailer"}

// Forward passes requests on to the node as if this client had made them: with its token, whatever they came with. Streams go on as they come.
// While the node does not answer, the answer is 502, which no node gives.
func (c *Client) Forward(log *slog.Logger) http.Handler {
	to, err := url.Parse(c.base)
	if err != nil {
		panic(err) // we have made it
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to) // and the host with it
			for _, h := range []string{"Authorization", "Origin", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"} {
				r.Out.Header.Del(h) // about the way to us
			}
			if c.token != "" {
				r.Out.Header.Set("Authorization", "Bearer "+c.token)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			maps.DeleteFunc(resp.Header, func(name string, _ []string) bool { return !slices.Contains(passed, name) })
			resp.Header.Set("X-Content-Type-Options", "nosniff")
			return nil
		},
		Transport:     c.http.Transport,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // nobody listens any more
			}
			lost := grid.Errorf(grid.Unavailable, "the node does not answer: %w", err).Hint("is it running? `grid up` starts it")
			writeProblem(&statusWriter{ResponseWriter: w}, r, problemOf(&statusError{http.StatusBadGateway, lost}), log, lost)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // the node tells of files while others are sent; HTTP/2 does so anyway
		proxy.ServeHTTP(w, r)
	})
}
