package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on what the server reads into memory.
const (
	maxRequestJSON = 256 << 20 // a job with a million named inputs
	maxLine        = 128 << 20 // one line of a stream: a TaskEnd with its inline outputs
)

// prefix is the version of the interface.
const prefix = "/v1"

// submitted is the answer to POST /jobs, and to DELETE /jobs/{id}.
type submitted struct {
	ID grid.JobID `json:"id"`
}

// problem is an error on the wire (RFC 9457).
type problem struct {
	Title  string    `json:"title"`
	Status int       `json:"status"`
	Detail string    `json:"detail"`
	Code   grid.Code `json:"code"`
	Hint   string    `json:"hint,omitempty"`
}

// trailerError carries an error that happens after the status line of a stream was sent.
const trailerError = "Grid-Error"

func problemOf(err error) problem {
	code := grid.CodeOf(err)
	p := problem{
		Title:  code.Error(),
		Status: statusOf(code),
		Detail: err.Error(),
		Code:   code,
		Hint:   grid.AdviceOf(err),
	}
	if e := (*statusError)(nil); errors.As(err, &e) {
		p.Status = e.status
	}
	return p
}

func (p problem) err() error {
	e := grid.Errorf(p.Code, "%s", p.Detail)
	e.Advice = p.Hint
	return e
}

func statusOf(c grid.Code) int {
	switch c {
	case grid.Invalid, grid.Unsupported:
		return http.StatusBadRequest
	case grid.NotFound:
		return http.StatusNotFound
	case grid.Conflict, grid.Busy:
		return http.StatusConflict
	case grid.Denied:
		return http.StatusForbidden
	case grid.Limit:
		return http.StatusRequestEntityTooLarge
	case grid.NoSpace:
		return http.StatusInsufficientStorage
	case grid.OutOfDate:
		return http.StatusGone
	case grid.Unavailable:
		return http.StatusServiceUnavailable
	case grid.Deadline:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// readError turns an error response into a grid.Error.
func readError(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p problem
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return grid.Errorf(grid.Invalid, "the range lies outside of the file (%s)", resp.Header.Get("Content-Range"))
	}
	if json.Unmarshal(data, &p) != nil || p.Detail == "" {
		return grid.Errorf(grid.Internal, "the node answered %s", resp.Status)
	}
	return p.err()
}
