package grid

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Ref is a name for a DAG that can be moved to another one: an entry of the ledger under "ref/" and its name.
// Whatever takes a CID takes the name of a ref, too.
type Ref struct {
	Name    string    `cbor:"-" json:"name"`
	CID     Link      `cbor:"cid" json:"cid"`
	Job     JobID     `cbor:"job,omitempty" json:"job,omitempty"` // that published it, if one did
	Count   uint64    `cbor:"count" json:"count"`                 // how often it was set since it was made
	Updated time.Time `cbor:"updated" json:"updated"`
	Version uint64    `cbor:"-" json:"version"` // of its ledger entry
}

// MaxRefName bounds a ref's name, in bytes.
const MaxRefName = 256

// CheckRefName refuses what is no name for a ref. A name is words of letters, digits, '.', '_' and '-',
// separated by slashes; it is not what a CID or a job ID looks like.
func CheckRefName(name string) error {
	bad := func(why string) error {
		return Errorf(Invalid, "%.80q is not a name for a ref: %s", name, why).
			Hint("use letters, digits, '.', '_' and '-', and slashes between words, such as results/latest")
	}
	switch {
	case name == "" || len(name) > MaxRefName:
		return bad("want 1 to 256 bytes")
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	}
	for word := range strings.SplitSeq(name, "/") {
		if word == "" || word == "." || word == ".." || word[0] == '-' {
			return bad("a word is empty, a dot or two, or begins with '-'")
		}
		if strings.IndexFunc(word, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
		}) >= 0 {
			return bad("it has other characters")
		}
	}
	if _, err := ParseLink(name); err == nil {
		return bad("it is a CID")
	}
	if _, err := ParseJobID(name); err == nil {
		return bad("it is a job ID")
	}
	return nil
}
