package controller

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/drain"
	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/store"
)

// drained is the deployer of a node's target, with the drain that the node has.
func (c *Controller) drained(ctx context.Context, farmName string, node farm.Node, s drain.Setup) (deploy.Deployer, error) {
	if len(node.Drain) == 0 {
		return s.Inner, nil
	}
	for _, d := range node.Drain {
		servers, err := c.outOf(ctx, farmName, node.Name, d)
		if err != nil {
			return nil, fmt.Errorf("drain of node %s: %w", node.Name, err)
		}
		s.Servers = append(s.Servers, servers...)
	}
	s.Ledger = c.ledger(farmName, node.Name)
	return drain.New(s), nil
}

// bare is a deployer without the drain around it, for what only some kinds can do.
func bare(d deploy.Deployer) deploy.Deployer {
	if around, ok := d.(*drain.Deployer); ok {
		return around.Unwrap()
	}
	return d
}

// outOf is what one drain of a node takes it out of.
func (c *Controller) outOf(ctx context.Context, farmName, name string, d farm.Drain) (all []drain.Server, err error) {
	here := local.New(local.Config{})
	if d.Command != "" {
		argv, err := c.Command(d.Command)
		if err != nil {
			return nil, err
		}
		return []drain.Server{{Balancer: drain.Command{Run: here, List: d.Command, Argv: argv, Node: name}, Wait: d.Wait}}, nil
	}
	on, line := d.Socket, haproxyctl.Line{Host: here}
	if d.HAProxy != "" {
		on = d.HAProxy
		if line.Host, err = c.Host(ctx, farmName, d.HAProxy); err != nil {
			return nil, err
		}
	}
	line.Network, line.Address = haproxyctl.Socket(d.Socket)
	for _, s := range d.Servers {
		b := drain.NewHAProxy(line, on, s)
		b.Last = d.Last
		all = append(all, drain.Server{Balancer: b, Wait: d.Wait})
	}
	return all, nil
}

// ledger keeps what a node was taken out of as a word of its farm.
func (c *Controller) ledger(farmName, node string) drain.Ledger {
	return drain.Ledger{
		Read: func(ctx context.Context) (names []string, err error) {
			var text string
			err = c.Store.View(ctx, func(tx *store.Tx) error {
				text, err = tx.Word(ctx, farmName, wordDrained+node)
				return err
			})
			if err == nil && text != "" {
				err = json.Unmarshal([]byte(text), &names)
			}
			return names, err
		},
		Write: func(ctx context.Context, names []string) error {
			return c.Store.Update(ctx, func(tx *store.Tx) error { return setDrained(ctx, tx, farmName, node, names) })
		},
	}
}

// leftOut puts a node back that an activation left out, where its target was seen to
// serve what it should and nothing else will be done to it: the answer to the
// activation was lost, or it was found good only later.
func leftOut(ctx context.Context, a act) error {
	d, drains := a.deployer.(*drain.Deployer)
	if !drains || a.step.State != farm.Staged {
		return nil
	}
	return d.PutBack(ctx)
}
