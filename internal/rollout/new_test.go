package rollout_test

import (
	"strings"
	"testing"

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
