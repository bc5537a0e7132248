package rollout_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

// What Leave does to a step, by how far it has come; the stories tell the rest.
func TestLeave(t *testing.T) {
	when := noon.Add(time.Minute)
	for name, c := range map[string]struct {
		is    farm.Step
		ended bool
		want  farm.State
		doing farm.Verb
	}{
		"planned":                   {farm.Step{State: farm.Planned, Again: when}, false, farm.Gone, ""},
		"being staged":              {farm.Step{State: farm.Planned, Doing: farm.DoStage}, false, farm.Planned, farm.DoStage},
		"staged":                    {farm.Step{State: farm.Staged}, false, farm.Staged, ""},
		"being taken away":          {farm.Step{State: farm.Staged, Doing: farm.DoDiscard}, false, farm.Staged, farm.DoDiscard},
		"being activated":           {farm.Step{State: farm.Staged, Doing: farm.DoActivate, Touched: true}, false, farm.Gone, ""},
		"active":                    {farm.Step{State: farm.Active, Doing: farm.DoVerify, Touched: true}, false, farm.Gone, ""},
		"verified":                  {farm.Step{State: farm.Verified, Verified: when, Touched: true}, false, farm.Gone, ""},
		"failed":                    {farm.Step{State: farm.Failed, Fault: farm.NodeFault, Touched: true, Again: when}, false, farm.Gone, ""},
		"stuck, and stays so":       {farm.Step{State: farm.Stuck, Fault: farm.NodeFault, Touched: true}, false, farm.Stuck, ""},
		"of a rollout that is over": {farm.Step{State: farm.Verified, Touched: true}, true, farm.Verified, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.is.Target, c.is.Error = "a", "before"
			r := farm.Rollout{Steps: []farm.Step{c.is, {Target: "b", State: farm.Planned}}}
			if c.ended {
				r.Outcome = farm.Done
			}
			same := c.want == farm.Stuck || c.ended
			got := rollout.Leave(r, "a", "it is gone")
			if !cmp.Equal(r.Steps[0], c.is) {
				t.Error("what it was given has changed")
			}
			s := got.Steps[0]
			if s.State != c.want || s.Doing != c.doing || s.Verified != c.is.Verified {
				t.Errorf("it is %s, doing %q, want %s, %q", s.State, s.Doing, c.want, c.doing)
			}
			if same != cmp.Equal(got, r) || !same && (s.Leave != farm.Gone || s.Error != "it is gone") {
				t.Errorf("it is to be %q: %s", s.Leave, s.Error)
			}
			if s.State == farm.Gone && (!s.Again.IsZero() || s.Fault != farm.NoFault) {
				t.Errorf("again at %s, %s fault", s.Again, s.Fault)
			}
			if !same && !cmp.Equal(rollout.Leave(got, "a", "another reason").Steps[0].State, s.State) {
				t.Error("said twice, it is another")
			}
			if s.State == farm.Gone && !cmp.Equal(rollout.Leave(got, "a", "another reason"), got) {
				t.Error("said twice, it changes")
			}
		})
	}
	r := farm.Rollout{Steps: []farm.Step{{Target: "a", State: farm.Planned}}}
	if got := rollout.Leave(r, "nobody", "it is gone"); !cmp.Equal(got, r) {
		t.Errorf("a target that is not in it: %+v", got)
	}
}

// A target is taken out at the moment at which a newer version waits: what was
// staged on it is taken away once.
func TestLeaveWhenANewerVersionWaits(t *testing.T) {
	r := farm.Rollout{
		Policy: farm.Policy{MaxParallel: 1}, Superseded: true, To: version("v2", 1), Waves: []farm.Wave{{Name: "rest"}},
		Steps: []farm.Step{
			{Target: "a", Group: "a", State: farm.Staged, Receipt: []byte("r")},
			{Target: "b", Group: "b", State: farm.Staged, Receipt: []byte("r")},
		},
	}
	var discards []string
	for _, act := range rollout.Next(rollout.Leave(r, "a", "it is gone"), false, noon).Acts {
		discards = append(discards, act.Targets...)
		if act.Do != farm.DoDiscard {
			t.Errorf("%s %v", act.Do, act.Targets)
		}
	}
	slices.Sort(discards)
	if !slices.Equal(discards, []string{"a", "b"}) {
		t.Errorf("discards %v, want each once", discards)
	}
}
