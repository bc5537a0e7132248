package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

func TestNewRefuses(t *testing.T) {
	one := []rollout.Target{{Target: farm.Target{Name: "a"}}}
	for want, s := range map[string]rollout.Start{
		"shop: no targets":              {Site: "shop", Policy: farm.Policy{MaxParallel: 1}},
		"max_parallel must be at least": {Site: "shop", Targets: one},
	} {
		r, err := rollout.New(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q", err, want)
		}
		if !cmp.Equal(r, farm.Rollout{}) {
			t.Errorf("New refuses (%s) and returns a rollout all the same", want)
		}
	}
}

// TestNew holds everything that a rollout copies.
func TestNew(t *testing.T) {
	v1, v2 := version("v1", 0.5), version("v2", 1)
	s := rollout.Start{
		ID: "r1", Farm: "home", Site: "shop", Reason: "renewal", To: v2, Forward: true, Now: noon,
		Policy: farm.Policy{MaxParallel: 2, Waves: []farm.WaveSpec{
			{Name: "none", Match: map[string]string{"zone": "moon"}},
			{Name: "north", Match: map[string]string{"zone": "north", "role": "web"}, Approve: true},
		}},
		Targets: []rollout.Target{
			{Target: farm.Target{Name: "cloud", LastWave: true, Labels: map[string]string{"zone": "north", "role": "web"}}},
			{Target: farm.Target{Name: "a", Node: "n1", Group: "nginx", Labels: map[string]string{"zone": "north"}}, From: []farm.VersionFacts{v1}},
			{Target: farm.Target{Name: "b", Node: "n2", Group: "nginx", Labels: map[string]string{"zone": "north", "role": "web"}}},
		},
	}
	got, err := rollout.New(s)
	if err != nil {
		t.Fatal(err)
	}
	to := []string{"v2"}
	want := farm.Rollout{
		ID: "r1", Farm: "home", Site: "shop", Reason: "renewal", Policy: s.Policy, To: v2, Forward: true, Created: noon,
		Waves: []farm.Wave{{Name: "north", Approve: true}, {Name: "rest"}, {Name: "last"}},
		Steps: []farm.Step{
			{Target: "b", Group: "n2/nginx", To: to, State: farm.Planned},
			{Target: "a", Group: "n1/nginx", Wave: 1, To: to, State: farm.Planned, From: []farm.VersionFacts{v1}},
			{Target: "cloud", Group: "/", Wave: 2, To: to, State: farm.Planned},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("New (-want +got):\n%s", diff)
	}
}

// TestNewChanged holds that a changed shape makes a policy more careful, never
// less.
func TestNewChanged(t *testing.T) {
	s := rollout.Start{Changed: true, Policy: farm.Policy{MaxParallel: 1, AbsentMax: farm.Share{Least: 2}}}
	for _, name := range []string{"a", "b", "c"} {
		s.Targets = append(s.Targets, rollout.Target{Target: farm.Target{Name: name}})
	}
	for least, want := range []int{1, 1, 2} {
		s.Policy.Canary.Least = least
		if r, err := rollout.New(s); err != nil || r.Policy.Canary.Of(3) != want || r.Policy.Soak != time.Minute || !r.Changed {
			t.Errorf("canary of at least %d: %+v, %v", least, r.Policy, err)
		}
	}
}

// TestRecordIgnores holds that only the answer to the act in flight counts.
func TestRecordIgnores(t *testing.T) {
	r := farm.Rollout{Steps: []farm.Step{
		{Target: "a", State: farm.Active, Doing: farm.DoVerify, Attempt: 3},
		{Target: "b", State: farm.Planned, Did: farm.DoStage, Attempt: 1, Tries: 1},
	}}
	for name, a := range map[string]farm.Answer{
		"another target":  {Target: "c", Do: farm.DoVerify, Attempt: 3},
		"another verb":    {Target: "a", Do: farm.DoActivate, Attempt: 3},
		"an old attempt":  {Target: "a", Do: farm.DoVerify, Attempt: 2},
		"nothing":         {Target: "b", Attempt: 1},
		"not yet begun":   {Target: "b", Do: farm.DoStage, Attempt: 2},
		"twice":           {Target: "b", Do: farm.DoStage, Attempt: 1},
		"a later attempt": {Target: "a", Do: farm.DoVerify, Attempt: 4},
	} {
		if diff := cmp.Diff(r, rollout.Record(r, a, noon)); diff != "" {
			t.Errorf("%s: an answer to it is recorded:\n%s", name, diff)
		}
	}
	a := farm.Answer{Target: "a", Do: farm.DoVerify, Attempt: 3}
	if rollout.Record(r, a, noon).Steps[0].State != farm.Verified {
		t.Error("the answer to the act in flight is not recorded")
	}
	r.Outcome = farm.Superseded
	if diff := cmp.Diff(r, rollout.Record(r, a, noon)); diff != "" {
		t.Errorf("an answer is recorded after the end:\n%s", diff)
	}
}

// TestRecordKeeps holds that Record and Begin do not touch the rollout they were
// given: it may be the stored one.
func TestRecordKeeps(t *testing.T) {
	start := rollout.Start{Targets: []rollout.Target{{Target: farm.Target{Name: "a"}}}, Policy: farm.Policy{MaxParallel: 1}}
	before, err := rollout.New(start)
	if err != nil {
		t.Fatal(err)
	}
	same, _ := rollout.New(start)
	begun := rollout.Begin(before, rollout.Next(before, false, noon), noon)
	if diff := cmp.Diff(same, before); diff != "" {
		t.Errorf("Begin changed its argument:\n%s", diff)
	}
	kept := begun.Steps[0]
	if done := rollout.Record(begun, farm.Answer{Target: "a", Do: farm.DoStage, Attempt: 1}, noon); done.Steps[0].State != farm.Staged {
		t.Errorf("staged, and yet %s", done.Steps[0].State)
	}
	if diff := cmp.Diff(kept, begun.Steps[0]); diff != "" {
		t.Errorf("Record changed its argument:\n%s", diff)
	}
}

// TestEnded holds that a rollout which has ended wants nothing more.
func TestEnded(t *testing.T) {
	r := farm.Rollout{Outcome: farm.Superseded, Why: "a newer version", Steps: []farm.Step{{Target: "a", State: farm.Planned}}}
	want := rollout.Decision{Outcome: farm.Superseded, Why: "a newer version"}
	if diff := cmp.Diff(want, rollout.Next(r, false, noon)); diff != "" {
		t.Errorf("Next (-want +got):\n%s", diff)
	}
}
