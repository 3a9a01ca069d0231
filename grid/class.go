package grid

import (
	"unicode/utf8"
)

// Class is what scheduling needs to know of a stage's tasks wherever they are queued. It travels in every lease,
// and two leases of one stage have the same.
type Class struct {
	// User is for whom the tasks run. Nodes share their slots out between users first, by weight, and then between
	// the jobs of each.
	User string `cbor:"user,omitempty" json:"user,omitempty"`
	// Priority weighs the jobs of one user: each step up has twice the share of slots. None is ever left without.
	Priority int `cbor:"prio,omitempty" json:"priority,omitempty"`
	// Require and Prefer are selectors of labels in canonical form; see [ParseSelector]. A node that does not match
	// the first runs none of the tasks; one that matches more of the second is given them rather.
	Require string `cbor:"require,omitempty" json:"require,omitempty"`
	Prefer  string `cbor:"prefer,omitempty" json:"prefer,omitempty"`
	// Cores, Memory and Scratch are what one task is given of a node: slots, and bytes. Cores 0 is 1.
	Cores   uint32 `cbor:"cores,omitempty" json:"cores,omitempty"`
	Memory  uint64 `cbor:"memory,omitempty" json:"memory_bytes,omitempty"`
	Scratch uint64 `cbor:"scratch,omitempty" json:"scratch_bytes,omitempty"`
	// Pure tasks may run twice at once: they come to the same.
	Pure bool `cbor:"pure,omitempty" json:"pure,omitempty"`
	// Realm tasks use what only the nodes of their owner's realm have, and are given to no others.
	Realm bool `cbor:"realm,omitempty" json:"realm,omitempty"`
	// Offload tasks may be given to nodes of other realms, strangers. One of them may come to use as much as MemoryLimit and
	// ScratchLimit say, which are of its stage.
	Offload      bool   `cbor:"offload,omitempty" json:"offload,omitempty"`
	MemoryLimit  uint64 `cbor:"memlimit,omitempty" json:"memory_limit_bytes,omitempty"`
	ScratchLimit uint64 `cbor:"scratchlimit,omitempty" json:"scratch_limit_bytes,omitempty"`
	// Depth is how many tasks are waiting for this one, each for the one below: 0 for a stage's own.
	Depth uint32 `cbor:"depth,omitempty" json:"depth,omitempty"`
	// Checked tasks are run by several nodes to compare what comes of them. Each runs them itself, and what they
	// spawn, too.
	Checked bool `cbor:"checked,omitempty" json:"checked,omitempty"`
	// Pinned tasks stay where they are: nobody gives them to a thief.
	Pinned bool `cbor:"pinned,omitempty" json:"pinned,omitempty"`
}

// Bounds of a class.
const (
	MaxPriority = 8 // and -MaxPriority is the least
	MaxCores    = 1 << 10
	MaxSelector = 1 << 10 // bytes
	MaxDepth    = 64
)

// Check refuses a class from outside that no honest owner makes.
func (c *Class) Check() error {
	switch {
	case len(c.User) > MaxName || !utf8.ValidString(c.User):
		return Errorf(Invalid, "the user's name %.40q: want at most %d bytes of UTF-8", c.User, MaxName)
	case c.Priority > MaxPriority || c.Priority < -MaxPriority:
		return Errorf(Invalid, "priority %d: want %d to %d", c.Priority, -MaxPriority, MaxPriority)
	case c.Cores > MaxCores:
		return Errorf(Limit, "%d cores for one task, at most %d are allowed", c.Cores, MaxCores)
	case len(c.Require) > MaxSelector || len(c.Prefer) > MaxSelector:
		return Errorf(Limit, "selectors of %d and %d bytes, at most %d are allowed", len(c.Require), len(c.Prefer), MaxSelector)
	case c.Depth > MaxDepth:
		return Errorf(Limit, "a task %d deep, at most %d are allowed", c.Depth, MaxDepth)
	}
	return nil
}

// Capacity is what a node has to run tasks with.
type Capacity struct {
	Labels  Labels `cbor:"labels,omitempty" json:"labels,omitempty"`         // names and values that selectors of jobs go by
	Slots   int    `cbor:"slots" json:"slots"`                               // tasks of one core that it runs at a time
	Memory  uint64 `cbor:"memory,omitempty" json:"memory_bytes,omitempty"`   // for all guests together; 0: not bounded
	Scratch uint64 `cbor:"scratch,omitempty" json:"scratch_bytes,omitempty"` // for all guests together; 0: not bounded
}
