// Package probe sees what is served: one handshake at a time, to an address of
// its own, and says what it saw and no more.
package probe

import (
	"context"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A Prober asks one endpoint what it serves.
type Prober interface {
	// Probe makes q.Samples new connections and returns what they agree on. An
	// endpoint that answers nothing is a Sight with Answered false, not an error;
	// an error says that we could not ask at all (no line to the node).
	Probe(ctx context.Context, q Question) (farm.Sight, error)
}

// A Question is what to ask of an endpoint.
type Question struct {
	Endpoint farm.Endpoint
	Target   string
	KeyTypes []farm.KeyType // one handshake series for each; none: whatever is served
	Names    []string       // each must be covered for the sight to be trusted; none: the SNI
	Roots    string         // PEM of private roots; empty: the system's
	Samples  int            // handshakes a leaf, at least 1
	Through  host.Dialer    // where the endpoint's path is ssh; nil: direct
}
