package replica

import (
	"crypto/sha256"
	"crypto/subtle"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// common is what the records come to that concern both this node and another. Two nodes for which it is the same have the same versions
// of the same records, and need not list them for each other.
type common struct {
	Count int      `cbor:"count"`
	Sum   [16]byte `cbor:"sum"` // all their digests, by exclusive or
}

// digest is what a record adds to a sum: it stands for its root and version.
func (r *record) digest() (d [16]byte) {
	version, err := grid.Marshal(r.Version)
	if err != nil {
		panic(err) // of two numbers and a string
	}
	sum := sha256.Sum256(append(r.Root.Bytes(), version...))
	copy(d[:], sum[:])
	return d
}

// replace gives an entry another record; the zero record is none. Nothing else changes the record of an entry. The caller holds mu.
func (m *Manager) replace(e *entry, r record) {
	m.tally(&e.Record, -1)
	e.Record = r
	m.tally(&e.Record, 1)
}

// tally adds a record to what is common with each node that it concerns, or takes it away. The caller holds mu.
func (m *Manager) tally(r *record, by int) {
	if r.Version.Edit == 0 || !r.concerns(m.self) {
		return
	}
	d := r.digest()
	for _, id := range r.all() {
		if id == m.self {
			continue
		}
		c := m.common[id]
		c.Count += by
		subtle.XORBytes(c.Sum[:], c.Sum[:], d[:])
		if m.common[id] = c; c.Count == 0 {
			delete(m.common, id)
		}
	}
}

// commonWith tells what is common with another node.
func (m *Manager) commonWith(id peer.ID) common {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.common[id]
}
