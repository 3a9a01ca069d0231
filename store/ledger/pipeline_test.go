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
		p := pipeline{stuckPipeline{closed: make(chan struct{})}, 5 * time.Second}
		if _, err := p.AppendEntries(nil, nil); err != raft.ErrPipelineShutdown || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
