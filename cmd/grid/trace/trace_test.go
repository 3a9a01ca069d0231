package trace

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestConfigure(t *testing.T) {
	const here = "http://localhost:4318"
	for _, c := range []struct {
		to   string
		env  string
		want Config
		err  string
	}{
		{"", "", Config{}, ""},
		{here, "", Config{here + "/v1/traces", 1}, ""},
		{here + "/otel/", "", Config{here + "/otel/v1/traces", 1}, ""},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT=" + here, Config{here + "/v1/traces", 1}, ""},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT=" + here + " OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://t/x", Config{"https://t/x", 1}, ""},
		{here, "OTEL_EXPORTER_OTLP_ENDPOINT=http://elsewhere OTEL_TRACES_SAMPLER_ARG=0.25", Config{here + "/v1/traces", .25}, ""},
		{here, "OTEL_TRACES_SAMPLER=parentbased_always_off", Config{here + "/v1/traces", 0}, ""},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT=" + here + " OTEL_SDK_DISABLED=true", Config{}, ""},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT=" + here + " OTEL_TRACES_EXPORTER=none", Config{}, ""},
		{"", "OTEL_TRACES_SAMPLER_ARG=much", Config{}, ""}, // it does not matter
		{here, "OTEL_TRACES_SAMPLER_ARG=much", Config{}, "want a number from 0 to 1"},
		{here, "OTEL_TRACES_SAMPLER_ARG=NaN", Config{}, "want a number from 0 to 1"},
		{here, "OTEL_TRACES_SAMPLER=jaeger_remote", Config{}, "is not known"},
		{here, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", Config{}, "http/protobuf alone"},
		{"localhost:4318", "", Config{}, "no address"},
		{"ftp://x", "", Config{}, "no address"},
		{"http://user:password@x", "", Config{}, "no address"},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT=http://", Config{}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
	} {
		env := make(map[string]string)
		for _, e := range strings.Fields(c.env) {
			name, value, _ := strings.Cut(e, "=")
			env[name] = value
		}
		got, err := Configure(c.to, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%q, %s: %+v, %v", c.to, c.env, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q, %s: %v, want %q", c.to, c.env, err, c.err)
		}
	}
}

// Without a collector there is nothing.
func TestOff(t *testing.T) {
	e, err := Open(Config{}, "node", slog.New(slog.DiscardHandler))
	if e != nil || err != nil || e.Tracer() != nil {
		t.Errorf("%v, %v", e, err)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), s)
}

// A collector that hangs makes nobody wait: what is too much is dropped, counted, and told once.
func TestHangs(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(hold)
	var log lockedBuffer
	e, err := Open(Config{URL: s.URL + tracesPath, Ratio: 1}, "node", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	const all = maxQueued + 1000
	for range all {
		_, span := e.Tracer().Start(context.Background(), "span")
		span.End()
	}
	if st := e.Stats(); st.Full != all-maxQueued || st.Waiting != maxQueued || st.Sent != 0 {
		t.Errorf("%+v", st)
	}
	if n := log.count("traces are dropped"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// What a collector refuses is counted, and told once until it takes some again.
func TestRefuses(t *testing.T) {
	var good atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !good.Load() {
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	defer s.Close()
	var log lockedBuffer
	e, err := Open(Config{URL: s.URL + tracesPath, Ratio: 1}, "node", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	send := func() {
		_, span := e.Tracer().Start(context.Background(), "span")
		span.End()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := e.provider.ForceFlush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	send()
	send()
	good.Store(true)
	send()
	if st := e.Stats(); st != (Stats{Sent: 1, Refused: 2}) || log.count("traces are dropped") != 1 || log.count("traces are sent again") != 1 {
		t.Errorf("%+v", st)
	}
}

// All nodes decide alike on a job, and others as their callers did.
func TestSampling(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	e, err := Open(Config{URL: s.URL + tracesPath, Ratio: 0}, "node", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx := oteltrace.ContextWithRemoteSpanContext(context.Background(), grid.JobSpan("jaaaaaaaaaaaaaaaaaaaaaaaaa"))
	_, span := e.Tracer().Start(ctx, "request of a caller")
	if !span.SpanContext().IsSampled() || span.SpanContext().TraceID() != grid.TraceOf("jaaaaaaaaaaaaaaaaaaaaaaaaa") {
		t.Errorf("%+v", span.SpanContext())
	}
	if _, span := e.Tracer().Start(context.Background(), "nobody's"); span.SpanContext().IsSampled() {
		t.Errorf("%+v", span.SpanContext())
	}
}
