package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// site is a node with its server, reached over one of the transports.
type site struct {
	*api.Client
	w       *fake.World
	node    *grid.Node
	archive *scripted
	socket  string // "" when local
	down    chan struct{}
}

// both runs a test over a function call, over a unix socket, and over TLS with an admin's token.
func both(t *testing.T, f func(t *testing.T, s *site)) {
	t.Helper()
	for _, transport := range []string{"local", "socket", "network"} {
		t.Run(transport, func(t *testing.T) {
			s := &site{w: fake.NewWorld(new(fake.Hub), "a"), archive: &scripted{}, down: make(chan struct{}, 1)}
			var err error
			if s.node, err = grid.OpenNode(context.Background(), s.w.Config()); err != nil {
				t.Fatal(err)
			}
			server := &api.Server{
				Node:     s.node,
				Archive:  s.archive,
				Surveyor: surveyor{},
				Describe: func(context.Context) (grid.NodeStatus, error) {
					return grid.NodeStatus{ID: s.w.ID.String(), Version: grid.Version}, nil
				},
				Shutdown: func() { s.down <- struct{}{} },
				Logger:   slog.New(slog.DiscardHandler),
			}
			switch h := server.Handler(); transport {
			case "local":
				s.Client = api.Local(h)
			case "network":
				key := overNetwork(t, s.node, server).token(grid.TokenAdmin, "ann")
				s.Client = api.DialRemote(key, key.At[0])
			default:
				dir, err := os.MkdirTemp("", "grid") // t.TempDir may be too long for a socket
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				s.socket = filepath.Join(dir, "s")
				l, err := net.Listen("unix", s.socket)
				if err != nil {
					t.Fatal(err)
				}
				srv := &http.Server{Handler: h}
				served := make(chan struct{})
				go func() { defer close(served); _ = srv.Serve(l) }()
				t.Cleanup(func() { srv.Close(); <-served })
				s.Client = api.Dial(s.socket)
			}
			t.Cleanup(func() { s.Close(); s.node.Close() })
			f(t, s)
		})
	}
}

func wantCode(t testing.TB, err error, want grid.Code, words ...string) {
	t.Helper()
	if grid.CodeOf(err) != want || err == nil {
		t.Errorf("error %v has code %v, want %v", err, grid.CodeOf(err), want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not mention %q", err, w)
		}
	}
}

func archive(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range headers {
		body := h.Uname // where the tests keep it
		h.Uname, h.Size = "", int64(len(body))
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uname: body}
}

func sample(t testing.TB) []byte {
	return archive(t,
		file("a.txt", "hello"),
		&tar.Header{Name: "d/", Typeflag: tar.TypeDir},
		file("d/ünï cödé 100% #?.txt", strings.Repeat("x", 100_000)),
		file("d/empty", ""),
		&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "d/empty"},
		&tar.Header{Name: "nothing/", Typeflag: tar.TypeDir},
	)
}

func TestAddAndRead(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		var names []string
		root, err := s.Add(ctx, bytes.NewReader(sample(t)), func(e grid.FileInfo) { names = append(names, e.Name) })
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names, ","); got != "a.txt,d,d/ünï cödé 100% #?.txt,d/empty,link,nothing" {
			t.Errorf("told of %s", got)
		}
		if root.Kind != grid.KindDir || root.Size != 100_005 {
			t.Errorf("root %+v", root)
		}
		list, err := s.List(ctx, root.CID.Cid, "")
		if err != nil || len(list) != 4 || list[2].Name != "link" || list[2].Kind != grid.KindSymlink || list[2].Target != "d/empty" {
			t.Errorf("list %+v, %v", list, err)
		}
		info, err := s.Stat(ctx, root.CID.Cid, "d/ünï cödé 100% #?.txt")
		if err != nil || info.Size != 100_000 || info.Kind != grid.KindFile {
			t.Errorf("stat %+v, %v", info, err)
		}
		r, err := s.Cat(ctx, root.CID.Cid, "d/ünï cödé 100% #?.txt")
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil || len(data) != 100_000 {
			t.Errorf("cat %d bytes, %v", len(data), err)
		}
		r, err = s.Tar(ctx, root.CID.Cid, "")
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Add(ctx, r, nil) // what comes out goes in again, to the same root
		r.Close()
		if err != nil || again.CID != root.CID {
			t.Errorf("there and back: %v, %v, want %v", again.CID, err, root.CID)
		}
		if empty, err := s.Add(ctx, bytes.NewReader(archive(t)), nil); err != nil || empty.Kind != grid.KindDir {
			t.Errorf("an empty archive: %+v, %v", empty, err)
		}
		_, err = s.Stat(ctx, root.CID.Cid, "d/none")
		wantCode(t, err, grid.NotFound, "none")
		_, err = s.Cat(ctx, root.CID.Cid, "d")
		wantCode(t, err, grid.Invalid, "not a file")
		if grid.AdviceOf(err) == "" {
			t.Error("the advice was lost")
		}
	})
}

func TestAddRefuses(t *testing.T) {
	good := sample(t)
	damaged := bytes.Clone(good)
	damaged[1024+150] ^= 0xff // in the second header's checksum
	tests := []struct {
		name string
		data []byte
		code grid.Code
		word string
	}{
		{"garbage", bytes.Repeat([]byte("x"), 4096), grid.Invalid, "archive"},
		{"cut in a header", good[:1200], grid.Invalid, "archive"},
		{"cut in a file", good[:20_000], grid.Invalid, "100% #?.txt"},
		{"damaged", damaged, grid.Invalid, "archive"},
		{"above the root", archive(t, file("../x", "")), grid.Invalid, "../x"},
		{"absolute", archive(t, file("/x", "")), grid.Invalid, "/x"},
		{"twice", archive(t, file("x", "1"), file("x", "2")), grid.Invalid, "x"},
		{"a device", archive(t, &tar.Header{Name: "dev", Typeflag: tar.TypeChar}), grid.Unsupported, "dev"},
		{"a hard link", archive(t, &tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "x"}), grid.Unsupported, "add l"},
		{"a huge header", hugeHeader(), grid.Invalid, "archive"},
	}
	both(t, func(t *testing.T, s *site) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := s.Add(within(t), bytes.NewReader(tt.data), nil)
				if err == nil {
					t.Fatal("accepted")
				}
				wantCode(t, err, tt.code, tt.word)
			})
		}
		_, err := s.Add(within(t), iotest.ErrReader(grid.Errorf(grid.Denied, "cannot read it")), nil)
		if err == nil {
			t.Error("a source that fails gave no error")
		}
		if _, err := s.Add(within(t), bytes.NewReader(good), nil); err != nil {
			t.Errorf("the node is no longer well: %v", err)
		}
	})
}

// hugeHeader claims gigabytes of extended header.
func hugeHeader() []byte {
	b := make([]byte, 1024)
	copy(b, "pax")
	copy(b[124:], "77777777777\x00")
	b[156] = 'x'
	copy(b[257:], "ustar\x0000")
	sum := 8 * 32
	for i, c := range b[:512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func job(s *site, tasks uint32) grid.Request {
	return grid.Request{Spec: grid.Spec{Name: "test", Stages: []grid.Stage{{Module: s.w.Module, Tasks: tasks}}}}
}

func TestRemoveJob(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		wait := make(chan struct{})
		s.w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
			select {
			case <-wait:
			case <-ctx.Done():
			}
			return grid.Outcome{}, ctx.Err()
		}
		id, err := s.Submit(ctx, job(s, 1))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.RemoveJob(ctx, id)
		wantCode(t, err, grid.Conflict, "has not ended")
		close(wait)
		if _, err := s.Watch(ctx, id, func(grid.JobStatus) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if whole, err := s.RemoveJob(ctx, id[:8]); err != nil || whole != id {
			t.Errorf("removed %s, %v", whole, err)
		}
		_, err = s.RemoveJob(ctx, id)
		wantCode(t, err, grid.NotFound, string(id))
		wantCode(t, s.Tasks(ctx, id, false, nil), grid.NotFound)
	})
}

func TestJobs(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		s.w.Engine.Guest = fake.Text("out")
		ctx := within(t)
		if list, err := s.Jobs(ctx); err != nil || list == nil || len(list) != 0 {
			t.Errorf("no jobs: %v, %v", list, err)
		}
		id, err := s.Submit(ctx, job(s, 20))
		if err != nil {
			t.Fatal(err)
		}
		pictures := 0
		st, err := s.Watch(ctx, id, func(grid.JobStatus) error { pictures++; return nil })
		if err != nil || st.State != grid.Done || st.Stages[0].Done != 20 || pictures == 0 {
			t.Errorf("watched %+v, %v", st, err)
		}
		for _, follow := range []bool{false, true} {
			n := 0
			err := s.Tasks(ctx, id, follow, func(e grid.TaskEnd) error {
				if n++; string(e.Stdout.Data) != "out" {
					t.Errorf("task %+v", e)
				}
				return nil
			})
			if err != nil || n != 20 {
				t.Errorf("%d tasks, %v", n, err)
			}
		}
		mine := errors.New("mine")
		if err := s.Tasks(ctx, id, true, func(grid.TaskEnd) error { return mine }); err != mine {
			t.Errorf("an error of the callback became %v", err)
		}
		var happened []string
		if err := s.RealmEvents(ctx, grid.EventQuery{Job: id[:8], Follow: true}, func(e grid.RealmEvent) error { happened = append(happened, e.Kind); return nil }); err != nil ||
			len(happened) < 2 || happened[len(happened)-1] != string(grid.EventEnded) {
			t.Errorf("events %v, %v", happened, err)
		}
		if why, err := s.Why(ctx, id[:8]); err != nil || why.Job.ID != id || why.Reason == "" || len(why.Stages) != 1 {
			t.Errorf("explained by %+v, %v", why, err)
		}
		wantCode(t, s.RealmEvents(ctx, grid.EventQuery{Job: "jjjjjj"}, nil), grid.NotFound, "jjjjjj")
		_, err = s.Why(ctx, "jjjjjj")
		wantCode(t, err, grid.NotFound, "jjjjjj")
		if st, err := s.Job(ctx, id); err != nil || st.ID != id {
			t.Errorf("job %+v, %v", st, err)
		}
		wantCode(t, s.Cancel(ctx, id), grid.Conflict, "not running")
		err = s.Tasks(ctx, "jjjjjj", true, nil)
		wantCode(t, err, grid.NotFound, "jjjjjj")
		_, err = s.Watch(ctx, "x", nil)
		wantCode(t, err, grid.Invalid)

		st2, err := s.Node(ctx)
		if err != nil || st2.ID != s.w.ID.String() {
			t.Errorf("node %+v, %v", st2, err)
		}
		if peers, err := s.Peers(ctx); err != nil || peers == nil {
			t.Errorf("peers %v, %v", peers, err)
		}
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-s.down
	})
}

func TestSubmitErrors(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		_, err := s.Submit(within(t), job(s, grid.MaxTasks+1))
		wantCode(t, err, grid.Limit, "tasks")
		if grid.AdviceOf(err) != "give each task several inputs, with --group" {
			t.Errorf("advice %q", grid.AdviceOf(err))
		}
		s.w.Engine.Refuse = grid.Errorf(grid.Unsupported, "no component model").Hint("build a core module")
		_, err = s.Submit(within(t), job(s, 1))
		wantCode(t, err, grid.Unsupported, "no component model")
		if grid.AdviceOf(err) != "build a core module" {
			t.Errorf("advice %q", grid.AdviceOf(err))
		}
	})
}

// held makes tasks wait for the test's end.
func held(s *site) {
	s.w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		<-ctx.Done()
		return grid.Outcome{}, ctx.Err()
	}
}

// What a client leaves behind when it goes away is looked for by TestMain, and here by Close, which waits.
func TestClientGoesAway(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		held(s)
		id, err := s.Submit(within(t), job(s, 1))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(within(t))
		_, err = s.Watch(ctx, id, func(grid.JobStatus) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled watch: %v", err)
		}
		if err := s.Tasks(ctx, id, true, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled follow: %v", err)
		}
		ctx, cancel = context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() { done <- s.Tasks(ctx, id, true, func(grid.TaskEnd) error { return nil }) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled follow: %v", err)
		}
		mine := errors.New("mine")
		if _, err := s.Watch(within(t), id, func(grid.JobStatus) error { return mine }); err != mine {
			t.Errorf("left watch: %v", err)
		}
		// An upload whose source hangs.
		pr, pw := io.Pipe()
		defer pw.Close()
		ctx, cancel = context.WithCancel(within(t))
		go func() { done <- func() error { _, err := s.Add(ctx, pr, nil); return err }() }()
		_, _ = pw.Write(sample(t)[:600])
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled upload: %v", err)
		}
		if err := s.Client.Cancel(within(t), id); err != nil {
			t.Error(err)
		}
	})
}

func TestNodeClosesUnderStreams(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		held(s)
		id, err := s.Submit(within(t), job(s, 1))
		if err != nil {
			t.Fatal(err)
		}
		seen := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := s.Watch(within(t), id, func(grid.JobStatus) error { close(seen); return nil })
			done <- err
		}()
		<-seen
		s.node.Close()
		wantCode(t, <-done, grid.Unavailable, "closing")
	})
}

// A file whose block is lost is noticed after the answer has begun.
func TestErrorAfterStreamBegan(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		root, err := s.Add(ctx, bytes.NewReader(archive(t, file("a", strings.Repeat("a", 1_000_000)), file("b", "lost"))), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Tar(ctx, root.CID.Cid, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
		broken := s.w.Files
		list, err := broken.List(ctx, root.CID.Cid)
		if err != nil {
			t.Fatal(err)
		}
		// The root's entry claims more bytes than its file has, as a made-up DAG may.
		list[1].Size = 1 << 20
		list[0].Name, list[1].Name = "a", "b"
		c, _, err := broken.AddTree(ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		if r, err = s.Tar(ctx, c, ""); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		r.Close()
		if err == nil || n < 10_000 {
			t.Errorf("a broken archive of %d bytes came as if whole", n)
		}
	})
}

// A client that stops reading must not keep the node from serving others, nor from closing.
func TestSlowReader(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		root, err := s.Add(ctx, bytes.NewReader(archive(t, file("big", strings.Repeat("x", 8<<20)))), nil)
		if err != nil {
			t.Fatal(err)
		}
		var stuck []io.Closer
		for range 5 {
			r, err := s.Cat(ctx, root.CID.Cid, "big")
			if err != nil {
				t.Fatal(err)
			}
			stuck = append(stuck, r)
		}
		if _, err := s.Jobs(ctx); err != nil {
			t.Errorf("beside slow readers: %v", err)
		}
		s.node.Close()
		for _, r := range stuck {
			r.Close()
		}
	})
}

func TestRange(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		if s.socket == "" {
			return // the client has no ranges; they are for others, over the socket
		}
		root, err := s.Add(within(t), bytes.NewReader(archive(t, file("f", "0123456789"))), nil)
		if err != nil {
			t.Fatal(err)
		}
		hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		}}}
		for path, want := range map[string]struct {
			status int
			body   string
		}{
			"/v1/cat/" + root.CID.String() + "/f":    {http.StatusPartialContent, "345"},
			"/v1/cat/nonsense/f":                     {http.StatusBadRequest, `"code":"invalid"`},
			"/v1/nowhere":                            {http.StatusNotFound, `"hint":"the API lives under /v1;`},
			"/v1/cat/" + root.CID.String() + "/../f": {http.StatusMovedPermanently, ""},
		} {
			req, _ := http.NewRequestWithContext(within(t), http.MethodGet, "http://grid"+path, nil)
			req.Header.Set("Range", "bytes=3-5")
			resp, err := hc.Transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode/100 == 3 && want.status/100 == 3 {
				continue
			}
			if resp.StatusCode != want.status || !strings.Contains(string(body), want.body) {
				t.Errorf("%s: %s %q", path, resp.Status, body)
			}
			if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %v", path, resp.Header)
			}
		}
	})
}

func TestNobodyListens(t *testing.T) {
	c := api.Dial(filepath.Join(t.TempDir(), "none"))
	defer c.Close()
	_, err := c.Node(within(t))
	wantCode(t, err, grid.Unavailable, "cannot reach")
	if !strings.Contains(grid.AdviceOf(err), "grid up") {
		t.Errorf("advice %q", grid.AdviceOf(err))
	}
}

func script(name, body string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Uname: body}
}

// TestAddOrder: answers come in the order of the archive, whatever is stored at once, and executables stay so.
func TestAddOrder(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		var headers []*tar.Header
		var want []string
		for i := range 5000 {
			name := fmt.Sprintf("d/%d", (i*7919)%5000)
			body := strings.Repeat(name, i%200)
			switch {
			case i%1000 == 999:
				body = strings.Repeat("large ", 400_000)
			case i%500 == 0:
				body = strings.Repeat("x", 1<<20)
			}
			h := file(name, body)
			if i%7 == 0 {
				h = script(name, body)
			}
			if i%100 == 1 {
				headers = append(headers, &tar.Header{Name: name + "-dir/", Typeflag: tar.TypeDir})
				want = append(want, name+"-dir dir 0 false")
			}
			want = append(want, fmt.Sprint(name, " file ", len(body), " ", i%7 == 0))
			headers = append(headers, h)
		}
		var got []string
		cids := map[string]grid.Link{}
		root, err := s.Add(within(t), bytes.NewReader(archive(t, headers...)), func(e grid.FileInfo) {
			got = append(got, fmt.Sprint(e.Name, " ", e.Kind, " ", e.Size, " ", e.Exec))
			cids[e.Name] = e.CID
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("told of %d entries, want %d in their order", len(got), len(want))
		}
		for _, name := range []string{"d/0", "d/7919", "d/1"} {
			info, err := s.Stat(within(t), root.CID.Cid, name)
			if err == nil && info.CID != cids[name] {
				t.Errorf("%s is %s, want %s", name, info.CID, cids[name])
			}
		}
	})
}

// TestAddRemoved: who adds data, and pins and unpins it, leaves nothing behind that must stay.
func TestAddRemoved(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		var alone grid.Link
		folder, err := s.Add(within(t), bytes.NewReader(archive(t, file("a", "aaa"))), func(e grid.FileInfo) {
			if e.Kind == grid.KindFile {
				alone = e.CID
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		roots := func() (all []cid.Cid) {
			if err := s.node.Roots(within(t), func(c cid.Cid) { all = append(all, c) }); err != nil {
				t.Fatal(err)
			}
			return all
		}
		if all := roots(); !slices.Contains(all, folder.CID.Cid) || !slices.Contains(all, alone.Cid) {
			t.Errorf("roots %v, want the folder %s and its only file %s, until somebody pins one", all, folder.CID, alone)
		}
		if _, err := s.node.Pin(within(t), grid.Pin{Root: alone, Replicas: 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpin(within(t), alone.Cid); err != nil {
			t.Fatal(err)
		}
		if all := roots(); len(all) > 0 {
			t.Errorf("roots %v when it was removed", all)
		}
	})
}

// TestAddNamed: entries that name their file take it from the node, and only if all of it is there.
func TestAddNamed(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		named := func(name string, c grid.Link, size string) *tar.Header {
			h := file(name, "")
			h.PAXRecords = map[string]string{api.RecordCID: c.String(), api.RecordSize: size}
			return h
		}
		var links []grid.Link
		first, err := s.Add(within(t), bytes.NewReader(archive(t, file("a", "aaa"), script("d/b", "bb"))), func(e grid.FileInfo) { links = append(links, e.CID) })
		if err != nil {
			t.Fatal(err)
		}
		gone := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("gone")).CID()}
		if missing, err := s.Missing(within(t), []grid.Link{links[0], gone, first.CID, links[1]}); err != nil || !slices.Equal(missing, []grid.Link{gone}) {
			t.Errorf("Missing = %v, %v", missing, err)
		}
		if missing, err := s.Missing(within(t), nil); err != nil || len(missing) > 0 {
			t.Errorf("Missing of nothing = %v, %v", missing, err)
		}
		again, err := s.Add(within(t), bytes.NewReader(archive(t, named("a", links[0], "3"), named("d/b", links[1], "0"))), nil)
		if err != nil || again != first {
			t.Errorf("by name: %+v, %v; want %+v", again, err, first)
		}
		folder := func(name string, c grid.Link, size string) *tar.Header {
			h := named(name, c, size)
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			return h
		}
		again, err = s.Add(within(t), bytes.NewReader(archive(t, folder("./", first.CID, "5"))), nil)
		if err != nil || again != first {
			t.Errorf("a folder by name: %+v, %v; want %+v", again, err, first)
		}
		above, err := s.Add(within(t), bytes.NewReader(archive(t, folder("x/", first.CID, "5"), file("y", "y"))), nil)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := s.Stat(within(t), above.CID.Cid, "x"); err != nil || info.CID != first.CID {
			t.Errorf("a folder in another: %+v, %v; want %s", info, err, first.CID)
		}
		for _, tt := range []struct {
			h    *tar.Header
			want grid.Code
		}{
			{folder("x/", gone, "4"), grid.NotFound},
			{folder("x/", links[0], "4"), grid.Invalid},
			{folder("x/", grid.Link{Cid: grid.NewBlock(cid.DagProtobuf, []byte("gone")).CID()}, "4"), grid.NotFound},
			{named("x", gone, "4"), grid.NotFound},
			{named("x", first.CID, "4"), grid.Invalid},
			{named("x", links[0], "-1"), grid.Invalid},
			{named("x", links[0], ""), grid.Invalid},
			{&tar.Header{Name: "x", Typeflag: tar.TypeReg, Uname: "body", PAXRecords: map[string]string{api.RecordCID: links[0].String()}}, grid.Invalid},
			{&tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{api.RecordCID: "no CID"}}, grid.Invalid},
		} {
			told := 0
			_, err := s.Add(within(t), bytes.NewReader(archive(t, file("a", "aaa"), tt.h, file("z", "z"))), func(grid.FileInfo) { told++ })
			wantCode(t, err, tt.want, "x")
			if told > 2 {
				t.Errorf("%v: told of %d entries", tt.h.PAXRecords, told)
			}
		}
	})
}

// TestAddError: the error names the entry that it is of, and is the first one's.
func TestAddError(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		var headers []*tar.Header
		for i := range 3000 {
			headers = append(headers, file(fmt.Sprint("f", i), "x"))
		}
		headers[2100].Typeflag, headers[2100].Uname = tar.TypeFifo, ""
		headers[2900].Typeflag, headers[2900].Uname = tar.TypeChar, ""
		told := 0
		_, err := s.Add(within(t), bytes.NewReader(archive(t, headers...)), func(grid.FileInfo) { told++ })
		wantCode(t, err, grid.Unsupported, "f2100")
		if told != 2099 { // the client holds the last one back, which might be the root
			t.Errorf("told of %d entries", told)
		}
		s.w.Files.Blocks.Fail(grid.NewBlock(cid.Raw, []byte("bad")).CID(), grid.Errorf(grid.NoSpace, "the disk is full"))
		headers[2100], headers[2900] = file("f2100", "x"), file("f2900", "x")
		headers[1500], headers[1600] = file("f1500", "bad"), file("f1600", "bad")
		told = 0
		_, err = s.Add(within(t), bytes.NewReader(archive(t, headers...)), func(grid.FileInfo) { told++ })
		wantCode(t, err, grid.NoSpace, "add f1500: the disk is full")
		if told != 1499 {
			t.Errorf("told of %d entries", told)
		}
	})
}

// FuzzAdd: whatever an archive says, the node answers with a folder or an error, and what it stores it has.
func FuzzAdd(f *testing.F) {
	c := grid.NewBlock(cid.Raw, []byte("here")).CID().String()
	f.Add("a", "b/c", int64(0o755), "data", c, "4")
	f.Add("a/", "a", int64(0), "", "nonsense", "-1")
	f.Add("../a", "a\x00", int64(-1), "x", "", "99999999999999999999")
	w := fake.NewWorld(new(fake.Hub), "a")
	n, err := grid.OpenNode(context.Background(), w.Config())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	if _, _, err := w.Files.Add(context.Background(), strings.NewReader("here")); err != nil {
		f.Fatal(err)
	}
	client := api.Local((&api.Server{Node: n, Logger: slog.New(slog.DiscardHandler)}).Handler())
	f.Fuzz(func(t *testing.T, a, b string, mode int64, data, named, size string) {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for _, h := range []*tar.Header{
			{Name: a, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg, Format: tar.FormatPAX},
			{Name: b, Mode: mode, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{api.RecordCID: named, api.RecordSize: size}},
		} {
			if err := tw.WriteHeader(h); err != nil {
				return
			}
			if h.Size > 0 {
				_, _ = io.WriteString(tw, data)
			}
		}
		tw.Close()
		root, err := client.Add(t.Context(), &buf, nil)
		if err != nil {
			return
		}
		if missing, err := client.Missing(t.Context(), []grid.Link{root.CID}); err != nil || len(missing) > 0 {
			t.Errorf("%q, %q, %q: accepted, but %v is missing, %v", a, b, named, missing, err)
		}
	})
}
