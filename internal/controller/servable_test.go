package controller

import (
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The way back leads to what was served before, and not to what never was.
func TestTheWayBackWasServed(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	v := func(id, what string) farm.Version {
		one := farm.Version{ID: id, Leaves: []farm.Leaf{{NotAfter: now.Add(time.Hour), Key: farm.KeyRef{Sealed: id}}}}
		switch what {
		case "proven":
			one.Proven = now
		case "withdrawn":
			one.State = farm.VersionWithdrawn
		case "erased":
			one.Leaves[0].Key = farm.KeyRef{}
		case "expired":
			one.Leaves[0].NotAfter = now
		}
		return one
	}
	for name, c := range map[string]struct{ versions, want []string }{
		"none":                          {nil, nil},
		"the one before":                {[]string{"proven", "proven", "proven"}, []string{"0", "1", "2"}},
		"one between never was":         {[]string{"proven", "", "proven"}, []string{"0", "2"}},
		"the newest is not yet":         {[]string{"", "proven", "proven"}, []string{"0", "1", "2"}},
		"nothing is known of the past":  {[]string{"proven", "", ""}, []string{"0", "1", "2"}},
		"no way without a key, or life": {[]string{"proven", "erased", "expired", "withdrawn", "proven"}, []string{"0", "4"}},
	} {
		var all []farm.Version
		for i, what := range c.versions {
			all = append(all, v(string(rune('0'+i)), what))
		}
		if got := servable(all, now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
