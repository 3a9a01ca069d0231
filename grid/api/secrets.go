package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (s *Server) secretRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	timed := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
			defer cancel()
			return ledgerError(f(w, r.WithContext(ctx)), r)
		})
	}
	timed("GET /secrets", func(w http.ResponseWriter, r *http.Request) error {
		list, err := s.Node.Secrets(r.Context())
		return reply(w, orEmpty(list), err)
	})
	timed("PUT /secrets/{name}", func(w http.ResponseWriter, r *http.Request) error {
		name := r.PathValue("name")
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, grid.MaxSecret))
		if err != nil {
			var big *http.MaxBytesError
			if errors.As(err, &big) {
				return grid.Errorf(grid.Limit, "the secret %.80q has more than %d bytes", name, big.Limit)
			}
			return grid.Errorf(grid.Invalid, "the secret %.80q: %w", name, err)
		}
		info, err := s.Node.SetSecret(r.Context(), name, value)
		return reply(w, info, err)
	})
	timed("DELETE /secrets/{name}", func(w http.ResponseWriter, r *http.Request) error {
		revision, err := s.Node.RemoveSecret(r.Context(), r.PathValue("name"))
		return reply(w, revised{revision}, err)
	})
}

// Secrets lists what may be known of the realm's secrets, in order of names.
func (c *Client) Secrets(ctx context.Context) ([]grid.Secret, error) {
	return get[[]grid.Secret](ctx, c, "/secrets")
}

// SetSecret sets a secret for the realm, whether or not there is one of that name.
func (c *Client) SetSecret(ctx context.Context, name string, value []byte) (out grid.Secret, err error) {
	if err := grid.CheckSecretName(name); err != nil { // it could be another route
		return out, err
	}
	resp, err := c.do(ctx, http.MethodPut, "/secrets/"+name, bytes.NewReader(value))
	if err != nil {
		return out, err
	}
	return out, decode(resp, &out)
}

// RemoveSecret removes a secret, and tells the ledger's revision at which that happened.
func (c *Client) RemoveSecret(ctx context.Context, name string) (revision uint64, err error) {
	if err := grid.CheckSecretName(name); err != nil {
		return 0, err
	}
	return c.revise(ctx, http.MethodDelete, "/secrets/"+name, nil)
}

// Metrics gives the node's metrics, in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	resp, err := c.ask(ctx, http.MethodGet, metricsPath, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return nil, grid.Errorf(grid.Unavailable, "read the metrics: %w", err)
	}
	return data, nil
}
