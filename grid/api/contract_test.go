package api

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	flags "flag"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

var update = flags.Bool("update", false, "rewrite docs/openapi.json, the comments for it, and the list of routes in docs/api.md")

// TestDocument: docs/openapi.json, comments.json and the tables of docs/api.md are what the code makes, and every type and field in
// the document has a comment in the code.
func TestDocument(t *testing.T) {
	const file, guide, said = "../../docs/openapi.json", "../../docs/api.md", "comments.json"
	all, used := make(map[string]string), make(map[string]string)
	commentsIn(t, "..", all)
	commentsIn(t, ".", all)
	document := document(func(of string) string {
		if all[of] == "" && of != "struct {}" {
			t.Errorf("%s has no comment: the document shows what that says", of)
		}
		used[of] = all[of]
		return all[of]
	})
	comments, err := json.MarshalIndent(used, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	comments = append(comments, '\n')
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, list := range map[string]string{"routes": routeList(), "codes": codeList(t, want)} {
		begin, end := "<!-- "+name+" -->\n", "<!-- end -->"
		before, rest, ok := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no room for its %s", guide, name)
		}
		want = before + begin + list + end + after
	}
	if *update {
		for name, data := range map[string][]byte{file: document, guide: []byte(want), said: comments} {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	const advice = "is not what the code makes: run `go test ./grid/api -run TestDocument -update`, and read what has changed"
	for name, made := range map[string][]byte{file: document, said: comments} {
		if data, err := os.ReadFile(name); err != nil || !bytes.Equal(data, made) {
			t.Errorf("%s %s; %v", name, advice, err)
		}
	}
	if want != string(text) {
		t.Errorf("%s %s", guide, advice)
	}
}

// routeList is a table of all routes.
func routeList() string {
	var b strings.Builder
	b.WriteString("| route | role | what it does or gives | in the query |\n|---|---|---|---|\n")
	for i := range table {
		r := &table[i]
		if r.pattern == "/" {
			continue
		}
		var query []string
		if r.pages {
			query = append(query, "`limit`, `after`: a page")
		}
		for _, q := range r.query {
			query = append(query, "`"+q.name+"`: "+q.does)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.Join(r.places(), "`, `"), r.role, r.does, strings.Join(query, "; "))
	}
	return b.String()
}

// codeList is the table of codes: what is told of each one is the guide's.
func codeList(t *testing.T, guide string) string {
	var b strings.Builder
	b.WriteString("| code | status | meaning | what to do |\n|---|---|---|---|\n")
	for _, c := range wireCodes {
		told := regexp.MustCompile("(?m)^\\| `" + c.word + "` \\| [^|]* (\\| [^|]+ \\| [^|]+ \\|)$").FindStringSubmatch(guide)
		if told == nil {
			t.Fatalf("docs/api.md does not tell of the code %s", c.word)
		}
		fmt.Fprintf(&b, "| `%s` | %d %s\n", c.word, c.status, told[1])
	}
	return b.String()
}

// TestCodes: each code has a word of its own, which is its name, and comes back as it was.
func TestCodes(t *testing.T) {
	for c := grid.Unknown; c <= grid.OutOfDate; c++ {
		w := wireOf(c)
		if w.code != c || codeOf(w.word) != c || w.word != strings.ReplaceAll(c.Error(), " ", "-") {
			t.Errorf("%v is %+v on the wire", c, w)
		}
	}
	if len(wireCodes) != int(grid.OutOfDate)+1 || wireOf(grid.OutOfDate+1).code != grid.Unknown || codeOf("of-next-year") != grid.Unknown {
		t.Errorf("%d codes", len(wireCodes))
	}
}

// contract checks what a server answers against the document.
type contract struct {
	t     *testing.T
	doc   map[string]any
	c     *jsonschema.Compiler
	made  map[string]*jsonschema.Schema
	tried map[string][2]bool // operations: that have answered, and that have failed
}

func newContract(t *testing.T, data []byte) *contract {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	k := &contract{t: t, doc: doc.(map[string]any), c: jsonschema.NewCompiler(), made: make(map[string]*jsonschema.Schema), tried: make(map[string][2]bool)}
	for _, s := range k.doc["components"].(map[string]any)["schemas"].(map[string]any) {
		closeObjects(s)
	}
	k.c.AssertFormat()
	if err := k.c.AddResource("grid:///openapi.json", k.doc); err != nil {
		t.Fatal(err)
	}
	return k
}

// closeObjects has a schema allow no fields that it does not tell of: clients must bear those, but our answers have none.
func closeObjects(v any) {
	if m, ok := v.(map[string]any); ok {
		if _, ok := m["properties"].(map[string]any); ok && m["type"] == "object" {
			m["additionalProperties"] = false
		}
		for _, below := range m {
			closeObjects(below)
		}
	}
}

func (k *contract) check(at string, value []byte) error {
	s := k.made[at]
	if s == nil {
		var err error
		if s, err = k.c.Compile("grid:///openapi.json#" + at); err != nil {
			return err
		}
		k.made[at] = s
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err == nil {
		err = s.Validate(v)
	}
	return err
}

// pointer writes a name as part of a JSON pointer in a URL.
var pointer = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")

// answer checks one answer to a request for a route.
func (k *contract) answer(pattern string, resp *http.Response, data []byte) {
	k.t.Helper()
	r := routeOf[pattern]
	place := r.places()[len(r.places())-1]
	method, path, _ := strings.Cut(place, " ")
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	tried := k.tried[pattern]
	if resp.StatusCode >= 400 {
		tried[1] = true
		k.tried[pattern] = tried
		if err := k.check("/components/schemas/Problem", data); kind != problemType || err != nil {
			k.t.Errorf("%s: the error is %s, %q: %v", pattern, resp.Header.Get("Content-Type"), data, err)
		}
		var p problem
		if _ = json.Unmarshal(data, &p); p.Status != resp.StatusCode {
			k.t.Errorf("%s: status %d, and the problem says %d", pattern, resp.StatusCode, p.Status)
		}
		return
	}
	tried[0] = true
	k.tried[pattern] = tried
	content := "/paths/" + pointer.Replace(path) + "/" + strings.ToLower(method) + "/responses/200/content"
	told := k.doc["paths"].(map[string]any)[path].(map[string]any)[strings.ToLower(method)].(map[string]any)["responses"].(map[string]any)["200"].(map[string]any)["content"].(map[string]any)
	media, ok := told[kind].(map[string]any)
	if !ok {
		k.t.Errorf("%s: an answer of the type %s, of which the document does not tell", pattern, kind)
		return
	}
	if media["schema"] == nil {
		return
	}
	at := content + "/" + pointer.Replace(kind) + "/schema"
	values := [][]byte{data}
	switch kind {
	case linesType:
		values = bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	case eventsType:
		values = nil
		for event := range bytes.SplitSeq(data, []byte("\n\n")) {
			if _, v, ok := bytes.Cut(event, []byte("data: ")); ok && !bytes.HasPrefix(event, []byte("event: end\n")) {
				values = append(values, v)
			}
		}
	}
	for _, v := range values {
		if err := k.check(at, v); err != nil {
			k.t.Errorf("%s: %q: %v", pattern, v, err)
		}
	}
}

type pinned = *fake.Pins

// The parts of a node that the contract needs, and that say something.
type (
	toldPins   struct{ pinned }
	toldLedger struct{ *fake.Ledger }
	toldSwarm  struct{}
	toldStore  struct{}
	toldFiles  struct{}
)

func (toldPins) Drain(context.Context, bool) error { return nil }
func (toldPins) Draining(context.Context) (grid.DrainStatus, error) {
	return grid.DrainStatus{}, nil
}
func (toldLedger) Remove(context.Context, peer.ID) error { return nil }

func (toldSwarm) Info() grid.SwarmInfo { return grid.SwarmInfo{} }
func (toldSwarm) Invite(context.Context, grid.InviteRequest) (grid.Invite, error) {
	return grid.Invite{}, nil
}
func (toldSwarm) Members(context.Context) ([]grid.SwarmMember, error) {
	return []grid.SwarmMember{{}}, nil
}
func (toldSwarm) Approve(context.Context, peer.ID) error                  { return nil }
func (toldSwarm) Revoke(context.Context, peer.ID) error                   { return nil }
func (toldSwarm) SetRole(context.Context, peer.ID, grid.MemberRole) error { return nil }
func (toldSwarm) Renew(context.Context, peer.ID, time.Duration) error     { return nil }
func (toldSwarm) Leave(context.Context, bool) error                       { return nil }
func (toldSwarm) RotateKey(context.Context, bool) (grid.KeyRotation, error) {
	return grid.KeyRotation{}, nil
}

func (toldStore) Use(context.Context) (grid.StoreUse, error) { return grid.StoreUse{}, nil }
func (toldStore) Collect(context.Context, bool) (grid.Collected, error) {
	return grid.Collected{}, nil
}
func (toldStore) Verify(context.Context, bool) (grid.Verified, error) { return grid.Verified{}, nil }

func (toldFiles) Export(_ context.Context, w io.Writer, _ ...grid.Selection) error {
	_, err := io.WriteString(w, "a CAR")
	return err
}
func (toldFiles) Import(context.Context, io.Reader, bool) (grid.Imported, error) {
	return grid.Imported{}, nil
}
func (toldFiles) Survey(_ context.Context, c cid.Cid) (grid.Extent, error) {
	return grid.Extent{CID: grid.Link{Cid: c}}, nil
}
func (toldFiles) Diff(_ context.Context, was, is cid.Cid, each func(grid.Change) error) error {
	return each(grid.Change{Path: "x", Was: grid.Link{Cid: was}, Is: grid.Link{Cid: is}})
}

// exchange is a request that a server is to answer well. In its path, query and body $NAME stands for what an answer before
// had in a field: keep is NAME=FIELD.
type exchange struct{ pattern, path, body, keep string }

// TestContract: whatever a server answers is what its document says, errors also.
func TestContract(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	manifest := &grid.Manifest{Format: 1, Name: "tool", Version: "1.0.0", ABI: 2, Functions: []grid.Function{
		{Name: "echo", Kind: grid.TypedFunc, Input: []byte(`{"type":"string"}`)}, {Name: "admit", Kind: grid.AdmissionFunc},
	}}
	w.Engine.About = func(cid.Cid) grid.Module { return grid.Module{Kind: grid.Command, Manifest: manifest} }
	w.Engine.Guest = fake.Text("out")
	cfg := w.Config()
	cfg.Pins, cfg.Ledger = toldPins{w.Pins}, toldLedger{w.Ledger}
	node, err := grid.OpenNode(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	s := &Server{
		Node: node, Archive: toldFiles{}, Surveyor: toldFiles{}, Store: toldStore{}, Swarm: toldSwarm{}, Log: new(toldLog), Tokens: grid.NewTokenBook(nil),
		Describe: func(context.Context) (grid.NodeStatus, error) {
			return grid.NodeStatus{ID: w.ID.String(), Version: grid.Version}, nil
		},
		Shutdown: func() {}, Logger: slog.New(slog.DiscardHandler), Reach: func() grid.Reach { return grid.Reach{} },
		Endpoints: func() []Endpoint { return []Endpoint{{Addr: "127.0.0.1:1"}} },
		Bench: func(_ context.Context, _ bool, each func(grid.Measured) error) error {
			return each(grid.Measured{Name: "hash", Value: 1, Unit: "bytes/s"})
		},
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path, body string, header ...string) (*http.Response, []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for h := range slices.Chunk(header, 2) {
			req.Header.Set(h[0], h[1])
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var data []byte
		if path == prefix+"/kv/watch" { // which does not end
			data = make([]byte, 64<<10)
			n, _ := resp.Body.Read(data)
			data = data[:n]
		} else if data, err = io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp, data
	}
	_, document := ask("GET", prefix+"/openapi.json", "")
	if !bytes.Equal(document, Document()) {
		t.Error("another document is served")
	}
	k := newContract(t, document)

	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	_ = tw.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: 4})
	_, _ = tw.Write([]byte("data"))
	_ = tw.Close()
	vars := map[string]string{"module": w.Module.String(), "node": w.ID.String()}
	request, err := json.Marshal(grid.Request{Spec: grid.Spec{Name: "j", Stages: []grid.Stage{{Module: w.Module, Tasks: 3}}}})
	if err != nil {
		t.Fatal(err)
	}
	job := string(request)
	for _, x := range []exchange{
		{"GET /openapi.json", "", "", ""},
		{"GET /node", "", "", ""},
		{"GET /access", "", "", ""},
		{"GET /peers", "", "", ""},
		{"GET /checkup", "", "", ""},
		{"GET /refusals", "", "", ""},
		{"POST /bench", "/bench?quick=1", "", ""},
		{"GET /debug/pprof/{name}", "/debug/pprof/goroutine?text=1", "", ""},
		{"POST /add", "", archive.String(), "root=cid"},
		{"POST /have", "", `{"cids":["$root"]}`, ""},
		{"GET /stat/{cid}/{path...}", "/stat/$root/f", "", "file=cid"},
		{"GET /ls/{cid}/{path...}", "/ls/$root/", "", ""},
		{"GET /cat/{cid}/{path...}", "/cat/$root/f", "", ""},
		{"GET /tar/{cid}/{path...}", "/tar/$root/f", "", ""},
		{"GET /car/{cid}/{path...}", "/car/$root/f", "", ""},
		{"POST /car", "", "a CAR", ""},
		{"GET /survey/{cid}/{path...}", "/survey/$root/f", "", ""},
		{"GET /diff", "/diff?was=$root&is=$root", "", ""},
		{"GET /modules/{cid}", "/modules/$module", "", ""},
		{"/ipfs/", "/ipfs/$file?format=raw", "", ""},
		{"GET /metrics", "", "", ""},

		{"POST /pins", "", `{"root":"$root","name":"p"}`, ""},
		{"GET /pins", "", "", ""},
		{"GET /pins/{cid}", "/pins/$root?deep=1", "", ""},
		{"DELETE /pins/{cid}", "/pins/$root", "", ""},
		{"GET /drain", "", "", ""},
		{"POST /drain", "", `{"on":true}`, ""},
		{"GET /store", "", "", ""},
		{"POST /store/gc", "", "", ""},
		{"POST /store/verify", "", "", ""},

		{"GET /backup", "", "", ""},
		{"POST /restore", "/restore?merge=1", "$backup", ""},

		{"GET /nodes", "", "", ""},
		{"POST /jobs", "", job, "job=id"},
		{"GET /jobs/{id}/watch", "/jobs/$job/watch", "", ""},
		{"GET /jobs", "", "", ""},
		{"GET /jobs/{id}", "/jobs/$job", "", ""},
		{"GET /jobs/{id}/request", "/jobs/$job/request", "", ""},
		{"GET /jobs/{id}/why", "/jobs/$job/why", "", ""},
		{"GET /jobs/{id}/tasks", "/jobs/$job/tasks?follow=1", "", ""},
		{"GET /stretches", "/stretches?job=$job&node=$node&limit=10&resolution=5&since=2020-01-02T03:04:05Z", "", ""},
		{"GET /events", "/events?since=2020-01-02T03:04:05Z", "", ""},
		{"GET /events", "/events?job=$job&follow=1", "", ""},
		{"GET /jobs/{id}/logs", "/jobs/$job/logs?stream=stdout&limit=2", "", ""},
		{"GET /node/log", "/node/log?level=warn", "", ""},
		{"PUT /node/log-levels", "", `{"default":"info","rooms":{"p2p":"debug"}}`, ""},
		{"GET /node/log-levels", "", "", ""},
		{"GET /jobs/{id}/usage", "/jobs/$job/usage", "", ""},
		{"POST /jobs/{id}/verify", "/jobs/$job/verify", "", ""},
		{"DELETE /jobs/{id}", "/jobs/$job", "", ""},
		{"GET /usage", "/usage?by=user", "", ""},
		{"PUT /quotas", "", `{"subject":"user:ann","per":"day","tasks":7}`, ""},
		{"GET /quotas", "", "", ""},
		{"DELETE /quotas", "/quotas?subject=user:ann&per=day", "", ""},

		{"PUT /kv/entry", "/kv/entry?key=a", "value", ""},
		{"GET /kv/entry", "/kv/entry?key=a", "", ""},
		{"GET /kv/entry", "/kv/entry?key=a&raw=1", "", ""},
		{"GET /kv", "/kv?prefix=a&limit=1", "", ""},
		{"GET /kv/watch", "", "", ""},
		{"POST /kv/txn", "", `{"if":[{"key":"b","absent":true}],"put":[{"key":"b","text":"B"}]}`, ""},
		{"DELETE /kv/entry", "/kv/entry?key=a", "", ""},
		{"PUT /refs/{name...}", "/refs/a/b", `{"cid":"$root"}`, ""},
		{"GET /refs", "", "", ""},
		{"GET /refs/{name...}", "/refs/a/b", "", ""},
		{"GET /resolve", "/resolve?name=a/b", "", ""},
		{"DELETE /refs/{name...}", "/refs/a/b", "", ""},
		{"GET /ledger", "", "", ""},
		{"DELETE /ledger/members/{id}", "/ledger/members/$node", "", ""},

		{"POST /plugins", "", `{"cid":"$module"}`, ""},
		{"GET /plugins", "", "", ""},
		{"GET /plugins/{ref}", "/plugins/tool.echo?manifest=1", "", ""},
		{"PUT /plugin-aliases/{name}/{alias}", "/plugin-aliases/tool/good", `{"version":"1"}`, ""},
		{"PUT /plugin-policy", "", `{}`, ""},
		{"GET /plugin-policy", "", "", ""},
		{"POST /extensions", "", `{"ref":"tool","extension":{"role":"admission","fallback":"accept"}}`, ""},
		{"GET /extensions", "", "", ""},
		{"DELETE /extensions/{key...}", "/extensions/admission", "", ""},
		{"POST /call", "", `{"request":` + strings.Replace(job, `"tasks":3`, `"tasks":1`, 1) + `,"input":"aGk="}`, ""},
		{"DELETE /plugins/{ref}", "/plugins/tool@1.0.0", "", ""},

		{"PUT /secrets/{name}", "/secrets/s", "secret", ""},
		{"GET /secrets", "", "", ""},
		{"DELETE /secrets/{name}", "/secrets/s", "", ""},
		{"POST /tokens", "", `{"name":"ann","role":"viewer"}`, "token=id"},
		{"GET /tokens", "", "", ""},
		{"DELETE /tokens/{id}", "/tokens/$token", "", ""},
		{"GET /swarm", "", "", ""},
		{"POST /swarm/invite", "", `{}`, ""},
		{"GET /swarm/members", "", "", ""},
		{"DELETE /swarm/members/{id}", "/swarm/members/$node", "", ""},
		{"POST /swarm/members/{id}/approve", "/swarm/members/$node/approve", "", ""},
		{"PUT /swarm/members/{id}/role", "/swarm/members/$node/role", `{"role":"worker"}`, ""},
		{"POST /swarm/members/{id}/renew", "/swarm/members/$node/renew", `{"lasts_ns":0}`, ""},
		{"POST /swarm/rotate-key", "", `{}`, ""},
		{"POST /swarm/leave", "", `{}`, ""},
		{"GET /audit", "", "", ""},
		{"POST /shutdown", "", "", ""},
	} {
		method, path, ok := strings.Cut(x.pattern, " ")
		if !ok {
			method, path = "GET", x.pattern
		}
		if x.path != "" {
			path = x.path
		}
		if !outside[x.pattern] {
			path = prefix + path
		}
		fill := func(s string) string {
			return os.Expand(s, func(name string) string { return vars[name] })
		}
		if r := routeOf[x.pattern]; r.in.of != nil && x.body != "" {
			place := r.places()[0]
			_, at, _ := strings.Cut(place, " ")
			if err := k.check("/paths/"+pointer.Replace(at)+"/"+strings.ToLower(method)+"/requestBody/content/application~1json/schema", []byte(fill(x.body))); err != nil {
				t.Errorf("%s: the request: %v", x.pattern, err)
			}
		}
		resp, data := ask(method, fill(path), fill(x.body))
		if resp.StatusCode != http.StatusOK || resp.Trailer.Get(trailerError) != "" {
			t.Errorf("%s: %s %s, %v", x.pattern, resp.Status, data, resp.Trailer)
			continue
		}
		k.answer(x.pattern, resp, data)
		if x.pattern == "GET /backup" {
			vars["backup"] = string(data)
		}
		if r := routeOf[x.pattern]; r.out.also == eventsType && x.keep == "" { // as events, too
			resp, data := ask(method, fill(path), fill(x.body), "Accept", eventsType)
			if kind := resp.Header.Get("Content-Type"); kind != eventsType || !strings.HasSuffix(string(data), "\n\n") || !bytes.Contains(data, []byte("event: end\n")) && x.pattern != "GET /kv/watch" {
				t.Errorf("%s: events are %s, %q", x.pattern, kind, data)
			}
			k.answer(x.pattern, resp, data)
		}
		if name, field, ok := strings.Cut(x.keep, "="); ok {
			last := data[bytes.LastIndexByte(bytes.TrimSpace(data), '\n')+1:]
			var v map[string]any
			if err := json.Unmarshal(last, &v); err != nil || v[field] == nil {
				t.Fatalf("%s: %s: %v", x.pattern, last, err)
			}
			vars[name] = v[field].(string)
		}
	}
	// What is wrong is answered as a problem, on the socket and over the network.
	variable := regexp.MustCompile(`\{[^}]*\}`)
	for i := range table {
		pattern := table[i].pattern
		if pattern == "/" || pattern == gatewayPrefix+"/" {
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		if !outside[pattern] {
			path = prefix + path
		}
		path = variable.ReplaceAllString(path, "~")
		if strings.Contains(pattern, "{") || table[i].in.of != nil {
			resp, data := ask(method, path, "{]")
			k.answer(pattern, resp, data)
			if resp.StatusCode < 400 {
				t.Errorf("%s took nonsense: %s", pattern, data)
			}
		}
		r := httptest.NewRequest(method, path, nil)
		r.Host, r.RemoteAddr = "localhost", fmt.Sprintf("192.0.2.%d:1", i)
		rec := httptest.NewRecorder()
		s.Remote(func() []string { return nil }).ServeHTTP(rec, r)
		k.answer(pattern, rec.Result(), rec.Body.Bytes())
		if rec.Code != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", pattern, rec.Code)
		}
	}
	for pattern := range routeOf {
		if pattern == "/" || pattern == "POST /jobs/{id}/cancel" { // that job has ended
			continue
		}
		if tried := k.tried[pattern]; !tried[0] || !tried[1] && pattern != gatewayPrefix+"/" {
			t.Errorf("%s was not tried: add an exchange", pattern)
		}
	}
	ids := make(map[string]string)
	for i := range table {
		for _, at := range table[i].places() {
			method, path, ok := strings.Cut(at, " ")
			id := operationID(method, path)
			if was, twice := ids[id]; twice || ok && was == at {
				t.Errorf("%s and %s are both %s", was, at, id)
			}
			ids[id] = at
		}
	}
}
