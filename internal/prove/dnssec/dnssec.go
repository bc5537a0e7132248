// Package dnssec tells a zone whose signatures are broken from one that is only
// not reachable.
//
// CAs must validate DNSSEC when they look up what proves control and CAA (CA/B
// Forum Baseline Requirements, from 2026-03-15), so a broken zone gets no
// certificate. A validating resolver answers SERVFAIL for it (RFC 4035 §5.5), and
// answers all the same when it is told not to check (CD, RFC 4035 §3.2.2).
//
// Invariant: a zone is called broken only where both were seen.
package dnssec

import (
	"context"
	"errors"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
)

// Broken reports that the failed question fails because of DNSSEC, and in which
// zone, as far as that can be seen: the one that has the name. It asks the same
// again without checking. Err is the error of the question.
func Broken(ctx context.Context, c lookup.Client, q lookup.Question, err error) (zone string, broken bool) {
	if !ServFail(err) {
		return "", false
	}
	q.Unchecked = true
	a, err := c.Ask(ctx, q)
	if err != nil {
		return "", false
	}
	return zoneOf(ctx, c, q.Name, a), true
}

// ServFail reports that a server answered SERVFAIL.
func ServFail(err error) bool {
	f, ok := errors.AsType[*lookup.Failure](err)
	return ok && f.Rcode == dns.RcodeServerFailure
}

// zoneOf finds the zone of a name by its SOA; the name itself where none is seen.
func zoneOf(ctx context.Context, c lookup.Client, name string, a lookup.Answer) string {
	if zone := apex(a); zone != "" {
		return zone
	}
	a, err := c.Ask(ctx, lookup.Question{Name: name, Type: dns.TypeSOA, Unchecked: true})
	if zone := apex(a); err == nil && zone != "" {
		return zone
	}
	return dns.CanonicalName(name)
}

func apex(a lookup.Answer) string {
	for _, part := range [][]dns.RR{a.Records, a.Referral} {
		for _, r := range part {
			if soa, ok := r.(*dns.SOA); ok {
				return dns.CanonicalName(soa.Hdr.Name)
			}
		}
	}
	return ""
}

// Explain is what people are told of a broken zone.
func Explain(zone string) (saw, remedy string) {
	return "DNSSEC of " + zone + " is broken: resolvers that check refuse its answers, and no CA issues (Baseline Requirements, since 2026-03-15)",
		"look at the zone's DS record at its parent, and at keys and signatures that have ended (`delv`, dnsviz.net); where DNSSEC is not wanted, remove the DS record first"
}
