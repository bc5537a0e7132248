package acme

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/go-acme/lego/v5/acme"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// atOnce is how many requests one step of one order makes at a time: a site of
// a hundred names is one order.
const atOnce = 8

// token is what a CA may send (RFC 8555 §8.3: base64url, at least 128 bits). It
// becomes a path and a key in the store, so nothing else is let in
// (CVE-2026-40611).
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)

// authorizations asks what is to be proven for each name (RFC 8555 §7.5).
func (s *step) authorizations(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range s.o.Authz {
		z := &s.o.Authz[i]
		if z.Valid || z.Challenge.URL != "" {
			continue
		}
		g.Go(func() error { return s.authorization(ctx, z) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.o.Authz, func(z farm.Authz) bool { return !z.Valid }) {
		s.o.State = farm.OrderReady // the CA trusts earlier proofs
	}
	return nil
}

func (s *step) authorization(ctx context.Context, z *farm.Authz) error {
	ctx, x := watch(ctx, "authz")
	got, err := s.core.Authorizations.Get(ctx, z.URL)
	if err != nil {
		return s.again("read an authorization", err, x)
	}
	name := got.Identifier.Value
	asked := name
	if got.Wildcard {
		asked = "*." + name
	}
	if !slices.ContainsFunc(s.o.Names, func(n string) bool { return strings.EqualFold(n, asked) }) {
		return fmt.Errorf("order for %s at %s: %w: it asks us to prove %q, which is not in the order", strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name, issue.Refused, clean(asked, 253))
	}
	z.Name, z.Wildcard, z.Expires = name, got.Wildcard, got.Expires
	switch got.Status {
	case acme.StatusValid:
		z.Valid = true
		return nil
	case acme.StatusPending:
		return s.challenge(z, got)
	}
	return refusal(fmt.Sprintf("prove %s at %s", name, s.a.c.Issuer.Name), problemOf(got))
}

// challenge chooses what to answer: the challenge of the method that is meant for
// the name.
func (s *step) challenge(z *farm.Authz, from acme.Authorization) error {
	method := farm.ValidationOf(s.o.Validations, z.Asked()).Method
	var types []string
	for _, c := range from.Challenges {
		types = append(types, clean(c.Type, 40))
		if c.Type != method {
			continue
		}
		got, err := s.question(z, c)
		if err != nil {
			return err
		}
		z.Challenge = got
		z.Accepted = c.Status != acme.StatusPending // told before, the answer was lost
		return nil
	}
	return fmt.Errorf("prove %s at %s: %w: it offers no %s challenge for it, only %s", z.Asked(), s.a.c.Issuer.Name, issue.Refused, method, strings.Join(types, ", "))
}

// question is a CA's challenge as a solver is asked for it.
func (s *step) question(z *farm.Authz, c acme.Challenge) (farm.Challenge, error) {
	got := farm.Challenge{Type: c.Type, URL: c.URL, Name: z.Name, Wildcard: z.Wildcard}
	if c.Type == farm.DNSPersist01 {
		got.Account = s.o.Account
		for _, i := range c.IssuerDomainNames {
			got.Issuers = append(got.Issuers, clean(i, 253))
		}
		if len(got.Issuers) == 0 {
			return got, fmt.Errorf("prove %s at %s: %w: its %s challenge names no issuer", z.Name, s.a.c.Issuer.Name, issue.Refused, c.Type)
		}
		return got, nil
	}
	if !token.MatchString(c.Token) {
		return got, fmt.Errorf("prove %s at %s: %w: its token %q is not one (RFC 8555 §8.3)", z.Name, s.a.c.Issuer.Name, issue.Refused, clean(c.Token, 60))
	}
	value, err := s.core.GetKeyAuthorization(c.Token)
	if err != nil {
		return got, fmt.Errorf("key authorization for %s: %w", z.Name, err)
	}
	if c.Type == farm.DNS01 {
		got.KeyAuth = value
		sum := sha256.Sum256([]byte(value))
		value = base64.RawURLEncoding.EncodeToString(sum[:]) // RFC 8555 §8.4
	}
	got.Token, got.Value = c.Token, value
	return got, nil
}

// accept tells the CA to look at every name, and does not wait for what it sees
// (RFC 8555 §7.5.1).
func (s *step) accept(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	waits := make([]*exchange, len(s.o.Authz))
	for i := range s.o.Authz {
		z := &s.o.Authz[i]
		if z.Valid || z.Accepted {
			continue
		}
		g.Go(func() (err error) {
			waits[i], err = s.tell(ctx, z)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.o.Authz, func(z farm.Authz) bool { return !z.Valid }) {
		s.o.State = farm.OrderReady
		return nil
	}
	s.o.State = farm.OrderAccepted
	longest := &exchange{}
	for _, x := range waits {
		if x != nil && x.wait(s.now) > longest.wait(s.now) {
			longest = x
		}
	}
	s.later(longest)
	return nil
}

// tell says that a challenge is up. A CA that was told before may refuse to be
// told again: then the authorization says whether it looks.
func (s *step) tell(ctx context.Context, z *farm.Authz) (*exchange, error) {
	told, x := watch(ctx, "challenge")
	got, err := s.core.Challenges.New(told, z.Challenge.URL)
	if err == nil {
		z.Accepted, z.Valid = true, got.Status == acme.StatusValid
		return x, nil
	}
	refused := s.again("answer the challenge", err, x)
	if !errors.Is(refused, issue.Refused) {
		return nil, refused
	}
	watched, x := watch(ctx, "authz")
	authz, err := s.core.Authorizations.Get(watched, z.URL)
	if err != nil {
		return nil, s.again("read an authorization", err, x)
	}
	switch {
	case authz.Status == acme.StatusValid:
		z.Accepted, z.Valid = true, true
		return x, nil
	case authz.Status != acme.StatusPending:
		return nil, refusal(fmt.Sprintf("prove %s at %s", z.Name, s.a.c.Issuer.Name), problemOf(authz))
	}
	for _, c := range authz.Challenges {
		if c.URL == z.Challenge.URL && c.Status != acme.StatusPending {
			z.Accepted = true
			return x, nil
		}
	}
	return nil, refused
}

// again is the fault of a request whose resource may not be there yet: a CA's
// replicas lag, and a 404 for what the CA itself named is not its last word.
func (s *step) again(what string, err error, x *exchange) error {
	fault := s.fault(what, err, x)
	if x.status == http.StatusNotFound && errors.Is(fault, issue.Refused) {
		return fmt.Errorf("%s for %s at %s: the CA does not find what it named itself", what, strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name)
	}
	return fault
}

// invalid is the end of an order, with what the CA saw at each name. The order
// itself may tell only the first problem, and not of which name.
func (s *step) invalid(ctx context.Context, order acme.Order) error {
	at := doing{what: "prove control", names: s.o.Names}.String() + " at " + s.a.c.Issuer.Name
	all := &acme.ProblemDetails{}
	for i := range s.o.Authz {
		got, err := s.core.Authorizations.Get(ctx, s.o.Authz[i].URL)
		if err != nil || got.Status == acme.StatusValid || got.Status == acme.StatusPending {
			continue
		}
		p := problemOf(got)
		all.Type = p.Type
		all.SubProblems = append(all.SubProblems, p.SubProblems...)
	}
	if len(all.SubProblems) > 0 {
		return refusal(at, all)
	}
	if p := order.Error; p != nil {
		p.Detail = clean(p.Detail, 1000)
		return refusal(at, p)
	}
	return refusal(at, &acme.ProblemDetails{Detail: "the order is invalid, and the CA does not say why"})
}

// problemOf is what a CA saw at the name of an authorization that failed, told
// as a sub-problem so that the name stands with it.
func problemOf(z acme.Authorization) *acme.ProblemDetails {
	p := acme.ProblemDetails{Detail: "the authorization is " + clean(z.Status, 40)}
	for _, c := range z.Challenges {
		if c.Error != nil {
			p = *c.Error
		}
	}
	sub := acme.SubProblem{Type: clean(p.Type, 100), Detail: clean(p.Detail, 500), Identifier: z.Identifier}
	sub.Identifier.Value = clean(sub.Identifier.Value, 253)
	return &acme.ProblemDetails{Type: sub.Type, SubProblems: []acme.SubProblem{sub}}
}
