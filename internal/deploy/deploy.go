// Package deploy puts certificates on targets. Each kind of target (nginx,
// apache, files …) is one file in deploy/target.
package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Deployer installs versions on one target, in steps that may each be
// repeated. It remembers nothing between calls: the controller may die after
// any step and go on in another process, so what a later step needs is in the
// receipt that Stage returns.
//
//	Stage ── Activate ── Discard(the version before, later)
//	  │          └────── Restore
//	  └── Discard        nothing was activated: no reload
type Deployer interface {
	// Inspect reports what is there, leaf and key. It changes nothing.
	Inspect(ctx context.Context) (Installed, error)
	// Stage puts the whole set beside what is live, keeps what is live, checks
	// what it wrote, and says how to go on. Live stays live. If it fails it takes
	// away what it put there.
	Stage(ctx context.Context, s Stage) (Receipt, error)
	// Activate makes live what was staged: for all receipts, which are of one
	// reload group, one switch each, then one config test and one reload. If it
	// is refused, what was live still is.
	Activate(ctx context.Context, rs []Receipt) error
	// Restore brings back what was live at Stage, for all receipts at once, and
	// makes the server serve it: by a reload, or a start where it died. A first
	// installation goes back to a placeholder, so that the server can start.
	Restore(ctx context.Context, rs []Receipt) error
	// Discard takes away what the receipt's Stage put there and is not live, and
	// the copy that it kept of what was live before. It never touches what is live
	// and never reloads. It ends both ways: un-staging, and erasing the previous
	// version after success.
	Discard(ctx context.Context, r Receipt) error
}

// A Stage is what is to be put on a target.
type Stage struct {
	Site    string
	Names   []string
	Bundles []farm.Bundle // one for each leaf; all of one version
	Epoch   int64         // of the writer: names the staging folder, so that a stale call finds no path
	// Tested says that the configuration of the reload group was tested a moment ago,
	// at the Stage of another of its targets: it need not be tested again.
	Tested bool
}

// ErrTest is what a Stage's error wraps where the server's own configuration does
// not pass its test: every target of the reload group would meet the same.
var ErrTest = errors.New("config test before anything was changed")

// Installed is what a target holds. Leaves is empty where it holds nothing of use.
type Installed struct {
	Leaves      []string // fingerprints of the leaves on disk
	Mismatch    bool     // a key that does not belong to its leaf
	Placeholder bool     // our own stand-in, served until the first certificate
}

// A Receipt is a deployer's own note of a staged installation, and what the
// rollout must know of it. Note holds no key.
type Receipt struct {
	Note   json.RawMessage
	NoUndo bool            `json:",omitempty"` // Restore cannot work
	Lag    time.Duration   `json:",omitempty"` // how long after Activate readers may still see the old one
	Tested bool            `json:",omitempty"` // the configuration of the reload group passed its test
	Wait   time.Duration   `json:",omitempty"` // how much longer than the policy's deadline Activate may take, where it waits for readers or connections
	Around json.RawMessage `json:",omitempty"` // the note of a step around the deployer (package drain), which is not its own
}

// A Look asks the target's own endpoints, by handshakes, until each of them serves
// one of the leaves, or ctx ends; the error then names an endpoint and what it
// serves. It is how an Activate may prove a part before it goes on. Sni is the
// server name to ask for; empty: each endpoint's own.
type Look func(ctx context.Context, sni string, leaves []string) error
