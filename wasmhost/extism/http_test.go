package extism

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

func TestHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Two"] = []string{"a", "b"}
		switch r.URL.Path {
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/large":
			io.WriteString(w, strings.Repeat("x", limit))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "x")
		default:
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, "%s %s %q", r.Method, r.Header.Get("X-Mine"), body)
		}
	}))
	defer srv.Close()
	port := srv.URL[strings.LastIndexByte(srv.URL, ':')+1:]
	url := "http://localhost:" + port
	n, err := guestnet.New(guestnet.Config{Policy: guestnet.Named})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlugin(t, nil)
	defer p.net.Reset(nil, nil)
	if err := p.net.Reset(n, []string{"localhost:" + port}); err != nil {
		t.Fatal(err)
	}
	if p.call(t, "http_status_code") != 0 || p.call(t, "http_headers") != 0 {
		t.Error("there is a response before a request")
	}
	body := p.call(t, "http_request", p.put(t, `{"url":"`+url+`","method":"Put","headers":{"X-Mine":"yes","Content-Length":"99"}}`), p.put(t, "hello"))
	if got, status := p.get(t, body), p.call(t, "http_status_code"); got != `PUT yes "hello"` || status != http.StatusTeapot {
		t.Errorf("%d, %q", status, got)
	}
	if got := p.get(t, p.call(t, "http_headers")); !strings.Contains(got, `"x-two":"a,b"`) || !strings.Contains(got, `"content-type":"text/plain; charset=utf-8"`) {
		t.Error(got)
	}
	if body := p.call(t, "http_request", p.put(t, `{"url":"`+url+`/empty"}`), 0); body != 0 || p.call(t, "http_status_code") != http.StatusNoContent {
		t.Error("an empty body is at", body)
	}
	request := p.put(t, `{"url":"`+url+`"}`)
	p.traps(t, "where the request is to be", "http_request", request+1, 0)
	p.traps(t, "where the body is to be", "http_request", request, request+1)
	p.traps(t, "not JSON", "http_request", p.put(t, "hello"), 0)
	p.traps(t, "not the guest's to set", "http_request", p.put(t, `{"url":"`+url+`","headers":{"Host":"other"}}`), 0)
	p.traps(t, "method \"BREW\"", "http_request", p.put(t, `{"url":"`+url+`","method":"brew"}`), 0)
	p.traps(t, "the response was cut short", "http_request", p.put(t, `{"url":"`+url+`/cut"}`), 0)
	p.traps(t, "there is no memory for the response", "http_request", p.put(t, `{"url":"`+url+`/large"}`), 0)
	if p.call(t, "http_status_code") != 0 || p.Refused() == 0 {
		t.Error("a response that did not fit is there")
	}
	p.traps(t, "run the job with --allow-net example.org:443", "http_request", p.put(t, `{"url":"https://example.org"}`), 0)
	if p.net.Denied() == "" {
		t.Error("nothing was denied")
	}
	p = newPlugin(t, nil)
	p.traps(t, "gives guests no network", "http_request", p.put(t, `{"url":"`+url+`"}`), 0)
	p = newPlugin(t, nil, func(c *Config, _ *wasi.Config) { c.Net = nil })
	p.traps(t, "no network here", "http_request", p.put(t, `{"url":"`+url+`"}`), 0)
}
