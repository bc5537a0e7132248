package main

import (
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// Whatever a rollout waits for, its status says until when.
func TestTheStatusSaysUntilWhen(t *testing.T) {
	at := time.Date(2026, 11, 20, 2, 0, 0, 0, time.Local)
	running := controller.Progress{SiteStatus: controller.SiteStatus{Rollout: "ro_1"}, Newest: "ro_1"}
	with := func(change func(*controller.Progress)) controller.Progress {
		p := running
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		progress     controller.Progress
		waits, again string
	}{
		"a window": {with(func(p *controller.Progress) { p.Waits, p.Again = "outside the maintenance window", at }), "window", "by itself at 2026-11-20 02:00"},
		"a person": {with(func(p *controller.Progress) { p.Waits = "wave b waits for approval" }), "approval", "when a person acts"},
		"a retry":  {with(func(p *controller.Progress) { p.Rollout, p.Retry = "", at }), "", "tried again at 2026-11-20 02:00"},
		"another":  {with(func(p *controller.Progress) { p.Rollout, p.Newest, p.Waits, p.Retry = "ro_2", "ro_2", "frozen", at }), "", ""},
		"nothing":  {running, "", ""},
	} {
		waits, again := untilWhen(c.progress, farm.Rollout{ID: "ro_1"})
		if !strings.Contains(waits, c.waits) || !strings.Contains(again, c.again) || (c.again == "") != (again == "") {
			t.Errorf("%s: %q, %q", name, waits, again)
		}
	}
}
