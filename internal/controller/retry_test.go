package controller_test

import (
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// A version that was put back because a node could not be reached is rolled out
// again as soon as it answers, and nothing new is ordered.
func TestARestoredVersionIsTriedAgainWhenTheNodeAnswers(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	b.set("web2", lab.SSHDown)
	b.renew()
	r := b.ended(farm.RolledBack, 2)
	b.allServe(v1)
	if e := b.happens("target.serves", ""); e.Node != "web2" {
		t.Errorf("%+v", e)
	}
	if at := b.describe().Certificate.Retry; at.Before(b.clock.now().Add(59 * time.Minute)) {
		t.Errorf("the next try is at %s, want an hour from now", at)
	}
	b.set("web2", lab.NoFault)
	again := b.ended(farm.Done, 3)
	if again.To.ID != r.To.ID || again.Reason != "tried again" {
		t.Errorf("%q brought %s, want %s again", again.Reason, again.To.ID, r.To.ID)
	}
	b.allServe(b.fingerprint(r.To.ID))
	b.mustHaveIssued(2)
}

// The node is back before anybody looked: that the rollout could not reach it is
// enough to try at once when it answers.
func TestARestoredVersionIsTriedAgainThoughNobodySawTheNodeAway(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{})
	b.set("web2", lab.SSHDown)
	b.renew()
	b.until("it goes back", func(*store.Tx) (bool, error) {
		all := b.rollouts()
		return len(all) == 2 && all[0].Back != "", nil
	})
	b.set("web2", lab.NoFault) // looks wait while a rollout runs
	r := b.ended(farm.RolledBack, 2)
	if again := b.ended(farm.Done, 3); again.To.ID != r.To.ID || again.Reason != "tried again" {
		t.Errorf("%q brought %s, want %s again", again.Reason, again.To.ID, r.To.ID)
	}
	b.mustHaveIssued(2)
}

// Where the node always answered, the same version is tried again after an hour,
// and then every six.
func TestARestoredVersionIsTriedAgainAfterAnHourThenSix(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	b.set("web2", lab.BadReload)
	b.renew()
	v2 := b.ended(farm.RolledBack, 2).To.ID
	quiet := func(d time.Duration) {
		t.Helper()
		n := len(b.rollouts())
		b.pass(d)
		b.look()
		b.rests()
		if now := len(b.rollouts()); now != n {
			t.Fatalf("%d rollouts, want %d: it is too early\n%s", now, n, b.story())
		}
	}
	quiet(55 * time.Minute)
	b.pass(6 * time.Minute)
	b.ended(farm.RolledBack, 3)
	quiet(5*time.Hour + 50*time.Minute)
	b.allServe(v1)
	b.set("web2", lab.NoFault)
	b.pass(15 * time.Minute)
	if r := b.ended(farm.Done, 4); r.To.ID != v2 {
		t.Errorf("%s was rolled out, want %s", r.To.ID, v2)
	}
	b.mustHaveIssued(2)
	if c := b.describe().Certificate; c.Retries != 0 || !c.Retry.IsZero() {
		t.Errorf("after success it still has %d retries, the next at %s", c.Retries, c.Retry)
	}
}

// A version that clients refuse is never rolled out again. A new one is ordered a
// day later, or at once if a person asks, and never more than four a week.
func TestAVersionFaultIsOrderedAnewADayLater(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: steady()})
	b.set("web2", lab.WrongChain)
	b.renew()
	faulty := b.ended(farm.RolledBack, 2)
	b.allServe(v1)
	for _, v := range b.describe().Versions {
		if v.ID == faulty.To.ID && v.State != farm.VersionFaulty {
			t.Errorf("the version is %q, want faulty", v.State)
		}
	}
	b.happens("certificate.waits", "")
	b.set("web2", lab.NoFault)
	b.put("web1", selfSigned(t, b.Layout.Names...).both())
	b.look()
	b.ended(farm.Done, 3) // what needs no key of the faulty version any more lets go of it
	if b.version(b.fingerprint(faulty.To.ID)).HasKeys() {
		t.Error("the key of the faulty version is kept")
	}
	b.set("web2", lab.WrongChain)
	b.pass(23 * time.Hour)
	b.rests()
	b.mustHaveIssued(2)

	b.renew() // a person need not wait
	b.ended(farm.RolledBack, 4)
	b.mustHaveIssued(3)

	b.set("web2", lab.NoFault)
	b.pass(25 * time.Hour)
	v4 := b.ended(farm.Done, 5)
	b.mustHaveIssued(4)
	b.allServe(b.fingerprint(v4.To.ID))

	after := b.last()
	b.renew() // the fifth within a week
	if e := b.happens("certificate.waits", after); e.Hint == "" {
		t.Errorf("no hint: %+v", e)
	}
	b.mustHaveIssued(4)
	b.pass(6 * 24 * time.Hour)
	b.ended(farm.Done, 6)
	b.mustHaveIssued(5)
}

// One node that serves every version badly is no fault of the version that all
// others serve well, and is not reloaded again and again.
func TestHealingThatFailsIsNotRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	placeholder := selfSigned(t, b.Layout.Names...)
	b.put("web2", placeholder.both())
	b.set("web2", lab.WrongChain)
	b.look()
	r := b.ended(farm.RolledBack, 2)
	for range 5 {
		after := b.place("web2").Looked
		b.look()
		b.until("it is looked at", func(*store.Tx) (bool, error) { return !b.place("web2").Looked.Before(after), nil })
		b.rests()
	}
	if n := len(b.rollouts()); n != 2 {
		t.Errorf("%d rollouts, want 2: one that failed is tried again after an hour\n%s", n, b.story())
	}
	for _, s := range r.Steps {
		if s.State != farm.Restored {
			t.Errorf("%s is %s, want restored: it serves what it served (%s)", s.Target, s.State, s.Error)
		}
	}
	b.mustServe(placeholder.fingerprint, "web2")
	b.mustServe(v1, "web1")
	b.set("web2", lab.NoFault)
	b.pass(61 * time.Minute)
	b.ended(farm.Done, 3)
	b.allServe(v1)
	b.mustHaveIssued(1)
}

// Within the failure budget one node goes back by itself and the others go on; it
// is healed later, with the version that the others have.
func TestWithinTheBudgetOneNodeGoesBackByItself(t *testing.T) {
	t.Parallel()
	p := quick()
	p.FailureBudget = farm.Share{Count: 1}
	b, v1 := serving(t, setting{policy: p})
	b.set("web2", lab.BadReload)
	b.renew()
	r := b.ended(farm.DonePartly, 2)
	v2 := b.fingerprint(r.To.ID)
	b.mustServe(v1, "web2")
	b.mustServe(v2, "web1", "web3")

	b.pass(61 * time.Minute) // it still refuses
	if again := b.ended(farm.RolledBack, 3); len(again.Steps) != 1 || again.Steps[0].State != farm.Restored {
		t.Errorf("%+v", again.Steps)
	}
	b.mustServe(v1, "web2")

	b.set("web2", lab.NoFault)
	b.pass(6*time.Hour + time.Minute)
	b.ended(farm.Done, 4)
	b.allServe(v2)
	b.mustHaveIssued(2)
}

// More nodes that are silent than the policy allows: all go back.
func TestMoreAbsentThanAllowedPutsAllBack(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	b.set("web2", lab.Down)
	b.set("web3", lab.Down)
	b.renew()
	r := b.ended(farm.RolledBack, 2)
	b.mustServe(v1, "web1")
	b.happens("target.down", "")
	b.set("web2", lab.NoFault) // one may be absent
	again := b.ended(farm.DonePartly, 3)
	if again.To.ID != r.To.ID {
		t.Errorf("%s was rolled out, want %s", again.To.ID, r.To.ID)
	}
	v2 := b.fingerprint(r.To.ID)
	b.mustServe(v2, "web1", "web2")
	b.set("web3", lab.NoFault)
	b.comesTo("web3", v2)
	b.mustHaveIssued(2)
}
