// Package job runs durable work: it claims what is due, keeps the leases alive
// while the handlers work, and finishes jobs in batches. What a job does is its
// handler's; what came of it is written by the queue, in one transaction.
package job

import (
	"context"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Handler does one kind of job. Its context ends when the lease is lost.
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
	// job whose lease is lost gets ErrLost, and nothing of it is written.
	Finish(ctx context.Context, done []farm.Finished) []error
}

// ErrLost says that a lease ended and someone else may hold it.
var ErrLost = errors.New("lease lost")
