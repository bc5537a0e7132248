package renew

import (
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
)

func TestFlee(t *testing.T) {
	t.Parallel()
	served := Exposure{Replaced: true, Looked: true, Endpoints: 3, Answered: 3, Unasked: 1, Keys: 1, Copies: []string{"web1"}}
	with := func(change func(*Exposure)) Exposure {
		e := served
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		e     Exposure
		do    Deed
		stage farm.CompromiseStage
		why   string
	}{
		"on the way":              {with(func(e *Exposure) { e.Replaced = false }), Await, farm.Replacing, "not at every target"},
		"nobody looked":           {with(func(e *Exposure) { e.Looked = false }), Look, farm.Replacing, ""},
		"one still serves":        {with(func(e *Exposure) { e.Serving = []string{"web2"} }), Await, farm.Replacing, "web2"},
		"all are silent":          {with(func(e *Exposure) { e.Answered = 0 }), Await, farm.Replacing, "cannot be told"},
		"one is silent":           {with(func(e *Exposure) { e.Answered = 2 }), Revoke, farm.Revoking, ""},
		"nothing to look at":      {with(func(e *Exposure) { e.Looked, e.Endpoints, e.Answered = false, 0, 0 }), Revoke, farm.Revoking, ""},
		"at once":                 {with(func(e *Exposure) { e.Now, e.Replaced, e.Serving = true, false, []string{"web2"} }), Revoke, farm.Revoking, ""},
		"at once, and it is":      {with(func(e *Exposure) { e.Now, e.Replaced, e.Unasked = true, false, 0 }), Await, farm.Replacing, "not at every target"},
		"the CA is slow":          {with(func(e *Exposure) { e.Unasked, e.Revoking = 0, 1 }), Await, farm.Revoking, "the CA"},
		"revoked":                 {with(func(e *Exposure) { e.Unasked = 0 }), Erase, farm.Erasing, ""},
		"revoked before it is":    {with(func(e *Exposure) { e.Unasked, e.Replaced = 0, false }), Await, farm.Replacing, ""},
		"keys are gone from here": {with(func(e *Exposure) { e.Unasked, e.Keys = 0, 0 }), Await, farm.Erasing, "web1"},
		"and from everywhere":     {with(func(e *Exposure) { e.Unasked, e.Keys, e.Copies = 0, 0, nil }), Over, farm.Erasing, ""},
	} {
		if f := Flee(c.e); f.Do != c.do || f.Stage != c.stage || !strings.Contains(f.Why, c.why) || (f.Do == Await) != (f.Why != "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
