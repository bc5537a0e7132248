package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/dns01/provider"
	"github.com/certfarm/certfarm/internal/snippet"
	"github.com/certfarm/certfarm/internal/store"
)

// A SnippetAsk says which rule is wanted for a site.
type SnippetAsk struct {
	Server      string   // nginx, apache, …
	Via         string   // empty: as farm.yaml says
	Controllers []string // where controllers answer challenges, host:port; empty: as farm.yaml says
}

// Snippet writes the rule that lets a server take part in answering HTTP-01
// challenges for a site.
func (c *Controller) Snippet(ctx context.Context, farmName, name string, ask SnippetAsk) (snippet.Snippet, error) {
	p, err := c.preflightOf(ctx, farmName, name)
	if err == nil {
		err = p.withKey(ctx)
	}
	if err != nil {
		return snippet.Snippet{}, err
	}
	site := p.whole
	a, err := snippet.Of(site, ask.Server, ask.Via)
	if err != nil {
		return snippet.Snippet{}, &Refusal{err.Error(), ""}
	}
	// While the key is being changed, the rule is for the next one.
	a.Thumbprint, a.Controllers = cmp.Or(p.account.NextThumbprint, p.account.Thumbprint), ask.Controllers
	if len(a.Controllers) == 0 {
		a.Controllers = p.settings.Controllers
	}
	if a.Via == farm.Gateway && len(a.Controllers) == 0 {
		return snippet.Snippet{}, &Refusal{"it is not known where controllers answer challenges", "say it in farm.yaml: controllers: [10.0.0.5:8402], or with --controller 10.0.0.5:8402"}
	}
	s, err := snippet.Rule(a)
	if err != nil {
		return s, &Refusal{err.Error(), ""}
	}
	return s, nil
}

// SnippetDNS writes the records that an operator sets so that a site's names can
// be proven by DNS, and the CAA records that pin who may issue for them.
func (c *Controller) SnippetDNS(ctx context.Context, farmName, name string) (snippet.Snippet, error) {
	p, err := c.preflightOf(ctx, farmName, name)
	if err != nil {
		return snippet.Snippet{}, err
	}
	site := p.whole
	asks, err := delegations(p, site)
	if err != nil {
		return snippet.Snippet{}, err
	}
	who := snippet.DNSAsk{Pinned: site.Names}
	for _, name := range site.Names {
		m := farm.ValidationOf(site.Validations, name).Method
		if !slices.Contains(who.Methods, m) {
			who.Methods = append(who.Methods, m)
		}
		if m == farm.DNSPersist01 {
			who.Persist, who.Names = true, append(who.Names, name)
		}
	}
	for n, issuer := range site.Issuers() {
		if err := c.Store.View(ctx, func(tx *store.Tx) error { return p.read(ctx, tx, issuer) }); err != nil {
			return snippet.Snippet{}, err
		}
		if who.Pin, err = p.pin(ctx); err != nil {
			return snippet.Snippet{}, err
		}
		if who.Pin.Issuer != "" || n == 0 && len(asks) == 0 {
			asks = append(asks, who)
		}
	}
	return recordsOf(asks)
}

// pin is what a zone may be restricted to: a CA and our account there. Without the CA's
// name nothing can be pinned, and the rest is still of use.
func (p *preflight) pin(ctx context.Context) (pin snippet.Pin, err error) {
	if err := p.withKey(ctx); err != nil {
		return pin, err
	}
	pin.Account = p.account.URL
	if all, err := p.identities(ctx); err == nil && len(all) > 0 {
		pin.Issuer = all[0]
	}
	return pin, nil
}

// recordsOf is the records of several asks as one text.
func recordsOf(asks []snippet.DNSAsk) (whole snippet.Snippet, err error) {
	for _, a := range asks {
		s, err := snippet.DNS(a)
		if err != nil {
			return s, &Refusal{err.Error(), ""}
		}
		whole.Parts = append(whole.Parts, s.Parts...)
		for _, n := range s.Notes {
			if !slices.Contains(whole.Notes, n) {
				whole.Notes = append(whole.Notes, n)
			}
		}
	}
	return whole, nil
}

// delegations are what leads the names of each dns-01 validation to where their
// records are written.
func delegations(p preflight, site farm.Site) (asks []snippet.DNSAsk, err error) {
	for i, v := range site.Validations {
		if v.Method != farm.DNS01 {
			continue
		}
		a := snippet.DNSAsk{Delegate: v.Delegate}
		for _, name := range site.Names {
			if slices.IndexFunc(site.Validations, func(v farm.Validation) bool { return v.Takes(name) }) == i {
				a.Names = append(a.Names, name)
			}
		}
		if err := ownZone(&a, p.settings, v.DNS); err != nil {
			return nil, err
		}
		if a.Zone != "" || len(a.Delegate) > 0 { // else the provider writes where the names are
			asks = append(asks, a)
		}
	}
	return asks, nil
}

// ownZone fills in the zone that the controllers answer for, where the entry is
// one.
func ownZone(a *snippet.DNSAsk, s store.Settings, entry string) error {
	i := slices.IndexFunc(s.DNS, func(d farm.DNS) bool { return d.Name == entry })
	if i < 0 || s.DNS[i].Provider != farm.Builtin {
		return nil
	}
	z, err := provider.BuiltinZone(s.DNS[i].Options)
	if err != nil {
		return fmt.Errorf("dns %s: %w", entry, err)
	}
	a.Zone, a.Servers = z.Name, nil
	for _, n := range z.Servers {
		server := snippet.NameServer{Name: n.Host}
		for _, ip := range n.Addresses {
			server.Addresses = append(server.Addresses, ip.String())
		}
		a.Servers = append(a.Servers, server)
	}
	return nil
}

// Sudoers writes the rule that lets the SSH user of a node run as root what its
// targets need, and nothing else.
func (c *Controller) Sudoers(ctx context.Context, farmName, name string) (s snippet.Snippet, err error) {
	a := snippet.SudoersAsk{Node: name}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(ctx, farmName, name)
		if err != nil {
			return err
		}
		if n.SSH == nil {
			return &Refusal{"nobody logs in at node " + name + ": it is a share, or the controller's own machine", "there run the controller as a user that may do it"}
		}
		a.User = n.SSH.User
		places, err := tx.Places(ctx, farmName, "")
		for _, p := range places {
			if p.Target.Node != name || p.Released {
				continue
			}
			var runs struct{ Test, Reload, Start []string }
			if err := json.Unmarshal(p.Target.Options, &runs); err != nil {
				return fmt.Errorf("options of %s: %w", p.Target.Name, err)
			}
			for _, argv := range [][]string{runs.Test, runs.Reload, runs.Start} {
				if len(argv) > 0 {
					a.Commands = append(a.Commands, argv)
				}
			}
		}
		return err
	})
	if err != nil {
		return s, err
	}
	if s, err = snippet.Sudoers(a); err != nil {
		return s, &Refusal{err.Error(), ""}
	}
	return s, nil
}

// thumbprint is of the key of the account at an issuer (RFC 7638), which is made
// if there is none yet.
func (c *Controller) thumbprint(ctx context.Context, farmName string, i farm.Issuer) (string, error) {
	made, err := c.newAccountKey(farmName, i)
	if err != nil {
		return "", err
	}
	got := made.row.Thumbprint
	return got, c.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Account(ctx, farmName, i.Name, i.Directory)
		if err == nil {
			got = row.Thumbprint // another was quicker
			return nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := tx.PutSealed(ctx, farmName, sealedAccount, made.row.Key.Sealed, made.sealed); err != nil {
			return err
		}
		return tx.PutAccount(ctx, made.row)
	})
}
