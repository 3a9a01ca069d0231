package crypt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxWork is up to which work factor, as a power of two, a passphrase is tried: 1 GiB of memory and a few seconds.
const maxWork = 20

// NewKey makes a key, in the form of a file of identities as age has it: of X25519, or with pq one that withstands
// quantum computers, too, whose public half has 2 KB.
func NewKey(pq bool, now time.Time) ([]byte, error) {
	var secret fmt.Stringer
	var public string
	if pq {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "make a key: %w", err)
		}
		secret, public = id, id.Recipient().String()
	} else {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "make a key: %w", err)
		}
		secret, public = id, id.Recipient().String()
	}
	return fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", now.UTC().Format(time.RFC3339), public, secret), nil
}

// ParseIdentities reads keys: a file of age's, with one in a line, or a private key of OpenSSH. No error says what is in it.
func ParseIdentities(data []byte) ([]age.Identity, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(data)
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) {
			return nil, grid.Errorf(grid.Unsupported, "it is an SSH key that is locked with a passphrase").
				Hint("make a key for this with `grid key new`, or a copy of it without a passphrase with `ssh-keygen -p`")
		}
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "it is no SSH key of type ed25519 or rsa")
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil || len(ids) == 0 {
		return nil, grid.Errorf(grid.Invalid, "it is no file of keys").
			Hint("want lines that begin with AGE-SECRET-KEY-, as `grid key new` and age-keygen make them, or a private key of OpenSSH")
	}
	return ids, nil
}

// PublicOf is the recipient of an identity, in the form that [ParseRecipient] reads; "" when it does not tell.
func PublicOf(id age.Identity) string {
	switch id := id.(type) {
	case *age.X25519Identity:
		return id.Recipient().String()
	case *age.HybridIdentity:
		return id.Recipient().String()
	}
	return ""
}

// RecipientOf is whom to encrypt to for an identity to decrypt it.
func RecipientOf(id age.Identity) (age.Recipient, error) {
	switch id := id.(type) {
	case *age.X25519Identity:
		return id.Recipient(), nil
	case *age.HybridIdentity:
		return id.Recipient(), nil
	case *agessh.Ed25519Identity:
		return id.Recipient(), nil
	case *agessh.RSAIdentity:
		return id.Recipient(), nil
	}
	return nil, grid.Errorf(grid.Unsupported, "a key of that kind has no public half")
}

// ParseRecipient reads a public key: age1…, age1pq1…, or a line of OpenSSH that begins with ssh-ed25519 or ssh-rsa.
func ParseRecipient(s string) (age.Recipient, error) {
	var to age.Recipient
	var err error
	switch s = strings.TrimSpace(s); {
	case strings.HasPrefix(s, "AGE-SECRET-KEY-"):
		return nil, grid.Errorf(grid.Invalid, "that is a secret key, not a public one: whoever sees it can decrypt").Hint("the public one begins with age1; `grid key ls` shows those of yours")
	case strings.HasPrefix(s, "age1pq1"):
		to, err = age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1"):
		to, err = age.ParseX25519Recipient(s)
	case strings.HasPrefix(s, "ssh-"):
		to, err = agessh.ParseRecipient(s)
	default:
		err = errors.New("it is of no known kind")
	}
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "%.80q is no public key: %w", s, err).Hint("want age1…, age1pq1…, or a line that begins with ssh-ed25519 or ssh-rsa")
	}
	return to, nil
}

// ParseRecipients reads public keys, one in a line. Empty lines and those that begin with # do not count.
func ParseRecipients(data []byte) (to []age.Recipient, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := ParseRecipient(line)
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "line %d: %w", n, err)
		}
		if to = append(to, r); len(to) > MaxRecipients {
			return nil, grid.Errorf(grid.Limit, "there are more than %d public keys", MaxRecipients)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, grid.Errorf(grid.Invalid, "it is no list of public keys: %w", err)
	}
	if len(to) == 0 {
		return nil, grid.Errorf(grid.Invalid, "there is no public key in it")
	}
	return to, nil
}

// WithPassphrase is whom to encrypt to for everybody who knows a passphrase.
func WithPassphrase(phrase string) (age.Recipient, error) {
	r, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "the passphrase is empty")
	}
	return r, nil
}

// ByPassphrase is what decrypts what was encrypted with a passphrase.
func ByPassphrase(phrase string) (age.Identity, error) {
	id, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "the passphrase is empty")
	}
	id.SetMaxWorkFactor(maxWork)
	return id, nil
}
