// Package prove shows a CA that a name is ours (RFC 8555 §8).
package prove

import (
	"context"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Solver puts up what one sort of challenge asks for. Like a deployer it
// remembers nothing: CleanUp may run in another process, and where the receipt
// was lost on the way it gets none and goes by the challenge alone. Every call
// may be repeated.
type Solver interface {
	// Present puts the answer where the CA will look, and returns at once.
	Present(ctx context.Context, c farm.Challenge) (Receipt, error)
	// Ready reports whether the world can see it yet. It is asked again until it
	// does, and does not wait itself.
	Ready(ctx context.Context, c farm.Challenge, r Receipt) (bool, error)
	// CleanUp takes away this answer and no other.
	CleanUp(ctx context.Context, c farm.Challenge, r Receipt) error
}

// A Receipt is a solver's own note of what it put up; never nil after Present.
type Receipt []byte
