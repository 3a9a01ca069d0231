package guestnet

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkRequest compares a guest's requests with those of net/http, to a server on loopback.
func BenchmarkRequest(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer srv.Close()
	n, err := New(Config{Policy: Named, Limits: Limits{Requests: 1 << 40, Total: 1 << 60}})
	if err != nil {
		b.Fatal(err)
	}
	s := new(State)
	defer s.Reset(nil, nil)
	if err := s.Reset(n, []string{srv.Listener.Addr().String()}); err != nil {
		b.Fatal(err)
	}
	for _, method := range []string{"GET", "POST"} { // on one connection, and on one each
		b.Run("guest/"+method, func(b *testing.B) {
			for b.Loop() {
				if _, err := do(b.Context(), s, method+" "+srv.URL+"/\n\n"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for name, client := range map[string]*http.Client{
		"kept": srv.Client(), "new": {Transport: &http.Transport{DisableKeepAlives: true}},
	} {
		b.Run("net-http/"+name, func(b *testing.B) {
			for b.Loop() {
				resp, err := client.Get(srv.URL)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
		})
	}
}
