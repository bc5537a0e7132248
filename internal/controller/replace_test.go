package controller

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Ten certificates are replaced at a CA that allows four at once and one an hour. The
// plan says how long it takes; those with the least life left go first; how far it is
// is known, and what is replaced and on its targets counts.
func TestManyAreReplacedWithinTheLimits(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 4, Per: 4 * time.Hour}}, 40)
	q.update(func(ctx context.Context, tx *store.Tx) error {
		for _, site := range q.asc {
			v, err := tx.Version(ctx, "shop", "v-"+site)
			if err != nil {
				return err
			}
			v.Created = v.NotBefore()
			if err := tx.PutVersion(ctx, v); err != nil {
				return err
			}
		}
		return nil
	})
	issued := q.now.Add(-15 * 24 * time.Hour) // those with 30 days and more left are from before, or after
	ask := ReplaceAsk{Issuer: "ca", After: issued, Reason: "incident 7"}
	p, err := q.PlanReplace(t.Context(), "shop", ask)
	if err != nil {
		t.Fatal(err)
	}
	want := q.asc[29:] // issued 15 days ago and later: 30 to 40 days are left
	if !slices.Equal(p.Sites, want) {
		t.Fatalf("meant are %v, want %v", p.Sites, want)
	}
	fc := p.Issuers[0]
	if took := fc.Done.Sub(q.now); len(p.Issuers) != 1 || fc.Certificates != 11 || took < 7*time.Hour || took > 30*time.Hour {
		t.Errorf("the plan: %+v", p.Issuers)
	}
	s, err := q.Replace(t.Context(), "shop", ask, "ops")
	if err != nil || s.Total != 11 {
		t.Fatalf("%+v, %v", s, err)
	}
	q.pass(2 * time.Hour)
	if got := q.ordered(); len(got) < 4 || len(got) > 6 || !slices.Equal(got[:3], want[:3]) && !slices.Contains(want[:4], got[0]) {
		t.Errorf("after two hours %v are ordered", got)
	}
	status := q.replacement()
	if status.Ordering != len(q.ordered()) || status.Waiting+status.Ordering != 11 || status.Done != 0 || !status.Ended.IsZero() {
		t.Errorf("%+v", status)
	}
	q.pass(8 * time.Hour)
	if got := q.ordered(); len(got) != 11 {
		t.Errorf("after ten hours %d are ordered", len(got))
	}
	for _, site := range want {
		q.issue(site)
	}
	q.pass(30 * time.Minute)
	if status := q.replacement(); status.Done != 11 || status.Ended.IsZero() {
		t.Errorf("%+v", status)
	}
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Events(ctx, "shop", store.EventQuery{Kind: "replacement.done"})
		if len(all) != 1 || !strings.Contains(all[0].Text, "all 11") {
			t.Errorf("told: %+v", all)
		}
		return err
	})
}

// A mass replacement that is ended leaves alone what was not ordered.
func TestAReplacementIsCanceled(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 2, Per: 30 * 24 * time.Hour}}, 40)
	s, err := q.Replace(t.Context(), "shop", ReplaceAsk{Sites: q.asc[35:]}, "ops")
	if err != nil {
		t.Fatal(err)
	}
	q.pass(10 * time.Minute)
	if err := q.CancelReplacement(t.Context(), "shop", s.ID, "ops"); err != nil {
		t.Fatal(err)
	}
	q.pass(time.Hour)
	if got := q.ordered(); len(got) != 2 {
		t.Errorf("%v are ordered", got)
	}
	if s := q.replacement(); s.Canceled != "ops" || s.Ended.IsZero() || s.Left != 5 || s.Done != 0 {
		t.Errorf("%+v", s)
	}
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Certificates(ctx, "shop", "", 0)
		for _, cert := range all {
			if cert.Replace != nil || cert.Turn != nil {
				t.Errorf("%s: %+v %+v", cert.Site, cert.Replace, cert.Turn)
			}
		}
		return err
	})
	if err := q.CancelReplacement(t.Context(), "shop", s.ID, "ops"); err == nil {
		t.Error("it is ended twice")
	}
}

// One that takes all over from another ends it: it is not left running until it is
// looked at the next time. What only some are taken over from counts them as not
// replaced by it, also when it is canceled later.
func TestAReplacementTakesOver(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 2, Per: 30 * 24 * time.Hour}}, 40)
	var ids []string
	for _, sites := range [][]string{q.asc[37:38], q.asc[37:], q.asc[39:]} {
		s, err := q.Replace(t.Context(), "shop", ReplaceAsk{Sites: sites}, "ops")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	q.pass(2 * gather)
	got, err := q.Replacement(t.Context(), "shop", ids[0])
	if err != nil || got.Ended.IsZero() || got.Done != 0 || got.Left != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = q.Replacement(t.Context(), "shop", ids[1])
	if err != nil || !got.Ended.IsZero() || got.Done != 0 || got.Left != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := q.CancelReplacement(t.Context(), "shop", ids[1], "ops"); err != nil {
		t.Fatal(err)
	}
	got, err = q.Replacement(t.Context(), "shop", ids[1])
	if err != nil || got.Ended.IsZero() || got.Done != 0 || got.Left != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Events(ctx, "shop", store.EventQuery{Kind: "replacement.done"})
		if len(all) != 1 || !strings.Contains(all[0].Text, "0 of 1; a later replacement took") {
			t.Errorf("told: %+v", all)
		}
		return err
	})
}

// What is meant is said by serial number as CAs write it, and nothing is meant by
// nothing.
func TestWhichAreMeant(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	v := farm.Version{Issuer: "ca", Created: at, Leaves: []farm.Leaf{{Serial: "0a1b2c", NotBefore: at.Add(-time.Hour)}}}
	for name, c := range map[string]struct {
		ask  ReplaceAsk
		want bool
	}{
		"issuer":                 {ReplaceAsk{Issuer: "ca"}, true},
		"another issuer":         {ReplaceAsk{Issuer: "other"}, false},
		"before":                 {ReplaceAsk{Before: at.Add(time.Second)}, true},
		"perhaps before":         {ReplaceAsk{Before: at.Add(-time.Minute)}, true},
		"not before":             {ReplaceAsk{Before: at.Add(-time.Hour)}, false},
		"after":                  {ReplaceAsk{After: at.Add(-time.Hour)}, true},
		"not after":              {ReplaceAsk{After: at.Add(time.Second)}, false},
		"serial":                 {ReplaceAsk{Serials: []string{"0A:1B:2C"}}, true},
		"serial without zeros":   {ReplaceAsk{Serials: []string{"a1b2c"}}, true},
		"another serial":         {ReplaceAsk{Serials: []string{"a1b2d"}}, false},
		"serial, another issuer": {ReplaceAsk{Issuer: "other", Serials: []string{"a1b2c"}}, false},
	} {
		if got := c.ask.means(v, plainSerials(c.ask.Serials)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if err := (ReplaceAsk{Before: at}).check(farm.Farm{}); err == nil {
		t.Error("everything is meant by a date")
	}
	for _, serial := range []string{"", "0", "affected.txt"} {
		if err := (ReplaceAsk{Serials: []string{serial}}).check(farm.Farm{}); err == nil {
			t.Errorf("%q is taken for a serial number", serial)
		}
	}
}

// replacement is the newest mass replacement.
func (q *queue) replacement() CampaignStatus {
	q.t.Helper()
	all, err := q.Replacements(q.t.Context(), "shop")
	if err != nil || len(all) == 0 {
		q.t.Fatal(all, err)
	}
	return all[0]
}

// issue gives a site what its order was for, as if it were on all targets at once.
func (q *queue) issue(site string) {
	q.t.Helper()
	q.update(func(ctx context.Context, tx *store.Tx) error {
		v, err := tx.Version(ctx, "shop", "v-"+site)
		if err != nil {
			return err
		}
		v.ID, v.Created = "w-"+site, q.now
		v.Leaves[0].Fingerprint, v.Leaves[0].NotBefore, v.Leaves[0].NotAfter = "g-"+site, q.now, q.now.Add(45*24*time.Hour)
		if err := tx.PutVersion(ctx, v); err != nil {
			return err
		}
		cert, err := tx.Certificate(ctx, "shop", site)
		if err != nil {
			return err
		}
		cert.Version, cert.Intent = v.ID, ""
		if err := tx.PutCertificate(ctx, cert); err != nil {
			return err
		}
		return arm(ctx, tx, "shop", "check", site, q.now)
	})
}
