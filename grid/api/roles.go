package api

import (
	"net/http"

	"github.com/wasmgrid/wasmgrid/grid"
)

// asUser has a request be for the user who has proved who he is, if one has.
func asUser(r *http.Request, req *grid.Request) error {
	user := grid.UserOf(r.Context())
	if user == "" {
		return nil
	}
	if req.User != "" && req.User != user {
		return grid.Errorf(grid.Denied, "the job is to run for %q, and the token is that of %q", req.User, user).Hint("leave the user out")
	}
	req.User = user
	return nil
}
