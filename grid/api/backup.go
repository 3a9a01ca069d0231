package api

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/wasmgrid/wasmgrid/grid"
)

const backupType = "application/vnd.wasmgrid.backup"

func (s *Server) backupRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	route("GET /backup", func(w http.ResponseWriter, r *http.Request) error {
		q := r.URL.Query()
		w.Header().Set("Content-Type", backupType)
		_, err := s.Node.Backup(r.Context(), w, s.Archive, grid.BackupOptions{Data: q.Get("data") != "", Partial: q.Get("partial") != ""})
		return err
	})
	route("POST /restore", func(w http.ResponseWriter, r *http.Request) error {
		done, err := s.Node.Restore(r.Context(), r.Body, s.Archive, r.URL.Query().Get("merge") != "")
		if err != nil {
			_, _ = io.Copy(io.Discard, r.Body) // a sender that is cut off does not get to read why
		}
		return reply(w, done, err)
	})
}

// Backup reads a backup of what the node's realm knows. The caller closes it.
func (c *Client) Backup(ctx context.Context, o grid.BackupOptions) (io.ReadCloser, error) {
	q := url.Values{}
	if o.Data {
		q.Set("data", "1")
	}
	if o.Partial {
		q.Set("partial", "1")
	}
	return c.body(ctx, "/backup?"+q.Encode())
}

// Restore puts a backup into the node's realm; merge, into one that is in use. A backup that is an io.Closer may be closed, and is
// when ctx ends, to free a reader that waits.
func (c *Client) Restore(ctx context.Context, backup io.Reader, merge bool) (done grid.Restored, err error) {
	path := "/restore"
	if merge {
		path += "?merge=1"
	}
	backup, stop := source(ctx, backup)
	defer stop()
	resp, err := c.do(ctx, http.MethodPost, path, backup)
	if err != nil {
		return done, err
	}
	return done, decode(resp, &done)
}
