package block

import (
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	fileHeader   = "gridseg\x01"
	recordHeader = 10
	maxKey       = 64

	kindValue     = 1
	kindTombstone = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader appends all of a record that comes before its value.
func appendHeader(dst []byte, kind byte, key string, value []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	dst = append(dst, kind, byte(len(key)))
	dst = append(dst, key...)
	sum := crc32.Update(crc32.Checksum(dst[start+4:], castagnoli), castagnoli, value)
	binary.LittleEndian.PutUint32(dst[start:], sum)
	return dst
}

// header is the fixed part of a record.
type header struct {
	sum    uint32
	length int
	kind   byte
	key    int // its length
}

// parseHeader reads the fixed part from b, which has at least recordHeader bytes; ok is false when no
// record begins so.
func parseHeader(b []byte) (h header, ok bool) {
	h = header{binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint32(b[4:])), b[8], int(b[9])}
	ok = h.length <= grid.MaxBlock && h.key > 0 && h.key <= maxKey &&
		(h.kind == kindValue || h.kind == kindTombstone && h.length == 0)
	return h, ok
}

// size is that of the whole record.
func (h header) size() int64 { return int64(recordHeader + h.key + h.length) }

// location is where a value lies. The zero location stands for a deleted one.
type location struct {
	segment, offset, length uint32
}

func (l location) deleted() bool { return l.segment == 0 }

func (l location) encode() []byte {
	b := make([]byte, 0, 12)
	b = binary.BigEndian.AppendUint32(b, l.segment)
	b = binary.BigEndian.AppendUint32(b, l.offset)
	return binary.BigEndian.AppendUint32(b, l.length)
}

func decodeLocation(b []byte) (location, error) {
	if len(b) != 12 {
		return location{}, grid.Errorf(grid.Corrupt, "index entry has %d bytes, want 12", len(b))
	}
	l := location{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])}
	if l.length > grid.MaxBlock || l.segment == 0 {
		return location{}, grid.Errorf(grid.Corrupt, "index entry is malformed")
	}
	return l, nil
}

// Position is a place in the sequence of segments. What is written later lies at a later one, except that
// compaction moves old values to the end.
type Position struct {
	Segment uint32
	Offset  int64
}

// Before reports whether p comes before q.
func (p Position) Before(q Position) bool {
	return p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset
}

func (p Position) encode() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 8), p.Segment)
	return binary.BigEndian.AppendUint32(b, uint32(p.Offset))
}

func decodePosition(b []byte) (Position, bool) {
	if len(b) != 8 {
		return Position{}, false
	}
	return Position{binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint32(b[4:]))}, true
}

var (
	keyCode   = base32.StdEncoding.WithPadding(base32.NoPadding)
	indexRoot = "/block"
	endKey    = datastore.RawKey("/block-end")
)

// encodeKey is the datastore key of a multihash; decodeKey is its inverse. It is also the form that
// IPFS block stores use.
func encodeKey(multihash []byte) datastore.Key {
	b := make([]byte, 1, 1+keyCode.EncodedLen(len(multihash)))
	b[0] = '/'
	return datastore.RawKey(string(keyCode.AppendEncode(b, multihash)))
}

func decodeKey(k datastore.Key) (string, error) {
	s := k.String()
	var buf [maxKey]byte
	if len(s) < 2 || keyCode.DecodedLen(len(s)-1) > maxKey {
		return "", grid.Errorf(grid.Invalid, "key %q is not a multihash in base32", s)
	}
	n, err := keyCode.Decode(buf[:], []byte(s[1:]))
	if err != nil {
		return "", grid.Errorf(grid.Invalid, "key %q is not a multihash in base32", s)
	}
	return string(buf[:n]), nil
}

func indexKey(key string) datastore.Key {
	b := make([]byte, 0, len(indexRoot)+1+keyCode.EncodedLen(len(key)))
	b = append(append(b, indexRoot...), '/')
	return datastore.RawKey(string(keyCode.AppendEncode(b, []byte(key))))
}
