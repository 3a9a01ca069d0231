package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Client speaks to one node. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	base  string
	token string // "": none
}

// Dial makes a client of the node that listens on a unix socket. Nothing is sent yet.
func Dial(socket string) *Client {
	var d net.Dialer
	return &Client{base: "http://grid", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}}}
}

// Local makes a client that calls a server in its own process.
func Local(h http.Handler) *Client {
	return &Client{base: "http://grid", http: &http.Client{Transport: handlerTransport{h}}}
}

// Close frees idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Node describes the node.
func (c *Client) Node(ctx context.Context) (grid.NodeStatus, error) {
	return get[grid.NodeStatus](ctx, c, "/node")
}

// Peers lists the connected nodes of the swarm.
func (c *Client) Peers(ctx context.Context) ([]grid.PeerInfo, error) {
	return get[[]grid.PeerInfo](ctx, c, "/peers")
}

// Shutdown asks the node to stop; it returns before the node has stopped.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.post(ctx, "/shutdown", nil, nil)
}

// Add stores the files, symlinks and folders of a tar archive as blocks of the node. each, when not
// nil, is told of every entry as soon as it is stored. The root is the folder that holds them all. An
// archive that is an io.Closer may be closed, and is when ctx ends, to free a reader that waits.
func (c *Client) Add(ctx context.Context, archive io.Reader, each func(grid.FileInfo)) (root grid.FileInfo, err error) {
	archive, stop := source(ctx, archive)
	defer stop()
	resp, err := c.do(ctx, http.MethodPost, "/add", archive)
	if err != nil {
		return root, err
	}
	seen := false
	err = lines(resp, func(info grid.FileInfo) error {
		if seen && each != nil {
			each(root)
		}
		root, seen = info, true
		return nil
	})
	if err == nil && !seen {
		err = grid.Errorf(grid.Internal, "the node stored nothing and gave no reason")
	}
	return root, err
}

// Missing returns those of some files and folders of which the node does not have all.
func (c *Client) Missing(ctx context.Context, cids []grid.Link) ([]grid.Link, error) {
	var all []grid.Link
	for len(cids) > 0 {
		n := min(len(cids), maxMissing)
		var a missing
		if err := c.post(ctx, "/have", wanted{cids[:n]}, &a); err != nil {
			return nil, err
		}
		all, cids = append(all, a.Missing...), cids[n:]
	}
	return all, nil
}

// source makes a request's body of a reader, which is closed when ctx ends before stop is called.
func source(ctx context.Context, r io.Reader) (body io.Reader, stop func() bool) {
	stop = func() bool { return false }
	if src, ok := r.(io.Closer); ok { // net/http would wait for a source that hangs
		stop = context.AfterFunc(ctx, func() { src.Close() })
	}
	if _, ok := r.(io.WriterTo); !ok {
		r = chunks{r}
	}
	return r, stop
}

// chunks is a request's body that net/http sends in large pieces; by itself it copies through a small
// buffer and sends each bit at once.
type chunks struct{ io.Reader }

const chunkSize = 256 << 10

func (c chunks) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, c.Reader, make([]byte, chunkSize)) // w is no io.ReaderFrom
}

func (c chunks) Close() error {
	if src, ok := c.Reader.(io.Closer); ok {
		return src.Close()
	}
	return nil
}

func dagPath(verb string, c cid.Cid, p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/" + verb + "/" + c.String() + "/" + strings.Join(parts, "/")
}

// Stat describes what path names below root. An empty path is the root itself.
func (c *Client) Stat(ctx context.Context, root cid.Cid, path string) (grid.FileInfo, error) {
	return get[grid.FileInfo](ctx, c, dagPath("stat", root, path))
}

// List describes the entries of a folder, sorted by name.
func (c *Client) List(ctx context.Context, root cid.Cid, path string) ([]grid.FileInfo, error) {
	return get[[]grid.FileInfo](ctx, c, dagPath("ls", root, path))
}

// Cat reads a file. The caller closes it.
func (c *Client) Cat(ctx context.Context, root cid.Cid, path string) (io.ReadCloser, error) {
	return c.body(ctx, dagPath("cat", root, path))
}

// CatRange reads length bytes of a file from an offset on, fewer when it ends before, all when length is
// negative. The offset must lie in the file, and length must not be 0. The caller closes it.
func (c *Client) CatRange(ctx context.Context, root cid.Cid, path string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 || length == 0 {
		return nil, grid.Errorf(grid.Invalid, "read %d bytes from byte %d on", length, offset)
	}
	end := ""
	if length > 0 {
		end = fmt.Sprint(offset + min(length, math.MaxInt64-offset) - 1)
	}
	return c.body(ctx, dagPath("cat", root, path), "Range", fmt.Sprintf("bytes=%d-%s", offset, end))
}

// ExportCAR reads the DAG of a file or folder as a CAR file. The caller closes it.
func (c *Client) ExportCAR(ctx context.Context, root cid.Cid, path string) (io.ReadCloser, error) {
	return c.body(ctx, dagPath("car", root, path))
}

// ImportCAR stores the blocks of a CAR file. A root that is not whole is an error unless partial is true. An
// archive that is an io.Closer may be closed, and is when ctx ends, to free a reader that waits.
func (c *Client) ImportCAR(ctx context.Context, archive io.Reader, partial bool) (in grid.Imported, err error) {
	path := "/car"
	if partial {
		path += "?partial=1"
	}
	archive, stop := source(ctx, archive)
	defer stop()
	resp, err := c.do(ctx, http.MethodPost, path, archive)
	if err != nil {
		return in, err
	}
	return in, decode(resp, &in)
}

// Survey measures how much of a DAG the node has.
func (c *Client) Survey(ctx context.Context, root cid.Cid, path string) (grid.Extent, error) {
	return get[grid.Extent](ctx, c, dagPath("survey", root, path))
}

// Diff calls f for each path that differs between two DAGs, each the one that a path leads to, in order. An
// error of f ends it.
func (c *Client) Diff(ctx context.Context, was cid.Cid, wasPath string, is cid.Cid, isPath string, f func(grid.Change) error) error {
	q := url.Values{"was": {was.String() + "/" + wasPath}, "is": {is.String() + "/" + isPath}}
	resp, err := c.do(ctx, http.MethodGet, "/diff?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return lines(resp, f)
}

// Tar reads a file or folder as a tar archive, whose names begin with base. The caller closes it.
func (c *Client) Tar(ctx context.Context, root cid.Cid, path string) (io.ReadCloser, error) {
	return c.body(ctx, dagPath("tar", root, path))
}

// Inspect tells what a module is and how the node runs it.
func (c *Client) Inspect(ctx context.Context, module cid.Cid) (grid.Module, error) {
	return get[grid.Module](ctx, c, "/modules/"+module.String())
}

// Submit starts a job. When it returns the job is recorded and will run without the caller.
func (c *Client) Submit(ctx context.Context, r grid.Request) (grid.JobID, error) {
	var out submitted
	err := c.create(ctx, "/jobs", r, &out)
	return out.ID, err
}

// Jobs lists the jobs that the node knows, newest first.
func (c *Client) Jobs(ctx context.Context) ([]grid.JobStatus, error) {
	return get[[]grid.JobStatus](ctx, c, "/jobs")
}

// Job describes one job.
func (c *Client) Job(ctx context.Context, id grid.JobID) (grid.JobStatus, error) {
	return get[grid.JobStatus](ctx, c, "/jobs/"+string(id))
}

// Cancel ends a job. Cancelling one that has ended is a Conflict.
func (c *Client) Cancel(ctx context.Context, id grid.JobID) error {
	return c.post(ctx, "/jobs/"+string(id)+"/cancel", nil, nil)
}

// RemoveJob forgets a job that has ended, and tells its whole ID. One that has not is a Conflict.
func (c *Client) RemoveJob(ctx context.Context, id grid.JobID) (grid.JobID, error) {
	var removed submitted
	resp, err := c.do(ctx, http.MethodDelete, "/jobs/"+string(id), nil)
	if err != nil {
		return "", err
	}
	err = decode(resp, &removed)
	return removed.ID, err
}

// Watch calls f with the job's status now and whenever it changes, at most some ten times a second,
// until it is final, and returns that last one. The job may go to another node of the realm meanwhile; one that
// nobody drives just now is Waiting. An error of f ends it.
func (c *Client) Watch(ctx context.Context, id grid.JobID, f func(grid.JobStatus) error) (grid.JobStatus, error) {
	var last grid.JobStatus
	resp, err := c.do(ctx, http.MethodGet, "/jobs/"+string(id)+"/watch", nil)
	if err != nil {
		return last, err
	}
	err = lines(resp, func(st grid.JobStatus) error {
		last = st
		return f(last)
	})
	switch {
	case err != nil || last.State.Final():
	case last.State == grid.Waiting && last.Note == "":
		err = grid.Errorf(grid.Unavailable, "job %s waits for its node to come up", id).Hint("start it with `grid up`")
	case last.State == grid.Waiting:
		err = grid.Errorf(grid.Unavailable, "job %s: %s", id, last.Note).Hint("`grid wait %s` waits on", id)
	default:
		err = grid.Errorf(grid.Unavailable, "the node went away while job %s was running", id).
			Hint("start it with `grid up`, or look from another node of its realm, where the job goes on: `grid wait %s`", id)
	}
	return last, err
}

// ofJob calls f for each line that the API gives about a job, with follow until that has ended.
func ofJob[T any](ctx context.Context, c *Client, id grid.JobID, what string, follow bool, f func(T) error) error {
	path := "/jobs/" + string(id) + "/" + what
	if follow {
		path += "?follow=1"
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return lines(resp, f)
}

// Tasks calls f for each task that has ended, in order of completion; with follow, also for those that
// end later, until the job has ended. An error of f ends it.
func (c *Client) Tasks(ctx context.Context, id grid.JobID, follow bool, f func(grid.TaskEnd) error) error {
	return ofJob(ctx, c, id, "tasks", follow, f)
}

// Why explains why a job stands as it does.
func (c *Client) Why(ctx context.Context, id grid.JobID) (grid.Explanation, error) {
	return get[grid.Explanation](ctx, c, "/jobs/"+string(id)+"/why")
}

// Recheck runs tasks of a job that has ended again, on the node, and calls f for each with what its receipt is worth. An
// error of f ends it.
func (c *Client) Recheck(ctx context.Context, id grid.JobID, what grid.Recheck, f func(grid.Rechecked) error) error {
	q := url.Values{}
	if what.Stage != nil {
		q.Set("stage", strconv.FormatUint(uint64(*what.Stage), 10))
	}
	if what.Task != nil {
		q.Set("task", strconv.FormatUint(uint64(*what.Task), 10))
	}
	if what.Sample > 0 {
		q.Set("sample", strconv.Itoa(what.Sample))
	}
	resp, err := c.do(ctx, http.MethodPost, "/jobs/"+string(id)+"/verify?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return lines(resp, f)
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return out, err
	}
	return out, decode(resp, &out)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return grid.Errorf(grid.Internal, "encode %T: %w", in, err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return decode(resp, out)
}

func (c *Client) body(ctx context.Context, path string, header ...string) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil, header...)
	if err != nil {
		return nil, err
	}
	return &checkedBody{resp}, nil
}

// do sends a request, with headers, each a name and a value, and returns a good response, or an error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, header ...string) (*http.Response, error) {
	return c.ask(ctx, method, prefix+path, body, header...)
}

// ask is do of a path that may lie outside of the prefix.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "request %s: %w", path, err)
	}
	for h := range slices.Chunk(header, 2) {
		req.Header.Set(h[0], h[1])
		if h[0] == headerKey {
			req.GetBody = nil // that it is sent again must be told
		}
	}
	if parent, ok := ctx.Value(traceKey{}).(string); ok {
		req.Header.Set(headerTrace, parent)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, withClock(resp, readError(resp))
	}
	return resp, nil
}

func dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var ge *grid.Error
	if errors.As(err, &ge) {
		return err // from reading the request's body
	}
	if e := tlsError(err); e != nil {
		return e
	}
	if lost(err) {
		e := grid.Errorf(grid.Unavailable, "the connection to the node was lost: %w", err)
		e.Err = errors.Join(errLost, err)
		return e
	}
	e := grid.Errorf(grid.Unavailable, "cannot reach the node: %w", err)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		e.Hint("is it running? start one with `grid up`")
	}
	return e
}

func decode(resp *http.Response, out any) error {
	defer resp.Body.Close()
	body := io.LimitedReader{R: resp.Body, N: maxAnswer}
	if out == nil {
		_, err := io.CopyN(io.Discard, resp.Body, maxUnread) // so that the connection can be used again
		if err == io.EOF {
			err = nil
		}
		return err
	}
	if err := json.NewDecoder(&body).Decode(out); err != nil {
		if body.N <= 0 {
			return grid.Errorf(grid.Limit, "the node's answer has more than %d MiB", maxAnswer>>20).Hint("it is no answer of a node that is well")
		}
		return grid.Errorf(grid.Internal, "the node's answer cannot be read: %w", err)
	}
	return nil
}

// lines decodes a stream of one JSON value a line.
func lines[T any](resp *http.Response, f func(T) error) error {
	return scan(resp, func(line []byte) error {
		if len(line) == 0 {
			return nil
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return grid.Errorf(grid.Internal, "the node's answer cannot be read: %w", err)
		}
		return f(v)
	})
}

// resumed calls f for each event of a stream whose events have ids. When the connection is lost, it goes on behind the last event that it has
// had, from the same node; it gives up when that is not to be had for some seconds.
func resumed[T any](ctx context.Context, c *Client, path string, q url.Values, f func(T) error) error {
	last, tries := "", len(retries) // there is nothing to go on with yet
	for {
		header := []string{"Accept", eventsType}
		if last != "" {
			header = append(header, headerLastEvent, last)
		}
		var ours error // of f
		resp, err := c.do(ctx, http.MethodGet, path+"?"+q.Encode(), nil, header...)
		if err == nil {
			err = events(resp, func(id string, v T) error {
				if tries = 0; id != "" {
					last = id
				}
				ours = f(v)
				return ours
			})
		}
		if err == nil || ours != nil || grid.CodeOf(err) != grid.Unavailable || tries == len(retries) {
			return err
		}
		wait := time.NewTimer(retries[tries])
		tries++
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// events decodes server-sent events, as the stream of a node has them: each with at most an id, a kind and one line of data.
func events[T any](resp *http.Response, f func(id string, v T) error) error {
	var id, kind string
	var data []byte
	ended := false
	take := func() error {
		switch kind {
		case "end":
			ended = true
			return nil
		case "error":
			var p problem
			if err := json.Unmarshal(data, &p); err != nil {
				return grid.Errorf(grid.Internal, "the node's answer broke off: %s", data)
			}
			return p.err()
		}
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return grid.Errorf(grid.Internal, "the node's answer cannot be read: %w", err)
		}
		return f(id, v)
	}
	err := scan(resp, func(line []byte) error {
		switch name, value, _ := bytes.Cut(line, []byte(": ")); string(name) {
		case "id":
			id = string(value)
		case "event":
			kind = string(value)
		case "data":
			data = append(data[:0], value...)
		case "": // the event is whole
			if err := take(); err != nil {
				return err
			}
			id, kind, data = "", "", data[:0]
		}
		return nil
	})
	if err == nil && !ended {
		err = grid.Errorf(grid.Unavailable, "the node's answer broke off")
	}
	return err
}

// scan splits a body into lines, and ends with the error in its trailer if there is one.
func scan(resp *http.Response, f func(line []byte) error) error {
	defer resp.Body.Close()
	s := bufio.NewScanner(resp.Body)
	s.Buffer(make([]byte, 64<<10), maxLine)
	for s.Scan() {
		if err := f(s.Bytes()); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil { // the trailer has not come then
		if ctx := resp.Request.Context(); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return grid.Errorf(grid.Unavailable, "the node's answer broke off: %w", err).
			Hint("if the node has ended, its jobs go on with the other nodes of its realm, or once `grid up` has started it again")
	}
	return trailer(resp)
}

// trailer reads the error that a stream ended with; the body must have been read to its end.
func trailer(resp *http.Response) error {
	t := resp.Trailer.Get(trailerError)
	if t == "" {
		return nil
	}
	var p problem
	if err := json.Unmarshal([]byte(t), &p); err != nil {
		return grid.Errorf(grid.Internal, "the node's answer broke off: %s", t)
	}
	return p.err()
}

// checkedBody is a download whose trailer is looked at when it ends, so that a broken one is not
// taken for a whole one.
type checkedBody struct{ resp *http.Response }

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.resp.Body.Read(p)
	if err == io.EOF {
		if terr := trailer(b.resp); terr != nil {
			return n, terr
		}
	} else if ctx := b.resp.Request.Context(); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if err != nil {
		err = fmt.Errorf("the node's answer broke off: %w", err)
	}
	return n, err
}

func (b *checkedBody) Close() error { return b.resp.Body.Close() }
