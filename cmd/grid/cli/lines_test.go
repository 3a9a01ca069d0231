package cli

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

const otherNode = "12D3KooWRdFFg3yTbTsDq5Z1yCvCWbqznEFro9jeVivo7rkayJ4D"

// logging is a fake node with lines and records of logs. It notes what it was asked for.
func logging(t *testing.T, asked *url.Values) *fakeNode {
	f := newFake(t)
	f.jobs[0].Stages = []grid.StageStatus{{Name: "map", Tasks: 3, Done: 3}, {Name: "reduce", Tasks: 1, Done: 1}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	lines := []grid.LogLine{
		{At: at, Stage: 0, Task: 2, Node: otherNode, Stream: grid.StreamOut, Text: "out\x1b[2J\tx\r"},
		{At: at, Stage: 1, Task: 0, Node: otherNode, Stream: grid.StreamErr, Text: "err", Live: true},
		{At: at, Stage: 1, Task: 0, Node: otherNode, Stream: grid.StreamNote, Text: "run again"},
	}
	records := []grid.LogRecord{{ID: 1, At: at, Level: "warn", Room: "p2p", Text: "refused\x1b", Attrs: map[string]string{"peer": "x y", "n": "1"}}}
	levels := grid.LogLevels{Default: "info", Rooms: map[string]string{"p2p": "debug"}, Lost: 3, Trouble: "no space left"}
	id, _ := peer.Decode(otherNode)
	mux := http.NewServeMux()
	mux.Handle("/", f.handler())
	mux.HandleFunc("GET /v1/peers", func(w http.ResponseWriter, _ *http.Request) { f.json(w, []grid.PeerInfo{{ID: id}}) })
	mux.HandleFunc("GET /v1/jobs/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		*asked = r.URL.Query()
		defer f.stream(&w, r)()
		for _, l := range lines {
			f.json(w, l)
		}
	})
	mux.HandleFunc("GET /v1/node/log", func(w http.ResponseWriter, r *http.Request) {
		*asked = r.URL.Query()
		defer f.stream(&w, r)()
		for _, l := range records {
			f.json(w, l)
		}
	})
	mux.HandleFunc("GET /v1/node/log-levels", func(w http.ResponseWriter, _ *http.Request) { f.json(w, levels) })
	mux.HandleFunc("PUT /v1/node/log-levels", func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		b.ReadFrom(r.Body)
		*asked = url.Values{"body": {b.String()}}
		f.json(w, levels)
	})
	f.client = func() *api.Client { return api.Local(mux) }
	return f
}

func TestLogLines(t *testing.T) {
	var asked url.Values
	f := logging(t, &asked)
	f.now = func() time.Time { return time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC) }
	r := f.grid("logs", string(testJob), "--lines")
	if r.exit != 0 || r.out != "map/2 | out\x1b[2J\tx\r\n" || r.err != "reduce/0 | err\nreduce/0 | grid: run again\n" {
		t.Errorf("%+v", r)
	}
	f.grid("logs", string(testJob), "-f", "--since", "10m", "--stage", "map", "--task", "1", "--node", "rkayJ4D", "--grep", "a|b", "--stream", "stderr", "--limit", "7")
	if got := asked.Encode(); got != "follow=1&grep=a%7Cb&limit=7&node="+otherNode+"&since=2026-01-02T03%3A50%3A00Z&stage=0&stream=stderr&task=1" {
		t.Errorf("asked for %s", got)
	}
	if r := f.grid("logs", string(testJob), "--stage", "map", "-t"); !strings.Contains(r.out, "2026-01-02T") || !strings.Contains(r.out, " 2 | out") || asked.Get("stage") != "0" || asked.Get("task") != "" {
		t.Errorf("with times: %+v, asked for %v", r, asked)
	}
	if r := f.grid("logs", string(testJob), "--lines", "--json"); strings.Count(r.out, "\n") != 3 || !strings.Contains(r.out, `"stream":"note"`) {
		t.Errorf("JSON: %+v", r)
	}
	asked = nil
	if r := f.grid("logs", string(testJob)); r.exit != 0 || asked != nil {
		t.Errorf("without the flags of lines: %+v", r)
	}
	for _, bad := range [][]string{{"--since", "tomorrow"}, {"--node", "nobody"}, {"--lines", "--task", "9"}, {"--lines", "--stage", "none"}} {
		if r := f.grid(append([]string{"logs", string(testJob)}, bad...)...); r.exit == 0 || r.err == "" {
			t.Errorf("%v: %+v", bad, r)
		}
	}
}

// TestLinesOnTerminal: what could do something to a terminal is shown there as it is written in Go.
func TestLinesOnTerminal(t *testing.T) {
	var out, errs bytes.Buffer
	e := &env{ui: newUI(&out, &errs)}
	e.terminal = true
	p := linePrinter{e: e}
	for _, l := range []grid.LogLine{{Stream: grid.StreamOut, Text: "a\x1b]0;x\a\tb\r"}, {Stream: grid.StreamErr, Text: "\x1b[2J"}} {
		if err := p.print(l); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != `a\x1b]0;x\a`+"\tb\n" || errs.String() != "\x1b[2J\n" { // which is no terminal
		t.Errorf("%q, %q", out.String(), errs.String())
	}
}

func TestNodeLogCommands(t *testing.T) {
	var asked url.Values
	f := logging(t, &asked)
	f.now = func() time.Time { return time.Date(2027, 1, 2, 4, 0, 0, 0, time.UTC) }
	r := f.grid("node", "logs", "-f", "--level", "warn", "--room", "p2p", "--grep", "x", "--limit", "3")
	if r.exit != 0 || !strings.HasPrefix(r.out, "2026-01-0") || !strings.HasSuffix(r.out, ` warn  p2p      refused\x1b n=1 peer="x y"`+"\n") || asked.Encode() != "follow=1&grep=x&level=warn&limit=3&room=p2p" {
		t.Errorf("%+v, asked for %v", r, asked)
	}
	if r := f.grid("node", "logs", "--json"); !strings.Contains(r.out, `"room":"p2p"`) {
		t.Errorf("JSON: %+v", r)
	}
	if r := f.grid("node", "log-level"); r.exit != 0 || !strings.Contains(r.out, "all others  info\np2p         debug\n") || !strings.Contains(r.err, "3 records could not be written to the log: no space left") {
		t.Errorf("%+v", r)
	}
	if r := f.grid("node", "log-level", "warn", "store=debug", "p2p="); r.exit != 0 || asked.Get("body") != `{"default":"warn","rooms":{"p2p":"","store":"debug"}}` {
		t.Errorf("%+v, sent %v", r, asked)
	}
	for _, bad := range []string{"loud", "kitchen=debug", "p2p=loud"} {
		if r := f.grid("node", "log-level", bad); r.exit == 0 || !strings.Contains(r.err, "hint") {
			t.Errorf("%s: %+v", bad, r)
		}
	}
}
