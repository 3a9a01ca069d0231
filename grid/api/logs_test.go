package api

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// toldLog is a log of three records.
type toldLog struct {
	mu     sync.Mutex
	levels grid.LogLevels
	asked  grid.RecordQuery
}

func (l *toldLog) Levels() grid.LogLevels {
	l.mu.Lock()
	defer l.mu.Unlock()
	return grid.LogLevels{Default: "info", Rooms: l.levels.Rooms, Known: []string{"node", "p2p"}}
}

func (l *toldLog) SetLevels(to grid.LogLevels) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if to.Default == "loud" {
		return grid.Errorf(grid.Invalid, "no such level")
	}
	l.levels = to
	return nil
}

func (l *toldLog) Records(ctx context.Context, q grid.RecordQuery, f func(grid.LogRecord) error) error {
	l.mu.Lock()
	l.asked = q
	l.mu.Unlock()
	for id := q.After + 1; id <= 3; id++ {
		if err := f(grid.LogRecord{ID: id, At: time.Unix(int64(id), 0).UTC(), Level: "warn", Room: "p2p", Text: "said", Attrs: map[string]string{"k": "v"}}); err != nil {
			return err
		}
	}
	if q.Follow {
		<-ctx.Done()
	}
	return ctx.Err()
}

// TestNodeLog: the client asks for what it is asked for, a reader of events goes on where he was, and one who follows is given
// records while he waits for more.
func TestNodeLog(t *testing.T) {
	s, log := fullServer(t), new(toldLog)
	s.Log = log
	h := s.Handler()
	c := Local(h)
	q := grid.RecordQuery{Level: "warn", Room: "p2p", Since: time.Unix(7, 0).UTC(), Grep: "a|b", Limit: 5}
	var got []uint64
	if err := c.NodeLog(t.Context(), q, func(r grid.LogRecord) error { got = append(got, r.ID); return nil }); err != nil || !slices.Equal(got, []uint64{1, 2, 3}) || log.asked != q {
		t.Errorf("%v: records %v, asked for %+v", err, got, log.asked)
	}
	w := getOf(h, "/node/log", "Accept", eventsType, headerLastEvent, "2")
	if body := w.Body.String(); strings.Count(body, "id: ") != 1 || !strings.Contains(body, "id: 3\n") || !strings.HasSuffix(body, "event: end\ndata: {}\n\n") {
		t.Errorf("events behind the second: %s", body)
	}
	for _, path := range []string{"/node/log?level=loud", "/node/log?limit=-1", "/node/log?grep=(", "/node/log?since=now"} {
		if w := getOf(h, path); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+prefix+"/node/log?follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all []byte
	for bytes.Count(all, []byte("\n")) < 3 {
		part := make([]byte, 4096)
		n, err := resp.Body.Read(part)
		if all = append(all, part[:n]...); err != nil {
			t.Fatalf("%v after %s", err, all)
		}
	}
	stop()
	now, err := c.SetLogLevels(t.Context(), grid.LogLevels{Rooms: map[string]string{"p2p": "debug"}})
	if again, lerr := c.LogLevels(t.Context()); err != nil || lerr != nil || now.Rooms["p2p"] != "debug" || again.Rooms["p2p"] != "debug" {
		t.Errorf("%v %v: levels %+v, %+v", err, lerr, now, again)
	}
	if _, err := c.SetLogLevels(t.Context(), grid.LogLevels{Default: "loud"}); grid.CodeOf(err) != grid.Invalid {
		t.Errorf("a level that there is not: %v", err)
	}
}

// TestJobLogs: lines of a job, by the client and as events.
func TestJobLogs(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = fake.Text("one\ntwo\n\xff\n")
	node, err := grid.OpenNode(t.Context(), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	s := fullServer(t)
	s.Node = node
	h := s.Handler()
	c := Local(h)
	id, err := c.Submit(t.Context(), grid.Request{Spec: grid.Spec{Name: "j", Stages: []grid.Stage{{Module: w.Module, Tasks: 2}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Logs(t.Context(), id, grid.LogQuery{Follow: true}, func(grid.LogLine) error { return nil }); err != nil {
		t.Fatal(err)
	}
	var got []grid.LogLine
	q := grid.LogQuery{Stage: new(uint32(0)), Task: new(uint32(1)), Node: w.ID.String(), Stream: grid.StreamOut, Since: time.Unix(0, 0), Grep: "[^o]$", Limit: 2}
	if err := c.Logs(t.Context(), id, q, func(l grid.LogLine) error { got = append(got, l); return nil }); err != nil || len(got) != 2 || got[0].Text != "one" || got[1].Text != "\uFFFD" || got[0].Task != 1 {
		t.Errorf("%v: %+v", err, got)
	}
	if body := getOf(h, "/jobs/"+string(id)+"/logs", "Accept", eventsType).Body.String(); strings.Count(body, "data: ") != 7 || !strings.HasSuffix(body, "event: end\ndata: {}\n\n") {
		t.Errorf("events: %s", body)
	}
	for _, bad := range []string{"stage=x", "task=-1", "limit=9999999999", "since=1", "grep=(", "stream=in", "node=me", "grep=" + strings.Repeat("x", grid.MaxGrep+1)} {
		if w := getOf(h, "/jobs/"+string(id)+"/logs?"+bad); w.Code != http.StatusBadRequest && w.Code != http.StatusRequestEntityTooLarge && w.Code != http.StatusConflict {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
}

// cut is an answer whose connection is lost after some events, in the midst of the next one.
type cut struct {
	http.ResponseWriter
	events int
}

func (c *cut) Write(data []byte) (int, error) {
	if c.events--; c.events < 0 {
		_, _ = c.ResponseWriter.Write(data[:len(data)-3])
		c.Flush()
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(data)
}

func (c *cut) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

// TestFollowersResume: a follower whose connection is lost, however often, has each line of a job, and each record of the node, once; and
// is told when he cannot go on.
func TestFollowersResume(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = fake.Text("one\ntwo\nthree\n")
	node, err := grid.OpenNode(t.Context(), w.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	s := fullServer(t)
	s.Node, s.Log = node, new(toldLog)
	h := s.Handler()
	var events, asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); wantsEvents(r) {
			w = &cut{w, int(events.Load())}
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	defer func(was []time.Duration) { retries = was }(retries)
	retries = []time.Duration{0, 0}
	c := &Client{base: srv.URL, http: srv.Client()}
	id, err := c.Submit(t.Context(), grid.Request{Spec: grid.Spec{Name: "j", Stages: []grid.Stage{{Module: w.Module, Tasks: 5}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Watch(t.Context(), id, func(grid.JobStatus) error { return nil }); err != nil {
		t.Fatal(err)
	}
	var want []grid.LogLine
	if err := c.Logs(t.Context(), id, grid.LogQuery{}, func(l grid.LogLine) error { want = append(want, l); return nil }); err != nil || len(want) != 15 {
		t.Fatalf("%v: %d lines", err, len(want))
	}
	for _, each := range []int32{1, 2, 4, 100} {
		events.Store(each)
		asked.Store(0)
		var got []grid.LogLine
		if err := c.Logs(t.Context(), id, grid.LogQuery{Follow: true}, func(l grid.LogLine) error { got = append(got, l); return nil }); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d lines a connection: %v, %d lines", each, err, len(got))
		}
		if want := 15/each + 1; asked.Load() != want {
			t.Errorf("%d lines a connection: %d of these, want %d", each, asked.Load(), want)
		}
		if err := c.Logs(t.Context(), id, grid.LogQuery{Follow: true, Limit: 7}, func(l grid.LogLine) error { got = append(got, l); return nil }); err != nil || len(got) != 15+7 {
			t.Errorf("%d lines a connection: %v, %d lines with a limit", each, err, len(got)-15)
		}
	}
	events.Store(1)
	var records []uint64
	ctx, stop := context.WithCancel(t.Context())
	err = c.NodeLog(ctx, grid.RecordQuery{Follow: true}, func(r grid.LogRecord) error {
		if records = append(records, r.ID); r.ID == 3 {
			stop()
		}
		return nil
	})
	if !slices.Equal(records, []uint64{1, 2, 3}) || ctx.Err() == nil {
		t.Errorf("records %v: %v", records, err)
	}
	asked.Store(0)
	enough := grid.Errorf(grid.Unavailable, "enough")
	if err := c.Logs(t.Context(), id, grid.LogQuery{Follow: true}, func(grid.LogLine) error { return enough }); err != enough || asked.Load() != 1 {
		t.Errorf("who ends it: %v, asked %d times", err, asked.Load())
	}
	events.Store(0)
	asked.Store(0)
	if err := c.Logs(t.Context(), id, grid.LogQuery{Follow: true}, func(grid.LogLine) error { return nil }); grid.CodeOf(err) != grid.Unavailable || asked.Load() != 1 {
		t.Errorf("nothing comes: %v, asked %d times", err, asked.Load())
	}
	events.Store(1)
	got := 0
	err = c.Logs(t.Context(), id, grid.LogQuery{Follow: true}, func(grid.LogLine) error {
		got++
		events.Store(0)
		return nil
	})
	if grid.CodeOf(err) != grid.Unavailable || got != 1 {
		t.Errorf("nothing comes any more: %v, after %d lines", err, got)
	}
	for _, id2 := range []string{"1", strings.Repeat("A", 5<<10)} {
		if w := getOf(h, "/jobs/"+string(id)+"/logs", "Accept", eventsType, headerLastEvent, id2); w.Code != http.StatusBadRequest {
			t.Errorf("Last-Event-ID %.20s: %d %s", id2, w.Code, w.Body)
		}
	}
}
