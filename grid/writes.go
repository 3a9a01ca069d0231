package grid

import (
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Who may write what to the ledger of a private swarm is this one table. The leader asks it about every transaction, and looks at
// the role of the node that the transaction is from. In an open swarm, and where a command has a ledger of its own, nobody asks.

// WriteRule says who may write the keys that begin with a prefix.
type WriteRule struct {
	Prefix string
	Put    MemberRole // to write an entry
	Delete MemberRole // to remove one
	What   string     // they are

	// own tells of an entry that it is the writer's own, which any member may put.
	own func(from peer.ID, rest string, value []byte) bool
	// fair refuses an entry that nobody below a voter may write, even with the role to write others.
	fair func(from peer.ID, e *Entry, held Held) error
	// asked tells of a key that an open job asks for: whoever runs its tasks may put and delete it.
	asked func(rest string, granted []string) bool
}

// Held reads entries of the ledger that is written to, as they are now.
type Held func(prefix string, f func(Entry) error) error

// WriteRules are the rules; the longest prefix that a key begins with counts. A key that none is about is for admins.
var WriteRules = []WriteRule{
	{Prefix: JobKeys, Put: RoleSubmitter, Delete: RoleSubmitter, What: "jobs", fair: keepsOrigin},
	{Prefix: OpenKeys, Put: RoleSubmitter, Delete: RoleSubmitter, What: "who drives the jobs that have not ended"},
	{Prefix: GrantKeys, Put: RoleSubmitter, Delete: RoleSubmitter, What: "what keys open jobs may write"},
	{Prefix: RefKeys, Put: RoleSubmitter, Delete: RoleSubmitter, What: "refs"},
	{Prefix: UserKeys, Put: RoleSubmitter, Delete: RoleSubmitter, What: "keys of `grid kv`, and of tasks", asked: askedFor},
	{Prefix: StandingKeys, Put: RoleSubmitter, Delete: RoleAdmin, What: "how nodes' results have done, as owners of jobs found"},
	{Prefix: NodeKeys, Put: RoleVoter, Delete: RoleVoter, What: "nodes that are up, and their capacity", own: ofNode},
	{Prefix: MemberKeys, Put: RoleVoter, Delete: RoleVoter, What: "nodes of the realm", own: ofNode},
	{Prefix: auditLogKeys, Put: RoleVoter, Delete: RoleVoter, What: "the audit log: entries", own: signedBy},
	{Prefix: auditHeadKeys, Put: RoleVoter, Delete: RoleVoter, What: "the audit log: what is sealed"},
	{Prefix: SwarmKeys, Put: RoleVoter, Delete: RoleVoter, What: "members, revocations and invitations, which are signed records"},
	{Prefix: SecretKeys, Put: RoleVoter, Delete: RoleAdmin, What: "secrets, which voters encrypt anew for nodes that join"},
	{Prefix: usageJobKeys, Put: RoleSubmitter, Delete: RoleVoter, What: "what jobs have used, as their owners counted", fair: keepsSubmitter},
	{Prefix: usageSumKeys, Put: RoleVoter, Delete: RoleVoter, What: "what submitters have used, as the leader's node adds it up"},
	{Prefix: QuotaKeys, Put: RoleAdmin, Delete: RoleAdmin, What: "quotas"},
	{Prefix: TokenKeys, Put: RoleAdmin, Delete: RoleAdmin, What: "tokens for the nodes' API"},
	{Prefix: PluginKeys, Put: RoleAdmin, Delete: RoleAdmin, What: "plugins"},
	{Prefix: AliasKeys, Put: RoleAdmin, Delete: RoleAdmin, What: "aliases of plugins"},
	{Prefix: ExtensionKeys, Put: RoleAdmin, Delete: RoleAdmin, What: "plugins that extend nodes"},
	{Prefix: PluginPolicyKey, Put: RoleAdmin, Delete: RoleAdmin, What: "what the realm demands of modules"},
}

func ofNode(from peer.ID, rest string, _ []byte) bool { return rest == from.String() }

// signedBy reports whether an entry of the audit log is of an act of the node itself.
func signedBy(from peer.ID, rest string, value []byte) bool {
	f, err := openFact(value)
	return err == nil && f.Node == from && f.ID == rest
}

// keepsOrigin refuses a record that has a job be another node's than that of who submits it, or of whom it was before: it ends with that
// node's membership.
func keepsOrigin(from peer.ID, e *Entry, held Held) error {
	rec, err := decodeRecord(*e)
	if err != nil {
		return err
	}
	want := from
	if err := held(e.Key, func(old Entry) error {
		if old.Key != e.Key {
			return nil
		}
		before, err := decodeRecord(old)
		want = before.origin()
		return err
	}); err != nil {
		return err
	}
	if rec.origin() != want {
		return Errorf(Denied, "job %s is of the node %s, not of %s", rec.ID, want, rec.origin())
	}
	return nil
}

// keepsSubmitter refuses to count what a job has used for somebody else than it is recorded to run for.
func keepsSubmitter(from peer.ID, e *Entry, held Held) error {
	u, err := decodeJobUsage(*e)
	if err != nil {
		return err
	}
	id := strings.TrimPrefix(e.Key, usageJobKeys)
	want, known := Submitter{Node: from}, false
	if err := held(JobKeys+id, func(old Entry) error {
		if old.Key != JobKeys+id {
			return nil
		}
		rec, err := decodeRecord(old)
		want, known = rec.by(), true
		return err
	}); err != nil {
		return err
	}
	if u.Node != want.Node || known && u.User != want.User {
		return Errorf(Denied, "what job %.80s has used counts for the node %s, user %.80q, not for %s, %.80q", id, want.Node, want.User, u.Node, u.User)
	}
	return nil
}

// askedFor reports whether a task of an open job may write a key of users.
func askedFor(key string, granted []string) bool {
	return slices.ContainsFunc(granted, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// openGrants lists the prefixes of keys that tasks of open jobs may write.
func openGrants(held Held) (prefixes []string) {
	_ = held(GrantKeys, func(e Entry) error {
		var g jobGrant
		if UnmarshalMessage(e.Value, &g) == nil {
			prefixes = append(prefixes, g.KV...)
		}
		return nil
	})
	return prefixes
}

// ruleFor finds the rule for a key.
func ruleFor(key string) (rule WriteRule) {
	rule = WriteRule{Put: RoleAdmin, Delete: RoleAdmin}
	for _, r := range WriteRules {
		if strings.HasPrefix(key, r.Prefix) && len(r.Prefix) > len(rule.Prefix) {
			rule = r
		}
	}
	return rule
}

// CheckWrites refuses a transaction of a member with a role that writes what it may not. held reads what the ledger holds.
func CheckWrites(from peer.ID, role MemberRole, t *Txn, held Held) error {
	asked := sync.OnceValue(func() []string { return openGrants(held) }) // once, however many keys are written
	for i := range t.Put {
		e := &t.Put[i]
		r := ruleFor(e.Key)
		rest := strings.TrimPrefix(e.Key, r.Prefix)
		if !role.Includes(r.Put) && !(r.own != nil && r.own(from, rest, e.Value)) && !(r.asked != nil && r.asked(rest, asked())) {
			return refuseWrite(from, role, "write", e.Key, r.Put)
		}
		if r.fair != nil && !role.Includes(RoleVoter) {
			if err := r.fair(from, e, held); err != nil {
				return err
			}
		}
	}
	for _, key := range t.Delete {
		r := ruleFor(key)
		if !role.Includes(r.Delete) && !(r.asked != nil && r.asked(strings.TrimPrefix(key, r.Prefix), asked())) {
			return refuseWrite(from, role, "remove", key, r.Delete)
		}
	}
	return nil
}

func refuseWrite(from peer.ID, role MemberRole, what, key string, need MemberRole) error {
	return Errorf(Denied, "%s is a member as %s and may not %s %.80q in the ledger, which needs the role %s", from, role, what, key, need).
		Hint("do it on a node with that role, or have the role changed by who has the authority's key: `grid member set-role %s %s`", from, need)
}

// jobGrant is what the ledger's entry under [GrantKeys] says: prefixes of the keys that tasks of an open job may write.
type jobGrant struct {
	KV []string `cbor:"kv"`
}

func grantKey(id JobID) string { return GrantKeys + string(id) }

// maxWrites bounds the prefixes in a job's record, in bytes.
const maxWrites = 64 << 10

// writable lists the prefixes of keys that the tasks of a job may write.
func (s *Spec) writable() (prefixes []string, err error) {
	for i := range s.Stages {
		for _, text := range s.Stages[i].Grants.KV {
			if g, err := ParseKVGrant(text); err == nil && !g.ReadOnly {
				prefixes = append(prefixes, g.Prefix)
			}
		}
	}
	slices.Sort(prefixes)
	prefixes = slices.Compact(prefixes)
	size := 0
	for _, p := range prefixes {
		size += len(p)
	}
	if size > maxWrites {
		return nil, Errorf(Limit, "the keys that the job's stages may write have prefixes of %d bytes together, at most %d are allowed", size, maxWrites).
			Hint("grant shorter prefixes, that several stages share")
	}
	return prefixes, nil
}
