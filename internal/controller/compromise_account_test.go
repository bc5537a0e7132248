package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// An account whose key others know gets another one, and the CA trusts no proof any
// more that was made with the old one: the next order proves the names anew.
func TestAnAccountLeavesItsKey(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 1}, ca: issuetest.Options{AuthzReuse: 100, BadNonce: -1}})
	was := b.account()
	r, err := b.Controller.CompromiseAccount(b.ctx, b.Farm, "pebble", controller.CompromiseAsk{Reason: "it was in a backup"}, "ops")
	must(t, err)
	if r.Joined || r.Account != was.URL || r.Thumbprint == "" || r.Thumbprint == was.Thumbprint || len(r.Static)+len(r.Pinned) > 0 {
		t.Errorf("%+v", r)
	}
	e := b.happens("account.safe", "")
	if !strings.Contains(e.Text, "2 proofs of names are withdrawn") || !strings.Contains(e.Hint, "Transparency") {
		t.Errorf("told: %s (%s)", e.Text, e.Hint)
	}
	if is := b.account(); is.URL != was.URL || is.Thumbprint != r.Thumbprint || is.Exposed.Open() || is.Exposed.Reason != "it was in a backup" {
		t.Errorf("%+v", is)
	}
	validated := b.CA.Stats().Requests[issuetest.Challenge]
	b.renew()
	b.ended(farm.Done, 2)
	if n := b.CA.Stats().Requests[issuetest.Challenge] - validated; n != 2 {
		t.Errorf("the CA looked at %d names again, want 2", n)
	}
}

// A robbed account is one whose key others have changed first.
type robbed struct{ controller.Account }

func (robbed) ChangeKey(context.Context, farm.Secret) error {
	return fmt.Errorf("change the key: %w: no such account", issue.Refused)
}

// Where the CA will not change the key the account is given up and another opened, with
// which renewals go on.
func TestAnAccountIsGivenUp(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 1}, adjust: func(_ *bed, c *controller.Config) {
		open := c.Issuers
		c.Issuers = func(ctx context.Context, ic controller.IssuerConfig) (controller.Account, error) {
			a, err := open(ctx, ic)
			return robbed{a}, err
		}
	}})
	was := b.account()
	_, err := b.Controller.CompromiseAccount(b.ctx, b.Farm, "pebble", controller.CompromiseAsk{}, "ops")
	must(t, err)
	e := b.happens("account.replaced", "")
	if e.Level != farm.Alarm || !strings.Contains(e.Text, was.URL) || !strings.Contains(e.Text, "it is ended") || !strings.Contains(e.Text, "accounturi") {
		t.Errorf("told: %+v", e)
	}
	b.happens("account.safe", "")
	b.until("another account is open", func(*store.Tx) (bool, error) {
		is := b.account()
		return is.URL != "" && is.URL != was.URL && is.Thumbprint != was.Thumbprint && !is.Exposed.Open(), nil
	})
	b.renew()
	b.ended(farm.Done, 2)
}

// Others have been on a node: it is held, every site whose key lay there gets another,
// and what else stood there is named. When it is released it gets the new key, too, and
// what is old is revoked.
func TestANodeIsLeft(t *testing.T) {
	t.Parallel()
	b, first := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	r, err := b.Controller.CompromiseNode(b.ctx, b.Farm, "web2", controller.NodeCompromiseAsk{CompromiseAsk: controller.CompromiseAsk{Reason: "a shell was found"}}, "ops")
	must(t, err)
	if !r.Held || len(r.Sites) != 1 || r.Sites[0] != b.Site || len(r.Credentials) == 0 || r.Credentials[0].What != "the SSH host key of web2" {
		t.Errorf("%+v", r)
	}
	b.happens("node.exposed", "")
	b.until("the other node has a new key", func(*store.Tx) (bool, error) {
		now := b.serves("web1")
		return now != "" && now != first, nil
	})
	b.waitsFor("web2")
	if _, revoked := b.isRevoked(first); revoked || b.serves("web2") != first {
		t.Errorf("web2 serves %s, the old one is revoked: %v", b.serves("web2"), revoked)
	}
	again, err := b.Controller.CompromiseNode(b.ctx, b.Farm, "web2", controller.NodeCompromiseAsk{}, "ops")
	if err != nil || len(again.Sites) != 1 {
		t.Errorf("said again: %+v, %v", again, err)
	}
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "ops", false))
	b.comesTo("web2", b.serves("web1"))
	b.escaped()
	b.mustBeRevoked(first, 1)
}
