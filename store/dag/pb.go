package dag

import (
	"math"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wasmgrid/wasmgrid/grid"
)

// pbLink is a link of a DAG-PB node. Size is the claimed size of all blocks below, each time that they
// are linked.
type pbLink struct {
	Name string
	Size uint64
	CID  cid.Cid
}

// pbNode is a DAG-PB node: PBNode{Links = 2, Data = 1}, PBLink{Hash = 1, Name = 2, Tsize = 3}.
type pbNode struct {
	links []pbLink
	data  []byte
}

func malformed(what string) error { return grid.Errorf(grid.Invalid, "malformed DAG-PB: %s", what) }

// fields calls f for each field of a protobuf message; exactly one of v and b is meaningful, by typ.
func fields(msg []byte, f func(num protowire.Number, typ protowire.Type, v uint64, b []byte) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return malformed("bad tag")
		}
		msg = msg[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(msg)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(msg)
		default:
			n = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if n < 0 {
			return malformed("a field runs past the end")
		}
		msg = msg[n:]
		if err := f(num, typ, v, b); err != nil {
			return err
		}
	}
	return nil
}

// decodePB reads a node. Its data is part of block.
func decodePB(block []byte) (n pbNode, err error) {
	seen := false
	err = fields(block, func(num protowire.Number, typ protowire.Type, _ uint64, b []byte) error {
		switch {
		case typ != protowire.BytesType || num != 1 && num != 2:
			return malformed("a node has a field that is neither data nor a link")
		case num == 1 && seen:
			return malformed("a node has data twice")
		case num == 1:
			n.data, seen = b, true
			return nil
		}
		l, err := decodeLink(b)
		n.links = append(n.links, l)
		return err
	})
	return n, err
}

func decodeLink(msg []byte) (l pbLink, err error) {
	last := protowire.Number(0)
	err = fields(msg, func(num protowire.Number, typ protowire.Type, v uint64, b []byte) (err error) {
		if num <= last {
			return malformed("the fields of a link are out of order")
		}
		last = num
		switch {
		case num == 1 && typ == protowire.BytesType:
			if l.CID, err = cid.Cast(b); err != nil {
				return malformed("a link is not a CID")
			}
		case num == 2 && typ == protowire.BytesType:
			l.Name = string(b)
		case num == 3 && typ == protowire.VarintType:
			l.Size = v
		default:
			return malformed("unknown field in a link")
		}
		return nil
	})
	if err == nil && !l.CID.Defined() {
		err = malformed("a link without a CID")
	}
	return l, err
}

// appendPB encodes a node. The order of links is the caller's.
func appendPB(dst []byte, n pbNode) []byte {
	for _, l := range n.links {
		hash := l.CID.KeyString()
		size := protowire.SizeTag(1) + protowire.SizeBytes(len(hash)) +
			protowire.SizeTag(2) + protowire.SizeBytes(len(l.Name)) +
			protowire.SizeTag(3) + protowire.SizeVarint(l.Size)
		dst = protowire.AppendTag(dst, 2, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(size))
		dst = protowire.AppendTag(dst, 1, protowire.BytesType)
		dst = protowire.AppendString(dst, hash)
		dst = protowire.AppendTag(dst, 2, protowire.BytesType)
		dst = protowire.AppendString(dst, l.Name)
		dst = protowire.AppendTag(dst, 3, protowire.VarintType)
		dst = protowire.AppendVarint(dst, l.Size)
	}
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	return protowire.AppendBytes(dst, n.data)
}

// The types of a UnixFS node.
const (
	typeRaw       = 0
	typeDirectory = 1
	typeFile      = 2
	typeSymlink   = 4
	typeShard     = 5
)

// unixfs is what the data of a DAG-PB node says in UnixFS: Data{Type = 1, Data = 2, filesize = 3,
// blocksizes = 4, hashType = 5, fanout = 6, mode = 7}; mtime is not used here.
type unixfs struct {
	typ    uint64
	data   []byte
	size   uint64
	sizes  []uint64 // of the content below each link
	hash   uint64
	fanout uint64
	mode   uint64 // permissions, as Unix has them; 0: none are told
}

func decodeUnixFS(msg []byte) (u unixfs, err error) {
	u.typ = math.MaxUint64
	err = fields(msg, func(num protowire.Number, typ protowire.Type, v uint64, b []byte) error {
		switch {
		case num == 2 && typ == protowire.BytesType:
			u.data = b
		case num == 4 && typ == protowire.BytesType: // packed
			for len(b) > 0 {
				v, n := protowire.ConsumeVarint(b)
				if n < 0 {
					return malformed("block sizes run past the end")
				}
				u.sizes, b = append(u.sizes, v), b[n:]
			}
		case typ != protowire.VarintType:
		case num == 1:
			u.typ = v
		case num == 3:
			u.size = v
		case num == 4:
			u.sizes = append(u.sizes, v)
		case num == 5:
			u.hash = v
		case num == 6:
			u.fanout = v
		case num == 7:
			u.mode = v & math.MaxUint32
		}
		return nil
	})
	return u, err
}

func appendUnixFS(dst []byte, u unixfs) []byte {
	put := func(num protowire.Number, v uint64) {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
	}
	put(1, u.typ)
	if u.data != nil {
		dst = protowire.AppendTag(dst, 2, protowire.BytesType)
		dst = protowire.AppendBytes(dst, u.data)
	}
	if u.typ == typeFile {
		put(3, u.size)
	}
	for _, s := range u.sizes {
		put(4, s)
	}
	if u.typ == typeShard {
		put(5, u.hash)
		put(6, u.fanout)
	}
	if u.mode != 0 {
		put(7, u.mode)
	}
	return dst
}
