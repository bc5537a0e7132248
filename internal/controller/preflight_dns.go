package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/caa"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/provider"
	"github.com/certfarm/certfarm/internal/prove/dnspersist"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// caa asks whether the zones let the CA, the account and the method issue.
func (p preflight) caa(ctx context.Context) (all []http01.Finding) {
	ask := caa.Ask{Names: p.names, AccountURL: p.account.URL, Methods: map[string]string{}, Lookup: dnsOf(p.settings, false)}
	for _, name := range p.names {
		ask.Methods[name] = farm.ValidationOf(p.validations, name).Method
	}
	var err error
	if ask.Issuers, err = p.identities(ctx); err != nil {
		return []http01.Finding{{
			Check: "caa", Name: p.names[0], Verdict: http01.Unclear, Saw: "the CA does not say by which names CAA records allow it: " + err.Error(),
			Remedy: "look at the issuer's URL in farm.yaml, and at the way from here to the CA",
		}}
	}
	for _, f := range caa.Check(ctx, ask) {
		all = append(all, http01.Finding{Check: "caa", Name: f.Name, Address: f.Zone, Verdict: http01.Sort(f.Verdict), Saw: f.Saw, Remedy: f.Remedy})
	}
	return all
}

func (p preflight) identities(ctx context.Context) ([]string, error) {
	a, err := p.c.openAccount(ctx, p.farm, p.issuer, p.settings.Proxy, p.account)
	if err != nil {
		return nil, err
	}
	return a.Identities(ctx)
}

// overDNS looks where the record of each name is. Nothing is written, but into a
// zone of our own: there the whole way is tried.
func (p preflight) overDNS(ctx context.Context, v farm.Validation, all []string, seed string) (found []http01.Finding, err error) {
	i := slices.IndexFunc(p.settings.DNS, func(d farm.DNS) bool { return d.Name == v.DNS })
	if i < 0 {
		return nil, fmt.Errorf("the entry %s is gone from dns in farm.yaml", v.DNS)
	}
	d := p.settings.DNS[i]
	own := ""
	if d.Provider == farm.Builtin {
		zone, err := provider.BuiltinZone(d.Options)
		if err != nil {
			return nil, fmt.Errorf("dns %s: %w", d.Name, err)
		}
		own = zone.Name
	}
	var seen []string
	for n, name := range all {
		base := strings.TrimPrefix(name, "*.")
		if slices.Contains(seen, base) {
			continue // a name and its wildcard have one record
		}
		seen = append(seen, base)
		place, err := dns01.Where(ctx, dnsOf(p.settings, d.Resolvers), v.Delegate, base)
		f := http01.Finding{Check: farm.DNS01, Name: name, Address: place.Name, Verdict: http01.Right}
		f.Saw = fmt.Sprintf("its record is in the zone %s (%s)", place.Zone, strings.Join(place.Path, " → "))
		switch {
		case err != nil:
			f.Verdict, f.Saw, f.Remedy = http01.Unclear, err.Error(), "look at the zone and its delegation: `certfarm snippet "+p.site+" --dns` prints the records"
			if errors.Is(err, lookup.Astray) {
				f.Verdict = http01.Wrong
			}
		case own == "":
		case place.Zone != own:
			f.Verdict = http01.Wrong
			f.Remedy = fmt.Sprintf("let it lead into the zone %s, which the controllers answer for: `certfarm snippet %s --dns` prints the records", own, p.site)
		default:
			if f, err = p.tryOwn(ctx, v, f, base, fmt.Sprint(seed, " ", n)); err != nil {
				return nil, err
			}
		}
		found = append(found, f)
	}
	return found, nil
}

// tryOwn puts up a random value in a zone that we answer for, and asks the zone's
// name servers for it.
func (p preflight) tryOwn(ctx context.Context, v farm.Validation, f http01.Finding, base, seed string) (http01.Finding, error) {
	s, err := p.c.Solver(ctx, p.proving(v), p.c)
	if err != nil {
		return f, err
	}
	solver, ok := s.(interface {
		prove.Solver
		spreader
	})
	if !ok {
		return f, nil // it cannot say who has it
	}
	ch := farm.Challenge{Type: farm.DNS01, Name: base}
	ch.Token, ch.Value = dns01.Question(seed)
	receipt, err := solver.Present(ctx, ch)
	if err != nil {
		return f, err
	}
	sights, err := solver.Spread(ctx, receipt)
	switch {
	case err != nil:
		f.Verdict, f.Saw = http01.Unclear, err.Error()
	case slices.ContainsFunc(sights, func(s dns01.Sight) bool { return s.State == dns01.Lacks }):
		f.Verdict, f.Saw = http01.Wrong, dns01.Tell(sights)
		f.Remedy = "let the zone's NS records name the controllers that answer DNS (`certfarm serve --dns-listen`), and no other server"
	case !slices.ContainsFunc(sights, func(s dns01.Sight) bool { return s.State == dns01.Has }):
		f.Verdict, f.Saw = http01.Unclear, dns01.Tell(sights)
		f.Remedy = "let at least one controller answer DNS at port 53 (`certfarm serve --dns-listen`), where the world can reach it"
	default:
		f.Saw += "; " + dns01.Tell(sights)
	}
	return f, solver.CleanUp(context.WithoutCancel(ctx), ch, receipt)
}

// persistent looks for the records of dns-persist-01.
func (p preflight) persistent(ctx context.Context, all []string) (found []http01.Finding) {
	issuers, err := p.identities(ctx)
	for _, name := range all {
		f := http01.Finding{Check: farm.DNSPersist01, Name: name, Verdict: http01.Right}
		var s dnspersist.Sight
		if err == nil {
			s, err = dnspersist.Check(ctx, dnsOf(p.settings, false), persisting(name, issuers, p.account.URL), p.c.Now())
		}
		if len(s.Path) > 0 {
			f.Address = s.Path[0]
		}
		f.Saw = strings.Join(s.Saw, ", ")
		switch {
		case p.account.URL == "":
			f.Verdict, f.Saw, f.Remedy = http01.Unclear, "there is no account yet, which its record names", "ask again when the account at "+p.issuer.Name+" is opened"
		case err != nil:
			f.Verdict, f.Saw, f.Remedy = http01.Unclear, err.Error(), "`certfarm snippet "+p.site+" --dns` prints the record"
		case !s.Matches:
			f.Verdict, f.Remedy = http01.Wrong, s.Problem
			if !s.Found {
				f.Saw = "there is no such record"
			}
		}
		found = append(found, f)
	}
	return found
}

// persisting is the challenge that a CA would ask for a name (dns-persist-01).
func persisting(name string, issuers []string, account string) farm.Challenge {
	base, wildcard := strings.CutPrefix(name, "*.")
	return farm.Challenge{Type: farm.DNSPersist01, Name: base, Wildcard: wildcard, Issuers: issuers, Account: account}
}
