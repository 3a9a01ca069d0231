package api

import (
	"net/http"

	"github.com/wasmgrid/wasmgrid/grid"
)

// leastRole is which role a token must have for each route. What is not here nobody may do over the network.
//
// No route takes the name of a file of the node's machine: what is sent in comes in the request.
var leastRole = map[string]grid.TokenRole{
	// Whoever has a token sees how the node and its jobs are, and reads data whose names he knows.
	"/":                            grid.TokenViewer, // answers that there is no such route
	"GET /metrics":                 grid.TokenViewer,
	"/ipfs/":                       grid.TokenViewer,
	"GET /node":                    grid.TokenViewer,
	"GET /peers":                   grid.TokenViewer,
	"POST /have":                   grid.TokenViewer,
	"GET /stat/{cid}/{path...}":    grid.TokenViewer,
	"GET /ls/{cid}/{path...}":      grid.TokenViewer,
	"GET /cat/{cid}/{path...}":     grid.TokenViewer,
	"GET /tar/{cid}/{path...}":     grid.TokenViewer,
	"GET /car/{cid}/{path...}":     grid.TokenViewer,
	"GET /survey/{cid}/{path...}":  grid.TokenViewer,
	"GET /diff":                    grid.TokenViewer,
	"GET /pins":                    grid.TokenViewer,
	"GET /pins/{cid}":              grid.TokenViewer,
	"GET /drain":                   grid.TokenViewer,
	"GET /kv":                      grid.TokenViewer,
	"GET /kv/entry":                grid.TokenViewer,
	"GET /kv/watch":                grid.TokenViewer,
	"GET /refs":                    grid.TokenViewer,
	"GET /refs/{name...}":          grid.TokenViewer,
	"GET /resolve":                 grid.TokenViewer,
	"GET /ledger":                  grid.TokenViewer,
	"GET /plugins":                 grid.TokenViewer,
	"GET /plugins/{ref}":           grid.TokenViewer,
	"GET /plugin-policy":           grid.TokenViewer,
	"GET /extensions":              grid.TokenViewer,
	"GET /store":                   grid.TokenViewer,
	"GET /swarm":                   grid.TokenViewer,
	"GET /swarm/members":           grid.TokenViewer,
	"GET /audit":                   grid.TokenViewer,
	"GET /checkup":                 grid.TokenViewer,
	"GET /jobs":                    grid.TokenViewer,
	"GET /jobs/{id}":               grid.TokenViewer,
	"GET /jobs/{id}/why":           grid.TokenViewer,
	"GET /jobs/{id}/events":        grid.TokenViewer,
	"GET /jobs/{id}/watch":         grid.TokenViewer,
	"GET /jobs/{id}/tasks":         grid.TokenViewer,
	"GET /jobs/{id}/usage":         grid.TokenViewer,
	"GET /usage":                   grid.TokenViewer,
	"GET /quotas":                  grid.TokenViewer,
	"POST /jobs":                   grid.TokenSubmitter,
	"POST /jobs/{id}/cancel":       grid.TokenSubmitter, // of its own
	"DELETE /jobs/{id}":            grid.TokenSubmitter, // of its own
	"POST /jobs/{id}/verify":       grid.TokenSubmitter, // it runs tasks
	"POST /call":                   grid.TokenSubmitter,
	"GET /modules/{cid}":           grid.TokenSubmitter, // it compiles
	"POST /add":                    grid.TokenSubmitter,
	"POST /car":                    grid.TokenSubmitter,
	"POST /pins":                   grid.TokenSubmitter,
	"DELETE /pins/{cid}":           grid.TokenSubmitter,
	"PUT /kv/entry":                grid.TokenSubmitter,
	"DELETE /kv/entry":             grid.TokenSubmitter,
	"POST /kv/txn":                 grid.TokenSubmitter,
	"PUT /refs/{name...}":          grid.TokenSubmitter,
	"DELETE /refs/{name...}":       grid.TokenSubmitter,
	"GET /secrets":                 grid.TokenSubmitter, // their names, for jobs that are granted them
	"PUT /secrets/{name}":          grid.TokenAdmin,
	"DELETE /secrets/{name}":       grid.TokenAdmin,
	"POST /plugins":                grid.TokenAdmin, // others call what is installed by its name
	"DELETE /plugins/{ref}":        grid.TokenAdmin,
	"PUT /plugin-policy":           grid.TokenAdmin,
	"POST /extensions":             grid.TokenAdmin,
	"DELETE /extensions/{key...}":  grid.TokenAdmin,
	"POST /store/gc":               grid.TokenAdmin,
	"POST /store/verify":           grid.TokenAdmin,
	"POST /drain":                  grid.TokenAdmin,
	"POST /shutdown":               grid.TokenAdmin,
	"GET /backup":                  grid.TokenAdmin,
	"POST /restore":                grid.TokenAdmin,
	"DELETE /ledger/members/{id}":  grid.TokenAdmin,
	"POST /swarm/invite":           grid.TokenAdmin,
	"DELETE /swarm/members/{id}":   grid.TokenAdmin,
	"PUT /swarm/members/{id}/role": grid.TokenAdmin,
	"GET /tokens":                  grid.TokenAdmin,
	"POST /tokens":                 grid.TokenAdmin,
	"DELETE /tokens/{id}":          grid.TokenAdmin,

	"POST /swarm/members/{id}/approve":   grid.TokenAdmin,
	"POST /swarm/members/{id}/renew":     grid.TokenAdmin,
	"POST /swarm/rotate-key":             grid.TokenAdmin,
	"POST /swarm/leave":                  grid.TokenAdmin,
	"PUT /quotas":                        grid.TokenAdmin,
	"DELETE /quotas":                     grid.TokenAdmin,
	"PUT /plugin-aliases/{name}/{alias}": grid.TokenAdmin,
}

// ownJobs are routes by which who is no admin may change only jobs that run for him.
var ownJobs = map[string]bool{"POST /jobs/{id}/cancel": true, "DELETE /jobs/{id}": true}

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
