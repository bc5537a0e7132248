package controller

import (
	"context"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// Who is silent has not come back, whatever else of the node answers.
func TestASilentTargetIsNotBack(t *testing.T) {
	silent, serving := []farm.Sight{{Error: "refused"}}, []farm.Sight{{Answered: true}}
	for name, c := range map[string]struct {
		was  farm.Place
		is   glance
		want bool
	}{
		"reached again, and serves":     {farm.Place{Reach: farm.ReachHalf, Sights: serving}, glance{reach: farm.ReachUp, sights: serving}, true},
		"reached again, but silent":     {farm.Place{Reach: farm.ReachDown, Sights: silent}, glance{reach: farm.ReachUp, sights: silent}, false},
		"serves since, was reached":     {farm.Place{Reach: farm.ReachUp, Sights: silent}, glance{reach: farm.ReachUp, sights: serving}, true},
		"serves, but cannot be reached": {farm.Place{Reach: farm.ReachDown, Sights: silent}, glance{reach: farm.ReachHalf, sights: serving}, false},
		"was never away":                {farm.Place{Reach: farm.ReachUp, Sights: serving}, glance{reach: farm.ReachUp, sights: serving}, false},
		"seen for the first time":       {farm.Place{}, glance{reach: farm.ReachUp, sights: serving}, false},
	} {
		if got := answersAgain(c.was, c.is); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// A controller that is stopped while it starts has not failed.
func TestAControllerThatIsStoppedAtItsStart(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	c := New(Config{Store: storetest.SQLite(t, store.Options{})})
	stop()
	if err := c.Run(ctx); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// What a target goes back to is what must be seen after a restore. A look that
// met nobody is no reason to believe a restore unseen: a crash test found nodes
// that were said to be restored and served nothing.
func TestATargetThatDidNotAnswerGoesBackToWhatItShouldHold(t *testing.T) {
	const old, other = "aa", "bb"
	seen := func(fingerprints ...string) []farm.Sight {
		return []farm.Sight{{Answered: true, Fingerprint: fingerprints}}
	}
	for name, c := range map[string]struct {
		place farm.Place
		want  string
	}{
		"in step":              {farm.Place{Desired: []string{"ver_old"}, Sights: seen(old)}, "ver_old"},
		"an older one of ours": {farm.Place{Desired: []string{"ver_old"}, Drift: "serves bb", Sights: seen(other)}, "ver_other"},
		"somebody else's":      {farm.Place{Desired: []string{"ver_old"}, Drift: "serves cc", Sights: seen("cc")}, ""},
		"silent":               {farm.Place{Desired: []string{"ver_old"}, Drift: "serves nothing", Sights: []farm.Sight{{Error: "refused"}}}, "ver_old"},
		"silent and late":      {farm.Place{Desired: []string{"ver_old"}, Late: "ver_old", Drift: "serves nothing", Sights: []farm.Sight{{Error: "refused"}}}, ""},
		"never had one":        {farm.Place{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, s := t.Context(), storetest.SQLite(t, store.Options{})
			err := s.Update(ctx, func(tx *store.Tx) error {
				for id, leaf := range map[string]string{"ver_old": old, "ver_other": other} {
					if err := tx.PutVersion(ctx, farm.Version{ID: id, Farm: "f", Site: "s", Leaves: []farm.Leaf{{Fingerprint: leaf}}}); err != nil {
						return err
					}
				}
				c.place.Farm, c.place.Target.Site = "f", "s"
				from, err := live(ctx, tx, c.place)
				got := ""
				for _, f := range from {
					got += f.ID
				}
				if got != c.want {
					t.Errorf("goes back to %q, want %q", got, c.want)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
