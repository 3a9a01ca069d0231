package ledger

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

// AppendEntriesPipeline is told at raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	return pipeline{p, t, id}, nil
}

// pipeline does not wait for ever. In raft's, who sends waits for who reads the answers; but the reader leaves when a
// replica refuses something, and does not tell. The sender, that replica's copy, and whoever stops raft would then
// wait until the process ends. Here the sender is let go after a while, and raft begins another pipeline.
//
// Nor is it for replicas that are far behind: raft sends one message for each new entry, and without new ones, one in a
// while. When the ledger waits for that very replica, there are no new ones. So such a message is refused, and raft sends all
// that is missing without a pipeline first.
//
// However one ends, raft sends nothing to that replica until there is a new entry, or half a second to a second later. There is
// none when all who write wait for that very replica, so somebody is told of the end.
type pipeline struct {
	raft.AppendPipeline
	t  *transport
	to raft.ServerID
}

var errFarBehind = grid.Errorf(grid.Unavailable, "ledger: it lacks more than one message holds")

// AppendEntries is told at raft.AppendPipeline.
func (p pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if n := len(req.Entries); n >= appendEntries && req.Entries[n-1].Index < p.t.last() {
		return nil, errFarBehind
	}
	p.t.hold(p.to, req)
	t := time.AfterFunc(p.t.stall, func() { _ = p.AppendPipeline.Close() })
	defer t.Stop()
	return p.AppendPipeline.AppendEntries(req, resp)
}

// Close is told at raft.AppendPipeline. Raft calls it at each pipeline's end.
func (p pipeline) Close() error {
	err := p.AppendPipeline.Close()
	p.t.ended()
	return err
}

// againEvery is how far apart entries are at least that have no other purpose than that raft sends what is missing.
const againEvery = 10 * time.Millisecond

// pipelineEnded has keepSending look.
func (r *replica) pipelineEnded() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// keepSending adds an entry that does nothing when a pipeline has ended, upon which raft sends at once what a replica lacks.
func (r *replica) keepSending() {
	for {
		select {
		case <-r.again:
		case <-r.stop:
			return
		}
		if r.office.Load() != nil {
			r.wg.Go(func() { _ = r.barrier() }) // which may take until the office is lost, and raft needs no more than that it is there
		}
		select {
		case <-time.After(againEvery):
		case <-r.stop:
			return
		}
	}
}
