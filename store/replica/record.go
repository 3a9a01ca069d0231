package replica

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// version orders the states of one record.
type version struct {
	Edit   uint64  `cbor:"e"` // counts what people said
	Assign uint64  `cbor:"a"` // counts changes of holders since
	Node   peer.ID `cbor:"n"` // who made this one
}

func (v version) before(w version) bool {
	if v.Edit != w.Edit {
		return v.Edit < w.Edit
	}
	if v.Assign != w.Assign {
		return v.Assign < w.Assign
	}
	return v.Node < w.Node
}

// record is a pin as its holders share it. It is changed only by making another.
type record struct {
	Root     grid.Link   `cbor:"root"`
	Name     string      `cbor:"name,omitempty"`
	Replicas int         `cbor:"replicas,omitempty"`
	Code     grid.Coding `cbor:"code,omitzero"`
	Manifest grid.Link   `cbor:"manifest,omitzero"` // of a coded DAG; see package erasure
	Size     int64       `cbor:"size"`
	Created  int64       `cbor:"created"` // Unix time
	Changed  int64       `cbor:"changed"`
	Gone     bool        `cbor:"gone,omitempty"` // the promise was taken back
	By       peer.ID     `cbor:"by"`             // where it was made
	Version  version     `cbor:"version"`
	Holders  []peer.ID   `cbor:"holders"`          // of a code, holder i keeps shard i
	Former   []peer.ID   `cbor:"former,omitempty"` // who were holders last; they may have other versions
}

// maxCount keeps a version from being made the last one that there can be. What comes from others has maxTold at most, so that there are
// others after it.
const (
	maxCount = 1 << 60
	maxTold  = maxCount / 2
)

// told is check for what comes from another node.
func (r *record) told() error {
	if r.Version.Edit > maxTold || r.Version.Assign > maxTold {
		return grid.Errorf(grid.Invalid, "the record of pin %s: an impossible version", r.Root)
	}
	return r.check()
}

// check refuses records that no honest node sends.
func (r *record) check() error {
	p := r.pin()
	if err := p.Check(); err != nil {
		return err
	}
	bad := func(what string) error {
		return grid.Errorf(grid.Invalid, "the record of pin %s: %s", r.Root, what)
	}
	switch {
	case r.coded() == (r.Replicas > 0):
		return bad("neither copies nor a code")
	case r.coded() && grid.CheckCID(r.Manifest.Cid) != nil:
		return bad("no manifest")
	case r.Version.Edit == 0 || r.Version.Edit > maxCount || r.Version.Assign > maxCount:
		return bad("an impossible version")
	case len(r.Holders) > grid.MaxCopies || r.coded() && len(r.Holders) != r.Code.Shards():
		return bad("a wrong number of holders")
	case r.By.Validate() != nil || len(r.By) > maxPeer:
		return bad("no maker")
	}
	if len(r.Former) > grid.MaxCopies || slices.ContainsFunc(r.Former, func(id peer.ID) bool { return id.Validate() != nil || len(id) > maxPeer }) {
		return bad("former holders that are none")
	}
	for i, h := range r.Holders {
		if h.Validate() != nil || len(h) > maxPeer || slices.Contains(r.Holders[:i], h) {
			return bad("a holder that is none")
		}
	}
	return nil
}

// maxPeer is more bytes than any peer ID has.
const maxPeer = 128

func (r *record) coded() bool { return r.Code != grid.Coding{} }

func (r *record) wanted() int {
	p := r.pin()
	return p.Wanted()
}

func (r *record) pin() grid.Pin {
	return grid.Pin{
		Root: r.Root, Name: r.Name, Replicas: r.Replicas, Code: r.Code, Size: r.Size,
		Created: time.Unix(r.Created, 0).UTC(), By: r.By,
	}
}

// place is where a node stands among the holders, -1 when it does not.
func (r *record) place(id peer.ID) int { return slices.Index(r.Holders, id) }

// concerns reports whether a node is one that should know of the record.
func (r *record) concerns(id peer.ID) bool {
	return r.By == id || r.place(id) >= 0 || slices.Contains(r.Former, id)
}

// all is every node that should know of the record, each once.
func (r *record) all() []peer.ID {
	ids := slices.Concat(r.Holders, r.Former, []peer.ID{r.By})
	slices.Sort(ids)
	return slices.Compact(ids)
}

// held is the record with other holders.
func (r record) held(holders []peer.ID) record {
	old := slices.Concat(r.Holders, r.Former) // the latest first
	r.Holders, r.Former = holders, nil
	for _, id := range old {
		if r.place(id) < 0 && !slices.Contains(r.Former, id) && len(r.Former) < grid.MaxCopies {
			r.Former = append(r.Former, id)
		}
	}
	return r
}

// with is the record with other holders, as its next version.
func (r record) with(holders []peer.ID, by peer.ID, now time.Time) record {
	next := r.held(holders)
	next.Version.Assign++
	next.Version.Node = by
	next.Changed = now.Unix()
	return next
}

// kept is what one node remembers of a pin: the record, and what it has of the DAG.
type kept struct {
	Record record `cbor:"record"`
	Whole  bool   `cbor:"whole,omitempty"` // all of it is here
	Shard  int    `cbor:"shard,omitempty"` // this shard of it is here, counted from 1
	Part   bool   `cbor:"part,omitempty"`  // all of it was here, blocks are lost, and the rest stays until others have all of it
}

// some reports whether anything is kept here that need not be a holder's.
func (k *kept) some() bool { return k.beyondShard() || k.Shard > 0 }

// beyondShard reports whether the root is kept here, and not a shard alone.
func (k *kept) beyondShard() bool { return k.Whole || k.Part }

// has reports whether all is here that the holder at a place is to keep.
func (k *kept) has(place int) bool {
	return k.Whole || k.Record.coded() && k.Shard == place+1
}
