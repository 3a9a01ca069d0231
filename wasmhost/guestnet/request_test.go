package guestnet

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

func TestDecode(t *testing.T) {
	r, err := decode([]byte("POST HTTPS://Example.ORG:8443/a%20b?q=1#part\nx-a:1\nX-A: \t 2 \nAuthorization: Basic x\n\nbody\n\nmore"), DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if r.method != "POST" || r.url.String() != "https://example.org:8443/a%20b?q=1" || r.name != "example.org" || r.port != 8443 ||
		string(r.body) != "body\n\nmore" || r.grant() != "example.org:8443" {
		t.Errorf("%+v, %s", r, r.url)
	}
	if h := r.header; len(h) != 2 || strings.Join(h["X-A"], ",") != "1,2" || h.Get("authorization") != "Basic x" {
		t.Errorf("%v", r.header)
	}
	for url, want := range map[string]string{ // what is sent to whom
		"http://example.org":                 "http://example.org example.org:80",
		"http://example.org:80/":             "http://example.org/ example.org:80",
		"https://example.org:80/":            "https://example.org:80/ example.org:80",
		"https://example.org:443":            "https://example.org example.org:443",
		"http://127.0.0.1:8080/":             "http://127.0.0.1:8080/ 127.0.0.1:8080",
		"http://[::1]/":                      "http://[::1]/ [::1]:80",
		"http://[2001:DB8::80]/":             "http://[2001:db8::80]/ [2001:db8::80]:80",
		"http://[::ffff:127.0.0.1]/":         "http://127.0.0.1/ 127.0.0.1:80",
		"http://example.org//evil.example/":  "http://example.org//evil.example/ example.org:80",
		"http://example.org/?@evil.example/": "http://example.org/?@evil.example/ example.org:80",
		"http://example.org?":                "http://example.org? example.org:80",
		"http://example.org#@evil.example/":  "http://example.org example.org:80",
		"http://example.org/%0d%0ax:%20y":    "http://example.org/%0d%0ax:%20y example.org:80",
	} {
		r, err := decode([]byte("GET "+url+"\n\n"), DefaultLimits)
		if err != nil {
			t.Errorf("%s: %v", url, err)
		} else if got := r.url.String() + " " + r.grant(); got != want {
			t.Errorf("%s gives %s, want %s", url, got, want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	small := Limits{Header: 60, Request: 4}
	big := DefaultLimits
	for in, want := range map[string]string{
		"":                                                         "no empty line",
		"GET http://example.org/":                                  "no empty line",
		"GET http://example.org/\n":                                "no empty line",
		"GET http://example.org/\r\n\r\n":                          "no empty line",
		"GET http://example.org/\r\n\n":                            `'\r'`,
		"GET\n\n":                                                  "METHOD URL",
		"\n\n":                                                     "METHOD URL",
		"get http://example.org/\n\n":                              "method",
		"CONNECT example.org:443\n\n":                              "method",
		"TRACE http://example.org/\n\n":                            "method",
		"GET  http://example.org/\n\n":                             `' '`,
		"GET http://example.org/ HTTP/1.1\n\n":                     `' '`,
		"GET http://exa\x00mple.org/\n\n":                          `'\x00'`,
		"GET http://bücher.example/\n\n":                           `'Ã'`,
		"GET http://example.org\\@evil/\n\n":                       `'\\'`,
		"GET ftp://example.org/\n\n":                               "only http and https",
		"GET file:///etc/passwd\n\n":                               "only http and https",
		"GET unix:/run/docker.sock\n\n":                            "only http and https",
		"GET example.org\n\n":                                      "only http and https",
		"GET //example.org/\n\n":                                   "only http and https",
		"GET http:example.org\n\n":                                 "no host",
		"GET http:///path\n\n":                                     "no host",
		"GET http://user@example.org/\n\n":                         "names a user",
		"GET http://user:pw@example.org/\n\n":                      "names a user",
		"GET http://:@example.org/\n\n":                            "names a user",
		"GET http://example.org:/\n\n":                             "no port",
		"GET http://example.org:0/\n\n":                            "port",
		"GET http://example.org:65536/\n\n":                        "port",
		"GET http://example.org:x/\n\n":                            "port",
		"GET http://:80/\n\n":                                      "host name",
		"GET http://example.org./\n\n":                             "dot",
		"GET http://127.1/\n\n":                                    "number",
		"GET http://2130706433/\n\n":                               "number",
		"GET http://0x7f.0.0.1/\n\n":                               "number",
		"GET http://0177.0.0.01/\n\n":                              "number",
		"GET http://ex%61mple.org/\n\n":                            "escape",
		"GET http://[fe80::1%25eth0]/\n\n":                         "no address that can be reached",
		"GET http://[example.org]/\n\n":                            "invalid host",
		"GET http://::1/\n\n":                                      "",
		"GET http://a_b,c/\n\n":                                    "','",
		"GET http://a/\nHost: evil\n\n":                            "not the guest's to set",
		"GET http://a/\nhOST: evil\n\n":                            "not the guest's to set",
		"GET http://a/\ncontent-length: 5\n\n":                     "not the guest's to set",
		"GET http://a/\ntransfer-encoding: chunked\n\n":            "not the guest's to set",
		"GET http://a/\nconnection: x\n\n":                         "not the guest's to set",
		"GET http://a/\nupgrade: h2c\n\n":                          "not the guest's to set",
		"GET http://a/\nproxy-authorization: x\n\n":                "not the guest's to set",
		"GET http://a/\nexpect: 100-continue\n\n":                  "not the guest's to set",
		"GET http://a/\nte: trailers\n\n":                          "not the guest's to set",
		"GET http://a/\nHTTP2-Settings: x\n\n":                     "not the guest's to set",
		"GET http://a/\nx: a\rHost: evil\n\n":                      "control character",
		"GET http://a/\nx: a\x00b\n\n":                             "control character",
		"GET http://a/\nx: a\x7f\n\n":                              "control character",
		"GET http://a/\nHost : evil\n\n":                           "NAME: VALUE",
		"GET http://a/\n host: evil\n\n":                           "NAME: VALUE",
		"GET http://a/\nx\n\n":                                     "NAME: VALUE",
		"GET http://a/\n: x\n\n":                                   "NAME: VALUE",
		"GET http://a/\nx\x00y: x\n\n":                             "NAME: VALUE",
		"GET http://a/" + strings.Repeat("a", maxURL) + "\n\n":     "URL has",
		"GET http://a/" + strings.Repeat("\nx: y", 200) + "\n\n":   "headers",
		"GET http://a/" + strings.Repeat("\nx: y", 20000) + "\n\n": "more than 65536 bytes",
	} {
		r, err := decode([]byte(in), big)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
			t.Errorf("%.80q gives %+v, %v; want an error about %q", in, r, err, want)
		} else if errno := errnoOf(err); errno != einval && errno != efbig {
			t.Errorf("%.80q: %v", in, errno)
		}
	}
	if _, err := decode([]byte("POST http://a/\n\nbody"), small); err != nil {
		t.Error(err)
	}
	for _, in := range []string{"POST http://a/\n\nbody5", "POST http://a/" + strings.Repeat("a", 60) + "\n\n"} {
		if _, err := decode([]byte(in), small); errnoOf(err) != efbig {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func errnoOf(err error) wasi.Errno {
	var errno wasi.Errno
	errors.As(err, &errno)
	return errno
}

// Whatever is accepted goes out as one request, to the host that was checked, with the headers that were
// checked and the body.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"GET http://example.org/\n\n", "POST https://[::1]:8443/a?b#c\nx: y\nx:z\n\nbody", "PUT http://127.0.0.1\nuser-agent: \n\n\n\n",
		"GET http://a/\nx: a\rb\n\n", "GET http://a:80:90/\n\n", "HEAD http://a//b\\c\n\n", "GET http://a/\nHost : x\n\n", "GET http://a%2f/\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := decode(in, Limits{Header: 1 << 10, Request: 1 << 10})
		if err != nil {
			if errnoOf(err) == 0 {
				t.Fatalf("%v has no errno", err)
			}
			return
		}
		g, err := grid.ParseNetGrant(r.grant())
		if err != nil && strings.Contains(r.name, ".") || err == nil && string(g) != r.grant() {
			t.Fatalf("%s is no grant: %v", r.grant(), err)
		}
		var sent bytes.Buffer
		c := &conn{Conn: &recorder{w: &sent}, s: &State{net: &Net{Config{Limits: DefaultLimits}}}}
		c.in = bufio.NewReader(c)
		if _, err := c.exchange(r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%v", err)
		}
		whole := bufio.NewReader(&sent)
		q, err := http.ReadRequest(whole)
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", in, sent.String(), err)
		}
		body, err := io.ReadAll(q.Body)
		if err != nil || !bytes.Equal(body, r.body) || whole.Buffered() > 0 {
			t.Fatalf("body %q, %v, and then %d bytes", body, err, whole.Buffered())
		}
		if q.Method != r.method || q.Host != r.url.Host || q.URL.Host != "" || q.URL.Scheme != "" {
			t.Fatalf("%s %s to %s, want %s to %s", q.Method, q.URL, q.Host, r.method, r.url.Host)
		}
		for name, values := range q.Header {
			if name != "User-Agent" && name != "Content-Length" && len(r.header[name]) != len(values) {
				t.Fatalf("header %s: %q", name, values)
			}
		}
	})
}

// recorder keeps what is written, and has nothing to read.
type recorder struct {
	netConn
	w io.Writer
}

func (r *recorder) Write(b []byte) (int, error) { return r.w.Write(b) }
func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }
