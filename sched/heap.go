package sched

// heap keeps its least element first. Where an element is, counted from 1, it writes to where at says; 0
// stands for out. So any element is found, moved and taken out in a few steps, and none is allocated.
type heap[T any] struct {
	list []T
	less func(a, b T) bool
	at   func(T) *int
}

func (h *heap[T]) push(x T) {
	h.list = append(h.list, x)
	*h.at(x) = len(h.list)
	h.up(len(h.list) - 1)
}

func (h *heap[T]) remove(x T) {
	i, last := *h.at(x)-1, len(h.list)-1
	*h.at(x) = 0
	moved := h.list[last]
	var none T
	h.list[last] = none
	if h.list = h.list[:last]; i < last {
		h.list[i] = moved
		*h.at(moved) = i + 1
		h.fix(moved)
	}
}

// fix puts x, whose order has changed, where it belongs.
func (h *heap[T]) fix(x T) {
	i := *h.at(x) - 1
	if !h.down(i) {
		h.up(i)
	}
}

func (h *heap[T]) up(i int) {
	x, from := h.list[i], i
	for i > 0 {
		p := (i - 1) / 2
		if !h.less(x, h.list[p]) {
			break
		}
		h.put(i, h.list[p])
		i = p
	}
	if i < from {
		h.put(i, x)
	}
}

func (h *heap[T]) down(i int) bool {
	x, from := h.list[i], i
	for {
		k := 2*i + 1
		if k >= len(h.list) {
			break
		}
		if k+1 < len(h.list) && h.less(h.list[k+1], h.list[k]) {
			k++
		}
		if !h.less(h.list[k], x) {
			break
		}
		h.put(i, h.list[k])
		i = k
	}
	if i > from {
		h.put(i, x)
	}
	return i > from
}

func (h *heap[T]) put(i int, x T) {
	h.list[i] = x
	*h.at(x) = i + 1
}
