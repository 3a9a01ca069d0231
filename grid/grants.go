package grid

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds on what one stage is granted.
const (
	MaxKVGrants   = 64
	MaxSecrets    = 64
	MaxDataGrants = 1 << 10
)

// Grants are what a guest may use besides its files, arguments and streams. Nothing is granted by default.
type Grants struct {
	// Net is where it may send HTTP requests to, in the forms of [NetGrant].
	Net []string `cbor:"net,omitempty" json:"net,omitempty"`
	// KV are prefixes of the keys that it may read and write of the realm's map, without [UserKeys]; see [KVGrant].
	KV []string `cbor:"kv,omitempty" json:"kv,omitempty"`
	// Secrets are names of secrets that it finds as files in GuestSecrets.
	Secrets []string `cbor:"secrets,omitempty" json:"secrets,omitempty"`
	// Data are CIDs of DAGs that it finds in GuestData, each under its CID, with all that is below; or "*", every CID
	// that can be had. They change nothing in what a guest's result depends on: a CID says what its bytes are.
	Data []string `cbor:"data,omitempty" json:"data,omitempty"`
	// Decrypt are names of secrets that hold keys: what its inputs and mounts have of files that are encrypted to one of
	// these, it sees decrypted. It does not see the keys. What it comes to is for its job alone: a receipt that is remembered
	// is told to whoever can name the invocation, and naming what is encrypted takes no key.
	Decrypt []string `cbor:"decrypt,omitempty" json:"decrypt,omitempty"`
}

// Paths in the guest at which it finds what it was granted.
const (
	GuestSecrets = "/secrets" // a file for each secret
	GuestData    = "/cid"     // CID/PATH below granted CIDs
)

// AnyData grants every CID.
const AnyData = "*"

// Impure reports whether a guest with these grants sees what is not in its invocation.
func (g *Grants) Impure() bool { return len(g.Net)+len(g.KV)+len(g.Secrets)+len(g.Decrypt) > 0 }

// Realm reports whether guests with these grants use what only the nodes of their job's realm have.
func (g *Grants) Realm() bool { return len(g.KV)+len(g.Secrets)+len(g.Decrypt) > 0 }

// Empty reports whether nothing is granted.
func (g *Grants) Empty() bool { return !g.Impure() && len(g.Data) == 0 }

// Normalize checks grants and puts them into canonical form and order, so that two that allow the same are the same.
// It changes no slice that it was given. Errors are Invalid or Limit.
func (g *Grants) Normalize() (err error) {
	if g.Net, err = NormalizeNetGrants(g.Net); err != nil {
		return err
	}
	if g.KV, err = normalizeGrants("key-value", g.KV, MaxKVGrants, func(s string) (string, error) {
		k, err := ParseKVGrant(s)
		return k.String(), err
	}); err != nil {
		return err
	}
	secret := func(s string) (string, error) { return s, CheckSecretName(s) }
	if g.Secrets, err = normalizeGrants("secret", g.Secrets, MaxSecrets, secret); err != nil {
		return err
	}
	if g.Decrypt, err = normalizeGrants("decryption", g.Decrypt, MaxSecrets, secret); err != nil {
		return err
	}
	g.Data, err = normalizeGrants("data", g.Data, MaxDataGrants, func(s string) (string, error) {
		if s == AnyData {
			return s, nil
		}
		c, err := ParseLink(s)
		if err != nil {
			return "", Errorf(Invalid, "data grant %.80q: %w", s, err).Hint("grant a CID, or * for every CID")
		}
		return c.String(), nil
	})
	return err
}

func normalizeGrants(what string, list []string, most int, parse func(string) (string, error)) ([]string, error) {
	if len(list) > most {
		return nil, Errorf(Limit, "%d %s grants, at most %d are allowed", len(list), what, most)
	}
	var out []string
	for _, s := range list {
		g, err := parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// KVGrant allows keys of the realm's map that begin with a prefix: to be read, and to be written unless it is ReadOnly.
type KVGrant struct {
	Prefix   string
	ReadOnly bool
}

const readOnly = ":ro"

// ParseKVGrant reads PREFIX or PREFIX:ro. Errors are Invalid.
func ParseKVGrant(s string) (KVGrant, error) {
	prefix, ro := strings.CutSuffix(s, readOnly)
	if prefix == "" || len(prefix) > MaxLedgerKey/2 || !utf8.ValidString(prefix) || strings.ContainsRune(prefix, 0) {
		return KVGrant{}, Errorf(Invalid, "key-value grant %.80q: want a prefix of keys, of 1 to %d bytes of UTF-8", s, MaxLedgerKey/2).
			Hint("write PREFIX, as in counters/, or PREFIX%s, to be read only", readOnly)
	}
	return KVGrant{prefix, ro}, nil
}

// String is the canonical form.
func (k KVGrant) String() string {
	if k.ReadOnly {
		return k.Prefix + readOnly
	}
	return k.Prefix
}

// CheckSecretName refuses what is no name for a secret: it is a file's name of letters, digits, '.', '_' and '-', of at
// most MaxName bytes.
func CheckSecretName(name string) error {
	ok := name != "" && len(name) <= MaxName && name[0] != '.' && name[0] != '-'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if !ok {
		return Errorf(Invalid, "%.80q is not a name for a secret", name).Hint("use letters, digits, '.', '_' and '-', such as api-token")
	}
	return nil
}
