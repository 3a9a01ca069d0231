package grid

import (
	"context"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxCopies bounds the nodes that one pin is spread over: its replicas, or the shards of its code.
const MaxCopies = 32

// Pin is a promise to keep a DAG: whole on so many nodes, or coded over as many as its code has shards.
type Pin struct {
	Root     Link      `json:"root"`               // of the DAG
	Name     string    `json:"name,omitempty"`     // for people
	Replicas int       `json:"replicas,omitempty"` // whole copies; 0 means the node's default, or that it is coded
	Code     Coding    `json:"code,omitzero"`      // zero: whole copies
	Size     int64     `json:"size_bytes"`         // of its blocks; worked out when it is pinned
	Created  time.Time `json:"created,omitzero"`   // when it was pinned
	By       peer.ID   `json:"by,omitempty"`       // the node that pinned it; filled in
}

// Coding is an erasure code: Data shards and Parity more, each on a node of its own. Any Parity nodes may be
// lost, at (Data+Parity)/Data times the bytes.
type Coding struct {
	Data   int `cbor:"data" json:"data"`     // how many shards are enough to read it
	Parity int `cbor:"parity" json:"parity"` // how many shards may be lost
}

// ParseCoding reads a code written as "4+2".
func ParseCoding(s string) (Coding, error) {
	data, parity, ok := strings.Cut(s, "+")
	k, err1 := strconv.Atoi(data)
	m, err2 := strconv.Atoi(parity)
	c := Coding{k, m}
	if !ok || err1 != nil || err2 != nil || c == (Coding{}) || c.String() != s {
		return Coding{}, Errorf(Invalid, "%.40q is not an erasure code", s).Hint("write data+parity shards, for example 4+2")
	}
	return c, c.Check()
}

// Check refuses codes that no node could carry out.
func (c Coding) Check() error {
	if c != (Coding{}) && (c.Data < 1 || c.Parity < 1 || c.Data > MaxCopies || c.Parity > MaxCopies || c.Shards() > MaxCopies) {
		return Errorf(Invalid, "erasure code %s: want at least 1+1 and at most %d shards in all", c, MaxCopies)
	}
	return nil
}

// Shards is how many nodes the code needs.
func (c Coding) Shards() int { return c.Data + c.Parity }

func (c Coding) String() string { return strconv.Itoa(c.Data) + "+" + strconv.Itoa(c.Parity) }

// Check refuses a pin that makes no sense.
func (p *Pin) Check() error {
	if err := CheckCID(p.Root.Cid); err != nil {
		return err
	}
	if len(p.Name) > MaxName || !utf8.ValidString(p.Name) || strings.ContainsRune(p.Name, 0) {
		return Errorf(Invalid, "pin %s: want a name of at most %d bytes of UTF-8", p.Root, MaxName)
	}
	if p.Replicas < 0 || p.Replicas > MaxCopies {
		return Errorf(Invalid, "pin %s: %d replicas, want 1 to %d", p.Root, p.Replicas, MaxCopies)
	}
	if p.Replicas > 0 && p.Code != (Coding{}) {
		return Errorf(Invalid, "pin %s: it is to be both replicated and erasure-coded", p.Root).Hint("choose one")
	}
	return p.Code.Check()
}

// Wanted is the number of nodes that are to keep a part.
func (p *Pin) Wanted() int {
	if p.Code != (Coding{}) {
		return p.Code.Shards()
	}
	return p.Replicas
}

// Health is how well a promise is kept at the moment.
type Health string

// The states of health.
const (
	Healthy  Health = "ok"       // as many copies as promised
	Degraded Health = "degraded" // fewer, but all of it can be read
	Lost     Health = "lost"     // not all of it is to be had from the nodes that can be reached
)

// CopyState is what a node has of what it is to keep.
type CopyState string

// The states of a copy.
const (
	CopyDurable     CopyState = "durable"     // all of it, on disk
	CopyFetching    CopyState = "fetching"    // not all of it yet
	CopyUnreachable CopyState = "unreachable" // the node does not answer, so nobody knows
	CopySurplus     CopyState = "surplus"     // it has what it need not keep any more, until the others have it
)

// Copy is one node's part of a pin.
type Copy struct {
	Node  peer.ID   `json:"node"`            // that has it, or is to have it
	Shard int       `json:"shard,omitempty"` // of a code, counted from 1
	State CopyState `json:"state"`           // of its part
	Note  string    `json:"note,omitempty"`  // why it is not durable
}

// PinStatus is a pin as it stands.
type PinStatus struct {
	Pin
	Health Health `json:"health"`         // how well the promise is kept
	Copies []Copy `json:"copies"`         // of the nodes that are to keep it, and of those that still do
	Note   string `json:"note,omitempty"` // what stands in the way of more copies
}

// Durable counts the nodes that have all they are to keep.
func (s *PinStatus) Durable() int {
	n := 0
	for _, c := range s.Copies {
		if c.State == CopyDurable {
			n++
		}
	}
	return n
}

// DrainStatus tells how far a node is with handing on what it keeps.
type DrainStatus struct {
	Draining bool   `json:"draining"`       // it hands on what it keeps
	Left     int    `json:"left"`           // pins whose data is still needed here
	Bytes    int64  `json:"left_bytes"`     // of them
	Note     string `json:"note,omitempty"` // what stands in the way
}

// Pins is the pin set: what is to be kept, by how many nodes, and what becomes of it. It is safe for
// concurrent use.
type Pins interface {
	// Pin makes a promise, or changes an earlier one for the same root. The DAG must be here whole. It
	// is recorded durably when Pin returns; copies on other nodes are made in the background.
	Pin(ctx context.Context, p Pin) (PinStatus, error)
	// Unpin takes a promise back. The data stays until its room is needed. The error is NotFound when
	// there is no such pin.
	Unpin(ctx context.Context, root cid.Cid) error
	// Pins lists what this node knows of, in order of creation, as far as that is known without asking
	// anybody.
	Pins(ctx context.Context) ([]PinStatus, error)
	// Status asks all nodes concerned. Deep has each of them look for every block.
	Status(ctx context.Context, root cid.Cid, deep bool) (PinStatus, error)
	// Drain has this node hand on what it keeps, and take nothing more; or, with false, ends that.
	Drain(ctx context.Context, on bool) error
	// Draining tells how far that is.
	Draining(ctx context.Context) (DrainStatus, error)
}
