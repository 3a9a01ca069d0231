package grid

import (
	"context"
	"strings"
	"unicode/utf8"
)

// MaxUserKey bounds a key that users and guests choose, in bytes.
const MaxUserKey = MaxLedgerKey - len(UserKeys)

// CheckUserKey refuses what no key of a user can be. Keys are text, of any runes; a slash means nothing in particular.
func CheckUserKey(key string) error {
	if key == "" {
		return Errorf(Invalid, "a key is empty")
	}
	return CheckUserPrefix(key)
}

// CheckUserPrefix refuses what no key of a user can begin with.
func CheckUserPrefix(key string) error {
	if len(key) > MaxUserKey {
		return Errorf(Limit, "the key %.40q… has %d bytes, at most %d are allowed", key, len(key), MaxUserKey)
	}
	if !utf8.ValidString(key) {
		return Errorf(Invalid, "the key %q is not UTF-8", key)
	}
	return nil
}

// granted is the part of a ledger that was granted to a guest. It implements [KV].
type granted struct {
	l      Ledger
	grants []KVGrant
}

// newGranted makes it of grants that were checked. With none, every request is told what to grant.
func newGranted(l Ledger, grants []string) (*granted, error) {
	g := &granted{l: l}
	for _, s := range grants {
		k, err := ParseKVGrant(s)
		if err != nil {
			return nil, err
		}
		g.grants = append(g.grants, k)
	}
	return g, nil
}

// allow refuses a key, or prefix of keys, that no grant's prefix begins. The message says what to grant: a guest passes on
// no more.
func (g *granted) allow(what, key string, write bool) error {
	readable := ""
	for _, k := range g.grants {
		if !strings.HasPrefix(key, k.Prefix) {
			continue
		}
		if !write || !k.ReadOnly {
			return nil
		}
		readable = k.Prefix
	}
	if readable != "" {
		return Errorf(Denied, "%s %q: keys that begin with %q were granted to be read only; grant --allow-kv %s in place of %s",
			what, key, readable, readable, KVGrant{readable, true})
	}
	return Errorf(Denied, "%s %q: no such keys were granted; grant them with --allow-kv %s", what, key, grantFor(key, !write))
}

// grantFor is a grant that allows a key, or all keys with a prefix.
func grantFor(key string, ro bool) KVGrant {
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		key = key[:i+1]
	}
	if key == "" {
		key = "PREFIX"
	}
	return KVGrant{key, ro}
}

// Get implements [KV].
func (g *granted) Get(ctx context.Context, key string) (Entry, error) {
	if err := CheckUserKey(key); err != nil {
		return Entry{}, err
	}
	if err := g.allow("read", key, false); err != nil {
		return Entry{}, err
	}
	e, err := g.l.Get(ctx, UserKey(key))
	if err != nil {
		return Entry{}, g.failed("read", key, err)
	}
	e.Key = key
	return e, nil
}

// List implements [KV].
func (g *granted) List(ctx context.Context, prefix, after string, limit int) ([]Entry, bool, error) {
	for _, s := range []string{prefix, after} {
		if err := CheckUserPrefix(s); err != nil {
			return nil, false, err
		}
	}
	if err := g.allow("list", prefix, false); err != nil {
		return nil, false, err
	}
	if limit < 0 {
		return nil, false, Errorf(Invalid, "a list of %d entries", limit)
	}
	q := Query{Prefix: UserKey(prefix), Limit: min(limit, MaxLedgerPage)}
	if after > prefix {
		q.After = UserKey(after)
	}
	page, err := g.l.Range(ctx, q)
	if err != nil {
		return nil, false, g.failed("list", prefix, err)
	}
	for i := range page.Entries {
		page.Entries[i].Key = strings.TrimPrefix(page.Entries[i].Key, UserKeys)
	}
	return page.Entries, page.More, nil
}

// Commit implements [KV]. It is applied once, however often it has to be sent.
func (g *granted) Commit(ctx context.Context, t Txn) (uint64, error) {
	if err := CheckTxn(&t); err != nil {
		return 0, err
	}
	mine := Txn{ID: NewRequestID(), If: make([]Cond, 0, len(t.If)), Put: make([]Entry, 0, len(t.Put)), Delete: make([]string, 0, len(t.Delete))}
	for _, c := range t.If {
		check := CheckUserKey
		if c.Prefix {
			check = CheckUserPrefix
		}
		if err := check(c.Key); err != nil {
			return 0, err
		}
		if err := g.allow("a condition on", c.Key, false); err != nil {
			return 0, err
		}
		c.Key = UserKey(c.Key)
		mine.If = append(mine.If, c)
	}
	for _, e := range t.Put {
		if e.Session != "" {
			return 0, Errorf(Invalid, "the entry %q is to vanish with a session, of which guests have none", e.Key)
		}
		if err := g.mayWrite(e.Key); err != nil {
			return 0, err
		}
		mine.Put = append(mine.Put, Entry{Key: UserKey(e.Key), Value: e.Value})
	}
	for _, key := range t.Delete {
		if err := g.mayWrite(key); err != nil {
			return 0, err
		}
		mine.Delete = append(mine.Delete, UserKey(key))
	}
	if err := CheckTxn(&mine); err != nil { // its keys are longer
		return 0, err
	}
	revision, err := g.l.Commit(ctx, mine)
	if CodeOf(err) == Conflict {
		return 0, Errorf(Conflict, "a condition does not hold, so nothing was changed").Hint("read again what was read, then retry")
	}
	if err != nil {
		return 0, g.failed("commit", "", err)
	}
	return revision, nil
}

func (g *granted) mayWrite(key string) error {
	if err := CheckUserKey(key); err != nil {
		return err
	}
	return g.allow("write", key, true)
}

// failed tells what a guest must handle from what only its node can: the latter ends the attempt.
func (g *granted) failed(what, key string, err error) error {
	switch code := CodeOf(err); {
	case code == NotFound:
		return Errorf(NotFound, "no key %q", key)
	case code == Denied || code == Invalid || code == Conflict:
		// The guest's request was checked: what the ledger refuses then is that of its node.
		return Errorf(Unavailable, "%s the realm's map: %w", what, err)
	default:
		return Errorf(code, "%s the realm's map: %w", what, err)
	}
}
