package controller_test

import (
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// tell says a word to the site's newest rollout.
func (b *bed) tell(word string) {
	b.t.Helper()
	_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, word, "", "somebody")
	must(b.t, err)
}

// fix puts a stranger's valid certificate on a node, as a person would at night.
func (b *bed) fix(s *stranger, node string) pair {
	b.t.Helper()
	p := s.issue(time.Now().AddDate(0, 0, 20), b.Layout.Names...)
	b.put(node, p.both())
	return p
}

// leftAlone fails unless the rollout says of web2, and only of it, that it was
// left alone, and how a person assents.
func (b *bed) leftAlone(r farm.Rollout) {
	b.t.Helper()
	for _, s := range r.Steps {
		if is := strings.Contains(s.Target, "web2"); is != (s.State == farm.Left) || is && s.Receipt != nil && s.Did != farm.DoDiscard {
			b.t.Errorf("%s is %s", s.Target, s.State)
		}
	}
	if !strings.Contains(r.Why, "web2") || !strings.Contains(r.Why, "not ours") {
		b.t.Errorf("it does not say what is there: %s", r.Why)
	}
	e := b.happens("step.left", "")
	if e.Node != "web2" || e.Level != farm.Warn || !strings.Contains(e.Hint, "certfarm rollout approve shop") {
		b.t.Errorf("%+v", e)
	}
	if d := b.describe(); len(d.Attention) != 1 || !strings.Contains(d.Attention[0], "certfarm rollout approve shop") {
		b.t.Errorf("it is not told what waits for a person: %q", d.Attention)
	}
}

// A renewal leaves a person's night fix alone, tells of it, and goes on with the
// others. When a person assents it is replaced, without a new order.
func TestARenewalLeavesAStrangersCertificateAlone(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, _ := serving(t, setting{edit: s.trusted})
	fix := b.fix(s, "web2")
	b.renew() // nobody has seen it: this is no assent to replace it
	r := b.ended(farm.DonePartly, 2)
	b.leftAlone(r)
	v2 := b.fingerprint(r.To.ID)
	b.mustServe(v2, "web1", "web3")
	b.mustServe(fix.fingerprint, "web2")
	b.pass(2 * time.Hour) // no time makes it ours
	b.look()
	b.rests()
	b.mustServe(fix.fingerprint, "web2")
	if n := len(b.rollouts()); n != 2 {
		t.Errorf("%d rollouts, want 2", n)
	}

	b.tell(controller.Approve)
	if again := b.ended(farm.Done, 3); len(again.Steps) != 1 || again.To.ID != r.To.ID {
		t.Errorf("%+v", again.Steps)
	}
	b.allServe(v2)
	b.mustHaveIssued(2)
	b.rests()
	if d := b.describe(); d.Sync != "in-sync" || len(d.Attention) != 0 {
		t.Errorf("%s: %v", d.Sync, d.Attention)
	}

	later := b.fix(s, "web2") // what was assented to was another one
	b.look()
	b.until("it is seen", func(*store.Tx) (bool, error) { return b.place("web2").Foreign, nil })
	b.pass(10 * time.Minute)
	b.rests()
	b.mustServe(later.fingerprint, "web2")
}

// Who asks for a renewal after a stranger's certificate was reported wants it
// replaced.
func TestARenewalThatAPersonAsksForReplacesWhatWasReported(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: s.trusted})
	b.fix(s, "web2")
	b.look()
	b.happens("target.drift", "")
	b.renew()
	b.allServe(b.fingerprint(b.ended(farm.Done, 2).To.ID))
	b.mustHaveIssued(2)
}

// The first installation finds a certificate that a person keeps by hand.
func TestAFirstInstallationLeavesAStrangersCertificateAlone(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b := newBed(t, setting{layout: lab.Layout{Nodes: 2, Placeholder: true}, edit: s.trusted})
	fix := b.fix(s, "web2")
	b.apply()
	r := b.ended(farm.DonePartly, 1)
	b.leftAlone(r)
	b.mustServe(fix.fingerprint, "web2")
	b.mustServe(b.fingerprint(r.To.ID), "web1")
	b.tell(controller.Approve)
	b.ended(farm.Done, 2)
	b.allServe(b.fingerprint(r.To.ID))
	b.mustHaveIssued(1)
}

// Everything is staged, and the window is shut: what a person puts on a node
// meanwhile is left alone when it opens.
func TestAFixBetweenStageAndActivationIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: s.trusted})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	fix := b.fix(s, "web2")
	b.pass(10 * time.Minute)
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	r := b.ended(farm.DonePartly, 2)
	b.leftAlone(r)
	b.mustServe(fix.fingerprint, "web2")
	b.mustServe(b.fingerprint(r.To.ID), "web1")
}

// A target that is taken out of farm.yaml while a rollout runs is not changed any
// more: what was staged is taken away, and what is live stays.
func TestATargetTakenOutOfARunningRolloutIsNotChanged(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	reloads := b.reloads("web3")
	b.rewrite(func(text string) string { return target("web3").ReplaceAllString(text, "") })
	b.apply()
	if e := b.happens("step.gone", ""); e.Node != "web3" || !strings.Contains(e.Text, "gone from farm.yaml") {
		t.Errorf("%+v", e)
	}
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	r := b.ended(farm.Done, 2)
	b.mustServe(b.fingerprint(r.To.ID), "web1", "web2")
	b.mustServe(v1, "web3")
	if n := b.reloads("web3") - reloads; n != 0 {
		t.Errorf("web3 was reloaded %d times", n)
	}
	for _, s := range r.Steps {
		if strings.Contains(s.Target, "web3") && (s.State != farm.Gone || s.Did != farm.DoDiscard) {
			t.Errorf("web3 is %s, the last act was %s: what was staged is to be taken away", s.State, s.Did)
		}
	}
}

// Made live already, it stays as it is, though the others go back.
func TestALiveTargetTakenOutOfFarmYAMLStaysAsItIs(t *testing.T) {
	t.Parallel()
	p := quick()
	p.Soak = 2 * time.Minute
	b := newBed(t, setting{policy: p})
	b.apply()
	b.soak(farm.Done, 1)
	v1 := b.serves("web2")
	b.renew()
	b.until("the canary is live", func(*store.Tx) (bool, error) { return b.serves("web1") != v1, nil })
	v2 := b.serves("web1")
	b.waits("watching")
	b.rewrite(func(text string) string {
		first := target("web1").FindString(text) // the others repeat its options
		_, options, _ := strings.Cut(first, "options: ")
		options, _, _ = strings.Cut(options, "\n")
		anchor, rest, _ := strings.Cut(options, " ")
		text = strings.Replace(text, first, "", 1)
		return strings.Replace(text, "options: *"+strings.TrimPrefix(anchor, "&"), "options: "+anchor+" "+rest, 1)
	})
	b.apply()
	b.tell(controller.Abort)
	b.ended(farm.RolledBack, 2)
	b.mustServe(v2, "web1")
	b.mustServe(v1, "web2", "web3")
}
