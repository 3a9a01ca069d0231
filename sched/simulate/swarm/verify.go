package swarm

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Nodes compare results with the same jury as real ones do. A result is a number here, made of what names its task;
// those of dishonest nodes are other numbers.

// standing is what the owner of jobs remembers of other nodes.
type standing map[peer.ID]grid.Standing

func (s standing) Standing(id peer.ID) grid.Standing { return s[id] }
func (s standing) Judged(id peer.ID, good bool)      { s[id] = s[id].Judged(good) }

// impanel gives a job that has an owner a new jury, which knows of nothing that was not decided.
func (w *world) impanel(j *job) {
	if !j.verify.On() {
		return
	}
	var seed [sha256.Size]byte
	binary.BigEndian.PutUint64(seed[:], hash(w.cfg.Seed, j.key, uint64(j.epoch), 5))
	if j.owner.standing == nil {
		j.owner.standing = standing{}
	}
	j.jury = grid.NewJury(j.verify, j.owner.id, seed, j.owner.standing)
}

// said is what a node says that a task comes to.
func (w *world) said(n *node, j *job, stage, task uint32, o grid.TaskOutcome) (a grid.Answer) {
	h := hash(j.key, uint64(stage), uint64(task), uint64(o), 3)
	switch {
	case n == nil || !n.dishonest:
	case n.vice == Colluder:
		h = hash(h, 1)
	default:
		h = hash(h, uint64(n.n)+2)
	}
	binary.BigEndian.PutUint64(a[:], h)
	a[31] = byte(o)
	return a
}

// judge tells the jury of results, and returns what the scheduler is told.
func (w *world) judge(n *node, j *job, work grid.Work, from peer.ID, results []grid.TaskResult) (out []grid.TaskResult) {
	st := &j.stages[work.Stage]
	for _, r := range results {
		if r.Outcome == grid.HostFailed || int(r.Index) >= len(st.ok) {
			out = append(out, r)
			continue
		}
		if st.ok[r.Index] || st.failed[r.Index] { // what was decided stays so
			r.Outcome = grid.Succeeded
			if st.failed[r.Index] {
				r.Outcome = grid.GuestFailed
			}
			out = append(out, r)
			continue
		}
		t := grid.Testimony{Node: from, Answer: w.said(w.byID[from], j, work.Stage, r.Index, r.Outcome), Lasting: true}
		if by := w.byID[from]; by != nil && w.strangers(n, by) {
			t.Voice = w.realm(by)
		}
		out = append(out, w.ruled(n, j, work, j.jury.Hear(work.Stage, r.Index, t)))
	}
	return out
}

// ruled books a ruling.
func (w *world) ruled(n *node, j *job, work grid.Work, r grid.Ruling) grid.TaskResult {
	res := grid.TaskResult{Index: r.Index, Outcome: r.Outcome}
	if r.Outcome == grid.Unproven || r.Outcome == grid.Withheld {
		return res
	}
	rep := j.report
	extra := len(r.Said) - 1
	rep.Extra += extra
	if rep.Decided++; 2*rep.Decided > j.tasks() {
		rep.Late += extra
	}
	if r.Outcome == grid.GuestFailed {
		rep.Split++
		return res
	}
	believed := r.Said[r.Winner].Answer
	res.Outcome = grid.TaskOutcome(believed[31])
	if believed != w.said(nil, j, work.Stage, r.Index, res.Outcome) {
		rep.Wrong++
	}
	for _, k := range r.Liars {
		id := r.Said[k].Node
		if rep.Liars == nil {
			rep.Liars = map[string]int{}
		}
		rep.Liars[string(id)]++
		if liar := w.byID[id]; liar != nil && !liar.dishonest && liar.vice == "" {
			w.framed = append(w.framed, liar.name())
		}
		if n.accused == nil {
			n.accused = map[peer.ID]time.Duration{}
		}
		if last, before := n.accused[id]; id != n.id && (!before || w.now-last >= time.Second) {
			n.accused[id] = w.now
			w.on(n, 0, grid.Accused{Peer: id, Job: j.id, Why: "its result was refuted"})
		}
	}
	return res
}

func (j *job) tasks() (n int) {
	for _, k := range j.Stages {
		n += k
	}
	return n
}

// rest decides what was withheld.
func (w *world) rest(n *node, work grid.Work) {
	j := w.byJob[work.Job]
	if j == nil || j.owner != n || j.over || j.jury == nil {
		return
	}
	var results []grid.TaskResult
	st := &j.stages[work.Stage]
	for _, r := range j.jury.Rest(work.Stage) {
		res := w.ruled(n, j, work, r)
		switch res.Outcome {
		case grid.Succeeded:
			st.ok[r.Index] = true
		case grid.GuestFailed:
			st.failed[r.Index] = true
		}
		results = append(results, res)
	}
	w.on(n, 0, grid.Reported{From: n.id, Work: work, Epoch: j.epoch, Results: slices.Clip(results)})
}
