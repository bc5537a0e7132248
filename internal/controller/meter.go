package controller

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/job"
	"github.com/certfarm/certfarm/internal/store"
)

// A Meter counts what a controller does, while it does it. What can be read off the
// store at any time is no matter of a Meter: see Measure. Its methods must not wait.
// Every word that they are given is one of few, and none is a secret.
type Meter interface {
	// Job counts a job that was claimed and begins; what it returns is called when the
	// job ends, with done, failed or panicked.
	Job(kind string) (ended func(how string))
	// Renewed counts a try to get a leaf: issued, failed or held, and why.
	Renewed(farmName, result, reason string)
	// Acted counts an act on one target of a rollout; a result is done, failed or lost.
	Acted(verb farm.Verb, result string, took time.Duration)
	// Ended counts a rollout that came to an end.
	Ended(farmName string, how farm.Outcome)
	// Asked counts a request to a CA by its issuer's name, what was asked and the HTTP
	// status; without an answer that is none.
	Asked(ca, endpoint, code string, took time.Duration)
}

// How a job ended, for a Meter.
const (
	JobDone     = "done"
	JobFailed   = "failed"
	JobPanicked = "panicked"
)

// What became of a try to get a leaf, and why, for a Meter.
const (
	renewalIssued = "issued"
	renewalFailed = "failed"
	renewalHeld   = "held"
)

// unmetered counts nothing.
type unmetered struct{}

// Job counts nothing.
func (unmetered) Job(string) func(string) { return func(string) {} }

// Renewed counts nothing.
func (unmetered) Renewed(string, string, string) {}

// Acted counts nothing.
func (unmetered) Acted(farm.Verb, string, time.Duration) {}

// Ended counts nothing.
func (unmetered) Ended(string, farm.Outcome) {}

// Asked counts nothing.
func (unmetered) Asked(string, string, string, time.Duration) {}

// metered counts the runs of a handler. A panic goes on to the runner.
func (c *Controller) metered(h job.Handler) job.Handler {
	return func(ctx context.Context, j farm.Job) (r farm.Result) {
		ended, how := c.Meter.Job(j.Kind), JobPanicked
		defer func() { ended(how) }()
		r = h(ctx, j)
		if how = JobDone; r.Err != nil {
			how = JobFailed
		}
		return r
	}
}

// asked counts a request to a CA.
func (c *Controller) asked(ca string) func(acme.Request) {
	return func(r acme.Request) {
		code := "none"
		if r.Code > 0 {
			code = strconv.Itoa(r.Code)
		}
		c.Meter.Asked(ca, r.Endpoint, code, r.Took)
	}
}

// countOrder counts what became of a try to get a leaf, once that is written.
func (c *Controller) countOrder(tx *store.Tx, was farm.Order, o ordered, err error) {
	result, reason := "", ""
	switch {
	case o.held != "" && was.Error != o.order.Error:
		result, reason = renewalHeld, "preflight"
	case o.order.State == was.State || !o.order.State.Ended():
		return
	case o.order.State == farm.OrderDone:
		result, reason = renewalIssued, "none"
	default:
		result, reason = renewalFailed, whyFailed(o.order, err)
	}
	tx.After(func() { c.Meter.Renewed(o.order.Farm, result, reason) })
}

// whyFailed is why an order failed, in one word.
func whyFailed(o farm.Order, err error) string {
	if _, silent := errors.AsType[*issue.Unanswered](err); silent {
		return "unanswered" // nobody answered the CA's question
	}
	switch {
	case o.GivenUp:
		return "given-up" // another issuer is asked, or for something else
	case errors.Is(err, issue.AccountLost):
		return "account"
	case errors.Is(err, issue.Refused):
		return "refused"
	}
	return "other"
}
