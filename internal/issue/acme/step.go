package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// A step is one protocol step of one order.
type step struct {
	a    *Issuer
	core *api.Core
	o    farm.Order
	now  time.Time
	last time.Duration // how long the last poll in this state waited; 0: this is the first
}

// Step does the next protocol step; see issue.Issuer.
func (a *Issuer) Step(ctx context.Context, o farm.Order, now time.Time) (farm.Order, error) {
	account, err := a.accountOf(ctx, o)
	if err != nil {
		return o, err
	}
	core, err := a.ready(ctx, account)
	if err != nil {
		return o, err
	}
	s := &step{a: a, core: core, o: o, now: now}
	s.o.Account = account
	s.o.Authz = slices.Clone(o.Authz)
	if o.State == farm.OrderAccepted || o.State == farm.OrderProcessing {
		s.last = o.Again.Sub(o.Updated)
	}
	s.o.Again, s.o.Updated = time.Time{}, now
	if err := s.do(ctx); err != nil {
		return o, err
	}
	return s.o, nil
}

// accountOf is the account that the order belongs to. One account cannot go on
// with another's order.
func (a *Issuer) accountOf(ctx context.Context, o farm.Order) (string, error) {
	account, err := a.ensured(ctx)
	if err != nil {
		return "", err
	}
	if o.Account != "" && o.Account != account {
		return "", fmt.Errorf("%w: the order was opened by account %s, and the issuer %s now uses %s", issue.Refused, o.Account, a.c.Issuer.Name, account)
	}
	return account, nil
}

func (s *step) do(ctx context.Context) error {
	if s.expired() {
		return fmt.Errorf("order for %s: %w: it expired at %s without being finalized", strings.Join(s.o.Names, ", "), issue.Refused, s.o.Expires.UTC().Format(time.RFC3339))
	}
	switch s.o.State {
	case farm.OrderNew:
		return s.open(ctx)
	case farm.OrderPending:
		return s.authorizations(ctx)
	case farm.OrderPresented:
		return s.accept(ctx)
	case farm.OrderReady:
		if s.o.Finalize.IsZero() {
			return s.finalize(ctx)
		}
		return s.resume(ctx)
	case farm.OrderAccepted:
		return s.poll(ctx, "poll the order")
	case farm.OrderProcessing:
		return s.collect(ctx)
	case farm.OrderIssued:
		return s.download(ctx)
	case farm.OrderDone, farm.OrderFailed:
	}
	return fmt.Errorf("order for %s: there is no step from the state %q", strings.Join(s.o.Names, ", "), s.o.State)
}

// expired reports that the CA has dropped the order. Once it was finalized its
// certificate may be there all the same.
func (s *step) expired() bool {
	return s.o.State != farm.OrderNew && s.o.Finalize.IsZero() && !s.o.Expires.IsZero() && s.now.After(s.o.Expires)
}

func (s *step) fault(what string, err error, x *exchange) error {
	return s.a.fault(doing{what: what, names: s.o.Names}, err, x, s.now)
}

// open makes the order (RFC 8555 §7.4). After a lost answer the same request
// gives the same order, or where the CA makes a new one for each, the first is
// left to expire: it was never finalized.
func (s *step) open(ctx context.Context) error {
	if err := issue.CheckRequest(s.o.CSR, s.o.Names); err != nil {
		return fmt.Errorf("open an order: %w: %w", issue.Refused, err)
	}
	s.o.Profile = s.a.profile(s.o)
	if err := s.offered(s.o.Profile); err != nil {
		return err
	}
	order, x, err := s.newOrder(ctx)
	if err != nil && s.o.Replaces != "" && aboutReplaces(err, x.status) {
		s.o.Replaces = ""
		order, x, err = s.newOrder(ctx)
	}
	if err != nil {
		return s.fault("open an order", err, x)
	}
	if order.Location == "" {
		return fmt.Errorf("open an order for %s at %s: the CA named no order URL", strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name)
	}
	s.o.Replaces = order.Replaces
	s.o.URL, s.o.FinalizeURL = order.Location, order.Finalize
	s.o.Expires, _ = time.Parse(time.RFC3339, order.Expires) // optional: zero if it cannot be read
	s.o.Authz = nil
	for _, u := range order.Authorizations {
		s.o.Authz = append(s.o.Authz, farm.Authz{URL: u})
	}
	return s.follow(ctx, order.Order, x)
}

func (s *step) newOrder(ctx context.Context) (acme.ExtendedOrder, *exchange, error) {
	ctx, x := watch(ctx, "new-order")
	var names []string
	for _, n := range s.o.Names {
		names = append(names, strings.ToLower(n))
	}
	order, err := s.core.Orders.New(ctx, names, &api.OrderOptions{Profile: s.o.Profile, ReplacesCertID: s.o.Replaces})
	return order, x, err
}

// aboutReplaces reports that an order may be refused because of what it claims
// to replace. CAs say so in many ways (403 for another account's, 404 for one
// not found, 409, malformed, and Pebble 500); none of them is a reason not to
// renew (lego #3147, #3189).
func aboutReplaces(err error, status int) bool {
	p, told := errors.AsType[*acme.ProblemDetails](err)
	if !told || p.Type == acme.RateLimitedErrorType || accountFault(p) {
		return false
	}
	switch status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
		return true
	case http.StatusBadRequest:
		return p.Type == acme.MalformedErrorType
	}
	return p.Type == acme.ServerInternalErrorType
}

// offered refuses a profile that the directory does not name, before an order
// is spent on it. A profile that was asked for is never replaced by another.
func (s *step) offered(profile string) error {
	offered := s.core.GetDirectory().Meta.Profiles
	if _, ok := offered[profile]; ok || profile == "" {
		return nil
	}
	has := "it offers none"
	if len(offered) > 0 {
		has = "it offers " + clean(strings.Join(slices.Sorted(maps.Keys(offered)), ", "), 300)
	}
	return fmt.Errorf("open an order for %s at %s: %w: it has no profile %q; %s", strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name, issue.Refused, profile, has)
}

// follow takes the order to the state that the CA's status stands for.
func (s *step) follow(ctx context.Context, order acme.Order, x *exchange) error {
	switch order.Status {
	case acme.StatusPending:
		return s.pending(x)
	case acme.StatusReady:
		s.o.State = farm.OrderReady
	case acme.StatusProcessing:
		s.o.State = farm.OrderProcessing
		s.later(x)
	case acme.StatusValid:
		if order.Certificate == "" {
			return fmt.Errorf("order for %s at %s is valid without a certificate URL", strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name)
		}
		s.o.State, s.o.CertURL = farm.OrderIssued, order.Certificate
	case acme.StatusInvalid:
		return s.invalid(ctx, order)
	default:
		return fmt.Errorf("order for %s at %s has the unknown status %q", strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name, clean(order.Status, 40))
	}
	return nil
}

func (s *step) pending(x *exchange) error {
	switch s.o.State {
	case farm.OrderAccepted:
		s.later(x)
	case farm.OrderNew:
		s.o.State = farm.OrderPending
	default: // we took it for proven, the CA does not: look at every name again
		s.o.State = farm.OrderPending
		for i, z := range s.o.Authz {
			s.o.Authz[i] = farm.Authz{URL: z.URL, Receipt: z.Receipt}
		}
	}
	return nil
}

// When a CA that does not say is polled first, and at most how seldom.
const (
	pollFirst = 300 * time.Millisecond
	pollLast  = 15 * time.Second
)

// later sets when to poll: when the CA said, else soon, and then each time
// after half as long again.
func (s *step) later(x *exchange) {
	wait := x.wait(s.now)
	if wait == 0 {
		wait = min(max(s.last*3/2, pollFirst), pollLast)
	}
	s.o.Again = s.now.Add(jitter(wait))
}

func (s *step) poll(ctx context.Context, what string) error {
	ctx, x := watch(ctx, "order")
	order, err := s.core.Orders.Get(ctx, s.o.URL)
	if err != nil {
		if x.status == http.StatusNotFound {
			return fmt.Errorf("%s for %s at %s: %w: it does not know the order any more; a new one is needed", what, strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name, issue.Refused)
		}
		return s.fault(what, err, x)
	}
	return s.follow(ctx, order.Order, x)
}

// collect polls a finalized order, and fetches the chain when it is there: that
// changes nothing at the CA, and need not wait until the state before is stored.
func (s *step) collect(ctx context.Context) error {
	if err := s.poll(ctx, "poll the order"); err != nil || s.o.State != farm.OrderIssued {
		return err
	}
	return s.download(ctx)
}

// resume asks how far the CA came with an order that may be finalized already.
// A second finalization is an error at most CAs, and taking that error for a
// failure has cost others their limits (cert-manager #758).
func (s *step) resume(ctx context.Context) error {
	if err := s.poll(ctx, "look at the order"); err != nil || s.o.State != farm.OrderReady {
		return err
	}
	return s.finalize(ctx)
}

// finalize sends the signing request (RFC 8555 §7.4).
func (s *step) finalize(ctx context.Context) error {
	if err := issue.CheckRequest(s.o.CSR, s.o.Names); err != nil {
		return fmt.Errorf("finalize the order: %w: %w", issue.Refused, err)
	}
	if s.o.Finalize.IsZero() {
		s.o.Finalize = s.now
	}
	watched, x := watch(ctx, "finalize")
	order, err := s.core.Orders.UpdateForCSR(watched, s.o.FinalizeURL, s.o.CSR)
	if err == nil {
		return s.follow(ctx, order.Order, x)
	}
	refused := s.fault("finalize the order", err, x)
	p, told := errors.AsType[*acme.ProblemDetails](err)
	if !told || (!errors.Is(refused, issue.Refused) && p.Type != acme.OrderNotReadyErrorType) {
		return refused
	}
	// The no may mean that an earlier request did take effect: the order knows.
	if err := s.poll(ctx, "look at the order"); err != nil {
		return err
	}
	if s.o.State == farm.OrderReady {
		return refused
	}
	return nil
}

// download fetches the chain and takes nothing that does not match the request.
func (s *step) download(ctx context.Context) error {
	chain, err := s.chain(ctx)
	if err != nil {
		return err
	}
	want := issue.Chain{PEM: chain, CSR: s.o.CSR, Names: s.o.Names, Roots: s.a.c.Issuer.Roots, Now: s.now}
	if err := want.Check(); err != nil {
		return fmt.Errorf("certificate for %s from %s: %w: it is not what we asked for and was thrown away: %s",
			strings.Join(s.o.Names, ", "), s.a.c.Issuer.Name, issue.Refused, clean(err.Error(), 500))
	}
	s.o.Chain = append(bytes.TrimSpace(chain), '\n')
	s.o.State = farm.OrderDone
	return nil
}
