package sdk

import (
	"math/bits"
	"slices"
	"strings"
)

// table numbers keys in the order in which they come. It does what a map[string]int does, two to three
// times as fast in a guest, where every call and every taken branch costs extra: for keys up to eight
// bytes, a look-up is one call without loops.
type table struct {
	slots []slot // a power of two, at most half of them used
	keys  []string
}

// slot is one place of the hash table, which is searched linearly. A key of at most eight bytes is
// known by head and size alone; a longer one is compared in full.
type slot struct {
	head uint64 // the first eight bytes, little-endian; a shorter key ends in zeros
	size int    // of the key in bytes; -1 marks a free slot
	key  int
}

func newTable() table {
	t := table{slots: make([]slot, 1<<10)}
	clearSlots(t.slots)
	return t
}

func clearSlots(s []slot) {
	for i := range s {
		s[i].size = -1
	}
}

// find gives the number of a key, and whether it was there before.
func find[K string | []byte](t *table, key K) (int, bool) {
	var head uint64
	n := len(key)
	switch {
	case n >= 8:
		head = load(key, 0)
	case n >= 4:
		head = load4(key, 0) | load4(key, n-4)<<(8*(n-4))
	case n > 0:
		head = uint64(key[0]) | uint64(key[n>>1])<<(8*(n>>1)) | uint64(key[n-1])<<(8*(n-1))
	}
	hash := place(head, n)
	if n > 8 {
		hash = further(hash, key)
	}
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.head == head && s.size == n && (n <= 8 || t.keys[s.key] == string(key)) {
			return s.key, true
		}
		if s.size < 0 {
			*s = slot{head, n, len(t.keys)}
			t.keys = append(t.keys, string(key))
			if 2*len(t.keys) > len(t.slots) {
				t.grow()
			}
			return len(t.keys) - 1, false
		}
	}
}

// grow doubles the slots and puts those that are used anew.
func (t *table) grow() {
	used := t.slots
	t.slots = make([]slot, 2*len(used))
	clearSlots(t.slots)
	mask := uint64(len(t.slots) - 1)
	for i := range used {
		s := &used[i]
		if s.size < 0 {
			continue
		}
		hash := place(s.head, s.size)
		if s.size > 8 {
			hash = further(hash, t.keys[s.key])
		}
		for hash &= mask; t.slots[hash].size >= 0; {
			hash = (hash + 1) & mask
		}
		t.slots[hash] = *s
	}
}

// sorted lists the numbers of all keys in order of the keys. Most are told apart by their first eight bytes: they are
// put in order of the last of these, then, keeping that order, of the one before, and so on, which takes a guest half
// the time that comparing does.
func (t *table) sorted() []int {
	type entry struct {
		head uint64
		key  int
	}
	list, next := make([]entry, 0, len(t.keys)), make([]entry, len(t.keys))
	for i := range t.slots {
		if s := &t.slots[i]; s.size >= 0 {
			list = append(list, entry{bits.ReverseBytes64(s.head), s.key})
		}
	}
	for shift := 0; shift < 64; shift += 8 {
		var at [257]int // where the next one with this byte goes
		for i := range list {
			at[int(byte(list[i].head>>shift))+1]++
		}
		for k := range 256 {
			at[k+1] += at[k]
		}
		for i := range list {
			k := byte(list[i].head >> shift)
			next[at[k]] = list[i]
			at[k]++
		}
		list, next = next, list
	}
	keys := make([]int, len(list))
	for lo, hi := 0, 0; lo < len(list); lo = hi {
		for hi < len(list) && list[hi].head == list[lo].head {
			keys[hi] = list[hi].key
			hi++
		}
		if hi-lo > 1 {
			slices.SortFunc(keys[lo:hi], func(a, b int) int { return strings.Compare(t.keys[a], t.keys[b]) })
		}
	}
	return keys
}

// place is where to look first for a key of at most eight bytes.
func place(head uint64, size int) uint64 { return mix(head ^ uint64(size)) }

// further takes what is behind the first eight bytes of a key into its hash.
func further[K string | []byte](hash uint64, key K) uint64 {
	for i := 8; i < len(key); i += 8 {
		hash = mix(hash ^ load(key, min(i, len(key)-8)))
	}
	return hash
}

// load4 reads four bytes, little-endian.
func load4[K string | []byte](key K, i int) uint64 {
	return uint64(key[i]) | uint64(key[i+1])<<8 | uint64(key[i+2])<<16 | uint64(key[i+3])<<24
}

// load reads eight bytes, little-endian.
func load[K string | []byte](key K, i int) uint64 {
	return uint64(key[i]) | uint64(key[i+1])<<8 | uint64(key[i+2])<<16 | uint64(key[i+3])<<24 |
		uint64(key[i+4])<<32 | uint64(key[i+5])<<40 | uint64(key[i+6])<<48 | uint64(key[i+7])<<56
}

// mix spreads a number over 64 bits; the low ones are used.
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	return x ^ x>>32
}
