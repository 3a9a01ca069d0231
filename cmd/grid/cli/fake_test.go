package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// fakeNode answers the API's routes from memory. Jobs do not run: they end as the test says.
type fakeNode struct {
	t *testing.T

	mu        sync.Mutex
	blobs     map[string][]byte
	trees     map[string][]fakeEntry // by CID, sorted, folders implied
	submitted []grid.Request
	received  int  // bytes of files in archives
	whole     int  // folders that came as a CID
	forgetful bool // it says that it has what it has not
	cancelled []grid.JobID

	pins  []grid.PinStatus
	refs  map[string]grid.Link
	drain grid.DrainStatus

	now     func() time.Time    // of commands; nil: time.Now
	env     map[string]string   // of commands; nil: every variable has a value, which tells its name
	client  func() *api.Client  // of another node; nil: of this one
	damaged []grid.DamagedBlock // that verify finds

	jobs     []grid.JobStatus
	ends     []grid.TaskEnd
	running  bool             // jobs end only when cancelled
	seen     []grid.JobStatus // what a watch tells before the end
	removed  []grid.JobID
	happened []grid.JobEvent
	asked    []string // for events
	pulses   []grid.Pulse
	why      grid.Explanation
	watched  chan struct{} // closed once somebody watches a running job
	once     sync.Once
	ended    chan struct{}
}

type fakeEntry struct {
	name, link string
	data       []byte
	mode       int64
}

const testJob = grid.JobID("jabcdefghijklmnopqrstuvwxy")

func newFake(t *testing.T) *fakeNode {
	return &fakeNode{
		t: t, blobs: map[string][]byte{}, trees: map[string][]fakeEntry{}, watched: make(chan struct{}), ended: make(chan struct{}),
		jobs: []grid.JobStatus{{ID: testJob, State: grid.Done, Stages: []grid.StageStatus{{Name: "main", Tasks: 1, Done: 1}}}},
	}
}

// pin books a pin with one copy.
func (f *fakeNode) pin(p grid.Pin) grid.PinStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := grid.PinStatus{Pin: p, Health: grid.Degraded, Copies: []grid.Copy{{Node: "\x00\x01n", State: grid.CopyDurable}}}
	if p.Replicas == 1 {
		st.Health = grid.Healthy
	}
	f.pins = append(f.pins, st)
	return st
}

// blob stores a file.
func (f *fakeNode) blob(data string) grid.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blobLocked([]byte(data))
}

func (f *fakeNode) blobLocked(data []byte) grid.Link {
	c := grid.NewBlock(cid.Raw, data).CID()
	f.blobs[c.String()] = data
	return grid.Link{Cid: c}
}

// tree stores a folder; a data that begins with -> makes a symlink.
func (f *fakeNode) tree(files map[string]string) grid.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	var entries []fakeEntry
	for name, data := range files {
		en := fakeEntry{name: name, data: []byte(data), mode: 0o644}
		if l, ok := strings.CutPrefix(data, "->"); ok {
			en.link, en.data = l, nil
		}
		entries = append(entries, en)
	}
	return f.treeLocked(entries)
}

func (f *fakeNode) treeLocked(entries []fakeEntry) grid.Link {
	slices.SortFunc(entries, func(a, b fakeEntry) int { return strings.Compare(a.name, b.name) })
	c := grid.NewBlock(cid.DagProtobuf, fmt.Appendf(nil, "%+v", entries)).CID()
	f.trees[c.String()] = entries
	return grid.Link{Cid: c}
}

// look resolves a path below a CID to a folder's entries, or a file.
func (f *fakeNode) look(root, p string) (grid.FileInfo, []fakeEntry, []byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := grid.ParseLink(root)
	if err != nil {
		return grid.FileInfo{}, nil, nil, false
	}
	if data, ok := f.blobs[root]; ok && p == "" {
		return grid.FileInfo{CID: l, Kind: grid.KindFile, Size: int64(len(data))}, nil, data, true
	}
	entries, ok := f.trees[root]
	if !ok {
		return grid.FileInfo{}, nil, nil, false
	}
	if p == "" {
		return grid.FileInfo{CID: l, Kind: grid.KindDir}, entries, nil, true
	}
	var below []fakeEntry
	for _, en := range entries {
		if en.name == p {
			return grid.FileInfo{CID: f.blobLocked(en.data), Kind: grid.KindFile, Size: int64(len(en.data))}, nil, en.data, true
		}
		if rest, ok := strings.CutPrefix(en.name, p+"/"); ok {
			en.name = rest
			below = append(below, en)
		}
	}
	if len(below) == 0 {
		return grid.FileInfo{}, nil, nil, false
	}
	return grid.FileInfo{CID: f.treeLocked(below), Kind: grid.KindDir}, below, nil, true
}

func (f *fakeNode) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/node", func(w http.ResponseWriter, _ *http.Request) {
		f.json(w, grid.NodeStatus{ID: "12D3KooWfake", Home: "/home/fake"})
	})
	mux.HandleFunc("GET /v1/store", func(w http.ResponseWriter, _ *http.Request) {
		f.json(w, grid.StoreUse{Disk: 3 << 20, Live: 2 << 20, Pinned: 1 << 20, Cached: 1 << 20, Quota: 12 << 20, Blocks: 20, PinnedBlocks: 1})
	})
	mux.HandleFunc("POST /v1/store/gc", func(w http.ResponseWriter, r *http.Request) {
		f.json(w, grid.Collected{DryRun: r.URL.Query().Get("dry_run") != "", Kept: 1, KeptBytes: 1024, Deleted: 2, DeletedBytes: 2048, Reclaimed: 4096})
	})
	mux.HandleFunc("POST /v1/store/verify", func(w http.ResponseWriter, r *http.Request) {
		v := grid.Verified{Blocks: 7, Bytes: 7 << 10, Damaged: f.damaged}
		for i := range v.Damaged {
			v.Damaged[i].Repaired = r.URL.Query().Get("repair") != "" && v.Damaged[i].Error == ""
		}
		f.json(w, v)
	})
	mux.HandleFunc("GET /v1/resolve", func(w http.ResponseWriter, r *http.Request) {
		text := r.URL.Query().Get("name")
		name, p, _ := strings.Cut(strings.TrimPrefix(text, grid.RefMark), "/")
		if l, ok := f.refs[name]; ok {
			f.json(w, grid.Named{Root: l, Path: p, Ref: name})
			return
		}
		f.fail(w, http.StatusNotFound, grid.NotFound, fmt.Sprintf("%q is not a CID, and there is no ref of that name", text))
	})
	mux.HandleFunc("GET /v1/refs", func(w http.ResponseWriter, r *http.Request) {
		list := []grid.Ref{}
		for name, l := range f.refs {
			if strings.HasPrefix(name, r.URL.Query().Get("prefix")) {
				list = append(list, grid.Ref{Name: name, CID: l})
			}
		}
		f.json(w, list)
	})
	mux.HandleFunc("POST /v1/add", f.add)
	mux.HandleFunc("POST /v1/have", f.have)
	mux.HandleFunc("GET /v1/{verb}/{cid}/{path...}", func(w http.ResponseWriter, r *http.Request) {
		info, entries, data, ok := f.look(r.PathValue("cid"), r.PathValue("path"))
		if !ok {
			f.fail(w, 404, grid.NotFound, "no such thing")
			return
		}
		switch r.PathValue("verb") {
		case "stat":
			f.json(w, info)
		case "ls":
			f.json(w, f.list(r.PathValue("cid"), entries))
		case "cat":
			w.Write(data)
		case "tar":
			tw := tar.NewWriter(w)
			for _, en := range entries {
				h := &tar.Header{Name: en.name, Size: int64(len(en.data)), Mode: en.mode, Typeflag: tar.TypeReg}
				if en.link != "" {
					h.Typeflag, h.Linkname = tar.TypeSymlink, en.link
				}
				tw.WriteHeader(h)
				tw.Write(en.data)
			}
			tw.Close()
		}
	})
	mux.HandleFunc("POST /v1/pins", func(w http.ResponseWriter, r *http.Request) {
		var p grid.Pin
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			f.t.Errorf("pinned: %v", err)
		}
		p.Replicas = max(p.Replicas, 1)
		f.json(w, f.pin(p))
	})
	mux.HandleFunc("GET /v1/pins", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.json(w, f.pins)
	})
	mux.HandleFunc("GET /v1/pins/{cid}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.pins {
			if p := &f.pins[i]; p.Root.String() == r.PathValue("cid") {
				p.Copies = append(p.Copies, grid.Copy{Node: "\x00\x01n", State: grid.CopyDurable}) // one more each time
				if len(p.Copies) >= p.Replicas {
					p.Health = grid.Healthy
				}
				f.json(w, p)
				return
			}
		}
		f.fail(w, 404, grid.NotFound, "no such pin")
	})
	mux.HandleFunc("DELETE /v1/pins/{cid}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		n := len(f.pins)
		f.pins = slices.DeleteFunc(f.pins, func(p grid.PinStatus) bool { return p.Root.String() == r.PathValue("cid") })
		if len(f.pins) == n {
			f.fail(w, 404, grid.NotFound, "no such pin")
			return
		}
		f.json(w, struct{}{})
	})
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drain.Draining = true
		f.json(w, struct{}{})
	})
	mux.HandleFunc("GET /v1/drain", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drain.Left = max(f.drain.Left-1, 0)
		f.json(w, f.drain)
	})
	mux.HandleFunc("POST /v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		var req grid.Request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			f.t.Errorf("submitted: %v", err)
		}
		f.mu.Lock()
		f.submitted = append(f.submitted, req)
		f.mu.Unlock()
		f.json(w, map[string]grid.JobID{"id": f.jobs[0].ID})
	})
	mux.HandleFunc("GET /v1/jobs", func(w http.ResponseWriter, _ *http.Request) { f.json(w, f.jobs) })
	mux.HandleFunc("GET /v1/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		for _, j := range f.jobs {
			if string(j.ID) == r.PathValue("id") {
				f.json(w, j)
				return
			}
		}
		f.fail(w, 404, grid.NotFound, "no such job")
	})
	mux.HandleFunc("DELETE /v1/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := grid.JobID(r.PathValue("id"))
		for _, j := range f.jobs {
			if j.ID == id && !j.State.Final() {
				f.fail(w, 409, grid.Conflict, "it has not ended")
				return
			}
		}
		f.removed = append(f.removed, id)
		f.json(w, map[string]grid.JobID{"id": id})
	})
	mux.HandleFunc("GET /v1/jobs/{id}/watch", func(w http.ResponseWriter, r *http.Request) {
		j := f.jobs[0]
		for _, st := range f.seen {
			f.json(w, st)
		}
		if f.running {
			j.State = grid.Running
			f.json(w, j)
			f.once.Do(func() { close(f.watched) })
			select {
			case <-f.ended:
			case <-r.Context().Done():
				return
			}
			j.State = grid.Cancelled
		}
		f.json(w, j)
	})
	mux.HandleFunc("GET /v1/jobs/{id}/tasks", func(w http.ResponseWriter, r *http.Request) {
		for _, t := range f.ends {
			f.json(w, t)
		}
		if f.running && r.URL.Query().Get("follow") != "" {
			select {
			case <-f.ended:
			case <-r.Context().Done():
			}
		}
	})
	mux.HandleFunc("GET /v1/jobs/{id}/why", func(w http.ResponseWriter, _ *http.Request) { f.json(w, f.why) })
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		defer f.stream(&w, r)()
		for _, ev := range f.happened {
			f.json(w, grid.RealmEvent{At: ev.At, Room: grid.RoomJob, Kind: string(ev.Kind), Job: testJob, Name: "j", Node: ev.Node.String(),
				Stage: new(ev.Stage), Tasks: ev.Tasks, Text: ev.Text})
		}
		f.asked = append(f.asked, r.URL.RawQuery)
	})
	mux.HandleFunc("GET /v1/nodes", func(w http.ResponseWriter, _ *http.Request) { f.json(w, f.pulses) })
	mux.HandleFunc("POST /v1/jobs/{id}/cancel", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.cancelled = append(f.cancelled, grid.JobID(r.PathValue("id")))
		close(f.ended)
	})
	return mux
}

// list describes what lies directly in a folder.
func (f *fakeNode) list(root string, entries []fakeEntry) (out []grid.FileInfo) {
	seen := map[string]bool{}
	for _, en := range entries {
		name, _, _ := strings.Cut(en.name, "/")
		if seen[name] {
			continue
		}
		seen[name] = true
		info, _, _, _ := f.look(root, name)
		info.Name = name
		if en.link != "" {
			info.Kind, info.Target = grid.KindSymlink, en.link
		}
		out = append(out, info)
	}
	return out
}

func (f *fakeNode) have(w http.ResponseWriter, r *http.Request) {
	var q struct{ CIDs []grid.Link }
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		f.t.Error(err)
	}
	missing := []grid.Link{}
	f.mu.Lock()
	for _, c := range q.CIDs {
		if _, ok := f.blobs[c.String()]; !ok && !f.forgetful {
			missing = append(missing, c)
		}
	}
	f.mu.Unlock()
	f.json(w, map[string]any{"missing": missing})
}

func (f *fakeNode) add(w http.ResponseWriter, r *http.Request) {
	var entries []fakeEntry
	var infos []grid.FileInfo
	for t := tar.NewReader(r.Body); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		var data []byte
		if err == nil {
			data, err = io.ReadAll(t)
		}
		if err != nil {
			f.fail(w, 400, grid.Invalid, "bad archive: "+err.Error())
			return
		}
		if c, named := h.PAXRecords[api.RecordCID]; named && h.Name == "./" {
			f.mu.Lock()
			whole := f.trees[c] != nil
			for _, en := range f.trees[c] {
				whole = whole && (en.link != "" || f.blobs[grid.NewBlock(cid.Raw, en.data).CID().String()] != nil)
			}
			f.mu.Unlock()
			if _, _ = io.Copy(io.Discard, r.Body); !whole {
				f.fail(w, 404, grid.NotFound, "it is gone")
				return
			}
			l, _ := grid.ParseLink(c)
			f.whole++
			f.json(w, grid.FileInfo{CID: l, Kind: grid.KindDir})
			return
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		f.mu.Lock()
		f.received += len(data)
		ok := true
		if c, named := h.PAXRecords[api.RecordCID]; named {
			data, ok = f.blobs[c]
		}
		link := f.blobLocked(data)
		f.mu.Unlock()
		if !ok {
			_, _ = io.Copy(io.Discard, r.Body)
			f.fail(w, 404, grid.NotFound, "it is gone")
			return
		}
		entries = append(entries, fakeEntry{h.Name, h.Linkname, data, h.Mode})
		infos = append(infos, grid.FileInfo{Name: h.Name, CID: link, Kind: grid.KindFile, Size: int64(len(data))})
	}
	for _, info := range infos {
		f.json(w, info)
	}
	f.mu.Lock()
	root := f.treeLocked(entries)
	f.mu.Unlock()
	f.json(w, grid.FileInfo{CID: root, Kind: grid.KindDir})
}

func (f *fakeNode) json(w http.ResponseWriter, v any) { json.NewEncoder(w).Encode(v) }

// stream has JSON be events for who accepts them; end must be called behind the last one.
func (f *fakeNode) stream(w *http.ResponseWriter, r *http.Request) (end func()) {
	if r.Header.Get("Accept") != "text/event-stream" {
		return func() {}
	}
	plain := *w
	plain.Header().Set("Content-Type", "text/event-stream")
	*w = eventWriter{plain}
	return func() { io.WriteString(plain, "event: end\ndata: {}\n\n") }
}

// eventWriter makes each line that is written to it an event.
type eventWriter struct{ http.ResponseWriter }

func (w eventWriter) Write(line []byte) (int, error) {
	_, err := fmt.Fprintf(w.ResponseWriter, "data: %s\n\n", bytes.TrimSpace(line))
	return len(line), err
}

func (f *fakeNode) fail(w http.ResponseWriter, status int, code grid.Code, detail string) {
	w.WriteHeader(status)
	f.json(w, map[string]any{"title": code.Error(), "status": status, "detail": detail, "code": strings.ReplaceAll(code.Error(), " ", "-")})
}

// result is what a command gave.
type result struct {
	exit     int
	out, err string
}

// grid runs a command against the fake.
func (f *fakeNode) grid(args ...string) result { return f.gridIn(f.t.Context(), "", args...) }

func (f *fakeNode) gridIn(ctx context.Context, stdin string, args ...string) result {
	f.t.Helper()
	var out, errs bytes.Buffer
	exit := f.command(&out, &errs, stdin).main(ctx, args)
	return result{exit, out.String(), errs.String()}
}

// command is a command that asks the node.
func (f *fakeNode) command(out, errs *bytes.Buffer, stdin string) *env {
	client := api.Local(f.handler())
	if f.client != nil {
		client = f.client()
	}
	return &env{
		ui: newUI(out, errs), stdin: strings.NewReader(stdin),
		lookupEnv: func(name string) (string, bool) {
			if f.env != nil {
				v, ok := f.env[name]
				return v, ok
			}
			if name == "UNSET" || strings.HasPrefix(name, "GRID_") {
				return "", false
			}
			return "value of " + name, true
		},
		now: func() time.Time {
			if f.now != nil {
				return f.now()
			}
			return time.Now()
		},
		connect: func(_ context.Context, _ *env, n need) (*session, error) {
			return &session{Client: client}, nil
		},
		pause: pauseFor,
	}
}

// request is the last one submitted.
func (f *fakeNode) request() *grid.Request {
	f.t.Helper()
	if len(f.submitted) == 0 {
		f.t.Fatal("nothing was submitted")
	}
	return &f.submitted[len(f.submitted)-1]
}

// content is the file that a link names.
func (f *fakeNode) content(l grid.Link) string { return string(f.blobs[l.String()]) }

func (f *fakeNode) rows() (out []string) {
	for _, rows := range f.request().Rows {
		for _, row := range rows {
			var names []string
			for _, in := range row {
				names = append(names, in.Name+"="+f.content(in.CID))
			}
			out = append(out, strings.Join(names, " "))
		}
	}
	return out
}

func wantIn(t *testing.T, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, got)
		}
	}
}

func end(index uint32, stdout string) grid.TaskEnd {
	return grid.TaskEnd{Index: index, Stdout: grid.TaskOutput{Size: int64(len(stdout)), Data: []byte(stdout)}}
}
