package sdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// KV is a map that all nodes of the realm share, from keys to values, with transactions; see [Context.KV]. A task that
// may use it is run anew each time.
type KV struct{ s Store }

// Item is a key's value. Version changes with every write of it, and is 0 when there is no such key.
type Item struct {
	Key     string
	Value   []byte
	Version uint64
}

// Store is what keeps a map: the grid, or [Memory].
type Store interface {
	// Get gives a key's item, of version 0 when there is no such key.
	Get(key string) (Item, error)
	// List gives items whose keys begin with prefix and come after another, in order of keys: at most limit, and
	// whether there are more.
	List(prefix, after string, limit int) (items []Item, more bool, err error)
	// Commit does all of it, or nothing with ErrConflict, when a condition does not hold.
	Commit(c Commit) (revision uint64, err error)
}

// Commit is a transaction: when every key in If has that version, Put and Delete are done.
type Commit struct {
	If     []Item // keys and versions
	Put    []Item // keys and values
	Delete []string
}

// ErrConflict is the error of a transaction that found other versions than it asked for; nothing of it was done.
var ErrConflict = errors.New("another transaction came before this one")

// errShort is the error of a response that ends early.
var errShort = errors.New("the host gives a response that is cut short")

// appendWord appends a string as requests have it.
func appendWord(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// encode writes a request in the format of docs/abi.md.
func (c Commit) encode() []byte {
	u32, u64 := binary.LittleEndian.AppendUint32, binary.LittleEndian.AppendUint64
	b := u32([]byte{abi.KVCommit}, uint32(len(c.If)))
	for _, it := range c.If {
		b = u64(appendWord(b, it.Key), it.Version)
	}
	b = u32(b, uint32(len(c.Put)))
	for _, it := range c.Put {
		b = appendWord(b, it.Key)
		b = append(u32(b, uint32(len(it.Value))), it.Value...)
	}
	b = u32(b, uint32(len(c.Delete)))
	for _, key := range c.Delete {
		b = appendWord(b, key)
	}
	return b
}

// decodeList reads a response in the format of docs/abi.md. The items are parts of it.
func decodeList(data []byte) (items []Item, more bool, err error) {
	if len(data) == 0 {
		return nil, false, errShort
	}
	more, data = data[0] != 0, data[1:]
	word := func() (w []byte) {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			err = errShort
			return nil
		}
		n := int(binary.LittleEndian.Uint32(data))
		w, data = data[4:4+n:4+n], data[4+n:]
		return w
	}
	for len(data) > 0 && err == nil {
		it := Item{Key: string(word())}
		if len(data) < 8 {
			return nil, false, errShort
		}
		it.Version = binary.LittleEndian.Uint64(data)
		data = data[8:]
		it.Value = word()
		items = append(items, it)
	}
	if err != nil {
		return nil, false, err
	}
	return items, more, nil
}

// Get gives a key's item; of version 0, without a value, when there is no such key.
func (k KV) Get(key string) (Item, error) {
	item, err := k.s.Get(key)
	if err != nil {
		return Item{}, fmt.Errorf("kv: get %.100q: %w", key, err)
	}
	return item, nil
}

// Put writes a key, whatever it was.
func (k KV) Put(key string, value []byte) error {
	if _, err := k.s.Commit(Commit{Put: []Item{{Key: key, Value: value}}}); err != nil {
		return fmt.Errorf("kv: put %.100q: %w", key, err)
	}
	return nil
}

// Delete removes a key, if it is there.
func (k KV) Delete(key string) error {
	if _, err := k.s.Commit(Commit{Delete: []string{key}}); err != nil {
		return fmt.Errorf("kv: delete %.100q: %w", key, err)
	}
	return nil
}

// List gives all items whose keys begin with prefix, in order of keys. They are read some at a time, and so need not be
// of one moment. An error ends the loop.
func (k KV) List(prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for after, more := "", true; more; {
			var items []Item
			var err error
			if items, more, err = k.s.List(prefix, after, 1000); err != nil {
				yield(Item{}, fmt.Errorf("kv: list %.100q: %w", prefix, err))
				return
			}
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
				after = it.Key
			}
			more = more && len(items) > 0
		}
	}
}

// maxTries is how often a transaction is tried.
const maxTries = 64

// Txn runs f, which reads and writes through tx, and then does what f wrote, all at once, provided that nothing of what f
// read was changed meanwhile. If it was, f is run again, so it should do nothing besides. An error of f gives the
// transaction up. It is [ErrConflict] when others always came first, or a condition of [Tx.If] does not hold.
func (k KV) Txn(f func(tx *Tx) error) error {
	for try := 0; ; try++ {
		tx := &Tx{s: k.s, seen: map[string]uint64{}, writes: map[string]*[]byte{}}
		if err := f(tx); err != nil {
			return err
		}
		_, err := k.s.Commit(tx.commit())
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrConflict) && !tx.own && try < maxTries:
			time.Sleep(time.Duration(rand.Int64N(int64(min(1<<try, 256)))) * time.Millisecond / 4)
		default:
			return fmt.Errorf("kv: commit: %w", err)
		}
	}
}

// Tx is a transaction under way; see [KV.Txn].
type Tx struct {
	s      Store
	seen   map[string]uint64
	writes map[string]*[]byte // nil: deleted
	own    bool               // has conditions by If
}

// Get gives a key's item, as [KV.Get] does, and what the transaction itself wrote, which has the version that was found.
func (tx *Tx) Get(key string) (Item, error) {
	item := Item{Key: key}
	v, wrote := tx.writes[key]
	if version, ok := tx.seen[key]; ok && wrote {
		item.Version = version
	} else {
		var err error
		if item, err = (KV{tx.s}).Get(key); err != nil {
			return item, err
		}
		if version, ok := tx.seen[key]; ok && version != item.Version {
			// It has changed since the last look, so this cannot be committed, whatever follows.
			item.Version = version
		}
		tx.seen[key] = item.Version
	}
	if wrote {
		item.Value = nil
		if v != nil {
			item.Value = *v
		}
	}
	return item, nil
}

// If makes it a condition that a key has a version, as an [Item] had it; 0 that there is no such key.
func (tx *Tx) If(key string, version uint64) {
	tx.seen[key] = version
	tx.own = true
}

// Put writes a key, when the transaction is committed. value must not be changed before.
func (tx *Tx) Put(key string, value []byte) { tx.writes[key] = &value }

// Delete removes a key, when the transaction is committed.
func (tx *Tx) Delete(key string) { tx.writes[key] = nil }

func (tx *Tx) commit() (c Commit) {
	for _, key := range slices.Sorted(maps.Keys(tx.seen)) {
		c.If = append(c.If, Item{Key: key, Version: tx.seen[key]})
	}
	for _, key := range slices.Sorted(maps.Keys(tx.writes)) {
		if v := tx.writes[key]; v != nil {
			c.Put = append(c.Put, Item{Key: key, Value: *v})
		} else {
			c.Delete = append(c.Delete, key)
		}
	}
	return c
}

// Memory is a Store in memory, for tests and programs run by hand. Its zero value is empty. It may be used by several
// goroutines.
type Memory struct {
	mu       sync.Mutex
	items    map[string]Item
	revision uint64
}

// Get is [Store]'s.
func (m *Memory) Get(key string) (Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it := m.items[key]
	it.Key, it.Value = key, slices.Clone(it.Value)
	return it, nil
}

// List is [Store]'s.
func (m *Memory) List(prefix, after string, limit int) (items []Item, more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(m.items)) {
		if !strings.HasPrefix(key, prefix) || key <= after {
			continue
		}
		if len(items) == limit {
			return items, true, nil
		}
		it := m.items[key]
		it.Value = slices.Clone(it.Value)
		items = append(items, it)
	}
	return items, false, nil
}

// Bounds on what is committed at once, and on what of.
const (
	maxKey     = 1021
	maxValue   = 1 << 20
	maxEntries = 1 << 10
	maxCommit  = 4 << 20
)

// Commit is [Store]'s.
func (m *Memory) Commit(c Commit) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := c.check(); err != nil {
		return 0, err
	}
	for _, it := range c.If {
		if m.items[it.Key].Version != it.Version {
			return 0, ErrConflict
		}
	}
	if m.items == nil {
		m.items = map[string]Item{}
	}
	m.revision++
	for _, it := range c.Put {
		m.items[it.Key] = Item{it.Key, append([]byte{}, it.Value...), m.revision}
	}
	for _, key := range c.Delete {
		delete(m.items, key)
	}
	return m.revision, nil
}

// check refuses what the grid refuses.
func (c Commit) check() error {
	if n := len(c.If) + len(c.Put) + len(c.Delete); n > maxEntries {
		return fmt.Errorf("%d conditions and changes, at most %d are allowed: %w", n, maxEntries, syscall.EINVAL)
	}
	size := 0
	written := map[string]bool{}
	check := func(key string, value []byte, write bool) error {
		size += len(key) + len(value)
		switch {
		case key == "" || !utf8.ValidString(key):
			return fmt.Errorf("the key %.100q is empty or no UTF-8: %w", key, syscall.EINVAL)
		case write && written[key]:
			return fmt.Errorf("the key %.100q is written twice: %w", key, syscall.EINVAL)
		case len(key) > maxKey || len(value) > maxValue || size > maxCommit:
			return fmt.Errorf("the key %.100q has %d bytes and a value of %d; at most %d and %d are allowed, and %d at once: %w",
				key, len(key), len(value), maxKey, maxValue, maxCommit, syscall.EFBIG)
		}
		written[key] = written[key] || write
		return nil
	}
	for _, it := range c.If {
		if err := check(it.Key, nil, false); err != nil {
			return err
		}
	}
	for _, it := range c.Put {
		if err := check(it.Key, it.Value, true); err != nil {
			return err
		}
	}
	for _, key := range c.Delete {
		if err := check(key, nil, true); err != nil {
			return err
		}
	}
	return nil
}
