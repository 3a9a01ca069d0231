package member

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// Needs are the roles that conversations need, of whoever begins them; any other needs [grid.RoleWorker]. Owners of what their tasks
// have spawned may be workers, so leases are looked at one by one: see grid/roles.go.
var Needs = map[grid.Protocol]grid.MemberRole{
	"raft/1":       grid.RoleVoter, // keeping the ledger
	"job-cancel/1": grid.RoleSubmitter,
}

// What a request of join/1 wants.
const (
	doHello = "hello" // to show each other who one is
	doJoin  = "join"  // to become a member
	doTell  = "tell"  // of memberships and revocations that are new; for members only
)

// request is one of join/1.
type request struct {
	Do          string   `cbor:"do"`
	Swarm       peer.ID  `cbor:"swarm"`
	Chain       [][]byte `cbor:"chain,omitempty"`       // hello: of the sender
	Records     [][]byte `cbor:"records,omitempty"`     // tell: memberships
	Revocations [][]byte `cbor:"revocations,omitempty"` // hello, tell
	Invite      []byte   `cbor:"invite,omitempty"`      // join
	Proof       []byte   `cbor:"proof,omitempty"`       // join
	Name        string   `cbor:"name,omitempty"`        // join: what the member is to be called
}

// reply is the answer.
type reply struct {
	Chain       [][]byte `cbor:"chain,omitempty"`       // hello: of the answerer; join: of who joins
	Records     [][]byte `cbor:"records,omitempty"`     // join: of other members
	Revocations [][]byte `cbor:"revocations,omitempty"` // hello, join
	Waiting     bool     `cbor:"waiting,omitempty"`     // join: an admin has to approve first; ask again
	Addrs       []string `cbor:"addrs,omitempty"`       // join: of members
	Name        string   `cbor:"name,omitempty"`        // join: of the swarm
	Realm       string   `cbor:"realm,omitempty"`       // join: the name of the realm
}

// maxMessage bounds a message. Of strangers package p2p reads less.
const maxMessage = 4 << 20

func (q *request) check(swarm peer.ID) error {
	switch {
	case q.Swarm != swarm:
		return grid.Errorf(grid.Denied, "swarm: this is the swarm %s, not %s", swarm, q.Swarm).Hint("use a token of the swarm to which that node belongs")
	case len(q.Chain) > maxChain || len(q.Records) > maxAtOnce || len(q.Revocations) > maxAtOnce:
		return grid.Errorf(grid.Limit, "swarm: too many records in one message")
	}
	return nil
}

func decodeMessage[T any](data []byte) (v T, err error) {
	if len(data) > maxMessage {
		return v, grid.Errorf(grid.Limit, "swarm: a message of %d bytes, at most %d are allowed", len(data), maxMessage)
	}
	return v, grid.UnmarshalMessage(data, &v)
}

// protocol is the one that strangers reach.
const protocol = p2p.JoinProtocol
