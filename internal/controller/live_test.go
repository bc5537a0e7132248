package controller

import (
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

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
