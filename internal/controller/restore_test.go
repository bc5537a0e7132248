package controller_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// backup is all that the store knows.
func (b *bed) backup() []byte {
	b.t.Helper()
	var text bytes.Buffer
	must(b.t, b.store.Backup(b.ctx, &text))
	return text.Bytes()
}

// calm waits until nothing is due for a while.
func (b *bed) calm() {
	b.t.Helper()
	b.until("nothing is due", func(tx *store.Tx) (bool, error) {
		jobs, err := tx.Jobs(b.ctx, b.Farm, 0)
		return !slices.ContainsFunc(jobs, func(j store.JobRow) bool {
			return j.Owner != "" || j.RunAt.Before(tx.Now().Add(time.Minute))
		}), err
	})
}

// restore ends the controller, loses its database, and starts it again from a
// backup.
func (b *bed) restore(backup []byte) {
	b.t.Helper()
	b.restoreOnly(backup)
	b.until("the site was looked at", func(tx *store.Tx) (bool, error) {
		known, err := tx.Word(b.ctx, b.Farm, "observed "+b.Site)
		alarms, err2 := tx.Events(b.ctx, b.Farm, store.EventQuery{Kind: "restore.unknown"})
		return known != "" || len(alarms) > 0, errors.Join(err, err2)
	})
	b.rests()
}

// restoreOnly does not wait for anything.
func (b *bed) restoreOnly(backup []byte) {
	b.t.Helper()
	b.restart(func() {
		db := filepath.Join(b.Layout.Dir, "controller", "certfarm.db")
		lost, err := filepath.Glob(db + "*")
		must(b.t, err)
		for _, file := range lost {
			must(b.t, os.Remove(file))
		}
		s, err := store.Open(b.ctx, db, b.how.Store)
		must(b.t, err)
		must(b.t, s.Restore(b.ctx, bytes.NewReader(backup)))
		must(b.t, s.Close())
	})
}

// A restored backup is of some time ago. What the targets serve is adopted where
// it is known: no order, no rollout.
func TestARestoredBackupAdoptsWhatIsServed(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.renew()
	b.waits("frozen")
	b.calm()          // so it is the start that has it looked at again
	was := b.backup() // it knows version 2, and that all targets should hold version 1
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.restore(was)
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	b.ended(farm.Superseded, 2)
	b.pass(10 * time.Minute)
	b.look()
	b.rests()
	b.allServe(v2)
	if d := b.describe(); d.Version != v2 || d.InStep != 2 || len(d.Attention) != 0 {
		t.Errorf("it wants %s, %d in step: %v", d.Version, d.InStep, d.Attention)
	}
	if n := len(b.rollouts()); n != 2 {
		t.Errorf("%d rollouts, want those of the backup", n)
	}
	b.mustHaveIssued(2)
	if v1 == v2 {
		t.Error("nothing was renewed")
	}
}

// What was under way when the backup was made is not gone on with: here it was on
// the way back to a version that is long past.
func TestARestoredBackupPutsNothingBack(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 3, ReloadTime: 500 * time.Millisecond}})
	b.rewrite(func(text string) string { return assent(b, text) })
	b.apply()
	b.renew()
	b.waits("approval")
	_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Abort, "", "somebody")
	must(t, err)
	var was []byte
	b.until("it is put back", func(tx *store.Tx) (bool, error) {
		doing, err := tx.Doing(b.ctx, b.Farm, b.place("web1").Target.Node+"/"+b.place("web1").Target.Group, farm.DoRestore, 1)
		if len(doing) == 1 && was == nil {
			was = b.backup()
		}
		return was != nil, err
	})
	b.ended(farm.RolledBack, 2)
	b.rests()
	_, err = b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Approve, "", "somebody") // and later everybody was glad of it
	must(t, err)
	b.waits("approval")
	_, err = b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Approve, "", "somebody")
	must(t, err)
	v2 := b.fingerprint(b.ended(farm.Done, 3).To.ID)
	b.allServe(v2)
	reloads := b.reloads("web1")

	b.restore(was)
	b.ended(farm.Superseded, 2)
	b.look()
	b.rests()
	b.allServe(v2)
	if n := b.reloads("web1") - reloads; n != 0 {
		t.Errorf("web1 was reloaded %d times", n)
	}
	b.mustHaveIssued(2)
}

// A newer certificate that the backup does not know is an alarm, and nothing is
// changed until a person says what to do.
func TestARestoredBackupLeavesUnknownCertificatesAlone(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	was := b.backup()
	past, first := time.Now().Add(-time.Hour), b.describe().Versions[0]
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	must(t, b.CA.SetARI(first.Leaves[0].Chain, issuetest.Window{Start: past.Add(-time.Hour), End: past}))
	chain, err := os.ReadFile(b.node("web1").Path(lab.DefaultPEM))
	must(t, err)
	b.restore(was)
	if e := b.happens("restore.unknown", ""); e.Level != farm.Alarm || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	b.pass(26 * time.Hour) // what the backup knows is due
	b.look()
	b.pass(10 * time.Minute)
	b.rests()
	b.allServe(v2)
	b.mustHaveIssued(2)

	// Key and chain lie on the node: with them it is ours again.
	_, err = b.Controller.Import(b.ctx, b.Farm, b.Site, chain, farm.NewSecret(chain), "somebody")
	must(t, err)
	b.until("it is adopted", func(*store.Tx) (bool, error) { d := b.describe(); return d.Version == v2 && d.InStep == 2, nil })
	b.allServe(v2)
}

// Who is silent was not seen. Where that is every target, nothing is known of the
// site, and nothing is ordered before one answers or a person says so.
func TestARestoredSiteOfSilentTargetsIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	was := b.backup()
	past, first := time.Now().Add(-time.Hour), b.describe().Versions[0]
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	must(t, b.CA.SetARI(first.Leaves[0].Chain, issuetest.Window{Start: past.Add(-time.Hour), End: past}))
	b.set("web1", lab.Down)
	b.set("web2", lab.Down)
	b.restoreOnly(was)
	if e := b.happens("restore.silent", ""); e.Hint == "" {
		t.Errorf("%+v", e)
	}
	b.pass(2 * time.Hour) // what the backup knows is due
	b.look()
	b.pass(10 * time.Minute)
	if d := b.describe(); d.InStep != 0 {
		t.Errorf("%d targets count as in step, and none was seen", d.InStep)
	}
	b.mustHaveIssued(2)
	b.set("web1", lab.NoFault)
	b.set("web2", lab.NoFault)
	b.happens("restore.unknown", "")
	b.rests()
	b.allServe(v2)
	b.mustHaveIssued(2)
}

// A person may also have it replaced.
func TestARestoredSiteIsRenewedWhenAPersonSaysSo(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	was := b.backup()
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.restore(was)
	b.happens("restore.unknown", "")
	b.renew()
	v3 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	if v3 == v2 {
		t.Error("nothing new was ordered")
	}
	b.allServe(v3)
	b.mustHaveIssued(3)
}
