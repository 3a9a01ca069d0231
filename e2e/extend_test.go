//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk"
	wasm "github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// extension writes the guest extend as a plugin.
func extension(t testing.TB) string {
	t.Helper()
	binary, err := os.ReadFile(guest(t, "extend"))
	if err != nil {
		t.Fatal(err)
	}
	m := &grid.Manifest{
		Format: grid.ManifestFormat, Name: "extend", Version: "1.0.0", ABI: grid.ABIVersion, Functions: []grid.Function{
			{Name: "admit", Kind: grid.AdmissionFunc}, {Name: "tell", Kind: grid.NotifierFunc}, {Name: "paragraphs", Kind: grid.SplitterFunc},
			{Name: "score", Kind: grid.ScorerFunc}, {Name: "upper", Kind: grid.TypedFunc}, {Name: "lower", Kind: grid.TypedFunc}, {Name: "loop", Kind: grid.TaskFunc},
		},
	}
	data, err := wasm.PutManifest(binary, m)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "extend.wasm")
	save(t, file, data)
	return file
}

// hook is a server that is told of jobs, and does not take the first event.
type hook struct {
	mu     sync.Mutex
	tries  int
	events []sdk.JobEvent
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ev sdk.JobEvent
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(body, &ev)
	}
	if h.tries++; err != nil || h.tries == 1 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h.events = append(h.events, ev)
}

// Plugins that are attached on one node extend all: a policy refuses jobs and lets others pass, wherever they are submitted,
// a notifier tells a server of them, and splitters make tasks.
func TestExtensions(t *testing.T) {
	t.Parallel()
	file := extension(t)
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1", "--task-net", "named"), w.Up("b", "--workers", "1", "--task-net", "named"), w.Up("c", "--workers", "1", "--task-net", "named")
	w.Meet(a, b, c)
	realmOf(t, 3, a, b, c)
	a.Must("plugin", "install", "-q", file)

	h := new(hook)
	server := httptest.NewServer(h)
	defer server.Close()
	port := server.URL[strings.LastIndexByte(server.URL, ':'):]
	url := filepath.Join(t.TempDir(), "url")
	save(t, url, []byte("http://localhost"+port))
	a.Must("secret", "set", "hook", url)
	a.Must("plugin", "attach", "notifier/hook", "extend.tell", "--allow-net", "localhost"+port, "--allow-secret", "hook", "--events", "submitted,done")
	a.fails(67, "of the kind notifier, not admission", "plugin", "attach", "admission", "extend.tell")
	a.prints("admission extend.admit@1.0.0 "+strings.Fields(a.Must("plugin", "install", "-q", file))[1], "plugin", "attach", "admission", "extend", "--timeout", "1s")
	b.fails(77, "it has 4 tasks, and 3 are enough", "run", "-q", guest(t, "probe"), "--count", "4")
	b.fails(77, "the policy does not like crashes", "run", "-q", guest(t, "probe"), "--name", "crash")
	b.fails(77, "broken", "run", "-q", guest(t, "probe"), "--name", "endless")
	b.Must("plugin", "attach", "admission", "extend", "--fallback", "accept")
	b.prints("AB", "call", "extend.upper", "ab") // whose notices are of node b
	out := a.Must("call", "extend.upper", "cd", "--json")
	var called struct{ Job grid.JobStatus }
	if err := json.Unmarshal([]byte(out), &called); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the hook is told", func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		told := map[string][]string{}
		for _, ev := range h.events {
			told[ev.Job] = append(told[ev.Job], ev.Event)
		}
		if len(told) != 2 || fmt.Sprint(told[string(called.Job.ID)]) != "[submitted done]" {
			return fmt.Errorf("it was told of %v", told)
		}
		return nil
	})
	if out := a.Must("plugin", "attached"); !strings.Contains(out, "notifier/hook") || !strings.Contains(out, "extend.admit@1.0.0") {
		t.Errorf("attached are\n%s", out)
	}
	a.fails(77, "grid plugin detach", "plugin", "rm", "extend@1.0.0")
	a.Must("plugin", "detach", "admission", "notifier/hook")

	dir := t.TempDir()
	save(t, filepath.Join(dir, "x.txt"), []byte("one\none\n\ntwo\n\n"))
	save(t, filepath.Join(dir, "y.txt"), []byte("three"))
	if got := a.Must("run", "-q", "--plugin", "extend", "--func", "upper", "--each", filepath.Join(dir, "*.txt"), "--split", "extend.paragraphs"); got != "ONE\nONE\n\nTWO\n\nTHREE" {
		t.Errorf("the splitter made %q", got)
	}
	a.fails(67, "of the kind func, not splitter", "run", "-q", "--plugin", "extend", "--func", "upper", "--each", filepath.Join(dir, "*.txt"), "--split", "extend.upper")
	if got := a.Must("run", "-q", "--plugin", "extend", "--func", "upper", "--each", filepath.Join(dir, "*.txt"), "--decode", "extend.upper", "--encode", "extend.lower"); got != "one\none\n\ntwo\n\nthree" {
		t.Errorf("between a decoder and an encoder it is %q", got)
	}
	job := filepath.Join(dir, "job.yaml")
	save(t, job, []byte("stages:\n  up:\n    plugin: extend.upper\n    each: {files: '*.txt', split: extend.paragraphs}\n    decode: extend.lower\n"))
	var r struct{ Tasks []grid.TaskEnd }
	if err := json.Unmarshal([]byte(a.Must("submit", "-q", job, "--json")), &r); err != nil || len(r.Tasks) != 6 { // and as many of the decoder
		t.Errorf("the job file's splitter made %d tasks, %v", len(r.Tasks), err)
	}
}

// A scorer keeps work off nodes, though they have nothing to do and the job's owner has too much.
func TestScorerKeepsOff(t *testing.T) {
	t.Parallel()
	file := extension(t)
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1", "--label", "rest=true"), w.Up("c", "--workers", "1", "--label", "rest=true")
	w.Meet(a, b, c)
	realmOf(t, 3, a, b, c)
	a.Must("plugin", "install", "-q", file)
	a.Must("plugin", "attach", "scorer", "extend")
	ran := func() uint64 {
		var all uint64
		for _, n := range []*Node{b, c} {
			var st grid.NodeStatus
			if err := json.Unmarshal([]byte(n.Must("status", "--json")), &st); err != nil {
				t.Fatal(err)
			}
			all += st.Ran
		}
		return all
	}
	Eventually(t, "the scorer is compiled, and does not run into its time limit any more", func(context.Context) error {
		job := strings.TrimSpace(a.Must("run", "-d", "--plugin", "extend.upper", "--count", "1", "--no-cache", "--require", "node="+a.ID))
		a.Must("wait", "-q", job)
		if out := a.Must("events", job); strings.Contains(out, "no scores") {
			return errors.New(out)
		}
		return nil
	})
	a.Must("run", "-q", "--plugin", "extend.upper", "--count", "40")
	if n := ran(); n > 0 {
		t.Errorf("nodes that are to rest have run %d tasks", n)
	}
	// A stage that nobody may run says so.
	job := strings.TrimSpace(a.Must("run", "-d", "--plugin", "extend.upper", "--count", "2", "--no-cache", "--require", "rest=true"))
	Eventually(t, "it is said why nobody runs it", func(context.Context) error {
		if out := a.Must("job", "--why", job); !strings.Contains(out, "its score is -1") {
			return errors.New(out)
		}
		return nil
	})
	a.Must("cancel", job)
	a.Must("plugin", "detach", "scorer")
	a.Must("run", "-q", "--plugin", "extend.upper", "--count", "2", "--no-cache", "--require", "rest=true")
	if ran() == 0 {
		t.Error("without the scorer nobody ran it either")
	}
}

// The SDK's documents are those that nodes give and take.
func TestExtensionDocuments(t *testing.T) {
	yes := true
	for _, x := range []struct{ from, to any }{
		{grid.JobInfo{Version: 1, Node: "n", User: "u", Name: "j", Priority: 1, Parallel: 2, DeadlineMS: 3, Verify: "none", Replicas: 4, Publish: []string{"r"},
			Tasks: 5, InputBytes: 6, Stages: []grid.StageInfo{{Name: "s", Plugin: "p@1.0.0", Module: "m", Func: "f", Tasks: 7, InputBytes: 8, Impure: true,
				Net: []string{"n"}, KV: []string{"k"}, Secrets: []string{"s"}, Data: []string{"d"}, TimeoutMS: 9, Memory: 10, Output: 11, Scratch: 12, Fuel: 13, Cores: 14, Require: "r", Prefer: "p"}}}, new(sdk.JobInfo)},
		{grid.Notice{Version: 1, ID: "i", Event: "done", Time: "t", Node: "n", Job: "j", Name: "n", User: "u", State: "done", Stage: "s", Text: "x"}, new(sdk.JobEvent)},
		{grid.Candidate{ID: "n", Labels: grid.Labels{"a": "b"}, Slots: 1, Memory: 2, Scratch: 3, RTT: 1.5, Self: true}, new(sdk.Candidate)},
		{sdk.Decision{Accept: true, Reason: "r", Verify: "audit=1"}, &grid.Decision{Accept: &yes}},
	} {
		data, err := json.Marshal(x.from)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		err = dec.Decode(x.to)
		again, err2 := json.Marshal(x.to)
		if err = errors.Join(err, err2); err != nil || !bytes.Equal(data, again) {
			t.Errorf("%s is %s there, %v", data, again, err)
		}
	}
}
