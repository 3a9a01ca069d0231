package grid

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
)

// protoRevoke, owner to holder: revokeMsg, nothing. Tasks that the holder was given need not run any more, as another
// node has ended them; or, with queued, not now, unless they run already. The rest of the job goes on.
const protoRevoke Protocol = "revoke/1"

type revokeMsg struct {
	Job   JobID  `cbor:"job"`
	Stage uint32 `cbor:"stage"`
	Epoch Epoch  `cbor:"epoch"`
	Spans []Span `cbor:"spans"`
	// Queued: those that run may go on.
	Queued bool `cbor:"queued,omitempty"`
}

func (n *Node) revoke(e Revoke) {
	n.tell(e.To, protoRevoke, revokeMsg{Job: e.Job, Stage: e.Stage, Epoch: e.Epoch, Spans: e.Spans, Queued: e.Queued})
}

func (n *Node) serveRevoke() {
	serveCall(n, protoRevoke, func(_ context.Context, from peer.ID, m revokeMsg) (struct{}, error) {
		n.post(Revoked{From: from, Work: Work{m.Job, m.Stage}, Epoch: m.Epoch, Spans: m.Spans, Queued: m.Queued})
		return struct{}{}, nil
	})
}
