package grid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A secret is an entry of the realm's ledger, encrypted to the nodes of the realm: neither the files of the ledger nor
// those who only speak to its nodes can tell what it is. A node that joins later is told by any that can read it, which
// encrypts the secret anew for all, on condition that it is still the same.

// MaxSecret bounds the value of a secret, in bytes.
const MaxSecret = 64 << 10

// Secret is what may be known of a secret.
type Secret struct {
	Name    string    `json:"name"`          // under which jobs are granted it
	Version uint64    `json:"version"`       // the ledger's revision at which it was set
	Set     time.Time `json:"set"`           // when it was
	By      string    `json:"by"`            // the node that set it
	Readers int       `json:"readers"`       // nodes that can read it
	Here    bool      `json:"readable_here"` // this one can
}

// sealedSecret is the ledger's entry of a secret.
type sealedSecret struct {
	Set     time.Time `cbor:"set"`
	By      peer.ID   `cbor:"by"`
	Version uint64    `cbor:"version,omitempty"` // of the entry by which it was set; 0: of this one
	To      []peer.ID `cbor:"to"`
	Data    []byte    `cbor:"data"` // a secretValue, encrypted to those
}

// secretValue says whose value it is, so that nobody can pass one for another.
type secretValue struct {
	Name  string `cbor:"name"`
	Value []byte `cbor:"value"`
}

func (s *sealedSecret) seal(name string, value []byte) (err error) {
	plain, err := Marshal(secretValue{name, value})
	if err == nil {
		s.Data, err = encrypt(plain, s.To...)
	}
	return err
}

func (s *sealedSecret) entry(name string) (Entry, error) {
	data, err := Marshal(s)
	if err == nil && len(data) > MaxLedgerValue {
		err = Errorf(Limit, "encrypted to %d nodes it has %d bytes, at most %d are allowed", len(s.To), len(data), MaxLedgerValue)
	}
	return Entry{Key: SecretKeys + name, Value: data}, err
}

func decodeSecret(e *Entry) (name string, s sealedSecret, err error) {
	name = strings.TrimPrefix(e.Key, SecretKeys)
	err = UnmarshalMessage(e.Value, &s)
	if err == nil {
		err = CheckSecretName(name)
	}
	if err != nil {
		return "", s, Errorf(Corrupt, "the entry of secret %.80q cannot be read: %w", name, err).Hint("set the secret again, or remove it")
	}
	s.Version = cmp.Or(s.Version, e.Version)
	return name, s, nil
}

// SetSecret sets a secret for the realm, whether or not there is one of that name.
func (n *Node) SetSecret(ctx context.Context, name string, value []byte) (Secret, error) {
	if err := CheckSecretName(name); err != nil {
		return Secret{}, err
	}
	if err := n.mayAdminister(); err != nil {
		return Secret{}, Errorf(CodeOf(err), "set the secret %s: %w", name, err).Hint("%s", AdviceOf(err))
	}
	if len(value) > MaxSecret {
		return Secret{}, Errorf(Limit, "secret %s has %d bytes, at most %d are allowed", name, len(value), MaxSecret).
			Hint("add the data encrypted (`grid add --encrypt`), and make its key the secret")
	}
	readers, err := n.secretReaders(ctx)
	if err != nil {
		return Secret{}, Errorf(CodeOf(err), "secret %s: %w", name, err)
	}
	s := sealedSecret{Set: time.Now().UTC(), By: n.self, To: readers}
	if err := s.seal(name, value); err != nil {
		return Secret{}, Errorf(CodeOf(err), "secret %s: %w", name, err)
	}
	e, err := s.entry(name)
	if err != nil {
		return Secret{}, Errorf(CodeOf(err), "secret %s: %w", name, err)
	}
	t := Txn{ID: NewRequestID(), Put: []Entry{e}}
	if err = n.audit(&t, AuditFact{Act: ActSetSecret, Subject: name, User: UserOf(ctx), Note: fmt.Sprintf("%d nodes can read it", len(readers))}); err == nil {
		s.Version, err = n.Ledger.Commit(ctx, t)
	}
	if err != nil {
		return Secret{}, Errorf(CodeOf(err), "secret %s: %w", name, err)
	}
	n.log.Info("a secret was set", "secret", name, "version", s.Version, "readers", len(s.To))
	return n.secretInfo(name, &s), nil
}

// RemoveSecret removes a secret, and tells the ledger's revision at which that happened. What tasks have read they know.
func (n *Node) RemoveSecret(ctx context.Context, name string) (revision uint64, err error) {
	if err := CheckSecretName(name); err != nil {
		return 0, err
	}
	version := uint64(0)
	revision, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		e, ok, err := tx.Get(SecretKeys + name)
		if err != nil {
			return err
		}
		if !ok {
			return noSecret(name)
		}
		if _, s, err := decodeSecret(&e); err == nil { // what cannot be read can be removed
			version = s.Version
		}
		tx.Delete(SecretKeys + name)
		return n.auditIn(tx, AuditFact{Act: ActRemoveSecret, Subject: name})
	})
	if CodeOf(err) == NotFound {
		return 0, err
	}
	if err != nil {
		return 0, Errorf(CodeOf(err), "secret %s: %w", name, err)
	}
	n.log.Info("a secret was removed", "secret", name, "version", version, "revision", revision)
	return revision, nil
}

func noSecret(name string) error {
	return Errorf(NotFound, "there is no secret %s in this realm", name).Hint("`grid secret ls` lists them, `grid secret set %s` sets it", name)
}

// Secrets lists what may be known of the realm's secrets, in order of names.
func (n *Node) Secrets(ctx context.Context) (list []Secret, err error) {
	_, err = RangeAll(ctx, n.Ledger, SecretKeys, false, func(e Entry) error {
		name, s, err := decodeSecret(&e)
		if err != nil {
			n.log.Warn("a secret cannot be read", "err", err)
			return nil
		}
		list = append(list, n.secretInfo(name, &s))
		return nil
	})
	return list, err
}

func (n *Node) secretInfo(name string, s *sealedSecret) Secret {
	return Secret{Name: name, Version: s.Version, Set: s.Set, By: s.By.String(), Readers: len(s.To), Here: slices.Contains(s.To, n.self)}
}

// secretsFor gives a guest what it was granted. The error is this node's failure: another one may do better.
func (n *Node) secretsFor(ctx context.Context, names []string) (*secretFS, error) {
	f := &secretFS{values: make(map[string][]byte, len(names))}
	for _, name := range names {
		e, err := n.Ledger.Get(ctx, SecretKeys+name)
		if CodeOf(err) == NotFound {
			return nil, Errorf(NotFound, "the job was granted the secret %s, but there is none of that name in this realm: `grid secret set %s` sets it", name, name)
		}
		var s sealedSecret
		var value []byte
		if err == nil {
			if _, s, err = decodeSecret(&e); err == nil {
				value, err = n.unseal(name, &s)
			}
		}
		if err != nil {
			return nil, Errorf(CodeOf(err), "the job was granted the secret %s, which could not be read: %w", name, err)
		}
		n.log.Debug("a guest is given a secret", "secret", name, "version", s.Version)
		f.values[name] = value
	}
	return f, nil
}

func (n *Node) unseal(name string, s *sealedSecret) ([]byte, error) {
	if !slices.Contains(s.To, n.self) {
		return nil, Errorf(Unavailable, "it is not encrypted to node %s, which joined after it was set: another node that can read it sees to that, or set it again", n.self)
	}
	plain, err := decrypt(s.Data, n.Key, MaxSecret+2*MaxName)
	if err != nil {
		return nil, err
	}
	var v secretValue
	if err := UnmarshalMessage(plain, &v); err != nil {
		return nil, Errorf(Corrupt, "it is no secret: %w", err)
	}
	if v.Name != name || len(v.Value) > MaxSecret {
		return nil, Errorf(Corrupt, "it is another secret")
	}
	return v.Value, nil
}

// secretReaders are the nodes of the realm, up or not, to which something can be encrypted.
func (n *Node) secretReaders(ctx context.Context) ([]peer.ID, error) {
	all, err := n.realmNodes(ctx, false)
	if err != nil {
		return nil, err
	}
	readers := []peer.ID{n.self}
	for id := range all {
		if canEncryptTo(id) {
			readers = append(readers, id)
		}
	}
	slices.Sort(readers)
	return slices.Compact(readers), nil
}

// secretsSeen is what a node knows of who can read the realm's secrets.
type secretsSeen struct {
	poke chan struct{} // secrets or nodes have changed

	mu sync.Mutex
	to map[string][]peer.ID
}

func (s *secretsSeen) stir() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (n *Node) secretsRead(all []Entry) {
	n.secrets.mu.Lock()
	n.secrets.to = make(map[string][]peer.ID, len(all))
	n.secrets.mu.Unlock()
	n.secretsChanged(Changes{Put: all})
}

func (n *Node) secretsChanged(c Changes) {
	s := &n.secrets
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range c.Put {
		if name, entry, err := decodeSecret(&c.Put[i]); err == nil {
			s.to[name] = entry.To
		}
	}
	for _, key := range c.Delete {
		delete(s.to, strings.TrimPrefix(key, SecretKeys))
	}
	s.stir()
}

// Of the nodes that can encrypt a secret anew, one does it at once, and each of the others waits longer to see whether it is done.
const (
	shareStep = 300 * time.Millisecond
	shareMost = 5 * time.Second
)

// shareSecrets encrypts secrets that this node can read for nodes of the realm that cannot.
func (n *Node) shareSecrets() {
	for {
		select {
		case <-n.secrets.poke:
		case <-n.ctx.Done():
			return
		}
		list, turn := n.unshared()
		if len(list) == 0 || n.may(n.self, RoleVoter) != nil { // others see to it
			continue
		}
		if turn > 0 {
			if !n.sleep(min(time.Duration(turn)*shareStep, shareMost)) {
				return
			}
			list, _ = n.unshared()
		}
		for _, name := range list {
			if err := n.shareSecret(name); err != nil && n.ctx.Err() == nil {
				n.log.Warn("a secret could not be encrypted for new nodes of the realm", "secret", name, "err", err)
				if !n.sleep(lastPause) {
					return
				}
				n.secrets.stir()
			}
		}
	}
}

// unshared lists secrets that this node can read and others that are up cannot, and tells how many others come
// before this one to see to it.
func (n *Node) unshared() (names []string, turn int) {
	up := slices.DeleteFunc(n.realm.up(), func(id peer.ID) bool { return !canEncryptTo(id) })
	slices.Sort(up)
	s := &n.secrets
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, to := range s.to {
		readers, missing := 0, false
		for _, id := range up {
			if !slices.Contains(to, id) {
				missing = true
			} else if id < n.self {
				readers++
			}
		}
		if missing && slices.Contains(to, n.self) {
			names, turn = append(names, name), max(turn, readers)
		}
	}
	slices.Sort(names)
	return names, turn
}

var errShared = errors.New("nothing is to be done")

// shareSecret encrypts a secret anew for all nodes of the realm, if some cannot read it.
func (n *Node) shareSecret(name string) error {
	ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
	defer cancel()
	_, err := Update(ctx, n.Ledger, func(tx *Tx) error {
		e, ok, err := tx.Get(SecretKeys + name)
		if err != nil {
			return err
		}
		if !ok {
			return errShared // it was removed
		}
		_, s, err := decodeSecret(&e)
		if err != nil {
			return err
		}
		readers, err := n.secretReaders(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(readers, func(id peer.ID) bool { return !slices.Contains(s.To, id) }) {
			return errShared
		}
		value, err := n.unseal(name, &s)
		if err != nil {
			return err
		}
		s.To = readers
		if err := s.seal(name, value); err != nil {
			return err
		}
		if e, err = s.entry(name); err != nil {
			return err
		}
		tx.Put(e.Key, e.Value)
		return n.auditIn(tx, AuditFact{Act: ActShareSecret, Subject: name, Note: fmt.Sprintf("%d nodes can read it", len(readers))})
	})
	if errors.Is(err, errShared) {
		return nil
	}
	if err == nil {
		n.log.Info("a secret was encrypted for nodes that have joined", "secret", name)
	}
	return err
}
