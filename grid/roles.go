package grid

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// In a private swarm members have roles, and what a node works for depends on them. [NodeConfig.May] tells who may what; without it
// everybody may everything. Four rules follow:
//
//  1. A node that may not submit takes no jobs from its users.
//  2. Nobody takes leases from such a node on a job of its own, nor runs them. Tasks that a task has spawned have the node that runs it
//     for their owner, whatever its role: they count as the job's at the top, which the ledger must have, and must be of its modules.
//  3. A job is of the node that it was submitted to, its origin, whoever owns it by now. When that node may not submit any more, as it
//     was revoked or has another role, the job ends as failed, and says why.
//  4. An owner that may not submit counts as gone: its jobs are taken over, by nodes that may, which go on or, by rule 3, end them.
//
// An answer of NodeConfig.May is final when its code is Denied; with another one, such as of a node that is not known yet, the
// question is asked again later.

// maySubmit refuses jobs of a node that may not submit any.
func (n *Node) maySubmit() error {
	if err := n.may(n.self, RoleSubmitter); err != nil {
		return Errorf(CodeOf(err), "this node submits no jobs: %w", err).Hint("%s", AdviceOf(err))
	}
	return nil
}

// mayAdminister refuses what only admins may have this node do.
func (n *Node) mayAdminister() error { return n.may(n.self, RoleAdmin) }

func (n *Node) may(id peer.ID, need MemberRole) error {
	if n.May == nil {
		return nil
	}
	return n.May(id, need)
}

// origin is the node whose job it is.
func (r *Record) origin() peer.ID {
	if r.Origin == "" {
		return r.Owner
	}
	return r.Origin
}

// mayGoOn refuses to work on for a job whose origin may not submit jobs any more.
func (n *Node) mayGoOn(rec *Record) error {
	if err := n.may(rec.origin(), RoleSubmitter); err != nil {
		return Errorf(CodeOf(err), "the node that it was submitted to may submit no jobs: %w", err).Hint("%s", AdviceOf(err))
	}
	return nil
}

// drops reports whether an owner of open jobs counts as gone for what it may not.
func (n *Node) drops(owner peer.ID) bool { return CodeOf(n.may(owner, RoleSubmitter)) == Denied }

// maxRoots bounds the jobs of others of which a node remembers what the ledger says.
const maxRoots = 1024

// roots is what the ledger says of jobs that others own.
type roots struct {
	mu    sync.Mutex
	all   map[JobID]rootInfo
	order []JobID
}

// rootInfo is what of a job does not change.
type rootInfo struct {
	spec    Link
	origin  peer.ID
	modules []cid.Cid // of its stages; nil: not read yet
}

func (r *roots) get(id JobID) (rootInfo, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, ok := r.all[id]
	return info, ok
}

func (r *roots) set(id JobID, info rootInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.all[id]; !again {
		if r.all == nil {
			r.all = make(map[JobID]rootInfo)
		}
		for len(r.order) >= maxRoots {
			delete(r.all, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, id)
	}
	r.all[id] = info
}

// onlyAllowed leaves out of leases that a victim gave those of owners that nobody works for.
func (n *Node) onlyAllowed(ctx context.Context, leases []Lease, victim peer.ID) []Lease {
	if n.May == nil {
		return leases
	}
	return slices.DeleteFunc(leases, func(l Lease) bool {
		err := n.mayWork(ctx, &l)
		if j := n.job(l.Job); l.Owner == n.self && (j == nil || j.rec.Spec != l.Spec) {
			err = Errorf(Denied, "it is of a job that this node does not have")
		}
		if err != nil {
			n.log.Warn("a lease is not taken", "job", l.Job, "stage", l.Stage, "owner", l.Owner, "victim", victim, "err", err, "hint", AdviceOf(err))
		}
		return err != nil
	})
}

// mayWork refuses to run tasks for who may not have others work for it.
func (n *Node) mayWork(ctx context.Context, l *Lease) error {
	if n.May == nil || l.Owner == n.self {
		return nil
	}
	id := rootJob(l.Job)
	root, ours, err := n.rootOf(ctx, id)
	switch {
	case err != nil:
		return Errorf(CodeOf(err), "job %s: it is not known whose it is: %w", id, err)
	case !ours && n.inRealm(l.Owner):
		return Errorf(Denied, "job %s is not in the ledger of the realm that its owner %s is of", id, l.Owner).Hint("jobs begin with `grid run` on a node that is a submitter")
	case !ours || id == l.Job:
		// Whose job it is in another realm is not known here: who hands its tasks out answers for them.
		if err := n.may(l.Owner, RoleSubmitter); err != nil {
			return Errorf(CodeOf(err), "job %s: nobody works for its owner: %w", id, err).Hint("%s", AdviceOf(err))
		}
	}
	if !ours {
		return nil
	}
	if err := n.may(root.origin, RoleSubmitter); err != nil {
		return Errorf(CodeOf(err), "job %s: nobody works for the node that it was submitted to: %w", id, err).Hint("%s", AdviceOf(err))
	}
	if id == l.Job && l.Spec != root.spec {
		return Errorf(Denied, "job %s has another spec in the ledger than %s, which its lease names", id, l.Spec)
	}
	return nil
}

// maySpawn refuses tasks that claim to be spawned by tasks of a job, and are of none of its modules.
func (n *Node) maySpawn(ctx context.Context, l *Lease, st *Stage) error {
	id := rootJob(l.Job)
	if n.May == nil || l.Owner == n.self || id == l.Job {
		return nil
	}
	root, ours, err := n.rootOf(ctx, id)
	if err != nil || !ours {
		return err
	}
	if root.modules == nil {
		spec, err := n.readSpec(ctx, &Record{Spec: root.spec, Owner: root.origin})
		if err != nil {
			return err
		}
		for i := range spec.Stages {
			root.modules = append(root.modules, spec.Stages[i].Module.Cid)
		}
		n.roots.set(id, root)
	}
	if !slices.Contains(root.modules, st.Module.Cid) {
		return Errorf(Denied, "the module %s is none of job %s, whose tasks are said to have spawned one of it", st.Module, id)
	}
	return nil
}

// rootOf tells what the realm's ledger says of a job; ours is false when it says nothing.
func (n *Node) rootOf(ctx context.Context, id JobID) (root rootInfo, ours bool, err error) {
	if root, ours = n.roots.get(id); ours {
		return root, true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	e, err := n.Ledger.Get(ctx, jobKey(id))
	if CodeOf(err) == NotFound {
		return root, false, nil
	}
	if err != nil {
		return root, false, err
	}
	rec, err := decodeRecord(e)
	if err != nil {
		return root, false, err
	}
	root = rootInfo{spec: rec.Spec, origin: rec.origin()}
	n.roots.set(id, root)
	return root, true, nil
}

// MembersChanged has the node look again at whom it works for: what runs for somebody who may not have it any more is ended. It does not
// wait for that.
func (n *Node) MembersChanged() {
	select {
	case n.members <- struct{}{}:
	default:
	}
}

// heedMembers looks again whenever members have changed.
func (n *Node) heedMembers() {
	for {
		select {
		case <-n.members:
			n.reconsider()
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) reconsider() {
	ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
	defer cancel()
	for _, l := range append(n.busy.leases(), n.parking.leases()...) {
		if err := n.mayWork(ctx, &l); CodeOf(err) == Denied {
			n.log.Warn("tasks are ended", "job", l.Job, "stage", l.Stage, "owner", l.Owner, "err", err)
			n.post(Dropped{From: l.Owner, Job: l.Job, Epoch: l.Epoch})
		}
	}
	mine := n.drops(n.self)
	for _, j := range n.running() {
		if mine { // whoever takes it over says what comes of it
			n.lose(j)
		} else if err := n.mayGoOn(&j.rec); CodeOf(err) == Denied {
			n.log.Warn("job ended", "job", j.rec.ID, "origin", j.rec.origin(), "err", err)
			n.post(JobEnded{Job: j.rec.ID})
			n.end(j, Failed, err)
		}
	}
	if n.realm != nil {
		n.realm.stir()
	}
}

// unwanted says why nobody works for an open job that is not this node's, in a sentence; "" when that is not so.
func (n *Node) unwanted(rec *Record) (reason, advice string) {
	err := n.mayGoOn(rec)
	if CodeOf(err) != Denied {
		if err = n.may(rec.Owner, RoleSubmitter); CodeOf(err) != Denied {
			return "", ""
		}
		err = Errorf(Denied, "nobody works for it while its owner may own no jobs: %w", err).Hint("%s", AdviceOf(err))
	}
	return strings.TrimSpace(err.Error()), AdviceOf(err)
}
