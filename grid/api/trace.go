package api

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmgrid/wasmgrid/grid"
)

// headerTrace names the span that a request is part of, as W3C Trace Context has it. What is none is taken for none, as it says, too.
const headerTrace = "Traceparent"

// callerOf is the span that a request is part of; "": it is of none.
func callerOf(r *http.Request) string {
	all := r.Header.Values(headerTrace)
	if len(all) != 1 {
		return ""
	}
	if _, err := grid.ParseTraceparent(all[0]); err != nil {
		return ""
	}
	return all[0]
}

// traced makes a span of a request that is part of a trace: those who look on would fill the collector otherwise.
func (s *Server) traced(pattern string, h http.Handler) http.Handler {
	method, route, _ := strings.Cut(pattern, " ")
	name := method + " " + route
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parent, err := grid.ParseTraceparent(callerOf(r))
		if err != nil {
			h.ServeHTTP(w, r)
			return
		}
		ctx, span := s.Tracer.Start(trace.ContextWithRemoteSpanContext(r.Context(), parent), name, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route)))
		defer span.End()
		sw := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(sw, r.WithContext(ctx))
		status := sw.status
		if status == 0 {
			status = http.StatusOK
		}
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
	})
}

// traceKey is for the client.
type traceKey struct{}

// WithTraceparent has requests with the context say that they are part of a span, as W3C Trace Context writes it.
func WithTraceparent(ctx context.Context, parent string) context.Context {
	return context.WithValue(ctx, traceKey{}, parent)
}
