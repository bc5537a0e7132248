package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Reader is a server that the controller never touches: it fetches its
// certificate by itself, every so often, from a store or a vault. It goes on with
// what it has when there is nothing to be fetched.
type Reader struct {
	c   readerConfig
	web *web

	end    context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	last string // what it has read, by the poller alone

	mu     sync.Mutex
	fault  Fault
	round  int // counts the changes of fault, so that a timer knows its own
	closed bool
}

// readerConfig is what a reader is made of.
type readerConfig struct {
	name  string
	every time.Duration
	fetch func(ctx context.Context) (shelf, error)
	log   io.WriteCloser // closed with the reader
}

// fetchTime bounds one look at the store.
const fetchTime = 10 * time.Second

// startReader starts a reader with what there is.
func startReader(c readerConfig) (*Reader, error) {
	r := &Reader{c: c}
	r.end, r.cancel = context.WithCancel(context.Background())
	w, err := newWeb(webConfig{name: c.name, read: r.fetch, log: c.log, died: func() {}})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the reader %s: %w", c.name, err), c.log.Close())
	}
	r.web = w
	if err := w.start(r.end); err != nil {
		return nil, errors.Join(fmt.Errorf("start the reader %s: %w", c.name, err), r.Close())
	}
	r.wg.Go(r.poll)
	return r, nil
}

func (r *Reader) fetch() (shelf, error) {
	ctx, cancel := context.WithTimeout(r.end, fetchTime)
	defer cancel()
	return r.c.fetch(ctx)
}

// poll looks into the store until Close.
func (r *Reader) poll() {
	for wait(r.end, r.c.every) == nil {
		if !r.web.up() || r.Fault().Kind == BadReload {
			continue
		}
		s, err := r.fetch()
		if err != nil {
			r.web.log.Printf("[error] %v", err)
			continue
		}
		now := strings.Join(slices.Concat(s.names, s.content().leaves), " ")
		if now == r.last {
			continue
		}
		if r.web.reload(r.end) == nil {
			r.last = now
		}
	}
}

// Name is the reader's name.
func (r *Reader) Name() string { return r.c.name }

// HTTPSAddr is host:port of its HTTPS, the same for its whole life.
func (r *Reader) HTTPSAddr() string { return r.web.address() }

// Fault is the fault that is set.
func (r *Reader) Fault() Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}

// Faults lists the faults that it knows.
func (r *Reader) Faults() []Kind { return []Kind{Down, BadReload, WrongChain} }

// Set makes the reader misbehave from now on, in place of any fault before.
func (r *Reader) Set(f Fault) error {
	if err := knows(r, f.Kind); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("set %s on %s: it is closed", f, r.c.name)
	}
	r.fault = f
	r.round++
	r.web.setFault(f.Kind)
	if err := r.web.power(f.Kind != Down); err != nil {
		return fmt.Errorf("set %q on %s: %w", f, r.c.name, err)
	}
	if f.For > 0 {
		round := r.round
		r.wg.Go(func() { r.expire(f.For, round) })
	}
	return nil
}

// expire clears the fault of a round after its time.
func (r *Reader) expire(after time.Duration, round int) {
	for wait(r.end, after) == nil {
		r.mu.Lock()
		if r.round != round || r.closed {
			r.mu.Unlock()
			return
		}
		r.fault = Fault{}
		r.web.setFault(NoFault)
		err := r.web.power(true)
		r.mu.Unlock()
		if err == nil {
			return
		}
		after = again
	}
}

// Close ends the reader and waits. A second Close is nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if again {
		return nil
	}
	r.cancel()
	r.wg.Wait()
	return errors.Join(r.web.close(), r.c.log.Close())
}
