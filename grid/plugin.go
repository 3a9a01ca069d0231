package grid

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Plugin is a module that was published under a name and a version: an entry of the ledger. That version never gets
// other bytes, even when it has been removed.
type Plugin struct {
	Name        string     `cbor:"-" json:"name"`                               // of its manifest
	Version     string     `cbor:"-" json:"version"`                            // of its manifest
	CID         Link       `cbor:"cid" json:"cid"`                              // of the module
	Size        int64      `cbor:"size" json:"size_bytes"`                      // of the module
	ABI         uint       `cbor:"abi" json:"abi"`                              // that it was built for
	Description string     `cbor:"desc,omitempty" json:"description,omitempty"` // one line
	License     string     `cbor:"license,omitempty" json:"license,omitempty"`  // an SPDX expression
	Wants       Grants     `cbor:"wants" json:"wants,omitzero"`                 // what its functions use
	Functions   []Function `cbor:"funcs" json:"functions"`                      // names and kinds only: the module has the rest
	Publisher   peer.ID    `cbor:"by" json:"publisher"`                         // the node that published it
	Signers     []peer.ID  `cbor:"signers,omitempty" json:"signers,omitempty"`  // whose signatures the module carries
	Published   time.Time  `cbor:"time" json:"published"`                       // when
	Removed     time.Time  `cbor:"removed,omitzero" json:"removed,omitzero"`    // zero: it was not
	Aliases     []string   `cbor:"-" json:"aliases,omitempty"`                  // that mean this version
}

// String is NAME@VERSION.
func (p *Plugin) String() string { return p.Name + "@" + p.Version }

// Where plugins are in a ledger.
const (
	PluginKeys      = "plugin/"       // by NAME@VERSION: a [Plugin]
	AliasKeys       = "plugin-alias/" // by NAME@ALIAS: the version
	PluginPolicyKey = "realm/plugins" // a [PluginPolicy]
)

// Latest is the version of a plugin that is the highest of those that are no pre-releases.
const Latest = "latest"

// MaxPluginRef bounds a reference, in bytes.
const MaxPluginRef = 256

// PluginRef says which plugin is meant, and which function of it: NAME[.FUNCTION][@VERSION]. The version is one, such as
// 1.2.3, or a range of them, such as 1, ^1.2, ~1.2.3 or ">=1 <2", or an alias, or latest, which "" is too.
type PluginRef struct {
	Name    string
	Func    string
	Version string
}

// ParsePluginRef reads a reference. Errors are Invalid.
func ParsePluginRef(text string) (PluginRef, error) {
	const forms = "write NAME[.FUNCTION][@VERSION], as in wordcount, wordcount.map, wordcount@1.2.0 or wordcount.map@^1.2"
	if len(text) > MaxPluginRef {
		return PluginRef{}, Errorf(Invalid, "%.40q… has %d bytes, at most %d can name a plugin", text, len(text), MaxPluginRef).Hint(forms)
	}
	var r PluginRef
	rest, version, versioned := strings.Cut(text, "@")
	name, function, called := strings.Cut(rest, ".")
	r.Name, r.Func, r.Version = name, function, strings.TrimSpace(version)
	err := CheckPluginName(name)
	if called && err == nil {
		err = CheckFunctionName(function)
	}
	if versioned && err == nil {
		err = checkPluginVersion(r.Version)
	}
	if err != nil {
		return PluginRef{}, Errorf(Invalid, "%.80q names no plugin: %w", text, err).Hint(forms)
	}
	return r, nil
}

// String is the reference as ParsePluginRef reads it.
func (r PluginRef) String() string {
	s := r.Name
	if r.Func != "" {
		s += "." + r.Func
	}
	if r.Version != "" {
		s += "@" + r.Version
	}
	return s
}

func checkPluginVersion(v string) error {
	if v == Latest || CheckAlias(v) == nil {
		return nil
	}
	if _, err := semver.NewConstraint(v); v == "" || err != nil {
		return Errorf(Invalid, "%.80q is neither a version nor a range of them, nor an alias", v)
	}
	return nil
}

// CheckAlias refuses what is no alias of a version: it has the form of a plugin's name, and is nothing that a version or a
// range could be.
func CheckAlias(alias string) error {
	_, err := semver.NewConstraint(alias)
	if alias == Latest || err == nil || CheckPluginName(alias) != nil {
		return Errorf(Invalid, "%.80q is not an alias of a version", alias).
			Hint("begin with a letter, and use letters in lower case, digits and '-', such as stable; latest and what looks like a version are taken")
	}
	return nil
}

// pick finds the highest of some versions that a reference means, nil: none does. It is not an alias. What was removed
// is not meant, nor are pre-releases unless the reference has one.
func (r PluginRef) pick(all []Plugin) (best *Plugin) {
	is := func(v *semver.Version) bool { return v.Prerelease() == "" }
	if r.Version != "" && r.Version != Latest {
		c, err := semver.NewConstraint(r.Version)
		if err != nil {
			return nil
		}
		is = c.Check
	}
	var highest *semver.Version
	for i := range all {
		v, err := ParseVersion(all[i].Version)
		if err != nil || !all[i].Removed.IsZero() || !is(v) {
			continue
		}
		if highest == nil || v.GreaterThan(highest) {
			highest, best = v, &all[i]
		}
	}
	return best
}

// comparePlugins orders plugins by name, then from the lowest version to the highest.
func comparePlugins(a, b Plugin) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	v, err1 := ParseVersion(a.Version)
	w, err2 := ParseVersion(b.Version)
	if err1 != nil || err2 != nil {
		return strings.Compare(a.Version, b.Version)
	}
	return v.Compare(w)
}

// PluginPolicy is what a realm demands of the modules that run there.
type PluginPolicy struct {
	// Require says which modules must be signed by somebody trusted.
	Require SignatureRule `cbor:"require,omitempty" json:"require_signature"`
	// Trust are those whose signatures count; with none, the nodes of the realm.
	Trust []peer.ID `cbor:"trust,omitempty" json:"trust,omitempty"`
}

// SignatureRule says which modules must be signed.
type SignatureRule string

// The rules. The zero SignatureRule is SignNothing.
const (
	SignNothing SignatureRule = "off"
	SignPlugins SignatureRule = "plugins" // what is installed, and what is run by a plugin's name
	SignAll     SignatureRule = "all"     // every module, whatever it is run by
)

// MaxTrust bounds the signers that a policy names.
const MaxTrust = 256

// Check refuses a policy that cannot be kept, and puts it into canonical form.
func (p *PluginPolicy) Check() error {
	switch p.Require {
	case "":
		p.Require = SignNothing
	case SignNothing, SignPlugins, SignAll:
	default:
		return Errorf(Invalid, "%.40q does not say which modules must be signed", p.Require).Hint("say off, plugins or all")
	}
	if len(p.Trust) > MaxTrust {
		return Errorf(Limit, "%d signers are to be trusted, at most %d are allowed", len(p.Trust), MaxTrust)
	}
	for _, id := range p.Trust {
		if id.Validate() != nil {
			return Errorf(Invalid, "a signer to be trusted has no ID")
		}
	}
	slices.Sort(p.Trust)
	p.Trust = slices.Compact(p.Trust)
	return nil
}

// demands reports whether a module must be signed; plugin is what it is run as, "" by its CID.
func (p *PluginPolicy) demands(plugin string) bool {
	return p.Require == SignAll || p.Require == SignPlugins && plugin != ""
}

// Missing is what of some wants a grant does not cover.
func (g *Grants) Missing(wants *Grants) (missing Grants) {
	lacks := func(wants, has []string, covers func(has, want string) bool) (out []string) {
		for _, w := range wants {
			if !slices.ContainsFunc(has, func(h string) bool { return h == w || covers(h, w) }) {
				out = append(out, w)
			}
		}
		return out
	}
	missing.Net = lacks(wants.Net, g.Net, coversNet)
	missing.KV = lacks(wants.KV, g.KV, func(has, want string) bool {
		h, err1 := ParseKVGrant(has)
		w, err2 := ParseKVGrant(want)
		return err1 == nil && err2 == nil && strings.HasPrefix(w.Prefix, h.Prefix) && (!h.ReadOnly || w.ReadOnly)
	})
	missing.Secrets = lacks(wants.Secrets, g.Secrets, func(string, string) bool { return false })
	missing.Decrypt = lacks(wants.Decrypt, g.Decrypt, func(string, string) bool { return false })
	missing.Data = lacks(wants.Data, g.Data, func(has, _ string) bool { return has == AnyData })
	return missing
}

func coversNet(has, want string) bool {
	h, err1 := NetGrant(has).Target()
	w, err2 := NetGrant(want).Target()
	switch {
	case err1 != nil || err2 != nil || h.Port != w.Port:
		return false
	case w.Addrs.IsValid():
		return h.Addrs.IsValid() && h.Addrs.Bits() <= w.Addrs.Bits() && h.Addrs.Contains(w.Addrs.Addr())
	}
	below, wild := strings.CutPrefix(w.Name, "*") // all names below a domain are covered by those below one above it
	return !wild && h.AllowsName(w.Name, w.Port) || wild && below != "" && strings.HasPrefix(h.Name, "*") && strings.HasSuffix(below, h.Name[1:])
}

// Flags is how `grid run` is told to grant this.
func (g *Grants) Flags() string {
	var b strings.Builder
	for _, x := range []struct {
		flag string
		list []string
	}{{"--allow-net", g.Net}, {"--allow-kv", g.KV}, {"--allow-secret", g.Secrets}, {"--allow-data", g.Data}, {"--allow-decrypt", g.Decrypt}} {
		for _, v := range x.list {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(x.flag + " " + shellWord(v))
		}
	}
	return b.String()
}

// shellWord quotes a word for a shell if it has to be.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/:@%+=,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// nearest orders names by how near they are to one that was written, the nearest first.
func nearest(name string, names []string) []string {
	name = strings.ToLower(name[:min(len(name), MaxName)])
	out := slices.Clone(names)
	slices.SortStableFunc(out, func(a, b string) int {
		return cmp.Compare(Distance(name, strings.ToLower(a)), Distance(name, strings.ToLower(b)))
	})
	return out
}

// Distance counts the single-byte edits from one word to another (V. I. Levenshtein, 1966). It takes time by the product
// of their lengths.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
		}
	}
	return row[len(b)]
}

// Nearest is the one of words that was probably meant by a word that is none of them, or "". Case does not count, nor does _ in place of -.
func Nearest(word string, words []string) string {
	if len(word) > MaxName {
		return ""
	}
	best, found := 3, "" // what differs in more places was not meant
	for _, w := range slices.Sorted(slices.Values(words)) {
		d := Distance(strings.ToLower(word), strings.ToLower(w))
		if strings.ReplaceAll(word, "_", "-") == w {
			d = 0
		}
		if d < best && d < len(w) {
			best, found = d, w
		}
	}
	return found
}
