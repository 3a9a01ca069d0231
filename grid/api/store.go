package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// addGrace is how long what was added stays after the answer, so that a job or a pin can name it.
const addGrace = 5 * time.Minute

// Store is what the API can do with a node's block store as a whole.
type Store interface {
	// Use tells what it holds.
	Use(context.Context) (grid.StoreUse, error)
	// Collect deletes what nothing keeps, or with dryRun only counts it.
	Collect(ctx context.Context, dryRun bool) (grid.Collected, error)
	// Verify reads everything. With repair it fetches what is damaged from other nodes.
	Verify(ctx context.Context, repair bool) (grid.Verified, error)
}

// storeRoutes are those of the block store.
func (s *Server) storeRoutes(route func(string, func(http.ResponseWriter, *http.Request) error)) {
	if s.Store == nil {
		return
	}
	route("GET /store", func(w http.ResponseWriter, r *http.Request) error {
		u, err := s.Store.Use(r.Context())
		return reply(w, u, err)
	})
	route("POST /store/gc", func(w http.ResponseWriter, r *http.Request) error {
		c, err := s.Store.Collect(r.Context(), r.URL.Query().Get("dry_run") != "")
		return reply(w, c, err)
	})
	route("POST /store/verify", func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.Store.Verify(r.Context(), r.URL.Query().Get("repair") != "")
		return reply(w, v, err)
	})
}

// StoreUse tells what the node's block store holds.
func (c *Client) StoreUse(ctx context.Context) (grid.StoreUse, error) {
	return get[grid.StoreUse](ctx, c, "/store")
}

// Collect deletes the blocks that nothing keeps. With dryRun it only counts them.
func (c *Client) Collect(ctx context.Context, dryRun bool) (out grid.Collected, err error) {
	return out, c.post(ctx, "/store/gc"+flag("dry_run", dryRun), nil, &out)
}

// Verify reads all blocks. With repair it fetches the damaged ones again from other nodes.
func (c *Client) Verify(ctx context.Context, repair bool) (out grid.Verified, err error) {
	return out, c.post(ctx, "/store/verify"+flag("repair", repair), nil, &out)
}

// flag is a query with one flag in it, if it is set.
func flag(name string, set bool) string {
	if !set {
		return ""
	}
	return "?" + url.Values{name: {"1"}}.Encode()
}
