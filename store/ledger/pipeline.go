package ledger

import (
	"time"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline is told at raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	return pipeline{p, t.stall}, nil
}

// pipeline does not wait for ever. In raft's, who sends waits for who reads the answers; but the reader leaves when a
// replica refuses something, and does not tell. The sender, that replica's copy, and whoever stops raft would then
// wait until the process ends. Here the sender is let go after a while, and raft begins another pipeline.
type pipeline struct {
	raft.AppendPipeline
	stall time.Duration
}

// AppendEntries is told at raft.AppendPipeline.
func (p pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	t := time.AfterFunc(p.stall, func() { _ = p.Close() })
	defer t.Stop()
	return p.AppendPipeline.AppendEntries(req, resp)
}
