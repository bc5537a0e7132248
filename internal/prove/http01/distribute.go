package http01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/prove"
)

// Distribute is the solver for `via: distribute`: the answer is a file in the
// webroot of every node, put there over the node's host and read back.
//
// Present succeeds only when the file is on all nodes, since a CA may ask any of
// them; else it takes away what it put up and its error names each node that
// failed. CleanUp needs nothing but the challenge.
type Distribute struct{ Nodes []Place }

// A Place is where one node's web server reads answers.
type Place struct {
	Name    string // of the node
	Webroot string // absolute, with forward slashes; served at / for the names
	// Host opens the line to the node. It stays its giver's: it is not closed.
	Host func(context.Context) (host.Host, error)
	// Silent is asked when the node cannot be reached: whether it is silent at its
	// serving address too. Such a node no CA can be sent to either, so it is left
	// out instead of holding the whole farm. Nil: it never is.
	Silent func(context.Context) bool
}

var _ prove.Solver = Distribute{}

// Limits of distributing.
const (
	together   = 8 // nodes at a time
	eachWithin = 30 * time.Second
)

// distributed is the receipt.
type distributed struct {
	Absent []string `json:"absent,omitzero"` // nodes that were left out
}

// Present puts the file on every node.
func (d Distribute) Present(ctx context.Context, c farm.Challenge) (prove.Receipt, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	if len(d.Nodes) == 0 {
		return nil, fmt.Errorf("answer the challenge for %s: there are no nodes to put the answer on", c.Name)
	}
	errs := d.each(ctx, func(ctx context.Context, w webroot) error { return w.put(ctx, c) })
	var note distributed
	for i, silent := range d.silent(ctx, errs) {
		if silent {
			note.Absent, errs[i] = append(note.Absent, d.Nodes[i].Name), nil
		}
	}
	if len(note.Absent) == len(d.Nodes) {
		return nil, fmt.Errorf("answer the challenge for %s: %w: none of its %d nodes answers", c.Name, host.ErrUnreachable, len(d.Nodes))
	}
	if err := errors.Join(errs...); err != nil {
		_ = d.CleanUp(context.WithoutCancel(ctx), c, nil) // the nodes that fail are named already
		return nil, fmt.Errorf("put the answer for %s on its nodes: %w", c.Name, err)
	}
	return json.Marshal(note)
}

// silent reports which of the nodes that could not be reached are silent at their
// serving addresses too.
func (d Distribute) silent(ctx context.Context, errs []error) []bool {
	all := make([]bool, len(d.Nodes))
	var g errgroup.Group
	g.SetLimit(together)
	for i, n := range d.Nodes {
		if n.Silent != nil && errors.Is(errs[i], host.ErrUnreachable) {
			g.Go(func() error {
				all[i] = n.Silent(ctx)
				return nil
			})
		}
	}
	_ = g.Wait() // there are no errors
	return all
}

// Ready is true at once: Present has read every file back.
func (Distribute) Ready(context.Context, farm.Challenge, prove.Receipt) (bool, error) {
	return true, nil
}

// CleanUp takes the file off every node, and the folders that were made for it
// once no other answer is in them. Its error names the nodes that failed; one
// that Present left out is no failure.
func (d Distribute) CleanUp(ctx context.Context, c farm.Challenge, r prove.Receipt) error {
	if !tokens.MatchString(c.Token) {
		return fmt.Errorf("take away the answer for %q: the challenge has no token", c.Name)
	}
	var note distributed
	if len(r) > 0 {
		if err := json.Unmarshal(r, &note); err != nil {
			return fmt.Errorf("take away the answer for %s: read the receipt: %w", c.Name, err)
		}
	}
	errs := d.each(ctx, func(ctx context.Context, w webroot) error { return w.take(ctx, c.Token) })
	for i, n := range d.Nodes {
		if errors.Is(errs[i], host.ErrUnreachable) && slices.Contains(note.Absent, n.Name) {
			errs[i] = nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the answer for %s off its nodes: %w", c.Name, err)
	}
	return nil
}

// each does something on all nodes, a few at a time, and returns their errors in
// the order of the nodes.
func (d Distribute) each(ctx context.Context, do func(context.Context, webroot) error) []error {
	errs := make([]error, len(d.Nodes))
	var g errgroup.Group
	g.SetLimit(together)
	for i, n := range d.Nodes {
		g.Go(func() error {
			if err := n.do(ctx, do); err != nil {
				errs[i] = fmt.Errorf("node %s: %w", n.Name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // all are in errs
	return errs
}

func (p Place) do(ctx context.Context, do func(context.Context, webroot) error) error {
	if p.Webroot == "" {
		return errors.New("it has no webroot; say in farm.yaml which folder its web server serves")
	}
	ctx, cancel := context.WithTimeout(ctx, eachWithin)
	defer cancel()
	h, err := p.Host(ctx)
	if err != nil {
		return err
	}
	return do(ctx, webroot{h, p.Webroot})
}

// missing reports that a file or folder is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
