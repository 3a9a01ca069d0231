package grid

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Tokens are for those who use the API of a node over the network. They are the realm's: each of its nodes that serves the
// API takes them. The ledger has a hash of each one's secret, and nobody has the secret but whom it was given to.

// TokenKeys begin what the ledger holds of tokens, by ID.
const TokenKeys = "token/"

// TokenRole is what a token lets its holder do. Each role includes those before it.
type TokenRole string

// The roles of tokens.
const (
	TokenViewer    TokenRole = "viewer"    // reads
	TokenSubmitter TokenRole = "submitter" // and runs jobs, and changes data, keys and refs
	TokenAdmin     TokenRole = "admin"     // and all else
)

var tokenRoles = []TokenRole{TokenViewer, TokenSubmitter, TokenAdmin}

// Check refuses what is no role.
func (r TokenRole) Check() error {
	if !slices.Contains(tokenRoles, r) {
		return Errorf(Invalid, "%.40q is not a role of tokens", string(r)).Hint("use viewer, submitter or admin")
	}
	return nil
}

// Includes reports whether who has role r may do what need stands for. No role includes nothing.
func (r TokenRole) Includes(need TokenRole) bool {
	return slices.Index(tokenRoles, r) >= slices.Index(tokenRoles, need) && r.Check() == nil && need.Check() == nil
}

// Token is what may be known of a token: everything but its secret.
type Token struct {
	ID      string    `json:"id"`               // not secret
	Name    string    `json:"name"`             // as whose user everything is done that is done with it
	Role    TokenRole `json:"role"`             // what may be done with it
	Created time.Time `json:"created"`          // when it was made
	Expires time.Time `json:"expires,omitzero"` // zero: never
	By      peer.ID   `json:"by"`               // the node that made it
	Used    time.Time `json:"used,omitzero"`    // last, within a minute, on the node that tells, since that is up; zero: not
}

// TokenRequest says what token to make.
type TokenRequest struct {
	Name    string        `json:"name"`       // "": token-ID
	Role    TokenRole     `json:"role"`       // "": TokenViewer
	Expires time.Duration `json:"expires_ns"` // from now on; 0: never
}

// Limits of tokens.
const (
	MaxTokens       = 1024
	MaxTokenExpiry  = 10 * 366 * 24 * time.Hour
	TokenSecretSize = 32
	maxTokenValue   = 1 << 10
	tokenGone       = 7 * 24 * time.Hour // after its end a token is forgotten, when another one is made
)

// tokenRecord is the value of a token's entry.
type tokenRecord struct {
	Name    string    `cbor:"name"`
	Role    TokenRole `cbor:"role"`
	Hash    []byte    `cbor:"hash"` // SHA-256 of the secret, which nobody can guess: it is 32 random bytes
	Created time.Time `cbor:"created"`
	Expires time.Time `cbor:"expires,omitzero"`
	By      peer.ID   `cbor:"by"`
}

func (r *tokenRecord) token(id string) Token {
	return Token{ID: id, Name: r.Name, Role: r.Role, Created: r.Created, Expires: r.Expires, By: r.By}
}

func (r *tokenRecord) expired(now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

func decodeToken(e *Entry) (id string, r tokenRecord, err error) {
	id = strings.TrimPrefix(e.Key, TokenKeys)
	if len(e.Value) > maxTokenValue || UnmarshalMessage(e.Value, &r) != nil || len(r.Hash) != sha256.Size ||
		r.Role.Check() != nil || checkTokenName(r.Name) != nil || CheckTokenID(id) != nil {
		return id, r, Errorf(Corrupt, "the token %.40q in the ledger makes no sense", id).Hint("`grid token rm %.40s` removes it", id)
	}
	return id, r, nil
}

// CheckTokenID refuses what cannot be the ID of a token.
func CheckTokenID(id string) error {
	if len(id) != tokenIDLen || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return Errorf(Invalid, "%.40q is not the ID of a token", id).Hint("`grid token ls` lists the tokens")
	}
	return nil
}

const tokenIDLen = 13 // of 8 random bytes

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func checkTokenName(name string) error {
	if name == "" || strings.TrimSpace(name) != name || CheckMemberName(name) != nil {
		return Errorf(Invalid, "%.80q is not a name for a token", name).Hint("use 1 to 64 bytes of printable text, such as who is to have it")
	}
	return nil
}

// CreateToken makes a token for the API of all nodes of the realm. The secret is not to be had again. book, if there is one, has
// the token when CreateToken returns; others do within moments.
func (n *Node) CreateToken(ctx context.Context, book *TokenBook, req TokenRequest) (t Token, secret []byte, err error) {
	if req.Role == "" {
		req.Role = TokenViewer
	}
	if err := req.Role.Check(); err != nil {
		return t, nil, err
	}
	if req.Expires != 0 && (req.Expires < time.Second || req.Expires > MaxTokenExpiry) {
		return t, nil, Errorf(Invalid, "a token that expires in %v: want a second to %d days, or never", req.Expires, MaxTokenExpiry/(24*time.Hour))
	}
	var id [8]byte
	secret = make([]byte, TokenSecretSize)
	rand.Read(id[:]) // never fails
	rand.Read(secret)
	t.ID = tokenEncoding.EncodeToString(id[:])
	if req.Name == "" {
		req.Name = "token-" + t.ID
	}
	if err := checkTokenName(req.Name); err != nil {
		return t, nil, err
	}
	hash := sha256.Sum256(secret)
	now := time.Now().UTC()
	r := tokenRecord{Name: req.Name, Role: req.Role, Hash: hash[:], Created: now, By: n.self}
	if req.Expires != 0 {
		r.Expires = now.Add(req.Expires)
	}
	value, err := Marshal(r)
	if err != nil {
		return t, nil, err
	}
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		all, err := tx.Range(TokenKeys)
		if err != nil {
			return err
		}
		left := len(all)
		for i := range all {
			if _, old, err := decodeToken(&all[i]); err == nil && old.expired(now.Add(-tokenGone)) {
				tx.Delete(all[i].Key)
				left--
			}
		}
		if left >= MaxTokens {
			return Errorf(Limit, "there are %d tokens, as many as there may be", left).Hint("`grid token rm` removes those that are not needed")
		}
		tx.Put(TokenKeys+t.ID, value)
		return n.auditIn(tx, AuditFact{Act: ActCreateToken, Subject: t.ID, Note: tokenNote(&r)})
	})
	if err != nil {
		return t, nil, Errorf(CodeOf(err), "make a token: %w", err)
	}
	if book != nil {
		book.change(Changes{Put: []Entry{{Key: TokenKeys + t.ID, Value: value}}})
	}
	n.log.Info("a token was made", "token", t.ID, "name", r.Name, "role", r.Role, "expires", r.Expires)
	return r.token(t.ID), secret, nil
}

func tokenNote(r *tokenRecord) string {
	until := "never expires"
	if !r.Expires.IsZero() {
		until = "expires " + r.Expires.Format(time.RFC3339)
	}
	return fmt.Sprintf("%q, role %s, %s", r.Name, r.Role, until)
}

// Tokens lists the tokens of the realm, the oldest first.
func (n *Node) Tokens(ctx context.Context) (list []Token, err error) {
	_, err = RangeAll(ctx, n.Ledger, TokenKeys, false, func(e Entry) error {
		id, r, err := decodeToken(&e)
		if err != nil {
			n.log.Warn("a token that cannot be read", "err", err)
			r = tokenRecord{Name: "(cannot be read)"}
		}
		list = append(list, r.token(id))
		return nil
	})
	if err != nil {
		return nil, Errorf(CodeOf(err), "tokens: %w", err)
	}
	slices.SortFunc(list, func(a, b Token) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID)) })
	return list, nil
}

// RemoveToken removes the token with an ID, or the only one with a name. No node takes it any more within moments, that of book
// at once, and what goes on with it is cut off.
func (n *Node) RemoveToken(ctx context.Context, book *TokenBook, which string) (t Token, err error) {
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		all, err := tx.Range(TokenKeys)
		if err != nil {
			return err
		}
		found, of := 0, tokenRecord{}
		for i := range all {
			id, r, _ := decodeToken(&all[i]) // what cannot be read can be removed
			if id == which {
				found, t, of = 1, r.token(id), r
				break
			}
			if r.Name == which {
				found, t, of = found+1, r.token(id), r
			}
		}
		switch {
		case found == 0:
			return Errorf(NotFound, "there is no token %.80q", which).Hint("`grid token ls` lists the tokens")
		case found > 1:
			return Errorf(Invalid, "%d tokens have the name %.80q", found, which).Hint("say which one by its ID; `grid token ls` lists them")
		}
		tx.Delete(TokenKeys + t.ID)
		return n.auditIn(tx, AuditFact{Act: ActRemoveToken, Subject: t.ID, Note: tokenNote(&of)})
	})
	if err != nil {
		return Token{}, Errorf(CodeOf(err), "remove a token: %w", err)
	}
	if book != nil {
		book.change(Changes{Delete: []string{TokenKeys + t.ID}})
	}
	n.log.Info("a token was removed", "token", t.ID, "name", t.Name)
	return t, nil
}

// How a book of tokens is kept up to date.
const (
	tokenRefresh = 10 * time.Second // reads all of them anew
	tokenStale   = time.Minute      // a book that was not refreshed for so long is not believed any more
	tokenRetry   = time.Second
)

// TokenBook is the realm's tokens as a node knows them, for telling who has a good one. It learns of changes as they happen. A
// node that cannot reach its realm's ledger for a minute believes no token any longer, as it might have been removed.
type TokenBook struct {
	mu    sync.Mutex
	all   map[string]*heldToken // by ID
	fresh time.Time             // when all of them were known last
	used  map[string]time.Time
	now   func() time.Time
	every time.Duration // reads all of them anew
}

// heldToken is a token in a book.
type heldToken struct {
	rec    tokenRecord
	raw    []byte
	ctx    context.Context // ends when the token is removed or changed
	cancel context.CancelCauseFunc
}

// NewTokenBook makes a book with nothing in it, which is to be filled by [Node.FollowTokens]. now is nil but for tests.
func NewTokenBook(now func() time.Time) *TokenBook {
	if now == nil {
		now = time.Now
	}
	return &TokenBook{all: make(map[string]*heldToken), used: make(map[string]time.Time), now: now, every: tokenRefresh}
}

// FollowTokens keeps a book up to date until ctx ends.
func (n *Node) FollowTokens(ctx context.Context, b *TokenBook) {
	defer b.close()
	for ctx.Err() == nil {
		err := n.refreshTokens(ctx, b)
		if err == nil || ctx.Err() != nil {
			continue
		}
		n.log.Debug("the tokens of the realm are not to be had", "err", err)
		select {
		case <-time.After(tokenRetry):
		case <-ctx.Done():
		}
	}
}

// refreshTokens reads all tokens, and follows their changes for a while.
func (n *Node) refreshTokens(ctx context.Context, b *TokenBook) error {
	ctx, cancel := context.WithTimeout(ctx, b.every)
	defer cancel()
	began := b.now()
	now := make(map[string]Entry)
	revision, err := RangeAll(ctx, n.Ledger, TokenKeys, false, func(e Entry) error { now[e.Key] = e; return nil })
	if err != nil {
		return err
	}
	b.fill(now, began)
	err = n.Ledger.Watch(ctx, TokenKeys, revision, func(c Changes) error {
		b.change(c)
		return nil
	})
	if ctx.Err() != nil || CodeOf(err) == OutOfDate {
		return nil
	}
	return err
}

// fill makes the book hold exactly what the ledger did at a moment.
func (b *TokenBook) fill(entries map[string]Entry, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.all {
		if _, ok := entries[TokenKeys+id]; !ok {
			b.drop(id)
		}
	}
	for _, e := range entries {
		b.put(e)
	}
	b.fresh = at
}

func (b *TokenBook) change(c Changes) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range c.Delete {
		b.drop(strings.TrimPrefix(key, TokenKeys))
	}
	for _, e := range c.Put {
		b.put(e)
	}
}

func (b *TokenBook) put(e Entry) {
	id, r, err := decodeToken(&e)
	if old := b.all[id]; old != nil {
		if err == nil && bytes.Equal(old.raw, e.Value) {
			return
		}
		b.drop(id)
	}
	if err == nil && len(b.all) < MaxTokens {
		t := &heldToken{rec: r, raw: e.Value}
		t.ctx, t.cancel = context.WithCancelCause(context.Background())
		b.all[id] = t
	}
}

func (b *TokenBook) drop(id string) {
	if t := b.all[id]; t != nil {
		t.cancel(Errorf(Denied, "the token %s was removed", id))
		delete(b.all, id)
		delete(b.used, id)
	}
}

func (b *TokenBook) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.all {
		b.drop(id)
	}
	b.fresh = time.Time{}
}

// ErrNoToken is the cause of errors about tokens that are not, or no more, good: they cannot be used by trying again.
var ErrNoToken = errors.New("not a good token")

// Check finds the token with an ID and a secret. held ends, with the reason as its cause, when the token is removed; it does not
// tell when it expires. The error is Denied with [ErrNoToken] when there is no such token, or it has expired, and Unavailable
// when the book is not up to date.
func (b *TokenBook) Check(id string, secret []byte) (t Token, held context.Context, err error) {
	hash := sha256.Sum256(secret)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.fresh.IsZero() || now.Sub(b.fresh) > tokenStale {
		return t, nil, Errorf(Unavailable, "this node cannot tell whether the token is good, as it does not reach its realm's ledger").
			Hint("try again, or another node of the realm; on the node's own machine `grid ledger status` tells what is wrong")
	}
	h, want := b.all[id], make([]byte, sha256.Size)
	if h != nil {
		want = h.rec.Hash
	}
	if subtle.ConstantTimeCompare(hash[:], want) != 1 || h == nil {
		e := Errorf(Denied, "the token is not, or no more, one of this realm").Hint("`grid token create` on a node of the realm makes one")
		e.Err = ErrNoToken
		return t, nil, e
	}
	if t = h.rec.token(id); h.rec.expired(now) {
		e := Errorf(Denied, "the token %s (%q) has expired: it was good until %s, and this node's clock says %s", id, t.Name, t.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			Hint("`grid token create` on a node of the realm makes another one")
		e.Err = ErrNoToken
		return t, nil, e
	}
	b.used[id] = now.Truncate(time.Minute).UTC()
	return t, h.ctx, nil
}

// Used is when a token was used last on this node, within a minute; zero: not.
func (b *TokenBook) Used(id string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used[id]
}
