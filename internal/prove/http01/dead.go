package http01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dnssec"
)

// diagnose finds why a name has no address. What a server said (it does not
// exist, it has none, its CNAMEs lead nowhere, its zone is broken) is wrong, since
// a CA will hear the same; where none answered nothing can be told.
func diagnose(ctx context.Context, c lookup.Client, name string, failed error) Finding {
	f := Finding{Name: name, Verdict: Wrong}
	q := lookup.Question{Name: name, Type: dns.TypeA}
	a, err := c.Ask(ctx, q)
	if err != nil {
		if zone, broken := dnssec.Broken(ctx, c, q, err); broken {
			f.Saw, f.Remedy = dnssec.Explain(zone)
			return f
		}
		if chain, loop := aliases(ctx, c, name, err); loop {
			return looping(f, chain)
		}
		f.Verdict, f.Saw = Unclear, show(errors.Join(failed, err).Error())
		f.Remedy = "the DNS servers do not answer for the name: look at the zone's name servers, and at resolvers in farm.yaml"
		return f
	}
	chain, loop := follow(name, a.Records)
	end := chain[len(chain)-1]
	switch {
	case loop:
		return looping(f, chain)
	case !a.Exists() && len(chain) > 1:
		f.Saw = fmt.Sprintf("its CNAME leads to %s, which does not exist (NXDOMAIN)", show(end))
		f.Remedy = "let the CNAME lead to a name that has addresses, or take the name off the site"
	case !a.Exists():
		f.Saw = "it does not exist (NXDOMAIN)"
		f.Remedy = "give it an A or AAAA record that leads to the farm, or take the name off the site"
	case failed != nil && !notFound(failed): // IPv6 could not be asked for, and there is no IPv4
		f.Verdict, f.Saw, f.Remedy = Unclear, show(failed.Error()), "ask again; if it stays so, look at the zone's name servers"
	default:
		f.Saw = "it has neither an A nor an AAAA record"
		f.Remedy = "give it an A or AAAA record that leads to the farm, or take the name off the site"
	}
	return f
}

func looping(f Finding, chain []string) Finding {
	f.Saw = "its CNAMEs lead in a circle: " + show(strings.Join(chain, " → "))
	f.Remedy = "break the circle: one of them must lead to a name that has addresses"
	return f
}

// notFound is what the system's resolver says of a name without addresses.
func notFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// mostAliases is how long a chain of CNAMEs may be.
const mostAliases = 16

// follow follows CNAMEs within one answer, from a name to where they end.
func follow(name string, records []dns.RR) (chain []string, loop bool) {
	next := map[string]string{}
	for _, r := range records {
		if c, ok := r.(*dns.CNAME); ok {
			next[dns.CanonicalName(c.Hdr.Name)] = dns.CanonicalName(c.Target)
		}
	}
	return walk(name, func(at string) (string, bool) {
		to, ok := next[at]
		return to, ok
	})
}

// aliases follows CNAMEs step by step, where a resolver gave up on them: they
// answer SERVFAIL for a circle.
func aliases(ctx context.Context, c lookup.Client, name string, err error) (chain []string, loop bool) {
	if !dnssec.ServFail(err) {
		return nil, false
	}
	return walk(name, func(at string) (string, bool) {
		a, err := c.Ask(ctx, lookup.Question{Name: at, Type: dns.TypeCNAME})
		if err != nil {
			return "", false
		}
		for _, r := range a.Records {
			if c, ok := r.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == at {
				return dns.CanonicalName(c.Target), true
			}
		}
		return "", false
	})
}

func walk(name string, next func(string) (string, bool)) (chain []string, loop bool) {
	seen := map[string]bool{}
	for at, ok := dns.CanonicalName(name), true; ok && len(chain) <= mostAliases; at, ok = next(at) {
		chain = append(chain, strings.TrimSuffix(at, "."))
		if seen[at] {
			return chain, true
		}
		seen[at] = true
	}
	return chain, len(chain) > mostAliases
}
