package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/fakes3"
)

// world is an HTTP server and a bucket beside a node.
func world(t *testing.T) (f *fakeNode, web string, bucket *fakes3.Server) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	f = newFake(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/chunked/"):
			io.WriteString(w, "content of ")
			w.(http.Flusher).Flush()
			fallthrough
		case strings.HasPrefix(r.URL.Path, "/a/"), strings.HasPrefix(r.URL.Path, "/b/"):
			io.WriteString(w, r.URL.Path)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	bucket = &fakes3.Server{Bucket: "data", PageSize: 3}
	b := httptest.NewServer(bucket)
	t.Cleanup(b.Close)
	f.env = fakes3.Env(b.URL)
	t.Cleanup(func() {
		if left, _ := filepath.Glob(os.Getenv("TMPDIR") + "/grid-*"); left != nil {
			t.Errorf("left behind: %v", left)
		}
	})
	return f, s.URL, bucket
}

func TestAddURL(t *testing.T) {
	f, web, bucket := world(t)
	for _, k := range []string{"p/x.csv", "p/deep/y.csv", "p/", "q"} {
		bucket.Put(k, "object "+k)
	}
	for url, want := range map[string]string{
		web + "/a/x.csv":       "/a/x.csv",
		web + "/chunked/x.csv": "content of /chunked/x.csv",
		"s3://data/q":          "object q",
	} {
		r := f.grid("add", "-q", url)
		if l, err := grid.ParseLink(strings.TrimSpace(r.out)); r.exit != 0 || err != nil || f.content(l) != want {
			t.Errorf("%s: %+v", url, r)
		}
	}
	r := f.grid("add", "s3://data/p/")
	root, name, _ := strings.Cut(strings.TrimSpace(r.out), "  ")
	var got []string
	for _, en := range f.trees[root] {
		got = append(got, en.name+"="+string(en.data))
	}
	if r.exit != 0 || name != "s3://data/p/" || !slices.Equal(got, []string{"deep/y.csv=object p/deep/y.csv", "x.csv=object p/x.csv"}) {
		t.Errorf("%+v: %q", r, got)
	}
	r = f.grid("add", strings.Replace(web, "//", "//me:secret@", 1)+"/a/x?sig=1")
	pin := f.pins[len(f.pins)-1].Name
	if r.exit != 0 || strings.Contains(r.out+pin, "secret") || strings.Contains(r.out+pin, "sig") {
		t.Errorf("%+v, pinned as %q", r, pin)
	}
	bucket.Put("odd/x#cid=y", "")
	for _, tt := range []struct {
		url  string
		exit int
		want string
	}{
		{"s3://data/odd/", 73, "reads like a checksum"},
		{web + "/none", 66, "404"},
		{web + "/a/x#sha256=" + strings.Repeat("0", 64), 72, "its sha256 is "},
		{web + "/chunked/x#sha256=" + strings.Repeat("0", 64), 72, "its sha256 is "},
		{web + "/a/x#sha1=1", 67, "no checksum"},
		{"s3://data/none", 66, "no such object"},
		{"s3://data/none/", 66, "holds no objects"},
		{"s3://data/p", 66, "a slash at the end"},
		{"ftp://h/x", 66, "no such file"},
	} {
		before := len(f.trees)
		r := f.grid("add", tt.url)
		if r.exit != tt.exit || r.out != "" || !strings.Contains(r.err, tt.want) || len(f.trees) != before {
			t.Errorf("%s: %+v", tt.url, r)
		}
	}
	if r := f.grid("add", web+"/a/x.csv", "--max-download", "3"); r.exit != exitLimit || !strings.Contains(r.err, "--max-download") {
		t.Errorf("%+v", r)
	}
}

func TestRunURLs(t *testing.T) {
	f, web, bucket := world(t)
	files(t, map[string]string{"m.wasm": "code", "in/x.csv": "local"})
	for i := range 20 {
		bucket.Put(fmt.Sprintf("many/%02d", i), fmt.Sprint(i))
	}
	for _, k := range []string{"p/x.csv", "p/deep/y.csv", "p/z.txt"} {
		bucket.Put(k, "object")
	}
	host := strings.TrimPrefix(web, "http://")
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"--each s3://data/p/*.csv", []string{"x.csv=object"}},
		{"--each s3://data/p/**/*.csv", []string{"deep/y.csv=object", "x.csv=object"}},
		{"--each s3://data/p/ --group 2", []string{"deep/y.csv=object x.csv=object", "z.txt=object"}},
		{"--each WEB/a/x.csv --each WEB/a/y.csv?v=2", []string{"x.csv=/a/x.csv", "y.csv=/a/y.csv"}},
		{"--each WEB/a/x.csv --each WEB/a/x.csv", []string{"x.csv=/a/x.csv"}},
		{"--each WEB/a/x.csv --each WEB/b/x.csv", []string{host + "/a/x.csv=/a/x.csv", host + "/b/x.csv=/b/x.csv"}},
		{"--each in/* --each s3://data/p/*.csv", []string{"data/p/x.csv=object", "x.csv=local"}},
		{"--each in/* --each WEB/chunked/y", []string{"x.csv=local", "y=content of /chunked/y"}},
	} {
		r := f.grid(append([]string{"run", "m.wasm"}, strings.Fields(strings.ReplaceAll(tt.args, "WEB", web))...)...)
		if r.exit != 0 {
			t.Errorf("%s: %+v", tt.args, r)
			continue
		}
		if got := f.rows(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.args, got, tt.want)
		}
	}
	r := f.grid("run", "m.wasm", "--each", "s3://data/many/*")
	if got := f.rows(); r.exit != 0 || len(got) != 20 || got[7] != "07=7" || got[19] != "19=19" {
		t.Errorf("%+v: %q", r, got)
	}
	r = f.grid("run", web+"/a/mod.wasm?x", "--stdin", "s3://data/p/z.txt", "--mount", web+"/b/f:/f", "--mount", "s3://data/p/:/p")
	st := f.request().Stages[0]
	if r.exit != 0 || f.content(st.Module) != "/a/mod.wasm" || f.content(st.Stdin) != "object" || f.content(st.Mounts[0].CID) != "/b/f" ||
		len(f.trees[st.Mounts[1].CID.String()]) != 3 || f.request().Name != "mod" {
		t.Errorf("%+v: %+v", r, f.request())
	}
	submitted := len(f.submitted)
	for args, want := range map[string]string{
		"m.wasm --each WEB/a/x.csv?1 --each WEB/a/x.csv?2": "names clash",
		"m.wasm --each s3://data/none/*":                   "matches nothing",
		"m.wasm --each WEB/none":                           "404",
		"m.wasm --mount WEB/a":                             "absolute GUESTPATH",
		"m.wasm --mount https://host/x":                    "absolute GUESTPATH",
		"m.wasm --stdin s3://data/p/":                      "is a folder",
		"s3://data/p/":                                     "is a folder",
		"m.wasm -o https://h/x":                            "cannot be written to an HTTP server",
		"m.wasm -o s3:///x":                                "no bucket",
		"m.wasm --each WEB/a/x#sha256=" + strings.Repeat("0", 64) + " --each in/x.csv": "its sha256 is",
	} {
		r := f.grid(append([]string{"run"}, strings.Fields(strings.ReplaceAll(args, "WEB", web))...)...)
		if r.exit == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if len(f.submitted) != submitted {
		t.Errorf("%d jobs were submitted", len(f.submitted)-submitted)
	}
}

// TestPinnedIsKnown: what is pinned to a CID that the grid has is not downloaded.
func TestPinnedIsKnown(t *testing.T) {
	f := newFake(t)
	files(t, map[string]string{"m.wasm": "code"})
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, "hello")
	}))
	t.Cleanup(s.Close)
	known, unknown := f.blob("hello"), grid.NewBlock(0x55, []byte("hello!")).CID()
	r := f.grid("run", "m.wasm", "--each", s.URL+"/x#cid="+known.String(), "--mount", s.URL+"/x#cid="+known.String()+":/m")
	if got := f.rows(); r.exit != 0 || asked.Load() != 0 || !slices.Equal(got, []string{"x=hello"}) || f.request().Stages[0].Mounts[0].CID != known {
		t.Errorf("asked %d times, %+v, %q", asked.Load(), r, got)
	}
	if r := f.grid("add", "-q", s.URL+"/x#cid="+known.String()); r.exit != 0 || asked.Load() != 0 || r.out != known.String()+"\n" {
		t.Errorf("asked %d times, %+v", asked.Load(), r)
	}
	if r := f.grid("run", "m.wasm", "--each", s.URL+"/x#cid="+unknown.String()); r.exit != 72 || asked.Load() != 1 || !strings.Contains(r.err, known.String()) {
		t.Errorf("asked %d times, %+v", asked.Load(), r)
	}
}

func TestPublish(t *testing.T) {
	f, _, bucket := world(t)
	tree := f.tree(map[string]string{"a.txt": "A", "sub/b": "B"})
	file := f.blob("hello")
	content := func() map[string]string {
		got := map[string]string{}
		for _, k := range bucket.Keys() {
			o, _ := bucket.Get(k)
			got[k] = string(o.Data)
		}
		return got
	}
	wrote := func(r result, url string) {
		t.Helper()
		if r.exit != 0 || !strings.Contains(r.err, "wrote "+url+"\n") {
			t.Errorf("%+v", r)
		}
	}
	wrote(f.grid("get", file.String(), "-o", "s3://data/file"), "s3://data/file")
	wrote(f.grid("get", tree.String()+"/sub/b", "-o", "s3://data/in/"), "s3://data/in/b")
	wrote(f.grid("get", tree.String(), "-o", "s3://data/tree"), "s3://data/tree/")
	wrote(f.grid("get", tree.String(), "-o", "s3://data/tree/"), "s3://data/tree/") // again: nothing has changed
	want := map[string]string{"file": "hello", "in/b": "B", "tree/a.txt": "A", "tree/sub/b": "B"}
	if got := content(); !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if o, _ := bucket.Get("file"); o.Meta.Get("X-Amz-Meta-Cid") != file.String() {
		t.Errorf("%v", o.Meta)
	}

	// What is there stays, and nothing beside it is written.
	bucket.Put("half/sub/b", "other")
	bucket.Put("file", "other")
	for _, args := range [][]string{{tree.String(), "-o", "s3://data/half"}, {file.String(), "-o", "s3://data/file"}} {
		if r := f.grid(append([]string{"get"}, args...)...); r.exit != exitOf(grid.Conflict) || !strings.Contains(r.err, "--force") {
			t.Errorf("%+v", r)
		}
	}
	if _, ok := bucket.Get("half/a.txt"); ok {
		t.Error("a part was written")
	}
	wrote(f.grid("get", tree.String(), "-o", "s3://data/half", "--force"), "s3://data/half/")
	if o, _ := bucket.Get("half/sub/b"); string(o.Data) != "B" {
		t.Errorf("%q", o.Data)
	}
	if r := f.grid("get", f.tree(map[string]string{"l": "->x", "x": "X"}).String(), "-o", "s3://data/links"); r.exit != 73 || !strings.Contains(r.err, "symlink") {
		t.Errorf("%+v", r)
	}
	if _, ok := bucket.Get("links/x"); ok {
		t.Error("a part was written")
	}

	// By PUT.
	put := make(chan string, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		put <- fmt.Sprintf("%s %s %d %s", r.Method, r.URL, r.ContentLength, data)
	}))
	t.Cleanup(web.Close)
	wrote(f.grid("get", file.String(), "-o", web.URL+"/up?sig=1"), web.URL+"/up?…")
	if got := <-put; got != "PUT /up?sig=1 5 hello" {
		t.Error(got)
	}
	if r := f.grid("get", tree.String(), "-o", web.URL); r.exit != 73 {
		t.Errorf("%+v", r)
	}
}

func TestPublishOutputs(t *testing.T) {
	f, _, bucket := world(t)
	files(t, map[string]string{"m.wasm": "code", "in/a": "", "in/b": ""})
	f.jobs[0].Stages[0].Tasks = 2
	for i, name := range []string{"a", "b"} {
		f.ends = append(f.ends, grid.TaskEnd{Index: uint32(i), Input: name, Inputs: 1, Out: f.tree(map[string]string{"r.txt": "of " + name})})
	}
	if r := f.grid("run", "m.wasm", "--each", "in/*", "-o", "s3://data/out"); r.exit != 0 {
		t.Errorf("%+v", r)
	}
	if got := bucket.Keys(); !slices.Equal(got, []string{"out/a/r.txt", "out/b/r.txt"}) {
		t.Errorf("%q", got)
	}
	if r := f.grid("get", string(testJob), "-o", "s3://data/again/"); r.exit != 0 || !strings.Contains(r.err, "wrote s3://data/again/b/") {
		t.Errorf("%+v", r)
	}
	if got := bucket.Keys(); len(got) != 4 {
		t.Errorf("%q", got)
	}
}

// TestInterruptedDownload: an interrupt ends a download that hangs.
func TestInterruptedDownload(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	if r := f.gridIn(ctx, "", "add", s.URL+"/x"); r.exit != exitInterrupted || r.out != "" {
		t.Errorf("%+v", r)
	}
}
