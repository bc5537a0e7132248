package controller_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// staged is a farm.yaml whose CA is its own staging directory.
func staged(b *bed, text string) string {
	return strings.Replace(text, "    profile: ", "    staging: "+b.CA.Directory+"\n    profile: ", 1)
}

// The CA's staging directory proves the names, nothing is issued there, and nothing
// stays behind.
func TestExternalPreflight(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: staged})
	r, err := b.Controller.Preflight(b.ctx, "lab", "shop", true)
	must(t, err)
	if r.External == nil || !r.External.OK || r.Wrong != 0 || len(r.External.Unproven) == 0 {
		t.Errorf("%+v, external %+v", r, r.External)
	}
	if n := b.opened(); n != 2 {
		t.Errorf("the CA opened %d orders, want the first and the trial", n)
	}
	b.mustHaveIssued(1)

	b.Balancer.RouteChallenges("") // the CA and we see the same
	r, err = b.Controller.Preflight(b.ctx, "lab", "shop", true)
	must(t, err)
	if r.External.OK || !strings.Contains(r.External.Saw, "404") || r.Wrong == 0 {
		t.Errorf("%+v, external %+v", r, r.External)
	}
	if f := r.Findings[0]; f.Verdict != http01.Wrong || f.Remedy == "" || f.Address == "" {
		t.Errorf("%+v", f)
	}
	b.mustHaveIssued(1)
	b.mustHaveNoTokens()
	b.answers()
	b.renew() // the trials do not count for the real order
	b.ended(farm.Done, 2)
}

// mustHaveNoTokens: whatever was put up for an order is gone.
func (b *bed) mustHaveNoTokens() {
	b.t.Helper()
	must(b.t, b.store.View(b.ctx, func(tx *store.Tx) error {
		orders, err := tx.Orders(b.ctx, "lab", store.OrderQuery{})
		for _, o := range orders {
			for _, z := range o.Authz {
				if _, err := tx.ChallengeByToken(b.ctx, z.Challenge.Token); !errors.Is(err, store.ErrNotFound) || z.Receipt != nil {
					b.t.Errorf("order %s of %s left its answer: %v", o.ID, z.Name, err)
				}
			}
		}
		return err
	}))
}

// The account gets a new key although the CA's answer is lost, orders go on with
// it, and the old key is erased.
func TestAccountKeyRollover(t *testing.T) {
	t.Parallel()
	var lost atomic.Bool
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, adjust: func(_ *bed, c *controller.Config) {
		issuers := c.Issuers
		c.Issuers = func(ctx context.Context, ic controller.IssuerConfig) (controller.Account, error) {
			a, err := issuers(ctx, ic)
			return forgetful{a, &lost}, err
		}
	}})
	was := b.account()
	lost.Store(true)
	r, err := b.Controller.RollOver(b.ctx, "lab", "pebble", "ops")
	must(t, err)
	is := b.account()
	if !r.Done || lost.Load() || is.Thumbprint != r.Thumbprint || is.Thumbprint == was.Thumbprint || is.URL != was.URL || is.NextThumbprint != "" {
		t.Errorf("%+v: from %+v to %+v", r, was, is)
	}
	b.happens("account.rolled", "")
	b.renew()
	b.ended(farm.Done, 2)
	b.mustHaveIssued(2)
	must(t, b.store.View(b.ctx, func(tx *store.Tx) error {
		_, err := tx.Sealed(b.ctx, "lab", "account", was.Key.Sealed)
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the old key: %v", err)
		}
		return nil
	}))
}

func (b *bed) account() (a store.Account) {
	b.t.Helper()
	must(b.t, b.store.View(b.ctx, func(tx *store.Tx) (err error) {
		a, err = tx.Account(b.ctx, "lab", "pebble", b.CA.Directory)
		return err
	}))
	return a
}

// A forgetful account loses the CA's answer to the first change of its key.
type forgetful struct {
	controller.Account
	lose *atomic.Bool
}

func (f forgetful) ChangeKey(ctx context.Context, to farm.Secret) error {
	err := f.Account.ChangeKey(ctx, to)
	if err == nil && f.lose.Swap(false) {
		return errors.New("the answer is lost")
	}
	return err
}

// With static rules on the nodes the CA is told of a new key only when every node
// answers for it, and the snippet has the new thumbprint meanwhile.
func TestAccountKeyRolloverWithStaticRules(t *testing.T) {
	t.Parallel()
	var answersFor atomic.Pointer[string]
	b := newBed(t, setting{
		layout: lab.Layout{Nodes: 2},
		edit: func(_ *bed, text string) string {
			return strings.Replace(text, "via: gateway", "via: stateless, front: true", 1)
		},
	})
	none := ""
	answersFor.Store(&none)
	rule := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.URL.Path, http01.Path)
		_, _ = w.Write([]byte(token + "." + *answersFor.Load()))
	})
	b.leads(rule)
	b.apply()
	b.happens("preflight.wrong", "")
	thumbprint := b.account().Thumbprint
	answersFor.Store(&thumbprint)
	b.renew()
	b.ended(farm.Done, 1)

	r, err := b.Controller.RollOver(b.ctx, "lab", "pebble", "ops")
	must(t, err)
	if r.Done || len(r.Sites) != 1 || len(r.Findings) == 0 || r.Thumbprint == thumbprint || b.account().Thumbprint != thumbprint {
		t.Fatalf("%+v", r)
	}
	s, err := b.Controller.Snippet(b.ctx, "lab", "shop", controller.SnippetAsk{Server: "nginx"})
	must(t, err)
	if !strings.Contains(s.String(), r.Thumbprint) {
		t.Errorf("the rule is still for the old key:\n%s", s)
	}
	answersFor.Store(&r.Thumbprint)
	again, err := b.Controller.RollOver(b.ctx, "lab", "pebble", "ops")
	must(t, err)
	if !again.Done || again.Thumbprint != r.Thumbprint || b.account().Thumbprint != r.Thumbprint {
		t.Fatalf("%+v", again)
	}
	b.renew()
	b.ended(farm.Done, 2)
	b.mustHaveIssued(2)
}

// What was put up for an order is taken away when its site is gone from farm.yaml.
func TestAnOrderOfAGoneSiteLeavesNothing(t *testing.T) {
	t.Parallel()
	waiting := issuetest.Answer(issuetest.Order, 1000, issuetest.Reply{Status: http.StatusServiceUnavailable, Header: map[string]string{"Retry-After": "1"}})
	b := newBed(t, setting{layout: twoSites(2), ca: issuetest.Options{Wrap: issuetest.Faults(waiting)}, edit: blog("pebble")})
	b.apply()
	b.until("an order of the blog is accepted", func(tx *store.Tx) (bool, error) {
		orders, err := tx.Orders(b.ctx, "lab", store.OrderQuery{Site: "blog"})
		return len(orders) == 1 && orders[0].State == farm.OrderAccepted, err
	})
	b.rewrite(func(text string) string {
		before, _, _ := strings.Cut(text, "  blog:")
		return before
	})
	b.apply()
	b.until("its answers are gone", func(tx *store.Tx) (bool, error) {
		orders, err := tx.Orders(b.ctx, "lab", store.OrderQuery{Site: "blog"})
		if err != nil || orders[0].State != farm.OrderFailed {
			return false, err
		}
		for _, z := range orders[0].Authz {
			if z.Receipt != nil {
				return false, nil
			}
		}
		return true, nil
	})
}
