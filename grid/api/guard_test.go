package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestGuardBrowsers(t *testing.T) {
	h := GuardBrowsers(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }),
		slog.New(slog.DiscardHandler), "grid.lab")
	const ok = http.StatusNoContent
	for _, c := range []struct {
		method, host, site, mode, origin string
		want                             int
	}{
		{"GET", "127.0.0.1:8080", "", "", "", ok},
		{"GET", "[::1]:8080", "", "", "", ok},
		{"GET", "192.0.2.1", "", "", "", ok},
		{"GET", "localhost:8080", "none", "navigate", "", ok},
		{"GET", "GRID.lab.:8080", "same-origin", "cors", "", ok},
		{"GET", "localhost", "cross-site", "navigate", "", ok},
		{"POST", "localhost", "same-origin", "cors", "http://localhost", ok},
		{"POST", "localhost", "", "", "", ok}, // no browser
		{"GET", "evil.example:8080", "", "", "", 421},
		{"GET", "127.0.0.1.evil.example", "same-origin", "cors", "", 421},
		{"GET", "localhost.evil.example", "", "", "", 421},
		{"GET", "", "", "", "", 421},
		{"GET", strings.Repeat("x", 5000), "", "", "", 421},
		{"GET", "localhost", "cross-site", "no-cors", "", 403},
		{"POST", "localhost", "cross-site", "navigate", "https://evil.example", 403},
		{"DELETE", "127.0.0.1", "", "", "https://evil.example", 403},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Host = c.host
		for name, value := range map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode, "Origin": c.origin} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || w.Body.Len() > 2000 {
			t.Errorf("%+v: status %d, %d bytes", c, w.Code, w.Body.Len())
		}
	}
}

// A request waits for room, and is refused when there is none for long.
func TestClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClasses()
		for pattern, want := range map[string]*class{
			"GET /jobs": c.quick, "POST /add": c.bulk, "GET /jobs/{id}/watch": c.follow, "POST /car": c.bulk, "GET /kv/watch": c.follow,
		} {
			if c.of(pattern) != want {
				t.Errorf("%s is one of %s", pattern, c.of(pattern).what)
			}
		}
		var last func()
		for range bulkAtOnce {
			leave, err := c.bulk.enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			last = leave
		}
		if _, err := c.bulk.enter(t.Context()); grid.CodeOf(err) != grid.Busy || problemOf(err).Status != http.StatusTooManyRequests {
			t.Errorf("without room: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.bulk.enter(ctx); grid.CodeOf(err) != grid.Deadline {
			t.Errorf("who gives up: %v", err)
		}
		if leave, err := c.quick.enter(t.Context()); err != nil {
			t.Errorf("another class: %v", err)
		} else {
			leave()
		}
		time.AfterFunc(time.Second, last)
		if _, err := c.bulk.enter(t.Context()); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
	})
}
