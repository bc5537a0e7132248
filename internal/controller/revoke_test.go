package controller_test

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

func (b *bed) revoke(ask controller.RevokeAsk) (controller.Revoking, error) {
	b.t.Helper()
	return b.Controller.Revoke(b.ctx, b.Farm, b.Site, ask, "somebody")
}

// revokedAt waits until nothing of a version is left to be revoked.
func (b *bed) revokedAt(leaf string) {
	b.t.Helper()
	b.until("it is revoked", func(*store.Tx) (bool, error) { return !b.version(leaf).Leaves[0].Revoked.IsZero(), nil })
}

// steady is quick, with time for a machine that is busy otherwise.
func steady() farm.Policy {
	p := quick()
	p.Deadline = 30 * time.Second
	return p
}

// pairOn is what a node serves, chain and key.
func (b *bed) pairOn(node string) []byte {
	b.t.Helper()
	text, err := os.ReadFile(b.node(node).Path(lab.DefaultPEM))
	must(b.t, err)
	return text
}

// What is served, or should be, is not revoked; what is not is, and nothing goes
// back to it. A CA that is away is asked again.
func TestRevokeWhatIsServedNoMore(t *testing.T) {
	t.Parallel()
	away := issuetest.Answer(issuetest.Revoke, 1, issuetest.Reply{Status: http.StatusInternalServerError, Body: `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"away"}`})
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: steady(), ca: issuetest.Options{Wrap: away}})
	older := b.pairOn("web2")
	_, err := b.revoke(controller.RevokeAsk{})
	refused(t, err, "no valid certificate but")
	_, err = b.revoke(controller.RevokeAsk{Version: v1[:8]})
	refused(t, err, "should hold")
	_, err = b.revoke(controller.RevokeAsk{Version: v1, Reason: "boredom"})
	refused(t, err, "no reason boredom")
	_, err = b.revoke(controller.RevokeAsk{Version: "abcdef123"})
	refused(t, err, "has no version abcdef123")
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.rests()

	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", true)) // so that it is not healed
	b.put("web2", older)
	b.mustServe(v1, "web2")
	_, err = b.revoke(controller.RevokeAsk{Force: true})
	refused(t, err, "still served by")
	if _, is := b.isRevoked(v1); is {
		t.Fatal("it is revoked while it is served")
	}
	b.set("web2", lab.Down)
	_, err = b.revoke(controller.RevokeAsk{})
	refused(t, err, "cannot be told")
	r, err := b.revoke(controller.RevokeAsk{Force: true})
	must(t, err)
	if r.Done || !slices.Equal(r.Leaves, []string{v1}) || len(r.Served.Silent) != 1 || r.Served.Answered == 0 {
		t.Errorf("%+v", r)
	}
	if e := b.happens("leaf.unrevoked", ""); e.Level != farm.Warn || !strings.Contains(e.Text, "away") || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	b.pass(time.Minute)
	b.revokedAt(v1)
	b.mustBeRevoked(v1, 4)
	if v := b.version(v1); v.State != farm.VersionRevoked || v.HasKeys() {
		t.Errorf("it is %q, with keys: %t", v.State, v.HasKeys())
	}
	if r, err := b.revoke(controller.RevokeAsk{Version: v1}); err != nil || !r.Done {
		t.Errorf("once more: %+v, %v", r, err)
	}
	refused(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "", "somebody"), "no earlier version")
	_, err = b.Controller.Import(b.ctx, b.Farm, b.Site, b.version(v1).Leaves[0].Chain, farm.NewSecret(older), "somebody")
	refused(t, err, "revoked")
	b.set("web2", lab.NoFault)
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", false))
	b.pass(10 * time.Minute)
	b.look()
	b.comesTo("web2", v2)
	b.mustHaveIssued(2)
}

// What a person undid and then revoked is nothing to be replaced.
func TestRevokeWhatWasUndone(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 1}, policy: steady()})
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	must(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "", "somebody"))
	b.ended(farm.Done, 3)
	_, err := b.revoke(controller.RevokeAsk{Reason: "cessationOfOperation"})
	must(t, err)
	b.revokedAt(v2)
	b.mustBeRevoked(v2, 5)
	b.pass(25 * time.Hour)
	b.rests()
	b.allServe(v1)
	b.mustHaveIssued(2)
}

// A certificate that another account got is revoked by its own key; one of a CA
// that does not know it is not revoked, and a person is told.
func TestRevokeWhatWasImported(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 1}, policy: steady(), edit: s.trusted})
	own := s.issue(time.Now().AddDate(0, 3, 0), b.Layout.Names...)
	_, err := b.Controller.Import(b.ctx, b.Farm, b.Site, own.chain, farm.NewSecret(own.key), "somebody")
	must(t, err)
	b.soak(farm.Done, 2)
	b.renew()
	b.soak(farm.Done, 3)
	b.rests()
	if v := b.version(v1); v.HasKeys() || v.State != farm.VersionGood {
		t.Errorf("the key of a version that nothing goes back to is still here: %t, %s", v.HasKeys(), v.State)
	}
	_, err = b.revoke(controller.RevokeAsk{Version: own.fingerprint})
	must(t, err)
	e := b.happens("leaf.not-revoked", "")
	if e.Level != farm.Alarm || !strings.Contains(e.Hint, b.version(own.fingerprint).Leaves[0].Serial) {
		t.Errorf("%+v", e)
	}
	if d := b.describe(); !strings.Contains(strings.Join(d.Attention, "; "), "is not revoked") {
		t.Errorf("%v", d.Attention)
	}
	_, err = b.revoke(controller.RevokeAsk{Version: v1[:12]}) // its key is gone: the account signs
	must(t, err)
	b.revokedAt(v1)
	b.mustBeRevoked(v1, 4)
}
