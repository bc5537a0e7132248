package controller_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// policyLine adds a line to the policy in farm.yaml.
func policyLine(line string) func(*bed, string) string {
	return func(_ *bed, text string) string {
		return strings.Replace(text, "      drift: heal\n", "      drift: heal\n      "+line+"\n", 1)
	}
}

// assent makes the last of three nodes a wave that a person must approve.
func assent(b *bed, text string) string {
	at := strings.Index(text, "\n  web3:")
	text = text[:at] + strings.Replace(text[at:], "{pool: web}", "{pool: careful}", 1)
	return policyLine("waves: [{name: careful, match: {pool: careful}, approve: true}]")(b, text)
}

// refused fails unless the error is a refusal that says what to do instead.
func refused(t *testing.T, err error, word string) {
	t.Helper()
	var r *controller.Refusal
	if !errors.As(err, &r) || r.Hint == "" || !strings.Contains(r.Problem, word) {
		t.Errorf("got %v, want a refusal with a hint that says %q", err, word)
	}
}

// Undo brings the version before back, and nothing brings the other one back by
// itself; nor is another one ordered at once because the older is due.
func TestUndoBringsTheEarlierVersionBackAndItStays(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	refused(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "", "somebody"), "no earlier version")
	past := time.Now().Add(-time.Hour)
	first := b.describe().Versions[0]
	must(t, b.CA.SetARI(first.Leaves[0].Chain, issuetest.Window{Start: past.Add(-time.Hour), End: past}))
	b.renew()
	v2 := b.ended(farm.Done, 2).To.ID
	b.rests()

	refused(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, v2, "somebody"), "newest already")
	refused(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "none", "somebody"), "no version none")
	must(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, first.Leaf()[:8], "somebody"))
	r := b.ended(farm.Done, 3)
	if r.To.ID != first.ID || r.Reason != "an earlier version is brought back" {
		t.Errorf("%q brought %s", r.Reason, r.To.ID)
	}
	b.allServe(v1)
	b.pass(23 * time.Hour)
	b.look()
	b.rests()
	b.allServe(v1)
	b.mustHaveIssued(2)

	b.pass(2 * time.Hour) // the CA has wanted it renewed all the time
	r = b.ended(farm.Done, 4)
	if r.To.ID == v2 || r.To.ID == first.ID {
		t.Errorf("%s was rolled out, want a new one", r.To.ID)
	}
	b.mustHaveIssued(3)
}

// Freeze stops every activation, and lifting it goes on.
func TestFreezeStopsActivations(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	b.pass(24 * time.Hour)
	b.waits("frozen")
	b.allServe(v1)
	if by, err := b.Controller.Frozen(b.ctx, b.Farm); by != "somebody" || err != nil {
		t.Errorf("frozen by %q, %v", by, err)
	}
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	b.allServe(b.fingerprint(b.ended(farm.Done, 2).To.ID))
	b.mustHaveIssued(2)
}

// In the middle of a rollout a person may pause it, go on, and put all back. What
// is refused says what to do instead.
func TestPauseResumeAndAbort(t *testing.T) {
	t.Parallel()
	p := quick()
	p.Soak = 2 * time.Minute
	b := newBed(t, setting{policy: p})
	b.apply()
	b.soak(farm.Done, 1)
	v1 := b.serves("web1")
	tell := func(word string) {
		t.Helper()
		_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, word, "", "somebody")
		must(t, err)
	}
	b.renew()
	b.until("the canary is live", func(*store.Tx) (bool, error) { return b.serves("web1") != v1, nil })
	tell(controller.Pause)
	b.waits("paused")
	b.pass(time.Hour)
	b.waits("paused")
	b.mustServe(v1, "web2", "web3")
	tell(controller.Resume)
	r := b.soak(farm.Done, 2)
	v2 := b.fingerprint(r.To.ID)
	b.allServe(v2)
	_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Pause, "", "somebody")
	refused(t, err, "has ended")

	b.renew()
	b.until("the canary is live", func(*store.Tx) (bool, error) { return b.serves("web1") != v2, nil })
	refused(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "", "somebody"), "runs")
	_, err = b.Controller.Tell(b.ctx, b.Farm, b.Site, "sing", "", "somebody")
	refused(t, err, "sing")
	_, err = b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Approve, "", "somebody")
	refused(t, err, "approval")
	tell(controller.Abort)
	r3 := b.ended(farm.RolledBack, 3)
	if !strings.Contains(r3.Why, "aborted by somebody") {
		t.Errorf("why: %s", r3.Why)
	}
	b.allServe(v2)

	// What a person ended is begun again by a person: no hour brings it, and no check.
	e := b.happens("rollout.restored", "")
	if !strings.Contains(e.Hint, "not tried again by itself") {
		t.Errorf("%+v", e)
	}
	b.rests()
	for range 2 {
		b.pass(7 * time.Hour)
		b.look()
		b.rests()
	}
	b.allServe(v2)
	d := b.describe()
	if len(b.rollouts()) != 3 || d.Certificate.Retries != 0 || !d.Certificate.Retry.IsZero() {
		t.Errorf("%d rollouts, %d retries, the next at %s", len(b.rollouts()), d.Certificate.Retries, d.Certificate.Retry)
	}
	if len(d.Attention) != 1 || !strings.Contains(d.Attention[0], "aborted by somebody") || !strings.Contains(d.Verdict, "aborted by somebody") {
		t.Errorf("the status does not say so: %q, %q", d.Attention, d.Verdict)
	}
	tell(controller.Approve)
	if again := b.soak(farm.Done, 4); again.To.ID != r3.To.ID {
		t.Errorf("%s was rolled out, want what was aborted", again.To.ID)
	}
	b.mustHaveIssued(3)
	b.rests()
	if d := b.describe(); len(d.Attention) != 0 {
		t.Errorf("%q", d.Attention)
	}
}

// A version after the one that a person aborted goes out by itself.
func TestANewerVersionThanTheAbortedOneIsRolledOut(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	b.tell(controller.Abort)
	b.ended(farm.RolledBack, 2)
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	b.rests()
	b.allServe(v1)
	b.renew()
	b.allServe(b.fingerprint(b.ended(farm.Done, 3).To.ID))
	b.mustHaveIssued(3)
}

// An imported certificate will do, though its key is of another type than
// farm.yaml asks for, until farm.yaml asks for something else.
func TestAnImportedCertificateOfAnotherKeyTypeIsKept(t *testing.T) {
	t.Parallel()
	s, keys := newStranger(t), regexp.MustCompile(`(?m)^    keys: .*$`)
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: func(b *bed, text string) string {
		return keys.ReplaceAllString(s.trusted(b, text), "    keys: [ec384]")
	}})
	own := s.issue(time.Now().AddDate(0, 3, 0), b.Layout.Names...)
	_, err := b.Controller.Import(b.ctx, b.Farm, b.Site, own.chain, farm.NewSecret(own.key), "somebody")
	must(t, err)
	b.soak(farm.Done, 2)
	b.pass(24 * time.Hour)
	b.rests()
	b.allServe(own.fingerprint)
	b.mustHaveIssued(1)
	b.rewrite(func(text string) string { return keys.ReplaceAllString(text, "    keys: [rsa2048]") })
	b.apply()
	b.soak(farm.Done, 3)
	b.mustHaveIssued(2)
}

// soak passes the time that a rollout watches what it has made live, a minute at
// a time, until it has ended.
func (b *bed) soak(outcome farm.Outcome, n int) farm.Rollout {
	b.t.Helper()
	for {
		ended := false
		b.until(fmt.Sprintf("rollout %d waits or has ended", n), func(tx *store.Tx) (bool, error) {
			all := b.rollouts()
			if len(all) < n {
				return false, nil
			}
			ended = all[len(all)-n].Outcome != farm.Running
			p, err := b.Controller.Progress(b.ctx, b.Farm, b.Site)
			return ended || err == nil && p[0].Waits != "", err
		})
		if ended {
			return b.ended(outcome, n)
		}
		b.pass(time.Minute)
	}
}

// A wave that needs a person's assent waits for it; a newer version supersedes the
// rollout that waits, and goes everywhere.
func TestAWaveWaitsForApprovalAndIsSuperseded(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{edit: assent})
	b.apply()
	approve := func() {
		t.Helper()
		b.waits("approval")
		_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Approve, "careful", "somebody")
		must(t, err)
	}
	approve()
	v1 := b.fingerprint(b.ended(farm.Done, 1).To.ID)
	b.allServe(v1)

	b.renew()
	b.waits("approval")
	b.pass(24 * time.Hour)
	b.waits("approval")
	b.mustServe(v1, "web3", "web2") // the rest comes after the waves
	v2 := b.serves("web1")

	b.renew()
	b.ended(farm.Superseded, 2)
	b.mustServe(v1, "web3")
	approve()
	v3 := b.fingerprint(b.ended(farm.Done, 3).To.ID)
	b.allServe(v3)
	b.mustHaveIssued(3)
	if v2 == v1 || v3 == v2 {
		t.Errorf("v1 %s, v2 %s, v3 %s", v1, v2, v3)
	}
}

// A version that is put back says nothing of the newer one that waits for it: that
// is not kept waiting for an hour.
func TestANewerVersionDoesNotWaitForTheRetryOfTheOlder(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: s.trusted})
	b.set("web2", lab.BadReload)
	b.renew()
	b.until("web2 is active", func(tx *store.Tx) (bool, error) {
		all := b.rollouts()
		return len(all) == 2 && all[0].Steps[1].State == farm.Active, nil
	})
	own := s.issue(time.Now().AddDate(0, 3, 0), b.Layout.Names...)
	_, err := b.Controller.Import(b.ctx, b.Farm, b.Site, own.chain, farm.NewSecret(own.key), "somebody")
	must(t, err)
	b.happens("rollout.back", "")
	b.ended(farm.RolledBack, 2)
	b.set("web2", lab.NoFault)
	b.soak(farm.Done, 3) // another root: it is watched for a minute
	b.allServe(own.fingerprint)
	if skipped := time.Duration(b.clock.ahead.Load()); skipped > 10*time.Minute {
		t.Errorf("it waited for %s", skipped)
	}
}

// Outside the maintenance window everything is staged and nothing is made live;
// when it opens, it goes on by itself.
func TestAClosedWindowIsWaitedFor(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	opens := time.Now().UTC().Add(2 * time.Hour)
	window := fmt.Sprintf("window: '%s-%s UTC'", opens.Format("15:04"), opens.Add(time.Hour).Format("15:04"))
	b.rewrite(func(text string) string { return policyLine(window)(b, text) })
	b.apply()
	b.renew()
	if p := b.waits("window"); p.Again.Sub(opens).Abs() > 2*time.Minute {
		t.Errorf("it goes on at %s, want %s", p.Again, opens)
	}
	b.pass(110 * time.Minute)
	b.waits("window")
	b.allServe(v1)
	b.pass(15 * time.Minute)
	b.allServe(b.fingerprint(b.ended(farm.Done, 2).To.ID))
}

// A target with a window of its own keeps nobody waiting: it follows when its window
// opens, with the same certificate, and people are told until then.
func TestATargetWithItsOwnWindowFollows(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	opens := time.Now().UTC().Add(2 * time.Hour)
	own := fmt.Sprintf("\n        window: '%s-%s UTC'", opens.Format("15:04"), opens.Add(time.Hour).Format("15:04"))
	b.rewrite(func(text string) string { return strings.Replace(text, "on: web2", "on: web2"+own, 1) })
	b.apply()
	b.renew()
	r := b.ended(farm.Done, 2)
	v2 := b.fingerprint(r.To.ID)
	if len(r.Steps) != 1 {
		t.Errorf("the rollout had %d targets, want 1 without web2", len(r.Steps))
	}
	b.mustServe(v2, "web1")
	b.mustServe(v1, "web2")
	b.until("the shut window is told", func(*store.Tx) (bool, error) {
		return strings.Contains(strings.Join(b.describe().Attention, "; "), "web2 has a window of its own: "+v2[:8]), nil
	})
	b.pass(110 * time.Minute)
	b.look()
	b.mustServe(v1, "web2")
	b.pass(15 * time.Minute)
	if r := b.ended(farm.Done, 3); r.To.ID != b.describe().Certificate.Version {
		t.Errorf("web2 got version %s", r.To.ID)
	}
	b.allServe(v2)
	b.mustHaveIssued(2)
}

// When little life is left windows and approvals give way, and it is announced.
func TestLittleLifeLeftOpensWindows(t *testing.T) {
	t.Parallel()
	lives := map[string]time.Duration{"brief": 24 * time.Hour, "default": 90 * 24 * time.Hour}
	b, v1 := serving(t, setting{
		layout: lab.Layout{Nodes: 2}, ca: issuetest.Options{Profiles: lives},
		edit: func(_ *bed, text string) string {
			return strings.Replace(text, `profile: "default"`, `profile: "brief"`, 1)
		},
	})
	brief := b.describe().Versions[0]
	if life := brief.NotAfter().Sub(brief.NotBefore()).Round(time.Hour); life != 24*time.Hour {
		t.Errorf("profile brief gave %s", life)
	}
	b.rewrite(func(text string) string {
		text = strings.Replace(text, `profile: "brief"`, `profile: "default"`, 1)
		return policyLine("waves: [{name: all, match: {pool: web}, approve: true}]")(b, text)
	})
	b.apply() // another profile is another certificate
	b.waits("approval")
	b.mustServe(v1, "web2")
	b.pass(brief.NotAfter().Sub(b.clock.now()) - time.Hour)
	r := b.ended(farm.Done, 2)
	b.allServe(b.fingerprint(r.To.ID))
	b.happens("rollout.pressing", "")
	if life := r.To.NotAfter.Sub(r.To.NotBefore); life < 89*24*time.Hour {
		t.Errorf("profile default gave %s", life)
	}
	b.mustHaveIssued(2)
}

// Nothing is changed on a node that is held, not by a rollout that is under way
// either; what it missed is brought there when it is released.
func TestAHeldNodeIsLeftAlone(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	hold := func(on bool) {
		t.Helper()
		must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", on))
	}
	hold(true)
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.mustServe(v1, "web2")
	b.mustServe(v2, "web1", "web3")
	if n, err := b.Controller.NodeStatus(b.ctx, b.Farm, "web2"); err != nil || n.Held != "somebody" {
		t.Errorf("%+v, %v", n, err)
	}
	hold(false)
	b.comesTo("web2", v2)
	b.ended(farm.Done, 3)
	b.mustHaveIssued(2)
	b.rests()

	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	hold(true)
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	b.waits("web2 is held")
	b.pass(time.Hour)
	b.waits("web2 is held")
	b.allServe(v2)
	hold(false)
	b.allServe(b.fingerprint(b.ended(farm.Done, 4).To.ID))
	b.mustHaveIssued(3)
}
