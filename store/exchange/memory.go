package exchange

import (
	"math/bits"
	"sync"
)

// Buffers for large blocks are used again: clearing new memory for each costs as much as moving it.
const (
	smallestBuffer = 16 // as a power of two: what is smaller is left to the garbage collector
	largestBuffer  = 21
)

var buffers [largestBuffer + 1]sync.Pool

// newBuffer returns n bytes of any content.
func newBuffer(n int) []byte {
	class := bits.Len(uint(max(n-1, 0)))
	if class < smallestBuffer || class > largestBuffer {
		return make([]byte, n)
	}
	if b, ok := buffers[class].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, 1<<class)
}

// freeBuffer takes back one that nobody uses any more.
func freeBuffer(b []byte) {
	class := bits.Len(uint(max(cap(b)-1, 0)))
	if class >= smallestBuffer && class <= largestBuffer && cap(b) == 1<<class {
		buffers[class].Put(&b)
	}
}
