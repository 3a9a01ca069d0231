package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// PluginInfo is what a reference to a plugin means, with all that the plugin says of itself.
type PluginInfo struct {
	grid.Plugin
	Function string         `json:"function,omitempty"` // that the reference names
	Manifest *grid.Manifest `json:"manifest,omitempty"` // when it was asked for
}

// pluginInstall is the body of POST /plugins.
type pluginInstall struct {
	CID grid.Link `json:"cid"` // of the module
}

// pluginAlias is the body of PUT /plugin-aliases/{name}/{alias}.
type pluginAlias struct {
	Version string `json:"version"` // that the alias is to mean
}

// Call is one call of one function.
type Call struct {
	Request grid.Request `json:"request"`         // of one stage and one task
	Input   []byte       `json:"input,omitempty"` // its standard input, unless the stage names one
}

// CallEnd is what a call came to.
type CallEnd struct {
	Job  grid.JobStatus `json:"job"`            // as it stands at its end
	Task *grid.TaskEnd  `json:"task,omitempty"` // nil when the job ended without running it
}

// cancelCall bounds how long it takes to end a job that nobody waits for any more.
const cancelCall = 10 * time.Second

// pluginRoutes are those of the registry, and of calls by name.
func (s *Server) pluginRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	timed := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
			defer cancel()
			return ledgerError(f(w, r.WithContext(ctx)), r)
		})
	}
	timed("GET /plugins", func(w http.ResponseWriter, r *http.Request) error {
		q := r.URL.Query()
		all, err := s.Node.Plugins(r.Context(), q.Get("name"), q.Get("stale") != "")
		return paged(w, r, all, (*grid.Plugin).String, err)
	})
	route("POST /plugins", func(w http.ResponseWriter, r *http.Request) error { // which may have to fetch and compile
		var in pluginInstall
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		p, err := s.Node.InstallPlugin(r.Context(), in.CID)
		return reply(w, p, err)
	})
	route("GET /plugins/{ref}", s.plugin)
	timed("DELETE /plugins/{ref}", func(w http.ResponseWriter, r *http.Request) error {
		p, err := s.Node.RemovePlugin(r.Context(), r.PathValue("ref"))
		return reply(w, p, err)
	})
	timed("PUT /plugin-aliases/{name}/{alias}", func(w http.ResponseWriter, r *http.Request) error {
		var in pluginAlias
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		p, err := s.Node.SetAlias(r.Context(), r.PathValue("name"), r.PathValue("alias"), in.Version)
		return reply(w, p, err)
	})
	timed("GET /plugin-policy", func(w http.ResponseWriter, r *http.Request) error {
		p, err := s.Node.PluginPolicy(r.Context())
		return reply(w, p, err)
	})
	timed("PUT /plugin-policy", func(w http.ResponseWriter, r *http.Request) error {
		var in grid.PluginPolicy
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		p, err := s.Node.SetPluginPolicy(r.Context(), in)
		return reply(w, p, err)
	})
	route("POST /call", s.call)
}

// plugin tells what a reference means; with manifest it looks into the module.
func (s *Server) plugin(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
	defer cancel()
	p, function, err := s.Node.ResolvePlugin(ctx, r.PathValue("ref"))
	if err != nil {
		return ledgerError(err, r)
	}
	info := PluginInfo{Plugin: p, Function: function}
	if r.URL.Query().Get("manifest") != "" {
		m, err := s.Node.Inspect(r.Context(), p.CID.Cid, false)
		if err != nil {
			return err
		}
		info.Manifest = m.Manifest
	}
	return reply(w, info, nil)
}

// call runs a job of one task and waits for its end. Who goes away before ends the job.
func (s *Server) call(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	var in Call
	if err := readBody(w, r, "the call", maxRequestJSON, &in); err != nil {
		if errors.Is(err, grid.Limit) {
			return grid.Errorf(grid.Limit, "%w", err).Hint("add the input as a file, and name it with `grid run --stdin`")
		}
		return err
	}
	if len(in.Request.Stages) != 1 || in.Request.Stages[0].Tasks > 1 || len(in.Request.Rows) > 0 {
		return grid.Errorf(grid.Invalid, "a call is a job of one stage with one task").Hint("run other jobs with POST /jobs")
	}
	if err := asUser(r, &in.Request); err != nil {
		return err
	}
	st := &in.Request.Stages[0]
	st.Tasks = 1
	if len(in.Input) > 0 {
		used := s.Node.HoldUsed()
		defer used()
		c, _, err := s.Node.Files.Add(ctx, bytes.NewReader(in.Input))
		if err != nil {
			return err
		}
		st.Stdin = grid.Link{Cid: c}
		defer s.Node.Hold(c)()
		used()
	}
	in.Request.Traceparent = callerOf(r)
	id, err := s.Node.Submit(ctx, in.Request)
	if err != nil {
		return err
	}
	var out CallEnd
	if err = s.Node.Tasks(ctx, id, true, func(t grid.TaskEnd) error { out.Task = &t; return nil }); err == nil {
		out.Job, err = s.Node.Job(ctx, id)
	}
	if err != nil && ctx.Err() != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelCall)
		defer cancel()
		if cerr := s.Node.Cancel(end, id); cerr != nil {
			s.Logger.Warn("a call that nobody waits for goes on", "job", id, "err", cerr)
		}
	}
	return reply(w, out, err)
}

// Plugins lists what is published, also what was removed; with a name only the versions of that.
func (c *Client) Plugins(ctx context.Context, name string, stale bool) ([]grid.Plugin, error) {
	q := url.Values{"name": {name}}
	if stale {
		q.Set("stale", "1")
	}
	return get[[]grid.Plugin](ctx, c, "/plugins?"+q.Encode())
}

// Plugin finds what a reference means, with manifest also what the plugin says of itself.
func (c *Client) Plugin(ctx context.Context, ref string, manifest bool) (PluginInfo, error) {
	if _, err := grid.ParsePluginRef(ref); err != nil {
		return PluginInfo{}, err
	}
	path := "/plugins/" + url.PathEscape(ref)
	if manifest {
		path += "?manifest=1"
	}
	return get[PluginInfo](ctx, c, path)
}

// InstallPlugin publishes a module under the name and version of its manifest.
func (c *Client) InstallPlugin(ctx context.Context, module grid.Link) (p grid.Plugin, err error) {
	return p, c.create(ctx, "/plugins", pluginInstall{module}, &p)
}

// RemovePlugin removes the version of a plugin that a reference means.
func (c *Client) RemovePlugin(ctx context.Context, ref string) (p grid.Plugin, err error) {
	if _, err := grid.ParsePluginRef(ref); err != nil {
		return p, err
	}
	resp, err := c.do(ctx, http.MethodDelete, "/plugins/"+url.PathEscape(ref), nil)
	if err != nil {
		return p, err
	}
	return p, decode(resp, &p)
}

// SetAlias has NAME@ALIAS mean a version; "" is none, and gives what it meant.
func (c *Client) SetAlias(ctx context.Context, name, alias, version string) (p grid.Plugin, err error) {
	if err := errors.Join(grid.CheckPluginName(name), grid.CheckAlias(alias)); err != nil {
		return p, err
	}
	return p, c.put(ctx, "/plugin-aliases/"+name+"/"+alias, pluginAlias{version}, &p)
}

// PluginPolicy tells what the realm demands of modules.
func (c *Client) PluginPolicy(ctx context.Context) (grid.PluginPolicy, error) {
	return get[grid.PluginPolicy](ctx, c, "/plugin-policy")
}

// SetPluginPolicy changes what the realm demands of modules.
func (c *Client) SetPluginPolicy(ctx context.Context, p grid.PluginPolicy) (out grid.PluginPolicy, err error) {
	return out, c.put(ctx, "/plugin-policy", p, &out)
}

// Call runs a function once and waits for what it comes to. When ctx ends before, so does the job.
func (c *Client) Call(ctx context.Context, call Call) (end CallEnd, err error) {
	return end, c.post(ctx, "/call", call, &end)
}

// Manifest tells what a module says of itself, without waiting until it is compiled; nil: it is no plugin.
func (c *Client) Manifest(ctx context.Context, module cid.Cid) (*grid.Manifest, error) {
	m, err := get[grid.Module](ctx, c, "/modules/"+module.String()+"?early=1")
	return m.Manifest, err
}

func (c *Client) put(ctx context.Context, path string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return grid.Errorf(grid.Internal, "encode %T: %w", in, err)
	}
	resp, err := c.do(ctx, http.MethodPut, path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	return decode(resp, out)
}
