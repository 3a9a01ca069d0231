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

// find follows a path below a root, after bringing its DAG here from the swarm if need be.
func (s *Server) find(ctx context.Context, root, p string) (cid.Cid, error) {
	c, err := parseRoot(root)
	if err != nil {
		return cid.Undef, err
	}
	if err := s.Node.Ensure(ctx, []cid.Cid{c}); err != nil {
		return cid.Undef, err
	}
	if p = strings.Trim(p, "/"); p == "" {
		return c, nil
	}
	return s.Node.Files.Resolve(ctx, c, p)
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
	in, err := s.Archive.Import(ctx, r.Body, r.URL.Query().Get("partial") != "")
	_, _ = io.Copy(io.Discard, r.Body) // a sender that is cut off does not get to read why; an index is not read
	if err != nil {
		return err
	}
	for _, root := range in.Roots {
		if !root.Whole {
			continue
		}
		if err := s.Node.Network.Provide(ctx, root.CID.Cid); err != nil {
			s.Logger.Debug("root not announced", "cid", root.CID, "err", err)
		}
	}
	return reply(w, in, nil)
}

// survey measures what is here. Of what is not here it brings the root's own block, so that it can tell what
// that is; only to follow a path it brings all of it.
func (s *Server) survey(w http.ResponseWriter, r *http.Request) error {
	root, err := parseRoot(r.PathValue("cid"))
	if err != nil {
		return err
	}
	p := strings.Trim(r.PathValue("path"), "/")
	measure := func() (grid.Extent, error) {
		c, err := root, error(nil)
		if p != "" {
			if c, err = s.Node.Files.Resolve(r.Context(), root, p); err != nil {
				return grid.Extent{}, err
			}
		}
		return s.Surveyor.Survey(r.Context(), c)
	}
	x, err := measure()
	if grid.CodeOf(err) == grid.NotFound {
		if err := s.Node.Fetcher.Fetch(r.Context(), grid.Want{Roots: []cid.Cid{root}, Shallow: p == ""}); err != nil {
			return err
		}
		x, err = measure()
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
	out := newStream(w, "application/x-ndjson")
	return s.Surveyor.Diff(r.Context(), ends[0], ends[1], func(c grid.Change) error { return out.send(c) })
}
