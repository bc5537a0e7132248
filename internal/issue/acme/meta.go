package acme

import (
	"context"
	"slices"
)

// Identities are the names by which CAA records allow the CA to issue (RFC 8555
// §7.1.1, caaIdentities; RFC 8659 §4.2). A CA that does not say has none.
func (a *Issuer) Identities(ctx context.Context) ([]string, error) {
	core, err := a.ready(ctx, a.accountURL())
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range core.GetDirectory().Meta.CaaIdentities {
		all = append(all, clean(name, 253))
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
