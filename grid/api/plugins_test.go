package api_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// plugged makes the site's module a plugin.
func plugged(s *site) *grid.Manifest {
	m := &grid.Manifest{Format: 1, Name: "tool", Version: "1.0.0", ABI: 2, Docs: "Docs.", Functions: []grid.Function{
		{Name: "echo", Kind: grid.TypedFunc, Input: []byte(`{"type":"string"}`)},
	}}
	s.w.Engine.About = func(cid.Cid) grid.Module { return grid.Module{Kind: grid.Command, Manifest: m} }
	return m
}

func TestPlugins(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		plugged(s)
		if all, err := s.Plugins(ctx, "", false); err != nil || all == nil || len(all) > 0 {
			t.Errorf("at first there are %+v, %v", all, err)
		}
		p, err := s.InstallPlugin(ctx, s.w.Module)
		if err != nil || p.String() != "tool@1.0.0" || p.CID != s.w.Module || p.Publisher != s.w.ID {
			t.Fatalf("installed %+v, %v", p, err)
		}
		if q, err := s.SetAlias(ctx, "tool", "good", "1"); err != nil || q.Version != "1.0.0" {
			t.Errorf("alias: %+v, %v", q, err)
		}
		for _, ref := range []string{"tool.echo", "tool.echo@>=1 <2", "tool.echo@good"} {
			info, err := s.Plugin(ctx, ref, true)
			if err != nil || info.CID != p.CID || info.Function != "echo" || info.Manifest == nil || info.Manifest.Docs != "Docs." {
				t.Errorf("%s is %+v, %v", ref, info, err)
			}
		}
		if m, err := s.Manifest(ctx, p.CID.Cid); err != nil || m == nil || m.Name != "tool" {
			t.Errorf("manifest %+v, %v", m, err)
		}
		if all, err := s.Plugins(ctx, "tool", true); err != nil || len(all) != 1 || len(all[0].Aliases) != 1 {
			t.Errorf("there are %+v, %v", all, err)
		}
		_, err = s.Plugin(ctx, "Tool", false)
		wantCode(t, err, grid.Invalid, "names no plugin")
		_, err = s.Plugin(ctx, "tool@2", false)
		wantCode(t, err, grid.NotFound, "no version 2")
		_, err = s.SetAlias(ctx, "tool", "latest", "1")
		wantCode(t, err, grid.Invalid, "not an alias")
		if q, err := s.SetAlias(ctx, "tool", "good", ""); err != nil || q.CID != p.CID {
			t.Errorf("alias taken away: %+v, %v", q, err)
		}
		_, err = s.SetAlias(ctx, "tool", "good", "")
		wantCode(t, err, grid.NotFound, `no alias "good"`)
		if gone, err := s.RemovePlugin(ctx, "tool@1.0.0"); err != nil || gone.Removed.IsZero() {
			t.Errorf("removed %+v, %v", gone, err)
		}
		_, err = s.RemovePlugin(ctx, "tool@1.0.0")
		wantCode(t, err, grid.NotFound, "was removed")

		if got, err := s.SetPluginPolicy(ctx, grid.PluginPolicy{Require: grid.SignAll}); err != nil || got.Require != grid.SignAll {
			t.Errorf("policy %+v, %v", got, err)
		}
		if got, err := s.PluginPolicy(ctx); err != nil || got.Require != grid.SignAll {
			t.Errorf("policy %+v, %v", got, err)
		}
		_, err = s.InstallPlugin(ctx, s.w.Module)
		wantCode(t, err, grid.Denied, "is not signed")
		_, err = s.SetPluginPolicy(ctx, grid.PluginPolicy{Require: "some"})
		wantCode(t, err, grid.Invalid, "some")
	})
}

func TestCall(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		plugged(s)
		s.w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
			_, err := io.Copy(g.Stdout, g.Stdin)
			return grid.Outcome{}, err
		}
		call := api.Call{Input: []byte("hello"), Request: grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: s.w.Module, Func: "echo"}}}}}
		for range 2 {
			end, err := s.Call(ctx, call)
			if err != nil || end.Task == nil || string(end.Task.Stdout.Data) != "hello" || end.Job.State != grid.Done {
				t.Fatalf("%+v, %v", end, err)
			}
		}
		bad := call
		bad.Request.Stages = append(bad.Request.Stages[:1:1], bad.Request.Stages[0])
		_, err := s.Call(ctx, bad)
		wantCode(t, err, grid.Invalid, "one stage")
		call.Request.Stages[0].Func = "ecco"
		_, err = s.Call(ctx, call)
		wantCode(t, err, grid.Invalid, `no function "ecco"`)
	})
}

// Who goes away ends its call.
func TestCallerGoesAway(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		began, over := make(chan struct{}), make(chan struct{})
		s.w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
			close(began)
			<-ctx.Done()
			close(over)
			return grid.Outcome{}, context.Cause(ctx)
		}
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error)
		go func() {
			_, err := s.Call(ctx, api.Call{Request: grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: s.w.Module}}}}})
			done <- err
		}()
		<-began
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the call ended with %v", err)
		}
		select {
		case <-over:
		case <-within(t).Done():
			t.Error("the guest runs on")
		}
	})
}
