package api

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (s *Server) usageRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	timed := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
			defer cancel()
			return ledgerError(f(w, r.WithContext(ctx)), r)
		})
	}
	timed("GET /usage", func(w http.ResponseWriter, r *http.Request) error {
		since := grid.Day(math.MinInt32)
		if text := r.URL.Query().Get("since"); text != "" {
			day, err := time.Parse(time.DateOnly, text)
			if err != nil {
				return grid.Errorf(grid.Invalid, "usage since %.40q: want a date such as 2006-01-02", text)
			}
			since = grid.DayOf(day)
		}
		list, err := s.Node.Usage(r.Context(), grid.UsageBy(r.URL.Query().Get("by")), since)
		return reply(w, orEmpty(list), err)
	})
	route("GET /jobs/{id}/usage", func(w http.ResponseWriter, r *http.Request) error {
		c, err := s.Node.RecountUsage(r.Context(), jobID(r))
		return reply(w, c, err)
	})
	timed("GET /quotas", func(w http.ResponseWriter, r *http.Request) error {
		list, err := s.Node.Quotas(r.Context(), r.URL.Query().Get("subject"))
		return reply(w, orEmpty(list), err)
	})
	timed("PUT /quotas", func(w http.ResponseWriter, r *http.Request) error {
		var a grid.Allowance
		if err := readJSON(w, r, &a); err != nil {
			return err
		}
		a, err := s.Node.SetQuota(r.Context(), a)
		return reply(w, a, err)
	})
	timed("DELETE /quotas", func(w http.ResponseWriter, r *http.Request) error {
		q := r.URL.Query()
		return reply(w, struct{}{}, s.Node.RemoveQuota(r.Context(), q.Get("subject"), grid.Per(q.Get("per"))))
	})
}

// Usage tells what was used since a day, the zero time for ever; who has used most comes first.
func (c *Client) Usage(ctx context.Context, by grid.UsageBy, since time.Time) ([]grid.Used, error) {
	q := url.Values{"by": {string(by)}}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.DateOnly))
	}
	return get[[]grid.Used](ctx, c, "/usage?"+q.Encode())
}

// RecountUsage has what a job has used worked out anew from its receipts, and compared with the ledger.
func (c *Client) RecountUsage(ctx context.Context, id grid.JobID) (grid.UsageCheck, error) {
	return get[grid.UsageCheck](ctx, c, "/jobs/"+url.PathEscape(string(id))+"/usage")
}

// Quotas lists the realm's quotas, or those that a subject is under, with how they stand.
func (c *Client) Quotas(ctx context.Context, subject string) ([]grid.QuotaStatus, error) {
	return get[[]grid.QuotaStatus](ctx, c, "/quotas?"+url.Values{"subject": {subject}}.Encode())
}

// SetQuota sets a quota, in place of one for the same subject and time.
func (c *Client) SetQuota(ctx context.Context, a grid.Allowance) (out grid.Allowance, err error) {
	data, err := json.Marshal(a)
	if err != nil {
		return out, grid.Errorf(grid.Internal, "encode the quota: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPut, "/quotas", bytes.NewReader(data))
	if err != nil {
		return out, err
	}
	return out, decode(resp, &out)
}

// RemoveQuota removes a quota.
func (c *Client) RemoveQuota(ctx context.Context, subject string, per grid.Per) error {
	resp, err := c.do(ctx, http.MethodDelete, "/quotas?"+url.Values{"subject": {subject}, "per": {string(per)}}.Encode(), nil)
	if err != nil {
		return err
	}
	return decode(resp, &struct{}{})
}
