package remote

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is one for tests: impatient, and with no settings but the given ones.
func client(t *testing.T, cfg Config, env map[string]string) *Client {
	t.Helper()
	if cfg.Backoff == 0 {
		cfg.Backoff = time.Millisecond
	}
	cfg.LookupEnv = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// read opens a URL and reads it to its end.
func read(t *testing.T, c *Client, url string) ([]byte, *Stream, error) {
	t.Helper()
	r, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(t.Context(), r)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	data, err := io.ReadAll(s)
	return data, s, err
}

func wantError(t *testing.T, err error, code grid.Code, text string) {
	t.Helper()
	if grid.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error %v (%v), want %v with %q", err, grid.CodeOf(err), code, text)
	}
}

// content is bytes that differ everywhere.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13 + i>>16)
	}
	return b
}

func TestOpen(t *testing.T) {
	data := content(100_000)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("User-Agent") != userAgent() || r.Header.Get("Accept-Encoding") != "identity" || r.URL.RawQuery != "q=1" {
			t.Errorf("%v %v", r.URL, r.Header)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
	})
	got, s, err := read(t, client(t, Config{}, nil), url+"/x?q=1")
	if err != nil || !bytes.Equal(got, data) || s.Size != int64(len(data)) {
		t.Errorf("%d bytes, %+v, %v", len(got), s, err)
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

func TestUnknownSize(t *testing.T) {
	data := content(200_000)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(data[:100_000])
		w.(http.Flusher).Flush()
		w.Write(data[100_000:])
	})
	got, s, err := read(t, client(t, Config{}, nil), url)
	if err != nil || !bytes.Equal(got, data) || s.Size != -1 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, _, err = read(t, client(t, Config{MaxDownload: 150_000}, nil), url)
	wantError(t, err, grid.Limit, "more than 150000 bytes")
}

func TestHuge(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5000000000000")
		w.WriteHeader(200)
	})
	_, _, err := read(t, client(t, Config{}, nil), url)
	wantError(t, err, grid.Limit, "bytes")
	if grid.AdviceOf(err) != "--max-download allows more" {
		t.Error(grid.AdviceOf(err))
	}
}

// breaking serves data in pieces: each answer breaks off after so many bytes.
type breaking struct {
	data    []byte
	piece   int
	tag     string // an ETag, or none
	ranges  bool
	chunked bool // without Content-Length
	asked   atomic.Int32
	resumed atomic.Int32
}

func (b *breaking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(b.asked.Add(1))
	from := 0
	if b.tag != "" {
		w.Header().Set("ETag", b.tag)
	}
	status := http.StatusOK
	if rng := r.Header.Get("Range"); b.ranges && rng != "" && r.Header.Get("If-Range") == b.tag {
		b.resumed.Add(1)
		fmt.Sscanf(rng, "bytes=%d-", &from)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b.data)-1, len(b.data)))
		status = http.StatusPartialContent
	}
	rest := b.data[from:]
	if !b.chunked {
		w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
	}
	w.WriteHeader(status)
	until := b.piece
	if from == 0 {
		until = b.piece * n
	}
	if until >= len(rest) {
		w.Write(rest)
		return
	}
	w.Write(rest[:until])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestResume(t *testing.T) {
	data := content(300_000)
	for _, tt := range []struct {
		name string
		b    *breaking
		want int32 // resumed
	}{
		{"ranges", &breaking{tag: `"v1"`, ranges: true}, 3},
		{"ranges, no length", &breaking{tag: `"v1"`, ranges: true, chunked: true}, 3},
		{"no ranges", &breaking{tag: `"v1"`}, 0},
		{"no tag", &breaking{ranges: true}, 0},
		{"weak tag", &breaking{tag: `W/"v1"`, ranges: true}, 0},
		{"nothing", &breaking{chunked: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.b.data, tt.b.piece = data, 80_000
			sum := sha256.Sum256(data)
			url := serve(t, tt.b.ServeHTTP) + "/x#sha256=" + hex.EncodeToString(sum[:])
			got, _, err := read(t, client(t, Config{}, nil), url)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if tt.b.resumed.Load() != tt.want {
				t.Errorf("resumed %d times, want %d", tt.b.resumed.Load(), tt.want)
			}
		})
	}
}

func TestResumeGivesUp(t *testing.T) {
	b := &breaking{data: content(3_000_000), piece: 10, tag: `"v"`, ranges: true}
	_, _, err := read(t, client(t, Config{}, nil), serve(t, b.ServeHTTP))
	wantError(t, err, grid.Unavailable, "gave up at byte")
	if n := b.asked.Load(); n != maxTries {
		t.Errorf("asked %d times", n)
	}
}

func TestProgressAllowsMoreTries(t *testing.T) {
	b := &breaking{data: content(6 << 20), piece: progress + 1, tag: `"v"`, ranges: true}
	got, _, err := read(t, client(t, Config{}, nil), serve(t, b.ServeHTTP))
	if err != nil || len(got) != len(b.data) || b.asked.Load() <= maxTries {
		t.Errorf("%d bytes after %d tries, %v", len(got), b.asked.Load(), err)
	}
}

// TestChanged: content of two versions is never joined.
func TestChanged(t *testing.T) {
	data := content(100_000)
	for _, tags := range [][2]string{{`"a"`, `"b"`}, {"", ""}} {
		asked := 0
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			tag, body := tags[min(asked, 1)], bytes.Clone(data)
			body[10] += byte(asked)
			asked++
			if tag != "" {
				w.Header().Set("ETag", tag)
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:50_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		_, _, err := read(t, client(t, Config{}, nil), url)
		wantError(t, err, grid.Conflict, "changed while it was read")
	}
}

func TestStall(t *testing.T) {
	quit := make(chan struct{})
	var asked atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v"`)
		switch asked.Add(1) {
		case 1: // no header
			<-quit
		case 2: // no end
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "01234")
			w.(http.Flusher).Flush()
			<-quit
		default:
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
		}
	})
	t.Cleanup(func() { close(quit) })
	got, _, err := read(t, client(t, Config{StallTimeout: time.Second}, nil), url)
	if string(got) != "0123456789" || err != nil || asked.Load() < 3 {
		t.Errorf("%q after %d tries, %v", got, asked.Load(), err)
	}
}

func TestCancel(t *testing.T) {
	began := make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		close(began)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := Parse(url + "#cid=" + emptyCID)
	s, err := client(t, Config{}, nil).Open(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	<-began
	cancel()
	if _, err := io.ReadAll(s); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			io.WriteString(w, "what \x1b[2J went wrong\nmore")
		}
	})
	for status, code := range map[int]grid.Code{
		401: grid.Denied, 403: grid.Denied, 404: grid.NotFound, 410: grid.NotFound, 418: grid.Invalid, 500: grid.Unavailable,
		503: grid.Unavailable, 505: grid.Unavailable, 204: grid.Invalid, 206: grid.Invalid, 304: grid.Invalid, 412: grid.Conflict,
	} {
		data, _, err := read(t, client(t, Config{}, nil), fmt.Sprintf("%s/%d", url, status))
		wantError(t, err, code, fmt.Sprint(status))
		if len(data) > 0 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%d: %q, %v", status, data, err)
		}
		if status >= 400 && !strings.Contains(err.Error(), "went wrong") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestRetries(t *testing.T) {
	asked := 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < maxTries {
			w.WriteHeader(503)
			return
		}
		io.WriteString(w, "at last")
	})
	if got, _, err := read(t, client(t, Config{}, nil), url); string(got) != "at last" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRedirects(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("told another host: %v", r.Header)
		}
		if back := r.URL.Query().Get("back"); back != "" {
			http.Redirect(w, r, back, http.StatusFound)
			return
		}
		io.WriteString(w, "elsewhere")
	})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other, http.StatusFound)
		case "/round":
			http.Redirect(w, r, other+"/?back=http://"+r.Host+"/bare", http.StatusFound)
		case "/bare":
			if user != "" {
				t.Error("credentials that were left out came back")
			}
			io.WriteString(w, "bare")
		case "/here":
			http.Redirect(w, r, "/secret", http.StatusTemporaryRedirect)
		case "/secret":
			fmt.Fprintf(w, "%s %s", user, password)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		default:
			http.Redirect(w, r, "/loop", http.StatusFound)
		}
	})
	url = strings.Replace(url, "http://", "http://me:pass@", 1)
	c := client(t, Config{}, nil)
	for p, want := range map[string]string{"/away": "elsewhere", "/here": "me pass", "/secret": "me pass", "/round": "bare"} {
		if got, _, err := read(t, c, url+p+"?signature=s"); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	_, _, err := read(t, c, url+"/loop?signature=s")
	wantError(t, err, grid.Limit, "more than 10 redirects")
	if strings.Contains(err.Error(), "pass") || strings.Contains(err.Error(), "signature") {
		t.Errorf("it tells a secret: %v", err)
	}
	_, _, err = read(t, c, url+"/file")
	wantError(t, err, grid.Denied, "scheme file")
}

func TestTLS(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "plain") })
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain, http.StatusFound)
			return
		}
		io.WriteString(w, "safe")
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := client(t, Config{TLS: &tls.Config{RootCAs: roots}}, nil)
	if got, _, err := read(t, c, s.URL); string(got) != "safe" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_, _, err := read(t, c, s.URL+"/down")
	wantError(t, err, grid.Denied, "from https to http")
	_, _, err = read(t, client(t, Config{}, nil), s.URL)
	wantError(t, err, grid.Denied, "does not prove who it is")
}

func TestRefused(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, _, err := read(t, client(t, Config{Backoff: time.Hour}, nil), s.URL)
	wantError(t, err, grid.Unavailable, "refused")
}

func TestEncodings(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	data := content(2_000_000)
	z.Write(data)
	z.Close()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := packed.Bytes()
		w.Header().Set("Content-Encoding", "gzip")
		switch r.URL.Path {
		case "/br":
			w.Header().Set("Content-Encoding", "br")
		case "/short":
			body = body[:len(body)/2]
		case "/junk":
			body = []byte("this is not it")
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	})
	c := client(t, Config{}, nil)
	got, s, err := read(t, c, url+"/x.csv")
	if err != nil || !bytes.Equal(got, data) || s.Size != -1 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, _, err = read(t, c, url+"/x.csv.gz"); err != nil || !bytes.Equal(got, packed.Bytes()) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, _, err = read(t, c, url+"/br")
	wantError(t, err, grid.Unsupported, `"br"`)
	for _, p := range []string{"/short", "/junk"} {
		_, _, err = read(t, c, url+p)
		wantError(t, err, grid.Corrupt, "cannot be unpacked")
	}
	_, _, err = read(t, client(t, Config{MaxDownload: 1_000_000}, nil), url+"/x.csv")
	wantError(t, err, grid.Limit, "more than 1000000")
}

// raw answers every connection with the same bytes.
func raw(t *testing.T, answer string) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, answer)
	})
}

func TestWrongLength(t *testing.T) {
	c := client(t, Config{}, nil)
	_, _, err := read(t, c, raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"))
	wantError(t, err, grid.Unavailable, "gave up at byte 5")
	got, _, err := read(t, c, raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nlonger"))
	if string(got) != "lon" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	got, _, err = read(t, c, raw(t, "HTTP/1.0 200 OK\r\n\r\nto the end"))
	if string(got) != "to the end" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_, _, err = read(t, c, raw(t, "nonsense\r\n\r\n"))
	wantError(t, err, grid.Unavailable, "gave up after")
	_, _, err = read(t, c, raw(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz"))
	wantError(t, err, grid.Unavailable, "gave up at byte 5")
}

func TestPins(t *testing.T) {
	data := content(3_000_000)
	sum := sha256.Sum256(data)
	c, err := fileCID(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(data) })
	right := "sha256=" + hex.EncodeToString(sum[:])
	for _, pin := range []string{right, "cid=" + c.String(), right + "&cid=" + c.String()} {
		if got, _, err := read(t, client(t, Config{}, nil), url+"#"+pin); err != nil || len(got) != len(data) {
			t.Errorf("%s: %v", pin, err)
		}
	}
	wrong := strings.Repeat("00", 32)
	_, _, err = read(t, client(t, Config{}, nil), url+"#sha256="+wrong)
	wantError(t, err, grid.Corrupt, "sha256 is "+right[7:]+", not "+wrong)
	_, _, err = read(t, client(t, Config{}, nil), url+"#"+right+"&cid="+emptyCID)
	wantError(t, err, grid.Corrupt, "CID is "+c.String()+", not "+emptyCID)
	r, _ := Parse(url + "#cid=" + emptyCID) // closed before its end
	s, err := client(t, Config{}, nil).Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	s.Read(make([]byte, 10))
	s.Close()
	if _, err := s.Read(make([]byte, 10)); grid.CodeOf(err) != grid.Invalid {
		t.Error(err)
	}
}

func given(data []byte) Content {
	return Content{Size: int64(len(data)), Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

func TestPutWeb(t *testing.T) {
	data := content(500_000)
	var asked atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/busy":
			if asked.Load() == 1 {
				w.WriteHeader(503)
				return
			}
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
			return
		case "/login":
			http.Redirect(w, r, "/ok", http.StatusFound)
			return
		case "/there":
			if r.Header.Get("If-None-Match") == "*" {
				w.WriteHeader(412)
				return
			}
		case "/rotten":
			_, _ = io.Copy(io.Discard, r.Body)
			return
		case "/denied":
			w.WriteHeader(403)
			io.WriteString(w, "<Error><Message>Request has expired</Message></Error>")
			return
		}
		got, err := io.ReadAll(r.Body)
		if r.Method != http.MethodPut || err != nil || !bytes.Equal(got, data) || r.ContentLength != int64(len(data)) {
			t.Errorf("%s of %d bytes, %v", r.Method, len(got), err)
		}
		w.WriteHeader(http.StatusCreated)
	})
	c := client(t, Config{}, nil)
	put := func(p string, replace bool) error {
		asked.Store(0)
		r, err := Parse(url + p)
		if err != nil {
			t.Fatal(err)
		}
		return c.Put(t.Context(), r, given(data), replace)
	}
	for _, p := range []string{"/ok", "/busy", "/moved"} {
		if err := put(p, false); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	wantError(t, put("/there", false), grid.Conflict, "something is there already")
	if err := put("/there", true); err != nil {
		t.Error(err)
	}
	wantError(t, put("/login", true), grid.Unsupported, "turns PUT into GET")
	wantError(t, put("/denied", true), grid.Denied, "Request has expired")
	broken := given(data)
	broken.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{})), nil
	}
	r, _ := Parse(url + "/rotten")
	wantError(t, c.Put(t.Context(), r, broken, true), grid.Corrupt, "rotten")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, grid.Errorf(grid.Corrupt, "rotten") }

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-1/2")
	f.Add("bytes 5-9/*")
	f.Fuzz(func(t *testing.T, s string) {
		if from, size, ok := contentRange(s); ok && (from < 0 || size < -1 || size >= 0 && size <= from) {
			t.Errorf("%q: %d, %d", s, from, size)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-5/6\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx")
	r, _ := Parse("https://h/x")
	f.Fuzz(func(t *testing.T, s string) {
		req, _ := http.NewRequest(http.MethodGet, "https://h/x", nil)
		req.Header.Set("Range", "bytes=3-")
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(s)), req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		a, err := webSource{nil, r.web}.answer(resp, 3)
		if err == nil && a.offset != 0 && a.offset != 3 {
			t.Errorf("offset %d", a.offset)
		}
	})
}
