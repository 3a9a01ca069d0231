package grid

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What some guests are granted only the nodes of one realm have: its map, and its secrets. Their tasks stay inside. The
// scheduler gives them to no thief from elsewhere, and a node takes them from no victim from elsewhere: with another
// ledger they would come to something else, and with this realm's own a stranger's program could read what is in it.
// Whoever runs such a task checks again: its lease says that it is to stay inside, which only such have that came
// from inside.

// errOutside is why a node of another realm runs none of such tasks.
var errOutside = Errorf(Denied, "it is of another realm, and the tasks use keys or secrets of this one")

// inRealm reports whether a node is known to be up and of this node's realm. It asks nobody.
func (n *Node) inRealm(id peer.ID) bool {
	return id == n.self || n.realm != nil && n.realm.isUp(id)
}

// onlyOurs leaves out of leases that a victim gave what this node is not to run: of a victim of its realm nothing, of another, if
// it was asked as such, what is not lent. The owner has these tasks back when the leases run out.
func (n *Node) onlyOurs(leases []Lease, victim peer.ID, outside bool) []Lease {
	if n.inRealm(victim) {
		return leases
	}
	if len(leases) == 0 || !outside || n.lendsTo(victim) != nil {
		return nil // it was asked as one of the realm
	}
	return n.fromOutside(leases, victim)
}

// checkOurs refuses to run tasks that use a realm's map or secrets for anybody outside of this one.
func (n *Node) checkOurs(ctx context.Context, l Lease, st *Stage) error {
	if l.Owner == n.self || !st.Grants.Realm() {
		return nil
	}
	if !l.Class.Realm {
		return Errorf(Denied, "stage %d of job %s was granted keys or secrets of a realm, but its lease does not say so", l.Stage, l.Job)
	}
	if err := n.checkRealm(ctx, l.Owner); err != nil {
		return Errorf(CodeOf(err), "stage %d of job %s was granted keys or secrets of its owner's realm: %w", l.Stage, l.Job, err)
	}
	return nil
}
