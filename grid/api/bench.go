package api

import (
	"context"
	"net/http"

	"github.com/wasmgrid/wasmgrid/grid"
)

// bench measures the node. Two at a time would measure each other.
func (s *Server) bench(w http.ResponseWriter, r *http.Request) error {
	if !s.benching.TryLock() {
		return grid.Errorf(grid.Busy, "the node is being measured already").Hint("try again in half a minute")
	}
	defer s.benching.Unlock()
	out := newStream(w, r)
	return out.end(s.Bench(r.Context(), r.URL.Query().Get("quick") != "", func(m grid.Measured) error { return out.sendNow(m) }))
}

// Bench measures the node, and calls f for each thing as soon as it is measured.
func (c *Client) Bench(ctx context.Context, quick bool, f func(grid.Measured) error) error {
	path := "/bench"
	if quick {
		path += "?quick=1"
	}
	resp, err := c.do(ctx, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	return lines(resp, f)
}
