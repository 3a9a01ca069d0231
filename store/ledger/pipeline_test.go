package ledger

import (
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
		p := pipeline{stuckPipeline{closed: make(chan struct{})}, 5 * time.Second, nil}
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
	p := pipeline{sentPipeline{}, time.Minute, func() uint64 { return 100 }}
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
