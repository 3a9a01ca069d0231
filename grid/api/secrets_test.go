package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestSecrets(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		if list, err := s.Secrets(ctx); err != nil || list == nil || len(list) != 0 {
			t.Errorf("none: %v, %v", list, err)
		}
		value := strings.Repeat("s3cr3t", grid.MaxSecret/6)
		info, err := s.SetSecret(ctx, "api-token", []byte(value))
		if err != nil || info.Name != "api-token" || info.Version == 0 || !info.Here {
			t.Fatalf("set %+v, %v", info, err)
		}
		list, err := s.Secrets(ctx)
		if err != nil || len(list) != 1 || list[0] != info {
			t.Errorf("list %+v, %v", list, err)
		}
		if strings.Contains(fmt.Sprint(list), "s3cr3t") {
			t.Error("a value is told")
		}
		// Nor is it a key of the user's, or a ref.
		for _, key := range []string{"api-token", "secret/api-token", "../secret/api-token", "\x00secret/api-token"} {
			_, err := s.KVGet(ctx, key, false)
			wantCode(t, err, grid.NotFound)
		}
		_, err = s.SetSecret(ctx, "big", make([]byte, grid.MaxSecret+1))
		wantCode(t, err, grid.Limit, "65536")
		for _, name := range []string{"a/b", "..", "", "%2e%2e"} {
			_, err := s.SetSecret(ctx, name, []byte("x"))
			wantCode(t, err, grid.Invalid)
			_, err = s.RemoveSecret(ctx, name)
			wantCode(t, err, grid.Invalid)
		}
		if rev, err := s.RemoveSecret(ctx, "api-token"); err != nil || rev <= info.Version {
			t.Errorf("removed at %d, %v", rev, err)
		}
		_, err = s.RemoveSecret(ctx, "api-token")
		wantCode(t, err, grid.NotFound, "api-token")
	})
}

func TestMetrics(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		s.w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
			h := grid.Metric{Name: "took", Kind: grid.Histogram}
			for _, v := range []float64{0.5, 3, 1e30} {
				h.Observe(v)
			}
			return grid.Outcome{Metrics: []grid.Metric{{Name: "lines", Kind: grid.Counter, Count: 7}, h}}, nil
		}
		id, err := s.node.Submit(ctx, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: s.w.Module, Tasks: 3}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Watch(ctx, id, func(grid.JobStatus) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Job(ctx, "nobody"); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("a job that is not there: %v", err)
		}
		data, err := s.Metrics(ctx)
		if err != nil {
			t.Fatal(err)
		}
		labels := fmt.Sprintf(`module="%s",name="took",plugin=""`, s.w.Module)
		for _, want := range []string{
			"# TYPE grid_tasks_run_total counter\n", "grid_tasks_failed_total 0\n", "grid_store_block_bytes 0\n", "grid_guest_dropped_total 0\n",
			"grid_task_seconds_count 3\n", "# TYPE grid_task_phase_seconds histogram\n", `grid_api_requests_total{class="questions",code="404"} 1`,
			`grid_api_request_seconds_count{class="followers"} `,
			fmt.Sprintf("grid_guest_count_total{module=\"%s\",name=\"lines\",plugin=\"\"} 21\n", s.w.Module),
			"grid_guest_value_bucket{" + labels + `,le="0.5"} 3`, "grid_guest_value_bucket{" + labels + `,le="4"} 6`,
			"grid_guest_value_bucket{" + labels + `,le="+Inf"} 9`, "grid_guest_value_count{" + labels + "} 9\n",
		} {
			if !strings.Contains(string(data), want) {
				t.Errorf("no %q in\n%s", want, data)
			}
		}
	})
}
