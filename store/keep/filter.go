package keep

import "sync/atomic"

const (
	filterBits = 1 << 23 // 1 MiB
	filterFull = 1 << 19 // different blocks after which a filter should be replaced; it is wrong about 1.4% then
)

// filter is a set of hashes of fixed size, which may claim to have what was never added. It is safe for
// concurrent use.
type filter struct {
	words [filterBits / 64]atomic.Uint64
	added atomic.Int64
}

// places are the two bits that stand for a hash.
func places(h uint64) (a, b uint64) { return h % filterBits, (h >> 32) % filterBits }

// add adds a hash. Most of the time it has been added before, and nothing is written.
func (f *filter) add(h uint64) {
	a, b := places(h)
	if f.set(a) || f.set(b) {
		f.set(b)
		f.added.Add(1)
	}
}

// set sets a bit and reports whether it was not set before.
func (f *filter) set(bit uint64) bool {
	w, m := &f.words[bit/64], uint64(1)<<(bit%64)
	return w.Load()&m == 0 && w.Or(m)&m == 0
}

// has reports whether a hash may have been added. A nil filter is empty.
func (f *filter) has(h uint64) bool {
	if f == nil {
		return false
	}
	a, b := places(h)
	return f.words[a/64].Load()&(1<<(a%64)) != 0 && f.words[b/64].Load()&(1<<(b%64)) != 0
}

// clear empties it, while nobody else uses it.
func (f *filter) clear() {
	clear(f.words[:])
	f.added.Store(0)
}

func (f *filter) full() bool { return f.added.Load() >= filterFull }

// recent is what was used in the current epoch and the one before.
type recent struct{ now, before atomic.Pointer[filter] }

func newRecent() *recent {
	r := &recent{}
	r.now.Store(new(filter))
	return r
}

func (r *recent) add(h uint64) {
	f := r.now.Load()
	f.add(h)
	if f.full() && r.now.CompareAndSwap(f, new(filter)) {
		r.before.Store(f)
	}
}

func (r *recent) has(h uint64) bool { return r.now.Load().has(h) || r.before.Load().has(h) }
