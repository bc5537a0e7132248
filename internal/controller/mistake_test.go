package controller_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/store"
)

// named writes another name beside the main one into farm.yaml, in the place of an
// earlier one; empty: none.
func (b *bed) named(was, is string) {
	b.t.Helper()
	main := `names: ["` + b.Layout.Names[0] + `"`
	name := func(n string) string {
		if n == "" {
			return main
		}
		return main + `, "` + n + `"`
	}
	b.rewrite(func(text string) string { return strings.Replace(text, name(was), name(is), 1) })
}

// atRest waits until a site is healthy and nothing is under way.
func (b *bed) atRest() (d controller.SiteDetail) {
	b.t.Helper()
	b.until("it is at rest", func(*store.Tx) (bool, error) {
		d = b.describe()
		return d.Health == "healthy" && d.Certificate.Failures == 0 && d.Certificate.Intent == "", nil
	})
	return d
}

// A name that the CA refuses is taken out of farm.yaml again: the certificate that is
// there will do, so that nothing is ordered, and what failed is no trouble any more.
func TestAMistakeIsTakenBack(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{ca: issuetest.Options{Blocked: []string{"refused.test"}}})
	must(t, b.DNS.Set("refused.test", "127.0.0.1"))
	b.named("", "refused.test")
	b.apply()
	b.until("the order fails", func(*store.Tx) (bool, error) { return b.describe().Certificate.Failures == 1, nil })
	if d := b.describe(); d.Health != "degraded" {
		t.Errorf("it is %s", d.Health)
	}
	b.named("refused.test", "")
	text, err := os.ReadFile(b.FarmFile)
	must(t, err)
	p, err := b.Controller.Plan(b.ctx, text, b.FarmFile)
	must(t, err)
	if len(p.Changes) != 1 || p.Changes[0].Do != plan.Site || p.Changes[0].Certificate || !strings.Contains(p.Changes[0].Why, "nothing is ordered") {
		t.Errorf("plan: %+v", p.Changes)
	}
	b.apply()
	if d := b.atRest(); len(d.Orders) != 2 || len(b.rollouts()) != 1 {
		t.Errorf("%d orders, %d rollouts\n%s", len(d.Orders), len(b.rollouts()), b.story())
	}
	b.allServe(v1)
	b.named("", "refused.test")
	b.apply()
	b.until("it is in trouble again", func(*store.Tx) (bool, error) { return b.describe().Health == "degraded", nil })
	if d := b.describe(); len(d.Orders) != 2 || !strings.Contains(strings.Join(d.Attention, "; "), "the last order failed at") {
		t.Errorf("%d orders, %q", len(d.Orders), d.Attention)
	}
}

// An order is held for a name that does not exist. When farm.yaml has the right one, or
// none, the order is given up: it would be held for weeks, and nothing else ordered.
func TestAnOrderForAMistakeIsGivenUp(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{})
	held := func(was, is string) {
		t.Helper()
		b.named(was, is)
		b.apply()
		b.until("the order for "+is+" is held", func(*store.Tx) (bool, error) {
			return strings.Contains(b.describe().Orders[0].Error, is+": it does not exist"), nil
		})
		if d := b.describe(); !strings.Contains(strings.Join(d.Attention, "; "), "its order waits: http-01 of "+is) {
			t.Errorf("to be done: %q", d.Attention)
		}
	}
	held("", "wrogn.test")
	must(t, b.DNS.Set("right.test", "127.0.0.1"))
	b.named("wrogn.test", "right.test")
	b.apply()
	if e := b.happens("order.given-up", ""); !strings.Contains(e.Text, "other names by now") || e.Level != farm.Warn {
		t.Errorf("told: %s", e.Text)
	}
	b.until("the right one is ordered", func(*store.Tx) (bool, error) { return slices.Contains(b.newest().Names, "right.test"), nil })
	b.soak(farm.Done, 2)
	b.atRest()
	held("right.test", "wrogn.test")
	b.named("wrogn.test", "right.test")
	b.apply()
	if d := b.atRest(); len(d.Orders) != 4 || len(d.Versions) != 2 {
		t.Errorf("%d orders, %d versions", len(d.Orders), len(d.Versions))
	}
}

// Nor is an order held by a way to prove its names that farm.yaml has no more: it is made
// anew, also where only a person wanted it.
func TestAnOrderIsProvenInAnotherWay(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{})
	name := b.Layout.Names[0]
	b.DNS.Forget(name)
	b.renew()
	b.until("the order is held", func(*store.Tx) (bool, error) {
		return strings.Contains(b.describe().Orders[0].Error, "http-01 of "+name), nil
	})
	must(t, b.DNS.Set(name, "127.0.0.1"))
	b.rewrite(func(text string) string {
		return strings.Replace(text, "via: gateway}", "front: true, via: redirect, to: \"http://"+name+"\"}", 1)
	})
	b.apply()
	if e := b.happens("order.given-up", ""); !strings.Contains(e.Text, "another way") {
		t.Errorf("told: %s", e.Text)
	}
	b.until("it is ordered anew", func(*store.Tx) (bool, error) { return len(b.describe().Versions) == 2, nil })
}
