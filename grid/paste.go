package grid

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Paste is how bytes are written for people to copy, in one line: a prefix with a version, and in base64 (URL alphabet, no padding) the
// bytes and the first four of a checksum, so that what was cut or changed is told from what was never one.
type Paste struct {
	Family  string // what the texts of all versions begin with
	Version string // of this one; behind it is a dash
	Domain  string // of the checksum: SHA-256 of it, a zero byte, and the bytes
	Max     int    // bytes of a text
	From    string // the command that prints such texts
}

const pasteSum = 4 // bytes

// Prefix is what texts of this version begin with.
func (p *Paste) Prefix() string { return p.Family + p.Version + "-" }

// Is reports whether a text means to be of the family, whatever its version.
func (p *Paste) Is(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), p.Family) }

// Text writes bytes down.
func (p *Paste) Text(data []byte) string {
	return p.Prefix() + base64.RawURLEncoding.EncodeToString(append(data, p.sum(data)...))
}

// Read reads a text.
func (p *Paste) Read(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	enc, ok := strings.CutPrefix(text, p.Prefix())
	switch {
	case !ok && p.Is(text):
		return nil, Errorf(Unsupported, "the token is of a version that this program does not know").Hint("run the same version of grid on all machines")
	case !ok:
		return nil, p.Bad(Invalid, "does not begin with "+p.Prefix())
	case len(text) > p.Max:
		return nil, p.Bad(Limit, "is too long")
	}
	data, err := base64.RawURLEncoding.DecodeString(enc)
	if err != nil || len(data) <= pasteSum {
		return nil, p.Bad(Invalid, "is cut or has other characters in it than a token has")
	}
	data, sum := data[:len(data)-pasteSum], data[len(data)-pasteSum:]
	if string(p.sum(data)) != string(sum) {
		return nil, p.Bad(Invalid, "is cut or was changed: its checksum is wrong")
	}
	return data, nil
}

// Bad is the error for a text of which something is wrong, or of what it holds.
func (p *Paste) Bad(code Code, why string) error {
	return Errorf(code, "the token %s", why).Hint("copy the whole line that `%s` has printed", p.From)
}

func (p *Paste) sum(data []byte) []byte {
	sum := sha256.Sum256(append([]byte(p.Domain+"\x00"), data...))
	return sum[:pasteSum]
}
