package controller_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

// What is of no value to anybody is put right without an order: an older
// version, an expired certificate, a placeholder.
func TestDriftIsHealedWithoutAnOrder(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, v1 := serving(t, setting{edit: s.trusted})
	older, err := os.ReadFile(b.node("web1").Path(lab.DefaultPEM))
	must(t, err)
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.rests()

	b.put("web1", older)
	b.put("web2", s.issue(time.Now().Add(-time.Minute), b.Layout.Names...).both())
	b.put("web3", selfSigned(t, b.Layout.Names...).both())
	b.mustServe(v1, "web1")
	b.look()
	for _, n := range b.Nodes {
		b.comesTo(n.Name(), v2)
	}
	for n := 3; n <= 5; n++ { // one after another: one rollout of a site runs at a time
		if r := b.ended(farm.Done, n); r.Reason != "drift healed" || len(r.Steps) != 1 {
			t.Errorf("rollout %d: %q with %d steps", n, r.Reason, len(r.Steps))
		}
	}
	b.mustHaveIssued(2)
	b.rests()
	if d := b.describe(); d.Sync != "in-sync" || d.Health != "healthy" {
		t.Errorf("%s, %s: %v", d.Sync, d.Health, d.Attention)
	}
}

// With drift: report people are told, and nothing is changed.
func TestDriftIsOnlyReportedWhereThePolicySaysSo(t *testing.T) {
	t.Parallel()
	p := quick()
	p.Drift = farm.Report
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: p})
	placeholder := selfSigned(t, b.Layout.Names...)
	b.put("web2", placeholder.both())
	b.look()
	if e := b.happens("target.drift", ""); e.Node != "web2" || e.Level != farm.Warn || !strings.Contains(e.Text, "self-signed") {
		t.Errorf("%+v", e)
	}
	b.look()
	b.rests()
	b.mustServe(placeholder.fingerprint, "web2")
	b.mustServe(v1, "web1")
	if n := len(b.rollouts()); n != 1 {
		t.Errorf("%d rollouts, want the first only", n)
	}
	if d := b.describe(); d.Sync != "drifted" || len(d.Attention) != 1 {
		t.Errorf("%s: %v", d.Sync, d.Attention)
	}

	// A person's word restores it, and there is nothing to restore on the other.
	drifted := b.describe().Places[1].Target.Name
	refused(t, b.Controller.Restore(b.ctx, b.Farm, b.describe().Places[0].Target.Name, "somebody"), "what it should")
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", true))
	refused(t, b.Controller.Restore(b.ctx, b.Farm, drifted, "somebody"), "held by")
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", false))
	must(t, b.Controller.Restore(b.ctx, b.Farm, drifted, "somebody"))
	b.ended(farm.Done, 2)
	b.allServe(v1)
}

// A valid certificate that is not ours may be a person's night fix: it is
// reported, and healing does not touch it.
func TestAStrangersValidCertificateIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: s.trusted})
	fix := s.issue(time.Now().AddDate(0, 0, 20), b.Layout.Names...)
	b.put("web2", fix.both())
	b.look()
	if e := b.happens("target.drift", ""); e.Node != "web2" || !strings.Contains(e.Text, "not ours") {
		t.Errorf("%+v", e)
	}
	b.pass(10 * time.Minute) // it is looked at again
	b.rests()
	b.mustServe(fix.fingerprint, "web2")
	b.mustServe(v1, "web1")
	if n := len(b.rollouts()); n != 1 {
		t.Errorf("%d rollouts, want the first only", n)
	}
	b.mustHaveIssued(1)
}
