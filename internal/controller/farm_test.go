package controller_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// target is a node's target in the lab's farm.yaml, but the first, which has the
// options that the others repeat.
func target(node string) *regexp.Regexp {
	return regexp.MustCompile(`      - kind: nginx\n        on: ` + node + `\n        options: .*\n        endpoints: .*\n`)
}

// A target that is gone from farm.yaml is left alone and listed until it is
// retired; one that is new gets what the others have, without an order.
func TestTargetsGoAndCome(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	var gone string
	take := func(text string) string {
		gone = target("web3").FindString(text)
		return strings.Replace(text, gone, "", 1)
	}
	retire := func() error { return b.Controller.Retire(b.ctx, b.Farm, "shop/nginx@web3", "somebody") }
	refused(t, retire(), "still in farm.yaml")
	b.rewrite(take)
	b.apply()
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.mustServe(v2, "web1", "web2")
	b.mustServe(v1, "web3")
	d := b.describe()
	if d.Targets != 2 || len(d.Attention) != 1 || !strings.Contains(d.Attention[0], "retire") {
		t.Errorf("%d targets: %v", d.Targets, d.Attention)
	}
	must(t, retire())
	if d := b.describe(); len(d.Places) != 2 || len(d.Attention) != 0 {
		t.Errorf("%d places: %v", len(d.Places), d.Attention)
	}
	b.rests()
	b.mustServe(v1, "web3")

	b.rewrite(func(text string) string { return strings.Replace(text, "    balancers:\n", gone+"    balancers:\n", 1) })
	b.apply()
	if r := b.ended(farm.Done, 3); len(r.Steps) != 1 || r.To.ID != d.Certificate.Version {
		t.Errorf("%+v", r)
	}
	b.allServe(v2)
	b.mustHaveIssued(2)
}

// A target that a rollout works on is not forgotten: the rollout could never end.
func TestATargetOfARunningRolloutIsNotRetired(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	b.rewrite(func(text string) string { return target("web3").ReplaceAllString(text, "") })
	b.apply()
	retire := func() error { return b.Controller.Retire(b.ctx, b.Farm, "shop/nginx@web3", "somebody") }
	refused(t, retire(), "a rollout of shop")
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	b.ended(farm.Done, 2)
	must(t, retire())
}

// A target whose options change is installed anew, as the plan says, with the
// version that it has.
func TestChangedOptionsAreRolledOut(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	b.rewrite(func(text string) string { return strings.Replace(text, "store: /store", "store: /store2", 1) })
	b.apply()
	r := b.ended(farm.Done, 2)
	if len(r.Steps) != 2 {
		t.Errorf("%d steps, want 2", len(r.Steps))
	}
	b.allServe(v1)
	b.mustHaveIssued(1)
}

// Other names are another certificate. Clients have not seen it: it has a canary
// and is watched, though the policy asks for neither.
func TestChangedNamesAreOrderedAndHaveACanary(t *testing.T) {
	t.Parallel()
	p := quick()
	p.Canary, p.MaxParallel = farm.Share{}, 3
	b, v1 := serving(t, setting{policy: p})
	if r := b.rollouts()[0]; len(r.Waves) != 1 {
		t.Errorf("waves: %v", r.Waves)
	}
	must(t, b.DNS.Set("new.test", "127.0.0.1"))
	b.rewrite(func(text string) string {
		return strings.Replace(text, `names: ["shop.test"`, `names: ["shop.test", "new.test"`, 1)
	})
	b.apply()
	b.until("the canary is live", func(*store.Tx) (bool, error) { return b.serves("web1") != v1, nil })
	b.mustServe(v1, "web2", "web3")
	b.pass(30 * time.Second)
	b.mustServe(v1, "web2", "web3")
	r := b.soak(farm.Done, 2)
	b.allServe(b.fingerprint(r.To.ID))
	if got := b.CA.Stats().Certificates["new.test,shop.test,www.shop.test"]; got != 1 {
		t.Errorf("%d certificates for the new names: %v", got, b.CA.Stats().Certificates)
	}
	if r.Waves[0].Name != "canary" || r.Policy.Soak < time.Minute {
		t.Errorf("waves %v, soak %s", r.Waves, r.Policy.Soak)
	}
}

// blogPEM is where the nodes' server has the second site's certificate.
const blogPEM = "/etc/tls/blog.pem"

// twoSites is a farm of which each node serves a second site, blog.
func twoSites(nodes int) lab.Layout {
	return lab.Layout{Nodes: nodes, Placeholder: true, Pairs: []lab.Pair{{Chain: lab.DefaultPEM}, {Chain: blogPEM}}}
}

// blog adds the second site to farm.yaml, on the same nodes.
func blog(issuer string) func(*bed, string) string {
	return func(b *bed, text string) string {
		must(b.t, b.DNS.Set("blog.test", "127.0.0.1"))
		_, targets, _ := strings.Cut(text, "    targets:")
		targets, _, _ = strings.Cut(targets, "    balancers:\n")
		targets = strings.NewReplacer("&webd ", "&blog ", "*webd", "*blog", lab.DefaultPEM, blogPEM).Replace(targets)
		_, policy, _ := strings.Cut(text, "    policy:\n")
		return text + "  blog:\n    names: [blog.test]\n    issuer: " + issuer + "\n    targets:" + targets + "    policy:\n" + policy
	}
}

// Two sites whose certificates go live on a node at one time share one reload.
func TestTwoSitesOfANodeShareOneReload(t *testing.T) {
	t.Parallel()
	p := quick()
	p.Canary, p.MaxParallel = farm.Share{}, 2
	b := newBed(t, setting{
		layout: twoSites(2), policy: p, edit: blog("pebble"),
		adjust: func(_ *bed, c *controller.Config) { c.Workers = 1 }, // both have decided before either acts
	})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.apply()
	frozen := func(site string) {
		t.Helper()
		b.until(site+" waits", func(*store.Tx) (bool, error) {
			all, err := b.Controller.Progress(b.ctx, b.Farm, site)
			return len(all) == 1 && strings.Contains(all[0].Waits, "frozen"), err
		})
	}
	frozen("shop")
	frozen("blog")
	before := b.reloads("web1") + b.reloads("web2")
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	b.ended(farm.Done, 1)
	b.until("blog is done", func(tx *store.Tx) (bool, error) {
		all, err := tx.Rollouts(b.ctx, b.Farm, "blog", 1)
		return len(all) == 1 && all[0].Outcome == farm.Done, err
	})
	if n := b.reloads("web1") + b.reloads("web2") - before; n != 2 {
		t.Errorf("%d reloads of two nodes for two sites, want one a node: %q", n, b.node("web1").Ran())
	}
	for _, n := range b.Nodes {
		for name, site := range map[string]string{"shop.test": "shop", "blog.test": "blog"} {
			got, err := lab.Serving(b.ctx, n.HTTPSAddr(), name)
			d, err2 := b.Controller.Describe(b.ctx, b.Farm, site)
			if err != nil || err2 != nil || got != d.Version {
				t.Errorf("%s serves %s for %s, want %s (%v, %v)", n.Name(), got, name, d.Version, err, err2)
			}
		}
	}
}
