package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/wasmgrid/wasmgrid/grid"
)

// attaching is the body of POST /extensions.
type attaching struct {
	Ref       string         `json:"ref"`       // the plugin's function, as PLUGIN[@VERSION][.FUNCTION]
	Extension grid.Extension `json:"extension"` // role, name, limits and what is for that role; the rest is filled in
}

// extensionRoutes are those of plugins that extend nodes.
func (s *Server) extensionRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	route("GET /extensions", func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
		defer cancel()
		all, err := s.Node.Extensions(ctx)
		return reply(w, orEmpty(all), ledgerError(err, r))
	})
	route("POST /extensions", func(w http.ResponseWriter, r *http.Request) error { // which may have to fetch and compile
		var in attaching
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		x, err := s.Node.Attach(r.Context(), in.Ref, in.Extension)
		return reply(w, x, err)
	})
	route("DELETE /extensions/{key...}", func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
		defer cancel()
		return reply(w, struct{}{}, ledgerError(s.Node.Detach(ctx, r.PathValue("key")), r))
	})
}

// Extensions lists what is attached to the realm, with how it fares on the node that answers.
func (c *Client) Extensions(ctx context.Context) ([]grid.ExtensionStatus, error) {
	return get[[]grid.ExtensionStatus](ctx, c, "/extensions")
}

// Attach has a plugin's function extend all nodes of the realm.
func (c *Client) Attach(ctx context.Context, ref string, x grid.Extension) (out grid.Extension, err error) {
	return out, c.create(ctx, "/extensions", attaching{ref, x}, &out)
}

// Detach takes away what has a role, or notifier/NAME.
func (c *Client) Detach(ctx context.Context, key string) error {
	role, name, err := grid.ParseRole(key)
	if err != nil {
		return err
	}
	path := "/extensions/" + url.PathEscape(string(role))
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	resp, err := c.do(ctx, http.MethodDelete, path, nil)
	if err != nil {
		return err
	}
	return decode(resp, new(struct{}))
}
