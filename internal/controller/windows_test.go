package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

// window gives a node's target a window of its own, which opens in two hours.
func (b *bed) window(text, node string, long time.Duration) string {
	b.t.Helper()
	opens := b.clock.now().UTC().Add(2 * time.Hour)
	line := fmt.Sprintf("        window: '%s-%s UTC'\n", opens.Format("15:04"), opens.Add(long).Format("15:04"))
	at := strings.Index(text, "        on: "+node+"\n")
	if at < 0 {
		b.t.Fatalf("no target on %s in farm.yaml", node)
	}
	return text[:at] + line + text[at:]
}

// A target whose rollout fails again and again does not keep another one, whose window
// is open at the same time, from its certificate.
func TestAWindowIsNotTakenByWhatAlwaysFails(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 3}, policy: steady()})
	b.rewrite(func(text string) string {
		return b.window(b.window(text, "web2", 3*time.Hour), "web3", 4*time.Hour)
	})
	b.apply()
	b.renew()
	r := b.ended(farm.Done, 2)
	v2 := b.fingerprint(r.To.ID)
	b.mustServe(v2, "web1") // which waits for nobody's window
	b.mustServe(v1, "web2", "web3")
	if len(r.Steps) != 1 {
		t.Errorf("%d targets in the first rollout", len(r.Steps))
	}
	b.set("web2", lab.BadReload)
	b.pass(2*time.Hour + time.Minute)
	b.ended(farm.RolledBack, 3)
	b.mustServe(v1, "web2", "web3")
	b.pass(61 * time.Minute)
	b.ended(farm.Done, 4)
	b.mustServe(v2, "web1", "web3")
	b.set("web2", lab.NoFault)
	b.pass(61 * time.Minute)
	b.comesTo("web2", v2)
	b.mustHaveIssued(2)
}

// A window that shuts in the midst of a rollout ends it: until it opens again the
// site's other targets do not wait for it. Nothing is forgotten.
func TestAWindowThatShutsKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 3}, policy: steady()})
	b.rewrite(func(text string) string {
		return b.window(b.window(text, "web2", time.Hour), "web3", time.Hour)
	})
	b.apply()
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true))
	b.pass(2*time.Hour + time.Minute)
	b.waits("frozen")
	b.pass(time.Hour)
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", false))
	if r := b.ended(farm.Superseded, 3); !strings.Contains(r.Why, "window") || len(r.Steps) != 2 {
		t.Errorf("%d targets: %s", len(r.Steps), r.Why)
	}
	b.put("web1", selfSigned(t, b.Layout.Names...).both())
	b.look()
	b.comesTo("web1", v2)
	b.ended(farm.Done, 4)
	b.mustServe(v1, "web2", "web3")
	b.pass(23 * time.Hour)
	b.comesTo("web2", v2)
	b.comesTo("web3", v2)
	b.mustHaveIssued(2)
}
