package controller_test

import (
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// A node that a person brought up to date is rid of its copies of the old key, too,
// though no rollout saw it serve the new one.
func TestAKeyIsErasedFromWhatAPersonMended(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, policy: steady()})
	b.renew()
	b.ended(farm.Done, 2)
	old := b.keyOn("web2")
	b.set("web2", lab.SSHDown)
	b.compromise(controller.CompromiseAsk{})
	v3 := b.fingerprint(b.ended(farm.DonePartly, 3).To.ID)
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", true)) // so that nobody else brings it there
	b.set("web2", lab.NoFault)
	b.put("web2", b.pairOn("web1"))
	b.until("it is known", func(*store.Tx) (bool, error) { return b.place("web2").Late == "", nil })
	b.pass(6 * time.Minute)
	b.waitsFor("copies of the old key are still on")
	if files := b.holding("web2", old); len(files) == 0 {
		t.Error("something was changed on a node that is held")
	}
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web2", "somebody", false))
	b.pass(6 * time.Minute)
	b.escaped()
	b.allServe(v3)
	b.mustBeRevoked(v1, issue.KeyCompromise)
	if files := b.holding("web2", old); len(files) > 0 {
		t.Errorf("the old key is still in %v", files)
	}
}
