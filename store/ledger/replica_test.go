package ledger

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestNudgeBesideDead: a replica that dies just when it is told of a commit does not keep the others from being told of later ones.
func TestNudgeBesideDead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), nil)
		nodes := w.cluster(3, 0)
		leader, dies, other := nodes[0], nodes[1], nodes[2]
		_, err := leader.Commit(w.ctx, put("a", "1"))
		w.must(err)
		w.crash(dies)
		for range 5 {
			_, err = leader.Commit(w.ctx, put("a", "1"))
			w.must(err)
			pass(10 * time.Millisecond)
		}
		for range 10 {
			pass(1100 * time.Millisecond)
			rev, err := leader.Commit(w.ctx, put("a", "1"))
			w.must(err)
			began := time.Now()
			w.until("the other has it", func() bool { return other.replica().machine.Revision() >= rev })
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Fatalf("a replica that is well hears of a commit after %v", took)
			}
		}
	})
}

// slowLog stores nothing while it is held.
type slowLog struct {
	raft.LogStore
	held *atomic.Bool
	free chan struct{}
}

func (l slowLog) StoreLogs(e []*raft.Log) error {
	if l.held.Load() {
		<-l.free
	}
	return l.LogStore.StoreLogs(e)
}

// TestHandOverToNobody: a leader was to hand over, again and again, while one of the others was dead and the last one slow. It can be written when that
// one is not slow any more.
func TestHandOverToNobody(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var held atomic.Bool
		free := make(chan struct{})
		w := newWorld(t, lan(1), func(c *Config) {
			open := c.OpenDisk
			if c.Network.Self() == name(2) {
				c.OpenDisk = func(dir string) (Disk, error) {
					d, err := open(dir)
					d.Log = slowLog{d.Log, &held, free}
					return d, err
				}
			}
		})
		nodes := w.cluster(3, 0)
		a, b, c := nodes[0], nodes[1], nodes[2]
		w.until("all are up to date", func() bool { return min(b.lastIndex(), c.lastIndex()) >= a.lastIndex() })
		held.Store(true)
		_, err := a.Commit(w.ctx, put("a", "1"))
		w.must(err)
		pass(20 * time.Millisecond)
		w.crash(b)
		go func() { _, _ = a.Commit(w.ctx, put("a", "2")) }()
		pass(15 * time.Second)
		for _, to := range []peer.ID{"", "", b.id, b.id, b.id, ""} {
			if err := a.transfer(w.ctx, to); err == nil && a.isLeader() {
				t.Error("it has handed over, and leads")
			}
			pass(2 * time.Second)
		}
		held.Store(false)
		close(free)
		pass(5 * time.Second)
		if _, err := c.Commit(w.ctx, put("a", "3")); err != nil {
			t.Errorf("two of three are well: %v", err)
		}
	})
}

// TestCloseBesideBarrier: a replica that is closed just when a barrier is committed ends. Time is real, as the machine is held.
func TestCloseBesideBarrier(t *testing.T) {
	for range 4 {
		w := newWorld(t, lan(1), nil)
		nodes := append(w.cluster(1, 0), w.start(1))
		w.must(nodes[1].replicate(w.ctx, testRealm))
		w.must(nodes[0].addLearner(w.ctx, nodes[1].id))
		w.until("it is up to date", func() bool { return nodes[1].lastIndex() >= nodes[0].lastIndex() })
		r := nodes[0].replica()
		r.fsm.mu.Lock()
		last := r.raft.LastIndex()
		r.addLearner(name(7), time.Second)
		w.until("the entry", func() bool { return r.raft.LastIndex() > last })
		last = r.raft.LastIndex()
		r.pipelineEnded()
		w.until("the barrier", func() bool { return r.raft.CommitIndex() > last })
		done := make(chan struct{})
		go func() {
			_ = nodes[0].Close()
			close(done)
		}()
		w.until("it is closing", func() bool { return nodes[0].ctx.Err() != nil })
		r.fsm.mu.Unlock()
		<-done
	}
}

// TestHostileReplica: what raft would end the process for does not get to it.
func TestHostileReplica(t *testing.T) {
	w := newWorld(t, lan(1), nil)
	leader := w.cluster(1, 0)[0]
	n := w.start(5)
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: newLayer(n.net, func() hello { return hello{Realm: testRealm.ID} }), Timeout: time.Second})
	defer tr.Close()
	to := address(leader.id)
	header := raft.RPCHeader{ProtocolVersion: 3, Addr: []byte(address(n.id)), ID: []byte(address(n.id))}
	for what, entry := range map[string]*raft.Log{
		"no entry":            nil,
		"of no known type":    {Index: 100, Term: 1000, Type: 77},
		"of an old type":      {Index: 100, Term: 1000, Type: raft.LogAddPeerDeprecated, Data: []byte("x")},
		"not a configuration": {Index: 100, Term: 1000, Type: raft.LogConfiguration, Data: []byte("\xff\xffx")},
	} {
		var resp raft.AppendEntriesResponse
		err := tr.AppendEntries(raft.ServerID(to), to, &raft.AppendEntriesRequest{RPCHeader: header, Term: 1000, Entries: []*raft.Log{entry}}, &resp)
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := checkCommand(&raft.InstallSnapshotRequest{SnapshotVersion: 1, Configuration: []byte("x")}); err == nil {
		t.Error("a snapshot without a configuration is taken")
	}
	if err := checkCommand(&raft.InstallSnapshotRequest{}); err == nil {
		t.Error("a snapshot of version 0 is taken")
	}
	if _, err := leader.Commit(t.Context(), put("a", "1")); err != nil {
		t.Error(err)
	}
}

// FuzzConfiguration: what is read is what would be written.
func FuzzConfiguration(f *testing.F) {
	c := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "b", Suffrage: raft.Nonvoter}}}
	f.Add(raft.EncodeConfiguration(c))
	f.Add([]byte("\xff\xffx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeConfiguration(data)
		if err != nil {
			return
		}
		again, err := decodeConfiguration(raft.EncodeConfiguration(c))
		if err != nil || len(again.Servers) != len(c.Servers) {
			t.Errorf("%+v became %+v, %v", c, again, err)
		}
	})
}
