package budget

// A heap gives back the least of what was put into it.
type heap[T any] struct {
	less  func(a, b T) bool
	items []T
}

func (h *heap[T]) len() int { return len(h.items) }

func (h *heap[T]) push(v T) {
	h.items = append(h.items, v)
	for i := len(h.items) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(h.items[i], h.items[up]) {
			return
		}
		h.items[i], h.items[up] = h.items[up], h.items[i]
		i = up
	}
}

func (h *heap[T]) pop() T {
	least, last := h.items[0], len(h.items)-1
	h.items[0] = h.items[last]
	h.items = h.items[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			return least
		}
		if right := down + 1; right < last && h.less(h.items[right], h.items[down]) {
			down = right
		}
		if !h.less(h.items[down], h.items[i]) {
			return least
		}
		h.items[i], h.items[down] = h.items[down], h.items[i]
		i = down
	}
}
