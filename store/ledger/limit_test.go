package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// TestStrangers has nodes of another realm, and ones that are not admitted, try everything.
func TestStrangers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), nil)
		nodes := w.cluster(1, 1)
		stranger := w.start(7)
		other := identity{Name: "other", ID: "ffff"}
		w.must(stranger.follow(w.ctx, other, []peer.ID{nodes[0].id}))
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		_, err := stranger.Get(ctx, "a")
		wantCode(t, err, grid.Denied)
		if !strings.Contains(err.Error(), `"test"`) || grid.AdviceOf(err) == "" {
			t.Errorf("the error does not help: %v", err)
		}
		wantCode(t, stranger.Watch(ctx, "", 0, func(grid.Changes) error { return nil }), grid.Denied)
		replica := w.start(8)
		w.must(replica.replicate(w.ctx, other))
		_, err = raftDial(replica.replica(), nodes[0].id)
		wantCode(t, err, grid.Denied)

		nodes[0].hooks.serve = func(from peer.ID) error {
			if from == nodes[1].id {
				return grid.Errorf(grid.Denied, "go away")
			}
			return nil
		}
		_, err = nodes[1].Get(ctx, "a")
		wantCode(t, err, grid.Denied)
		nodes[0].hooks.admit = func(peer.ID, hello) error { return grid.Errorf(grid.Denied, "not you") }
		same := w.start(9)
		w.must(same.replicate(w.ctx, testRealm))
		_, err = raftDial(same.replica(), nodes[0].id)
		wantCode(t, err, grid.Denied)
		if !strings.Contains(err.Error(), "not you") {
			t.Errorf("the error says not why: %v", err)
		}
	})
}

// raftDial opens a connection of raft and reads from it.
func raftDial(r *replica, to peer.ID) (int, error) {
	c, err := r.layer.Dial(address(to), time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.Read(make([]byte, 1))
}

func TestWatchFlood(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), nil)
		nodes := w.cluster(1, 1)
		ctx, cancel := context.WithCancel(w.ctx)
		var watching sync.WaitGroup
		refused := make(chan error, watchesPerPeer+8)
		for range watchesPerPeer + 8 {
			watching.Go(func() { refused <- nodes[1].Watch(ctx, "", 0, func(grid.Changes) error { return nil }) })
		}
		for range 8 {
			wantCode(t, <-refused, grid.Limit)
		}
		cancel()
		watching.Wait()
		w.until("the places are free again", func() bool {
			nodes[0].Ledger.mu.Lock()
			defer nodes[0].Ledger.mu.Unlock()
			return len(nodes[0].watches) == 0
		})
	})
}

func TestQueueIsBounded(t *testing.T) {
	release := make(chan struct{})
	var entries [][]machine.Command
	b := &batcher{most: batchCommands, atOnce: 1, propose: func(entry []byte) ([]machine.Result, error) {
		<-release
		cmds, err := machine.DecodeBatch(entry)
		entries = append(entries, cmds)
		return make([]machine.Result, len(cmds)), err
	}}
	b.idle.L = &b.mu
	var wg sync.WaitGroup
	errs := make(chan error, queueCommands+1+batchCommands+10)
	for range queueCommands + batchCommands + 10 {
		wg.Go(func() {
			_, err := b.do(t.Context(), machine.Command{End: []grid.SessionID{"x"}}, 0)
			errs <- err
		})
	}
	wantCode(t, <-errs, grid.Busy) // nobody else gets an answer yet
	close(release)
	wg.Wait()
	b.close()
	for _, e := range entries {
		if len(e) > batchCommands {
			t.Errorf("an entry of %d commands", len(e))
		}
	}
	_, err := b.do(t.Context(), machine.Command{End: []grid.SessionID{"x"}}, 0)
	wantCode(t, err, grid.Unavailable)
}

func TestBatchesAreBounded(t *testing.T) {
	b := &batcher{most: batchCommands, atOnce: 1}
	big := &grid.Txn{ID: grid.NewRequestID(), Put: []grid.Entry{{Key: "k", Value: make([]byte, 400<<10)}}}
	for range 5 {
		cmd := machine.Command{Txn: big}
		b.queue = append(b.queue, &proposal{ctx: t.Context(), cmd: cmd, size: size(&cmd), done: make(chan struct{})})
	}
	var got []int
	b.active = 1
	b.idle.L = &b.mu
	for batch := b.gather(); batch != nil; batch = b.gather() {
		got = append(got, len(batch))
	}
	if fmt.Sprint(got) != "[2 2 1]" {
		t.Errorf("batches of %v commands of 400 KiB", got)
	}
}

// TestLateTry sends a transaction twice, and lets the first try in after the second has failed. It must not be applied.
func TestLateTry(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), nil)
		n := w.cluster(1, 0)[0]
		_, err := n.Commit(w.ctx, put("a", "1"))
		w.must(err)
		r := n.replica()
		txn := grid.Txn{ID: grid.NewRequestID(), If: []grid.Cond{{Key: "a"}}, Put: []grid.Entry{{Key: "b"}}}
		req := &request{Kind: askCommit, cmd: &machine.Command{Txn: &txn}, Term: r.office.Load().term, Try: 1}
		if p := r.answer(w.ctx, n.id, req); p.Code != grid.Conflict {
			t.Fatalf("%+v", p)
		}
		_, err = n.Commit(w.ctx, grid.Txn{Delete: []string{"a"}}) // the condition would hold now
		w.must(err)
		req.Try = 0
		if p := r.answer(w.ctx, n.id, req); p.Code != grid.Unavailable {
			t.Errorf("a late try: %+v", p)
		}
		req.Try, req.Term = 2, req.Term-1
		if p := r.answer(w.ctx, n.id, req); !p.Other {
			t.Errorf("a try for another term: %+v", p)
		}
		if _, err := n.Get(w.ctx, "b"); !errors.Is(err, grid.NotFound) {
			t.Errorf("it was applied: %v", err)
		}
	})
}

// TestOldAnswers: answers to what was sent before a read began do not make it certain.
func TestOldAnswers(t *testing.T) {
	a := &acks{by: make(map[raft.ServerID]ack)}
	servers := []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d", Suffrage: raft.Nonvoter}}
	sent := a.tick()
	since := a.tick()
	a.note("b", ack{term: 3, began: sent})
	a.note("d", ack{term: 3, began: a.tick()})
	a.note("c", ack{term: 2, began: a.tick()})
	ok, more := a.majority("a", servers, 3, since)
	if ok || isClosed(more) {
		t.Fatal("an old answer, a learner's or one of another term counts")
	}
	a.note("b", ack{term: 3, began: a.tick()})
	if !isClosed(more) {
		t.Error("nobody is woken")
	}
	if ok, _ := a.majority("a", servers, 3, since); !ok {
		t.Error("a new answer does not count")
	}
}

// TestDiskFails ends a replica whose disk cannot be written, and only that.
func TestDiskFails(t *testing.T) {
	virtual(t, func(t *testing.T) {
		broken := make(map[string]*brokenDisk)
		w := newWorld(t, lan(1), nil)
		w.cfg = func(c *Config) {
			d := &brokenDisk{}
			open := c.OpenDisk
			broken[c.Network.Self().String()] = d
			c.OpenDisk = func(dir string) (Disk, error) {
				x, err := open(dir)
				d.StableStore = x.Stable
				x.Stable = d
				return x, err
			}
		}
		nodes := w.cluster(3, 0)
		old := w.leader(nodes...)
		others := without(nodes, old)
		broken[others[0].id.String()].fail.Store(true)
		w.crash(old) // the others must write their votes
		w.until("the replica stops", func() bool { return others[0].replica() == nil })
		st, err := others[0].Status(w.ctx)
		w.must(err)
		if !strings.Contains(st.Note, "disk on fire") {
			t.Errorf("the status does not say what is wrong: %q", st.Note)
		}
		again := w.start(0)
		w.must(again.replicate(w.ctx, testRealm))
		_, err = others[0].Commit(w.ctx, put("a", "1")) // as a client of those that are left
		w.must(err)
	})
}

func FuzzRequest(f *testing.F) {
	batch, _ := machine.AppendBatch(nil, []machine.Command{{Txn: &grid.Txn{Put: []grid.Entry{{Key: "a", Value: []byte("b")}}}, Base: 3}})
	for _, r := range []*request{
		{Realm: "r", Kind: askGet, Key: []byte("\xff")},
		{Realm: "r", Kind: askRange, Prefix: []byte("a/"), Limit: 3, Stale: true},
		{Realm: "r", Kind: askCommit, Batch: batch, Term: 2, Origin: name(1), Hops: 1},
		{Realm: "r", Kind: askRenew, Session: []byte("s")},
	} {
		data, err := grid.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRequest(data)
		if err != nil {
			return
		}
		again, err := grid.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRequest(again); err != nil {
			t.Errorf("what was read once cannot be read again: %v", err)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, p := range []*reply{
		{Entries: toWire([]grid.Entry{{Key: "\xff", Value: []byte("v"), Version: 1, Session: "s"}}), Revision: 2, More: true},
		failed(errUnsure{errLost()}),
		{Leader: name(1), Term: 3, Conf: 4, Servers: []wireServer{{ID: name(2), Voter: true}}},
		{Members: []wireMember{{ID: name(1), Role: grid.Voter, Up: true}}},
	} {
		data, err := grid.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := decodeReply(data); err == nil {
			_ = p.err()
			_ = fromWire(p.Entries)
		}
	})
}

// FuzzFrames reads what streams begin with and carry.
func FuzzFrames(f *testing.F) {
	var buf bytes.Buffer
	for _, v := range []any{hello{Realm: "r", Incarnation: 1}, welcome{Code: grid.Denied, Message: "no"}, watchRequest{Realm: "r", Prefix: []byte("a")}} {
		buf.Reset()
		if err := writeSmall(&buf, v); err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(buf.Bytes()))
	}
	buf.Reset()
	if err := writeNews(&buf, &news{After: 2, Revision: 2, Delete: [][]byte{[]byte("k")}}); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(buf.Bytes()))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = readSmall(bytes.NewReader(data), new(hello))
		_ = readSmall(bytes.NewReader(data), new(welcome))
		_ = readSmall(bytes.NewReader(data), new(watchRequest))
		if n, err := readNews(bytes.NewReader(data)); err == nil {
			_ = fromWire(n.Put)
		}
	})
}
