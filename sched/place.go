package sched

import (
	"fmt"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// fits reports whether a node of that capacity can run tasks of a class at all.
func (c *Core) fits(cl *grid.Class, can *grid.Capacity) bool {
	require, ok := c.selector(cl.Require)
	return ok && can.CanRun(cl, require)
}

// mayGive reports whether a thief can run tasks of w, and may.
func (c *Core) mayGive(w *work, to *grid.StealAsked) bool {
	cl := &w.lease.Class
	if to.Outside && (!cl.Offload || cl.MemoryLimit > to.Can.Memory || cl.ScratchLimit > to.Can.Scratch) {
		return false
	}
	return c.fits(cl, &to.Can) && c.score(w, to.From) >= 0
}

// prefers is how many terms of what a class prefers a node with these labels matches.
func (c *Core) prefers(cl *grid.Class, labels grid.Labels) int {
	s, ok := c.selector(cl.Prefer)
	if !ok {
		return 0
	}
	return s.Count(labels)
}

// selector parses a selector, once: there are few different ones. It reports false for one that is none,
// and matches no node.
func (c *Core) selector(text string) (s grid.Selector, ok bool) {
	if text == "" {
		return s, true
	}
	if p, known := c.selectors[text]; known {
		return p.Selector, p.ok
	}
	s, err := grid.ParseSelector(text)
	if c.selectors == nil || len(c.selectors) >= maxSelectors {
		c.selectors = make(map[string]parsed)
	}
	c.selectors[text] = parsed{s, err == nil}
	return s, err == nil
}

type parsed struct {
	grid.Selector
	ok bool
}

const maxSelectors = 1024 // that are remembered

// reserve books the memory and scratch of a grain of w, release gives them back. A parked grain keeps
// them.
func (c *Core) reserve(w *work) {
	c.memory += w.lease.Class.Memory
	c.scratch += w.lease.Class.Scratch
	if w.lease.Outside {
		c.loan.memory += w.lease.Class.Memory
		c.loan.scratch += w.lease.Class.Scratch
	}
}

func (c *Core) release(w *work) {
	c.memory -= w.lease.Class.Memory
	c.scratch -= w.lease.Class.Scratch
	if w.lease.Outside {
		c.loan.memory -= w.lease.Class.Memory
		c.loan.scratch -= w.lease.Class.Scratch
	}
}

// roomy reports whether what a task of w needs is free. A node of which no slot is busy has room, whatever
// is parked there: else tasks that wait for others could keep those out for ever.
func (c *Core) roomy(w *work) bool {
	cl, can := &w.lease.Class, &c.cfg.Capacity
	return len(c.idle) >= w.cores && (len(c.idle) == len(c.slots) ||
		(can.Memory == 0 || cl.Memory <= can.Memory-min(c.memory, can.Memory)) &&
			(can.Scratch == 0 || cl.Scratch <= can.Scratch-min(c.scratch, can.Scratch)))
}

// lonely is how long work that this node cannot run waits for one that can before its user is told.
const lonely = 2 * time.Second

// watch makes sure that somebody hears of w, of a job owned here, if no node can run it.
func (c *Core) watch(w *work) {
	if !w.fits && w.book != nil && !w.told && w.tellAt == 0 {
		w.tellAt = c.now.add(lonely)
		c.tellAt = min(c.tellAt, w.tellAt)
	}
}

// tell notes the works that no node has taken any of for long.
func (c *Core) tell() {
	c.tellAt = never
	for _, w := range c.ring {
		if w.tellAt == 0 {
			continue
		}
		if w.tellAt <= c.now {
			w.tellAt = 0
			if !w.book.lent() {
				w.told = true
				why := "its slots are fewer than one user may use"
				if err := c.cfg.Capacity.Fits(&w.lease.Class); err != nil {
					why = err.Error()
				} else if score := c.score(w, c.cfg.Self); score < 0 {
					why = fmt.Sprintf("its score for them is %g", score)
				}
				c.do(grid.Note{Job: w.lease.Job, Event: grid.JobEvent{
					Kind: grid.EventUnplaced, Node: c.cfg.Self, Stage: w.lease.Stage, Tasks: w.queue.list()[0],
					Text: fmt.Sprintf("%d tasks are queued and no node has taken any for %v; this one cannot run them: %s",
						w.queue.tasks, lonely, why),
				}})
				continue
			}
			c.watch(w)
		}
		c.tellAt = min(c.tellAt, w.tellAt)
	}
}

// lent reports whether another node holds a lease on tasks of s.
func (s *stage) lent() bool {
	for i := range s.holds.list {
		if s.holds.list[i].kind == lent {
			return true
		}
	}
	return false
}
