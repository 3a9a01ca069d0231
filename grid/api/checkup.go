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
}

// Checkup asks what tells whether all is well with the node; it asks others in turn, which takes some seconds at most.
func (c *Client) Checkup(ctx context.Context) (grid.Checkup, error) {
	return get[grid.Checkup](ctx, c, "/checkup")
}
