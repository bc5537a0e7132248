package remote

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A Setup is what a Deployer is made of.
type Setup struct {
	Caller  Caller
	Farm    string
	Node    string
	Lane    string // what the lease is of
	Lease   deploy.Lease
	Target  string // its name, for people
	Kind    string
	Options []byte // canonical JSON
	Secrets map[string]farm.Secret
	Now     func() time.Time // nil: time.Now
}

// Deployer is a deploy.Deployer whose every step is one call to the target's node.
// It keeps nothing: the receipts are the node's.
type Deployer struct{ s Setup }

// New makes one.
func New(s Setup) *Deployer {
	if s.Now == nil {
		s.Now = time.Now
	}
	return &Deployer{s}
}

// The time of a call: what its context leaves, less what the answer needs on its way.
const (
	usual  = 2 * time.Minute // where the context has no end
	onWay  = time.Second
	hardly = time.Second // the least that is asked for
)

// deadline is how long the node may work on a call.
func deadline(ctx context.Context) time.Duration {
	left := usual
	if at, ok := ctx.Deadline(); ok {
		left = time.Until(at)
		left -= min(onWay, left/10)
	}
	return min(max(left, hardly), MaxWork)
}

// Inspect asks what is there; see deploy.Deployer.
func (d *Deployer) Inspect(ctx context.Context) (deploy.Installed, error) {
	a, err := d.call(ctx, Call{Do: DoInspect})
	return a.Installed, err
}

// Stage sends a version to be put beside what is live. A bundle without a key is one
// whose key the node holds.
func (d *Deployer) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	a, err := d.call(ctx, Call{Do: DoStage, Stage: s})
	return a.Receipt, err
}

// Activate has all receipts made live in one call, so with one test and one reload.
func (d *Deployer) Activate(ctx context.Context, rs []deploy.Receipt) error {
	_, err := d.call(ctx, Call{Do: DoActivate, Receipts: rs})
	return err
}

// Restore has what was live brought back in one call.
func (d *Deployer) Restore(ctx context.Context, rs []deploy.Receipt) error {
	_, err := d.call(ctx, Call{Do: DoRestore, Receipts: rs})
	return err
}

// Discard has taken away what a Stage put there.
func (d *Deployer) Discard(ctx context.Context, r deploy.Receipt) error {
	_, err := d.call(ctx, Call{Do: DoDiscard, Receipts: []deploy.Receipt{r}})
	return err
}

// call fills in what all calls have, and turns the answer's error into one of ours.
func (d *Deployer) call(ctx context.Context, c Call) (Answer, error) {
	c.Target, c.Kind, c.Options, c.Secrets = d.s.Target, d.s.Kind, d.s.Options, d.s.Secrets
	c.Receipts = bare(c.Receipts)
	return Ask(ctx, d.s, c)
}

// bare takes from receipts what is of a step around this deployer: the node has no
// use for it.
func bare(rs []deploy.Receipt) []deploy.Receipt {
	var all []deploy.Receipt
	for _, r := range rs {
		r.Around = nil
		all = append(all, r)
	}
	return all
}

// Ask makes one call with the words of a setup, for what is no step of a deployer:
// DoRequest and DoForget, or an inspection without a kind, which only shows that the
// node answers. The answer's error is returned as one that wraps ErrDenied, ErrStale
// and so on.
func Ask(ctx context.Context, s Setup, c Call) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, fmt.Errorf("%s on node %s was not asked for: %w: %w", c.Do, s.Node, host.ErrUnreachable, err)
	}
	c.ID, c.Farm, c.Node, c.Lane, c.Lease = rand.Text(), s.Farm, s.Node, s.Lane, s.Lease
	c.At, c.Deadline = time.Now(), deadline(ctx)
	if s.Now != nil {
		c.At = s.Now()
	}
	a, err := s.Caller.Call(ctx, c)
	if err != nil {
		return Answer{}, fmt.Errorf("%s on node %s: %w", c.Do, s.Node, err)
	}
	if a.ID != c.ID {
		return Answer{}, fmt.Errorf("%s on node %s: %w: the answer is to another call", c.Do, s.Node, host.ErrUnreachable)
	}
	return a, a.err(s.Node)
}

// A NodeError is what a node says of a call that it did not do, or not well.
type NodeError struct {
	Node  string
	Class Class
	Text  string
	Epoch int64 // of Stale: the highest that the node has seen in the lane
}

// Error says it as the node did.
func (e *NodeError) Error() string { return "node " + e.Node + " says: " + e.Text }

// Is makes the class what callers ask for.
func (e *NodeError) Is(target error) bool {
	switch e.Class {
	case FailedTry:
		return target == deploy.ErrTest
	case Mismatch:
		return target == encode.ErrMismatch
	case Denied, Unheard:
		return target == ErrDenied
	case Stale, TooEarly:
		return target == ErrStale
	case Failed, NoKey:
	}
	return false
}

// err is the answer's error.
func (a Answer) err(node string) error {
	if a.Error == "" && a.Class == "" {
		return nil
	}
	return &NodeError{Node: node, Class: a.Class, Text: cmp.Or(a.Error, string(a.Class)), Epoch: a.Epoch}
}

// ClassOf is the class of a deployer's own error, for the node.
func ClassOf(err error) Class {
	switch {
	case errors.Is(err, deploy.ErrTest):
		return FailedTry
	case errors.Is(err, encode.ErrMismatch):
		return Mismatch
	}
	return Failed
}
