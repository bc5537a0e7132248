package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/store"
)

// newMembers is a site of n nodes that have no certificate yet, at a CA that keeps to
// Let's Encrypt's limits and exempts nothing.
func newMembers(t *testing.T, n int) *week {
	t.Helper()
	w := &week{t: t, begin: time.Now().Truncate(time.Second)}
	w.now = w.begin
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	resolver := w.open(map[string][]netip.Addr{"shop.test": local}, boulder.LetsEncryptLimits())
	limits := budget.LetsEncrypt()
	limits.Exempt = farm.ExemptNone
	f := farm.Farm{Name: "shop", Resolvers: map[string][]string{".": {resolver}}, Issuers: []farm.Issuer{{
		Name: "ca", Directory: w.ca.Directory, Roots: w.ca.ListenRoots + w.ca.Roots, Limits: &limits,
	}}}
	for i := range n {
		node := fmt.Sprintf("n%02d", i)
		f.Sites = append(f.Sites, farm.Site{
			Name: farm.MemberName("shop", node), Names: []string{"shop.test"}, Issuer: "ca", KeyTypes: []farm.KeyType{farm.EC256}, Strategy: farm.PerNode,
			Validations: []farm.Validation{{Method: farm.HTTP01, Via: farm.Gateway}},
			Member:      &farm.Member{Of: "shop", Node: node, Wave: min(i, 1), Parallel: 3},
		})
	}
	mustWeek(t, w.Store.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.SaveFarm(t.Context(), f, []byte("farm: shop\n"), "test", 0); err != nil {
			return err
		}
		for _, s := range f.Sites {
			if err := arm(t.Context(), tx, f.Name, "check", s.Name, tx.Now()); err != nil {
				return err
			}
		}
		return nil
	}))
	return w
}

// ordersUntil goes on to a time, and returns all orders, the oldest first.
func (w *week) ordersUntil(end time.Time) (orders []farm.Order) {
	w.t.Helper()
	ctx := w.t.Context()
	for w.clock().Before(end) {
		mustWeek(w.t, w.step(ctx))
	}
	mustWeek(w.t, w.Store.View(ctx, func(tx *store.Tx) (err error) {
		orders, err = tx.Orders(ctx, "shop", store.OrderQuery{})
		return err
	}))
	slices.Reverse(orders)
	return orders
}

// Eight nodes get their first certificates for the same names as the plan says, the
// canary first, and renew them all in their second cycle: the CA never has to refuse,
// two orders for the names are open at one time, and none comes too late.
func TestMembersKeepToTheLimitForTheSameNames(t *testing.T) {
	t.Parallel()
	const nodes = 8
	w := newMembers(t, nodes)
	price := budget.Priced(nodes, 1, true, nil, budget.LetsEncrypt(), w.begin)
	orders := w.ordersUntil(w.begin.Add(price.Last + time.Hour))
	if len(orders) != nodes || orders[0].Site != "shop@n00" {
		t.Fatalf("%d orders, the first of %v", len(orders), orders)
	}
	today := 0
	for i, o := range orders {
		if o.Created.Sub(w.begin) < time.Hour {
			today++
		}
		if o.State != farm.OrderDone {
			t.Errorf("order of %s: %s: %s", o.Site, o.State, o.Error)
		}
		if i > 0 && o.Created.Before(orders[0].Updated) {
			t.Errorf("%s orders before the canary has its own", o.Site)
		}
	}
	if today != price.Now {
		t.Errorf("%d today, the plan said %s", today, price)
	}
	orders = w.ordersUntil(w.begin.Add(price.Last + weekLife*4/5))
	newest := map[string]farm.Order{}
	for _, o := range orders {
		if was := newest[o.Site]; was.ID != "" && o.Updated.After(was.Updated.Add(weekLife)) {
			t.Errorf("%s was renewed %s after it was issued", o.Site, o.Updated.Sub(was.Updated))
		}
		newest[o.Site] = o
	}
	if len(orders) < 2*nodes {
		t.Errorf("%d orders, want a renewal of each node", len(orders))
	}
	if stats := w.ca.Stats(); len(stats.Limited) > 0 {
		t.Errorf("the CA refused: %v", stats.Limited)
	}
}
