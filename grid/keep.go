package grid

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

// NoKeeper is the Keeper of blocks that are never collected.
type NoKeeper struct{}

// Hold implements Keeper.
func (NoKeeper) Hold(...cid.Cid) (release func()) { return func() {} }

// HoldUsed implements Keeper.
func (NoKeeper) HoldUsed() (release func()) { return func() {} }

// Hold keeps DAGs from being collected: see [Keeper].
func (n *Node) Hold(roots ...cid.Cid) (release func()) { return n.Keeper.Hold(roots...) }

// HoldUsed keeps what is used from being collected: see [Keeper].
func (n *Node) HoldUsed() (release func()) { return n.Keeper.HoldUsed() }

// maxLingering bounds the DAGs that linger.
const maxLingering = 1 << 14

// lingering is one of them: until when, and what is the same data.
type lingering struct {
	until time.Time
	same  []cid.Cid
}

// Linger keeps a DAG that is here for some time, so that a job or a pin can name it. What is pinned stays for as long as the pin does, and no
// longer. Several roots are names of the same data, such as a file and the folder of only that: a pin of one is a pin of all.
func (n *Node) Linger(d time.Duration, same ...cid.Cid) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.lingering) >= maxLingering {
		n.forgetLingering(now)
	}
	for _, c := range same {
		if len(n.lingering) < maxLingering {
			n.lingering[c] = lingering{now.Add(d), same}
		}
	}
}

// forgetLingering forgets what has lingered for long enough. n.mu is held.
func (n *Node) forgetLingering(now time.Time) {
	maps.DeleteFunc(n.lingering, func(_ cid.Cid, l lingering) bool { return now.After(l.until) })
}

// unlinger ends that for what was pinned, or unpinned.
func (n *Node) unlinger(root cid.Cid) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.lingering[root].same {
		delete(n.lingering, c)
	}
}

// holds is holds that end together.
type holds struct {
	n       *Node
	release []func()
}

func (h *holds) add(roots ...cid.Cid) {
	if len(roots) > 0 {
		h.release = append(h.release, h.n.Hold(roots...))
	}
}

func (h *holds) used() { h.release = append(h.release, h.n.HoldUsed()) }

func (h *holds) end() {
	for _, f := range h.release {
		f()
	}
	h.release = h.release[:0]
}

// Roots names the DAGs that the node's jobs need: of every job in the ledger that is or was last this node's its
// spec, which leads to modules, mounts and inputs, and its checkpoint and its result, which lead to outputs; of jobs
// that run here also what they have come to so far. What lingers is among them. What other nodes' jobs need is here
// because of pins. What is being recorded meanwhile must be held until it is.
func (n *Node) Roots(ctx context.Context, yield func(cid.Cid)) error {
	jobs := append(n.running(), n.brood.running()...)
	n.mu.Lock()
	now := time.Now()
	n.forgetLingering(now)
	lingering := slices.Collect(maps.Keys(n.lingering))
	n.mu.Unlock()
	for _, c := range lingering {
		yield(c)
	}
	// These first: a job that ends now has its result in the ledger before it leaves the list above.
	for _, j := range jobs {
		yield(j.rec.Spec.Cid)
		if err := j.roots(ctx, yield); err != nil {
			return err
		}
	}
	// Nothing stale will do: a copy of the ledger that has just been begun knows of no jobs at all. Without a majority
	// nothing is collected.
	_, err := RangeAll(ctx, n.Ledger, jobPrefix, false, func(e Entry) error {
		rec, err := decodeRecord(e)
		if err != nil {
			return err // who knows what it names
		}
		if rec.Owner != n.self {
			return nil
		}
		for _, l := range []Link{rec.Spec, rec.Kit, rec.Checkpoint, rec.Result} {
			if l.Defined() {
				yield(l.Cid)
			}
		}
		return nil
	})
	return err
}

// linkMark begins every link in CBOR: tag 42.
var linkMark = []byte{0xd8, linkTag}

// roots names what the results so far lead to.
func (j *job) roots(ctx context.Context, yield func(cid.Cid)) error {
	j.mu.Lock()
	kept := j.kept[:len(j.kept):len(j.kept)]
	j.mu.Unlock()
	for _, c := range kept {
		yield(c)
	}
	if err := j.unjudged(yield); err != nil {
		return err
	}
	given := j.spec.given()
	for i := range j.stages {
		j.mu.Lock()
		table, results := j.stages[i].table, slices.Clone(j.stages[i].results)
		j.mu.Unlock()
		if table.Defined() {
			yield(table.Cid)
		}
		for _, data := range results {
			if data == nil || !given[i] && !bytes.Contains(data, linkMark) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			var c Completion
			if err := Unmarshal(data, &c); err != nil {
				return err
			}
			for _, l := range c.Receipt.Links() {
				yield(l.Cid)
			}
			if o := c.Receipt.Stdout; given[i] && len(o.Inline) > 0 {
				yield(NewBlock(cid.Raw, o.Inline).CID())
			}
		}
	}
	return nil
}

// unjudged names what results lead to that a jury has not decided.
func (j *job) unjudged(yield func(cid.Cid)) (err error) {
	if j.Jury == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for data := range j.testimonies {
		var c Completion
		if err = Unmarshal(data, &c); err != nil {
			return err
		}
		for _, l := range c.Receipt.Links() {
			yield(l.Cid)
		}
	}
	return nil
}

// named lists the DAGs that a request names.
func (r *Request) named() (roots []cid.Cid) {
	for i := range r.Stages {
		roots = append(roots, r.Stages[i].roots()...)
		if l := r.Stages[i].Inputs; l.Defined() {
			roots = append(roots, l.Cid)
		}
	}
	for _, rows := range r.Rows {
		for _, row := range rows {
			for _, in := range row {
				roots = append(roots, in.CID.Cid)
			}
		}
	}
	return roots
}

// roots lists what every task of the stage needs.
func (st *Stage) roots() []cid.Cid {
	roots := []cid.Cid{st.Module.Cid}
	for _, m := range st.Mounts {
		roots = append(roots, m.CID.Cid)
	}
	if st.Stdin.Defined() {
		roots = append(roots, st.Stdin.Cid)
	}
	return roots
}

// outputs lists what completions name.
func outputs(done []Completion) (roots []cid.Cid) {
	for i := range done {
		roots = append(roots, cids(done[i].Receipt.Links())...)
	}
	return roots
}
