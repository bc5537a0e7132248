package e2e

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/snippet"
	"github.com/certfarm/certfarm/internal/store"
)

// TestProving: a farm is applied before any server has a rule, the rules that the
// controller prints are put in one by one, and the certificate comes with the last.
// Until then preflight names the nodes that lack theirs, and the CA hears of no
// order. Via gateway the rule is the balancer's, which is named by its address.
func TestProving(t *testing.T) {
	if !inWorld(t) {
		return
	}
	w := newWorld(t)
	for _, via := range snippet.Vias() {
		t.Run(via, func(t *testing.T) { w.proves(t, via) })
	}
}

// validation is what farm.yaml says for a way.
func (w *world) validation(via string) string {
	switch via {
	case farm.Gateway:
		return "{via: gateway}"
	case farm.Redirect:
		return "{via: redirect, to: \"http://" + acmeName + "\", on: {pool: web}}"
	case farm.Distribute:
		return "{via: distribute, webroot: " + w.webroot() + ", on: {pool: web}}"
	}
	return "{via: stateless, on: {pool: web}}"
}

func (w *world) proves(t *testing.T, via string) {
	w.serveAll(t, false, "", "")
	ruled, names := w.webs, []string{"web1", "web2", "web3", "web4"}
	if via == farm.Gateway {
		ruled, names = []*machine{w.balancer}, []string{balancerAt}
	}
	before := w.ca.Stats().Orders[strings.Join(siteNames, ",")]
	r := w.control(t, via)
	r.applyText(t, w.farmYAML(r.nodes[0], w.validation(via)))
	r.held(t)
	for i, m := range ruled {
		if wrong := r.wrong(t, via); !slices.Equal(wrong, names[i:]) {
			t.Errorf("%v lack the rule, and preflight names %v", names[i:], wrong)
		}
		if n := w.ca.Stats().Orders[strings.Join(siteNames, ",")]; n != before {
			t.Errorf("the CA has heard of %d orders, and %s has no rule", n-before, m.name)
		}
		s, err := r.Snippet(t.Context(), farmName, siteName, controller.SnippetAsk{Server: m.kind, Controllers: w.ask("", "", "").Controllers})
		must(t, err)
		m.run(t, s)
	}
	if wrong := r.wrong(t, via); len(wrong) > 0 {
		t.Errorf("all have the rule, and preflight names %v", wrong)
	}
	must(t, r.Renew(t.Context(), farmName, siteName, "e2e")) // not to wait for the next look
	ro := r.ended(t, limit, farm.Done)
	r.seen(t, r.leaf(t, ro.To.ID))
	if n := w.ca.Stats().Orders[strings.Join(siteNames, ",")]; n != before+1 {
		t.Errorf("the CA has heard of %d orders for one certificate", n-before)
	}
	w.clean(t)
}

// clean holds that no token is left on any machine.
func (w *world) clean(t *testing.T) {
	t.Helper()
	for _, m := range w.webs {
		within(t, limit, "nothing is left on "+m.name, func() bool {
			left, err := filepath.Glob(m.path("webroot", ".well-known", "acme-challenge", "*"))
			return err == nil && len(left) == 0
		})
	}
}

// held waits until the controller says that it holds the order.
func (r *rig) held(t *testing.T) {
	t.Helper()
	within(t, limit, "the order is held", func() bool {
		events, err := r.Events(t.Context(), farmName, store.EventQuery{Limit: 100})
		must(t, err)
		return slices.ContainsFunc(events, func(e farm.Event) bool { return e.Kind == "preflight.wrong" })
	})
}

// wrong are those who have the rule and whom preflight finds wrong, for every name
// of the site: nodes, or addresses via gateway.
func (r *rig) wrong(t *testing.T, via string) (all []string) {
	t.Helper()
	report, err := r.Preflight(t.Context(), farmName, siteName, false)
	must(t, err)
	names := map[string][]string{}
	for _, f := range report.Findings {
		who := f.Node
		if via == farm.Gateway {
			who = f.Address
		}
		if who == "" || f.Verdict != http01.Wrong {
			continue
		}
		names[who] = append(names[who], f.Name)
		if f.Remedy == "" {
			t.Errorf("no remedy for %s at %s, which answers %s", f.Name, who, f.Saw)
		}
	}
	for who, of := range names {
		if slices.Sort(of); !slices.Equal(slices.Compact(of), siteNames) {
			t.Errorf("%s is wrong for %v alone", who, of)
		}
		all = append(all, who)
	}
	slices.Sort(all)
	return all
}

// control runs a controller in the world until the test ends.
func (w *world) control(t *testing.T, name string) *rig {
	t.Helper()
	r := w.rig(t, name, filepath.Join(t.TempDir(), "certfarm.db"), filepath.Join(t.TempDir(), "master.key"))
	w.hooks.set(r.ChallengeHandler())
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		w.hooks.set(nil)
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return r
}

// rig is a controller that does not run yet, over a database and a file with the
// master key. The certificates go to an nginx of its own.
func (w *world) rig(t *testing.T, name, database, master string) *rig {
	t.Helper()
	edge := &node{nodeSpec: nodeSpec{name: "edge", kind: snippet.Nginx}, addr: controllersAt, dir: filepath.Join(w.dir, "edge-"+name)}
	for _, d := range []string{"tls", "store", "run"} {
		must(t, os.MkdirAll(edge.path(d), 0o755))
	}
	must(t, os.WriteFile(edge.path("nginx.conf"), []byte(edge.nginxConf()), 0o644))
	t.Cleanup(func() { must(t, end(mentions(edge.dir+"/"))) })
	g := &ground{dir: w.dir, nodes: []*node{edge}, dns: w.dns, ca: w.ca, roots: x509.NewCertPool()}
	g.roots.AppendCertsFromPEM([]byte(w.ca.Roots))
	s, err := store.Open(t.Context(), database, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	keys, err := secret.Load(secret.Source{File: master})
	must(t, err)
	log := &locked{}
	c, lines := controller.Real(s, keys, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { must(t, lines.Close()) })
	c.InPlace, c.Pace, c.Helper = true, pace, w.helper
	r := &rig{ground: g, trouble: &trouble{}, log: log, Controller: controller.New(c)}
	t.Cleanup(func() {
		if t.Failed() {
			r.journal(t)
			t.Log(log.String())
		}
	})
	return r
}
