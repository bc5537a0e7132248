package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func testUI() (u *ui, out, errs *bytes.Buffer) {
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	at := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	return &ui{in: &bytes.Buffer{}, out: out, err: errs, now: func() time.Time { return at }}, out, errs
}

// rolling is a rollout with a canary and the given states in its second wave.
func rolling(n int, state func(i int) farm.State) farm.Rollout {
	r := farm.Rollout{ID: "ro_1", Site: "shop", Reason: "renewal", Waves: []farm.Wave{{Name: "canary"}, {Name: "rest"}}}
	r.Steps = append(r.Steps, farm.Step{Target: "shop/nginx@web1", State: farm.Verified})
	for i := range n - 1 {
		r.Steps = append(r.Steps, farm.Step{Target: fmt.Sprintf("shop/nginx@web%d", i+2), Wave: 1, State: state(i)})
	}
	return r
}

func viewOf(r farm.Rollout) []siteView {
	return []siteView{{progress: controller.Progress{SiteStatus: controller.SiteStatus{Name: "shop"}}, rollout: &r}}
}

func TestAPictureOfFewTargetsNamesThem(t *testing.T) {
	u, _, _ := testUI()
	r := rolling(4, func(i int) farm.State { return []farm.State{farm.Active, farm.Staged, farm.Absent}[i] })
	r.Steps[3].Error = "no route\n to host"
	got := strings.Join(u.render(viewOf(r), 74*time.Second, 60), "\n")
	want := `shop  renewal                                          01:14
  canary  ● web1                                         1/1
  rest    ◐ web2  ◌ web3  – web4                         0/3
          ◌ 1 staged   ◐ 1 active   ● 1 verified
          – 1 absent
  – web4: no route to host`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAPictureOfAHundredTargetsFits(t *testing.T) {
	u, _, _ := testUI()
	all := states()
	r := rolling(100, func(i int) farm.State { return all[i%len(all)] })
	for i := range r.Steps {
		r.Steps[i].Error = strings.Repeat("it went wrong ", 20)
	}
	lines := u.render(viewOf(r), time.Minute, 80)
	if len(lines) > 13 {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		if w := lipgloss.Width(l); w > 80 {
			t.Errorf("%d columns: %s", w, l)
		}
	}
	for _, s := range all {
		if n := strings.Count(strings.Join(lines, "\n"), lookOf(s).sign); n < 100/len(all) {
			t.Errorf("%s is drawn %d times", s, n)
		}
	}
}

func TestEveryStateHasASignOfItsOwn(t *testing.T) {
	seen := map[string]farm.State{}
	for _, s := range states() {
		sign := lookOf(s).sign
		if other, twice := seen[sign]; twice {
			t.Errorf("%s and %s look the same", s, other)
		}
		seen[sign] = s
		if lipgloss.Width(sign) != 1 {
			t.Errorf("%s is %d columns wide", s, lipgloss.Width(sign))
		}
	}
}

func TestOutcomesHaveExitCodes(t *testing.T) {
	for o, want := range map[farm.Outcome]int{
		farm.Done: exitDone, farm.DonePartly: exitPartly, farm.Running: exitPartly, farm.Superseded: exitPartly,
		farm.RolledBack: exitFailed, farm.RolledBackPart: exitFailed, farm.Halted: exitFailed,
	} {
		if got := outcome(farm.Rollout{Outcome: o}); got != want {
			t.Errorf("%q: %d, want %d", o, got, want)
		}
	}
	if worse(exitPartly, exitFailed) != exitFailed || worse(exitDone, exitPartly) != exitPartly || worse(exitDone, exitDone) != exitDone {
		t.Error("what is worse")
	}
}

func TestHowItEndedForASite(t *testing.T) {
	status := func(sync, health string, attention ...string) controller.SiteStatus {
		return controller.SiteStatus{Name: "shop", Sync: sync, Health: health, Attention: attention}
	}
	for name, c := range map[string]struct {
		p    controller.Progress
		r    *farm.Rollout
		exit int
		word string
	}{
		"done":     {controller.Progress{SiteStatus: status("in-sync", "healthy"), Rest: true}, &farm.Rollout{Outcome: farm.Done}, exitDone, "done"},
		"absent":   {controller.Progress{SiteStatus: status("drifted", "degraded"), Rest: true}, &farm.Rollout{Outcome: farm.DonePartly}, exitPartly, "done-partly"},
		"restored": {controller.Progress{SiteStatus: status("in-sync", "degraded"), Rest: true}, &farm.Rollout{Outcome: farm.RolledBack}, exitFailed, "restored"},
		"waiting":  {controller.Progress{SiteStatus: status("unknown", "missing"), Waits: "wave b waits for approval"}, &farm.Rollout{}, exitPartly, "waiting"},
		"nothing":  {controller.Progress{SiteStatus: status("in-sync", "healthy"), Rest: true}, nil, exitDone, "in-sync"},
		"failed":   {controller.Progress{SiteStatus: status("unknown", "degraded", "the order failed"), Rest: true}, nil, exitFailed, "failed"},
	} {
		if got := ended(c.p, c.r); got.Exit != c.exit || got.Outcome != c.word {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestEventLines(t *testing.T) {
	for _, c := range []struct {
		e           farm.Event
		about, text string
	}{
		{farm.Event{Kind: "step.staged", Site: "shop", Node: "web2", Target: "shop/nginx@web2", Text: "shop/nginx@web2 is staged"}, "web2", "staged"},
		{farm.Event{Kind: "step.failed", Site: "shop", Target: "shop/nginx@web2", Text: "shop/nginx@web2: node fault: no space"}, "web2", "failed: node fault: no space"},
		{farm.Event{Kind: "rollout.done", Site: "shop", Text: "done: all"}, "shop", "done: all"},
		{farm.Event{Kind: "farm.applied", Text: "revision 1"}, "farm", "revision 1"},
	} {
		if about, text := subject(c.e); about != c.about || text != c.text {
			t.Errorf("%s: %q %q", c.e.Kind, about, text)
		}
	}
}

func TestSlipsOfTheFinger(t *testing.T) {
	names := []string{"shop", "www", "status-page"}
	for got, want := range map[string]string{"shpo": "shop", "wwww": "www", "statuspage": "status-page", "zebra": "", "x": ""} {
		if near := config.Meant(got, names); near != want {
			t.Errorf("%s: %q, want %q", got, near, want)
		}
	}
}
