package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Runner claims jobs and has them done. The zero value of everything but Queue
// and Handlers has a default.
type Runner struct {
	Queue    Queue
	Handlers map[string]Handler // by kind; a job of another kind fails and is tried again
	Workers  int                // jobs at one time; default 16
	Lease    time.Duration      // how long a job stays ours if nothing more is heard of us; default 1 min
	Wake     <-chan struct{}    // a token: look now, something was enqueued
	Poll     time.Duration      // look at least this often, for what others enqueue; default 30 s
	Drain    time.Duration      // when told to stop, how long handlers may go on before their context ends; default 0
	Log      *slog.Logger       // default: none
}

const (
	retry = time.Second           // after an error of the queue
	least = 10 * time.Millisecond // between two looks at what is due
	grace = 10 * time.Second      // for handlers to return after their context ended, and for the last results
)

// Run runs jobs until ctx ends, then drains: nothing more is claimed, handlers go
// on for Drain, then their contexts end. What has a result by then is finished;
// the leases of the others end by themselves. An error names the jobs whose
// handlers do not return; otherwise Run returns nil.
func (r Runner) Run(ctx context.Context) error {
	r.defaults()
	c := &crew{
		Runner:  r,
		running: map[*run]bool{},
		results: make(chan *run, r.Workers),
		freed:   make(chan struct{}, 1),
	}
	after := context.WithoutCancel(ctx)
	work, stop := context.WithCancelCause(after)
	defer stop(nil)
	drained := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { c.renewAll(after, drained) })
	others.Go(func() { c.finishAll(after, drained) })

	c.claimAll(ctx, work)
	err := c.drain(stop)
	close(drained)
	others.Wait()
	return err
}

func (r *Runner) defaults() {
	if r.Workers <= 0 {
		r.Workers = 16
	}
	if r.Lease <= 0 {
		r.Lease = time.Minute
	}
	if r.Poll <= 0 {
		r.Poll = 30 * time.Second
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
}

// A crew is a runner at work.
type crew struct {
	Runner
	handlers sync.WaitGroup
	results  chan *run     // has room for every worker: to return is never to wait
	freed    chan struct{} // a token: a worker is free

	mu      sync.Mutex
	running map[*run]bool // from claimed to finished
}

// A run is a job with one lease.
type run struct {
	job    farm.Job
	cancel context.CancelCauseFunc
	ends   time.Time // of the lease as far as we know; under crew.mu
	lost   bool      // under crew.mu
	result farm.Result
}

// claimAll claims and starts jobs until ctx ends.
func (c *crew) claimAll(ctx, work context.Context) {
	for {
		timer := time.NewTimer(c.claim(ctx, work))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-c.freed:
		case <-c.Wake:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// claim starts as many jobs as there are free workers and due jobs, and says how
// long there is nothing to look for.
func (c *crew) claim(ctx, work context.Context) time.Duration {
	c.mu.Lock()
	free := c.Workers - len(c.running)
	c.mu.Unlock()
	if free == 0 {
		return c.Poll
	}
	asked := time.Now()
	jobs, next, err := c.Queue.Claim(ctx, free, c.Lease)
	if err != nil {
		if ctx.Err() == nil {
			c.Log.Error("claim jobs", "error", err)
		}
		return retry
	}
	for _, j := range jobs {
		c.start(work, j, asked.Add(c.Lease))
	}
	if next.IsZero() || len(jobs) == free {
		return c.Poll
	}
	return min(max(time.Until(next), least), c.Poll)
}

// start has a job done by its handler.
func (c *crew) start(work context.Context, j farm.Job, ends time.Time) {
	ctx, cancel := context.WithCancelCause(work)
	r := &run{job: j, cancel: cancel, ends: ends}
	c.mu.Lock()
	c.running[r] = true
	c.mu.Unlock()
	c.handlers.Go(func() {
		defer cancel(nil)
		r.result = c.handle(ctx, j)
		cause := context.Cause(ctx)
		switch {
		case errors.Is(cause, ErrLost):
			c.Log.Warn("lease lost, result dropped", "kind", j.Kind, "subject", j.Subject)
		case errors.Is(cause, ErrStopping) && r.result.Err != nil:
			// It was we who made it fail. Its lease ends, and it is done again.
		default:
			c.results <- r
			return
		}
		c.release(r)
	})
}

// handle calls the handler. A panic is an error like another: it fails one job.
func (c *crew) handle(ctx context.Context, j farm.Job) (result farm.Result) {
	h, has := c.Handlers[j.Kind]
	if !has {
		return farm.Result{Err: fmt.Errorf("no handler for jobs of kind %q: it is from another release of certfarm", j.Kind)}
	}
	defer func() {
		if p := recover(); p != nil {
			c.Log.Error("handler panicked", "kind", j.Kind, "subject", j.Subject, "panic", p, "stack", string(debug.Stack()))
			result = farm.Result{Err: fmt.Errorf("the handler of %s panicked: %v", j.Kind, p)}
		}
	}()
	return h(ctx, j)
}

// release frees the worker of a run.
func (c *crew) release(r *run) {
	c.mu.Lock()
	delete(c.running, r)
	c.mu.Unlock()
	select {
	case c.freed <- struct{}{}:
	default: // a token is there already
	}
}

// drain waits until the handlers have returned, ending their contexts after a
// while.
func (c *crew) drain(stop context.CancelCauseFunc) error {
	returned := make(chan struct{})
	go func() { // ends with the last handler
		c.handlers.Wait()
		close(returned)
	}()
	if waits(returned, c.Drain) {
		return nil
	}
	stop(ErrStopping)
	if waits(returned, grace) {
		return nil
	}
	return fmt.Errorf("stopped while handlers do not return: %s", strings.Join(c.names(), ", "))
}

// waits reports whether done was closed within d.
func waits(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (c *crew) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for r := range c.running {
		all = append(all, r.job.Kind+" "+r.job.Subject)
	}
	slices.Sort(all)
	return all
}
