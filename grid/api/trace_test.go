package api_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// A request that says of which span it is part has one below that, which leads to the job's trace. One that says nonsense is answered as any.
func TestTraceHeader(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w := fake.NewWorld(new(fake.Hub), "a")
	n, err := grid.OpenNode(within(t), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	seen := tracetest.NewSpanRecorder()
	server := &api.Server{Node: n, Archive: &scripted{}, Surveyor: surveyor{}, Logger: slog.New(slog.DiscardHandler), Tracer: sdk.NewTracerProvider(sdk.WithSpanProcessor(seen)).Tracer("test")}
	h := server.Handler()
	for _, c := range []struct {
		header []string
		spans  int
	}{
		{[]string{parent}, 1}, {nil, 0}, {[]string{""}, 0}, {[]string{"00-evil"}, 0}, {[]string{parent, parent}, 0}, {[]string{strings.Repeat("0-", 30_000)}, 0},
	} {
		seen.Reset()
		r := httptest.NewRequest(http.MethodPost, "/v1/jobs", strings.NewReader(`{"stages": [{"module": "`+w.Module.String()+`", "tasks": 1}]}`))
		r.Header["Traceparent"] = c.header
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if got.Code != http.StatusOK {
			t.Fatalf("%.40q: %d %s", c.header, got.Code, got.Body)
		}
		spans := seen.Ended()
		if len(spans) != c.spans {
			t.Fatalf("%.40q: %d spans", c.header, len(spans))
		}
		if c.spans > 0 {
			s := spans[0]
			id := grid.JobID(strings.Split(got.Body.String(), `"`)[3])
			if s.Name() != "POST /v1/jobs" || s.Parent().SpanID().String() != "b7ad6b7169203331" || len(s.Links()) != 1 || s.Links()[0].SpanContext.TraceID() != grid.TraceOf(id) {
				t.Errorf("%s below %v, links to %v", s.Name(), s.Parent(), s.Links())
			}
		}
	}
}
