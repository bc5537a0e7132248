package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/drain"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// wordDrained + node lists the balancers that we took a node out of, as JSON.
const wordDrained = "drained "

// A returned is what came of putting a node back that an activation left out.
type returned struct {
	from []string // what it was out of
	left []string // and still is
	err  error
}

// armPutBack has a node put back that an activation had to leave out, once all its
// targets serve what they should and no rollout deals with one. A rollout puts it
// back by itself where it can; but a person may mend a server, or it may come up late.
func armPutBack(ctx context.Context, tx *store.Tx, p farm.Place) error {
	if p.Target.Node == "" || len(p.Desired) == 0 {
		return nil
	}
	word, err := tx.Word(ctx, p.Farm, wordDrained+p.Target.Node)
	if err != nil || word == "" {
		return err
	}
	if well, err := allWell(ctx, tx, p.Farm, p.Target.Node); err != nil || !well {
		return err
	}
	return tx.Enqueue(ctx, farm.Job{
		Farm: p.Farm, Kind: "putback", Subject: p.Target.Name, Lane: laneOf(p.Target.Node + "/"), RunAt: tx.Now(),
	})
}

// allWell reports that every target of a node was seen to serve what it should, no
// rollout deals with one, and nobody holds the node.
func allWell(ctx context.Context, tx *store.Tx, farmName, node string) (bool, error) {
	if held, err := tx.Word(ctx, farmName, wordHeld+node); err != nil || held != "" {
		return false, err
	}
	places, err := tx.Places(ctx, farmName, "")
	if err != nil {
		return false, err
	}
	for _, p := range places {
		if p.Target.Node == node && !p.Released && (p.Drift != "" || p.Late != "") {
			return false, nil
		}
	}
	running, err := tx.RunningRollouts(ctx, farmName, "")
	return !slices.ContainsFunc(running, func(r farm.Rollout) bool {
		return slices.ContainsFunc(r.Steps, func(s farm.Step) bool { return strings.HasPrefix(s.Group, node+"/") })
	}), err
}

// workPutBack looks once more, in the lane of what is changed on the node, and puts
// it back.
func (c *Controller) workPutBack(ctx context.Context, j farm.Job) farm.Result {
	var p farm.Place
	well := false
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		if p, err = tx.Place(ctx, j.Farm, j.Subject); err != nil || p.Released {
			return err
		}
		well, err = allWell(ctx, tx, j.Farm, p.Target.Node)
		return err
	})
	if err != nil || !well {
		return farm.Result{Err: unlessGone(err)}
	}
	w, err := c.watched(ctx, j.Farm, p.Target.Site)
	if err != nil || w.busy {
		return farm.Result{Err: unlessGone(err)}
	}
	if g := c.glance(ctx, w, p); g.drift != "" {
		return farm.Result{} // the next look says more
	}
	ctx, cancel := context.WithTimeout(ctx, w.site.Policy.Deadline)
	defer cancel()
	var r returned
	ledger := c.ledger(j.Farm, p.Target.Node)
	if r.from, r.err = ledger.Read(ctx); r.err == nil {
		r.err = c.putBack(ctx, p)
	}
	if r.err == nil {
		r.left, r.err = ledger.Read(ctx)
	}
	result := farm.Result{Value: r, Err: r.err}
	if r.err != nil {
		result.Again = c.Now().Add(c.Pace.Look)
	}
	return result
}

// putBack puts a target's node back everywhere that farm.yaml still names.
func (c *Controller) putBack(ctx context.Context, p farm.Place) error {
	d, err := c.deployer(ctx, p.Farm, p.Target, deploy.Lease{})
	if err != nil {
		return err
	}
	if around, drains := d.(*drain.Deployer); drains {
		return around.PutBack(ctx)
	}
	return nil
}

// applyPutBack tells of it. What farm.yaml does not name any more cannot be put
// back by us: that is told once.
func (c *Controller) applyPutBack(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	r, ok := f.Result.Value.(returned)
	if !ok || len(r.from) == 0 || r.err != nil && f.Job.Attempt > 1 {
		return nil // it was told
	}
	p, err := tx.Place(ctx, f.Job.Farm, f.Job.Subject)
	if err != nil {
		return unlessGone(err)
	}
	node := p.Target.Node
	e := farm.Event{
		Farm: p.Farm, Kind: "node.back", Node: node,
		Text: fmt.Sprintf("%s serves what it should, and is back in %s", node, strings.Join(r.from, ", ")),
	}
	switch {
	case r.err != nil:
		e.Kind, e.Level = "node.left-out", farm.Warn
		e.Text = fmt.Sprintf("%s serves what it should, and is still out of %s: %v", node, strings.Join(r.from, ", "), r.err)
		e.Hint = "it is tried again by itself"
	case len(r.left) > 0:
		e.Kind, e.Level = "node.left-out", farm.Warn
		e.Text = fmt.Sprintf("%s was taken out of %s, which farm.yaml does not name any more", node, strings.Join(r.left, ", "))
		e.Hint = "put it back there by hand"
		if err := setDrained(ctx, tx, p.Farm, node, nil); err != nil {
			return err
		}
	}
	return tell(ctx, tx, e)
}

// setDrained writes what a node was taken out of.
func setDrained(ctx context.Context, tx *store.Tx, farmName, node string, names []string) error {
	var text []byte
	if len(names) > 0 {
		var err error
		if text, err = json.Marshal(names); err != nil {
			return err
		}
	}
	return tx.SetWord(ctx, farmName, wordDrained+node, string(text))
}
