package sdk

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header()["X-Two"] = []string{"a", "b"}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusFound)
		io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Mine")+" "+string(body))
	}))
	defer srv.Close()
	h := Header{}
	h.Set("X-Mine", "yes")
	resp, err := Fetch(Request{Method: "PUT", URL: srv.URL + "/x", Header: h, Body: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if got, want := string(body), "PUT /x yes hello"; got != want || err != nil {
		t.Errorf("body %q, %v, want %q", got, err, want)
	}
	if resp.Status != http.StatusFound || resp.Header.Get("LOCATION") != "/elsewhere" || len(resp.Header["x-two"]) != 2 {
		t.Errorf("%d, %v", resp.Status, resp.Header)
	}
	resp, err = Fetch(Request{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "GET /  " {
		t.Errorf("body %q", body)
	}
	const nowhere = "http://127.0.0.1:1/"
	if _, err := Fetch(Request{URL: nowhere}); err == nil || !strings.Contains(err.Error(), "fetch "+nowhere) {
		t.Error(err)
	}
	if _, err := Fetch(Request{URL: nowhere, Header: Header{"x": {"a\nhost: evil"}}}); err == nil || !strings.Contains(err.Error(), "newline") {
		t.Error(err)
	}
}

func TestRequestEncode(t *testing.T) {
	h := Header{}
	h.Add("B", "1")
	h.Add("b", "2")
	h.Set("A", "")
	got, err := Request{Method: "POST", URL: "https://example.org/", Header: h, Body: []byte("x\n\ny")}.encode()
	if want := "POST https://example.org/\na: \nb: 1\nb: 2\n\nx\n\ny"; string(got) != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, r := range []Request{
		{Method: "GET http://evil/\n", URL: "http://a/"},
		{Method: "GET\n", URL: "http://a/"},
		{Method: "GET", URL: "http://a/\nx: y"},
		{Method: "GET", URL: "http://a/", Header: Header{"a\nb": {"c"}}},
		{Method: "GET", URL: "http://a/", Header: Header{"a:b": {"c"}}},
		{Method: "GET", URL: "http://a/", Header: Header{"": {"c"}}},
		{Method: "GET", URL: "http://a/", Header: Header{"a": {"c\n"}}},
	} {
		if got, err := r.encode(); err == nil {
			t.Errorf("%+v is sent as %q", r, got)
		}
	}
}

func TestReadHead(t *testing.T) {
	in := bufio.NewReader(strings.NewReader("404 Not Found\na: b: c\na: \nx: y\n\nbody"))
	r, err := readHead(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Header{"a": {"b: c", ""}, "x": {"y"}}); r.Status != 404 || !reflect.DeepEqual(r.Header, want) {
		t.Errorf("%d, %v, want %v", r.Status, r.Header, want)
	}
	if rest, _ := io.ReadAll(in); string(rest) != "body" {
		t.Errorf("body %q", rest)
	}
	for _, s := range []string{"", "200 OK", "OK\n\n", "200 OK\nx\n\n", "200 OK\na: b\n"} {
		if r, err := readHead(bufio.NewReader(strings.NewReader(s))); err == nil || err == io.EOF {
			t.Errorf("%q is read as %v, %v", s, r, err)
		}
	}
	broken := errors.New("broken")
	if _, err := readHead(bufio.NewReader(io.MultiReader(strings.NewReader("200 OK\n"), iotest.ErrReader(broken)))); err != broken {
		t.Error(err)
	}
}
