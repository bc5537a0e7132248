package deploy

import "context"

// A Forgetter is a deployer of a place that keeps earlier versions by itself, as a
// vault does: what Discard takes away is not all that is kept of a key there.
type Forgetter interface {
	// Forget takes every earlier version whose private key belongs to one of the
	// public keys (SHA-256 of the SPKI, DER, in hex) away from those that read the
	// place. The version that is current is never touched: where its key is one of
	// them, that is an error and nothing is changed. It may be repeated.
	Forget(ctx context.Context, keys []string) (Forgotten, error)
}

// Forgotten is what became of earlier versions.
type Forgotten struct {
	Versions []string // that nobody can read any more, by the place's own names for them
	Left     string   // what the place has of old keys all the same, and what to do, for people; empty: nothing
}
