package controller_test

import (
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// In the middle of a rollout a target is held to what it should serve at that moment:
// the canary to the new certificate, the others to the old one.
func TestVerifyInTheMiddleOfARollout(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{})
	b.rewrite(func(text string) string { return strings.Replace(text, "soak: 0s", "soak: 1h", 1) })
	b.apply()
	b.renew()
	var v2 string
	b.until("the canary soaks", func(*store.Tx) (bool, error) {
		r := b.rollouts()[0]
		v2 = r.To.ID
		return len(b.rollouts()) == 2 && r.Steps[0].State == farm.Verified, nil
	})
	verify := func(ok map[string]bool) {
		t.Helper()
		all, err := b.Controller.Verify(b.ctx, b.Farm, b.Site)
		must(t, err)
		if len(all) != 3 {
			t.Errorf("%d targets were asked", len(all))
		}
		for _, v := range all {
			if v.OK != ok[v.Target] {
				t.Errorf("%s: %v, %s", v.Target, v.OK, v.Why)
			}
		}
	}
	b.mustServe(b.fingerprint(v2), "web1")
	b.mustServe(v1, "web2", "web3")
	verify(map[string]bool{"shop/nginx@web1": true, "shop/nginx@web2": true, "shop/nginx@web3": true})
	b.put("web1", selfSigned(t, b.Layout.Names...).both())
	b.put("web2", selfSigned(t, b.Layout.Names...).both())
	verify(map[string]bool{"shop/nginx@web3": true})
}
