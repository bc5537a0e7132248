package controller

import (
	"context"
	"sync"
	"time"
)

// A fold makes one of what many ask at the same time: while one transaction is under
// way, those who come wait, and the next takes all of them along. It has no goroutine
// of its own: one of those who wait does it for all.
type fold[In, Out any] struct {
	do   func(ctx context.Context, all []In) ([]Out, error)
	turn chan struct{} // who has put a token here does it

	mu      sync.Mutex
	waiting []*folded[In, Out]
}

type folded[In, Out any] struct {
	in   In
	out  Out
	err  error
	done chan struct{}
}

// foldWithin bounds what is done for many: it does not end with one of them.
const foldWithin = 20 * time.Second

func newFold[In, Out any](do func(context.Context, []In) ([]Out, error)) *fold[In, Out] {
	return &fold[In, Out]{do: do, turn: make(chan struct{}, 1)}
}

// run has in done, together with what others ask.
func (f *fold[In, Out]) run(ctx context.Context, in In) (out Out, err error) {
	one := &folded[In, Out]{in: in, done: make(chan struct{})}
	f.mu.Lock()
	f.waiting = append(f.waiting, one)
	f.mu.Unlock()
	select {
	case <-one.done:
	case f.turn <- struct{}{}:
		f.lead(ctx)
		<-f.turn
		<-one.done // by us, or by who was before us
	case <-ctx.Done():
		return out, ctx.Err() // it may still be done
	}
	return one.out, one.err
}

func (f *fold[In, Out]) lead(ctx context.Context) {
	f.mu.Lock()
	all := f.waiting
	f.waiting = nil
	f.mu.Unlock()
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), foldWithin)
	defer cancel()
	ins := make([]In, len(all))
	for i, one := range all {
		ins[i] = one.in
	}
	outs, err := f.do(ctx, ins)
	for i, one := range all {
		if one.err = err; err == nil {
			one.out = outs[i]
		}
		close(one.done)
	}
}

// A lounge is where many wait for what others write to the store. One of them looks
// for all, after every commit and every so often: what is rung may be lost.
type lounge[K comparable, V any] struct {
	written func() <-chan struct{}
	look    func(ctx context.Context, b *lounge[K, V]) error // gives what it finds to those who wait
	turn    chan struct{}
	came    chan struct{} // a token: somebody new waits

	mu      sync.Mutex
	waiting map[K]*seat[V]
}

type seat[V any] struct {
	have []string // what the one who waits has already
	got  chan V
}

const (
	loungeEvery = 3 * time.Second      // without a ring
	loungePause = 4 * time.Millisecond // many commits at once are one look
)

func newLounge[K comparable, V any](written func() <-chan struct{}, look func(context.Context, *lounge[K, V]) error) *lounge[K, V] {
	return &lounge[K, V]{written: written, look: look, turn: make(chan struct{}, 1), came: make(chan struct{}, 1), waiting: map[K]*seat[V]{}}
}

// sit takes a seat. Who has the same key and sat there before gets up with nothing.
func (b *lounge[K, V]) sit(key K, have []string) *seat[V] {
	s := &seat[V]{have: have, got: make(chan V, 1)}
	b.mu.Lock()
	b.waiting[key] = s
	b.mu.Unlock()
	select {
	case b.came <- struct{}{}:
	default: // there will be a look anyway
	}
	return s
}

// leave gives the seat up.
func (b *lounge[K, V]) leave(key K, s *seat[V]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[key] == s {
		delete(b.waiting, key)
	}
}

// give hands v to who waits under key; it reports whether somebody did.
func (b *lounge[K, V]) give(key K, v V) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.waiting[key]
	if ok {
		delete(b.waiting, key)
		s.got <- v // it has room for one, and nobody gives to a seat twice
	}
	return ok
}

// seats are those who wait now.
func (b *lounge[K, V]) seats() map[K][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[K][]string, len(b.waiting))
	for k, s := range b.waiting {
		all[k] = s.have
	}
	return all
}

// wait waits for what s is given, until ctx ends.
func (b *lounge[K, V]) wait(ctx context.Context, s *seat[V]) (v V, err error) {
	select {
	case v = <-s.got:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	case b.turn <- struct{}{}:
	}
	defer func() { <-b.turn }()
	for {
		written, began := b.written(), time.Now()
		if err := b.look(ctx, b); err != nil {
			return v, err
		}
		took := time.Since(began)
		select {
		case v = <-s.got:
			return v, nil
		default:
		}
		if err := b.rest(ctx, written, max(took, loungePause)); err != nil {
			return v, err
		}
	}
}

// rest waits until there may be something new, and a pause longer, so that many changes
// are one look. Who pauses for as long as a look takes leaves half of the time to those
// who make the changes.
func (b *lounge[K, V]) rest(ctx context.Context, written <-chan struct{}, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-written:
	case <-b.came:
	case <-time.After(loungeEvery):
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}
