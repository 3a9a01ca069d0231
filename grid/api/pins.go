package api

import (
	"context"
	"net/http"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// drainRequest is the body of POST /drain.
type drainRequest struct {
	On bool `json:"on"` // whether to hand on or to end that
}

func (s *Server) pinRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	route("POST /pins", func(w http.ResponseWriter, r *http.Request) error {
		var p grid.Pin
		if err := readJSON(w, r, &p); err != nil {
			return err
		}
		st, err := s.Node.Pin(r.Context(), p)
		return reply(w, st, err)
	})
	route("GET /pins", func(w http.ResponseWriter, r *http.Request) error {
		list, err := s.Node.Pins.Pins(r.Context())
		return paged(w, r, list, func(p *grid.PinStatus) string { return p.Root.String() }, err)
	})
	route("GET /pins/{cid}", func(w http.ResponseWriter, r *http.Request) error {
		c, err := parseRoot(r.PathValue("cid"))
		if err != nil {
			return err
		}
		st, err := s.Node.Pins.Status(r.Context(), c, r.URL.Query().Get("deep") != "")
		return reply(w, st, err)
	})
	route("DELETE /pins/{cid}", func(w http.ResponseWriter, r *http.Request) error {
		c, err := parseRoot(r.PathValue("cid"))
		if err != nil {
			return err
		}
		return reply(w, struct{}{}, s.Node.Unpin(r.Context(), c))
	})
	route("GET /drain", func(w http.ResponseWriter, r *http.Request) error {
		st, err := s.Node.Pins.Draining(r.Context())
		return reply(w, st, err)
	})
	route("POST /drain", func(w http.ResponseWriter, r *http.Request) error {
		var d drainRequest
		if err := readJSON(w, r, &d); err != nil {
			return err
		}
		return reply(w, struct{}{}, s.Node.Drain(r.Context(), d.On))
	})
}

// maxSmallJSON bounds the body of a request that says a few things.
const maxSmallJSON = 64 << 10

func readJSON(w http.ResponseWriter, r *http.Request, out any) error {
	return readBody(w, r, "the request", maxSmallJSON, out)
}

// Pin makes a promise to keep a DAG, which is fetched first if it is not there.
func (c *Client) Pin(ctx context.Context, p grid.Pin) (st grid.PinStatus, err error) {
	return st, c.create(ctx, "/pins", p, &st)
}

// Unpin takes a promise back.
func (c *Client) Unpin(ctx context.Context, root cid.Cid) error {
	resp, err := c.do(ctx, http.MethodDelete, "/pins/"+root.String(), nil)
	if err != nil {
		return err
	}
	return decode(resp, nil)
}

// Pins lists the pins that the node knows, the oldest first.
func (c *Client) Pins(ctx context.Context) ([]grid.PinStatus, error) {
	return get[[]grid.PinStatus](ctx, c, "/pins")
}

// PinStatus asks all nodes concerned how a pin stands; deep has them look for every block.
func (c *Client) PinStatus(ctx context.Context, root cid.Cid, deep bool) (grid.PinStatus, error) {
	path := "/pins/" + root.String()
	if deep {
		path += "?deep=1"
	}
	return get[grid.PinStatus](ctx, c, path)
}

// Drain has the node hand on what it keeps, or ends that.
func (c *Client) Drain(ctx context.Context, on bool) error {
	return c.post(ctx, "/drain", drainRequest{on}, nil)
}

// Draining tells how far the node is with that.
func (c *Client) Draining(ctx context.Context) (grid.DrainStatus, error) {
	return get[grid.DrainStatus](ctx, c, "/drain")
}
