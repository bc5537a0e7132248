// Package notify tells people: it decides who is told what and when, and carries it
// there.
//
//	events ─ Take ─→ notices ─ Decide ─→ messages ─ Send ─→ mail, Slack, Teams, PagerDuty …
//	         (cause.go)      (decide.go)         (a Kind each)
//
// A notice is one cause and all the things that it befalls within a short while. Its
// invariants: what is wrong with one thing for one cause is in one notice; who was told
// that something is wrong is told when it is over, and nobody else is; a page waits for
// nothing but the short while in which more of the same may come.
//
// Take and Decide are pure functions of what is remembered, the farm's rules and now. A
// receiver's secret is in no message, and in no error that a Sender returns.
package notify

import (
	"context"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Notifier is handed the events of the journal. It may be given the same event twice.
type Notifier interface {
	Notify(ctx context.Context, events []farm.Event) error
}

// A Sender carries a message to one receiver. It may be given the same message twice,
// after an answer was lost: it says the message's id wherever the other end can tell by
// it.
type Sender interface {
	Send(ctx context.Context, m Message) error
}
