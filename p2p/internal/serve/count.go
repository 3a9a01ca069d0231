package serve

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	maxCounted = 512         // peers, protocols and reasons that are told apart
	sayEvery   = time.Minute // that one of them is logged again
	sayAtOnce  = 16          // lines in that time, of all of them
)

// counts are the refusals of a node. Of too many peers those that were refused longest ago are counted together.
type counts struct {
	log *slog.Logger

	mu    sync.Mutex
	all   map[refusal]*counted
	since time.Time // of the lines said
	said  int
}

type refusal struct {
	from   string
	p      grid.Protocol
	reason string
}

type counted struct {
	n    uint64
	last time.Time
	said time.Time
}

// Refused counts a refusal, and says so in the log now and then.
func (t *Table) Refused(from peer.ID, p grid.Protocol, reason string) {
	t.count.add(from.String(), p, reason, time.Now())
}

// RefusedAddress is Refused for a connection of somebody who has not said who he is.
func (t *Table) RefusedAddress(addr, reason string) { t.count.add(addr, "", reason, time.Now()) }

// blame counts what a handler answered with, if that is the peer's fault.
func (t *Table) blame(from peer.ID, p grid.Protocol, err error) {
	if err == nil || from == t.self {
		return
	}
	switch code := grid.CodeOf(err); code {
	case grid.Invalid, grid.Limit, grid.Denied, grid.Corrupt:
		t.Refused(from, p, code.Error())
	}
}

// blameStream is blame for an error of a stream's handler.
func (t *Table) blameStream(from peer.ID, p grid.Protocol, err error) {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		t.Refused(from, p, grid.RefusedMalformed)
	case grid.CodeOf(err) == grid.Deadline:
		t.Refused(from, p, grid.RefusedSlow)
	case grid.CodeOf(err) == grid.Busy:
		t.Refused(from, p, grid.RefusedAtOnce)
	default:
		t.blame(from, p, err)
	}
}

// Refusals lists what was refused, the most frequent first.
func (t *Table) Refusals() []grid.Refusal {
	c := &t.count
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]grid.Refusal, 0, len(c.all))
	for k, n := range c.all {
		list = append(list, grid.Refusal{From: k.from, Protocol: k.p, Reason: k.reason, Count: n.n})
	}
	slices.SortFunc(list, func(a, b grid.Refusal) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.From, b.From), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}

func (c *counts) add(from string, p grid.Protocol, reason string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[refusal]*counted)
	}
	k := refusal{from, p, reason}
	n := c.all[k]
	if n == nil {
		if len(c.all) >= maxCounted {
			c.fold()
		}
		n = new(counted)
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
		c.log.Warn("refused what a peer asked for", "peer", from, "protocol", p, "reason", reason, "times", n.n)
	}
}

// fold counts the peer that was refused longest ago with others like it. So who comes under ever new names does not hide who does what
// now. There are a few more than maxCounted: one for each protocol and reason.
func (c *counts) fold() {
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
