package swarm

import (
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// root names the input of a task, 0 for none.
func (j *job) root(stage int, task uint32) uint64 {
	if j.Input <= 0 {
		return 0
	}
	n := uint64(j.Stages[stage])
	roots := uint64(j.Roots)
	if roots == 0 || roots > n {
		roots = n
	}
	return max(hash(j.key, uint64(stage), uint64(task)*roots/n, 2), 1)
}

// place puts the inputs of a job where they are at first.
func (w *world) place(j *job) {
	if j.Input <= 0 {
		return
	}
	for s, n := range j.Stages {
		var last uint64
		for t := range n {
			root := j.root(s, uint32(t))
			if root == last {
				continue
			}
			last = root
			if j.Copies == 0 {
				w.keep(w.nodes[j.Node], root)
			}
			for c := range min(j.Copies, len(w.nodes)) {
				w.keep(w.nodes[(hash(w.cfg.Seed, root)+uint64(c))%uint64(len(w.nodes))], root)
			}
		}
	}
}

func (w *world) keep(n *node, root uint64) {
	if !n.has[root] {
		n.has[root] = true
		n.summary = nil
		w.roots[root] = append(w.roots[root], n)
	}
}

// holds is what a node says of the inputs that it has.
func (n *node) holds() grid.Summary {
	if n.summary == nil {
		n.summary = grid.NewSummary(len(n.has))
		for root := range n.has {
			n.summary.Add(root)
		}
	}
	return n.summary
}

// hint tells a node what the tasks of a span read.
func (w *world) hint(n *node, work grid.Work, s grid.Span, after time.Duration) {
	j := w.byJob[work.Job]
	if j == nil || j.Input <= 0 {
		return
	}
	h := grid.Hints{Work: work, Lo: s.Lo}
	for i := s.Lo; i < s.Hi; i++ {
		h.Inputs = append(h.Inputs, grid.Hint{Root: j.root(int(work.Stage), i), Size: uint64(j.Input)})
	}
	w.on(n, after, h)
}

// source is the nearest node that has an input and can be reached, nil when there is none.
func (w *world) source(n *node, root uint64) (from *node) {
	for _, h := range w.roots[root] {
		if h != n && h.vice != Mute && reach(n, h) && (from == nil || w.distance(n, h) < w.distance(n, from)) {
			from = h
		}
	}
	return from
}

// readable tells whether a task's input can be had at all.
func (w *world) readable(n *node, j *job, stage int, task uint32) bool {
	root := j.root(stage, task)
	return root == 0 || n.has[root]
}

// input is when the input of a task is at a node, and how much has to come for that. It sets out to get it.
func (w *world) input(n *node, j *job, stage int, task uint32) (time.Duration, int64) {
	root := j.root(stage, task)
	if root == 0 || n.has[root] {
		return w.now, 0
	}
	if at, ok := n.coming[root]; ok {
		return max(at, w.now+1), 0 // it is there with the next event
	}
	from := w.source(n, root)
	if from == nil {
		return w.now, 0
	}
	at := w.transfer(from, n, j.Input)
	w.report.Fetches++
	n.coming[root] = at
	w.after(n, at-w.now, func() {
		delete(n.coming, root)
		w.keep(n, root)
	})
	return max(at, w.now+1), j.Input
}

// transfer is when bytes that are asked for now have come. Each link carries one transfer after the other.
func (w *world) transfer(from, to *node, size int64) time.Duration {
	w.report.Bytes += size
	w.report.Messages += 2
	begin := w.now + w.delay(to, from) + w.delay(from, to)
	rate := from.Rate
	if to.Rate > 0 && (rate == 0 || to.Rate < rate) {
		rate = to.Rate
	}
	if rate == 0 {
		return begin
	}
	begin = max(begin, from.up, to.down)
	end := begin + time.Duration(float64(size)/float64(rate)*float64(time.Second))
	from.up, to.down = end, end
	return end
}

// prefetch brings what the tasks of a lease read.
func (w *world) prefetch(n *node, l grid.Lease) {
	j := w.byJob[l.Job]
	if j == nil {
		return
	}
	for i := l.Lo; i < min(l.Hi, uint32(j.Stages[l.Stage])); i++ {
		w.input(n, j, int(l.Stage), i)
	}
}
