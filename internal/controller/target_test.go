package controller_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/lab"
)

// A target is tried over its own line while it serves: all is well, what it serves
// stays, nothing is left on the node, and the journal says who did it.
func TestATargetIsTried(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 1}})
	all, err := b.Controller.Targets(b.ctx, b.Farm, "")
	must(t, err)
	name, before := all[0].Name, b.last()
	r, err := b.Controller.TestTarget(b.ctx, b.Farm, name, "jane", true)
	must(t, err)
	ok := 0
	for _, c := range r.Checks {
		if c.Verdict == deploy.CheckOK {
			ok++
		}
	}
	if r.Failed > 0 || ok != 9 || r.Kind != all[0].Kind || len(r.Checks) != ok+r.NotTried {
		t.Errorf("got %+v", r)
	}
	if e := b.happens("target.tested", before); e.Actor != "jane" || e.Target != name || e.Node == "" {
		t.Errorf("the journal says %+v", e)
	}
	b.allServe(v1)

	must(t, b.Controller.Hold(b.ctx, b.Farm, all[0].Node, "jane", true))
	_, err = b.Controller.TestTarget(b.ctx, b.Farm, name, "jane", false)
	if refusal, is := errors.AsType[*controller.Refusal](err); !is || !strings.Contains(refusal.Problem, "held by jane") {
		t.Errorf("on a node that is held: %v", err)
	}
}
