package image

import "sync"

// Item is what a pool keeps: an [Instance], a [Memory], or something around one of them.
type Item interface {
	// Reset makes the item as good as new. After an error it is closed.
	Reset() error
	// Bytes is how much memory the item takes up while it is idle.
	Bytes() uint64
	Close() error
}

// Bounds limit what a pool keeps idle.
type Bounds struct {
	Count int    // of items
	Each  int    // of items of one image; 0 is as many as Count
	Bytes uint64 // of all of them
}

// Pool keeps idle items by the image that they are of, and closes the ones that were used longest ago
// when there are too many. It is safe for concurrent use.
type Pool[T Item] struct {
	bounds Bounds

	mu     sync.Mutex
	closed bool
	tops   map[*Image]top[T]
	oldest *idle[T] // of all; from there on by newer
	newest *idle[T]
	spare  *idle[T] // unused ones, by newer
	stats  PoolStats
}

// top is the item of an image that was given last, and how many of the image there are.
type top[T Item] struct {
	*idle[T]
	count int
}

// idle is an item in two lists: that of all items, and that of those of one image.
type idle[T Item] struct {
	image        *Image
	item         T
	bytes        uint64
	older, newer *idle[T]
	below, above *idle[T]
}

// PoolStats is what there is of a pool, and what there was.
type PoolStats struct {
	Count   int    // of idle items
	Bytes   uint64 // of them
	Hits    uint64 // calls of Take that found one
	Misses  uint64 // and that did not
	Unfit   uint64 // items that could not be reset
	Evicted uint64 // that were put out to keep within the bounds
}

// NewPool makes a pool.
func NewPool[T Item](b Bounds) *Pool[T] {
	if b.Each == 0 {
		b.Each = b.Count
	}
	return &Pool[T]{bounds: b, tops: map[*Image]top[T]{}}
}

// Take gives an item of the image that is as good as new, and is the caller's from then on. ok is false
// when there is none.
func (p *Pool[T]) Take(image *Image) (item T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.tops[image].idle
	if e == nil {
		p.stats.Misses++
		return item, false
	}
	p.stats.Hits++
	return p.remove(e), true
}

// Give resets an item and keeps it, or closes it if that fails, if it is too large, if there are
// enough of the image or if the pool is closed; then it tells false. The item is the pool's in any case. Never give an item whose instance
// was stopped: close it, or spoil it before.
func (p *Pool[T]) Give(image *Image, item T) bool {
	if item.Reset() != nil {
		item.Close()
		p.mu.Lock()
		p.stats.Unfit++
		p.mu.Unlock()
		return false
	}
	bytes := item.Bytes()
	p.mu.Lock()
	if p.closed || p.bounds.Count < 1 || bytes > p.bounds.Bytes || p.tops[image].count >= p.bounds.Each {
		p.mu.Unlock()
		item.Close()
		return false
	}
	p.add(image, item, bytes)
	for p.stats.Count > p.bounds.Count || p.stats.Bytes > p.bounds.Bytes {
		p.stats.Evicted++
		old := p.remove(p.oldest)
		p.mu.Unlock()
		old.Close()
		p.mu.Lock()
	}
	p.mu.Unlock()
	return true
}

// Evict closes all idle items of an image: before the image is closed.
func (p *Pool[T]) Evict(image *Image) {
	for {
		p.mu.Lock()
		e := p.tops[image].idle
		if e == nil {
			p.mu.Unlock()
			return
		}
		item := p.remove(e)
		p.mu.Unlock()
		item.Close()
	}
}

// Stats tells what there is, and what there was.
func (p *Pool[T]) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Close closes all idle items, and from then on those that are given. It may be called twice.
func (p *Pool[T]) Close() error {
	for {
		p.mu.Lock()
		p.closed = true
		if p.oldest == nil {
			p.spare = nil
			p.mu.Unlock()
			return nil
		}
		item := p.remove(p.oldest)
		p.mu.Unlock()
		item.Close()
	}
}

func (p *Pool[T]) add(image *Image, item T, bytes uint64) {
	e := p.spare
	if e == nil {
		e = new(idle[T])
	} else {
		p.spare = e.newer
	}
	*e = idle[T]{image: image, item: item, bytes: bytes, older: p.newest, below: p.tops[image].idle}
	if e.older == nil {
		p.oldest = e
	} else {
		e.older.newer = e
	}
	p.newest = e
	if e.below != nil {
		e.below.above = e
	}
	p.tops[image] = top[T]{e, p.tops[image].count + 1}
	p.stats.Count++
	p.stats.Bytes += bytes
}

func (p *Pool[T]) remove(e *idle[T]) T {
	if e.older == nil {
		p.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		p.newest = e.older
	} else {
		e.newer.older = e.older
	}
	if e.below != nil {
		e.below.above = e.above
	}
	t := p.tops[e.image]
	t.count--
	if e.above != nil {
		e.above.below = e.below
	} else {
		t.idle = e.below
	}
	if t.count > 0 {
		p.tops[e.image] = t
	} else {
		delete(p.tops, e.image)
	}
	p.stats.Count--
	p.stats.Bytes -= e.bytes
	item := e.item
	*e = idle[T]{newer: p.spare}
	p.spare = e
	return item
}
