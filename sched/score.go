package sched

import (
	"math"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Scores say how well nodes suit the tasks of a stage: the work for which a thief has the highest is offered to it first,
// and none for which it has one below 0. This node does not run what it has such a score for itself. They are 0 until
// somebody says otherwise; without any, nothing here costs anything.

// maxScores bounds the scores that are kept, of all works together. Others are taken for 0.
const maxScores = 1 << 16

// scores are those of a work's nodes, without those that are 0.
type scores map[peer.ID]float64

// scored takes in a score, of a work that is known here.
func (c *Core) scored(ev grid.Scored) {
	works := c.worksOf(ev.Work)
	if len(works) == 0 || math.IsNaN(ev.Score) {
		return
	}
	had := c.scores[ev.Work][ev.Peer]
	if had == ev.Score {
		return
	}
	of := c.scores[ev.Work]
	_, known := of[ev.Peer]
	switch {
	case ev.Score == 0:
		delete(of, ev.Peer)
		c.nScores--
	case !known && c.nScores >= maxScores:
		return
	default:
		if of == nil {
			c.forgetScores()
			of = make(scores)
			c.scores[ev.Work] = of
		}
		if !known {
			c.nScores++
		}
		of[ev.Peer] = ev.Score
	}
	if ev.Peer == c.cfg.Self {
		for _, w := range works {
			c.refit(w)
		}
	} else if had < 0 {
		c.grew = true // it may be served now
	}
}

// worksOf finds what is known here by that name: a stage of a job owned here, or what is held of others'.
func (c *Core) worksOf(of grid.Work) (list []*work) {
	if j := c.jobs[of.Job]; j != nil && int(of.Stage) < len(j.stages) {
		return []*work{j.stages[of.Stage].work}
	}
	for _, w := range c.held {
		if w.lease.Work() == of {
			list = append(list, w)
		}
	}
	return list
}

// forgetScores forgets those of works that have gone.
func (c *Core) forgetScores() {
	if c.scores == nil {
		c.scores = make(map[grid.Work]scores)
	}
	for of, list := range c.scores {
		if len(c.worksOf(of)) == 0 {
			delete(c.scores, of)
			c.nScores -= len(list)
		}
	}
}

// score is that of a node for a work.
func (c *Core) score(w *work, p peer.ID) float64 {
	if len(c.scores) == 0 {
		return 0
	}
	return c.scores[w.lease.Work()][p]
}

// suits reports whether w may run here: whether it can, and has no score that forbids it.
func (c *Core) suits(w *work) bool {
	return c.fits(&w.lease.Class, &c.cfg.Capacity) && (c.cfg.MaxPerUser == 0 || w.cores <= c.cfg.MaxPerUser) &&
		c.score(w, c.cfg.Self) >= 0
}

// refit finds out anew whether w may run here. Others' work that may not is given up: its owner's leases run out.
func (c *Core) refit(w *work) {
	if w == nil || w.came == 0 || c.suits(w) == w.fits {
		return // or nobody has asked yet
	}
	queued := w.ringAt > 0
	if queued {
		c.delist(w)
	}
	w.fits = !w.fits
	if queued {
		c.enlist(w)
		c.grew = c.grew || w.fits
		c.watch(w)
	}
	if !w.fits && w.book == nil {
		c.unqueue(w)
	}
}
