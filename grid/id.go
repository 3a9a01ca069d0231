package grid

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// JobID names one submission, for as long as the swarm remembers it. It is 26 characters that are
// safe in file names, URLs and shells: "j", then 125 random bits in base32.
type JobID string

// Epoch numbers the successive owners of one job. A message that carries a lower epoch than the one
// known is from a stale owner and is ignored.
type Epoch uint64

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const jobIDLen = 26

// NewJobID draws an ID from the given source of randomness.
func NewJobID(random io.Reader) (JobID, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("grid: draw a job ID: %w", err)
	}
	return JobID("j" + lowerBase32.EncodeToString(b[:])[:jobIDLen-1]), nil
}

// ParseJobID checks that s has the form of a job ID.
func ParseJobID(s string) (JobID, error) {
	if len(s) == jobIDLen && s[0] == 'j' && strings.Trim(s[1:], "abcdefghijklmnopqrstuvwxyz234567") == "" {
		return JobID(s), nil
	}
	return "", Errorf(Invalid, "%q is not a job ID", s).Hint("`grid ps -a` lists the jobs")
}

// maxPeerID bounds the ID of a node, as text and as bytes. To read or write a long one takes time with the square of its length, so that a
// megabyte of it would take minutes.
const maxPeerID = 128

// ParseNodeID reads the ID of a node as text.
func ParseNodeID(s string) (peer.ID, error) {
	if len(s) <= maxPeerID {
		if id, err := peer.Decode(s); err == nil {
			return id, nil
		}
	}
	return "", Errorf(Invalid, "%.80q is not the ID of a node", s).Hint("it is like 12D3KooW…, all of it; `grid peers` lists them")
}

// Key is the hash of an [Invocation]: two tasks with one key are the same computation.
type Key [sha256.Size]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// MarshalText makes a key readable in JSON; in CBOR it is its 32 bytes.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the form that MarshalText writes.
func (k *Key) UnmarshalText(b []byte) error {
	if len(b) == 2*len(k) { // hex.Decode would write past a shorter key
		if _, err := hex.Decode(k[:], b); err == nil {
			return nil
		}
	}
	return Errorf(Invalid, "%.70q is not an invocation key: want 64 hexadecimal digits", b)
}

// MarshalCBOR writes the 32 bytes as a byte string.
func (k Key) MarshalCBOR() ([]byte, error) { return Marshal(k[:]) }

// UnmarshalCBOR reads the form that MarshalCBOR writes.
func (k *Key) UnmarshalCBOR(b []byte) error {
	var raw []byte
	if err := Unmarshal(b, &raw); err != nil {
		return err
	}
	if len(raw) != len(k) {
		return Errorf(Invalid, "an invocation key has %d bytes, want %d", len(raw), len(k))
	}
	copy(k[:], raw)
	return nil
}

// Link is a CID inside a record. In CBOR it is a DAG-CBOR link (tag 42, so that IPLD tools can walk
// our records), in JSON a plain string; the zero Link means none. Interfaces take the bare cid.Cid.
type Link struct{ cid.Cid }

const linkTag = 42

// maxLinkText is more than any CID of ours has; decoding base58 takes time by the square of its length.
const maxLinkText = 256

// ParseLink reads a CID in its text form.
func ParseLink(s string) (Link, error) {
	if len(s) > maxLinkText {
		return Link{}, Errorf(Invalid, "%.32q… is not a CID: it has %d characters", s, len(s))
	}
	c, err := cid.Decode(s)
	if err != nil {
		return Link{}, Errorf(Invalid, "%q is not a CID", s).Hint("`grid add PATH` prints the CID of what it adds")
	}
	return Link{c}, nil
}

// MarshalCBOR writes a DAG-CBOR link. The zero Link has no CBOR form: mark its field omitzero.
func (l Link) MarshalCBOR() ([]byte, error) {
	if !l.Defined() {
		return nil, Errorf(Internal, "an empty link cannot be encoded")
	}
	content, err := Marshal(append([]byte{0}, l.Bytes()...))
	if err != nil {
		return nil, err
	}
	return Marshal(cbor.RawTag{Number: linkTag, Content: content})
}

// UnmarshalCBOR reads the form that MarshalCBOR writes.
func (l *Link) UnmarshalCBOR(b []byte) error {
	var tag cbor.RawTag
	if err := Unmarshal(b, &tag); err != nil {
		return err
	}
	var raw []byte
	if err := Unmarshal(tag.Content, &raw); err != nil {
		return err
	}
	if tag.Number != linkTag || len(raw) < 2 || raw[0] != 0 {
		return Errorf(Invalid, "not a DAG-CBOR link")
	}
	c, err := cid.Cast(raw[1:])
	if err != nil {
		return Errorf(Invalid, "link: %v", err)
	}
	l.Cid = c
	return nil
}

// MarshalJSON writes the text form of the CID, or "" for the zero Link.
func (l Link) MarshalJSON() ([]byte, error) {
	if !l.Defined() {
		return []byte(`""`), nil
	}
	return []byte(`"` + l.String() + `"`), nil
}

// UnmarshalJSON reads the form that MarshalJSON writes.
func (l *Link) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "" || s == "null" {
		l.Cid = cid.Undef
		return nil
	}
	p, err := ParseLink(s)
	if err != nil {
		return err
	}
	*l = p
	return nil
}
