package controller

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// measure reads the only farm.
func (q *queue) measure() FarmMeasure {
	q.t.Helper()
	m, err := q.Measure(q.t.Context())
	if err != nil || len(m.Farms) != 1 {
		q.t.Fatal(m, err)
	}
	return m.Farms[0]
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 10, Per: 10 * time.Hour}, Domain: farm.Rate{Count: 4, Per: 4 * time.Hour}, Accounts: farm.Rate{Count: 2, Per: time.Hour}}, 3)
	q.update(func(ctx context.Context, tx *store.Tx) error {
		failing := farm.Certificate{Farm: "shop", Site: q.asc[0], Version: "v-" + q.asc[0], Failures: 2, Retries: 1, Due: q.now.Add(-time.Hour)}
		failing.ARI = farm.Suggestion{Leaf: "f-" + q.asc[0], End: q.now.Add(-time.Minute)}
		if err := tx.PutCertificate(ctx, failing); err != nil {
			return err
		}
		for word, full := range map[string]time.Duration{"ledger https://ca.test/dir orders of ca": 5 * time.Hour, "ledger https://ca.test/dir domain a.test": time.Hour, "ledger https://ca.test/dir domain b.test": 3 * time.Hour} {
			if err := tx.SetWord(ctx, "shop", word, q.now.Add(full).Format(time.RFC3339Nano)); err != nil {
				return err
			}
		}
		for i, r := range []farm.Rollout{{Back: "why"}, {Paused: true}, {Waves: []farm.Wave{{Approve: true}}}, {}, {Outcome: farm.Done}} {
			r.ID, r.Farm, r.Site = fmt.Sprint("ro_", i), "shop", "s0"
			if err := tx.PutRollout(ctx, r); err != nil {
				return err
			}
		}
		return arm(ctx, tx, "shop", "look", "s0", q.now.Add(-10*time.Minute))
	})
	f := q.measure()
	for _, c := range f.Certificates {
		ready, known := c.Ready(q.now)
		if is := c.Site == q.asc[0]; !known || ready == is || c.WindowEnd.IsZero() == is || c.NotAfter.Sub(c.NotBefore) != 45*24*time.Hour {
			t.Errorf("%+v is ready %t %t", c, ready, known)
		}
		if c.Site == q.asc[0] && (c.Orders != 2 || c.Retries != 1 || !c.Renewal.Equal(q.now.Add(-time.Hour))) {
			t.Errorf("%+v", c)
		}
		if c.Site != q.asc[0] && !c.Renewal.Before(c.NotAfter) {
			t.Errorf("%+v", c)
		}
	}
	want := []LimitMeasure{{"ca", "orders", 10, 5}, {"ca", "accounts", 2, 2}, {"ca", "domain", 4, 1}}
	if fmt.Sprint(f.Limits) != fmt.Sprint(want) {
		t.Errorf("limits %v, want %v", f.Limits, want)
	}
	if f.Rollouts[rolloutBack] != 1 || f.Rollouts[rolloutWaits] != 2 || f.Rollouts[rolloutRuns] != 1 {
		t.Errorf("%v", f.Rollouts)
	}
	if f.Looked != q.Pace.Look+10*time.Minute || f.Waiting != 10*time.Minute || f.Jobs.Late != 1 {
		t.Errorf("looked %s ago, a job waits %s, %+v", f.Looked, f.Waiting, f.Jobs)
	}
}

// However many targets a farm has, no more than so many are told one by one: those that
// are not as they should be.
func TestAMeasureIsBounded(t *testing.T) {
	t.Parallel()
	const most = 5
	q := newQueue(t, farm.Limits{}, 1)
	put := func(n int, drift string) {
		q.update(func(ctx context.Context, tx *store.Tx) error {
			target := farm.Target{Name: fmt.Sprint("t", n), Site: "s0", Node: "n"}
			return tx.PutPlace(ctx, farm.Place{Farm: "shop", Target: target, Desired: []string{"v"}, Looked: q.now, Drift: drift})
		})
	}
	measure := func() FarmMeasure {
		f := FarmMeasure{Farm: "shop"}
		q.update(func(ctx context.Context, tx *store.Tx) error { return f.targets(ctx, tx, most) })
		return f
	}
	for n := range most {
		put(n, "")
	}
	if f := measure(); !f.Whole || len(f.Places) != most {
		t.Errorf("%t, %d places", f.Whole, len(f.Places))
	}
	put(most, "something else")
	if f := measure(); f.Whole || len(f.Places) != 1 || f.Places[0].Target.Name != "t5" {
		t.Errorf("%t, %d places", f.Whole, len(f.Places))
	}
	for n := range 2 * most {
		put(n, "something else")
	}
	if f := measure(); f.Whole || len(f.Places) != most {
		t.Errorf("%t, %d places", f.Whole, len(f.Places))
	}
}
