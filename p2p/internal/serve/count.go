package serve

import (
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Refused counts a refusal, and says so in the log now and then.
func (t *Table) Refused(from peer.ID, p grid.Protocol, reason string) {
	t.count.Add(from.String(), p, reason, time.Now())
}

// RefusedAddress is Refused for a connection of somebody who has not said who he is.
func (t *Table) RefusedAddress(addr, reason string) { t.count.Add(addr, "", reason, time.Now()) }

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
func (t *Table) Refusals() []grid.Refusal { return t.count.List() }
