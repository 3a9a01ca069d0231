package member

import (
	"bytes"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on successions.
const (
	maxSuccessions = 32      // from one that the recovery key has signed, which begins anew
	maxNumber      = 1 << 40 // of one
	maxLineage     = 2 * (maxSuccessions + 1)
)

// Succession says which key is that of the swarm's authority from now on. It is signed by the key that was so before, and has the
// number after that of its own succession; or by the swarm's first key, which is kept for recovery and may sign one of any number.
type Succession struct {
	Swarm  peer.ID `cbor:"swarm"`
	Number uint64  `cbor:"number"`
	Key    peer.ID `cbor:"key"`
	Issued int64   `cbor:"issued"`
}

// Domain is told at record.Record.
func (*Succession) Domain() string { return "wasmgrid-swarm-succession" }

// Codec is told at record.Record.
func (*Succession) Codec() []byte { return []byte("/wasmgrid/swarm/succession/1") }

// MarshalRecord is told at record.Record.
func (s *Succession) MarshalRecord() ([]byte, error) { return grid.Marshal(s) }

// UnmarshalRecord is told at record.Record.
func (s *Succession) UnmarshalRecord(data []byte) error { return grid.UnmarshalMessage(data, s) }

// succeeded is a succession with the record that proves it.
type succeeded struct {
	s    Succession
	root bool // the first key has signed it
	raw  []byte
}

// lineage tells whose key the authority's is. It is the same whatever the order in which successions were learned:
//
//  1. Of those that the first key has signed the greatest number counts, and what is not built on it is void.
//  2. Each further one has the next number, and is signed by the key before.
//  3. Two that say different keys with equal right are a dispute: a key was stolen. Nothing counts from there on, neither of
//     the two nor the key before, until the first key has signed one with a greater number.
type lineage struct {
	swarm peer.ID
	steps [][]succeeded // in order of numbers, the first by the first key; each is one, the last perhaps two in dispute
}

// authority is the key that signs for the swarm; disputed tells that there is none.
func (l *lineage) authority() (key peer.ID, disputed bool) {
	if len(l.steps) == 0 {
		return l.swarm, false
	}
	last := l.steps[len(l.steps)-1]
	if len(last) > 1 {
		return "", true
	}
	return last[0].s.Key, false
}

// number is that of the last succession.
func (l *lineage) number() uint64 {
	if len(l.steps) == 0 {
		return 0
	}
	return l.steps[len(l.steps)-1][0].s.Number
}

// rivals are the keys that are in dispute.
func (l *lineage) rivals() (keys []peer.ID) {
	if _, disputed := l.authority(); disputed {
		for _, x := range l.steps[len(l.steps)-1] {
			keys = append(keys, x.s.Key)
		}
	}
	return keys
}

func (l *lineage) clone() lineage { return lineage{l.swarm, slices.Clone(l.steps)} }

// add takes a succession, and reports whether it says something new. One that does not count, as another has taken its place, is
// no error.
func (l *lineage) add(raw []byte, now time.Time) (changed bool, err error) {
	x := succeeded{raw: raw}
	signer, err := unseal(raw, &x.s)
	switch {
	case err != nil:
		return false, err
	case x.s.Swarm != l.swarm:
		return false, grid.Errorf(grid.Denied, "swarm: a succession of the authority of another swarm")
	case x.s.Number == 0 || x.s.Number > maxNumber || !isID(x.s.Key):
		return false, grid.Errorf(grid.Invalid, "swarm: succession %d of the authority is out of bounds", x.s.Number)
	case now.Add(skew).Unix() < x.s.Issued:
		return false, grid.Errorf(grid.Denied, "swarm: succession %d of the authority was made at %s, which is yet to come: it is %s by this clock", x.s.Number, when(x.s.Issued), when(now.Unix())).
			Hint("check the clocks of both machines")
	}
	if key, err := x.s.Key.ExtractPublicKey(); err != nil || key == nil {
		return false, grid.Errorf(grid.Invalid, "swarm: succession %d of the authority names no Ed25519 key", x.s.Number)
	}
	x.raw = slices.Clone(raw)
	if x.root = signer == l.swarm; x.root && (len(l.steps) == 0 || x.s.Number > l.steps[0][0].s.Number) {
		l.steps = [][]succeeded{{x}}
		return true, nil
	}
	var before peer.ID
	for i := range l.steps {
		at := l.steps[i]
		switch {
		case at[0].s.Number != x.s.Number:
			before = at[0].s.Key
			continue
		case x.root != at[0].root || !x.root && signer != before:
			return false, nil // void
		case slices.ContainsFunc(at, func(y succeeded) bool { return y.s.Key == x.s.Key }) || len(at) > 1:
			return false, nil // known, or no more in dispute than it was
		}
		l.steps = append(slices.Clone(l.steps[:i]), []succeeded{at[0], x})
		return true, nil
	}
	last, disputed := l.authority()
	switch {
	case x.root || disputed || signer != last || x.s.Number != l.number()+1:
		return false, nil // void, or of a number that is not due yet
	case len(l.steps) > maxSuccessions:
		return false, grid.Errorf(grid.Limit, "swarm: the authority's key has been replaced %d times since the recovery key was used", maxSuccessions).
			Hint("use the recovery key: `grid swarm rotate-key --recover`")
	}
	l.steps = append(slices.Clip(l.steps), []succeeded{x})
	return true, nil
}

// raws are the records, in the order in which they are to be learned.
func (l *lineage) raws() (list [][]byte) {
	for _, at := range l.steps {
		for _, x := range at {
			list = append(list, x.raw)
		}
	}
	return list
}

// has reports whether a record is one of those that count.
func (l *lineage) has(raw []byte) bool {
	return slices.ContainsFunc(l.steps, func(at []succeeded) bool {
		return slices.ContainsFunc(at, func(x succeeded) bool { return bytes.Equal(x.raw, raw) })
	})
}

// supports refuses a membership that rests on another key.
func (l *lineage) supports(o *opened) error {
	for _, key := range o.by.keys() {
		if err := l.check("the membership of "+o.m.Peer.String(), key); err != nil {
			return err
		}
	}
	return nil
}

// check refuses what another key has signed than that of the authority.
func (l *lineage) check(what string, signer peer.ID) error {
	if key, _ := l.authority(); key != signer {
		return l.refusal(what, signer)
	}
	return nil
}

// refusal says of something that a key has signed that it is not the authority's.
func (l *lineage) refusal(what string, signer peer.ID) error {
	key, disputed := l.authority()
	if disputed {
		return grid.Errorf(grid.Denied, "swarm: %s is not believed: it is in dispute whose the authority's key is, so one was stolen: %s", what, l.rivals()).
			Hint("who has the recovery key ends it with `grid swarm rotate-key --recover`")
	}
	return grid.Errorf(grid.Denied, "swarm: %s is signed with the key %s, but that of the swarm's authority is %s", what, signer, key).
		Hint("if the authority's key was replaced, ask for a new token, or connect this node to a member that was up since")
}
