package sched

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A job may be paused. What runs of it goes on to its end, here and elsewhere; nothing else of it is handed out, and
// what others have queued is taken back: they are told to drop it, and as they claim it no longer, its leases run out.
// All of it is kept until the job goes on. What a claim says of a paused job tells whom else to tell.

// pause ends, or resumes, the handing out of a job's tasks.
func (c *Core) pause(ev grid.Paused) {
	j := c.jobs[ev.Job]
	if j == nil || j.paused == ev.On {
		return
	}
	j.paused = ev.On
	for _, s := range j.stages {
		if s.left == 0 || s.ready == nil {
			continue
		}
		if ev.On {
			c.takeIn(s)
		} else if j.limits.Parallel == 0 {
			s.keeps = false
			kept := s.holds.take(grid.Span{Hi: s.tasks}, func(e *hold) bool { return e.kind == kept })
			for _, e := range kept {
				c.queue(s, e.Span, false)
			}
		}
	}
	c.gate(j)
}

// takeIn keeps all of s that does not run.
func (c *Core) takeIn(s *stage) {
	for _, w := range []*work{s.work, s.own} {
		if w == nil {
			continue
		}
		queued := normal(slices.Clone(w.queue.list()))
		c.unqueue(w)
		for _, span := range queued {
			c.keep(s, span)
		}
	}
	for _, e := range s.holds.take(grid.Span{Hi: s.tasks}, func(e *hold) bool { return e.kind == onOffer }) {
		c.keep(s, e.Span)
	}
	with := make(map[peer.ID][]grid.Span)
	var nodes []peer.ID
	for _, e := range s.holds.list {
		if e.kind == lent {
			if with[e.node] == nil {
				nodes = append(nodes, e.node)
			}
			with[e.node] = append(with[e.node], e.Span)
		}
	}
	for _, node := range nodes {
		c.callIn(s, node, with[node])
	}
}

// keep keeps tasks of a paused job that would be queued or offered.
func (c *Core) keep(s *stage, span grid.Span) {
	s.keeps = true
	if s.job.limits.Parallel > 0 {
		s.job.given -= span.Len()
	}
	c.hold(s, hold{Span: span, kind: kept, until: never})
}

// callIn has a node drop what it has queued of some tasks that were lent to it. That it claims them no longer is no
// fault of its.
func (c *Core) callIn(s *stage, node peer.ID, spans []grid.Span) {
	spans = normal(spans)
	for _, span := range spans {
		for i := range s.holds.over(span) {
			if e := &s.holds.over(span)[i]; e.kind == lent && e.node == node {
				e.called = true
			}
		}
	}
	c.do(grid.Revoke{To: node, Work: s.work.lease.Work(), Epoch: s.job.lease.Epoch, Spans: spans, Queued: true})
}
