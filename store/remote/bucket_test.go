package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/fakes3"
)

// buckets serves a fake, and gives a client of it with some variables changed.
func buckets(t *testing.T, s *fakes3.Server, env ...string) *Client {
	t.Helper()
	if s.Bucket == "" {
		s.Bucket = "data"
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	vars := fakes3.Env(srv.URL)
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	c := client(t, Config{}, vars)
	c.part = testPart
	return c
}

const testPart = 5 << 20 // S3 takes none that are smaller

func ref(t *testing.T, s string) Ref {
	t.Helper()
	r, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestObject(t *testing.T) {
	s := &fakes3.Server{}
	data := content(300_000)
	for _, key := range []string{"a.bin", "odd name/ü+%20 #1?&=.bin", "-"} {
		s.Put(key, string(data))
		got, st, err := read(t, buckets(t, s), "s3://data/"+key)
		if err != nil || !bytes.Equal(got, data) || st.Size != int64(len(data)) {
			t.Errorf("%s: %d bytes, %v", key, len(got), err)
		}
	}
	_, _, err := read(t, buckets(t, s), "s3://data/none")
	wantError(t, err, grid.NotFound, "there is no such object")
	_, _, err = read(t, buckets(t, s), "s3://other/none")
	wantError(t, err, grid.NotFound, "there is no such bucket")
	_, _, err = read(t, buckets(t, s), "s3://a/x")
	wantError(t, err, grid.Invalid, "InvalidBucketName")
	_, _, err = read(t, buckets(t, s), "s3://data/a.bin#cid="+emptyCID)
	wantError(t, err, grid.Corrupt, "not "+emptyCID)
}

func TestObjectResumes(t *testing.T) {
	s := &fakes3.Server{}
	data := content(300_000)
	s.Put("k", string(data))
	var asked atomic.Int32
	s.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) == 1 {
			w.Header().Set("ETag", `"`+etag(s, "k")+`"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Header().Set("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
			w.Write(data[:100_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("Range") != "bytes=100000-" {
			t.Errorf("asked for %q", r.Header.Get("Range"))
		}
		return false
	}
	got, _, err := read(t, buckets(t, s), "s3://data/k")
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestObjectChanges(t *testing.T) {
	s := &fakes3.Server{}
	s.Put("k", string(content(300_000)))
	var asked atomic.Int32
	s.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) > 1 {
			return false
		}
		w.Header().Set("ETag", `"`+etag(s, "k")+`"`)
		w.Header().Set("Content-Length", "300000")
		w.Header().Set("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
		w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		s.Put("k", "another")
		panic(http.ErrAbortHandler)
	}
	_, _, err := read(t, buckets(t, s), "s3://data/k")
	wantError(t, err, grid.Conflict, "changed while it was read")
}

func etag(s *fakes3.Server, key string) string {
	o, _ := s.Get(key)
	return o.ETag
}

func TestCredentials(t *testing.T) {
	s := &fakes3.Server{}
	s.Put("k", "x")
	_, _, err := read(t, buckets(t, s, "AWS_SECRET_ACCESS_KEY=wrong"), "s3://data/k")
	wantError(t, err, grid.Denied, "SignatureDoesNotMatch")
	none := []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SESSION_TOKEN="}
	_, _, err = read(t, buckets(t, s, none...), "s3://data/k")
	wantError(t, err, grid.Denied, "AccessDenied")
	if !strings.Contains(grid.AdviceOf(err), "no credentials") {
		t.Error(grid.AdviceOf(err))
	}
	_, _, err = read(t, buckets(t, s, none[0]), "s3://data/k")
	wantError(t, err, grid.Invalid, "only one is set")
	public := &fakes3.Server{Public: true}
	public.Put("k", "x")
	if got, _, err := read(t, buckets(t, public, none...), "s3://data/k"); string(got) != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}

	// Profiles.
	home := t.TempDir()
	write := func(name, text string) {
		os.Mkdir(filepath.Join(home, ".aws"), 0o700)
		if err := os.WriteFile(filepath.Join(home, ".aws", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	write("credentials", fmt.Sprintf("[default]\naws_access_key_id = nobody\naws_secret_access_key = x\n[lab]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n",
		fakes3.AccessKey, fakes3.SecretKey, fakes3.Token))
	write("config", fmt.Sprintf("[default]\nendpoint_url = %s\n[profile lab]\nregion = x\nservices = here\n[services here]\ns3 =\n  endpoint_url = %s\n[profile sso]\nsso_session = corp\n[profile tool]\ncredential_process = sh %s\nendpoint_url = %s\n",
		srv.URL, srv.URL, filepath.Join(home, ".aws", "keys"), srv.URL))
	write("keys", fmt.Sprintf(`echo '{"Version": 1, "AccessKeyId": "%s", "SecretAccessKey": "%s", "SessionToken": "%s", "Expiration": "2099-01-01T00:00:00Z"}'`,
		fakes3.AccessKey, fakes3.SecretKey, fakes3.Token))
	with := func(profile string) *Client {
		return client(t, Config{}, map[string]string{"HOME": home, "AWS_PROFILE": profile})
	}
	profiles := []string{"lab"}
	if _, err := exec.LookPath("sh"); err == nil {
		profiles = append(profiles, "tool")
	}
	for _, p := range profiles {
		if got, _, err := read(t, with(p), "s3://data/k"); string(got) != "x" || err != nil {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	_, _, err = read(t, with(""), "s3://data/k")
	wantError(t, err, grid.Denied, "InvalidAccessKeyId")
	_, _, err = read(t, with("nobody"), "s3://data/k")
	wantError(t, err, grid.NotFound, `"nobody" is neither in`)
	_, _, err = read(t, with("sso"), "s3://data/k")
	wantError(t, err, grid.Unsupported, "sso_session")
	_, _, err = read(t, client(t, Config{}, map[string]string{"AWS_ENDPOINT_URL": "localhost:9000"}), "s3://data/k")
	wantError(t, err, grid.Invalid, `"localhost:9000"`)
}

func names(t *testing.T, list func(func(Object) error) error) (out []string, err error) {
	t.Helper()
	err = list(func(o Object) error {
		out = append(out, fmt.Sprintf("%s:%d", o.Name, o.Size))
		return nil
	})
	return out, err
}

func TestList(t *testing.T) {
	s := &fakes3.Server{PageSize: 2}
	for _, k := range []string{"p/a.csv", "p/b.txt", "p/deep/c.csv", "p/deep/er/d.csv", "p/", "p/deep/", "p2/x", "p/odd [1]+é.csv", "top.csv"} {
		s.Put(k, k)
	}
	c := buckets(t, s)
	for r, want := range map[string]string{
		"s3://data/p/":      "a.csv:7 b.txt:7 deep/c.csv:12 deep/er/d.csv:15 odd [1]+é.csv:16",
		"s3://data/p/deep/": "c.csv:12 er/d.csv:15",
		"s3://data/none/":   "",
	} {
		got, err := names(t, func(f func(Object) error) error { return c.List(t.Context(), ref(t, r), f) })
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", r, got, err)
		}
	}
	for pattern, want := range map[string]string{
		"s3://data/p/*.csv":           "a.csv:7 odd [1]+é.csv:16",
		"s3://data/p/**/*.csv":        "a.csv:7 deep/c.csv:12 deep/er/d.csv:15 odd [1]+é.csv:16",
		"s3://data/**":                "p/a.csv:7 p/b.txt:7 p/deep/c.csv:12 p/deep/er/d.csv:15 p/odd [1]+é.csv:16 p2/x:4 top.csv:7",
		"s3://data/{p,p2}/[ax]*":      "p/a.csv:7 p2/x:4",
		"s3://data/top.csv":           "top.csv:7",
		`s3://data/p/odd \[1\]*.csv`:  "odd [1]+é.csv:16",
		"s3://data/p*/x":              "p2/x:4",
		"s3://data/p/deep/er/?.csv":   "d.csv:15",
		"s3://data/p/de*/**":          "deep/c.csv:12 deep/er/d.csv:15",
		"s3://data/p/deep/../b.txt":   "",
		"s3://data/none/*":            "",
		"s3://data/p/a.csv/b":         "",
		"s3://data/p/**/er/d.csv":     "deep/er/d.csv:15",
		"s3://data/p/deep/er/d.csv":   "d.csv:15",
		"s3://data/p/deep/{c,er/d}.*": "c.csv:12 er/d.csv:15",
	} {
		got, err := names(t, func(f func(Object) error) error { return c.Glob(t.Context(), pattern, f) })
		if strings.Join(got, " ") != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", pattern, got, err)
		}
	}
	s.Put("p/../up", "")
	_, err := names(t, func(f func(Object) error) error { return c.List(t.Context(), ref(t, "s3://data/p/"), f) })
	wantError(t, err, grid.Unsupported, "no path below a folder")
	err = c.List(t.Context(), ref(t, "s3://data/p2/"), func(Object) error { return io.ErrClosedPipe })
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	err = c.Glob(t.Context(), "s3://data/[", func(Object) error { return nil })
	wantError(t, err, grid.Invalid, "not a pattern")
}

func TestPutObject(t *testing.T) {
	for _, size := range []int{0, 1, testPart - 1, testPart, testPart + 1, 2*testPart + 12345} {
		for _, known := range []bool{true, false} {
			s := &fakes3.Server{}
			c := buckets(t, s)
			data := content(size)
			what := given(data)
			if !known {
				what.Size = -1
			}
			what.CID = grid.NewBlock(0x55, data[:min(size, 100)]).CID()
			r := ref(t, "s3://data/some where/k+1")
			if err := c.Put(t.Context(), r, what, false); err != nil {
				t.Errorf("%d: %v", size, err)
			}
			o, _ := s.Get("some where/k+1")
			if !bytes.Equal(o.Data, data) || o.Meta.Get("X-Amz-Meta-Cid") != what.CID.String() || s.Uploads() != 0 {
				t.Errorf("%d: %d bytes, %v, %d uploads", size, len(o.Data), o.Meta, s.Uploads())
			}
			other := what
			other.CID = grid.NewBlock(0x55, []byte("other")).CID()
			wantError(t, c.Put(t.Context(), r, other, false), grid.Conflict, "an object is there already")
			if err := c.Put(t.Context(), r, other, true); err != nil {
				t.Error(err)
			}
			if s.Uploads() != 0 {
				t.Errorf("%d: %d uploads are left", size, s.Uploads())
			}
		}
	}
}

// TestPutAgain: an object that is there with the same content is no conflict, so that publishing can be
// taken up again.
func TestPutAgain(t *testing.T) {
	for _, old := range []bool{false, true} { // a server that knows no conditions
		s := &fakes3.Server{NoIfMatch: old}
		c := buckets(t, s)
		what := given([]byte("hello"))
		what.CID = grid.NewBlock(0x55, []byte("hello")).CID()
		for range 2 {
			if err := c.Put(t.Context(), ref(t, "s3://data/k"), what, false); err != nil {
				t.Error(err)
			}
		}
		if err := c.Free(t.Context(), ref(t, "s3://data/k"), what); err != nil {
			t.Error(err)
		}
		s.Put("k", "other")
		wantError(t, c.Free(t.Context(), ref(t, "s3://data/k"), what), grid.Conflict, "already")
		if err := c.Free(t.Context(), ref(t, "s3://data/free"), what); err != nil {
			t.Error(err)
		}
		wantError(t, c.Put(t.Context(), ref(t, "s3://data/k"), what, false), grid.Conflict, "already")
		if o, _ := s.Get("k"); string(o.Data) != "other" {
			t.Errorf("replaced by %q", o.Data)
		}
	}
}

// TestPutFails: of a write that fails nothing is left.
func TestPutFails(t *testing.T) {
	data := content(3 * testPart)
	sends := func(r io.Reader) Content {
		return Content{Size: int64(len(data)), Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r), nil }}
	}
	ctx, cancel := context.WithCancel(t.Context())
	for _, tt := range []struct {
		name string
		what Content
		hook func(part string) (status int)
		code grid.Code
		want string
	}{
		{"source fails", sends(io.MultiReader(bytes.NewReader(data[:2*testPart+1]), failing{})), nil, grid.Corrupt, "rotten"},
		{"source is short", sends(bytes.NewReader(data[:2*testPart])), nil, grid.Corrupt, fmt.Sprintf("%d bytes, not %d", 2*testPart, len(data))},
		{"part is refused", given(data), func(part string) int {
			if part == "2" {
				return http.StatusForbidden
			}
			return 0
		}, grid.Denied, "AccessDenied"},
		{"interrupt", given(data), func(part string) int {
			if part == "3" {
				cancel()
			}
			return 0
		}, grid.Canceled, "canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &fakes3.Server{Hook: func(w http.ResponseWriter, r *http.Request) bool {
				part := r.URL.Query().Get("partNumber")
				if part == "" || tt.hook == nil {
					return false
				}
				status := tt.hook(part)
				if status != 0 {
					w.WriteHeader(status)
				}
				return status != 0
			}}
			wantError(t, buckets(t, s).Put(ctx, ref(t, "s3://data/k"), tt.what, true), tt.code, tt.want)
			if s.Uploads() != 0 || len(s.Keys()) != 0 {
				t.Errorf("%d uploads and %q are left", s.Uploads(), s.Keys())
			}
		})
	}
}

func TestPutRetries(t *testing.T) {
	s := &fakes3.Server{}
	var asked atomic.Int32
	s.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1)%2 == 1 {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	data := content(testPart + 5)
	if err := buckets(t, s).Put(t.Context(), ref(t, "s3://data/k"), given(data), false); err != nil {
		t.Error(err)
	}
	if o, _ := s.Get("k"); !bytes.Equal(o.Data, data) {
		t.Errorf("%d bytes", len(o.Data))
	}
}

func TestPartSize(t *testing.T) {
	for size, want := range map[int64]int64{-1: minPart, 0: minPart, maxParts * minPart: minPart, maxParts*minPart + 1: minPart + 1<<20, 5 << 40: 525 << 20} {
		if got := partSize(size, minPart); got != want {
			t.Errorf("%d: %d, want %d", size, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	c := client(t, Config{}, nil)
	for s, code := range map[string]grid.Code{"s3://b/p/": grid.Invalid, "https://h/x#cid=" + emptyCID: grid.Invalid} {
		if err := c.Put(t.Context(), ref(t, s), given(nil), false); grid.CodeOf(err) != code {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := c.Open(t.Context(), ref(t, "s3://b/p/")); grid.CodeOf(err) != grid.Invalid {
		t.Error(err)
	}
	if err := c.List(t.Context(), ref(t, "s3://b/p"), nil); grid.CodeOf(err) != grid.Invalid {
		t.Error(err)
	}
	if got := ref(t, "s3://b/p").Below("x/y").String() + " " + ref(t, "s3://b").Below("x").String() + " " + ref(t, "s3://b/p").AsFolder().String(); got != "s3://b/p/x/y s3://b/x s3://b/p/" {
		t.Error(got)
	}
}

// TestPutRace: somebody else writes the object while its parts are sent.
func TestPutRace(t *testing.T) {
	s := &fakes3.Server{}
	s.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") == "2" {
			s.Put("k", "theirs")
		}
		return false
	}
	wantError(t, buckets(t, s).Put(t.Context(), ref(t, "s3://data/k"), given(content(testPart+1)), false), grid.Conflict, "already")
	if o, _ := s.Get("k"); string(o.Data) != "theirs" || s.Uploads() != 0 {
		t.Errorf("%d bytes, %d uploads", len(o.Data), s.Uploads())
	}
}
