package image

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"

	"github.com/wasmgrid/wasmgrid/grid"
)

// wasmPage is the unit of linear memory, and maxMemory the most there can be of it; in bytes.
const (
	wasmPage  = 64 << 10
	maxMemory = 4 << 30
)

// Way is how a memory is put back to its image.
type Way uint8

// The ways, best first.
const (
	Best    Way = iota // as a wish: the first of the others that works
	Scan               // the system call PAGEMAP_SCAN tells what was written; Linux 6.7 and newer
	Pagemap            // /proc/self/pagemap tells it
	Discard            // madvise gives back all that was written, known or not
	Copy               // everything is copied
)

func (w Way) String() string {
	switch w {
	case Best:
		return "best"
	case Scan:
		return "scan"
	case Pagemap:
		return "pagemap"
	case Discard:
		return "discard"
	case Copy:
		return "copy"
	}
	return fmt.Sprintf("way %d", uint8(w))
}

// Config says how to keep images. The zero value will do.
type Config struct {
	// Way is the first way to try, where Best is all of them.
	Way Way
	// Bytes bounds what all images together store; 0 is 1 GiB.
	Bytes uint64
	// Growth is how far, in bytes, a memory may have grown beyond its image and still be reset; 0 is
	// 256 MiB. It bounds the time that a reset takes.
	Growth uint64
}

// Store makes images, and knows the way to put memories back to them. It is safe for concurrent use.
type Store struct {
	way    Way
	why    string
	most   uint64
	growth uint64
	page   int      // of the system, bytes
	maps   *os.File // /proc/self/pagemap; nil when the way does without

	mu     sync.Mutex
	closed bool
	stats  Stats
}

// Stats is what there is of a store.
type Stats struct {
	Images   int    // not yet released
	Bytes    uint64 // that they store
	Memories int    // not yet closed
}

// Open makes a store. It tries on a memory of its own which of the ways work here. That some do not is
// no error, for the last one always does.
func Open(c Config) (*Store, error) {
	if c.Way > Copy {
		return nil, grid.Errorf(grid.Invalid, "image: %v: there is no such way", c.Way)
	}
	s := &Store{most: math.MaxUint64, growth: c.Growth, page: os.Getpagesize()}
	if s.growth == 0 {
		s.growth = 256 << 20
	}
	var failed []string
	s.way = max(c.Way, Scan)
	if s.page > wasmPage {
		s.way = Copy // a memory could end within a page
	}
	for ; ; s.way++ {
		err := s.openWay()
		if err == nil {
			err = s.try()
		}
		if err == nil {
			break
		}
		s.closeWay()
		if s.way == Copy {
			return nil, grid.Errorf(grid.Internal, "image: no way to reset memory works: %w", err)
		}
		failed = append(failed, fmt.Sprintf("%v: %v", s.way, err))
	}
	if s.most = c.Bytes; s.most == 0 {
		s.most = 1 << 30
	}
	s.why = strings.Join(failed, "; ")
	return s, nil
}

func (s *Store) openWay() (err error) {
	if s.way == Scan || s.way == Pagemap {
		s.maps, err = openPagemap()
	}
	return err
}

func (s *Store) closeWay() {
	if s.maps != nil {
		s.maps.Close()
		s.maps = nil
	}
}

// Way is how memories are put back.
func (s *Store) Way() Way { return s.way }

// Why says what was wrong with each better way; "" when there is none, or none was to be tried.
func (s *Store) Why() string { return s.why }

// Stats tells what there is now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close ends the making of images. What exists goes on working; the store's own file is closed with the
// last image. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.closeIfUnused()
	return nil
}

func (s *Store) closeIfUnused() {
	if s.closed && s.stats.Images == 0 {
		s.closeWay()
	}
}

// admit counts a new image.
func (s *Store) admit(bytes uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return grid.Errorf(grid.Unavailable, "image: the store is closed")
	case bytes > s.most-min(s.stats.Bytes, s.most):
		return grid.Errorf(grid.Limit, "image: a snapshot of %d bytes does not fit, for %d of %d are in use", bytes, s.stats.Bytes, s.most).
			Hint("close images that are not needed any more, or raise Config.Bytes")
	}
	s.stats.Images++
	s.stats.Bytes += bytes
	return nil
}

func (s *Store) release(bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Images--
	s.stats.Bytes -= bytes
	s.closeIfUnused()
}

func (s *Store) countMemory(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Memories += n
}

// roundUp rounds to pages of the system.
func (s *Store) roundUp(n uint64) uint64 {
	page := uint64(s.page)
	return (n + page - 1) / page * page
}

// try tests the way, since kernels, and what poses as one, have been seen to give wrong answers. A
// memory is written to here and there, also where it only was read before, and must be found as it was.
func (s *Store) try() error {
	const pages = 40
	page := s.page
	content := make([]byte, (pages*page+wasmPage-1)/wasmPage*wasmPage)
	for i := range pages {
		if i%3 != 1 { // leave holes
			content[i*page] = byte(i + 1)
			content[i*page+page-1] = byte(i + 2)
		}
	}
	img, err := s.New(content)
	if err != nil {
		return err
	}
	defer img.Close()
	m, err := img.Memory(uint64(2 * len(content)))
	if err != nil {
		return err
	}
	defer m.Close()
	if s.way != Copy && m.region == nil {
		return errors.New("the system grants no address space")
	}
	m.Allocate(0, 0)
	m.Reallocate(0)
	grown := m.Reallocate(uint64(2 * len(content)))
	want := append(bytes.Clone(content), make([]byte, len(content))...)
	for round := range sweepEvery + 3 {
		if !bytes.Equal(grown, want) { // this reads every page
			return fmt.Errorf("a memory differs from its image after %d resets", round)
		}
		stride := []int{1, 2, 7}[round%3]
		for at := round % stride * page; at < len(grown); at += stride * page {
			grown[at] ^= 0xa5
			grown[at+page/2]++
		}
		if err := m.rewind(uint64(len(grown))); err != nil {
			return err
		}
	}
	// Now that nothing is written, pages must not be reported that are not there.
	if s.way == Scan || s.way == Pagemap {
		if err := m.discard(0, len(grown)); err != nil {
			return err
		}
		if runs, _, err := m.dirty(0, uint64(len(grown))); err != nil || len(runs) > 0 {
			return fmt.Errorf("pages are reported as written that were not (%v)", err)
		}
	}
	return nil
}
