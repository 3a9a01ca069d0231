package replica

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Protocol is the conversation that this package speaks.
const Protocol grid.Protocol = "pins/1"

const (
	maxItems    = 1000
	callTimeout = 5 * time.Second
	deepTimeout = 2 * time.Minute // for looking for every block
)

type (
	request struct {
		Info   info        `cbor:"info"`
		Common *common     `cbor:"common,omitempty"`
		Have   []item      `cbor:"have,omitempty"`
		Put    []record    `cbor:"put,omitempty"`
		Ask    []grid.Link `cbor:"ask,omitempty"`
		Deep   bool        `cbor:"deep,omitempty"`
	}
	reply struct {
		Info   info        `cbor:"info"`
		Differ bool        `cbor:"differ,omitempty"` // what is common
		Newer  []record    `cbor:"newer,omitempty"`
		Want   []grid.Link `cbor:"want,omitempty"`
		States []state     `cbor:"states,omitempty"` // as many as were asked for, in their order
	}
	// info is what placement needs to know of a node.
	info struct {
		Zone     string `cbor:"zone,omitempty"`
		Free     uint64 `cbor:"free"`
		Draining bool   `cbor:"draining,omitempty"`
	}
	item struct {
		Root    grid.Link `cbor:"root"`
		Version version   `cbor:"version"`
	}
	// state is what a node has of one pin.
	state struct {
		Known  bool   `cbor:"known"`
		Record record `cbor:"record,omitzero"`
		Whole  bool   `cbor:"whole,omitempty"`
		Shard  int    `cbor:"shard,omitempty"`
		Note   string `cbor:"note,omitempty"`
	}
)

func (s *state) kept() *kept { return &kept{Record: s.Record, Whole: s.Whole, Shard: s.Shard} }

func (i *info) check() error {
	if len(i.Zone) > grid.MaxName {
		return grid.Errorf(grid.Invalid, "a zone of %d bytes, at most %d are allowed", len(i.Zone), grid.MaxName)
	}
	return nil
}

func (q *request) check() error {
	if max(len(q.Have), len(q.Put), len(q.Ask)) > maxItems {
		return grid.Errorf(grid.Limit, "more than %d items in one message", maxItems)
	}
	for i := range q.Put {
		if err := q.Put[i].told(); err != nil {
			return err
		}
	}
	return q.Info.check()
}

func (p *reply) check(q *request) error {
	if len(p.Newer) > maxItems || len(p.Want) > maxItems || len(p.States) != len(q.Ask) {
		return grid.Errorf(grid.Invalid, "a reply that does not fit its request")
	}
	for i := range p.Newer {
		if err := p.Newer[i].told(); err != nil {
			return err
		}
	}
	for i := range p.States {
		s := &p.States[i]
		if len(s.Note) > maxNote {
			return grid.Errorf(grid.Invalid, "a note of %d bytes", len(s.Note))
		}
		if !s.Known {
			continue
		}
		if err := s.Record.told(); err != nil {
			return err
		}
		if !s.Record.Root.Equals(q.Ask[i].Cid) {
			return grid.Errorf(grid.Invalid, "the state of %s was asked for, not that of %s", q.Ask[i], s.Record.Root)
		}
	}
	return p.Info.check()
}

// maxNote bounds what one node tells another about its troubles.
const maxNote = 512

// call speaks to a peer, and takes note of what it says about itself.
func (m *Manager) call(ctx context.Context, to peer.ID, q request) (reply, error) {
	timeout := callTimeout
	if q.Deep {
		timeout = deepTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q.Info = m.info()
	data, err := grid.Marshal(q)
	if err != nil {
		return reply{}, grid.Errorf(grid.Internal, "encode: %w", err)
	}
	answer, err := m.net.Call(ctx, to, Protocol, data)
	if err != nil {
		return reply{}, err
	}
	var p reply
	if err := grid.UnmarshalMessage(answer, &p); err != nil {
		return reply{}, err
	}
	if err := p.check(&q); err != nil {
		return reply{}, err
	}
	m.heard(to, p.Info)
	return p, nil
}

// serve answers a call.
func (m *Manager) serve(ctx context.Context, from peer.ID, data []byte) ([]byte, error) {
	var q request
	if err := grid.UnmarshalMessage(data, &q); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	m.heard(from, q.Info)
	if err := m.merge(ctx, q.Put); err != nil {
		return nil, err
	}
	p := reply{Info: m.info(), Differ: q.Common != nil && *q.Common != m.commonWith(from)}
	p.Newer, p.Want = m.compare(from, q.Have)
	for _, l := range q.Ask {
		p.States = append(p.States, m.state(ctx, l.Cid, q.Deep))
	}
	return grid.Marshal(p)
}
