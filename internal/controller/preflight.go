package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// A preflight asks before an order what the CA will ask in it.
type preflight struct {
	c           *Controller
	whole       farm.Site // where it is of a whole site
	farm, site  string
	names       []string
	validations []farm.Validation
	settings    store.Settings
	issuer      farm.Issuer
	account     store.Account
	nodes       []farm.Node // those that answer behind the balancer
	seed        string      // what random tokens are made from
}

// look asks for each name what its method asks, and whether the CA may issue for
// it at all. An error is ours; what others do wrong is a finding.
func (p preflight) look(ctx context.Context) ([]http01.Finding, error) {
	all, err := p.methods(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, p.caa(ctx)...)
	slices.SortStableFunc(all, func(a, b http01.Finding) int {
		return cmp.Compare(slices.Index(p.names, a.Name), slices.Index(p.names, b.Name))
	})
	return all, nil
}

// methods asks for each name what its method asks.
func (p preflight) methods(ctx context.Context) ([]http01.Finding, error) {
	var order []farm.Validation
	groups := map[string][]string{} // names by how they are proven
	for _, name := range p.names {
		v := farm.ValidationOf(p.validations, name)
		id := fmt.Sprint(v)
		if groups[id] == nil {
			order = append(order, v)
		}
		groups[id] = append(groups[id], name)
	}
	found := make([][]http01.Finding, len(order))
	g, ctx := errgroup.WithContext(ctx)
	for i, v := range order {
		g.Go(func() (err error) {
			found[i], err = p.method(ctx, v, groups[fmt.Sprint(v)], fmt.Sprint(p.seed, " ", i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("preflight of %s: %w", p.site, err)
	}
	return slices.Concat(found...), nil
}

// method asks what one method asks for the names that it is for.
func (p preflight) method(ctx context.Context, v farm.Validation, names []string, seed string) ([]http01.Finding, error) {
	switch v.Method {
	case farm.HTTP01:
		return p.overHTTP(ctx, v, names, seed)
	case farm.DNS01:
		return p.overDNS(ctx, v, names, seed)
	}
	return p.persistent(ctx, names), nil
}

// proving is one of the validations with what answering for it takes.
func (p preflight) proving(v farm.Validation) Proving {
	return Proving{
		Farm: p.farm, Validation: v, Settings: p.settings, Thumbprint: p.account.Thumbprint, Commands: p.c.Commands, Helper: p.c.Helper,
	}
}

// notUp is what is found where the answer cannot even be put up: the order would
// fail at the same place, before the CA is asked.
func notUp(name string, why error) []http01.Finding {
	return []http01.Finding{{
		Check: farm.HTTP01, Name: name, Verdict: http01.Unclear, Saw: why.Error(), Remedy: "the answer must be put up before it can be asked for",
	}}
}

// overHTTP asks every address and node for a random token, which is put up as a
// CA's would be.
func (p preflight) overHTTP(ctx context.Context, v farm.Validation, names []string, seed string) (all []http01.Finding, err error) {
	solver, err := p.c.Solver(ctx, p.proving(v), p.c)
	if err != nil {
		return nil, err
	}
	ch := farm.Challenge{Type: farm.HTTP01, Name: names[0]}
	ch.Token, ch.Value = http01.Question(seed)
	if v.Via == farm.Stateless {
		ch.Token, ch.Value = http01.StatelessQuestion(seed, p.account.Thumbprint)
	}
	receipt, err := solver.Present(ctx, ch)
	if err != nil {
		return notUp(names[0], err), nil
	}
	ask := http01.Ask{
		Site: p.site, Names: names, Token: ch.Token, Want: ch.Value, How: v, Resolvers: p.settings.Resolvers,
		Port: p.c.CAPort, Public: p.issuer.Roots == "",
	}
	for _, n := range p.nodes {
		if slices.Contains(v.Nodes, n.Name) {
			ask.Nodes = append(ask.Nodes, http01.NodeAddress{Name: n.Name, Address: n.Address})
		}
	}
	for _, f := range p.c.Asker(ctx, ask) {
		f.Check = farm.HTTP01
		all = append(all, f)
	}
	return all, solver.CleanUp(context.WithoutCancel(ctx), ch, receipt)
}
