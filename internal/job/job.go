// Package job runs durable work: it claims what is due, keeps the leases alive
// while the handlers work, and finishes jobs in batches. What a job does is its
// handler's; what came of it is written by the queue, in one transaction.
//
//	          ┌────────────── due again ──────────────┐
//	waits ──claim──→ runs ──handler returns──→ finished ──→ over
//	  ↑                │                          │
//	  └── lease ends ──┴──── lease is lost ───────┘ nothing is written
//
// A result is finished at most once. A handler may run more than once: when a
// process dies, when a lease is lost, when a result cannot be written.
package job

import (
	"context"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Handler does one kind of job. Its context ends when the lease is lost, and
// some time after the runner was told to stop; then it should return soon.
type Handler func(ctx context.Context, j farm.Job) farm.Result

// A Queue is where a runner finds work: the store in the controller, the API in
// an agent.
type Queue interface {
	// Claim leases up to n due jobs of different lanes, and says when to look
	// again if there are fewer (zero: nothing waits).
	Claim(ctx context.Context, n int, lease time.Duration) (jobs []farm.Job, next time.Time, err error)
	// Renew extends leases; it returns the ids of those that are lost.
	Renew(ctx context.Context, jobs []farm.Job, lease time.Duration) (lost []string, err error)
	// Finish writes results and ends the jobs, in as few transactions as it can. A
	// job whose lease is lost gets ErrLost, and nothing of it is written. One whose
	// result cannot be applied gets ErrRefused, and is kept to run again. After any
	// other error the result may be given once more.
	Finish(ctx context.Context, done []farm.Finished) []error
}

// ErrLost says that a lease ended and someone else may hold it.
var ErrLost = farm.ErrLost

// ErrRefused says that a result could not be applied.
var ErrRefused = farm.ErrRefused

// ErrStopping is the cause (see context.Cause) of a handler's end when the runner
// stops and its time to drain is over.
var ErrStopping = errors.New("the runner stops")
