package store

import (
	"context"
	"iter"
	"math/bits"
)

// A statement for many rows costs little more than one for a single row, if it need
// not be parsed each time. So a list is cut into parts whose lengths are powers of two,
// the largest first: they are few texts, which are all kept ready.

// mostInPart is the longest part.
const mostInPart = 64

// inParts cuts a list into parts, each with its rows of parameters for a VALUES or an
// IN list.
func inParts[T any](all []T, row string) iter.Seq2[string, []T] {
	return func(yield func(string, []T) bool) {
		for len(all) > 0 {
			n := min(1<<(bits.Len(uint(len(all)))-1), mostInPart)
			if !yield(values(n, row), all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// putRows runs a statement for many rows of parameters, as often as it takes; then come
// the parameters that are the same for all. It returns how many rows it wrote.
func (t *Tx) putRows(ctx context.Context, before, row, after string, rows [][]any, same ...any) (wrote int64, err error) {
	for list, part := range inParts(rows, row) {
		var args []any
		for _, r := range part {
			args = append(args, r...)
		}
		n, err := t.run(ctx, true, before+list+after, append(args, same...))
		if err != nil {
			return wrote, err
		}
		wrote += n
	}
	return wrote, nil
}

// eachIn calls f for every row of a query about many values, which stand in its IN list;
// before them come the parameters that are the same for all. The query is asked as often
// as it takes.
func (t *Tx) eachIn(ctx context.Context, f func(scan func(...any) error) error, before, after string, same []any, in []string) error {
	for list, part := range inParts(in, "?") {
		args := append([]any{}, same...)
		for _, v := range part {
			args = append(args, v)
		}
		if err := t.eachOf(ctx, true, f, before+list+after, args); err != nil {
			return err
		}
	}
	return nil
}
