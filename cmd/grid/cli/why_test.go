package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestEvents(t *testing.T) {
	f := newFake(t)
	node, err := peer.Decode("12D3KooWRdFFg3yTbTsDq5Z1yCvCWbqznEFro9jeVivo7rkayJ4D")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local)
	for i := range 7 {
		f.happened = append(f.happened, grid.JobEvent{At: at.Add(time.Duration(i) * time.Second), Kind: grid.EventRetry, Node: node,
			Stage: 1, Tasks: grid.Span{Lo: uint32(i), Hi: uint32(i + 1 + i%2)}, Text: "disk\x1b full"})
	}
	r := f.grid("events", string(testJob))
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.exit != 0 || len(lines) != 7 {
		t.Fatalf("exit %d, %s%s", r.exit, r.out, r.err)
	}
	if want := `2026-01-02 03:04:05.006  retry      task 0 of stage 1: disk\x1b full (node …rkayJ4D`; !strings.HasPrefix(lines[0], want[:60]) {
		t.Errorf("the first line is %q", lines[0])
	}
	wantIn(t, "the second line", lines[1], "task 1-2 of stage 1")
	r = f.grid("events", "--json", string(testJob))
	var ev grid.RealmEvent
	if err := json.Unmarshal([]byte(strings.SplitN(r.out, "\n", 2)[0]), &ev); err != nil || !ev.At.Equal(at) || ev.Node != node.String() {
		t.Errorf("as JSON: %q, %v", r.out, err)
	}
	wantIn(t, "the JSON", r.out, `"tasks":{"lo":0,"hi":1}`, `"node":"12D3KooWRdFFg3yTbTsDq5Z1yCvCWbqznEFro9jeVivo7rkayJ4D"`)
	f.now = func() time.Time { return at }
	r = f.grid("events", "-f", "--since", "10m", "--room", "job")
	lines = strings.Split(strings.TrimSpace(r.out), "\n")
	if want := `2026-01-02 03:04:05.006  job     retry      j ` + string(testJob) + ` task 0 of stage 1: disk\x1b full (node `; r.exit != 0 || len(lines) != 7 || !strings.HasPrefix(lines[0], want) {
		t.Errorf("exit %d, %q, %s", r.exit, lines[0], r.err)
	}
	wantIn(t, "the question", f.asked[len(f.asked)-1], "follow=1", "room=job", "since="+at.Add(-10*time.Minute).UTC().Format("2006-01-02"))
	if r = f.grid("events", "--since", "yesterday"); r.exit != exitUsage {
		t.Errorf("exit %d, %s", r.exit, r.err)
	}
	r = f.grid("job", string(testJob))
	if strings.Count(r.out, "retry") != 5 || !strings.Contains(r.out, "03:04:11.006") {
		t.Errorf("the description does not end with the last five events:\n%s", r.out)
	}
}

func TestJobWhy(t *testing.T) {
	f := newFake(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.now = func() time.Time { return now }
	c := &grid.Capacity{Labels: grid.Labels{"gpu": "false", "node": "me"}, Slots: 2}
	f.why = grid.Explanation{
		Job: grid.JobStatus{ID: testJob, State: grid.Running}, Reason: "no node can", Advice: []string{"add one", "or wait"},
		Deadline: time.Now().Add(time.Hour), Start: time.Now().Add(-time.Hour),
		Stages: []grid.StageView{
			{Name: "map", State: grid.StageUnplaced, Left: 3, Text: "none", Class: grid.Class{Require: "gpu=true", Memory: 1 << 30}},
			{Name: "sum", State: grid.StageWaits, Left: 1, Text: "for map", Fit: 1},
		},
		Nodes: []grid.NodeView{{Node: "12D3KooWx", State: grid.NodeFree, Text: "idle", Owner: true, Capacity: c, Lacks: map[string]string{"map": "no gpu"}}},
		Last:  []grid.JobEvent{{At: now, Kind: grid.EventLost, Text: "gone"}}, More: 2,
	}
	r := f.grid("job", string(testJob), "--why")
	if r.exit != 0 {
		t.Fatalf("exit %d: %s", r.exit, r.err)
	}
	wantIn(t, "the explanation", r.out, "why       no node can\n", "try       add one\n", "try       or wait\n", "it has passed", "in 1h0m",
		"none; requires gpu=true; memory 1.0 GiB", "for map", "gpu=false", "idle (the job's owner); not map: no gpu", "lost", "gone")
	if strings.Contains(r.out, "node=me") {
		t.Errorf("a node's own name is among its labels:\n%s", r.out)
	}
	wantIn(t, "the notes", r.err, "2 nodes more")
	r = f.grid("job", string(testJob), "--why", "--json")
	var x grid.Explanation
	if err := json.Unmarshal([]byte(r.out), &x); err != nil || x.Reason != "no node can" || x.Stages[0].Class.Require != "gpu=true" {
		t.Errorf("as JSON: %v, %s", err, r.out)
	}
	wantIn(t, "the JSON", r.out, `"require": "gpu=true"`, `"memory_bytes": 1073741824`)
	if r = f.grid("job", string(testJob), "--why", "--task", "0"); r.exit != 2 {
		t.Errorf("--why with --task: exit %d", r.exit)
	}
}

func TestRunPolicy(t *testing.T) {
	f := newFake(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("m.wasm", []byte("\x00asm"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := strings.Fields("run m.wasm --count 4 --require gpu=true --require zone=a --prefer !spot --cores 2 --reserve-memory 1GiB --reserve-scratch 2MiB " +
		"--attempts 5 --user ann --priority -3 --parallel 2 --deadline 2h --start-within 1m --allow-failures 1 --salt s --reduce")
	if r := f.grid(args...); r.exit != 0 {
		t.Fatalf("exit %d: %s", r.exit, r.err)
	}
	q := f.request()
	if want := (grid.Policy{User: "ann", Priority: -3, Parallel: 2, Deadline: 2 * time.Hour, Start: time.Minute}); q.Policy != want {
		t.Errorf("policy %+v, want %+v", q.Policy, want)
	}
	if q.Allow != 1 || q.Salt != "s" || len(q.Stages) != 2 {
		t.Errorf("request %+v", q)
	}
	for i := range q.Stages {
		st := &q.Stages[i]
		if st.Require != "gpu=true,zone=a" || st.Prefer != "!spot" || st.Attempts != 5 || st.Reserve != (grid.Reserve{Cores: 2, Memory: 1 << 30, Scratch: 2 << 20}) {
			t.Errorf("stage %d: %+v", i, st)
		}
	}
	if r := f.grid("run", "m.wasm"); r.exit != 0 || f.request().User != userName() {
		t.Errorf("without --user it is %q", f.request().User)
	}
	for flags, want := range map[string]string{
		"--priority 9":                       "want -8 to 8",
		"--cores 9999":                       "at most 1024",
		"--attempts 101":                     "at most 100",
		"--deadline -1s":                     "is negative",
		"--start-within -1s":                 "is negative",
		"--start-within 2s --deadline 1s":    "is longer than",
		"--require a>b":                      "--require: selector",
		"--prefer a=":                        "--prefer: selector",
		"--salt " + strings.Repeat("s", 200): "--salt: want at most",
		"--user " + strings.Repeat("u", 200): "--user: want at most",
	} {
		r := f.grid(append([]string{"run", "m.wasm"}, strings.Fields(flags)...)...)
		if r.exit == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: exit %d, %s; want %q", flags, r.exit, r.err, want)
		}
	}
	for flags, want := range map[string]string{
		"--label gpu":             "want KEY=VALUE",
		"--label os=linux":        "the node's own",
		"--max-jobs-per-user 0":   "want at least 1",
		"--weight ann":            "want USER=WEIGHT",
		"--weight ann=0":          "want USER=WEIGHT",
		"--weight ann=NaN":        "want USER=WEIGHT",
		"--max-queued-per-user 0": "want at least 1",
	} {
		r := f.grid(append([]string{"up", "--home", t.TempDir()}, strings.Fields(flags)...)...)
		if r.exit == 0 || !strings.Contains(r.err, want) {
			t.Errorf("up %s: exit %d, %s; want %q", flags, r.exit, r.err, want)
		}
	}
}
