package cli

import (
	"context"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// elsewhere is the node that --api or the environment names, on another machine or not; "": that of the home.
func (e *env) elsewhere() string {
	if e.api != "" {
		return e.api
	}
	text, _ := e.lookupEnv("GRID_API")
	return strings.TrimSpace(text)
}

// openRemote makes a session with the node that is named.
func openRemote(ctx context.Context, e *env, text string) (*session, error) {
	var at []api.Endpoint
	if !api.IsKey(text) && (strings.Contains(text, "://") || !strings.HasPrefix(text, "grid-")) {
		p, err := api.ParseEndpoint(text)
		if err != nil {
			return nil, err
		}
		at = append(at, p)
		if text, _ = e.lookupEnv("GRID_TOKEN"); text == "" {
			return nil, grid.Errorf(grid.Invalid, "there is no token for %s", p.Addr).Hint("put it into GRID_TOKEN; or give it in place of the URL, as it names its node itself")
		}
	}
	key, err := api.ParseKey(text)
	if err != nil {
		return nil, err
	}
	client, _, err := api.Reach(ctx, key, at...)
	if err != nil {
		return nil, err
	}
	return &session{Client: client, remote: true, close: func() error { client.Close(); return nil }}, nil
}

// homeOnly refuses a node elsewhere for what is about the home on this machine.
func (e *env) homeOnly(what string) error {
	if e.elsewhere() == "" {
		return nil
	}
	return grid.Errorf(grid.Invalid, "%s is about a home on this machine, and --api or GRID_API names a node by its API", what).
		Hint("run it on the node's own machine, without them")
}

// ownUser leaves it to the token who the user is, unless somebody else is named.
func (s *session) ownUser(r *grid.Request) {
	if s.remote && r.User == userName() {
		r.User = ""
	}
}

// Submit starts a job.
func (s *session) Submit(ctx context.Context, r grid.Request) (grid.JobID, error) {
	s.ownUser(&r)
	return s.Client.Submit(ctx, r)
}

// Call runs a function once.
func (s *session) Call(ctx context.Context, call api.Call) (api.CallEnd, error) {
	s.ownUser(&call.Request)
	return s.Client.Call(ctx, call)
}
