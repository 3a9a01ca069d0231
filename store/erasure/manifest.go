package erasure

import (
	"crypto/sha256"
	"iter"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// digest is the sha2-256 of a block. Stores go by it alone, so that blocks are the same when it is.
type digest [sha256.Size]byte

// digestOf takes the digest out of a CID that grid.CheckCID likes.
func digestOf(c cid.Cid) digest {
	h := c.Hash()
	return digest(h[len(h)-sha256.Size:])
}

// rawCID names a raw block.
func rawCID(d digest) cid.Cid {
	h, err := mh.Encode(d[:], mh.SHA2_256)
	if err != nil {
		panic(err) // it fails only for unknown hashes
	}
	return cid.NewCidV1(cid.Raw, h)
}

// entry is a block and its length.
type entry struct {
	cid  cid.Cid
	size uint32
}

// Manifest tells how a DAG is coded. It does not change; all its methods may be called concurrently.
type Manifest struct {
	params Params
	root   cid.Cid
	bytes  uint64 // of index and data

	records []entry  // the blocks of the manifest itself, its root first
	index   []entry  // blocks with links
	data    []entry  // group g has those from g*K on, K of them or what is left
	parity  []digest // group g has those from g*M on, M of them
	longest []uint32 // of each group: how long its longest data block is, and each of its parity blocks
}

// CID names the manifest.
func (m *Manifest) CID() cid.Cid { return m.records[0].cid }

// Root is the root of the DAG that is coded.
func (m *Manifest) Root() cid.Cid { return m.root }

// Params tell how it is coded.
func (m *Manifest) Params() Params { return m.params }

// Bytes is the length of all blocks of the DAG.
func (m *Manifest) Bytes() uint64 { return m.bytes }

// Groups is the number of groups.
func (m *Manifest) Groups() int { return len(m.longest) }

// Index lists the blocks of the DAG that link to others. They are copied, not coded.
func (m *Manifest) Index() []cid.Cid { return cids(m.index) }

// Records lists the blocks of the manifest itself, its root first. Every column keeps them.
func (m *Manifest) Records() []cid.Cid { return cids(m.records) }

func cids(es []entry) []cid.Cid {
	cs := make([]cid.Cid, len(es))
	for i, e := range es {
		cs[i] = e.cid
	}
	return cs
}

// group is the data blocks of a group.
func (m *Manifest) group(g int) []entry {
	return m.data[g*m.params.K : min((g+1)*m.params.K, len(m.data))]
}

// block is block i of a group, as in Params.Column; ok is false where the last group has none.
func (m *Manifest) block(g, i int) (e entry, ok bool) {
	data := m.group(g)
	switch {
	case i < len(data):
		return data[i], true
	case i < m.params.K:
		return entry{}, false
	}
	return entry{rawCID(m.parity[g*m.params.M+i-m.params.K]), m.longest[g]}, true
}

// Kind is what a block is to the manifest.
type Kind string

// The kinds.
const (
	Data   Kind = "data"     // of the DAG, without links; in a group
	Parity Kind = "parity"   // in a group
	Index  Kind = "index"    // of the DAG, with links; M+1 columns keep it
	Record Kind = "manifest" // of the manifest itself; all columns keep it
)

// Shard is a block that a column keeps. One block may be several shards, of several columns.
type Shard struct {
	CID    cid.Cid
	Size   int // bytes
	Kind   Kind
	Column int
	Group  int // of Data and Parity; else -1
}

// Shards lists what the node of a column, from 0 to Params.Columns()-1, keeps: the manifest, then index
// blocks, then its blocks of the groups. In parity blocks one may come twice, or be one of the data again.
func (m *Manifest) Shards(column int) iter.Seq[Shard] {
	p := m.params
	return func(yield func(Shard) bool) {
		for _, e := range m.records {
			if !yield(Shard{e.cid, int(e.size), Record, column, -1}) {
				return
			}
		}
		for i, e := range m.index {
			if p.slot(i, column) <= p.M && !yield(Shard{e.cid, int(e.size), Index, column, -1}) {
				return
			}
		}
		for g := range m.longest {
			if s, ok := m.shard(g, p.slot(g, column)); ok && !yield(s) {
				return
			}
		}
	}
}

// shard is block i of a group.
func (m *Manifest) shard(g, i int) (Shard, bool) {
	e, ok := m.block(g, i)
	kind := Data
	if i >= m.params.K {
		kind = Parity
	}
	return Shard{e.cid, int(e.size), kind, m.params.Column(g, i), g}, ok
}

// Count is a number of blocks and their bytes.
type Count struct {
	Blocks int
	Bytes  uint64
}

func (c *Count) add(bytes int) {
	c.Blocks++
	c.Bytes += uint64(bytes)
}

// Stat is what coding a DAG comes to.
type Stat struct {
	Data, Parity   Count
	Index, Records Count   // each block counted once
	Columns        []Count // what each column keeps; together, all that is kept
}

// Stat counts.
func (m *Manifest) Stat() Stat {
	st := Stat{Columns: make([]Count, m.params.Columns())}
	for _, e := range m.index {
		st.Index.add(int(e.size))
	}
	for _, e := range m.records {
		st.Records.add(int(e.size))
	}
	for c := range st.Columns {
		for s := range m.Shards(c) {
			st.Columns[c].add(s.Size)
			switch s.Kind {
			case Data:
				st.Data.add(s.Size)
			case Parity:
				st.Parity.add(s.Size)
			}
		}
	}
	return st
}
