package cli

import (
	"context"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// openRemote makes a session with a node elsewhere.
func openRemote(ctx context.Context, t *target) (*session, error) {
	key, at, err := parseAPI(t.api, t.token)
	if err != nil {
		return nil, err
	}
	client, _, err := api.Reach(ctx, key, at...)
	if err != nil {
		return nil, err
	}
	return &session{Client: client, remote: true, close: func() error { client.Close(); return nil }}, nil
}

// parseAPI reads a token that names its node, or a URL and the token for it.
func parseAPI(text, token string) (key api.Key, at []api.Endpoint, err error) {
	if !api.IsKey(text) && (strings.Contains(text, "://") || !strings.HasPrefix(text, "grid-")) {
		p, err := api.ParseEndpoint(text)
		if err != nil {
			return key, nil, err
		}
		if at = append(at, p); token == "" {
			return key, nil, grid.Errorf(grid.Invalid, "there is no token for %s", p.Addr).Hint("put it into GRID_TOKEN; or give it in place of the URL, as it names its node itself")
		}
		text = token
	}
	key, err = api.ParseKey(text)
	return key, at, err
}

// homeOnly refuses a node elsewhere for what is about the home on this machine.
func (e *env) homeOnly(what string) error {
	at, err := e.target()
	if err != nil || at.api == "" {
		return err
	}
	return grid.Errorf(grid.Invalid, "%s is about a home on this machine, and %s names a node by its API", what, at.from).
		Hint("name the home with --home, or run it on the node's own machine")
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
