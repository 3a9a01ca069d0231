package grid

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"time"
)

// What strangers have this node run, the realm's admission policy is asked about, too: of each stage, before the first of its tasks
// runs. What it answers is remembered, as it is a function of what it was told. When it does not answer as it should, the stage is
// refused, whatever its fallback is for the realm's own jobs.

const (
	// maxAdmitted bounds the answers that are remembered.
	maxAdmitted = 1 << 10
	// askAgain is how long a policy that is broken is left alone about a stage.
	askAgain = 10 * time.Second
)

// admitted is what was answered, by what was asked of whom.
type admitted struct {
	mu    sync.Mutex
	known map[Key]answered
}

type answered struct {
	err   error     // nil: it may run
	until time.Time // zero: for good
}

func (a *admitted) of(k Key, now time.Time) (err error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	is, ok := a.known[k]
	if ok && !is.until.IsZero() && now.After(is.until) {
		delete(a.known, k)
		return nil, false
	}
	return is.err, ok
}

func (a *admitted) note(k Key, is answered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = make(map[Key]answered)
	}
	for other := range a.known {
		if len(a.known) < maxAdmitted {
			break
		}
		delete(a.known, other)
	}
	a.known[k] = is
}

// admitLent asks the realm's admission policy, if there is one, about a stage of a stranger's. What its tasks spawn here, of the same
// module, goes with it.
func (n *Node) admitLent(ctx context.Context, l Lease, st *Stage) error {
	if l.Owner == n.self {
		return nil
	}
	x, err := n.admission(ctx)
	if x == nil || err != nil {
		return err
	}
	info := &JobInfo{
		Version: ExtensionVersion, Node: n.self.String(), User: l.Owner.String(), Owner: l.Owner.String(), Verify: Verify{}.String(),
		Publish: []string{}, Tasks: uint64(st.Tasks), Stages: []StageInfo{stageInfo(st)},
	}
	if realm := n.realmOf(l.Owner); realm != "" {
		info.Realm = realm.String()
	}
	data, err := json.Marshal(info)
	if err != nil {
		return Errorf(Internal, "encode what the admission policy is told of the stage: %w", err)
	}
	if len(data) > MaxExtensionInput {
		return Errorf(Limit, "what the admission policy %s would have to be told of the stage has %d bytes, at most %d are possible", x, len(data), MaxExtensionInput)
	}
	key := hashOf(append([]byte(x.Plugin+"\x00"+x.Module.String()+"\x00"+x.Func+"\x00"), data...))
	if err, ok := n.admitted.of(key, time.Now()); ok {
		return err
	}
	answer, err := n.extend(ctx, x, info)
	var d Decision
	if err == nil {
		if d, _, err = parseDecision(answer); err != nil {
			n.broken(x, err)
		}
	}
	is := answered{}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		is = answered{Errorf(Denied, "the admission policy of the node's realm is broken, and so it runs nothing for others"), time.Now().Add(askAgain)}
	case !*d.Accept:
		n.extensions.counted(x.Key(), func(c *ExtensionCounts) { c.Refused++ })
		n.log.Info("a stage of another realm is refused", "policy", x.String(), "owner", info.Owner, "module", st.Module, "reason", d.Reason)
		is.err = Errorf(Denied, "the admission policy of the node's realm refuses the stage: %s", cmp.Or(d.Reason, "it gives no reason"))
	}
	if is.err != nil {
		n.lent.refused.Add(1)
	}
	n.admitted.note(key, is)
	return is.err
}

// admission is the realm's admission policy as this node knows it; nil: there is none.
func (n *Node) admission(ctx context.Context) (*Extension, error) {
	xs := &n.extensions
	xs.mu.Lock()
	read := xs.byKey != nil
	xs.mu.Unlock()
	if !read {
		if err := n.readExtensions(ctx); err != nil {
			return nil, err
		}
	}
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if why, wrong := xs.wrong[string(RoleAdmission)]; wrong {
		return nil, Errorf(Denied, "this realm has an admission policy that this node does not understand, and so it accepts no jobs: %s", why).
			Hint("update this node's grid, or submit to another node")
	}
	return xs.byKey[string(RoleAdmission)], nil
}
