package job

import (
	"context"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// renewAll keeps the leases of what runs, asking three times in each, until
// drained is closed.
func (c *crew) renewAll(ctx context.Context, drained <-chan struct{}) {
	tick := time.NewTicker(c.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-drained:
			return
		case <-tick.C:
			c.renew(ctx)
		}
	}
}

// renew extends all leases at once. Where the queue says that one is lost, or
// cannot be asked until a lease has ended, the handler's context ends: someone
// else may be at it.
func (c *crew) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.Lease/3)
	defer cancel()
	runs, jobs := c.held()
	if len(jobs) == 0 {
		return
	}
	asked := time.Now()
	lost, err := c.Queue.Renew(ctx, jobs, c.Lease)
	if err != nil {
		c.Log.Error("renew leases", "jobs", len(jobs), "error", err)
	}
	gone := map[string]bool{}
	for _, id := range lost {
		gone[id] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range runs {
		switch {
		case gone[r.job.ID], err != nil && !time.Now().Before(r.ends):
			r.lost = true
			r.cancel(ErrLost)
		case err == nil:
			r.ends = asked.Add(c.Lease)
		}
	}
}

// held lists the runs that are not lost, and their jobs.
func (c *crew) held() (runs []*run, jobs []farm.Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.running {
		if !r.lost {
			runs = append(runs, r)
			jobs = append(jobs, r.job)
		}
	}
	return runs, jobs
}

// finishAll gives results to the queue, all that there are at a time, until
// drained is closed; then those that are left, once.
func (c *crew) finishAll(ctx context.Context, drained <-chan struct{}) {
	var left []*run
	for {
		var again <-chan time.Time
		if len(left) > 0 {
			again = time.After(retry)
		}
		select {
		case r := <-c.results:
			left = append(left, r)
		case <-again:
		case <-drained:
			ctx, cancel := context.WithTimeout(ctx, grace)
			defer cancel()
			c.finish(ctx, append(left, c.returned()...))
			return
		}
		left = c.finish(ctx, append(left, c.returned()...))
	}
}

// returned takes the results that are there.
func (c *crew) returned() (all []*run) {
	for {
		select {
		case r := <-c.results:
			all = append(all, r)
		default:
			return all
		}
	}
}

// finish gives results to the queue and returns those that it could not take.
func (c *crew) finish(ctx context.Context, runs []*run) (left []*run) {
	if len(runs) == 0 {
		return nil
	}
	done := make([]farm.Finished, len(runs))
	for i, r := range runs {
		done[i] = farm.Finished{Job: r.job, Result: r.result}
	}
	for i, err := range c.Queue.Finish(ctx, done) {
		r := runs[i]
		log := c.Log.With("kind", r.job.Kind, "subject", r.job.Subject, "error", err)
		switch {
		case err == nil:
		case errors.Is(err, ErrLost):
			log.Warn("lease lost, result dropped")
		case errors.Is(err, ErrRefused):
			log.Error("result refused, the job runs again")
		default:
			log.Error("finish job")
			left = append(left, r)
			continue
		}
		c.release(r)
	}
	return left
}
