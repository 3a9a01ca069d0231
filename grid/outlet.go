package grid

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What strangers may do about tasks of this node follows from what it gave them. It remembers that by peer and job until the job
// ends. They may claim and report those tasks and no others, and read what these need: the job's spec, the table of inputs, and the
// modules, mounts and inputs of the tasks themselves. Who lends itself has its outputs read by their owner while it reports them.

// Bounds on what is remembered.
const (
	maxOutlets = 1 << 10 // peers
	maxShown   = 1 << 20 // blocks that one peer may read
	maxGiven   = 1 << 12 // spans of one stage given to one peer
)

// outlets is what strangers were given.
type outlets struct {
	mu sync.Mutex
	to map[peer.ID]*outlet
}

// outlet is one stranger's.
type outlet struct {
	realm peer.ID // that it had proved to be of when it was given something; guarded by outlets.mu

	mu      sync.Mutex
	jobs    map[JobID]*opened
	reports map[*shown]struct{}
}

// opened is what of a job was given.
type opened struct {
	job   *job
	spec  Link
	spans map[uint32][]Span // by stage
	todo  map[uint32][]Span // those of which it is not known yet what they read
	shown
}

// shown is blocks that may be read.
type shown struct {
	blocks map[cid.Cid]struct{}
	below  []cid.Cid // of these: whose links may be read, too, and were not looked at yet
}

func (s *shown) add(c cid.Cid, whole bool) {
	if _, has := s.blocks[c]; has || !c.Defined() {
		return
	}
	if s.blocks == nil {
		s.blocks = make(map[cid.Cid]struct{})
	}
	s.blocks[c] = struct{}{}
	if whole && c.Prefix().Codec != cid.Raw {
		s.below = append(s.below, c)
	}
}

// has looks for a block, below what may be read whole if need be.
func (s *shown) has(ctx context.Context, n *Node, c cid.Cid, room int) bool {
	for {
		if _, has := s.blocks[c]; has {
			return true
		}
		if len(s.below) == 0 || len(s.blocks) >= room {
			return false
		}
		next := s.below[len(s.below)-1]
		data, err := n.Blocks.Get(ctx, next)
		if err != nil {
			if ctx.Err() != nil {
				return false
			}
			s.below = s.below[:len(s.below)-1] // it is not here, so neither can be read from here what is below
			continue
		}
		s.below = s.below[:len(s.below)-1]
		links, err := n.Links(next, data)
		if err != nil {
			continue
		}
		for _, l := range links {
			s.add(l, true)
		}
	}
}

// of is a stranger's outlet; nil if there is none and none is to be made.
func (o *outlets) of(id peer.ID, add bool) *outlet {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.to[id]
	if out == nil && add {
		if o.to == nil {
			o.to = make(map[peer.ID]*outlet)
		}
		for len(o.to) >= maxOutlets { // whoever it is loses what it was given: its leases run out
			for other := range o.to {
				delete(o.to, other)
				break
			}
		}
		out = &outlet{jobs: map[JobID]*opened{}, reports: map[*shown]struct{}{}}
		o.to[id] = out
	}
	return out
}

// voice is what a node's results count by in this realm's juries: all that a realm of strangers says counts once.
func (o *outlets) voice(id peer.ID) peer.ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	if out := o.to[id]; out != nil && out.realm != "" {
		return out.realm
	}
	return id
}

// lendOut remembers what a stranger is given.
func (n *Node) lendOut(leases []Lease, to peer.ID) {
	if len(leases) == 0 || n.inRealm(to) {
		return
	}
	out := n.outlets.of(to, true)
	if realm, _ := n.foreignRealm(to); realm != "" {
		n.outlets.mu.Lock()
		out.realm = realm
		n.outlets.mu.Unlock()
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	n.forgetEnded(out)
	for _, l := range leases {
		j := n.own(l.Job)
		if j == nil || l.Owner != n.self {
			continue
		}
		o := out.jobs[l.Job]
		if o == nil {
			o = &opened{job: j, spec: l.Spec, spans: map[uint32][]Span{}, todo: map[uint32][]Span{}}
			out.jobs[l.Job] = o
		}
		if spans := joined(append(slices.Clone(o.spans[l.Stage]), l.Span)); len(spans) <= maxGiven {
			o.spans[l.Stage] = spans
			o.todo[l.Stage] = joined(append(o.todo[l.Stage], l.Span)) // who takes and gives back the same again and again adds nothing
		}
	}
}

// joined sorts spans, and joins those that touch.
func joined(list []Span) []Span {
	slices.SortFunc(list, func(a, b Span) int { return int(int64(a.Lo) - int64(b.Lo)) })
	out := list[:0]
	for _, s := range list {
		if k := len(out) - 1; k >= 0 && s.Lo <= out[k].Hi {
			out[k].Hi = max(out[k].Hi, s.Hi)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// forgetEnded forgets the jobs that do not run here any more. out.mu is held.
func (n *Node) forgetEnded(out *outlet) {
	for id, o := range out.jobs {
		if n.job(id) != o.job {
			delete(out.jobs, id)
		}
	}
}

// wasGiven keeps of spans what a stranger was given of a stage.
func (n *Node) wasGiven(id peer.ID, w Work, spans []Span) (kept []Span) {
	out := n.outlets.of(id, false)
	if out == nil {
		return nil
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	o := out.jobs[w.Job]
	if o == nil || n.job(w.Job) != o.job {
		return nil
	}
	given := o.spans[w.Stage]
	for _, s := range spans[:min(len(spans), maxGiven)] {
		for _, g := range given {
			if lo, hi := max(s.Lo, g.Lo), min(s.Hi, g.Hi); lo < hi {
				kept = append(kept, Span{lo, hi})
			}
		}
	}
	return kept
}

// checkGiven refuses a node that is not of the realm and was not given a task.
func (n *Node) checkGiven(ctx context.Context, from peer.ID, w Work, s Span) error {
	if n.inRealm(from) {
		return nil
	}
	err := n.checkRealm(ctx, from)
	if err == nil {
		return nil
	}
	if given := n.wasGiven(from, w, []Span{s}); len(given) == 1 && given[0] == s {
		return nil
	}
	return Errorf(CodeOf(err), "job %s: tasks %s of stage %d were not given to it: %w", w.Job, s, w.Stage, err)
}

// MayRead reports whether a stranger may read a block here: one that a task needs which it was given, or that one has left which this
// node has run for it.
func (n *Node) MayRead(ctx context.Context, id peer.ID, c cid.Cid) bool {
	out := n.outlets.of(id, false)
	if out == nil || n.Links == nil {
		return false
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	for s := range out.reports {
		if s.has(ctx, n, c, maxShown) {
			return true
		}
	}
	n.forgetEnded(out)
	for _, o := range out.jobs {
		if n.reveal(ctx, o); o.has(ctx, n, c, maxShown) {
			return true
		}
	}
	return false
}

// reveal finds out what tasks read that were given.
func (n *Node) reveal(ctx context.Context, o *opened) {
	for stage, spans := range o.todo {
		st := &o.job.spec.Stages[stage]
		o.add(o.spec.Cid, false)
		o.add(st.Module.Cid, true)
		for _, m := range st.Mounts {
			o.add(m.CID.Cid, true)
		}
		o.add(st.Stdin.Cid, true)
		for len(spans) > 0 {
			err := n.revealRows(ctx, o, stage, spans[0])
			if ctx.Err() != nil { // who asks again waits for it again
				o.todo[stage] = spans
				return
			}
			if err != nil {
				n.log.Warn("a stranger cannot read what it was given", "job", o.job.rec.ID, "stage", stage, "tasks", spans[0], "err", err)
			}
			spans = spans[1:]
		}
		delete(o.todo, stage)
	}
}

func (n *Node) revealRows(ctx context.Context, o *opened, stage uint32, s Span) error {
	st := &o.job.spec.Stages[stage]
	if !st.Inputs.Defined() && len(st.From) == 0 {
		return nil
	}
	if st.Inputs.Defined() && len(st.From) == 0 {
		get := func(ctx context.Context, c cid.Cid) ([]byte, error) { return n.block(ctx, c) }
		t, err := OpenTable[Row](ctx, get, st.Inputs)
		if err != nil {
			return err
		}
		o.add(st.Inputs.Cid, false)
		if t.Len() > 0 && s.Lo < t.Len() {
			for k := t.partOf(s.Lo); k < len(t.index.Parts) && t.index.Parts[k].First < s.Hi; k++ {
				o.add(t.index.Parts[k].CID.Cid, false)
			}
		}
	}
	for i := s.Lo; i < s.Hi && len(o.blocks) < maxShown; i++ {
		row, err := n.rowOf(ctx, o.job, stage, i)
		if err != nil {
			return err
		}
		for _, in := range row {
			o.add(in.CID.Cid, true)
		}
	}
	return nil
}

// showOutputs lets the owner of lent tasks read what they have left, until hide is called.
func (n *Node) showOutputs(to peer.ID, done []Completion) (hide func()) {
	s := new(shown)
	for _, c := range outputs(done) {
		s.add(c, true)
	}
	if len(s.blocks) == 0 {
		return func() {}
	}
	out := n.outlets.of(to, true)
	out.mu.Lock()
	defer out.mu.Unlock()
	out.reports[s] = struct{}{}
	return func() {
		out.mu.Lock()
		defer out.mu.Unlock()
		delete(out.reports, s)
	}
}

// pulled is what lent tasks read: what their owner has sent, and nothing else of this node. What is here already it sends, too: it
// shows so that it has it.
type pulled struct {
	n     *Node
	owner peer.ID
	above *pulled // of the stage; nil for that itself
	have  map[cid.Cid]struct{}
	all   map[cid.Cid]bool // roots that have come
}

// pulling begins one for a lease; nil if it is not of a stranger's.
func (n *Node) pulling(l Lease) *pulled {
	if !l.Outside || l.Owner == n.self {
		return nil
	}
	return &pulled{n: n, owner: l.Owner, have: map[cid.Cid]struct{}{}, all: map[cid.Cid]bool{}}
}

// task begins what one task reads besides.
func (p *pulled) task() *pulled {
	return &pulled{n: p.n, owner: p.owner, above: p, have: map[cid.Cid]struct{}{}, all: map[cid.Cid]bool{}}
}

// bring has the owner send DAGs, of no more bytes than a task may use of the disk.
func (p *pulled) bring(ctx context.Context, roots ...cid.Cid) error {
	var todo []cid.Cid
	for _, c := range roots {
		if !p.all[c] && (p.above == nil || !p.above.all[c]) {
			todo = append(todo, c)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if p.n.Puller == nil {
		return Errorf(Unsupported, "this node cannot fetch from strangers")
	}
	_, most := p.n.Share.Each()
	got, err := p.n.Puller.Pull(ctx, p.owner, todo, int64(min(most, math.MaxInt64)), false)
	if err != nil {
		return err
	}
	maps.Copy(p.have, got)
	for _, c := range todo {
		p.all[c] = true
	}
	return nil
}

// block has the owner send one block, such as the spec.
func (p *pulled) block(ctx context.Context, c cid.Cid) ([]byte, error) {
	if p.n.Puller == nil {
		return nil, Errorf(Unsupported, "this node cannot fetch from strangers")
	}
	if _, err := p.n.Puller.Pull(ctx, p.owner, []cid.Cid{c}, MaxBlock+1024, true); err != nil {
		return nil, err
	}
	return p.n.Blocks.Get(ctx, c)
}

func (p *pulled) has(c cid.Cid) bool {
	for ; p != nil; p = p.above {
		if _, has := p.have[c]; has {
			return true
		}
	}
	return false
}

// pulledBlocks are those that have come. Nothing comes while they are read.
type pulledBlocks struct {
	Blocks
	p *pulled
}

// Get is told at Blocks.
func (b pulledBlocks) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if !b.p.has(c) {
		return nil, Errorf(NotFound, "block %s was not given with the task", c)
	}
	return b.Blocks.Get(ctx, c)
}

// Has is told at Blocks.
func (b pulledBlocks) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if !b.p.has(c) {
		return false, nil
	}
	return b.Blocks.Has(ctx, c)
}

// inputRoots are the DAGs that a task is given.
func (t *Task) inputRoots() (roots []cid.Cid) {
	for _, in := range t.Inputs {
		roots = append(roots, in.CID.Cid)
	}
	return roots
}

// indices are the tasks that a report is about.
func (m *reportMsg) indices() (list []uint32) {
	for i := range m.Done {
		list = append(list, m.Done[i].Index)
	}
	for _, f := range m.Failed {
		list = append(list, f.Index)
	}
	return list
}
