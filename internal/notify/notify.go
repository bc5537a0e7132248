// Package notify tells people.
package notify

import (
	"context"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Notifier tells people of events. It may be given the same event twice.
type Notifier interface {
	Notify(ctx context.Context, events []farm.Event) error
}
