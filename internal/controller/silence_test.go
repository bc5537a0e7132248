package controller_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// nowhere is an address at which nobody listens.
const nowhere = "127.0.0.1:1"

// A deaf is a CA's front: when the CA is told to validate, the challenge path leads
// nowhere, as if the controller were dead; and the CA says nothing of the order
// before the test lets it.
type deaf struct {
	bed   *bed
	told  atomic.Int32
	times int32 // how often the path leads nowhere
	gate  chan struct{}
}

func (d *deaf) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch issuetest.EndpointOf(r) {
		case issuetest.Challenge:
			if d.told.Add(1) <= d.times {
				d.bed.Balancer.RouteChallenges(nowhere)
			}
		case issuetest.Order, issuetest.Authz:
			if d.told.Load() > 0 {
				select {
				case <-d.gate:
				case <-r.Context().Done():
				}
			}
		}
		h.ServeHTTP(w, r)
	})
}

// accepted waits until the CA was told to validate, and that is stored.
func (b *bed) accepted() {
	b.t.Helper()
	b.until("the CA validates", func(tx *store.Tx) (bool, error) {
		all, err := tx.Orders(b.ctx, b.Farm, store.OrderQuery{Site: b.Site, Limit: 1})
		return len(all) == 1 && all[0].State == farm.OrderAccepted, err
	})
}

// The controller dies while the CA validates, and nobody answers. That says nothing
// of the names: who takes over orders again at once, and not a day later.
func TestAnOrderLostByOurOwnSilenceIsOrderedAgainAtOnce(t *testing.T) {
	t.Parallel()
	d := &deaf{gate: make(chan struct{}), times: 2} // one a name
	b := newBed(t, setting{layout: lab.Layout{Nodes: 2}, ca: issuetest.Options{Wrap: d.wrap}})
	d.bed = b
	b.apply()
	b.accepted()
	b.restart(func() {}) // the path leads to the one that takes over
	close(d.gate)
	if e := b.happens("order.failed", ""); !strings.Contains(e.Text, "not there when the CA asked") {
		t.Errorf("%+v", e)
	}
	b.ended(farm.Done, 1)
	if skipped := time.Duration(b.clock.ahead.Load()); skipped != 0 {
		t.Errorf("it waited for %s", skipped)
	}
	b.mustHaveIssued(1)
}

// Where the controller that told the CA learns of it, it was there: the next order
// waits a day.
func TestAnOrderThatNobodyAnsweredThoughWeWereThereWaits(t *testing.T) {
	t.Parallel()
	d := &deaf{gate: make(chan struct{}), times: 2}
	close(d.gate)
	b := newBed(t, setting{layout: lab.Layout{Nodes: 2}, ca: issuetest.Options{Wrap: d.wrap}})
	d.bed = b
	b.apply()
	b.happens("order.failed", "")
	b.happens("certificate.waits", "")
	b.rests()
	if n := b.opened(); n != 1 {
		t.Errorf("%d orders were opened, want 1", n)
	}
}

// The ceiling is the CA's, and the CA does not know of sites: two that have the
// same names share it.
func TestTwoSitesWithOneSetOfNamesShareTheCeiling(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{layout: twoSites(2), edit: func(b *bed, text string) string {
		return strings.Replace(blog("pebble")(b, text), "names: [blog.test]", "names: [www.shop.test, shop.test]", 1)
	}})
	must(t, b.Controller.Freeze(b.ctx, b.Farm, "somebody", true)) // it is about orders alone
	b.apply()
	issued := func(n int) {
		t.Helper()
		b.until("they are issued", func(*store.Tx) (bool, error) { return b.count("version.issued") == n, nil })
	}
	issued(2)
	for i, site := range []string{"blog", b.Site} {
		must(t, b.Controller.Renew(b.ctx, b.Farm, site, "somebody"))
		issued(3 + i)
	}
	after := b.last()
	must(t, b.Controller.Renew(b.ctx, b.Farm, "blog", "somebody"))
	if e := b.happens("certificate.waits", after); e.Site != "blog" || !strings.Contains(e.Text, "4 are allowed") {
		t.Errorf("%+v", e)
	}
	b.mustHaveIssued(4)
}
