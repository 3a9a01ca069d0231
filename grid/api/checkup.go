package api

import (
	"context"
	"net/http"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (s *Server) checkupRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	route("GET /checkup", func(w http.ResponseWriter, r *http.Request) error {
		c := grid.Checkup{Peers: orEmpty(s.Node.AboutPeers(r.Context()))}
		if s.Reach != nil {
			reach := s.Reach()
			c.Reach = &reach
		}
		return reply(w, c, nil)
	})
	route("GET /refusals", func(w http.ResponseWriter, _ *http.Request) error {
		var list []grid.Refusal
		if s.Refusals != nil {
			list = s.Refusals()
		}
		return reply(w, orEmpty(list), nil)
	})
}

// Checkup asks what tells whether all is well with the node; it asks others in turn, which takes some seconds at most.
func (c *Client) Checkup(ctx context.Context) (grid.Checkup, error) {
	return get[grid.Checkup](ctx, c, "/checkup")
}

// Refusals tells what peers, and users of the API over the network, were refused since the node was started.
func (c *Client) Refusals(ctx context.Context) ([]grid.Refusal, error) {
	return get[[]grid.Refusal](ctx, c, "/refusals")
}
