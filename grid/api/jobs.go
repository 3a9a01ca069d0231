package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// jobs lists jobs, or those that the query asks for.
func (s *Server) jobs(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Node.Jobs(r.Context())
	q := r.URL.Query()
	state, find := grid.State(q.Get("state")), strings.ToLower(q.Get("find"))
	list = slices.DeleteFunc(list, func(j grid.JobStatus) bool {
		return state != "" && j.State != state ||
			!strings.Contains(string(j.ID), find) && !strings.Contains(strings.ToLower(j.Name), find) && !strings.Contains(strings.ToLower(j.User), find)
	})
	return paged(w, r, list, func(j *grid.JobStatus) string { return string(j.ID) }, err)
}

// request tells what a job was submitted with.
func (s *Server) request(w http.ResponseWriter, r *http.Request) error {
	req, err := s.Node.Request(r.Context(), jobID(r))
	return reply(w, req, err)
}

// Request is what a job was submitted with; submitted once more, it does the same.
func (c *Client) Request(ctx context.Context, id grid.JobID) (grid.Request, error) {
	return get[grid.Request](ctx, c, "/jobs/"+string(id)+"/request")
}
