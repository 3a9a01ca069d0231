package api_test

import (
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestExtensions(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		m := plugged(s)
		m.Functions = append(m.Functions, grid.Function{Name: "admit", Kind: grid.AdmissionFunc}, grid.Function{Name: "tell", Kind: grid.NotifierFunc})
		if _, err := s.InstallPlugin(ctx, s.w.Module); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Extensions(ctx); err != nil || all == nil || len(all) > 0 {
			t.Errorf("at first there are %+v, %v", all, err)
		}
		_, err := s.Attach(ctx, "tool.echo", grid.Extension{Role: grid.RoleAdmission})
		wantCode(t, err, grid.Invalid, "of the kind func")
		x, err := s.Attach(ctx, "tool", grid.Extension{Role: grid.RoleAdmission, Fallback: grid.FallbackAccept})
		if err != nil || x.Func != "admit" || x.Plugin != "tool@1.0.0" || x.Role != grid.RoleAdmission {
			t.Errorf("attached %+v, %v", x, err)
		}
		if x, err = s.Attach(ctx, "tool.tell", grid.Extension{Role: grid.RoleNotifier, Name: "hook", Grants: grid.Grants{Net: []string{"a.org"}}}); err != nil || len(x.Net) != 1 {
			t.Errorf("attached %+v, %v", x, err)
		}
		all, err := s.Extensions(ctx)
		if err != nil || len(all) != 2 || all[0].Key() != "admission" || all[1].Key() != "notifier/hook" || len(all[1].Net) != 1 || len(all[1].Events) != 3 {
			t.Errorf("there are %+v, %v", all, err)
		}
		wantCode(t, s.Detach(ctx, "king"), grid.Invalid, "no role")
		for _, key := range []string{"notifier/hook", "admission"} {
			if err := s.Detach(ctx, key); err != nil {
				t.Error(err)
			}
		}
		wantCode(t, s.Detach(ctx, "admission"), grid.NotFound, "attached as admission")
	})
}
