package grid_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// traceIDs gives spans the IDs that they are to have, and others made-up ones.
type traceIDs struct{}

func (t traceIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, span, _ := grid.SpanIDs(ctx)
	if !span.IsValid() {
		span = t.NewSpanID(ctx, id)
	}
	return id, span
}

func (t traceIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if _, span, _ := grid.SpanIDs(ctx); span.IsValid() {
		return span
	}
	return trace.SpanID{1: 1}
}

func attrOf(s sdk.ReadOnlySpan, key string) string {
	for _, a := range s.Attributes() {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// Of a job of many tasks few have spans, among them those that failed, and the rest is counted. No text of a guest is in them.
func TestTraceBounds(t *testing.T) {
	const tasks, bad = 1000, 20
	w := fake.NewWorld(new(fake.Hub), "traced")
	w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		for _, e := range g.Env {
			n := 0
			if _, err := fmt.Sscanf(e, "GRID_TASK=%d", &n); err == nil && n >= tasks-bad {
				return grid.Outcome{Fault: &grid.Fault{Code: grid.Trap, Message: "confidential"}}, nil
			}
		}
		return grid.Outcome{}, nil
	}
	seen := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithIDGenerator(traceIDs{}), sdk.WithSpanProcessor(seen))
	c := w.Config()
	c.Tracer = provider.Tracer("test")
	n := open(t, c)
	r := request(w, tasks)
	r.KeepGoing, r.Allow, r.Stages[0].Args = true, bad, []string{"confidential"}
	st, _ := run(t, n, r)
	n.Close()
	attempts, failed, left := 0, 0, 0
	names := make(map[string]int)
	var root sdk.ReadOnlySpan
	for _, s := range seen.Ended() {
		names[s.Name()]++
		if s.SpanContext().TraceID() != grid.TraceOf(st.ID) || s.SpanContext().TraceID().String() != st.Trace {
			t.Fatalf("%s is of trace %v", s.Name(), s.SpanContext().TraceID())
		}
		for _, a := range s.Attributes() {
			if strings.Contains(a.Value.String(), "confidential") {
				t.Errorf("%s tells %s=%s", s.Name(), a.Key, a.Value.String())
			}
		}
		if strings.Contains(s.Status().Description, "confidential") {
			t.Errorf("%s ends %+v", s.Name(), s.Status())
		}
		switch s.Name() {
		case "task":
			if attempts++; attrOf(s, "error.type") == "trap" {
				failed++
			}
		case "left out":
			n := 0
			_, _ = fmt.Sscan(attrOf(s, "grid.tasks_left_out"), &n)
			left += n
		case "job":
			root = s
		}
	}
	if attempts+left != tasks || attempts > 80 || failed != bad {
		t.Errorf("%d attempts have spans, %d of them failed, %d are left out", attempts, failed, left)
	}
	if root == nil || names["job"] != 1 || root.SpanContext().SpanID() != grid.JobSpan(st.ID).SpanID() || attrOf(root, "grid.tasks") != fmt.Sprint(tasks) || attrOf(root, "grid.state") != string(st.State) {
		t.Errorf("the roots are %v, %v", names["job"], root)
	}
	if names["stage"] != 1 || names["submit"] != 1 || names["end"] != 1 {
		t.Errorf("spans: %v", names)
	}
}

// What is no traceparent is none, and does no harm.
func TestTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if c, err := grid.ParseTraceparent(good); err != nil || c.SpanID().String() != "b7ad6b7169203331" || !c.IsSampled() || !c.IsRemote() {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := grid.ParseTraceparent("cc" + good[2:] + "-what-will-be"); err != nil {
		t.Errorf("of a later version: %v", err)
	}
	for _, bad := range []string{
		"", "-", "00", good[1:], good + "-more", good + "\n", "ff" + good[2:], strings.ToUpper(good), strings.Repeat("0", len(good)),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"cc" + good[2:] + "-" + strings.Repeat("x", grid.MaxTraceparent), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
	} {
		if c, err := grid.ParseTraceparent(bad); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%.100q: %v, %v", bad, c, err)
		}
	}
	w := fake.NewWorld(new(fake.Hub), "linked")
	n := open(t, w.Config())
	for _, s := range []string{good, "00-evil", strings.Repeat("x", 1<<20)} {
		r := request(w, 1)
		r.NoCache, r.Traceparent = true, s
		id := submit(t, n, r)
		rec := record(t, w, id)
		if want := map[bool]string{true: good}[s == good]; rec.Caller != want {
			t.Errorf("%.40q became %q", s, rec.Caller)
		}
		end(t, n, id)
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := grid.ParseTraceparent(s)
		if c.IsValid() != (err == nil) || err == nil && len(s) > grid.MaxTraceparent {
			t.Errorf("%q: %v, %v", s, c, err)
		}
	})
}

// Spans of one job have one trace, whatever node makes them, and no two stages one span.
func TestTraceIDs(t *testing.T) {
	const id = grid.JobID("jaaaaaaaaaaaaaaaaaaaaaaaaa")
	if grid.TraceOf(id) != grid.TraceOf(id+".abc-1") || grid.TraceOf(id) == grid.TraceOf("jbaaaaaaaaaaaaaaaaaaaaaaaa") {
		t.Error("what a job spawns is of another trace, or another job of the same")
	}
	if got := grid.TraceOf(id).String(); got != "2e906a25193ec7dadf116175b2d768b2" {
		t.Errorf("the trace of %s is %s: nodes of another version make another", id, got)
	}
	spans := []trace.SpanID{grid.JobSpan(id).SpanID(), grid.StageSpan(id, 0), grid.StageSpan(id, 1)}
	slices.SortFunc(spans, func(a, b trace.SpanID) int { return strings.Compare(a.String(), b.String()) })
	if len(slices.Compact(spans)) != 3 {
		t.Errorf("spans %v", spans)
	}
	if grid.StageSpan(id+".abc-1", 0) != grid.JobSpan(id).SpanID() {
		t.Error("what a job spawns is not below the job")
	}
}
