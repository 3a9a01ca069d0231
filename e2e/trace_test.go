package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// span is one that a collector was sent.
type span struct {
	*tracepb.Span
	node string // that sent it
}

func (s *span) text(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			if v, ok := a.Value.Value.(*commonpb.AnyValue_IntValue); ok {
				return fmt.Sprint(v.IntValue)
			}
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// collector stands in for one of OpenTelemetry.
type collector struct {
	url  string
	mu   sync.Mutex
	all  map[string][]*span // by trace
	auth string
}

func newCollector(t *testing.T) *collector {
	c := &collector{all: make(map[string][]*span)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData // has the form of a request
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.auth = r.Header.Get("Authorization")
		for _, from := range data.ResourceSpans {
			node := ""
			for _, a := range from.Resource.Attributes {
				if a.Key == "service.instance.id" {
					node = a.Value.GetStringValue()
				}
			}
			for _, scope := range from.ScopeSpans {
				for _, s := range scope.Spans {
					id := hex.EncodeToString(s.TraceId)
					c.all[id] = append(c.all[id], &span{s, node})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// of are the spans of a trace so far.
func (c *collector) of(id string) []*span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all[id])
}

// whole tells what is wrong with a trace, by the names of its spans: it has one root, and all that its spans lie below is there.
func whole(spans []*span) (names map[string]int, root *span, err error) {
	names, ids := make(map[string]int), make(map[string]*span)
	for _, s := range spans {
		if ids[string(s.SpanId)] != nil {
			return names, nil, fmt.Errorf("two spans have the ID %x: %s and %s", s.SpanId, s.Name, ids[string(s.SpanId)].Name)
		}
		ids[string(s.SpanId)] = s
		names[s.Name]++
	}
	for _, s := range spans {
		switch {
		case len(s.ParentSpanId) == 0 && root != nil:
			return names, root, fmt.Errorf("two roots: %s and %s", root.Name, s.Name)
		case len(s.ParentSpanId) == 0:
			root = s
		case ids[string(s.ParentSpanId)] == nil:
			return names, root, fmt.Errorf("%s of %s lies below a span that is not there", s.Name, s.node)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			return names, root, fmt.Errorf("%s ends before it begins", s.Name)
		}
	}
	if root == nil {
		return names, nil, errors.New("no root")
	}
	return names, root, nil
}

// A job's trace comes whole from three nodes, one of which was submitted to.
func TestTrace(t *testing.T) {
	t.Parallel()
	const caller = "0af7651916cd43dd8448eb211c80319c"
	c, w := newCollector(t), NewWorld(t)
	w.env = append(w.env, "OTEL_EXPORTER_OTLP_HEADERS=Authorization=Basic%20secret", "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url)
	up := func(name string) *Node { return w.Up(name, "--workers", "1") }
	nodes := []*Node{up("a"), up("b"), w.Up("c", "--workers", "1", "--otlp", c.url)}
	realmOf(t, 3, nodes...)
	module := filepath.Join(w.dir, "spin.wasm")
	if err := os.WriteFile(module, wasmbytes.Spin(10_000_000), 0o600); err != nil {
		t.Fatal(err)
	}
	const tasks = 60
	a := nodes[0]
	id := strings.TrimSpace(a.Must("run", "-d", "--no-cache", "--count", fmt.Sprint(tasks), "--traceparent", "00-"+caller+"-b7ad6b7169203331-01", module, "--", "confidential"))
	a.Must("wait", id)
	st := a.Status(id)
	if st.Trace != grid.TraceOf(grid.JobID(id)).String() || !strings.Contains(a.Must("job", id), st.Trace) {
		t.Errorf("the trace is %q", st.Trace)
	}
	Eventually(t, "the trace is whole, from three nodes, with a steal", func(context.Context) error {
		spans := c.of(st.Trace)
		names, root, err := whole(spans)
		if err != nil {
			return err
		}
		by, attempts, stolen := make(map[string]int), 0, 0
		for _, s := range spans {
			by[s.node]++
			switch s.Name {
			case "task":
				attempts++
			case "steal":
				stolen++
			case "left out":
				n := 0
				if _, err := fmt.Sscan(s.text("grid.tasks_left_out"), &n); err != nil {
					return err
				}
				attempts += n
			}
		}
		if len(by) != 3 || stolen == 0 {
			return fmt.Errorf("spans by node: %v, steals: %d", by, stolen)
		}
		if attempts < tasks {
			return fmt.Errorf("%d attempts are told of", attempts)
		}
		for _, name := range []string{"job", "submit", "admit", "replicate", "stage", "steal", "give", "task", "fetch", "compile", "start", "run", "store", "report", "record", "end", "commit"} {
			if names[name] == 0 {
				return fmt.Errorf("no span %q among %v", name, slices.Sorted(maps.Keys(names)))
			}
		}
		if root.Name != "job" || root.text("grid.job") != id || len(root.Links) != 1 || hex.EncodeToString(root.Links[0].TraceId) != caller {
			t.Fatalf("the root is %v", root)
		}
		for _, s := range spans {
			if strings.Contains(s.String(), "confidential") {
				t.Fatalf("a span tells what a guest was given: %v", s)
			}
		}
		return nil
	})
	Eventually(t, "the request is in the caller's trace", func(context.Context) error {
		for _, s := range c.of(caller) {
			if s.Name == "POST /v1/jobs" && s.node == a.ID && hex.EncodeToString(s.ParentSpanId) == "b7ad6b7169203331" && s.text("http.response.status_code") == "200" &&
				len(s.Links) == 1 && hex.EncodeToString(s.Links[0].TraceId) == st.Trace {
				return nil
			}
		}
		return fmt.Errorf("it is not in %v", c.of(caller))
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth != "Basic secret" {
		t.Errorf("the collector was sent the header %q", c.auth)
	}
}
