package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/store"
)

// remotely makes the deployer of a target on a node that decides for itself: each of
// its steps is one call.
func (c *Controller) remotely(ctx context.Context, farmName string, n farm.Node, t farm.Target, lease deploy.Lease) (deploy.Deployer, error) {
	s, err := c.ownNode(ctx, farmName, n, lease)
	if err != nil {
		return nil, err
	}
	s.Target, s.Kind, s.Options = t.Name, t.Kind, t.Options
	s.Secrets, err = c.secretsOf(ctx, farmName, t)
	return remote.New(s), err
}

// ownNode is the way to a node that decides for itself: its agent, or the receiver
// behind its SSH server.
func (c *Controller) ownNode(ctx context.Context, farmName string, n farm.Node, lease deploy.Lease) (remote.Setup, error) {
	if lease.Owner == "" {
		lease.Owner = c.Owner // for the node's log
	}
	s := remote.Setup{Farm: farmName, Node: n.Name, Lane: laneOf(n.Name + "/"), Lease: lease, Now: c.Now}
	var to remote.Caller = c
	if !n.Agent {
		h, err := c.Hosts(ctx, farmName, n, c)
		if err != nil {
			return s, err
		}
		to = remote.Line{Host: h}
	}
	s.Caller = heeding{c, to}
	return s, nil
}

// heeding is a Caller that hears when a node has seen a higher epoch than the database
// knows: then the database has lost commits, and its epochs are raised above.
type heeding struct {
	c  *Controller
	to remote.Caller
}

// Call makes the call; see remote.Caller.
func (h heeding) Call(ctx context.Context, call remote.Call) (remote.Answer, error) {
	a, err := h.to.Call(ctx, call)
	if err == nil && a.Class == remote.Stale {
		err = h.c.raise(ctx, call, a)
	}
	return a, err
}

// raise lifts the lane's epoch to the node's, once, and tells of it: the job that was
// refused has lost its lease by that, and is done again with a higher epoch. Where the
// lane has a higher epoch already, another controller has the lane by right. A node
// that names an epoch of the far future is not believed.
func (c *Controller) raise(ctx context.Context, call remote.Call, a remote.Answer) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), raiseWithin)
	defer cancel()
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		e := farm.Event{
			Farm: call.Farm, Node: call.Node, Kind: "node.epoch", Level: farm.Alarm,
			Text: fmt.Sprintf("node %s has seen epoch %d, and the database knew %d at most: it has lost its last commits, and goes on above that", call.Node, a.Epoch, call.Lease.Epoch),
			Hint: "see the replication of the database: `certfarm doctor`; and whether a second database of this farm is in use",
		}
		if far := tx.Now().Add(24 * time.Hour).UnixMilli(); a.Epoch > far {
			e.Text = fmt.Sprintf("node %s says that it has seen epoch %d, more than a day ahead: it is not believed", call.Node, a.Epoch)
			e.Hint = "see the clocks of the node and of the controllers; its memory is memory.json in its state folder"
			return tell(ctx, tx, e)
		}
		raised, err := tx.RaiseLane(ctx, call.Farm, call.Lane, a.Epoch)
		if err != nil || !raised && a.Epoch != call.Lease.Epoch { // the same epoch of another lease: the next one is higher anyway
			return err
		}
		return tell(ctx, tx, e)
	})
}

// raiseWithin is how long writing that may take.
const raiseWithin = 10 * time.Second

// decides reports that a node decides for itself what is done on it.
func decides(n farm.Node) bool { return n.Agent || n.SSH != nil && n.SSH.Receiver }

// fenceOf is the class of a target's fence: a node that decides for itself keeps a
// stale controller out, whatever the kind.
func (c *Controller) fenceOf(kind string, n farm.Node) string {
	if decides(n) {
		return "fenced"
	}
	return c.Kinds[kind].Fence
}

// refuseOwn refuses what takes the node's files and commands into one's own hands.
func refuseOwn(n farm.Node) error {
	if !decides(n) {
		return nil
	}
	by := "the receiver behind its SSH server"
	if n.Agent {
		by = "its agent"
	}
	return &Refusal{
		fmt.Sprintf("node %s decides for itself: %s takes certificates, and no commands or files", n.Name, by),
		"do it on the node itself, or by a login of its own under another name in farm.yaml",
	}
}

// reachOwn sees that somebody answers on the node, and what their clock says.
func (c *Controller) reachOwn(ctx context.Context, farmName string, n farm.Node) (heard, error) {
	s, err := c.ownNode(ctx, farmName, n, deploy.Lease{})
	if err != nil {
		return heard{}, err
	}
	began := c.Now()
	a, err := remote.Ask(ctx, s, remote.Call{Do: remote.DoInspect})
	return heard{"answered for itself", clockWithin(a.At, began, c.Now())}, err
}

// clockWithin is how far a node's clock is ahead of ours at least, to the second, where
// it said a time between two moments here; nil: it said none. An agent may have been
// busy with something else first: that is no fault of its clock.
func clockWithin(said, began, ended time.Time) *time.Duration {
	var ahead time.Duration
	switch {
	case said.IsZero():
		return nil
	case said.Before(began):
		ahead = said.Sub(began)
	case said.After(ended):
		ahead = said.Sub(ended)
	}
	ahead = ahead.Truncate(time.Second)
	return &ahead
}

// isFinal reports that trying again will not mend it.
func isFinal(err error) bool {
	return errors.Is(err, host.ErrHostKey) || errors.Is(err, remote.ErrDenied)
}
