// Package trace sends the spans of a node to a collector, by OTLP over HTTP. What spans there are is said by packages grid and grid/api.
//
// It never makes anybody wait: spans queue up to a bound, and what does not fit, or what the collector does not take, is dropped and counted.
package trace

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Config says where spans go, and of how many jobs.
type Config struct {
	URL   string  // of the collector's route for traces; "": nothing is traced
	Ratio float64 // of jobs, 0 to 1; must be the same on all nodes, or traces have holes
}

// The bounds. A batch is sent when it is full or old enough, one at a time.
const (
	maxQueued    = 8192 // spans, some 500 bytes each
	maxBatch     = 512
	batchAge     = 2 * time.Second
	sendTimeout  = 10 * time.Second // of a batch, with all tries
	closeTimeout = 3 * time.Second  // for what is left when the node ends
)

// Where OTLP over HTTP has its traces.
const tracesPath = "/v1/traces"

// Configure reads the environment variables that OpenTelemetry has standardised. to is the URL of a collector, which counts before that of the
// environment; "": none is given. What headers, certificates and compression are set there holds in any case.
func Configure(to string, env func(string) (string, bool)) (c Config, err error) {
	get := func(name string) string { v, _ := env(name); return strings.TrimSpace(v) }
	what, traces := "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", false
	switch {
	case to != "":
		what, c.URL = "the URL of the collector", to
	case get("OTEL_SDK_DISABLED") == "true" || get("OTEL_TRACES_EXPORTER") == "none":
		return Config{}, nil
	case get(what) != "":
		c.URL, traces = get(what), true
	default:
		what = "OTEL_EXPORTER_OTLP_ENDPOINT"
		c.URL = get(what)
	}
	if c.URL == "" {
		return Config{}, nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		shown := c.URL
		if err == nil {
			shown = u.Redacted()
		} else if strings.Contains(shown, "@") {
			shown = "what is given" // a password may be in it
		}
		return Config{}, grid.Errorf(grid.Invalid, "%s: %.100q is no address to send traces to", what, shown).
			Hint("want one like http://localhost:4318; a password goes into OTEL_EXPORTER_OTLP_HEADERS")
	}
	if !traces {
		u = u.JoinPath(tracesPath)
	}
	c.URL = u.String()
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := get(name); p == "http/protobuf" {
			break
		} else if p != "" {
			return Config{}, grid.Errorf(grid.Unsupported, "%s=%.40q: traces are sent by http/protobuf alone", name, p).
				Hint("collectors take that on port 4318; set %s=http/protobuf", name)
		}
	}
	c.Ratio, err = ratio(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))
	return c, err
}

// ratio reads of how many jobs there are to be traces.
func ratio(sampler, arg string) (float64, error) {
	switch strings.TrimPrefix(sampler, "parentbased_") {
	case "always_on":
		return 1, nil
	case "always_off":
		return 0, nil
	case "", "traceidratio":
	default:
		return 0, grid.Errorf(grid.Unsupported, "OTEL_TRACES_SAMPLER=%.40q is not known", sampler).Hint("want always_on, always_off or traceidratio")
	}
	if arg == "" {
		return 1, nil
	}
	r, err := strconv.ParseFloat(arg, 64)
	if err != nil || math.IsNaN(r) || r < 0 || r > 1 {
		return 0, grid.Errorf(grid.Invalid, "OTEL_TRACES_SAMPLER_ARG=%.40q: want a number from 0 to 1", arg)
	}
	return r, nil
}

// Exporter sends spans. nil sends none, and nothing is traced.
type Exporter struct {
	provider *sdk.TracerProvider
	log      *slog.Logger
	to       string

	waiting atomic.Int64 // spans that were taken, and not sent or dropped yet
	failing atomic.Bool  // the last batch was not taken

	sent, full, refused atomic.Uint64
}

// Stats counts spans.
type Stats struct {
	Sent    uint64 // that the collector took
	Full    uint64 // dropped since too many waited
	Refused uint64 // dropped since the collector did not take them
	Waiting int64
}

// Stats counts the spans since the start.
func (e *Exporter) Stats() Stats {
	return Stats{e.sent.Load(), e.full.Load(), e.refused.Load(), e.waiting.Load()}
}

// Open begins to send the spans of a node, which self names. Nothing is sent, and no answer waited for, before there are some.
func Open(c Config, self string, log *slog.Logger) (*Exporter, error) {
	if c.URL == "" {
		return nil, nil
	}
	out, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(c.URL), otlptracehttp.WithTimeout(sendTimeout/2),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: sendTimeout / 2, MaxElapsedTime: sendTimeout}))
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "traces to %s: %w", c.URL, err)
	}
	what, err := resource.New(context.Background(), resource.WithAttributes(
		attribute.String("service.name", "grid"), attribute.String("service.version", grid.Version), attribute.String("service.instance.id", self)),
		resource.WithFromEnv()) // which may call it otherwise
	if err != nil {
		log.Warn("what the environment says of the source of traces is not used", "err", err)
	}
	e := &Exporter{log: log, to: c.URL}
	batches := sdk.NewBatchSpanProcessor(sender{out, e}, sdk.WithMaxQueueSize(maxQueued), sdk.WithMaxExportBatchSize(maxBatch),
		sdk.WithBatchTimeout(batchAge), sdk.WithExportTimeout(sendTimeout))
	e.provider = sdk.NewTracerProvider(sdk.WithResource(what), sdk.WithIDGenerator(ids{}), sdk.WithSpanProcessor(bounded{batches, e}),
		sdk.WithSampler(sampler{jobs: sdk.TraceIDRatioBased(c.Ratio), others: sdk.ParentBased(sdk.TraceIDRatioBased(c.Ratio))}))
	return e, nil
}

// Tracer makes spans; nil if nothing is traced.
func (e *Exporter) Tracer() trace.Tracer {
	if e == nil {
		return nil
	}
	return e.provider.Tracer("github.com/wasmgrid/wasmgrid", trace.WithInstrumentationVersion(grid.Version))
}

// Close sends what is left, but does not wait long for that.
func (e *Exporter) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := e.provider.Shutdown(ctx); err != nil {
		e.log.Warn("not all traces were sent", "to", e.to, "spans", e.waiting.Load(), "err", err)
	}
	return nil
}

// ids gives spans of jobs the IDs that they are to have, others random ones.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	t, s, ok := grid.SpanIDs(ctx)
	if !ok {
		t = randomTrace()
	}
	if !s.IsValid() {
		s = randomSpan()
	}
	return t, s
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if _, s, _ := grid.SpanIDs(ctx); s.IsValid() {
		return s
	}
	return randomSpan()
}

// sampler decides on jobs by the ID of their trace, as every node does, and on others as their callers did.
type sampler struct{ jobs, others sdk.Sampler }

// ShouldSample implements sdk.Sampler.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if _, _, ok := grid.SpanIDs(p.ParentContext); ok {
		return s.jobs.ShouldSample(p)
	}
	return s.others.ShouldSample(p)
}

// Description implements sdk.Sampler.
func (s sampler) Description() string { return s.jobs.Description() }

// bounded counts what waits, so that what is dropped is known: what it hands on always has room.
type bounded struct {
	sdk.SpanProcessor
	e *Exporter
}

// OnEnd implements sdk.SpanProcessor.
func (b bounded) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if b.e.waiting.Add(1) > maxQueued {
		b.e.waiting.Add(-1)
		b.e.full.Add(1)
		b.e.fails("too many wait", nil)
		return
	}
	b.SpanProcessor.OnEnd(s)
}

// sender counts what is sent.
type sender struct {
	sdk.SpanExporter
	e *Exporter
}

// ExportSpans implements sdk.SpanExporter. Its errors are told here, and end here.
func (s sender) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	s.e.waiting.Add(-int64(len(spans)))
	if err != nil {
		s.e.refused.Add(uint64(len(spans)))
		s.e.fails("the collector does not take them", err)
		return nil
	}
	s.e.sent.Add(uint64(len(spans)))
	if s.e.failing.Swap(false) {
		s.e.log.Info("traces are sent again", "to", s.e.to)
	}
	return nil
}

// fails says that spans are dropped, once until some are sent again.
func (e *Exporter) fails(why string, err error) {
	if !e.failing.Swap(true) {
		e.log.Warn("traces are dropped: "+why, "to", e.to, "err", err)
	}
}

// IDs need not be secret, only different.

func randomTrace() (t trace.TraceID) {
	binary.NativeEndian.PutUint64(t[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(t[8:], rand.Uint64()|1)
	return t
}

func randomSpan() (s trace.SpanID) {
	binary.NativeEndian.PutUint64(s[:], rand.Uint64()|1)
	return s
}
