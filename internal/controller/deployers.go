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
	if l.node, err = c.Node(ctx, farmName, node); err != nil {
		return l, err
	}
	l.host, err = c.Hosts(ctx, farmName, l.node, c)
	return l, err
}

// setup is what a target's deployer is made of.
func (c *Controller) setup(ctx context.Context, farmName string, t farm.Target) (deploy.Setup, error) {
	l, err := c.line(ctx, farmName, t.Node)
	if err != nil {
		return deploy.Setup{}, err
	}
	return c.setupOn(ctx, farmName, t, l)
}

func (c *Controller) setupOn(ctx context.Context, farmName string, t farm.Target, l line) (deploy.Setup, error) {
	s := deploy.Setup{Host: l.host, Secrets: map[string]farm.Secret{}, Records: deploy.Records{
		Farm: farmName, Bundle: func(ctx context.Context, leaf string) (farm.Bundle, error) {
			return c.bundle(ctx, farmName, t.Site, leaf)
		},
	}, Look: c.looker(farmName, t), Command: c.Command}
	if t.Node == "" { // only what is not reached over a node's line goes through the proxy
		settings, err := c.settings(ctx, farmName)
		if err != nil {
			return s, err
		}
		s.Proxy = settings.Proxy
	}
	for name, ref := range t.Secrets {
		var err error
		if s.Secrets[name], err = c.Secret(ctx, farmName, ref); err != nil {
			return s, fmt.Errorf("secret %s of %s: %w", name, t.Name, err)
		}
	}
	return s, nil
}

func (c *Controller) settings(ctx context.Context, farmName string) (s store.Settings, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		s, err = tx.Settings(ctx, farmName)
		return err
	})
	return s, err
}

// Host opens the line to a node.
func (c *Controller) Host(ctx context.Context, farmName, name string) (host.Host, error) {
	l, err := c.line(ctx, farmName, name)
	return l.host, err
}
