package api

import (
	"context"
	"net/http"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Access is what whoever asks may do.
type Access struct {
	Role    grid.TokenRole `json:"role"`             // on the node's socket always that of an admin
	Token   string         `json:"token,omitempty"`  // the ID of the token that the request came with; "": it needed none
	Name    string         `json:"name,omitempty"`   // as whose user everything is done; "": the request may say
	Expires time.Time      `json:"expires,omitzero"` // zero: never
}

// access tells who asks what he may do, so that a program need not try.
func access(w http.ResponseWriter, r *http.Request) error {
	a := Access{Role: grid.TokenAdmin}
	if v := holder(r.Context()); v != nil {
		a = Access{v.Role, v.ID, v.Name, v.Expires}
	}
	return reply(w, a, nil)
}

// Access tells what this client may do.
func (c *Client) Access(ctx context.Context) (Access, error) {
	return get[Access](ctx, c, "/access")
}
