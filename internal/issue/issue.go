// Package issue gets certificates from CAs, one durable protocol step at a time.
package issue

import (
	"context"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// An Issuer is one account at one CA.
type Issuer interface {
	// Step does the one next protocol step of the order and returns the order as
	// it is afterwards, to be stored before the next step. It is called in the
	// states new, pending (when the challenges are not known yet), presented,
	// accepted, ready, processing and issued; see farm.Order. It may skip states:
	// a CA that trusts an earlier proof has the order ready at once. When Again
	// lies in the future the next step may not run before; Updated becomes now, and
	// the two together say how long the last wait was. An error leaves the order as it was and may be tried again, unless it wraps Refused, which ends
	// the order. Each step bears that the one before it took effect and its answer
	// was lost.
	//
	// The caller stores when it is about to finalize, then steps the order as it
	// was before: in the state ready an order without Finalize is finalized at
	// once, and for one with Finalize the CA is asked first how far it came.
	Step(ctx context.Context, o farm.Order, now time.Time) (farm.Order, error)
	// Suggest asks the CA when it wants the leaf renewed (RFC 9773 §4.1). A CA
	// without renewal information suggests nothing and sets Ask far ahead.
	Suggest(ctx context.Context, leaf []byte, now time.Time) (farm.Suggestion, error)
	// Revoke ends a leaf (PEM or DER) before its time, for a reason of RFC 5280
	// §5.3.1. The account signs for it, and where the CA will not have that, the
	// leaf's own key (PEM), if it is given (RFC 8555 §7.6). One that is
	// revoked already is no error. An error that wraps Refused is the CA's last word.
	Revoke(ctx context.Context, leaf []byte, reason int, key farm.Secret) error
}

// Refused is what a step's error wraps when the CA's no is final for this order.
var Refused = errors.New("the CA refused")

// An Unanswered is a refusal since the CA's question about a name reached nobody:
// its connection failed, or a balancer answered for a server that was not there.
type Unanswered struct{ Err error }

// Error is what the CA said.
func (u *Unanswered) Error() string { return u.Err.Error() }

// Unwrap returns the refusal.
func (u *Unanswered) Unwrap() error { return u.Err }

// AccountLost is what an error wraps when the CA does not know the account any
// more, or will not have it. A second account is never made by itself: CAA
// records and renewal information name the first one.
var AccountLost = errors.New("the CA does not accept the account")

// A Later is an error that may be gone by the given time; the CA asked us to
// wait (Retry-After) or its limits did. All orders of the account wait when
// Account is set.
type Later struct {
	Until   time.Time
	Account bool
	Err     error
}

// Error says what happened and until when we wait.
func (l *Later) Error() string {
	return l.Err.Error() + " (again at " + l.Until.UTC().Format(time.RFC3339) + ")"
}

// Unwrap returns the CA's error.
func (l *Later) Unwrap() error { return l.Err }
