package grid

import (
	"context"
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestStoriesOfLiars: what a checkpoint or another node tells of a job neither ends this node, nor hides what happens later, nor is
// anything that cannot be shown.
func TestStoriesOfLiars(t *testing.T) {
	if list := (&story{lost: 5}).since(time.Time{}); len(list) != 0 {
		t.Errorf("no events and five forgotten ones are %+v", list)
	}
	if list := (&story{events: []JobEvent{{At: time.Now(), Kind: EventStarted}}, lost: -5}).since(time.Time{}); len(list) != 1 {
		t.Errorf("one event and less than none forgotten are %+v", list)
	}
	far := time.Date(123456, 1, 1, 0, 0, 0, 0, time.UTC)
	bad := JobEvent{At: far, Kind: EventKind(strings.Repeat("k", 1<<16)), Node: peer.ID(strings.Repeat("n", 1<<16)), Text: strings.Repeat("é", 5000), Epoch: math.MaxUint64}
	var s story
	s.recall([]JobEvent{bad, {At: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)}}, math.MinInt, 2)
	s.add(JobEvent{Kind: EventEnded, Epoch: 3}, time.Now())
	var got []JobEvent
	teller := &teller{f: func(ev JobEvent) error { got = append(got, ev); return nil }}
	if err := teller.give(3, append(s.since(time.Time{}), bad)); err != nil {
		t.Fatal(err)
	}
	if k := len(got); k < 2 || got[k-1].Kind != EventEnded && got[k-2].Kind != EventEnded {
		t.Errorf("the end is hidden: %d events", k)
	}
	for i := range got {
		if data, err := json.Marshal(got[i]); err != nil || len(data) > 4<<10 {
			t.Errorf("%d: an event of %d bytes, %v", i, len(data), err)
		}
	}
}

// TestLongNodeIDs: who sends an ID of megabytes has nobody read it for minutes.
func TestLongNodeIDs(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		long := "Qm" + strings.Repeat("z", 4<<20)
		ev := RealmEvent{Room: RoomNode, Node: long, At: time.Now()}
		if takeEvent(&ev, "x", clockOf{now: time.Now()}) {
			t.Error("an event is believed to be about that node")
		}
		p := Pulse{Steals: []Flow{{From: long}}, Links: []PulseLink{{Node: long}}}
		if takePulse(&p, "x", clockOf{now: time.Now()}); len(p.Steals)+len(p.Links) != 0 {
			t.Error("a pulse is believed to tell of that node")
		}
		if err := (&LogQuery{Node: long}).Check(""); CodeOf(err) != Invalid {
			t.Error(err)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it is read still")
	}
}

// TestLinesWithoutEnd: a node that tells of tasks without number, each with a line that does not end, has a reader keep little of it.
func TestLinesWithoutEnd(t *testing.T) {
	lines := 0
	r := newLogReader(t.Context(), nil, "", LogQuery{}, func(LogLine) error { lines++; return nil })
	long := make([]byte, MaxLogText-1)
	for i := range uint32(2 * maxTasksOf) {
		if err := r.piece("liar", &taskPiece{Index: i, Began: 1, Data: long}); err != nil {
			t.Fatal(err)
		}
	}
	held := 0
	for _, l := range r.now {
		held += len(l.out[0].line)
	}
	if len(r.now) != maxTasksOf || held > maxUnended+MaxLogText || held != r.held || lines == 0 {
		t.Errorf("%d tasks and %d bytes, counted as %d, are kept, and %d lines given", len(r.now), held, r.held, lines)
	}
	if err := r.piece("honest", &taskPiece{Index: 3 * maxTasksOf, Began: 1, Data: []byte("here\n")}); err != nil || len(r.now) != maxTasksOf+1 {
		t.Errorf("another node's task is not told of: %v", err)
	}
}

// TestAnswerRoom: one who asks for many answers at once takes no room from others, and waits no longer than he would.
func TestAnswerRoom(t *testing.T) {
	r := answerRoom{made: make(chan struct{}, 1), of: make(map[peer.ID]int)}
	leave, err := r.enter(t.Context(), "greedy")
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	waits := make(chan error)
	for range answersOf - 1 {
		go func() { _, err := r.enter(ended, "greedy"); waits <- err }()
	}
	for n := 0; n < answersOf; {
		r.mu.Lock()
		n = r.of["greedy"]
		r.mu.Unlock()
		runtime.Gosched()
	}
	if _, err := r.enter(t.Context(), "greedy"); CodeOf(err) != Busy {
		t.Errorf("one too many: %v", err)
	}
	end()
	for range answersOf - 1 {
		if err := <-waits; err == nil {
			t.Error("two answers are being made")
		}
	}
	leave()
	if leave, err = r.enter(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	leave()
	if len(r.of) != 0 || len(r.made) != 0 {
		t.Errorf("%v and %d are left", r.of, len(r.made))
	}
}

// TestEventsLimit: a node tells the last of its events, when not all are asked for.
func TestEventsLimit(t *testing.T) {
	n := new(Node)
	for i := range MaxRealmEvents + 10 {
		n.happened(RealmEvent{Room: RoomJob, Tasks: Span{0, uint32(i)}})
	}
	r := n.ownEvents(&lookMsg{Limit: 3})
	if len(r.Items) != 3 || r.Items[0].Tasks.Hi != MaxRealmEvents+7 || r.Items[2].Tasks.Hi != MaxRealmEvents+9 || r.Next != MaxRealmEvents+10 {
		t.Errorf("%d events %+v, up to %d", len(r.Items), r.Items, r.Next)
	}
	if r := n.ownEvents(&lookMsg{}); len(r.Items) != MaxRealmEvents || r.Items[0].Tasks.Hi != 10 {
		t.Errorf("%d events from %+v on", len(r.Items), r.Items[0])
	}
}
