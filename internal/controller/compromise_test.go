package controller_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// compromise says that the key of the site is known to others.
func (b *bed) compromise(ask controller.CompromiseAsk) controller.Compromised {
	b.t.Helper()
	r, err := b.Controller.Compromise(b.ctx, b.Farm, b.Site, ask, "somebody")
	must(b.t, err)
	return r
}

// escaped waits until the journey away from a key is over.
func (b *bed) escaped() {
	b.t.Helper()
	b.until("the journey is over", func(tx *store.Tx) (bool, error) {
		cert, err := tx.Certificate(b.ctx, b.Farm, b.Site)
		return cert.Compromise != nil && !cert.Compromise.Ended.IsZero(), err
	})
}

// waitsFor waits until the journey waits for what has the word in it.
func (b *bed) waitsFor(word string) {
	b.t.Helper()
	b.until("the journey waits for "+word, func(tx *store.Tx) (bool, error) {
		cert, err := tx.Certificate(b.ctx, b.Farm, b.Site)
		return strings.Contains(cert.Compromise.Waits, word), err
	})
}

// version is one of the site's, by its leaf.
func (b *bed) version(leaf string) farm.Version {
	b.t.Helper()
	for _, v := range b.describe().Versions {
		if slices.Contains(v.Fingerprints(), leaf) {
			return v
		}
	}
	b.t.Fatalf("no version with the leaf %s", leaf)
	return farm.Version{}
}

// isRevoked reports whether the CA has revoked a version, and for which reason.
func (b *bed) isRevoked(leaf string) (int, bool) {
	b.t.Helper()
	return b.CA.Revoked(b.version(leaf).Leaves[0].Chain)
}

// mustBeRevoked fails unless the CA has revoked it for the reason.
func (b *bed) mustBeRevoked(leaf string, reason int) {
	b.t.Helper()
	if got, is := b.isRevoked(leaf); !is || got != reason {
		b.t.Errorf("%s is revoked: %t, for reason %d, want %d\n%s", farm.Short(leaf), is, got, reason, b.story())
	}
}

// sealedKeys lists the keys of leaves in the store.
func (b *bed) sealedKeys() (names []string) {
	b.t.Helper()
	must(b.t, b.store.View(b.ctx, func(tx *store.Tx) error {
		all, err := tx.SealedNames(b.ctx, b.Farm, "key")
		for _, s := range all {
			names = append(names, s.Name)
		}
		return err
	}))
	return names
}

// keyOn is the private key that a node serves, as it lies on its disk.
func (b *bed) keyOn(node string) []byte {
	b.t.Helper()
	for block, rest := pem.Decode(b.pairOn(node)); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return pem.EncodeToMemory(block)
		}
	}
	b.t.Fatalf("no key on %s", node)
	return nil
}

// holding lists the files of a node that have the key in them.
func (b *bed) holding(node string, key []byte) (files []string) {
	b.t.Helper()
	must(b.t, filepath.WalkDir(b.node(node).Path("/"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() { // what a link leads to is met by itself
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, key) {
			files = append(files, path)
		}
		return err
	}))
	return files
}

// The whole journey: another key everywhere, the old leaves revoked, the old keys
// gone from the store and from the disks; and nothing goes back.
func TestACompromisedKeyIsLeftBehind(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{layout: lab.Layout{Nodes: 2}, policy: steady()})
	b.apply()
	v1 := b.fingerprint(b.ended(farm.Done, 1).To.ID)
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	old := b.keyOn("web1")
	b.rests()
	stored := b.sealedKeys()
	shut := time.Now().UTC().Add(2 * time.Hour) // no window holds it
	b.rewrite(func(text string) string {
		return policyLine(fmt.Sprintf("window: '%s-%s UTC'", shut.Format("15:04"), shut.Add(time.Hour).Format("15:04")))(b, text)
	})
	b.apply()
	b.rests()

	r := b.compromise(controller.CompromiseAsk{Reason: "found on a pastebin"})
	if r.Joined || !slices.Equal(r.Sites, []string{b.Site}) || len(r.Leaves) != 2 {
		t.Errorf("%+v", r)
	}
	b.escaped()
	last := b.ended(farm.Done, 3)
	v3 := b.fingerprint(last.To.ID)
	b.allServe(v3)
	if !last.Forward {
		t.Error("the rollout could have gone back")
	}
	for _, leaf := range []string{v1, v2} {
		b.mustBeRevoked(leaf, issue.KeyCompromise)
		if v := b.version(leaf); v.State != farm.VersionCompromised || v.HasKeys() || v.Leaves[0].Revoked.IsZero() {
			t.Errorf("%s is %q, revoked %s, with keys: %t", farm.Short(leaf), v.State, v.Leaves[0].Revoked, v.HasKeys())
		}
	}
	if _, is := b.isRevoked(v3); is {
		t.Error("the new one is revoked, too")
	}
	for _, name := range b.sealedKeys() {
		if slices.Contains(stored, name) {
			t.Errorf("the store still has the key %s", name)
		}
	}
	for _, n := range b.Nodes {
		if files := b.holding(n.Name(), old); len(files) > 0 {
			t.Errorf("the old key is still in %v", files)
		}
	}
	b.mustHaveIssued(3)
	refused(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "", "somebody"), "no earlier version")
	_, err := b.Controller.Import(b.ctx, b.Farm, b.Site, b.version(v2).Leaves[0].Chain, farm.NewSecret(old), "somebody")
	refused(t, err, "known to others")
	b.rests()
	if d := b.describe(); d.Health != "healthy" || len(d.Attention) != 0 {
		t.Errorf("%s: %v", d.Health, d.Attention)
	}
}

// A key that comes back to a node is taken away again, whatever the policy on
// drift, and leaves no copy.
func TestACompromisedKeyThatComesBackIsHealed(t *testing.T) {
	t.Parallel()
	p := steady()
	p.Drift = farm.Report
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: p})
	old := b.keyOn("web2")
	pair := b.pairOn("web2")
	b.compromise(controller.CompromiseAsk{})
	b.escaped()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.rests()
	b.put("web2", pair)
	b.mustServe(v1, "web2")
	b.pass(3 * time.Second) // just after a rollout an old worker may still answer
	b.look()
	b.comesTo("web2", v2)
	if r := b.ended(farm.Done, 3); !r.Forward || len(r.Steps) != 1 {
		t.Errorf("forward: %t, %d steps", r.Forward, len(r.Steps))
	}
	b.until("the copy is erased", func(*store.Tx) (bool, error) { return b.place("web2").Purge.IsZero(), nil })
	if files := b.holding("web2", old); len(files) > 0 {
		t.Errorf("the old key is still in %v", files)
	}
	b.mustHaveIssued(2)
}

// A node that is away does not hold the revocation; it is named, gets the new key
// when it is back, and loses the old one.
func TestACompromisedKeyOnANodeThatIsAway(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 3}, policy: steady()})
	old := b.keyOn("web3")
	b.set("web3", lab.Down)
	b.compromise(controller.CompromiseAsk{})
	b.ended(farm.DonePartly, 2)
	b.waitsFor("copies of the old key are still on " + b.place("web3").Target.Name)
	b.mustBeRevoked(v1, issue.KeyCompromise)
	if e := b.happens("compromise.revoking", ""); e.Level != farm.Warn || !strings.Contains(e.Text, "web3") {
		t.Errorf("%+v", e)
	}
	b.rests() // nothing can be done before it is back
	if d := b.describe(); !strings.Contains(strings.Join(d.Attention, "; "), "copies of the old key are still on") {
		t.Errorf("%v", d.Attention)
	}
	b.set("web3", lab.NoFault)
	b.escaped()
	b.allServe(b.fingerprint(b.ended(farm.Done, 3).To.ID))
	for _, n := range b.Nodes {
		if files := b.holding(n.Name(), old); len(files) > 0 {
			t.Errorf("the old key is still in %v", files)
		}
	}
	b.mustHaveIssued(2)
}

// A node that serves and cannot be reached keeps the old certificate from being
// revoked, until a person says that it does not matter.
func TestACompromisedKeyThatIsStillServed(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 3}, policy: steady()})
	b.set("web3", lab.SSHDown)
	b.compromise(controller.CompromiseAsk{})
	r := b.ended(farm.DonePartly, 2)
	b.waitsFor("still served by")
	b.mustServe(v1, "web3")
	b.mustServe(b.fingerprint(r.To.ID), "web1", "web2")
	if _, is := b.isRevoked(v1); is {
		t.Error("it is revoked while it is served")
	}
	if waits := b.describe().Certificate.Compromise.Waits; !strings.Contains(waits, "balancer") || !strings.Contains(waits, "web3") || strings.Contains(waits, "web1") {
		t.Errorf("waits: %s", waits)
	}
	if r := b.compromise(controller.CompromiseAsk{}); !r.Joined {
		t.Error("a second word began a second journey")
	}
	if p := b.waits("web3"); p.Rest || !p.Again.IsZero() {
		t.Errorf("rests: %t, goes on at %s", p.Rest, p.Again)
	}
	b.compromise(controller.CompromiseAsk{RevokeNow: true})
	b.until("it is revoked", func(*store.Tx) (bool, error) { _, is := b.isRevoked(v1); return is, nil })
	b.set("web3", lab.NoFault)
	b.escaped()
	b.mustHaveIssued(2)
}

// What fails on the way is told and tried again, and nothing is put back.
func TestLeavingACompromisedKeyNeverGoesBack(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 3}, policy: steady()})
	b.set("web2", lab.BadReload)
	b.compromise(controller.CompromiseAsk{})
	r := b.ended(farm.DonePartly, 2)
	v2 := b.fingerprint(r.To.ID)
	b.mustServe(v2, "web1", "web3")
	b.mustServe(v1, "web2")
	for _, s := range r.Steps {
		if s.State == farm.Restored || s.Did == farm.DoRestore {
			t.Errorf("%s is %s after %s", s.Target, s.State, s.Did)
		}
	}
	b.waitsFor("web2")
	b.set("web2", lab.NoFault)
	b.pass(6 * time.Minute)
	b.escaped()
	b.allServe(v2)
	b.mustHaveIssued(2)
}

// Each job of the journey may be done twice, and the controller may end between any
// two of them: everything happens once.
func TestTheJourneyIsRepeatable(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: steady()})
	old := b.keyOn("web1")
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	again := make(chan error, 1)
	after := b.last()
	b.compromise(controller.CompromiseAsk{})
	go func() {
		again <- b.Controller.Follow(ctx, b.Farm, store.EventQuery{After: after}, func(farm.Event) error {
			return b.store.Update(ctx, func(tx *store.Tx) error { return b.rearm(ctx, tx) })
		})
	}()
	b.escaped()
	cancel()
	if err := <-again; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b.mustBeRevoked(v1, issue.KeyCompromise)
	for _, kind := range []string{"leaf.revoked", "compromise.over", "compromise.began", "version.issued"} {
		want := 1
		if kind == "version.issued" {
			want = 2
		}
		if n := b.count(kind); n != want {
			t.Errorf("%d events %s, want %d\n%s", n, kind, want, b.story())
		}
	}
	for _, n := range b.Nodes {
		if files := b.holding(n.Name(), old); len(files) > 0 {
			t.Errorf("the old key is still in %v", files)
		}
	}
	b.mustHaveIssued(2)
}

// rearm has every job of the journey done once more.
func (b *bed) rearm(ctx context.Context, tx *store.Tx) error {
	jobs := []farm.Job{{Kind: "compromise", Subject: b.Site}, {Kind: "check", Subject: b.Site}}
	versions, err := tx.Versions(ctx, b.Farm, b.Site)
	if err != nil {
		return err
	}
	for _, v := range versions {
		jobs = append(jobs, farm.Job{Kind: "revoke", Subject: v.ID})
	}
	places, err := tx.Places(ctx, b.Farm, b.Site)
	if err != nil {
		return err
	}
	for _, p := range places {
		jobs = append(jobs, farm.Job{Kind: "erase", Subject: p.Target.Name, Lane: "node " + p.Target.Node})
	}
	for _, j := range jobs {
		j.Farm, j.RunAt = b.Farm, tx.Now()
		if err := tx.Enqueue(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// The controller ends at each event of the journey, and goes on where it stopped.
func TestTheJourneyOutlivesTheController(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: steady(), ca: issuetest.Options{Wrap: issuetest.LoseReply(issuetest.Revoke, 1)}})
	after := b.last()
	b.compromise(controller.CompromiseAsk{})
	for _, kind := range []string{"compromise.began", "version.issued", "rollout.done", "compromise.revoking", "leaf.unrevoked"} {
		b.happens(kind, after)
		b.restart(func() {})
	}
	b.pass(time.Minute)
	b.escaped()
	b.mustBeRevoked(v1, issue.KeyCompromise)
	b.allServe(b.fingerprint(b.ended(farm.Done, 2).To.ID))
	b.mustHaveIssued(2)
}

// A certificate that was imported to two sites has one key: where others know it at
// one, they know it at the other.
func TestACompromisedKeyOfTwoSites(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 1}, policy: steady(), edit: s.trusted})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true)) // so that nothing moves meanwhile
	b.rewrite(func(text string) string {
		at := strings.Index(text, "\n  "+b.Site+":")
		twin := strings.NewReplacer("\n  "+b.Site+":", "\n  twin:", "&webd ", "", lab.DefaultPEM, "/etc/tls/twin.pem").Replace(text[at:])
		return text + strings.TrimPrefix(twin, "\n")
	})
	b.apply()
	own := s.issue(time.Now().AddDate(0, 3, 0), b.Layout.Names...)
	for _, site := range []string{b.Site, "twin"} {
		_, err := b.Controller.Import(b.ctx, b.Farm, site, own.chain, farm.NewSecret(own.key), "somebody")
		must(t, err)
	}
	if r := b.compromise(controller.CompromiseAsk{}); !slices.Equal(r.Sites, []string{b.Site, "twin"}) || !slices.Contains(r.Leaves, v1) {
		t.Errorf("%+v", r)
	}
	d, err := b.Controller.Describe(b.ctx, b.Farm, "twin")
	must(t, err)
	if !d.Certificate.Compromise.Open() {
		t.Error("the other site keeps the key")
	}
	for _, v := range d.Versions {
		if is := v.State == farm.VersionCompromised; is != slices.Contains(v.Fingerprints(), own.fingerprint) {
			t.Errorf("%s is %q", v.Fingerprints(), v.State)
		}
	}
}
