package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// A PreflightReport is what was found before an order.
type PreflightReport struct {
	Site     string           `json:"site"`
	At       time.Time        `json:"at"`
	Findings []http01.Finding `json:"findings"`
	Wrong    int              `json:"wrong" doc:"findings that hold an order back"`
	Unclear  int              `json:"unclear" doc:"findings of what cannot be told from here"`
	External *External        `json:"external,omitempty" doc:"what the CA's staging directory said"`
}

// Preflight asks what a site's CA would ask now, at every address and node.
// External has the CA's staging directory ask, too.
func (c *Controller) Preflight(ctx context.Context, farmName, site string, external bool) (r PreflightReport, err error) {
	p, err := c.preflightOf(ctx, farmName, site)
	if err != nil {
		return r, err
	}
	if err := p.withKey(ctx); err != nil {
		return r, err
	}
	r = PreflightReport{Site: site, At: c.Now()}
	if r.Findings, err = p.look(ctx); err != nil {
		return r, err
	}
	for _, f := range r.Findings {
		switch f.Verdict {
		case http01.Wrong:
			r.Wrong++
		case http01.Unclear:
			r.Unclear++
		case http01.Right:
		}
	}
	if external {
		r.External, err = c.external(ctx, p)
	}
	return r, err
}

// preflightOf is the preflight of all of a site's names.
func (c *Controller) preflightOf(ctx context.Context, farmName, name string) (preflight, error) {
	p := preflight{c: c, farm: farmName, site: name, seed: store.NewID("pre")}
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		sites, err := sitesNamed(ctx, tx, farmName, name)
		if err != nil {
			return err
		}
		site := sites[0]
		p.whole, p.names, p.validations = site, site.Names, site.Validations
		return p.read(ctx, tx, site.Issuer)
	})
	return p, err
}

// withKey makes the account's key if there is none yet: static rules and a
// preflight of them need its thumbprint before the first order does.
func (p *preflight) withKey(ctx context.Context) error {
	if p.account.Thumbprint != "" {
		return nil
	}
	if _, err := p.c.thumbprint(ctx, p.farm, p.issuer); err != nil {
		return err
	}
	return p.c.Store.View(ctx, func(tx *store.Tx) (err error) {
		p.account, err = tx.Account(ctx, p.farm, p.issuer.Name, p.issuer.Directory)
		return err
	})
}

// read fills in what the store knows.
func (p *preflight) read(ctx context.Context, tx *store.Tx, issuer string) (err error) {
	if p.settings, err = tx.Settings(ctx, p.farm); err != nil {
		return err
	}
	if p.issuer, err = tx.Issuer(ctx, p.farm, issuer); err != nil {
		return err
	}
	p.account, err = tx.Account(ctx, p.farm, p.issuer.Name, p.issuer.Directory)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	p.nodes, err = answering(ctx, tx, p.farm, p.validations)
	return err
}

// answering are the nodes that answer behind the balancer.
func answering(ctx context.Context, tx *store.Tx, farmName string, all []farm.Validation) (nodes []farm.Node, err error) {
	var names []string
	for _, v := range all {
		names = append(names, v.Nodes...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		n, err := tx.Node(ctx, farmName, name)
		if errors.Is(err, store.ErrNotFound) {
			continue // gone from farm.yaml since the order was made
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}
