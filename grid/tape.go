package grid

import (
	"bytes"
	"sort"
	"sync"
	"time"
)

// tape is what a running guest has written to one of its streams, with the times. The guest appends to it; who follows reads
// what is there already, which is never changed. What it may hold is bounded by the task's limit of output.
type tape struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	began time.Time // of the first mark
	marks []mark
	step  time.Duration // between marks
}

// mark says when the bytes from a place on were written, since the first.
type mark struct {
	from int
	at   time.Duration
}

// Marks are at least firstStep apart, and further when there would be more than maxMarks.
const (
	firstStep = 20 * time.Millisecond
	maxMarks  = 256
)

// Write appends. It never fails.
func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.marks) == 0 {
		t.began, t.step = time.Now(), firstStep
		t.marks = append(t.marks, mark{})
	} else if now := time.Since(t.began); now-t.marks[len(t.marks)-1].at >= t.step {
		if k := len(t.marks); k >= maxMarks {
			for i := range k / 2 {
				t.marks[i] = t.marks[2*i]
			}
			t.marks, t.step = t.marks[:k/2], 2*t.step
		}
		t.marks = append(t.marks, mark{t.buf.Len(), now})
	}
	return t.buf.Write(p)
}

// read gives what was written from a place on, at most so many bytes, and all at about one time; the rest is how much there
// is behind it. The bytes are not to be changed.
func (t *tape) read(from, most int) (data []byte, at time.Time, rest int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.buf.Bytes()
	if from >= len(all) {
		return nil, at, 0
	}
	i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].from > from })
	end := min(len(all), from+most)
	if i < len(t.marks) {
		end = min(end, t.marks[i].from)
	}
	return all[from:end:end], t.began.Add(t.marks[i-1].at), len(all) - end
}

// size is how much was written.
func (t *tape) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Len()
}

// whole is all that was written, once the guest has ended.
func (t *tape) whole() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Bytes()
}

// drop forgets what was written, once the guest has ended. Who has read of it keeps that.
func (t *tape) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf, t.marks = bytes.Buffer{}, nil
}
