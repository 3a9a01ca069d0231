package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// getOf asks a server, with headers as pairs.
func getOf(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", prefix+path, nil)
	for h := range slices.Chunk(header, 2) {
		r.Header.Set(h[0], h[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestPages: page by page a list is what it is at once.
func TestPages(t *testing.T) {
	s := fullServer(t)
	h := s.Handler()
	ctx := t.Context()
	c := Local(h)
	m := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("\x00asm\x01\x00\x00\x00")).CID()}
	for i := range 7 {
		if _, err := c.SetRef(ctx, "a b+c/"+strconv.Itoa(i), m, grid.RefCond{}); err != nil && i > 0 {
			if _, err = c.SetRef(ctx, "r/"+strconv.Itoa(i), m, grid.RefCond{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Submit(ctx, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: m, Tasks: 1}}}}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Node.CreateToken(ctx, s.Tokens, grid.TokenRequest{Role: grid.TokenViewer}); err != nil {
			t.Fatal(err)
		}
	}
	identity := map[string]string{"/jobs": "id", "/refs": "name", "/tokens": "id"}
	for path, field := range identity {
		names := func(w *httptest.ResponseRecorder) (out []string) {
			var list []map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				t.Fatalf("%s: %s: %v", path, w.Body, err)
			}
			for _, v := range list {
				out = append(out, v[field].(string))
			}
			return out
		}
		whole := getOf(h, path)
		all := names(whole)
		if len(all) < 6 || whole.Header().Get(headerNext) != "" {
			t.Errorf("%s: %v, next %q", path, all, whole.Header().Get(headerNext))
		}
		for _, limit := range []int{1, 3, len(all), 100} {
			var got []string
			next := ""
			for range len(all) + 1 {
				w := getOf(h, path+"?limit="+strconv.Itoa(limit)+next)
				page := names(w)
				got = append(got, page...)
				if len(page) > limit {
					t.Errorf("%s: a page of %d has %d", path, limit, len(page))
				}
				if w.Header().Get(headerNext) == "" {
					break
				}
				next = "&after=" + w.Header().Get(headerNext)
			}
			if !slices.Equal(got, all) {
				t.Errorf("%s by %d: %v, want %v", path, limit, got, all)
			}
		}
		if w := getOf(h, path+"?after="+url.QueryEscape(all[len(all)-1])); w.Body.String() != "[]\n" {
			t.Errorf("%s: behind the last: %s", path, w.Body)
		}
		for query, status := range map[string]int{"?limit=0": 400, "?limit=-1": 400, "?limit=x": 400, "?limit=99999999999": 400, "?after=nobody": 410} {
			if w := getOf(h, path+query); w.Code != status || !strings.Contains(w.Body.String(), `"code"`) {
				t.Errorf("%s%s: status %d, %s", path, query, w.Code, w.Body)
			}
		}
	}
}

// TestEvents: streams come as events to who accepts them, and go on behind the last one that he has had.
func TestEvents(t *testing.T) {
	h := fullServer(t).Handler()
	c := Local(h)
	if doc, err := c.OpenAPI(t.Context()); err != nil || !bytes.Equal(doc, bytes.TrimSpace(Document())) {
		t.Errorf("the client reads %d bytes of document, %v", len(doc), err)
	}
	m := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("\x00asm\x01\x00\x00\x00")).CID()}
	id, err := c.Submit(t.Context(), grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: m, Tasks: 2}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Watch(t.Context(), id, func(grid.JobStatus) error { return nil }); err != nil {
		t.Fatal(err)
	}
	path := "/events?job=" + string(id)
	events := func(last string) (ids []string) {
		header := []string{"Accept", "text/html;q=0.5, text/event-stream"}
		if last != "" {
			header = append(header, headerLastEvent, last)
		}
		w := getOf(h, path+"&follow=1", header...)
		all := bytes.Split(bytes.TrimSuffix(w.Body.Bytes(), []byte("\n\n")), []byte("\n\n"))
		if w.Header().Get("Content-Type") != eventsType || string(all[len(all)-1]) != "event: end\ndata: {}" {
			t.Fatalf("after %q: %v %s", last, w.Header(), w.Body)
		}
		for _, e := range all[:len(all)-1] {
			id, data, ok := bytes.Cut(bytes.TrimPrefix(e, []byte("id: ")), []byte("\ndata: "))
			var ev grid.RealmEvent
			if err := json.Unmarshal(data, &ev); !ok || err != nil || ev.At.UTC().Format(time.RFC3339Nano) != string(id) {
				t.Errorf("event %q: %v", e, err)
			}
			ids = append(ids, string(id))
		}
		return ids
	}
	all := events("")
	if len(all) < 3 {
		t.Fatalf("events %v", all)
	}
	for i, id := range all {
		if rest := events(id); !slices.Equal(rest, all[i+1:]) {
			t.Errorf("after %s: %v, want %v", id, rest, all[i+1:])
		}
	}
	for accept, want := range map[string]string{"": linesType, "*/*": linesType, linesType: linesType, eventsType: eventsType, "text/event-stream;q=0": linesType, "text/html, Text/Event-Stream; q=0.1": eventsType, ";;": linesType} {
		if w := getOf(h, path, "Accept", accept); w.Header().Get("Content-Type") != want {
			t.Errorf("Accept %q: %v", accept, w.Header())
		}
	}
	if w := getOf(h, path, "Accept", eventsType, headerLastEvent, "yesterday"); w.Code != http.StatusBadRequest {
		t.Errorf("nonsense as last event: %d %s", w.Code, w.Body)
	}
	// An error that comes late is an event, too.
	s := fullServer(t)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept", eventsType)
	sw := &statusWriter{ResponseWriter: w}
	out := newStream(sw, r)
	if err := out.send(1, "7"); err != nil {
		t.Fatal(err)
	}
	s.fail(sw, r, out.end(grid.Errorf(grid.NoSpace, "full")))
	if got := w.Body.String(); !strings.HasPrefix(got, "id: 7\ndata: 1\n\nevent: error\ndata: {") || !strings.Contains(got, `"no-space"`) {
		t.Errorf("%q", got)
	}
}
