package erasure

import (
	"bytes"
	"context"
	"crypto/sha256"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// docs/erasure.md describes what is written here, byte by byte.

const (
	version = 1
	// perPart is how many blocks a part of the manifest lists: whole groups, or index blocks. Such a part
	// takes less than a megabyte.
	perPart = 1 << 14
	// maxListed bounds the blocks that a manifest lists, parity included: 1.3 TiB of blocks of 1 MiB coded
	// 4+2, for which a manifest takes some 100 MB, and the same in memory.
	maxListed = 1 << 21
	maxParts  = maxListed/(perPart-MaxColumns) + 1
)

// rootRecord is the root of a manifest. Only its parts are links: whoever follows links has the whole
// manifest, and not the DAG and its parity with it.
type rootRecord struct {
	Version uint64      `cbor:"v"`
	K       uint64      `cbor:"k"`
	M       uint64      `cbor:"m"`
	Root    []byte      `cbor:"root"`
	Bytes   uint64      `cbor:"bytes"`
	Index   []grid.Link `cbor:"index"`
	Groups  []grid.Link `cbor:"groups"`
}

// A part is a list of groups, or of entries of the index.
type (
	groupRecord struct {
		_      struct{} `cbor:",toarray"`
		Data   []entryRecord
		Parity []byte // digests, one behind the other
	}
	entryRecord struct {
		_    struct{} `cbor:",toarray"`
		CID  []byte
		Size uint32
	}
)

// decMode bounds lists to what a part may have.
var decMode = must(cbor.DecOptions{
	DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	IndefLength:      cbor.IndefLengthForbidden,
	MaxNestedLevels:  8,
	MaxArrayElements: perPart,
	MaxMapPairs:      16,
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a constant above is wrong
	}
	return v
}

// decode reads a record. Only the bytes that Marshal makes of it are accepted, so that a manifest has one
// form and nothing can hide in it.
func decode[T any](data []byte) (v T, err error) {
	if err := decMode.Unmarshal(data, &v); err != nil {
		return v, grid.Errorf(grid.Invalid, "malformed CBOR: %v", err)
	}
	if again, err := grid.Marshal(v); err != nil || !bytes.Equal(again, data) {
		return v, grid.Errorf(grid.Invalid, "it is not in canonical form")
	}
	return v, nil
}

func (e entry) record() entryRecord { return entryRecord{CID: e.cid.Bytes(), Size: e.size} }

func (r entryRecord) entry() (entry, error) {
	c, err := cid.Cast(r.CID)
	if err != nil {
		return entry{}, grid.Errorf(grid.Invalid, "it lists something that is not a CID")
	}
	if err := grid.CheckCID(c); err != nil {
		return entry{}, err
	}
	if r.Size > grid.MaxBlock {
		return entry{}, grid.Errorf(grid.Invalid, "it claims %d bytes of block %s, at most %d are allowed", r.Size, c, grid.MaxBlock)
	}
	return entry{c, r.Size}, nil
}

// groupsPerPart is how many groups fill a part.
func (p Params) groupsPerPart() int { return perPart / p.Columns() }

// encode gives the blocks of the manifest to emit, its root last, and notes them in records.
func (m *Manifest) encode(emit func(grid.Block) error) error {
	rec := rootRecord{
		Version: version, K: uint64(m.params.K), M: uint64(m.params.M), Root: m.root.Bytes(), Bytes: m.bytes,
		Index: []grid.Link{}, Groups: []grid.Link{},
	}
	records := []entry{{}} // the root
	put := func(v any) (grid.Link, error) {
		b, err := grid.EncodeBlock(v)
		if err != nil {
			return grid.Link{}, err
		}
		records = append(records, entry{b.CID(), uint32(len(b.Data()))})
		return grid.Link{Cid: b.CID()}, emit(b)
	}
	for i := 0; i < len(m.index); i += perPart {
		var part []entryRecord
		for _, e := range m.index[i:min(i+perPart, len(m.index))] {
			part = append(part, e.record())
		}
		l, err := put(part)
		if err != nil {
			return err
		}
		rec.Index = append(rec.Index, l)
	}
	for g := 0; g < m.Groups(); {
		var part []groupRecord
		for ; g < m.Groups() && len(part) < m.params.groupsPerPart(); g++ {
			var r groupRecord
			for _, e := range m.group(g) {
				r.Data = append(r.Data, e.record())
			}
			for _, d := range m.parity[g*m.params.M : (g+1)*m.params.M] {
				r.Parity = append(r.Parity, d[:]...)
			}
			part = append(part, r)
		}
		l, err := put(part)
		if err != nil {
			return err
		}
		rec.Groups = append(rec.Groups, l)
	}
	b, err := grid.EncodeBlock(rec)
	if err != nil {
		return err
	}
	records[0] = entry{b.CID(), uint32(len(b.Data()))}
	m.records = records
	return emit(b)
}

// Load reads the manifest that c names; get brings its blocks, which are verified here. The error is Invalid
// when it is malformed, Unsupported when a later version wrote it, Limit when it is too large, and else
// that of get.
func Load(ctx context.Context, get func(context.Context, cid.Cid) ([]byte, error), c cid.Cid) (*Manifest, error) {
	m, err := load(ctx, get, c)
	if err != nil {
		return nil, grid.Errorf(codeOf(err), "store: manifest %s: %w", c, err)
	}
	return m, nil
}

func load(ctx context.Context, get func(context.Context, cid.Cid) ([]byte, error), c cid.Cid) (*Manifest, error) {
	m := &Manifest{}
	read := func(c cid.Cid) ([]byte, error) {
		if p := c.Prefix(); p.Version != 1 || p.Codec != cid.DagCBOR {
			return nil, grid.Errorf(grid.Invalid, "%s is not DAG-CBOR, so it is no part of a manifest", c)
		}
		if err := grid.CheckCID(c); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := get(ctx, c)
		if err != nil {
			return nil, err
		}
		if _, err := grid.VerifyBlock(c, data); err != nil {
			return nil, err
		}
		m.records = append(m.records, entry{c, uint32(len(data))})
		return data, nil
	}
	data, err := read(c)
	if err != nil {
		return nil, err
	}
	rec, err := m.decodeRoot(data)
	if err != nil {
		return nil, err
	}
	for i, l := range rec.Index {
		if data, err = read(l.Cid); err == nil {
			err = m.decodeIndex(data, i == len(rec.Index)-1)
		}
		if err != nil {
			return nil, err
		}
	}
	for i, l := range rec.Groups {
		if data, err = read(l.Cid); err == nil {
			err = m.decodeGroups(data, i == len(rec.Groups)-1)
		}
		if err != nil {
			return nil, err
		}
	}
	return m, m.check()
}

func (m *Manifest) decodeRoot(data []byte) (rec rootRecord, err error) {
	// Of a later version no more than its number is known.
	var v struct {
		Version uint64 `cbor:"v"`
	}
	if err := decMode.Unmarshal(data, &v); err == nil && v.Version > version {
		return rec, grid.Errorf(grid.Unsupported, "it is of version %d, only %d is known here", v.Version, version).
			Hint("upgrade this node")
	}
	if rec, err = decode[rootRecord](data); err != nil {
		return rec, err
	}
	if rec.Version != version {
		return rec, grid.Errorf(grid.Invalid, "it is of version %d", rec.Version)
	}
	m.params = Params{int(min(rec.K, MaxColumns+1)), int(min(rec.M, MaxColumns+1))}
	if err := m.params.Check(); err != nil {
		return rec, err
	}
	if m.root, err = cid.Cast(rec.Root); err != nil {
		return rec, grid.Errorf(grid.Invalid, "its root is not a CID")
	}
	if err := grid.CheckCID(m.root); err != nil {
		return rec, err
	}
	m.bytes = rec.Bytes
	if len(rec.Index) > maxParts || len(rec.Groups) > maxParts {
		return rec, tooLarge()
	}
	if len(rec.Groups) == 0 {
		return rec, grid.Errorf(grid.Invalid, "it has no groups")
	}
	return rec, nil
}

func tooLarge() error {
	return grid.Errorf(grid.Limit, "more than %d blocks would be listed", maxListed).
		Hint("code the parts of the DAG one by one, or with fewer parity blocks")
}

func (m *Manifest) decodeIndex(data []byte, last bool) error {
	part, err := decode[[]entryRecord](data)
	if err != nil {
		return err
	}
	if len(part) == 0 || len(part) > perPart || !last && len(part) < perPart {
		return grid.Errorf(grid.Invalid, "a part of its index lists %d blocks", len(part))
	}
	for _, r := range part {
		e, err := r.entry()
		if err != nil {
			return err
		}
		m.index = append(m.index, e)
	}
	return m.bound()
}

func (m *Manifest) decodeGroups(data []byte, last bool) error {
	part, err := decode[[]groupRecord](data)
	if err != nil {
		return err
	}
	full := m.params.groupsPerPart()
	if len(part) == 0 || len(part) > full || !last && len(part) < full {
		return grid.Errorf(grid.Invalid, "a part of it lists %d groups", len(part))
	}
	for i, r := range part {
		g := m.Groups()
		k := len(r.Data)
		if k == 0 || k > m.params.K || k < m.params.K && !(last && i == len(part)-1) || len(r.Parity) != m.params.M*sha256.Size {
			return grid.Errorf(grid.Invalid, "group %d of it has %d data blocks and %d bytes of parity digests, coded %s",
				g, k, len(r.Parity), m.params)
		}
		longest := uint32(0)
		for _, r := range r.Data {
			e, err := r.entry()
			if err != nil {
				return err
			}
			m.data = append(m.data, e)
			longest = max(longest, e.size)
		}
		for d := r.Parity; len(d) > 0; d = d[sha256.Size:] {
			m.parity = append(m.parity, digest(d[:sha256.Size]))
		}
		m.longest = append(m.longest, longest)
	}
	return m.bound()
}

func (m *Manifest) bound() error {
	if len(m.index)+len(m.data)+len(m.parity) > maxListed {
		return tooLarge()
	}
	return nil
}

// check looks at what can be told only of the whole.
func (m *Manifest) check() error {
	// Parity may well equal data, or other parity, as that of zeros does.
	seen := make(map[digest]struct{}, len(m.index)+len(m.data))
	sum := uint64(0)
	for _, list := range [][]entry{m.index, m.data} {
		for _, e := range list {
			d := digestOf(e.cid)
			if _, dup := seen[d]; dup {
				return grid.Errorf(grid.Invalid, "it lists block %s twice", e.cid)
			}
			seen[d] = struct{}{}
			sum += uint64(e.size)
		}
	}
	if _, ok := seen[digestOf(m.root)]; !ok {
		return grid.Errorf(grid.Invalid, "it does not list %s, which it is to be of", m.root)
	}
	if sum != m.bytes {
		return grid.Errorf(grid.Invalid, "its blocks have %d bytes, it claims %d", sum, m.bytes)
	}
	return nil
}

func codeOf(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return grid.Internal
}
