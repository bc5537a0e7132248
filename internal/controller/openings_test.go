package controller

import (
	"context"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// New accounts are counted before they are asked for, whatever comes of them.
func TestNewAccountsAreCounted(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Accounts: farm.Rate{Count: 2, Per: 2 * time.Hour}}, 1)
	i := farm.Issuer{Name: "ca", Directory: "https://ca.test/dir", Limits: &farm.Limits{Accounts: farm.Rate{Count: 2, Per: 2 * time.Hour}}}
	take := func() time.Time {
		t.Helper()
		again, err := q.takeOpening(t.Context(), "shop", i)
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	for range 2 {
		if again := take(); !again.IsZero() {
			t.Fatalf("there is no room before %s", again)
		}
	}
	if again := take(); !again.Equal(q.now.Add(time.Hour)) {
		t.Errorf("the third may be opened at %s", again)
	}
	q.now = q.now.Add(time.Hour)
	if again := take(); !again.IsZero() {
		t.Errorf("an hour later there is no room before %s", again)
	}
	i.Limits = nil
	if again := take(); !again.IsZero() {
		t.Error("a CA whose limits nobody knows has no room")
	}
}

// Two sites of one reload group, whose CA suggests windows that overlap, take the same
// time; one on another node keeps its own.
func TestSitesOfOneGroupTakeOneTime(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{}, 3)
	at := func(h int) time.Time { return q.now.Add(time.Duration(h) * time.Hour) }
	chosen := func(site, node string, start, end, chosen int) (got time.Time) {
		t.Helper()
		q.update(func(ctx context.Context, tx *store.Tx) error {
			s, err := stand(ctx, tx, "shop", site)
			if err != nil {
				return err
			}
			s.site.Targets = []farm.Target{{Name: site + "/nginx@" + node, Node: node, Group: "nginx"}}
			v := checked{suggestion: &farm.Suggestion{Leaf: leafOf(s.newest), Start: at(start), End: at(end), Chosen: at(chosen), Ask: at(6)}}
			s.hear(v)
			if err := s.together(ctx, tx, v); err != nil {
				return err
			}
			got = s.cert.ARI.Chosen
			if renew.Due(s.facts(), at(100)).Due && s.cert.ARI.Chosen.After(at(100)) {
				t.Error("it is due before its time")
			}
			return nil
		})
		return got
	}
	first := chosen("s0", "web1", 20, 60, 30)
	second := chosen("s1", "web1", 40, 80, 75)
	if !first.Equal(at(30)) || second.Before(at(40)) || second.After(at(60)) {
		t.Errorf("the first goes at %s, the second at %s, want within both windows", first, second)
	}
	if again := chosen("s0", "web1", 20, 60, 30); !again.Equal(second) {
		t.Errorf("asked again the first goes at %s, want %s", again, second)
	}
	if other := chosen("s2", "web2", 20, 60, 22); !other.Equal(at(22)) {
		t.Errorf("one on another node goes at %s", other)
	}
}
