package grid

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	maxRefusals = 512         // peers, protocols and reasons that are told apart
	sayEvery    = time.Minute // that one of them is logged again
	sayAtOnce   = 16          // lines in that time, of all of them
)

// Refusals counts what a node refuses, and says so in a log now and then. Of too many peers those that were refused longest ago are
// counted together. It is safe for concurrent use.
type Refusals struct {
	say func(from string, p Protocol, reason string, times uint64)

	mu    sync.Mutex
	all   map[refusal]*refused
	since time.Time // of the lines said
	said  int
}

type refusal struct {
	from   string
	p      Protocol
	reason string
}

type refused struct {
	n    uint64
	last time.Time
	said time.Time
}

// NewRefusals makes counts that are logged as warnings with a message.
func NewRefusals(log *slog.Logger, message string) *Refusals {
	return &Refusals{all: make(map[refusal]*refused), say: func(from string, p Protocol, reason string, times uint64) {
		log.Warn(message, "peer", from, "protocol", p, "reason", reason, "times", times)
	}}
}

// Add counts a refusal at some time. from is a peer, or a network address.
func (c *Refusals) Add(from string, p Protocol, reason string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := refusal{from, p, reason}
	n := c.all[k]
	if n == nil {
		if len(c.all) >= maxRefusals {
			c.fold()
		}
		n = new(refused)
		c.all[k] = n
	}
	n.n++
	n.last = now
	if !n.said.IsZero() && now.Sub(n.said) < sayEvery {
		return
	}
	if now.Sub(c.since) >= sayEvery {
		c.since, c.said = now, 0
	}
	if c.said < sayAtOnce {
		c.said++
		n.said = now
		c.say(from, p, reason, n.n)
	}
}

// List lists what was refused, the most frequent first.
func (c *Refusals) List() []Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Refusal, 0, len(c.all))
	for k, n := range c.all {
		list = append(list, Refusal{From: k.from, Protocol: k.p, Reason: k.reason, Count: n.n})
	}
	slices.SortFunc(list, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.From, b.From), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}

// fold counts the peer that was refused longest ago with others like it. So who comes under ever new names does not hide who does what
// now. There are a few more than maxRefusals: one for each protocol and reason.
func (c *Refusals) fold() {
	var oldest refusal
	for k, n := range c.all {
		if k.from != "" && (oldest.from == "" || n.last.Before(c.all[oldest].last)) {
			oldest = k
		}
	}
	if oldest.from == "" {
		return
	}
	n := c.all[oldest]
	delete(c.all, oldest)
	oldest.from = ""
	if all := c.all[oldest]; all != nil {
		all.n += n.n
		return
	}
	c.all[oldest] = n
}
