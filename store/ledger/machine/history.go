package machine

import (
	"maps"
	"slices"
	"strings"
)

// change is what a revision did to one entry: old is nil when there was none, new when it was deleted.
type change struct{ old, new *entry }

func (c change) key() string {
	if c.new != nil {
		return c.new.key
	}
	return c.old.key
}

// record is the changes of one revision.
type record []change

// Memory of a record and of a change besides keys and values.
const (
	recordOverhead = 64
	changeOverhead = 160
)

// size is the memory that r keeps, or may be the only one to keep.
func (r record) size() int64 {
	n := int64(recordOverhead)
	for _, c := range r {
		n += changeOverhead
		if c.old != nil {
			n += c.old.size()
		}
		if c.new != nil {
			n += c.new.size()
		}
	}
	return n
}

// history is the records of the last revisions, without gaps, in a ring.
type history struct {
	limit    int
	maxBytes int64

	ring  []record
	head  int // of the oldest
	n     int
	first uint64 // revision of the oldest; without any, that of the next
	bytes int64
	added int64 // bytes of all that were ever added
}

// add appends the record of the next revision. The newest one is kept however large it is.
func (h *history) add(r record) {
	size := r.size()
	h.bytes += size
	h.added += size
	for h.n > 0 && (h.n >= h.limit || h.bytes > h.maxBytes) {
		h.drop()
	}
	if h.n == len(h.ring) {
		ring := make([]record, min(max(2*h.n, 64), max(h.limit, 1)))
		for i := range h.n {
			ring[i] = h.ring[(h.head+i)%h.n]
		}
		h.ring, h.head = ring, 0
	}
	h.ring[(h.head+h.n)%len(h.ring)] = r
	h.n++
}

func (h *history) drop() {
	h.bytes -= h.ring[h.head].size()
	h.ring[h.head] = nil
	h.head = (h.head + 1) % len(h.ring)
	h.n--
	h.first++
}

// at is the record of a revision that is known.
func (h *history) at(revision uint64) record {
	return h.ring[(h.head+int(revision-h.first))%len(h.ring)]
}

// last is the newest revision.
func (h *history) last() uint64 { return h.first + uint64(h.n) - 1 }

// past is an entry as it was; nil when there was none.
type past struct {
	key string
	*entry
}

// undo lists what records have changed behind a key, as it was before them, in order of keys.
func undo(records []record, prefix, after string) []past {
	then := make(map[string]*entry)
	for _, r := range slices.Backward(records) {
		for _, c := range r {
			if key := c.key(); strings.HasPrefix(key, prefix) && key > after {
				then[key] = c.old
			}
		}
	}
	list := make([]past, 0, len(then))
	for _, key := range slices.Sorted(maps.Keys(then)) {
		list = append(list, past{key, then[key]})
	}
	return list
}

// newest is the last n records, oldest first.
func (h *history) newest(n int) []record {
	list := make([]record, n)
	for i := range list {
		list[i] = h.at(h.last() - uint64(n-1-i))
	}
	return list
}

// tail is the newest records that take at most so much memory, oldest first.
func (h *history) tail(limit int, bytes int64) []record {
	n := 0
	for n < min(h.n, limit) {
		if bytes -= h.at(h.last() - uint64(n)).size(); bytes < 0 {
			break
		}
		n++
	}
	return h.newest(n)
}
