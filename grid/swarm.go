package grid

import (
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// SwarmKeys begin what the ledger holds of a private swarm: its members, revocations, and the use of its invitations.
// The entries are signed records, which are checked by whoever reads them; see package p2p/member.
const SwarmKeys = "swarm/"

// MemberRole is what a member of a private swarm may do. Each role includes those before it.
type MemberRole string

// The roles of members.
const (
	RoleWorker    MemberRole = "worker"    // runs tasks, and keeps and serves data
	RoleSubmitter MemberRole = "submitter" // and submits jobs
	RoleVoter     MemberRole = "voter"     // and keeps the ledger, and counts for its majority
	RoleAdmin     MemberRole = "admin"     // and revokes and approves members
)

var memberRoles = []MemberRole{RoleWorker, RoleSubmitter, RoleVoter, RoleAdmin}

// Check refuses what is no role.
func (r MemberRole) Check() error {
	if !slices.Contains(memberRoles, r) {
		return Errorf(Invalid, "%.40q is not a role of members", string(r)).Hint("use worker, submitter, voter or admin")
	}
	return nil
}

// Includes reports whether who has role r may do what need stands for. No role includes nothing.
func (r MemberRole) Includes(need MemberRole) bool {
	return slices.Index(memberRoles, r) >= slices.Index(memberRoles, need) && r.Check() == nil && need.Check() == nil
}

// SwarmMember is a member of a private swarm, for people.
type SwarmMember struct {
	ID      string     `json:"id"`               // its peer ID
	Name    string     `json:"name,omitempty"`   // for people
	Role    MemberRole `json:"role"`             // what it may do
	Issued  time.Time  `json:"issued"`           // when its record was signed
	Expires time.Time  `json:"expires,omitzero"` // zero: never
	Serial  uint64     `json:"serial"`           // grows whenever a member is given another record
	By      string     `json:"by"`               // who signed the record: the swarm's authority, or the member that let it in
	Up      bool       `json:"up"`               // connected to the node that was asked, or that node itself
	// State is "member", "revoked", "left", "expired", or "waiting" for approval.
	State string `json:"state"`
}

// SwarmInfo describes the private swarm of a node.
type SwarmInfo struct {
	ID        string     `json:"id"`        // the peer ID of its first key, the one for recovery
	Name      string     `json:"name"`      // for people
	Role      MemberRole `json:"role"`      // of this node
	Authority bool       `json:"authority"` // the node's home holds the authority's key
	Members   int        `json:"members"`   // that it has
	PSK       bool       `json:"psk"`       // there is a pre-shared key besides

	Key        string    `json:"key,omitempty"`        // of the authority; empty when that is in dispute
	Succession uint64    `json:"succession,omitempty"` // the number of the record that says so
	Disputed   []string  `json:"disputed,omitempty"`   // keys that two successions with equal right name: one was stolen
	Expires    time.Time `json:"expires,omitzero"`     // when this node's membership ends; zero: never
	Ending     bool      `json:"ending,omitempty"`     // and that is soon, or was
	Ended      string    `json:"ended,omitempty"`      // why this node is a member no more, as far as it knows
	Advice     string    `json:"advice,omitempty"`     // what to do about that
	Twin       []string  `json:"twin,omitempty"`       // addresses of another node that runs with this one's key
}

// KeyRotation is what became of a change of the authority's key.
type KeyRotation struct {
	Key         string `json:"key"`         // the new one
	Succession  uint64 `json:"succession"`  // the number of the record that says so
	Members     int    `json:"members"`     // whose memberships were signed anew
	Revocations int    `json:"revocations"` // that were signed anew
}

// InviteRequest says whom to invite to a private swarm.
type InviteRequest struct {
	Role    MemberRole    `json:"role"`       // of those who join by it
	Expires time.Duration `json:"expires_ns"` // from now on
	Uses    uint32        `json:"uses"`       // how many nodes may join by it
	Lasts   time.Duration `json:"lasts_ns"`   // how long each is a member; 0: until it is revoked
	Approve bool          `json:"approve"`    // each waits until an admin approves of it
}

// Invite is an invitation to a private swarm: whoever has the token may join.
type Invite struct {
	Token   string    `json:"token"`   // the invitation, as text
	Expires time.Time `json:"expires"` // when nobody can join by it any more
}

// CheckMemberName refuses what is no name for a member or a swarm: up to 64 bytes of printable UTF-8, perhaps none.
func CheckMemberName(name string) error {
	ok := len(name) <= 64 && utf8.ValidString(name)
	for _, r := range name {
		ok = ok && unicode.IsPrint(r)
	}
	if !ok {
		return Errorf(Invalid, "%.80q is not a name for a member or a swarm", name).Hint("use at most 64 bytes of printable text")
	}
	return nil
}
