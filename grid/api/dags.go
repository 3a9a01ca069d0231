package api

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What the archives that go out are; with duplicates for who asks for them.
const (
	carType     = "application/vnd.ipld.car; version=1; order=dfs; dups=n"
	carDupsType = "application/vnd.ipld.car; version=1; order=dfs; dups=y"
)

func parseRoot(s string) (cid.Cid, error) {
	l, err := grid.ParseLink(s)
	if err == nil {
		err = grid.CheckCID(l.Cid)
	}
	return l.Cid, err
}

// find follows a path below a root, and brings the DAG of what it leads to here from the swarm if need be.
func (s *Server) find(ctx context.Context, root, p string) (cid.Cid, error) {
	c, err := parseRoot(root)
	if err != nil {
		return cid.Undef, err
	}
	context.AfterFunc(ctx, s.Node.Hold(c)) // as long as it is read
	if c, err = s.follow(ctx, c, p); err != nil {
		return cid.Undef, err
	}
	return c, s.Node.Ensure(ctx, []cid.Cid{c})
}

// follow follows a path below a root, bringing here what lies on the way.
func (s *Server) follow(ctx context.Context, root cid.Cid, p string) (cid.Cid, error) {
	if p = strings.Trim(p, "/"); p == "" {
		return root, nil
	}
	files, err := s.Node.Reading(ctx, root)
	if err != nil {
		return cid.Undef, err
	}
	return files.Resolve(ctx, root, p)
}

func (s *Server) exportCAR(w http.ResponseWriter, r *http.Request) error {
	c, err := s.find(r.Context(), r.PathValue("cid"), r.PathValue("path"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", carType)
	return s.Archive.Export(r.Context(), w, grid.Selection{Root: c})
}

func (s *Server) importCAR(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	defer s.Node.HoldUsed()()
	in, err := s.Archive.Import(ctx, r.Body, r.URL.Query().Get("partial") != "")
	_, _ = io.Copy(io.Discard, r.Body) // a sender that is cut off does not get to read why; an index is not read
	if err != nil {
		return err
	}
	for _, root := range in.Roots {
		s.Node.Linger(addGrace, root.CID.Cid)
		if !root.Whole {
			continue
		}
		if err := s.Node.Network.Provide(ctx, root.CID.Cid); err != nil {
			s.Logger.Debug("root not announced", "cid", root.CID, "err", err)
		}
	}
	return reply(w, in, nil)
}

// survey measures what is here. Of what is not here it brings the blocks on the way and the root's own, so that it
// can tell what that is.
func (s *Server) survey(w http.ResponseWriter, r *http.Request) error {
	root, err := parseRoot(r.PathValue("cid"))
	if err != nil {
		return err
	}
	c, err := s.follow(r.Context(), root, r.PathValue("path"))
	if err != nil {
		return err
	}
	x, err := s.Surveyor.Survey(r.Context(), c)
	if grid.CodeOf(err) == grid.NotFound {
		if err := s.Node.Fetcher.Fetch(r.Context(), grid.Want{Roots: []cid.Cid{c}, Below: []cid.Cid{root}, Shallow: true}); err != nil {
			return err
		}
		x, err = s.Surveyor.Survey(r.Context(), c)
	}
	return reply(w, x, err)
}

func (s *Server) diff(w http.ResponseWriter, r *http.Request) error {
	var ends [2]cid.Cid
	for i, name := range []string{"was", "is"} {
		root, p, _ := strings.Cut(r.URL.Query().Get(name), "/")
		var err error
		if ends[i], err = s.find(r.Context(), root, p); err != nil {
			return err
		}
	}
	out := newStream(w, r)
	return out.end(s.Surveyor.Diff(r.Context(), ends[0], ends[1], func(c grid.Change) error { return out.send(c) }))
}
