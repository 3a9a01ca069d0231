package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on what the server reads into memory.
const (
	maxRequestJSON = 256 << 20 // a job with a million named inputs
	maxLine        = 128 << 20 // one line of a stream: a TaskEnd with its inline outputs
)

// What a client reads of an answer, whatever a node sends.
const maxUnread = 64 << 10 // that is not wanted

var maxAnswer int64 = maxRequestJSON + 1<<20 // of a document: a request as it was, and what is said around it; tests have less

// prefix is the version of the interface.
const prefix = "/v1"

// submitted is the answer to POST /jobs, and to DELETE /jobs/{id}.
type submitted struct {
	ID grid.JobID `json:"id"` // of the job
}

// problem is an error on the wire (RFC 9457).
type problem struct {
	Title  string `json:"title"`          // the code's, for people
	Status int    `json:"status"`         // as HTTP has it
	Detail string `json:"detail"`         // what went wrong, for people
	Code   string `json:"code"`           // for programs
	Hint   string `json:"hint,omitempty"` // what to do about it, for people
}

// wireCode is a code as the wire has it. Words and their meanings stay as they are; docs/api.md lists them.
type wireCode struct {
	code   grid.Code
	word   string
	status int // unless the error has one of its own
}

var wireCodes = []wireCode{
	{grid.Invalid, "invalid", http.StatusBadRequest},
	{grid.Unsupported, "unsupported", http.StatusBadRequest},
	{grid.Denied, "denied", http.StatusForbidden},
	{grid.NotFound, "not-found", http.StatusNotFound},
	{grid.Conflict, "conflict", http.StatusConflict},
	{grid.Busy, "busy", http.StatusConflict},
	{grid.OutOfDate, "out-of-date", http.StatusGone},
	{grid.Limit, "limit-exceeded", http.StatusRequestEntityTooLarge},
	{grid.Unavailable, "unavailable", http.StatusServiceUnavailable},
	{grid.Deadline, "deadline-exceeded", http.StatusGatewayTimeout},
	{grid.NoSpace, "no-space", http.StatusInsufficientStorage},
	{grid.Canceled, "canceled", http.StatusInternalServerError},
	{grid.Corrupt, "corrupt", http.StatusInternalServerError},
	{grid.Trap, "trap", http.StatusInternalServerError},
	{grid.Exit, "exit", http.StatusInternalServerError},
	{grid.Internal, "internal", http.StatusInternalServerError},
	{grid.Unknown, "unknown", http.StatusInternalServerError},
}

// wireOf tells how the wire has a code; one that it does not know is unknown.
func wireOf(c grid.Code) wireCode {
	for _, f := range wireCodes {
		if f.code == c {
			return f
		}
	}
	return wireCodes[len(wireCodes)-1]
}

// codeOf is the code of a word; Unknown if a later version has it.
func codeOf(word string) grid.Code {
	for _, f := range wireCodes {
		if f.word == word {
			return f.code
		}
	}
	return grid.Unknown
}

// trailerError carries an error that happens after the status line of a stream was sent.
const trailerError = "Grid-Error"

func problemOf(err error) problem {
	f := wireOf(grid.CodeOf(err))
	p := problem{Title: f.code.Error(), Status: f.status, Detail: err.Error(), Code: f.word, Hint: grid.AdviceOf(err)}
	if e := (*statusError)(nil); errors.As(err, &e) {
		p.Status = e.status
	}
	return p
}

func (p problem) err() error {
	e := grid.Errorf(codeOf(p.Code), "%s", p.Detail)
	e.Advice = p.Hint
	return e
}

// problemShape is the schema of a problem.
func problemShape(s *shapes) object {
	words := make([]string, len(wireCodes))
	for i, f := range wireCodes {
		words[i] = f.word
	}
	shape := told(s.fields(reflect.TypeFor[problem]()), s.says("api.problem"))
	properties := shape["properties"].(object)
	properties["code"] = told(object{"type": "string", "enum": words}, s.says("api.problem.Code"))
	return shape
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
