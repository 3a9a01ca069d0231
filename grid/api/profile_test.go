package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Each kind of profile is one that its tool can read.
func TestProfiles(t *testing.T) {
	for _, name := range Profiles {
		var b bytes.Buffer
		if timed(name) == 0 {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.SetPathValue("name", name)
			w := httptest.NewRecorder()
			if err := new(Server).profile(w, r); err != nil {
				t.Fatal(name, err)
			}
			b = *w.Body
		} else if err := profileFor(t.Context(), &b, name, 20*time.Millisecond); err != nil {
			t.Fatal(name, err)
		}
		if name == "trace" {
			if !strings.HasPrefix(b.String(), "go 1.") {
				t.Errorf("a trace begins with %.20q", b.String())
			}
			continue
		}
		p, err := profile.ParseData(b.Bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range p.Sample {
			if name == "block" && s.Value[1] < 0 {
				t.Errorf("%s: of another time: %v", name, s.Value)
			}
		}
	}
}

func TestProfileRefusals(t *testing.T) {
	ask := func(name, query string) error {
		r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
		r.SetPathValue("name", name)
		return new(Server).profile(httptest.NewRecorder(), r)
	}
	for _, c := range []struct {
		name, query string
		want        grid.Code
	}{
		{"cmdline", "", grid.NotFound}, {"cpu", "seconds=0", grid.Invalid}, {"cpu", "seconds=301", grid.Invalid}, {"trace", "seconds=31", grid.Invalid},
		{"cpu", "seconds=-1", grid.Invalid}, {"cpu", "seconds=1e9", grid.Invalid}, {"heap", "seconds=1", grid.Invalid}, {"heap", "text=1", grid.Invalid},
	} {
		if err := ask(c.name, c.query); grid.CodeOf(err) != c.want {
			t.Errorf("%s?%s: %v", c.name, c.query, err)
		}
	}
	profiling.Lock()
	defer profiling.Unlock()
	if err := ask("mutex", ""); grid.CodeOf(err) != grid.Busy {
		t.Errorf("a second one: %v", err)
	}
}

// Who hangs up ends a profile, and the next one can be made.
func TestProfileHangUp(t *testing.T) {
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	for range 2 {
		for _, name := range []string{"cpu", "trace", "block", "mutex"} {
			if err := profileFor(ctx, new(bytes.Buffer), name, time.Hour); !errors.Is(err, gone) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
