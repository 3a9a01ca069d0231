package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// scripted is an archive that does as a test says, and remembers what it was asked for.
type scripted struct {
	asked   []grid.Selection
	export  func(ctx context.Context, w io.Writer) error
	partial bool
	got     string
	in      grid.Imported
	err     error
}

func (s *scripted) Export(ctx context.Context, w io.Writer, parts ...grid.Selection) error {
	s.asked = parts
	if s.export != nil {
		return s.export(ctx, w)
	}
	_, err := io.WriteString(w, "a car")
	return err
}

func (s *scripted) Import(_ context.Context, r io.Reader, partial bool) (grid.Imported, error) {
	s.partial = partial
	if s.err != nil {
		return s.in, s.err
	}
	data, err := io.ReadAll(r)
	s.got = string(data)
	return s.in, err
}

// wants remembers what is to be fetched, and has it.
type wants struct {
	blocks *fake.Blocks
	has    []grid.Block
	asked  []grid.Want
}

func (f *wants) Fetch(ctx context.Context, w grid.Want) error {
	f.asked = append(f.asked, w)
	return f.blocks.Put(ctx, f.has...)
}

// gateway serves one over TCP.
func gateway(t *testing.T, g *api.Gateway) (do func(method, path string, headers ...string) (*http.Response, string, error)) {
	t.Helper()
	g.Logger = slog.New(slog.DiscardHandler)
	srv := httptest.NewServer(g.Handler())
	t.Cleanup(srv.Close)
	hc := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(method, path string, headers ...string) (*http.Response, string, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(within(t), method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Add(headers[i], headers[i+1])
		}
		resp, err := hc.Do(req)
		if err != nil {
			return nil, "", err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return resp, string(data), err
	}
}

func TestGateway(t *testing.T) {
	blocks, files := fake.NewBlocks(), &scripted{}
	b := grid.NewBlock(cid.Raw, []byte("0123456789"))
	if err := blocks.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	do := gateway(t, &api.Gateway{Blocks: blocks, Archive: files, Limit: 10})
	c := b.CID().String()
	const (
		raw = "application/vnd.ipld.raw"
		car = "application/vnd.ipld.car"
	)
	for _, tt := range []struct {
		path    string
		headers []string
		status  int
		body    string // that it is, or has in it when it is an error
		want    grid.Selection
	}{
		{path: c + "?format=raw", status: 200, body: "0123456789"},
		{path: c + "/?format=raw", status: 200, body: "0123456789"},
		{path: c, headers: []string{"Accept", raw}, status: 200, body: "0123456789"},
		{path: c, headers: []string{"Accept", "text/html, */*;q=0.1", "Accept", raw + ";q=0.5, " + car + ";q=0.4"}, status: 200, body: "0123456789"},
		{path: c + "?format=raw", headers: []string{"Accept", car}, status: 200, body: "0123456789"},
		{path: c + "?format=raw", headers: []string{"Range", "bytes=2-4"}, status: 206, body: "234"},
		{path: c + "?format=raw", headers: []string{"Range", "bytes=20-"}, status: 416, body: "range"},
		{path: c + "?format=raw", headers: []string{"If-None-Match", `"` + c + `.raw"`}, status: 304},
		{path: "bafkqaaa?format=raw", status: 200},
		{path: "bafkqabtimvwgy3yk?format=raw", status: 200, body: "hello\n"},
		{path: c + "/x?format=raw", status: 400, body: "no path"},
		{path: c, status: 400, body: "in what form"},
		{path: c, headers: []string{"Accept", "*/*"}, status: 400, body: "in what form"},
		{path: c, headers: []string{"Accept", "text/html"}, status: 406, body: "format=car"},
		{path: c + "?format=ipns-record", status: 400, body: "ipns-record"},
		{path: c + "?format=dag-json", headers: []string{"Accept", car}, status: 400, body: "dag-json"},
		{path: "nonsense?format=raw", status: 400, body: "nonsense"},
		{path: strings.Repeat("b", 5000) + "?format=raw", status: 400, body: "5000 characters"},
		{path: "bafk2bzaceaq3zqxa3kwcmwsxgrhh2bbxq7fdtikjqr65mgvbqmgxskdhzqkh2?format=raw", status: 400, body: "CID"},
		{path: grid.NewBlock(cid.Raw, []byte("x")).CID().String() + "?format=raw", status: 404, body: "gives out only what its node has"},
		{path: grid.NewBlock(cid.Raw, []byte("x")).CID().String() + "?format=raw", headers: []string{"Cache-Control", "only-if-cached"}, status: 412},

		{path: c + "?format=car", status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll}},
		{path: c, headers: []string{"Accept", car}, status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll}},
		{path: c + "/a%20b/c/", headers: []string{"Accept", car + "; version=1; order=unk; dups=n"}, status: 200, body: "a car", want: grid.Selection{Path: "a b/c", Scope: grid.ScopeAll}},
		{path: c + "?format=car&dag-scope=block", status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeBlock}},
		{path: c + "/d?format=car&dag-scope=entity", status: 200, body: "a car", want: grid.Selection{Path: "d", Scope: grid.ScopeEntity}},
		{path: c + "/d?format=car&entity-bytes=1:-2", status: 200, body: "a car", want: grid.Selection{Path: "d", Scope: grid.ScopeEntity, Bytes: &grid.ByteRange{From: 1, To: -2}}},
		{path: c + "?format=car&dag-scope=all&entity-bytes=-5:*", status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeEntity, Bytes: &grid.ByteRange{From: -5, To: grid.ToEnd}}},
		{path: c + "/d%2f..%2f..%2fe?format=car", status: 200, body: "a car", want: grid.Selection{Path: "d/../../e", Scope: grid.ScopeAll}}, // the archive finds no such entry
		{path: c + "?format=car&car-dups=n", headers: []string{"Accept", car + ";dups=y"}, status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll}},
		{path: c, headers: []string{"Accept", car + ";order=bfs, " + car + ";dups=n;q=0.5"}, status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll}},
		{path: c, headers: []string{"Accept", car + ";order=dfs;dups=y"}, status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll, Repeats: true}},
		{path: c + "?format=car", headers: []string{"Accept", raw + ", " + car + ";dups=y;q=0.1"}, status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll, Repeats: true}},
		{path: c + "?format=car&car-dups=y", status: 200, body: "a car", want: grid.Selection{Scope: grid.ScopeAll, Repeats: true}},
		{path: c + "?format=car&dag-scope=some", status: 400, body: "dag-scope"},
		{path: c + "?format=car&entity-bytes=5", status: 400, body: "entity-bytes"},
		{path: c + "?format=car&entity-bytes=5:4", status: 400, body: "entity-bytes"},
		{path: c + "?format=car&entity-bytes=-4:-5", status: 400, body: "entity-bytes"},
		{path: c + "?format=car&entity-bytes=a:b", status: 400, body: "entity-bytes"},
		{path: c + "?format=car&entity-bytes=*:5", status: 400, body: "entity-bytes"},
		{path: c + "?format=car&entity-bytes=99999999999999999999:*", status: 400, body: "entity-bytes"},
		{path: c + "?format=car&car-version=2", status: 406, body: "version=2"},
		{path: c + "?format=car&car-order=bfs", status: 406, body: "order=bfs"},
		{path: c, headers: []string{"Accept", car + ";dups=maybe"}, status: 406, body: "dups=maybe"},
		{path: c + "?format=car", headers: []string{"Accept", car + ";version=2"}, status: 406, body: "version=2"},
	} {
		files.asked = nil
		resp, body, err := do("GET", "/ipfs/"+tt.path, tt.headers...)
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		if resp.StatusCode != tt.status || tt.status < 300 && body != tt.body || !strings.Contains(body, tt.body) {
			t.Errorf("%s %q: %d %q, want %d %q", tt.path, tt.headers, resp.StatusCode, body, tt.status, tt.body)
		}
		if tt.want.Scope != "" {
			tt.want.Root = b.CID()
			if len(files.asked) != 1 || !reflect.DeepEqual(files.asked[0], tt.want) {
				t.Errorf("%s: asked for %+v, want %+v", tt.path, files.asked, tt.want)
			}
		}
		h := resp.Header
		if h.Get("X-Content-Type-Options") != "nosniff" && tt.status < 300 {
			t.Errorf("%s: it may be sniffed", tt.path)
		}
		if good := tt.status < 400; good != (h.Get("Etag") != "") || good != strings.Contains(h.Get("Cache-Control"), "immutable") {
			if tt.status != 416 {
				t.Errorf("%s: %d with Etag %q, Cache-Control %q", tt.path, tt.status, h.Get("Etag"), h.Get("Cache-Control"))
			}
		}
		if tt.status < 300 && !strings.HasPrefix(h.Get("Content-Disposition"), `attachment; filename="b`) {
			t.Errorf("%s: Content-Disposition %q", tt.path, h.Get("Content-Disposition"))
		}
	}

	resp, body, err := do("GET", "/ipfs/"+c+"/d?format=car")
	if err != nil || body != "a car" || resp.Header.Get("Content-Type") != "application/vnd.ipld.car; version=1; order=dfs; dups=n" ||
		resp.Header.Get("Content-Disposition") != `attachment; filename="`+c+`.car"` || resp.Header.Get("Content-Location") != "" {
		t.Errorf("car: %v, %v", resp.Header, err)
	}
	tag := resp.Header.Get("Etag")
	if resp, _, err := do("HEAD", "/ipfs/"+c+"/d?format=car&car-dups=y"); err != nil || !strings.HasSuffix(resp.Header.Get("Content-Type"), "dups=y") {
		t.Errorf("with duplicates: %v, %v", resp, err)
	}
	for _, other := range []string{"/d?format=car&dag-scope=block", "/d?format=car&car-dups=y", "/d?format=car&entity-bytes=0:1", "/d?format=car&entity-bytes=0:2", "/e?format=car", "?format=car"} {
		if resp, _, err := do("GET", "/ipfs/"+c+other); err != nil || resp.Header.Get("Etag") == tag {
			t.Errorf("%s has the same Etag: %v", other, err)
		}
	}
	if resp, _, err := do("GET", "/ipfs/"+c+"/d?format=car", "If-None-Match", `"other", `+tag); err != nil || resp.StatusCode != 304 {
		t.Errorf("with its Etag: %v, %v", resp, err)
	}
	resp, _, err = do("GET", "/ipfs/"+c+"/d?dag-scope=block&filename=a%22b%0d%0aX:y", "Accept", car)
	if err != nil || resp.Header.Get("Content-Location") != "/ipfs/"+c+"/d?dag-scope=block&filename=a%22b%0D%0AX%3Ay&format=car" ||
		resp.Header.Get("X") != "" || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment; filename*=utf-8''a%22b%0D%0A") {
		t.Errorf("a file name: %v, %v", resp.Header, err)
	}
	for path, want := range map[string]int{"?format=raw": 200, "?format=car": 200, "": 400, "?format=car&dag-scope=x": 400} {
		resp, body, err := do("HEAD", "/ipfs/"+c+path)
		if err != nil || resp.StatusCode != want || body != "" {
			t.Errorf("HEAD %s: %v, %v", path, resp, err)
		}
	}
	if got := files.asked[0]; got.Scope != grid.ScopeBlock {
		t.Errorf("HEAD reads %+v", got)
	}
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/ipfs/" + c, 405}, {"PUT", "/ipfs/" + c + "/x", 405}, {"DELETE", "/", 405}, {"GET", "/", 404}, {"GET", "/ipfs/", 404},
		{"GET", "/v1/node", 404}, {"POST", "/v1/shutdown", 405}, {"GET", "/ipfs/" + c + "/../../v1/node", 307},
		{"GET", "/ipfs/%2e%2e/v1/node?format=raw", 400}, {"GET", "/ipns/example.org", 404},
	} {
		if resp, _, err := do(tt.method, tt.path); err != nil || resp.StatusCode != tt.want {
			t.Errorf("%s %s: %v, %v; want %d", tt.method, tt.path, resp, err, tt.want)
		}
	}
}

// An error in the middle of an answer must not make it look whole.
func TestGatewayBreaksOff(t *testing.T) {
	files := &scripted{}
	do := gateway(t, &api.Gateway{Blocks: fake.NewBlocks(), Archive: files})
	path := "/ipfs/" + grid.NewBlock(cid.Raw, nil).CID().String() + "?format=car"
	lost := grid.Errorf(grid.NotFound, "a block is lost")
	files.export = func(_ context.Context, w io.Writer) error {
		_, _ = w.Write(make([]byte, 100_000))
		return lost
	}
	resp, body, err := do("GET", path)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v with %d bytes, %v; want it broken off", resp, len(body), err)
	}
	files.export = func(context.Context, io.Writer) error { return lost }
	resp, body, err = do("GET", path)
	if err != nil || resp.StatusCode != 404 || !strings.Contains(body, "a block is lost") || resp.Header.Get("Content-Disposition") != "" {
		t.Errorf("before the first byte: %v %s, %v", resp, body, err)
	}
}

// A gateway for strangers answers so many at once, and no more.
func TestGatewayLimit(t *testing.T) {
	started, end := make(chan struct{}), make(chan struct{})
	files := &scripted{export: func(context.Context, io.Writer) error {
		started <- struct{}{}
		<-end
		return nil
	}}
	do := gateway(t, &api.Gateway{Blocks: fake.NewBlocks(), Archive: files, Limit: 1})
	path := "/ipfs/" + grid.NewBlock(cid.Raw, nil).CID().String() + "?format=car"
	first := make(chan int)
	go func() {
		resp, _, err := do("GET", path)
		if err != nil {
			first <- -1
			return
		}
		first <- resp.StatusCode
	}()
	<-started
	if resp, _, err := do("GET", path); err != nil || resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %v, %v", resp, err)
	}
	close(end)
	if status := <-first; status != 200 {
		t.Errorf("the first one: %d", status)
	}
}

func TestGatewayFetches(t *testing.T) {
	blocks := fake.NewBlocks()
	b := grid.NewBlock(cid.Raw, []byte("far away"))
	f := &wants{blocks: blocks, has: []grid.Block{b}}
	do := gateway(t, &api.Gateway{Blocks: blocks, Archive: &scripted{}, Fetcher: f})
	path := "/ipfs/" + b.CID().String()
	if resp, _, err := do("GET", path+"?format=raw", "Cache-Control", "only-if-cached"); err != nil || resp.StatusCode != 412 || len(f.asked) > 0 {
		t.Errorf("only if it is here: %v, %v, asked for %v", resp, err, f.asked)
	}
	if resp, body, err := do("GET", path+"?format=raw"); err != nil || resp.StatusCode != 200 || body != "far away" {
		t.Errorf("a block: %v, %v", resp, err)
	}
	for _, q := range []string{"?format=car", "?format=car&dag-scope=block", "/p?format=car&dag-scope=block"} {
		if resp, _, err := do("GET", path+q); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v, %v", q, resp, err)
		}
	}
	var shallow []bool
	for _, w := range f.asked {
		shallow = append(shallow, w.Shallow)
	}
	if want := []bool{true, false, true, false}; !reflect.DeepEqual(shallow, want) {
		t.Errorf("fetched shallowly: %v, want %v", shallow, want)
	}
}

func TestCAR(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		root, err := s.Add(ctx, strings.NewReader(string(archive(t, file("a", "hello")))), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.archive.export = func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, strings.Repeat("car", 50_000))
			return err
		}
		r, err := s.ExportCAR(ctx, root.CID.Cid, "a")
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil || len(data) != 150_000 || s.archive.asked[0].Root != grid.NewBlock(cid.Raw, []byte("hello")).CID() {
			t.Errorf("export: %d bytes, %v, asked %v", len(data), err, s.archive.asked)
		}
		s.archive.export = func(_ context.Context, w io.Writer) error {
			_, _ = w.Write(make([]byte, 100_000))
			return grid.Errorf(grid.Corrupt, "a rotten block")
		}
		r, err = s.ExportCAR(ctx, root.CID.Cid, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		r.Close()
		wantCode(t, err, grid.Corrupt, "rotten")

		s.archive.in = grid.Imported{Roots: []grid.ImportedRoot{{CID: root.CID, Whole: true}}, Blocks: 3, Bytes: 99}
		in, err := s.ImportCAR(ctx, strings.NewReader("some car"), true)
		if err != nil || !reflect.DeepEqual(in, s.archive.in) || s.archive.got != "some car" || !s.archive.partial {
			t.Errorf("import: %+v, %v; got %q", in, err, s.archive.got)
		}
		s.archive.err = grid.Errorf(grid.Invalid, "at byte 7: no").Hint("try another")
		_, err = s.ImportCAR(ctx, strings.NewReader(strings.Repeat("x", 5<<20)), false)
		wantCode(t, err, grid.Invalid, "at byte 7")
		if grid.AdviceOf(err) != "try another" || s.archive.partial {
			t.Errorf("advice %q, partial %v", grid.AdviceOf(err), s.archive.partial)
		}
	})
}

func TestSurveyAndDiff(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		root, err := s.Add(ctx, strings.NewReader(string(archive(t, file("a", "hello"), file("b", "other")))), nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := s.Survey(ctx, root.CID.Cid, "a")
		if err != nil || x.Blocks != 7 || x.CID.Cid != grid.NewBlock(cid.Raw, []byte("hello")).CID() {
			t.Errorf("%+v, %v", x, err)
		}
		_, err = s.Survey(ctx, root.CID.Cid, "none")
		wantCode(t, err, grid.NotFound, "none")
		var got []string
		if err := s.Diff(ctx, root.CID.Cid, "a", root.CID.Cid, "b", func(c grid.Change) error {
			got = append(got, c.String()+" "+c.Path+" "+c.Was.String()[:4]+" "+c.Is.String()[:4])
			return nil
		}); err != nil || strings.Join(got, ",") != "changed x bafk bafk" {
			t.Errorf("%q, %v", got, err)
		}
		err = s.Diff(ctx, root.CID.Cid, "", root.CID.Cid, "none", func(grid.Change) error { return nil })
		wantCode(t, err, grid.NotFound, "none")
	})
}

// surveyor makes things up.
type surveyor struct{}

func (surveyor) Survey(_ context.Context, c cid.Cid) (grid.Extent, error) {
	return grid.Extent{CID: grid.Link{Cid: c}, Blocks: 7}, nil
}

func (surveyor) Diff(_ context.Context, was, is cid.Cid, each func(grid.Change) error) error {
	return each(grid.Change{Path: "x", Was: grid.Link{Cid: was}, Is: grid.Link{Cid: is}})
}

func TestCatRange(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		root, err := s.Add(ctx, strings.NewReader(string(archive(t, file("f", "0123456789"), file("none", "")))), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			off, n int64
			want   string
		}{{0, 3, "012"}, {4, 2, "45"}, {9, 100, "9"}, {3, -1, "3456789"}, {0, -1, "0123456789"}, {1, 1<<63 - 1, "123456789"}} {
			r, err := s.CatRange(ctx, root.CID.Cid, "f", tt.off, tt.n)
			if err != nil {
				t.Error(err)
				continue
			}
			data, err := io.ReadAll(r)
			r.Close()
			if err != nil || string(data) != tt.want {
				t.Errorf("%d+%d: %q, %v", tt.off, tt.n, data, err)
			}
		}
		_, err = s.CatRange(ctx, root.CID.Cid, "f", 11, 1)
		wantCode(t, err, grid.Invalid, "bytes */10")
		_, err = s.CatRange(ctx, root.CID.Cid, "f", -1, 1)
		wantCode(t, err, grid.Invalid)
	})
}

// The API has the gateway beside it.
func TestGatewayBesideAPI(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		if s.socket == "" {
			return
		}
		ctx := within(t)
		root, err := s.Add(ctx, strings.NewReader(string(archive(t, file("a", "hello")))), nil)
		if err != nil {
			t.Fatal(err)
		}
		hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		}}}
		hello := grid.NewBlock(cid.Raw, []byte("hello")).CID()
		for path, want := range map[string]string{
			"/ipfs/" + hello.String() + "?format=raw":             "hello",
			"/ipfs/" + root.CID.String() + "/a?format=car":        "a car",
			"/ipfs/" + hello.String() + "?format=car&dag-scope=x": "dag-scope",
		} {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://grid"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !strings.Contains(string(data), want) {
				t.Errorf("%s: %s %q, %v", path, resp.Status, data, err)
			}
		}
	})
}
