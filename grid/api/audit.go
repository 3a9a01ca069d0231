package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (s *Server) auditRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	route("GET /audit", func(w http.ResponseWriter, r *http.Request) error {
		var since time.Time
		if text := r.URL.Query().Get("since"); text != "" {
			var err error
			if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return grid.Errorf(grid.Invalid, "since=%.40q is no time", text).Hint("such as 2006-01-02T15:04:05Z")
			}
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		return s.Node.ExportAudit(r.Context(), since, w)
	})
}

// Audit reads the realm's audit log, for [grid.CheckAudit]. With since, blocks of entries that were sealed before are left
// out. The caller closes it.
func (c *Client) Audit(ctx context.Context, since time.Time) (io.ReadCloser, error) {
	path := "/audit"
	if !since.IsZero() {
		path += "?" + url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}}.Encode()
	}
	return c.body(ctx, path)
}
