package controller

import (
	"context"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
)

// A seer shows the same of every endpoint.
type seer struct{ farm.Sight }

func (s seer) Probe(_ context.Context, q probe.Question) (farm.Sight, error) {
	s.Endpoint = q.Endpoint
	return s.Sight, nil
}

// Only a leaf that is asked for is proof; an answer without one, or with another, is
// none, and the error names the endpoint and the server name.
func TestALookBelievesLeavesOnly(t *testing.T) {
	target := farm.Target{Endpoints: []farm.Endpoint{{Address: "127.0.0.1:1", SNI: "shop.test"}}}
	for name, c := range map[string]struct {
		sight farm.Sight
		want  string
	}{
		"the leaf":      {farm.Sight{Answered: true, Fingerprint: []string{"new"}}, ""},
		"another":       {farm.Sight{Answered: true, Fingerprint: []string{"new", "old"}}, "serves new, old, not new"},
		"no leaf":       {farm.Sight{Answered: true}, "serves nothing"},
		"no answer":     {farm.Sight{}, "serves nothing"},
		"a failed call": {farm.Sight{Answered: true, Fingerprint: []string{"new"}, Error: "cut off"}, "cut off"},
	} {
		controller := New(Config{Prober: seer{c.sight}})
		err := controller.lookOnce(t.Context(), "f", target, "canary.test", []string{"new"})
		if (err == nil) != (c.want == "") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "127.0.0.1:1 (canary.test)")) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
