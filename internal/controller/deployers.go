package controller

import (
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/drain"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/store"
)

// open makes the act's deployer.
func (c *Controller) open(ctx context.Context, a *act) (err error) {
	var l line
	if a.group != nil {
		l, err = a.group.line(ctx, c, a.Farm, a.place.Target.Node)
	} else {
		l, err = c.line(ctx, a.Farm, a.place.Target.Node)
	}
	if err == nil {
		a.deployer, err = c.deployerOn(ctx, a.Farm, a.place.Target, l, a.lease)
	}
	return err
}

// deployer makes what installs on a target, over the line to its node if it has one.
// The lease is the zero one where nothing is to be changed.
func (c *Controller) deployer(ctx context.Context, farmName string, t farm.Target, lease deploy.Lease) (deploy.Deployer, error) {
	l, err := c.line(ctx, farmName, t.Node)
	if err != nil {
		return nil, err
	}
	return c.deployerOn(ctx, farmName, t, l, lease)
}

func (c *Controller) deployerOn(ctx context.Context, farmName string, t farm.Target, l line, lease deploy.Lease) (deploy.Deployer, error) {
	if decides(l.node) {
		d, err := c.remotely(ctx, farmName, l.node, t, lease)
		if err != nil {
			return nil, err
		}
		return c.drained(ctx, farmName, l.node, drain.Setup{Inner: d, Look: c.looker(farmName, t)})
	}
	s, err := c.setupOn(ctx, farmName, t, l)
	if err != nil {
		return nil, err
	}
	s.Lease = lease
	d, err := c.Kinds.Open(t.Kind, t.Options, s)
	if err != nil || t.Node == "" {
		return d, err
	}
	return c.drained(ctx, farmName, l.node, drain.Setup{Inner: d, Look: s.Look})
}

// A line is a node and the way to it. The zero line is that of a target without one.
type line struct {
	node farm.Node
	host host.Host
}

// line opens the line to a node; an empty name is no node.
func (c *Controller) line(ctx context.Context, farmName, node string) (l line, err error) {
	if node == "" {
		return l, nil
	}
	if l.node, err = c.Node(ctx, farmName, node); err != nil || decides(l.node) {
		return l, err // one that decides for itself is called, and no host is opened
	}
	l.host, err = c.Hosts(ctx, farmName, l.node, c)
	return l, err
}

// setup is what a target's deployer is made of.
func (c *Controller) setup(ctx context.Context, farmName string, t farm.Target) (deploy.Setup, error) {
	l, err := c.line(ctx, farmName, t.Node)
	if err == nil {
		err = refuseOwn(l.node)
	}
	if err != nil {
		return deploy.Setup{}, err
	}
	return c.setupOn(ctx, farmName, t, l)
}

func (c *Controller) setupOn(ctx context.Context, farmName string, t farm.Target, l line) (deploy.Setup, error) {
	s := deploy.Setup{Host: l.host, Records: deploy.Records{
		Farm: farmName, Bundle: func(ctx context.Context, leaf string) (farm.Bundle, error) {
			return c.bundle(ctx, farmName, t.Site, leaf)
		},
	}, Look: c.looker(farmName, t), Command: c.Command, Target: t.Name, Readers: t.ReadBy, Looks: c.lookerOf(farmName), Known: c.Known}
	if t.Node == "" { // only what is not reached over a node's line goes through the proxy
		s.Node = c.readerOf(farmName)
		settings, err := c.settings(ctx, farmName)
		if err != nil {
			return s, err
		}
		s.Proxy = settings.Proxy
	}
	var err error
	if s.Secrets, err = c.secretsOf(ctx, farmName, t); err != nil {
		return s, err
	}
	return s, nil
}

// secretsOf are a target's secrets by its kind's name for them.
func (c *Controller) secretsOf(ctx context.Context, farmName string, t farm.Target) (map[string]farm.Secret, error) {
	all := map[string]farm.Secret{}
	for name, ref := range t.Secrets {
		var err error
		if all[name], err = c.Secret(ctx, farmName, ref); err != nil {
			return nil, fmt.Errorf("secret %s of %s: %w", name, t.Name, err)
		}
	}
	return all, nil
}

func (c *Controller) settings(ctx context.Context, farmName string) (s store.Settings, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		s, err = tx.Settings(ctx, farmName)
		return err
	})
	return s, err
}

// readerOf opens the lines to nodes that read a target, on which its kind may work,
// too. One that a person holds is as one that is switched off: nothing is changed on it.
func (c *Controller) readerOf(farmName string) func(context.Context, string) (host.Host, error) {
	return func(ctx context.Context, name string) (host.Host, error) {
		var held string
		err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
			held, err = tx.Word(ctx, farmName, wordHeld+name)
			return err
		})
		if err == nil && held != "" {
			err = fmt.Errorf("it is held by %s: %w", held, host.ErrUnreachable)
		}
		if err != nil {
			return nil, err
		}
		return c.Host(ctx, farmName, name)
	}
}

// Host opens the line to a node.
func (c *Controller) Host(ctx context.Context, farmName, name string) (host.Host, error) {
	l, err := c.line(ctx, farmName, name)
	if err == nil {
		err = refuseOwn(l.node)
	}
	return l.host, err
}
