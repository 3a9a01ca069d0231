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
	doTell  = "tell"  // of memberships, revocations and successions that are new; for members only
	doSync  = "sync"  // to compare what revocations each knows; for members only
)

// request is one of join/1.
type request struct {
	Do          string   `cbor:"do"`
	Swarm       peer.ID  `cbor:"swarm"`
	Chain       [][]byte `cbor:"chain,omitempty"`       // hello: of the sender
	Records     [][]byte `cbor:"records,omitempty"`     // tell: memberships
	Revocations [][]byte `cbor:"revocations,omitempty"` // hello, tell
	Successions [][]byte `cbor:"successions,omitempty"` // hello, tell: of the authority's key
	Digest      []byte   `cbor:"digest,omitempty"`      // sync
	Serial      uint64   `cbor:"serial,omitempty"`      // hello, sync: of the membership of the sender that it knows
	Life        []byte   `cbor:"life,omitempty"`        // hello, sync: of the process that asks, drawn at its start
	Addrs       []string `cbor:"addrs,omitempty"`       // hello, sync: of the sender
	Time        int64    `cbor:"time,omitempty"`        // hello, sync: by the clock of the sender
	Invite      []byte   `cbor:"invite,omitempty"`      // join
	Proof       []byte   `cbor:"proof,omitempty"`       // join
	Name        string   `cbor:"name,omitempty"`        // join: what the member is to be called
}

// reply is the answer.
type reply struct {
	Chain       [][]byte `cbor:"chain,omitempty"`       // hello: of the answerer; join: of who joins
	Records     [][]byte `cbor:"records,omitempty"`     // join: of other members; hello, sync: of who asks, if it is newer than what it has shown
	Revocations [][]byte `cbor:"revocations,omitempty"` // hello, join, sync
	Successions [][]byte `cbor:"successions,omitempty"` // hello, join, sync
	Digest      []byte   `cbor:"digest,omitempty"`      // sync: of the answerer, if it differs
	Twin        []string `cbor:"twin,omitempty"`        // hello, sync: addresses of another process with the key of who asks
	Time        int64    `cbor:"time,omitempty"`        // hello, join, sync: by the clock of the answerer
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
	case len(q.Chain) > maxChain || len(q.Records) > maxAtOnce || len(q.Revocations) > maxAtOnce || len(q.Successions) > maxLineage:
		return grid.Errorf(grid.Limit, "swarm: too many records in one message")
	case len(q.Digest) > digestSize || len(q.Life) > lifeSize || len(q.Addrs) > maxTwinAddrs:
		return grid.Errorf(grid.Limit, "swarm: a message is out of bounds")
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
