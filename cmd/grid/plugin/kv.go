package plugin

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/wasmgrid/wasmgrid/grid"
)

// memoryKV is a realm's map for one case. It implements [grid.KV].
type memoryKV struct {
	grants []grid.KVGrant

	mu       sync.Mutex
	entries  map[string]grid.Entry
	revision uint64
}

// newKV makes a map that begins with some entries, of which those of the grants are seen.
func newKV(grants []string, begin map[string]string) (*memoryKV, error) {
	m := &memoryKV{entries: map[string]grid.Entry{}, revision: 1}
	for _, s := range grants {
		g, err := grid.ParseKVGrant(s)
		if err != nil {
			return nil, err
		}
		m.grants = append(m.grants, g)
	}
	for _, k := range slices.Sorted(maps.Keys(begin)) {
		m.entries[k] = grid.Entry{Key: k, Value: []byte(begin[k]), Version: m.revision}
	}
	return m, nil
}

func (m *memoryKV) allowed(key string, write bool) error {
	for _, g := range m.grants {
		if strings.HasPrefix(key, g.Prefix) && !(write && g.ReadOnly) {
			return nil
		}
	}
	what := "to be read"
	if write {
		what = "to be written"
	}
	return grid.Errorf(grid.Denied, "the key %.80q was not granted %s", key, what)
}

// Get implements [grid.KV].
func (m *memoryKV) Get(_ context.Context, key string) (grid.Entry, error) {
	if err := m.allowed(key, false); err != nil {
		return grid.Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return e, grid.Errorf(grid.NotFound, "no key %.80q", key)
	}
	return e, nil
}

// List implements [grid.KV].
func (m *memoryKV) List(_ context.Context, prefix, after string, limit int) (list []grid.Entry, more bool, err error) {
	if err := m.allowed(prefix, false); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(m.entries)) {
		if !strings.HasPrefix(k, prefix) || k <= after {
			continue
		}
		if len(list) == max(limit, 1) {
			return list, true, nil
		}
		list = append(list, m.entries[k])
	}
	return list, false, nil
}

// Commit implements [grid.KV].
func (m *memoryKV) Commit(_ context.Context, t grid.Txn) (uint64, error) {
	for _, c := range t.If {
		if err := m.allowed(c.Key, false); err != nil {
			return 0, err
		}
	}
	for _, e := range t.Put {
		if err := m.allowed(e.Key, true); err != nil {
			return 0, err
		}
	}
	for _, k := range t.Delete {
		if err := m.allowed(k, true); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range t.If {
		if m.entries[c.Key].Version != c.Version {
			return 0, grid.Errorf(grid.Conflict, "the key %.80q has another version", c.Key)
		}
	}
	m.revision++
	for _, e := range t.Put {
		e.Version, e.Value = m.revision, slices.Clone(e.Value)
		m.entries[e.Key] = e
	}
	for _, k := range t.Delete {
		delete(m.entries, k)
	}
	return m.revision, nil
}

// all is what the map holds.
func (m *memoryKV) all() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]string, len(m.entries))
	for k, e := range m.entries {
		out[k] = string(e.Value)
	}
	return out
}
