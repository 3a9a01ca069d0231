package ledger

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// stuckPipeline is one whose answers nobody reads any more.
type stuckPipeline struct {
	raft.AppendPipeline
	closed chan struct{}
}

func (p stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-p.closed
	return nil, raft.ErrPipelineShutdown
}

func (p stuckPipeline) Close() error {
	close(p.closed)
	return nil
}

func TestPipelineStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := pipeline{stuckPipeline{closed: make(chan struct{})}, &transport{stall: 5 * time.Second}, ""}
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, nil); err != raft.ErrPipelineShutdown || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// sentPipeline is one that sends everything.
type sentPipeline struct{ raft.AppendPipeline }

func (sentPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	return nil, nil
}

// TestPipelineFarBehind: a replica that lacks more than one message holds is not left to a pipeline.
func TestPipelineFarBehind(t *testing.T) {
	p := pipeline{sentPipeline{}, &transport{stall: time.Minute, last: func() uint64 { return 100 }}, ""}
	message := func(first, entries uint64) *raft.AppendEntriesRequest {
		req := &raft.AppendEntriesRequest{PrevLogEntry: first - 1}
		for i := range entries {
			req.Entries = append(req.Entries, &raft.Log{Index: first + i})
		}
		return req
	}
	for _, c := range []struct {
		first, entries uint64
		far            bool
	}{
		{101, 0, false},
		{100, 1, false},
		{101 - appendEntries, appendEntries, false},
		{100 - appendEntries, appendEntries, true},
		{20, appendEntries, true},
	} {
		if _, err := p.AppendEntries(message(c.first, c.entries), nil); (err != nil) != c.far {
			t.Errorf("%d entries from %d on, of 100: %v", c.entries, c.first, err)
		}
	}
}

// TestPipelineEnds: when all who write wait for an entry that went down with its pipeline, it is sent again at once, not when raft
// looks again, nor when somebody else writes.
func TestPipelineEnds(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), func(c *Config) { c.Timing.Election, c.batch = 10*time.Second, 1 })
		nodes := w.cluster(3, 0)
		const writers = 4 * appendEntries // more entries under way than a message holds: pipelines end all the time
		nodes[0].replica().batch.atOnce = writers
		began := time.Now()
		var all sync.WaitGroup
		for c := range writers {
			all.Go(func() {
				for i := range 20 {
					if _, err := nodes[0].Commit(w.ctx, put(fmt.Sprint(c, "-", i), "x")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		e, err := nodes[0].Get(w.ctx, "0-19") // also when the last entry is none of anybody's
		if err != nil || string(e.Value) != "x" {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// nowhere is a network on which nobody can be reached.
type nowhere struct {
	dials  int
	closed chan struct{}
}

func (n *nowhere) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	n.dials++
	return nil, errors.New("nobody is there")
}

func (n *nowhere) Accept() (net.Conn, error) {
	<-n.closed
	return nil, net.ErrClosed
}

func (n *nowhere) Close() error {
	close(n.closed)
	return nil
}

func (n *nowhere) Addr() net.Addr { return addr("self") }

// TestEntriesAgain: entries for a replica that is away are sent again and again, for as long as they are this node's to send; heartbeats, which raft
// repeats itself, are not.
func TestEntriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far, done := &nowhere{closed: make(chan struct{})}, make(chan struct{})
		mine := 20
		tr := &transport{
			NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: far, Timeout: time.Second}),
			acks:             &acks{by: make(map[raft.ServerID]ack)}, done: done,
			mine: func(id raft.ServerID, term uint64) bool { mine--; return id == "far" && term == 7 && mine > 0 },
		}
		defer tr.Close()
		send := func(req *raft.AppendEntriesRequest) (dials int, took time.Duration) {
			began, before := time.Now(), far.dials
			if err := tr.AppendEntries("far", "far", req, new(raft.AppendEntriesResponse)); err == nil {
				t.Error("it went well")
			}
			return far.dials - before, time.Since(began)
		}
		entries := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 3, PrevLogTerm: 6, LeaderCommitIndex: 2}
		if dials, took := send(&raft.AppendEntriesRequest{Term: 7}); dials != 1 || took != 0 {
			t.Errorf("a heartbeat was sent %d times in %v", dials, took)
		}
		if dials, took := send(entries); dials != 20 || took > 20*lastAgain {
			t.Errorf("while this node leads, it was sent %d times in %v", dials, took)
		}
		mine = 1 << 30
		time.AfterFunc(time.Minute, func() { close(done) })
		if dials, took := send(entries); took != time.Minute || dials < 200 {
			t.Errorf("until the replica closed, it was sent %d times in %v", dials, took)
		}
	})
}
